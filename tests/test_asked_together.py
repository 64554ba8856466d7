"""The tasks of a run asked together: what fails stays where it belongs, and is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import tiny_mamba
from tasks.rows import write_rows

import mambabench.execute
from mambabench.execute import run_zeroshot
from mambabench.suite import suite_from_tasks
from mambabench.zeroshot import ZeroshotOptions, ZeroshotOutcome


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., ZeroshotOutcome]:
    checkpoint = tiny_mamba(tmp_path / "mamba")
    data_dir = write_rows(tmp_path / "data")

    def call(**how: Any) -> ZeroshotOutcome:
        options = ZeroshotOptions(
            models=(str(checkpoint),),
            suite=suite_from_tasks(["piqa", "lambada_openai", "hellaswag"]),
            out=tmp_path / "results",
            data_dir=data_dir,
            verify=False,
            **how,
        )
        return run_zeroshot(options)

    return call


def test_an_error_of_one_task_stays_in_its_cell(
    run: Callable[..., ZeroshotOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks are asked together, but one that cannot be asked must not take the others with it."""
    from mambabench.scoring.shared import SharedScorer
    from mambabench.tasks.lm_eval_backend import MambabenchLM

    score = SharedScorer.score
    scored: list[int] = []

    def count(self: SharedScorer, questions: Any, *rest: Any) -> Any:
        scored.append(len(questions))
        return score(self, questions, *rest)

    monkeypatch.setattr(SharedScorer, "score", count)
    asked = MambabenchLM.loglikelihood

    def fail(self: MambabenchLM, requests: Any, disable_tqdm: bool = True) -> Any:
        if requests[0].task_name == "piqa":
            raise ValueError("no such thing")
        return asked(self, requests, disable_tqdm)

    monkeypatch.setattr(MambabenchLM, "loglikelihood", fail)
    outcome = run()
    assert not outcome.warnings
    assert len(scored) == 1
    assert {c.task.task: c.status for c in outcome.cells} == {
        "piqa": "failed",
        "lambada_openai": "ok",
        "hellaswag": "ok",
    }
    monkeypatch.undo()
    again = run()
    assert not again.failed
    assert again.n_computed == 1


def test_tasks_that_fail_together_say_so_and_are_counted_once(
    run: Callable[..., ZeroshotOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mambabench.scoring.shared import SharedScorer

    class Bar(SimpleNamespace):
        def stage(self, text: str) -> None: ...

        def advance(self, n: int) -> None:
            self.done += n

        def note(self, text: str) -> None:
            self.notes.append(text)

    bars: list[Bar] = []

    def progress(total: int, label: str) -> Any:
        bars.append(Bar(total=total, done=0, notes=[]))
        return nullcontext(bars[-1])

    right, n_calls = SharedScorer._rows, 0

    def fail_once(self: SharedScorer, *rest: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise TypeError("a mistake")
        right(self, *rest)

    monkeypatch.setattr(mambabench.execute, "progress", progress)
    monkeypatch.setattr(SharedScorer, "_rows", fail_once)
    outcome = run(batch_size=4)
    assert not outcome.failed
    (bar,) = bars
    assert bar.done == bar.total
    (said,) = outcome.warnings
    assert bar.notes == [said]
    assert "TypeError: a mistake" in said
