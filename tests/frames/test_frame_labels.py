"""Labels: plain names where they say enough, and never one name for two figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_runs import choice_samples, drawn, stored_run
from speed_records import MAMBA, point
from stored import checkpoint_record

import mambabench
from mambabench.frames.labels import labels_of
from mambabench.frames.load import LoadedRun

MODELS = st.sampled_from(["a", "b", "a (r0)", "a (r0~2)", "<i>"])
TASKS = st.sampled_from(["piqa", "sciq", "mmlu"])


def scores(name: str, tasks: dict[str, set[str]]) -> Any:
    rows = tuple(SimpleNamespace(model=m, task=t) for m, mine in tasks.items() for t in sorted(mine))
    return LoadedRun(name, Path(name), None, zeroshot=SimpleNamespace(rows=rows))  # type: ignore[arg-type]


def sweep(name: str, kind: str, *models: str, **at: Any) -> Any:
    rows = tuple(SimpleNamespace(point=point(replace(MAMBA, name=model), **at)) for model in models)
    return LoadedRun(name, Path(name), None, speed=SimpleNamespace(kind=kind, rows=rows))  # type: ignore[arg-type]


@given(st.lists(st.dictionaries(MODELS, st.sets(TASKS), max_size=4), max_size=4))
def test_no_two_figures_have_one_name(given_runs: list[dict[str, set[str]]]) -> None:
    runs = [scores(f"r{place}", tasks) for place, tasks in enumerate(given_runs)]
    labels = labels_of(runs)
    seen: dict[tuple[str, str], str] = {}
    for run, tasks in zip(runs, given_runs, strict=True):
        mine = [labels[run.name][model] for model in tasks if tasks[model]]
        assert len(set(mine)) == len(mine)
        for model, held in tasks.items():
            if not held:
                continue
            label = labels[run.name][model]
            shared = [
                other
                for other, theirs in zip(runs, given_runs, strict=True)
                if other is not run and theirs.get(model, set()) & held
            ]
            assert (label == model) == (not shared)
            if shared:
                assert label.startswith(f"{model} ({run.name}")
            for task in held:
                assert (label, task) not in seen
                seen[label, task] = run.name


def test_a_sweep_and_scores_of_a_model_have_one_label() -> None:
    runs = [scores("scored", {"a": {"piqa"}}), sweep("timed", "latency", "a"), sweep("held", "memory", "a")]
    assert labels_of(runs) == {name: {"a": "a"} for name in ("scored", "timed", "held")}


@pytest.mark.parametrize(("at", "apart"), [({}, True), ({"prompt_len": 77}, False)])
def test_two_sweeps_are_told_apart_at_the_same_point(at: dict[str, Any], apart: bool) -> None:
    runs = [sweep("one", "latency", "a", "b"), sweep("two", "latency", "a", **at)]
    labels = labels_of(runs)
    assert labels["one"]["b"] == "b"
    expected = ("a (one)", "a (two)") if apart else ("a", "a")
    assert (labels["one"]["a"], labels["two"]["a"]) == expected


def test_what_was_not_computed_yet_has_a_label_of_its_own(tmp_path: Path) -> None:
    """Both runs have a row of the task, although only one has a value."""
    samples = choice_samples(*drawn(20))
    first = stored_run(tmp_path, "m", {"piqa": samples, "sciq": samples})
    again = stored_run(tmp_path / "x", "m", {"piqa": samples})
    next((again / "cells").glob("*.json")).unlink()
    labels = {run.path: run.label("m") for run in mambabench.load_runs(first, again).runs}
    assert len(set(labels.values())) == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("smoke-0a1b2c3d", "mine-99ffee00"), ("0a1b2c3d", "99ffee00")),
        (("smoke-0a1b2c3d", "copied-0a1b2c3d"), ("smoke-0a1b2c3d", "copied-0a1b2c3d")),
        (("smoke-0a1b2c3d", "renamed"), ("0a1b2c3d", "renamed")),
        (("smoke-0a1b2c3g", "smoke-00a1b2c3d"), ("smoke-0a1b2c3g", "smoke-00a1b2c3d")),
    ],
)
def test_a_label_has_no_more_of_the_run_than_tells_it(
    names: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    labels = labels_of([scores(name, {"a": {"piqa"}}) for name in names])
    assert tuple(labels[name]["a"] for name in names) == tuple(f"a ({short})" for short in expected)


@pytest.mark.parametrize(("seeds", "apart"), [((0, 0), False), ((0, 1), True)])
def test_other_weights_of_a_name_are_told_apart(seeds: tuple[int, int], apart: bool) -> None:
    records = [checkpoint_record(name="a", weights="random", seed=seed) for seed in seeds]
    runs = [
        replace(scores("one", {"a": {"piqa"}, "b": {"piqa"}}), checkpoints=(records[0],)),
        replace(scores("two", {"a": {"sciq"}}), checkpoints=(records[1],)),
        sweep("timed", "latency", "a"),
    ]
    labels = labels_of(runs)
    assert labels["one"]["b"] == "b"
    expected = ["a (one)", "a (two)", "a (timed)"] if apart else ["a", "a", "a"]
    assert [labels[name]["a"] for name in ("one", "two", "timed")] == expected
