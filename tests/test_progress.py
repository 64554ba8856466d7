from __future__ import annotations

import io

from mambabench.progress import LinePerMinute, progress


def test_a_log_gets_one_line_a_minute_with_what_is_left() -> None:
    now_s = 0.0
    stream = io.StringIO()
    bar = LinePerMinute(1000, "zeroshot", stream, lambda: now_s)
    bar.stage("mamba-tiny  piqa")
    for _ in range(50):
        now_s += 10
        bar.advance(10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 500 // 60
    assert lines[0] == "zeroshot: 60/1000 requests (6%), 1:00 gone, about 15:40 left; mamba-tiny  piqa"


def test_a_short_run_leaves_a_log_empty(capsys: object) -> None:
    with progress(10, "zeroshot") as bar:
        bar.stage("x")
        bar.advance(10)
    out, err = capsys.readouterr()  # type: ignore[attr-defined]
    assert (out, err) == ("", "")


def test_notes_are_shown_at_once() -> None:
    stream = io.StringIO()
    LinePerMinute(1, "zeroshot", stream).note("out of memory with 8 sequences; going on with 4")
    assert stream.getvalue() == "zeroshot: out of memory with 8 sequences; going on with 4\n"


def test_work_may_be_counted_in_another_unit_and_know_what_is_left() -> None:
    now_s = 0.0
    stream = io.StringIO()
    bar = LinePerMinute(4, "latency", stream, lambda: now_s, unit="processes", left=lambda: 125.0)
    bar.stage("mamba-130m 128+64 eager")
    now_s += 90
    bar.advance(1)
    line = "latency: 1/4 processes (25%), 1:30 gone, about 2:05 left; mamba-130m 128+64 eager\n"
    assert stream.getvalue() == line
