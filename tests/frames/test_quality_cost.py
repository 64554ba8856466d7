"""Quality beside cost: what competes with what, and who is beaten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from long_records import Run, recalls
from speed_records import MAMBA, PYTHIA, Speeds, ceilings, failed, point, sweep
from stored import checkpoint_record
from stored_sweeps import store_sweep

import mambabench
from mambabench.frames.api import Runs
from mambabench.frames.columns import frame
from mambabench.frames.joined import COSTS, device_name, rows_of_quality_cost
from mambabench.frames.load import LoadedRun
from mambabench.frames.sweeps import speed_table
from mambabench.speed_schema import ReplicateRecord
from mambabench.stats.square_and_add import mean_ends
from mambabench.store import StoredRun
from mambabench.tables.zeroshot import Average, Row, ZeroshotTable

TASKS = ("hellaswag", "piqa")


def scored(
    values: dict[str, Sequence[float]], tasks: Sequence[str] = TASKS, name: str = "scores", **how: Any
) -> LoadedRun:
    empty = Row(
        model="", task="", label="", metric="acc", filter="none", headline=True, value=None, unit="%",
        low=None, high=None, n=100, n_total=100, chance=None, reference=None, source="", difference=None,
        verdict="no reference", higher_is_better=True,
    )  # fmt: skip
    rows = [
        replace(empty, model=model, task=task, label=task.upper(), value=v, low=v - 1, high=v + 2)
        for model, found in values.items()
        for task, v in zip(tasks, found, strict=True)
    ]
    # A further metric of a task is in no average.
    rows += [replace(row, metric="acc_norm", headline=False, value=1.0) for row in rows]
    averages = tuple(Average(m, sum(v) / len(v), None, len(v)) for m, v in values.items())
    table = ZeroshotTable("s", "s", tuple(values), False, tuple(rows), averages)
    return LoadedRun(name, Path(name), None, zeroshot=table, **how)


def swept(folder: Path, records: Sequence[ReplicateRecord], **more: Any) -> LoadedRun:
    stored = StoredRun(store_sweep(folder, records, **more))
    table = speed_table(stored, stored.replicates(), [])
    return LoadedRun(folder.name, folder, stored, speed=table, replicates=tuple(records))


def framed(*runs: LoadedRun) -> pd.DataFrame:
    return frame("quality_cost", rows_of_quality_cost(Runs(runs)))


GOOD = {"mamba-130m": (60.0, 70.0), "pythia-160m": (50.0, 60.0)}


def test_accuracies_are_joined_with_sweeps_by_name(tmp_path: Path) -> None:
    run = swept(tmp_path / "sweep", sweep(prompt_lens=(128, 2048)))
    found = framed(scored(GOOD), run)
    assert len(found) == 2 * 2 * 3
    speed = {(r.point.model, r.point.prompt_len_tokens): r for r in run.speed.rows} if run.speed else {}
    for row in found.to_dict("records"):
        estimate = getattr(speed[row["label"], row["length_tokens"]], row["cost"])
        assert (row["cost_value"], row["cost_low"], row["cost_high"], row["cost_method"]) == (
            estimate.value, estimate.low, estimate.high, estimate.method
        )  # fmt: skip
        assert (row["quality_run"], row["cost_run"]) == ("scores", "sweep")
    mamba = found[found.label == "mamba-130m"].iloc[0]
    low, high = mean_ends([(60, 59, 62), (70, 69, 72)])
    assert (mamba.quality_percent, mamba.quality_low_percent, mamba.quality_high_percent) == (65, low, high)
    assert set(found.setting) == {
        "batch 1, prompt of 128 tokens, 64 generated, float32, cpu",
        "batch 1, prompt of 2,048 tokens, 64 generated, float32, cpu",
    }
    assert set(found.cost) == set(COSTS[:3])


def test_the_front_is_by_setting(tmp_path: Path) -> None:
    found = framed(scored(GOOD), swept(tmp_path / "sweep", sweep(prompt_lens=(128, 2048))))
    front = found.set_index(["cost", "length_tokens", "label"]).on_front.sort_index()
    # Mamba is the better one and slower at first; in the end its steps are faster, and it beats the other.
    assert front["tpot_s", 128].to_dict() == {"mamba-130m": True, "pythia-160m": True}
    assert front["tpot_s", 2048].to_dict() == {"mamba-130m": True, "pythia-160m": False}


def test_a_model_competes_in_its_fastest_way(tmp_path: Path) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128,), arms=("eager", "shipped"))
    records += sweep(models=[PYTHIA], prompt_lens=(128,))
    found = framed(scored(GOOD), swept(tmp_path / "sweep", records))
    ways = set(zip(found.label, found.way, strict=True))
    assert ways == {("mamba-130m", "eager"), ("pythia-160m", "eager, sdpa attention")}
    # Ways differ, and the two compete all the same.
    assert len(set(found.setting)) == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"batch_size": 2}, "batch 2"),
        ({"gen_len_tokens": 8}, "8 generated"),
        ({"prefill_chunk_tokens": 64}, "chunks of 64"),
        ({"dtype": "float16"}, "float16"),
        ({"device": "cuda:0"}, "cuda:0"),
    ],
)
def test_other_settings_do_not_compete(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    slow = replace(MAMBA, token_s=1.0, prefill_s=9.0, weights_bytes=10**10)
    records = [
        r.model_copy(update={"point": r.point.model_copy(update=changed)})
        for r in sweep(models=[slow], prompt_lens=(128,), processes=1)
    ]
    worse = {"mamba-130m": (10.0, 10.0), "pythia-160m": (50.0, 60.0)}
    first = swept(tmp_path / "a", sweep(models=[PYTHIA], prompt_lens=(128,), processes=1))
    found = framed(scored(worse), first, swept(tmp_path / "b", records))
    assert found.on_front.all()
    assert any(says in setting for setting in found.setting)
    # Measured alike it is beaten.
    alike = swept(tmp_path / "c", sweep(models=[slow], prompt_lens=(128,), processes=1))
    both = framed(scored(worse), first, alike)
    assert not both[both.label == "mamba-130m"].on_front.any()


def loaded(n_parameters: int, dtype: str = "float32", config: str = "c", weights: int = 0) -> Any:
    return checkpoint_record(
        name="mamba-130m", weights="random", seed=weights, n_parameters=n_parameters, config_sha256=config,
        dtypes={"matmul": dtype},
    )  # fmt: skip


N = MAMBA.weights_bytes // 4
ONE = {"mamba-130m": (60.0, 70.0)}


@pytest.mark.parametrize(("n_parameters", "joined"), [(N, True), (N // 2, False), (2 * N, False)])
def test_weights_of_another_size_are_not_joined(tmp_path: Path, n_parameters: int, joined: bool) -> None:
    run = swept(tmp_path / "sweep", sweep(models=[MAMBA], prompt_lens=(128,), processes=1))
    found = framed(scored(ONE, checkpoints=(loaded(n_parameters),)), run)
    assert bool(len(found)) == joined


@pytest.mark.parametrize(
    ("other", "joined"),
    [
        # Fine-tuned: other weights, and what is timed does not depend on them.
        (loaded(N, weights=1), {"scores", "other"}),
        # By its size the sweep is of the first.
        (loaded(3 * N, config="d"), {"scores"}),
        (loaded(N, config="d"), set()),
    ],
)
def test_what_may_be_of_another_model_of_the_name_is_not_joined(
    tmp_path: Path, other: Any, joined: set[str]
) -> None:
    run = swept(tmp_path / "sweep", sweep(models=[MAMBA], prompt_lens=(128,), processes=1))
    runs = (scored(ONE, checkpoints=(loaded(N),)), scored(ONE, name="other", checkpoints=(other,)))
    assert set(framed(*runs, run).quality_run) == joined


def test_what_is_known_of_no_weights_is_joined_with_one_model_alone(tmp_path: Path) -> None:
    run = swept(tmp_path / "sweep", sweep(models=[MAMBA], prompt_lens=(128,), processes=1))
    named = LoadedRun("a", tmp_path / "a", None, checkpoints=(loaded(N),))
    assert len(framed(scored(ONE), named, run))
    also = LoadedRun("b", tmp_path / "b", None, checkpoints=(loaded(2 * N, config="d"),))
    assert framed(scored(ONE), named, also, run).empty


def test_each_dtype_is_joined_with_its_own_cost(tmp_path: Path) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128,), processes=1)
    half = [r.model_copy(update={"point": r.point.model_copy(update={"dtype": "bfloat16"})}) for r in records]
    wide, narrow = swept(tmp_path / "wide", records), swept(tmp_path / "narrow", half)
    scores = scored(ONE, checkpoints=(loaded(N),))
    rounded = scored(ONE, name="rounded", checkpoints=(loaded(N, "bfloat16"),))
    both = framed(scores, rounded, wide, narrow)
    assert set(zip(both.quality_run, both.cost_run, strict=True)) == {
        ("scores", "wide"),
        ("rounded", "narrow"),
    }
    # Where only one dtype was timed the other has no cost.
    assert set(framed(scores, rounded, wide).quality_run) == {"scores"}
    assert set(framed(scores, narrow).cost_run) == {"narrow"}


def test_other_machines_do_not_compete_and_are_named(tmp_path: Path) -> None:
    slow = replace(MAMBA, token_s=1.0, prefill_s=9.0, weights_bytes=10**10)
    elsewhere = {"processor": {"name": "a slow one", "physical_cores": 1, "logical_cores": 1}}
    runs = (
        swept(tmp_path / "a", sweep(models=[PYTHIA], prompt_lens=(128,), processes=1)),
        swept(tmp_path / "b", sweep(models=[slow], prompt_lens=(128,), processes=1), environment=elsewhere),
    )
    found = framed(scored({"mamba-130m": (10.0, 10.0), "pythia-160m": (50.0, 60.0)}), *runs)
    assert found.on_front.all()
    assert {s.rpartition(", ")[2] for s in found.setting} == {"cpu (a processor)", "cpu (a slow one)"}


def test_means_over_other_tasks_do_not_compete(tmp_path: Path) -> None:
    first = scored({"mamba-130m": (60.0, 70.0)})
    second = scored({"pythia-160m": (10.0, 10.0, 10.0)}, (*TASKS, "arc"), "more")
    third = scored({"pythia-160m": (10.0, 10.0)}, ("arc", "piqa"), "other")
    fast = replace(MAMBA, token_s=1e-6, prefill_s=1e-6, weights_bytes=1)
    run = swept(tmp_path / "a", sweep(models=[fast, PYTHIA], prompt_lens=(128,)))
    found = framed(first, second, third, run)
    assert found.on_front.all()
    assert {s.rpartition(", ")[2] for s in found.setting} == {
        "mean of 2 tasks set 1", "mean of 3 tasks", "mean of 2 tasks set 3"
    }  # fmt: skip


def test_of_a_setting_measured_twice_the_one_of_most_processes_counts(tmp_path: Path) -> None:
    runs = (
        swept(tmp_path / "few", sweep(prompt_lens=(128,), processes=1), created_utc="2026-01-01T00:00:00Z"),
        swept(tmp_path / "many", sweep(prompt_lens=(128,), processes=6)),
        swept(tmp_path / "old", sweep(prompt_lens=(128,), processes=6), created_utc="2000-01-01T00:00:00Z"),
    )
    found = framed(scored(GOOD), *runs)
    assert set(found.cost_run) == {"many"}
    assert len(found) == 2 * 3


def test_recall_is_joined_with_the_sweep_of_its_length(tmp_path: Path) -> None:
    tasks = {"needle": recalls({256: 0.9, 512: 0.5}), "passkey": recalls({256: 0.8, 512: 0.6})}
    table = Run(tasks=tasks, models=("mamba-130m", "other")).table()
    run = LoadedRun("long", tmp_path / "long", None, labels={"mamba-130m": "M"}, long=table)
    found = framed(run, swept(tmp_path / "sweep", sweep(prompt_lens=(256, 1024))))
    assert list(found.label.unique()) == ["M"]
    assert list(found.length_tokens.unique()) == [256]
    mean = table.row("mamba-130m", 256).recall_mean
    assert mean is not None
    assert set(found.quality_percent) == {100 * mean.value}
    assert set(found.quality_low_percent) == {100 * (mean.low or math.nan)}
    assert set(found.quality) == {"recall"}


def test_what_was_not_measured_is_no_row(tmp_path: Path) -> None:
    records = [*sweep(models=[MAMBA], prompt_lens=(128,)), failed(point(PYTHIA, 128))]
    found = framed(scored(GOOD), swept(tmp_path / "sweep", records))
    assert set(found.label) == {"mamba-130m"}
    assert framed(scored(GOOD)).empty
    assert framed().empty


def test_infinite_accuracies_have_no_interval_in_the_mean(tmp_path: Path) -> None:
    values = {"mamba-130m": (math.inf, -math.inf), "pythia-160m": (50.0, 60.0)}
    found = framed(scored(values), swept(tmp_path / "sweep", sweep(prompt_lens=(128,))))
    known = found[found.quality_low_percent.notna()]
    assert set(known.label) == {"pythia-160m"}


def test_a_quality_that_is_no_number_is_on_no_front(tmp_path: Path) -> None:
    values = {"mamba-130m": (math.nan, 70.0), "pythia-160m": (50.0, 60.0)}
    found = framed(scored(values), swept(tmp_path / "sweep", sweep(prompt_lens=(128,))))
    front = found.set_index(["label", "cost"]).on_front.sort_index()
    assert front["mamba-130m"].isna().all()
    assert front["pythia-160m"].all()


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6))
def test_the_front_is_what_nothing_dominates(drawn: list[tuple[int, int]]) -> None:
    table = _tables(tuple(cost for _, cost in drawn))
    run = LoadedRun("sweep", Path("sweep"), table[0], speed=table[1])
    values = {f"m{i}": (float(quality), float(quality)) for i, (quality, _) in enumerate(drawn)}
    rows = [row for row in rows_of_quality_cost(Runs([scored(values), run])) if row["cost"] == "tpot_s"]
    for (quality, cost), row in zip(drawn, rows, strict=True):
        dominated = any(q >= quality and c <= cost and (q, c) != (quality, cost) for q, c in drawn)
        assert row["on_front"] == (not dominated)


def _tables(costs: Sequence[int]) -> tuple[Any, Any]:
    """Return a sweep in which model i takes `costs[i]` seconds a token, exactly."""
    from types import SimpleNamespace

    from mambabench.tables.speed.table import build_speed_table

    models: list[Speeds] = [replace(MAMBA, name=f"m{i}", token_s=float(c)) for i, c in enumerate(costs)]
    records = sweep(
        models=models, prompt_lens=(128,), processes=1, repeats=1, process_noise=0.0, repeat_noise=0.0,
        gen_len=2,
    )  # fmt: skip
    manifest = SimpleNamespace(created_utc="", environment={})
    table = build_speed_table("latency", "", records, [ceilings()], {}, expected=())
    return SimpleNamespace(manifest=manifest), table


@pytest.mark.parametrize(
    ("device", "environment", "name"),
    [
        ("cpu", {"processor": {"name": "p"}}, "p"),
        ("cpu", {"processor": None}, ""),
        ("cuda:1", {"gpus": [{"name": "a"}, {"name": "b"}]}, "b"),
        ("cuda", {"gpus": [{"name": "a"}]}, "a"),
        ("cuda:3", {"gpus": [{"name": "a"}]}, ""),
        ("cuda:0", {}, ""),
    ],
)
def test_the_device_is_named_by_the_environment(
    tmp_path: Path, device: str, environment: dict[str, Any], name: str
) -> None:
    run = swept(tmp_path / "a", sweep(prompt_lens=(128,), processes=1))
    assert run.manifest is not None
    assert run.speed is not None
    manifest = run.manifest.model_copy(update={"environment": environment})
    assert device_name(manifest, run.speed, device) == name


def test_a_sweep_on_a_gpu_without_ceilings_is_not_said_to_be_of_the_processor(tmp_path: Path) -> None:
    records = [
        r.model_copy(update={"point": r.point.model_copy(update={"device": "cuda:0"})})
        for r in sweep(models=[MAMBA], prompt_lens=(128,), processes=1)
    ]
    store_sweep(tmp_path / "a", records, environment={"gpus": [{"name": "a card"}]})
    assert list(mambabench.load_runs(tmp_path).frame("runs").device_name) == ["a card"]
