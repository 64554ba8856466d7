"""Times at a wish: measured, between two points, or not known; never beyond what was measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wished import rows_of, timed

from mambabench.advise.result import Check
from mambabench.advise.speed import e2e_at, figure_at, time_check
from mambabench.advise.wish import Wish


def _ttft(limit_s: float, wish: Wish, *rows: dict[str, Any]) -> Check:
    return time_check(rows_of(*rows), "ttft", limit_s, wish)


@pytest.mark.parametrize(
    ("limit_s", "state"),
    [(0.25, "kept"), (0.2, "kept"), (0.15, "doubt"), (0.09, "unknown"), (0.04, "broken")],
)
def test_a_measured_point_is_judged_by_the_ends_of_its_interval(limit_s: float, state: str) -> None:
    check = _ttft(limit_s, Wish(1000, 100), timed("m", 1000, 100, ttft_s=(0.05, 0.1, 0.2)))
    assert check.state == state
    assert check.figure is not None
    assert (check.figure.kind, check.figure.value) == ("measured", 0.1)
    assert check.close == (state in ("doubt", "unknown"))


@pytest.mark.parametrize(("method", "word"), [("range", "range"), ("single", "one process")])
def test_fewer_than_six_processes_leave_a_doubt(method: str, word: str) -> None:
    check = _ttft(1.0, Wish(1000, 100), timed("m", 1000, 100, method=method, n_processes=3))
    assert check.state == "doubt"
    assert word in check.doubts[0]


@settings(max_examples=30, deadline=None)
@given(
    share=st.floats(0.0, 1.0),
    first=st.floats(0.01, 1.0),
    growth=st.floats(0.5, 20.0),
    spread=st.floats(1.0, 1.3),
)
def test_between_two_points_the_ends_are_those_of_both(
    share: float, first: float, growth: float, spread: float
) -> None:
    last, prompt_len = first * growth, round(1000 + share * 3000)
    rows = rows_of(
        timed("m", 1000, 100, tpot_s=(first / spread, first, first * spread)),
        timed("m", 4000, 100, tpot_s=(last / spread, last, last * spread)),
    )
    figure = figure_at(rows, "tpot_s", Wish(prompt_len, 100)).figure
    assert figure is not None
    if prompt_len in (1000, 4000):
        assert figure.kind == "measured"
        return
    assert figure.kind == "between"
    assert figure.low == min(first, last) / spread
    assert figure.high == max(first, last) * spread
    # A straight line on logarithms, over the mean depth of the steps.
    slope = math.log(last / first) / math.log(4050 / 1050)
    assert figure.value == pytest.approx(first * ((prompt_len + 50) / 1050) ** slope, rel=1e-9)
    assert [place.prompt_len_tokens for place in figure.places] == [1000, 4000]


def test_the_nearest_points_are_the_ends_and_of_one_run() -> None:
    points = [timed("m", n, 64, ttft_s=n / 1000) for n in (250, 500, 1000, 2000, 4000)]
    elsewhere = timed("m", 1400, 64, ttft_s=1.4, run="another")
    figure = figure_at(rows_of(*points, elsewhere), "ttft_s", Wish(1500, 64)).figure
    assert figure is not None
    assert [place.prompt_len_tokens for place in figure.places] == [1000, 2000]
    assert figure.value == pytest.approx(1.5)
    split = [timed("m", 1000, 64), timed("m", 2000, 64, run="another")]
    assert figure_at(rows_of(*split), "ttft_s", Wish(1500, 64)).figure is None


@pytest.mark.parametrize(
    "wish", [Wish(4001, 64), Wish(999, 64), Wish(2000, 64, conversations=2), Wish(4000, 65)]
)
def test_beyond_what_was_measured_nothing_is_known(wish: Wish) -> None:
    rows = rows_of(timed("m", 1000, 64), timed("m", 4000, 64), timed("m", 2000, 64, batch=4))
    found = figure_at(rows, "tpot_s", wish)
    assert found.figure is None
    assert "measured at" in found.why


def test_output_is_bracketed_too_but_for_the_first_token() -> None:
    rows = rows_of(timed("m", 1000, 16), timed("m", 4000, 16))
    assert figure_at(rows, "tpot_s", Wish(1000, 500)).figure is not None
    assert figure_at(rows, "tpot_s", Wish(1000, 3500)).figure is None
    first = figure_at(rows, "ttft_s", Wish(1000, 3500)).figure
    assert first is not None
    assert first.kind == "measured"


@pytest.mark.parametrize("flag", ["certificate failed", "state differs from the specification",
                                  "torch fallback on a GPU", "a figure not above zero"])  # fmt: skip
def test_some_flags_forbid_the_use_of_a_row(flag: str) -> None:
    for limit_s in (10.0, 0.001):
        check = _ttft(limit_s, Wish(1000, 100), timed("m", 1000, 100, flags=f"busy machine; {flag}"))
        assert check.state == "unknown"
        assert flag in check.why


@pytest.mark.parametrize(
    ("flag", "state"),
    [("busy machine", "doubt"), ("a flag of later", "doubt"), ("emulated memory budget", "kept")],
)
def test_other_flags_leave_a_doubt_or_are_remarked(flag: str, state: str) -> None:
    check = _ttft(1.0, Wish(1000, 100), timed("m", 1000, 100, flags=flag))
    assert check.state == state
    assert flag in (check.doubts if state == "doubt" else check.remarks)


@pytest.mark.parametrize("value", [math.nan, None, 0.0, -1.0, math.inf])
def test_what_is_no_positive_number_is_no_figure(value: float | None) -> None:
    assert _ttft(1.0, Wish(1000, 100), timed("m", 1000, 100, ttft_s=value)).state == "unknown"


def test_ends_that_are_missing_leave_a_doubt() -> None:
    check = _ttft(1.0, Wish(1000, 100), timed("m", 1000, 100, ttft_s=(None, 0.1, None)))
    assert check.state == "doubt"
    assert _ttft(0.01, Wish(1000, 100), timed("m", 1000, 100, ttft_s=(None, 0.1, None))).state == "unknown"


def test_the_whole_time_is_the_sum_of_its_parts() -> None:
    rows = rows_of(timed("m", 1000, 11, ttft_s=(0.9, 1.0, 1.2), tpot_s=(0.09, 0.1, 0.12)))
    whole = e2e_at(rows, Wish(1000, 11))
    assert whole is not None
    assert (whole.low, whole.value, whole.high) == pytest.approx((1.8, 2.0, 2.4))
    one = e2e_at(rows, Wish(1000, 1))
    assert one is not None
    assert one.value == 1.0
    assert e2e_at(rows, Wish(1000, 12)) is None


def test_of_two_runs_at_one_point_the_worse_is_believed() -> None:
    rows = rows_of(timed("m", 1000, 10, ttft_s=0.1), timed("m", 1000, 10, ttft_s=0.3, run="other"))
    for ordered in (rows, rows[::-1]):
        figure = figure_at(ordered, "ttft_s", Wish(1000, 10)).figure
        assert figure is not None
        assert figure.value == 0.3


def test_histories_of_conversations_are_no_prompts() -> None:
    assert rows_of(timed("m", 1000, 10, kind="conversation")) == []


def test_of_two_runs_around_a_wish_the_worse_is_believed() -> None:
    rows = [
        timed("m", n, 64, run=run, ttft_s=(None, value, None))
        for run, values in (("sweep", (0.4, 0.2)), ("other", (0.1, 0.7)))
        for n, value in zip((1000, 2000), values, strict=True)
    ]
    for ordered in (rows, rows[::-1]):
        figure = figure_at(rows_of(*ordered), "ttft_s", Wish(1500, 64)).figure
        assert figure is not None
        assert (figure.low, figure.high) == (0.1, 0.7)
    own = figure_at(rows_of(*rows[:2]), "ttft_s", Wish(1500, 64)).figure
    assert own is not None
    assert (own.low, own.high) == (0.2, 0.4)
