"""Stored sweeps as tables: what the command showed, and no more than what is stored says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from speed_records import MAMBA, PYTHIA, ceilings, failed, point, replicate, sweep
from stored_sweeps import store_sweep

from mambabench.bench.points import Block
from mambabench.frames.sweeps import known_sizes, speed_table
from mambabench.store import StoredRun
from mambabench.sweep.options import SpeedOptions, SpeedOutcome
from mambabench.sweep.run import run_sweep
from mambabench.tables.speed.table import SpeedTable

STANDIN = Path(__file__).parent.with_name("standin_child.py")
FAKES = ("fake:token_ms=2,weights_mb=1", "fake:token_ms=4,kv_kb=1")


def measured(folder: Path, rules: list[Any] | None = None, **how: Any) -> SpeedOutcome:
    block = Block(FAKES, (256, 128), (4,), (1, 2))
    options = SpeedOptions("latency", (block,), repeats=2, processes=2, ceilings=False, out=folder)
    child = sys.executable, "-S", "-E", str(STANDIN), str(folder.with_suffix(".log")), json.dumps(rules or [])
    return run_sweep(replace(options, **how), child=child)


def table_of(path: Path) -> SpeedTable:
    stored = StoredRun(path)
    return speed_table(stored, stored.replicates(), stored.ceilings())


@pytest.mark.parametrize("kind", ["latency", "throughput", "memory", "conversation"])
def test_a_stored_sweep_gives_the_table_of_its_command(tmp_path: Path, kind: str) -> None:
    rules = [[{"model": FAKES[1], "prompt_len_tokens": 256, "batch_size": 2}, "oom"]]
    outcome = measured(tmp_path / "results", rules, processes=1, kind=kind)
    found = table_of(outcome.path)
    # Load is judged by all cores of the machine; the command judges by those that it may use.
    busy = [replace(row, flags=()) for row in outcome.table.rows]
    assert [replace(row, flags=()) for row in found.rows] == busy
    assert replace(found, rows=(), title="") == replace(outcome.table, rows=(), title="")
    assert [row.status for row in found.rows].count("oom") == 1


def test_points_that_were_not_measured_are_rows(tmp_path: Path) -> None:
    outcome = measured(tmp_path / "results", processes=1)
    records = sorted((outcome.path / "replicates").glob("*.json"))
    for path in records[2:]:
        path.unlink()
    found = table_of(outcome.path)
    assert [row.point for row in found.rows] == [row.point for row in outcome.table.rows]
    assert sorted(row.status for row in found.rows) == ["missing"] * 6 + ["ok"] * 2
    assert found.partial


def test_a_sweep_without_any_record_has_its_points(tmp_path: Path) -> None:
    outcome = measured(tmp_path / "results", processes=1)
    for path in (outcome.path / "replicates").glob("*.json"):
        path.unlink()
    found = table_of(outcome.path)
    assert [row.point for row in found.rows] == [row.point for row in outcome.table.rows]
    assert {row.status for row in found.rows} == {"missing"}


def test_a_longer_axis_of_the_same_run_adds_its_points(tmp_path: Path) -> None:
    first = measured(tmp_path / "results", processes=1, one_run=True, command=("first",))
    block = Block(FAKES, (1024,), (4,), (1, 2))
    rules = [[{"prompt_len_tokens": 1024}, "failed"]]
    second = measured(tmp_path / "results", rules, processes=1, one_run=True, blocks=(block,), command=("b",))
    assert first.path == second.path
    for path in (first.path / "replicates").glob("*1024*.json"):
        path.unlink()
    statuses = {(r.point.prompt_len_tokens, r.status) for r in table_of(first.path).rows}
    assert statuses == {(128, "ok"), (256, "ok"), (1024, "missing")}


def test_of_several_parts_only_what_was_recorded_is_known(tmp_path: Path) -> None:
    blocks = (Block(FAKES[:1], (128,), (4,), (1,)), Block(FAKES[1:], (256,), (8,), (2,)))
    outcome = measured(tmp_path / "results", processes=1, blocks=blocks)
    assert [row.point for row in table_of(outcome.path).rows] == [row.point for row in outcome.table.rows]


def test_processes_asked_for_later_are_missing_until_they_are_there(tmp_path: Path) -> None:
    measured(tmp_path / "results", processes=1, command=("one",))
    outcome = measured(tmp_path / "results", [[{"replicate": 1}, "failed"]], command=("two",))
    for path in (outcome.path / "replicates").glob("*-r1-*.json"):
        path.unlink()
    found = table_of(outcome.path)
    assert found.partial
    assert all("processes missing" in row.flags for row in found.rows)


def test_load_is_judged_by_the_cores_of_the_machine_that_measured(tmp_path: Path) -> None:
    records = [replicate(MAMBA, point(MAMBA), load_average=4.4)]
    quiet = store_sweep(tmp_path / "a", records)
    assert "busy machine" not in table_of(quiet).rows[0].flags
    few = {"processor": {"name": "p", "physical_cores": 1, "logical_cores": 2}}
    assert "busy machine" in table_of(store_sweep(tmp_path / "b", records, environment=few)).rows[0].flags
    unknown = store_sweep(tmp_path / "c", records, environment={"processor": None})
    assert "busy machine" not in table_of(unknown).rows[0].flags


def test_shares_of_ceilings_need_a_registered_model(tmp_path: Path) -> None:
    other = replace(MAMBA, name="my-model")
    stored = StoredRun(store_sweep(tmp_path / "a", sweep(models=[MAMBA, other], prompt_lens=(128,))))
    rows = speed_table(stored, stored.replicates(), [ceilings()]).rows
    assert [row.decode_ceiling_share is None for row in rows] == [False, True]
    assert [row.training_length_tokens for row in rows] == [2048, None]


def test_a_directory_with_a_registered_name_is_told_by_its_weights() -> None:
    alike, other = replicate(PYTHIA, point(PYTHIA)), replicate(MAMBA, point(PYTHIA))
    assert set(known_sizes(["pythia-160m"], [alike])) == {"pythia-160m"}
    assert known_sizes(["pythia-160m"], [other]) == {}
    # Nothing speaks against a model of which nothing was loaded.
    assert set(known_sizes(["pythia-160m"], [failed(point(PYTHIA))])) == {"pythia-160m"}
    assert known_sizes(["fake:nonsense=1", "matmul:1"], []) == {}


def test_a_run_of_another_kind_is_refused(tmp_path: Path) -> None:
    run = store_sweep(tmp_path / "a", sweep(prompt_lens=(128,), processes=1), kind="zeroshot")
    with pytest.raises(ValueError, match="no sweep"):
        table_of(run)


def test_no_model_library_is_imported(tmp_path: Path) -> None:
    run = store_sweep(tmp_path / "a", sweep(prompt_lens=(128,), processes=1))
    code = (
        "import sys; from pathlib import Path; from mambabench.store import StoredRun\n"
        "from mambabench.frames.sweeps import speed_table\n"
        f"run = StoredRun(Path({str(run)!r})); table = speed_table(run, run.replicates(), [])\n"
        "assert len(table.sizes) == 2\n"
        "assert not {'torch', 'transformers', 'lm_eval', 'numba'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
