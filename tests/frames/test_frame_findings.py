"""Findings: the commands' own sentences, run by run, then of all runs together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from long_records import CASES
from speed_records import MAMBA, PYTHIA, failed, point, sweep
from stored_sweeps import conversation, store_sweep

import mambabench
from mambabench.frames import findings
from mambabench.frames.columns import frame
from mambabench.frames.findings import rows_of_findings
from mambabench.frames.load import LoadedRun
from mambabench.tables.longcontext.words import words
from mambabench.tables.speed import conversation as conversations
from mambabench.tables.speed.words import answers


def texts(runs: Any) -> list[str]:
    return [row["text"] for row in rows_of_findings(runs)]


@pytest.mark.parametrize("budget_bytes", [None, 24 * 10**9])
def test_a_sweep_says_what_its_command_says(tmp_path: Path, budget_bytes: int | None) -> None:
    store_sweep(tmp_path / "a", sweep(prompt_lens=(128, 1024)), settings={"budget_bytes": budget_bytes})
    runs = mambabench.load_runs(tmp_path)
    [run] = runs.runs
    assert run.speed is not None
    found = runs.frame("findings")
    assert list(found.text) == answers(run.speed, budget_bytes=budget_bytes)
    assert set(zip(found.run, found.kind, strict=True)) == {("a", "latency")}
    assert any("conversations" in text.lower() for text in found.text) == (budget_bytes is not None)


def test_conversations_have_their_own_sentences(tmp_path: Path) -> None:
    records = [
        conversation(point(m, 512, gen_len=1), n, resume_s=0.1) for n in range(2) for m in (MAMBA, PYTHIA)
    ]
    store_sweep(tmp_path / "a", records)
    runs = mambabench.load_runs(tmp_path)
    said = conversations.answers(conversations.conversation_rows(records))
    assert list(runs.frame("findings").text) == said
    assert said


def test_a_long_context_run_says_what_its_command_says() -> None:
    table = CASES["usual"]()
    stored: Any = SimpleNamespace(manifest=SimpleNamespace(kind="longcontext"))
    run = LoadedRun("long", Path("long"), stored, long=table)
    runs = SimpleNamespace(runs=(run,), comparison=None, frame=lambda name: frame(name, []))
    assert texts(runs) == words(table)


def test_what_failed_altogether_is_no_finding_of_a_figure(tmp_path: Path) -> None:
    store_sweep(tmp_path / "a", [failed(point(MAMBA), 0, "failed", detail="why")])
    assert not any("tokens/s" in text for text in mambabench.load_runs(tmp_path).frame("findings").text)


def cost(
    label: str, quality: float, value: float, *, front: bool | None, length: int = 128
) -> dict[str, Any]:
    return {
        "label": label, "quality": "recall", "quality_percent": quality, "cost": "tpot_s",
        "cost_value": value, "length_tokens": length, "setting": f"at {length}", "on_front": front,
    }  # fmt: skip


def said_of(*rows: dict[str, Any]) -> list[str]:
    runs = SimpleNamespace(runs=(), comparison=None, frame=lambda name: frame(name, rows))
    return texts(runs)


def test_the_front_is_said_of_the_longest_prompts() -> None:
    longer = [cost("a", 50, 0.02, front=True, length=512), cost("b", 40, 0.03, front=False, length=512)]
    shorter = [cost("a", 50, 0.01, front=True), cost("b", 60, 0.03, front=True)]
    [said] = said_of(*shorter, *longer)
    assert said == (
        "Recall against time of a token (at 512), by values and not by intervals: no other model gives as "
        "much for less than a (50.0% for 20.0 ms); b is beaten."
    )


def test_where_most_models_compete_counts_before_length() -> None:
    alone = [cost("c", 90, 0.01, front=True, length=4096)]
    [said] = said_of(cost("a", 50, 0.03, front=True), cost("b", 40, 0.01, front=True), *alone)
    assert "(at 128)" in said
    assert "than b (40.0% for 10.0 ms) and a (50.0% for 30.0 ms)." in said


def test_nothing_is_said_of_one_model_or_of_what_is_not_known() -> None:
    assert said_of(cost("a", 50, 0.03, front=True)) == []
    assert said_of(cost("a", 50, 0.03, front=True), cost("b", 50, 0.02, front=None)) == []


def test_of_many_models_the_first_are_named() -> None:
    rows = [cost(f"m{i}", 90 - i, 1.0 + i, front=i == 0) for i in range(20)]
    [said] = said_of(*rows)
    assert said.endswith("m1, m2, m3, m4 and 15 others are beaten.")
    assert findings._named(["a", "b", "c"]) == "a, b and c"
