"""Conversation costs in rows, sentences, a table and figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from mambabench.plots.speed.conversation import conversation_figures, save_conversation_figures
from mambabench.speed_schema import (
    ConversationOperationRecord,
    ConversationRecord,
    PointRecord,
    ReplicateRecord,
)
from mambabench.tables.speed.conversation import OPERATIONS, answers, conversation_rows
from mambabench.tables.speed.conversation_terminal import render

STATE = {"mamba-x": lambda n: 1000, "pythia-x": lambda n: 10 * n}
MOVED = {
    "mamba-x": {"resume": 0, "fork": 4000, "rewind": 1000, "save": 1100},
    "pythia-x": {"resume": 640, "fork": 40, "rewind": 0, "save": 1100},
}


def record(model: str, history: int, number: int = 0, **changes: Any) -> ReplicateRecord:
    point = PointRecord(
        model=model, batch_size=1, prompt_len_tokens=history, gen_len_tokens=1, arm="eager", attention="none",
        dtype="float32", device="cpu",
    )  # fmt: skip
    slower = 1 + 0.1 * number
    seconds = dict.fromkeys(OPERATIONS, 0.001 * slower) | {"prefill_again": 1e-5 * history * slower}
    operations = tuple(
        ConversationOperationRecord(
            operation=name, times_s=(t, t, 100 * t), bytes_moved=MOVED[model].get(name, 0)
        )
        for name, t in seconds.items()
    )  # fmt: skip
    conversation = ConversationRecord(
        turn_len_tokens=64, n_forks=4, history_state_bytes=STATE[model](history),
        history_state_bytes_spec=None, forked_state_bytes=0, certified=True, max_difference=0.0,
        operations=operations,
    )  # fmt: skip
    fields: dict[str, Any] = {
        "fingerprint": f"{model}{history}{number}", "kind": "conversation", "point": point,
        "replicate": number, "order": 0, "status": "ok", "conversation": conversation,
        "past_training_length": model == "pythia-x" and history > 500,
    }  # fmt: skip
    return ReplicateRecord(**{**fields, **changes})


BOTH = [record(m, n, i) for m in STATE for n in (400, 1600) for i in range(2)]


def test_rows_hold_medians_of_each_process_and_pairwise_ratios() -> None:
    rows = conversation_rows(BOTH)
    assert [(r.point.model, r.point.prompt_len_tokens) for r in rows] == [
        ("mamba-x", 400), ("mamba-x", 1600), ("pythia-x", 400), ("pythia-x", 1600),
    ]  # fmt: skip
    resume = rows[1].times["resume"]
    # The outlier of each process is not in its median.
    assert (resume.low, resume.high, resume.n, resume.method) == (0.001, pytest.approx(0.0011), 2, "range")
    ratio = rows[1].prefill_over_resume
    assert ratio is not None
    assert ratio.value == pytest.approx(16)
    assert ratio.low == pytest.approx(ratio.high)
    assert (rows[1].state_bytes, rows[1].fork_bytes, rows[1].rewind_bytes, rows[1].file_bytes) == (
        1000, 4000, 1000, 1100,
    )  # fmt: skip
    assert rows[3].turn_bytes == 640
    assert rows[0].as_json()["times"]["resume"]["n"] == 2


def test_sentences_say_what_a_kept_state_saves_and_takes() -> None:
    said = answers(conversation_rows(BOTH))
    assert said[0].startswith(
        "mamba-x: with 1,600 tokens of history, the reply to a turn of 64 tokens begins after 1.05 ms from "
        "the kept state; forwarding everything again takes 16.00 (range 16.00 to 16.00 of 2 processes) times"
    )
    assert said[1] == (
        "mamba-x: a kept conversation takes 1 kB whether the history is 400 tokens or 1,600; going back "
        "before a turn takes 1 kB held for each turn; 4 continuations of one history take 4 kB besides it."
    )
    assert (
        "takes 4 kB after 400 tokens and 16 kB after 1,600; going back before a turn takes nothing" in said[3]
    )
    assert (
        said[4]
        == "A kept conversation of 1,600 tokens takes 1 kB with mamba-x, 16.00 times as much with pythia-x."
    )
    assert len(answers(conversation_rows(BOTH[:2]))) == 2


def test_the_table_drops_columns_before_it_cuts_figures() -> None:
    stream = io.StringIO()
    render("conversations", conversation_rows(BOTH), stream)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 120
    assert "1,600*" in text
    assert "…" not in text
    assert "fewer than 6 give no interval" in text
    assert "* past the length" in text


def test_a_comparison_that_cannot_fail_is_marked() -> None:
    def of(model: str, forgetful: float | None) -> ReplicateRecord:
        made = record(model, 400)
        assert made.conversation is not None
        changes = {"tolerance": 0.5, "forgetful_difference": forgetful}
        return made.model_copy(update={"conversation": made.conversation.model_copy(update=changes)})

    rows = conversation_rows([of("mamba-x", 0.5), of("pythia-x", 0.6)])
    assert [row.forgetful for row in rows] == [True, False]
    stream = io.StringIO()
    render("conversations", rows, stream)
    text = stream.getvalue()
    assert text.count("400†") == 1
    assert "† this model's reply hardly depends on its history: the comparison says nothing." in text
    assert not any(row.forgetful for row in conversation_rows([of("mamba-x", None)]))
    stream = io.StringIO()
    render("conversations", conversation_rows([of("pythia-x", 0.6)]), stream)
    assert "†" not in stream.getvalue()


def test_what_failed_stands_in_the_table_with_its_reason() -> None:
    broken = record("mamba-x", 400, status="unsupported", detail="there is no code", conversation=None)
    stream = io.StringIO()
    rows = conversation_rows([broken, record("pythia-x", 400)])
    render("conversations", rows, stream)
    assert "unsupported (mamba-x, history 400): there is no code" in stream.getvalue()
    assert [s.partition(":")[0] for s in answers(rows)] == ["pythia-x", "pythia-x"]


def test_figures_show_both_ways_and_the_state(tmp_path: Path) -> None:
    paths = save_conversation_figures(BOTH, tmp_path, formats=["svg"])
    assert [p.name for p in paths] == ["conversation_reply.svg", "conversation_state.svg"]
    reply = conversation_figures(BOTH)["conversation_reply"]
    [axes] = reply.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    again = lines["pythia-x everything forwarded again"]
    assert list(again.get_xdata()) == [400, 1600]
    assert list(again.get_ydata()) == pytest.approx([0.0042, 0.0168], rel=2e-3)
    assert (
        "pythia-x, everything forwarded again: 4.2 ms at 400 to 16.8 ms at 1,600 tokens." in reply.description
    )
    assert conversation_figures(BOTH[:2]) == {}
