"""Frames contrasts and steps: what `mambabench compare` says of the same runs, and who is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scored_runs import Samples, choice_samples, drawn, stored_run, task_record

import mambabench
from mambabench.compare.curves import curves
from mambabench.compare.result import CompareOptions
from mambabench.compare.run import compare_sides
from mambabench.compare.sources import parse_given, sides_of
from mambabench.frames import contrasts
from mambabench.store import StoredRun

TASKS = ("piqa", "sciq", "hellaswag")


def samples(task: str, noise: float = 0.0, n: int = 60, **more: Any) -> Samples:
    """Items of a task; answers to them change with the noise."""
    seed = TASKS.index(task) if task in TASKS else 9
    scores, right = drawn(n, seed=seed)
    moved = scores + noise * np.random.default_rng(seed + round(100 * noise)).normal(size=scores.shape)
    return choice_samples(moved, right, **more)


def suite_run(
    root: Path, model: str, noise: float = 0.0, *, tasks: tuple[str, ...] = TASKS, **changes: Any
) -> Path:
    return stored_run(root, model, {task: samples(task, noise) for task in tasks}, **changes)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for place, (model, noise) in enumerate({"base": 0.0, "near": 0.3, "far": 40.0}.items()):
        suite_run(root, model, noise, created_utc=f"2026-01-0{place + 1}T00:00:00Z")
    return root


def test_contrasts_are_those_of_the_command(three: Path) -> None:
    runs = mambabench.load_runs(three)
    given = [parse_given(str(run.path)) for run in runs.runs]
    sides = sides_of(given)
    expected = compare_sides(sides, sides[0], contrasts.OPTIONS).comparison
    found = runs.comparison
    assert found is not None
    assert found.contrasts == expected.contrasts
    assert found.overall == expected.overall
    assert found.remarks == expected.remarks
    frame = runs.frame("contrasts")
    assert len(frame) == len(expected.contrasts) + len(expected.overall) == 2 * 3 * 2 + 2
    names = {
        "task_label": "label", "interval_low": "low", "interval_high": "high", "n_items": "n",
        "p_equivalence": "p_equivalence_adjusted",
    }  # fmt: skip
    rows = frame[frame["task"] != "overall"]
    for (_, row), one in zip(rows.iterrows(), expected.contrasts, strict=True):
        assert row["baseline"] == "base"
        for name, value in row.drop("baseline").items():
            there = getattr(one, names.get(str(name), str(name)))
            assert (pd.isna(value) and there is None) or value == there, name
    means = frame[frame["task"] == "overall"].set_index("candidate")
    for overall in expected.overall:
        row = means.loc[overall.candidate]
        assert (row["difference"], row["p_adjusted"]) == (overall.difference, overall.p_adjusted)
        assert (row["interval_low"], row["verdict"]) == (overall.low, overall.verdict)
    assert means.loc["far", "verdict"] == "worse"


def test_the_baseline_is_who_is_asked_for(three: Path) -> None:
    runs = mambabench.load_runs(three, baseline="far")
    frame = runs.frame("contrasts")
    assert set(frame["baseline"]) == {"far"}
    assert set(frame["candidate"]) == {"base", "near"}
    assert runs.compared is not None
    assert runs.compared.labels[0] == "far"
    assert len(runs.compared.tasks) == len(TASKS)


def test_one_model_is_compared_with_nobody(three: Path) -> None:
    runs = mambabench.load_runs(next(iter(three.glob("*base*"))))
    assert runs.comparison is None
    assert runs.comparison_problem == ""
    assert runs.frame("contrasts").empty


def test_models_without_a_task_in_common_are_said_to_have_none(tmp_path: Path) -> None:
    suite_run(tmp_path, "one", tasks=("piqa",))
    suite_run(tmp_path, "two", tasks=("sciq",))
    runs = mambabench.load_runs(tmp_path)
    assert runs.comparison is None
    assert runs.comparison_problem == "no two models have a task in common"
    assert (
        mambabench.load_runs(tmp_path, baseline="two").comparison_problem
        == "no other model has a task of two"
    )


def test_who_shares_next_to_nothing_is_left_out_and_named(tmp_path: Path) -> None:
    for model, noise in {"a": 0.0, "b": 0.5, "c": 1.0}.items():
        suite_run(tmp_path, model, noise)
    suite_run(tmp_path, "few", 0.2, tasks=("piqa",))
    comparison = mambabench.load_runs(tmp_path).comparison
    assert comparison is not None
    assert [side.label for side in comparison.candidates] == ["b", "c"]
    assert {one.task for one in comparison.contrasts} == set(TASKS)
    assert any("few tasks or none in common: few" in remark for remark in comparison.remarks)
    # Asked for, it is compared on what it has.
    frame = mambabench.load_runs(tmp_path, baseline="few").frame("contrasts")
    assert set(frame["task"]) == {"piqa"}
    assert set(frame["candidate"]) == {"a", "b", "c"}


def test_who_was_asked_otherwise_costs_only_itself(tmp_path: Path) -> None:
    suite_run(tmp_path, "a")
    suite_run(tmp_path, "b", 0.5)
    asked = {task: samples(task, 0.5, prompt="Otherwise {}?") for task in TASKS}
    stored_run(tmp_path, "other", asked)
    shots = {task: task_record(task, 60, n_fewshot=5) for task in TASKS}
    suite_run(tmp_path, "shots", 0.5, records=shots)
    runs = mambabench.load_runs(tmp_path)
    assert runs.comparison is not None
    assert [side.label for side in runs.comparison.candidates] == ["b"]
    said = [remark for remark in runs.comparison.remarks if "asked otherwise" in remark]
    assert len(said) == 1
    assert "other, shots" in said[0]
    # Two that differ have nobody else.
    pair = mambabench.load_runs(*(run.path for run in runs.runs if run.label("a") and run.name[9:10] in "ao"))
    assert pair.comparison is None
    assert "the prompt of document 0 differs" in pair.comparison_problem


@pytest.mark.parametrize("how", ["cut", "gone", "changed", "record"])
def test_damage_costs_the_task_that_it_is_in(tmp_path: Path, how: str) -> None:
    first = suite_run(tmp_path, "a")
    suite_run(tmp_path, "b", 0.5)
    path = next((first / "samples").glob("*piqa*"))
    record = next((first / "cells").glob("*piqa*"))
    if how == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif how == "gone":
        path.unlink()
    elif how == "changed":
        path.write_bytes(next((first / "samples").glob("*sciq*")).read_bytes())
    else:
        record.write_text("{")
    runs = mambabench.load_runs(tmp_path)
    comparison = runs.comparison
    assert comparison is not None
    assert {one.task for one in comparison.contrasts} == {"sciq", "hellaswag"}
    assert any("piqa" in remark for remark in comparison.remarks)
    # What a file holds shows when its items are read, that it is damaged at once.
    problems = runs.frame("runs").set_index("run")["problem"]
    assert ("piqa" in problems[first.name]) == (how != "changed")
    assert set(problems.drop(first.name)) == {""}


def test_a_name_may_stand_for_two_runs_of_other_tasks(tmp_path: Path) -> None:
    suite_run(tmp_path, "base", created_utc="2026-01-01T00:00:00Z")
    for place, task in enumerate(("piqa", "sciq")):
        made = f"2026-01-0{place + 2}T00:00:00Z"
        suite_run(tmp_path / task, "m", 40.0, tasks=(task,), created_utc=made)
    runs = mambabench.load_runs(tmp_path, tmp_path / "piqa", tmp_path / "sciq")
    assert [run.label("m") for run in runs.runs] == ["m", "m", "m"]
    frame = runs.frame("contrasts")
    assert set(frame["task"]) == {"piqa"}
    values = runs.frame("scores").set_index(["label", "task"])["value"]
    row = frame[frame["measure"] == "acc"].iloc[0]
    assert (row["baseline_value"], row["candidate_value"]) == (values["base", "piqa"], values["m", "piqa"])


def test_of_two_results_of_one_task_none_is_compared(tmp_path: Path) -> None:
    path = suite_run(tmp_path, "a")
    suite_run(tmp_path, "b", 0.5)
    cell = next(c for c in StoredRun(path).cells() if c.task.task == "piqa")
    twin = cell.model_copy(update={"fingerprint": "0" * 64})
    (path / "cells" / "a-piqa-0000000000000000.json").write_text(twin.model_dump_json())
    runs = mambabench.load_runs(tmp_path)
    assert set(runs.frame("contrasts")["task"]) == {"overall", "sciq", "hellaswag"}
    scores = runs.frame("scores").set_index(["label", "task"])
    assert scores.loc[("a", "piqa"), "error"] == "two results for one task"


def test_of_many_items_log_likelihoods_are_not_compared(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mambabench.load_runs(three).frame("contrasts")
    monkeypatch.setattr(contrasts, "MOST_DRAWS", 3 * 60 * 10_000 * 2 - 1)
    runs = mambabench.load_runs(three)
    assert "log-likelihood" in set(whole["measure"])
    assert "log-likelihood" not in set(runs.frame("contrasts")["measure"])
    assert runs.comparison is not None
    assert any("log-likelihoods are not compared" in remark for remark in runs.comparison.remarks)
    monkeypatch.setattr(contrasts, "MOST_DRAWS", 3 * 60 * 10_000 * 2)
    assert mambabench.load_runs(three).frame("contrasts").equals(whole)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    for place, step in enumerate((0, 100, 200, 300, 400, 500)):
        suite_run(root, f"tuned@step{step}", 3.0 - 0.5 * place, tasks=("piqa", "sciq"))
    suite_run(root, "base", 0.1, tasks=("piqa", "sciq"))
    return root


def test_steps_are_those_of_the_command(trained: Path) -> None:
    runs = mambabench.load_runs(trained)
    sides = sides_of([parse_given(str(path)) for path in sorted(trained.glob("*step*"))])
    expected = curves(sides, CompareOptions())
    found = runs.curves
    assert found is not None
    assert found == replace(expected, remarks=found.remarks)
    frame = runs.frame("steps")
    assert set(frame["series"]) == {"tuned"}
    assert len(frame) == 3 * 6
    for curve in expected.curves:
        mine = frame[(frame["task"] == curve.task) & (frame["metric"] == curve.metric)]
        assert list(mine["step"]) == [point.step for point in curve.points]
        assert list(mine["value"]) == [point.value for point in curve.points]
        assert list(mine["interval_low"]) == [point.low for point in curve.points]
        assert list(mine["contender"]) == [point.contender for point in curve.points]
        assert list(mine[mine["best"]]["step"]) == [curve.best.step]
        assert set(mine["label"]) == {f"tuned@step{step}" for step in mine["step"]}


def test_of_many_checkpoints_the_last_one_is_compared(trained: Path) -> None:
    comparison = mambabench.load_runs(trained).comparison
    assert comparison is not None
    labels = {comparison.baseline.label, *(side.label for side in comparison.candidates)}
    assert labels == {"base", "tuned@step500"}
    assert any("of tuned only the last of 6 steps is compared" in r for r in comparison.remarks)
    asked = mambabench.load_runs(trained, baseline="tuned@step0").comparison
    assert asked is not None
    assert len(asked.candidates) == 6


def test_of_steps_that_have_no_task_in_common_nothing_is_said_to_be_compared(
    trained: Path, tmp_path: Path
) -> None:
    for model in ("one", "two"):
        suite_run(tmp_path, model, tasks=("other",), created_utc="2020-01-01T00:00:00Z")
    steps = [path for path in trained.iterdir() if "tuned" in path.name]
    comparison = mambabench.load_runs(tmp_path, *steps).comparison
    assert comparison is not None
    assert [side.label for side in comparison.candidates] == ["two"]
    assert not any("is compared" in remark for remark in comparison.remarks)
    assert any("few tasks or none in common: tuned@step500" in remark for remark in comparison.remarks)


def test_steps_that_were_evaluated_twice_make_two_series(tmp_path: Path) -> None:
    for day, noise in (("1", 0.5), ("2", 1.0)):
        for step in (1, 2):
            made = f"2026-01-0{day}T00:00:00Z"
            suite_run(tmp_path / day, f"m@step{step}", noise * step, tasks=("piqa",), created_utc=made)
    steps = mambabench.load_runs(tmp_path / "1", tmp_path / "2").frame("steps")
    scores = mambabench.load_runs(tmp_path / "1", tmp_path / "2").frame("scores").set_index("label")["value"]
    assert list(steps["series"]) == ["m", "m", "m~2", "m~2"]
    assert list(steps["step"]) == [1, 2, 1, 2]
    assert list(steps["value"]) == list(scores)
    assert list(steps["label"]) == list(scores.index)


def test_a_command_tells_apart_checkpoints_of_one_name(tmp_path: Path) -> None:
    for training in ("lr1", "lr2"):
        for step in (10, 20):
            command = ("mambabench", "zeroshot", "--model", f"out/{training}/checkpoint-{step}")
            suite_run(tmp_path / training, f"checkpoint-{step}", step / 20, tasks=("piqa",), command=command)
    steps = mambabench.load_runs(tmp_path / "lr1", tmp_path / "lr2").frame("steps")
    assert set(steps["series"]) == {"lr1", "lr2"}
    assert steps["label"].nunique() == 4


def test_a_series_without_a_task_in_common_is_named(tmp_path: Path) -> None:
    for model, task in {"a@step1": "piqa", "a@step2": "sciq", "b@step1": "piqa", "b@step2": "piqa"}.items():
        suite_run(tmp_path, model, tasks=(task,))
    found = mambabench.load_runs(tmp_path).curves
    assert found is not None
    assert found.series == ("b",)
    assert "a: its steps have no task in common" in found.remarks
