"""Warnings: each kind where it belongs, once, with a way out; nothing where nothing is wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from long_records import ENDS, Run, falling, recalls
from speed_records import MAMBA, PYTHIA, failed, point, replicate, sweep
from stored import cell, checkpoint_record, manifest
from stored_sweeps import conversation, store_sweep

import mambabench
from mambabench.frames.api import Runs
from mambabench.frames.load import LoadedRun
from mambabench.frames.long_warnings import of_long
from mambabench.frames.warning_kinds import KINDS, LONG_ADVICE, SEVERITIES, SEVERITY, SPEED_ADVICE
from mambabench.frames.warnings import _NOTHING_SHIPPED, _of_all
from mambabench.models.record import UNSHIPPED
from mambabench.schema import CertificateRecord, MetricRecord, RunManifest
from mambabench.speed_schema import ReplicateRecord
from mambabench.store import StoredRun
from mambabench.store.rows import write_rows
from mambabench.tables.longcontext.table import LongTable

Rows = list[dict[str, Any]]
CERTIFICATE = CertificateRecord(
    fast_path="a", shipped_path="b", dtype="float32", reference="c", kinds=(), n_tokens=1, n_rounds=1,
    ratio=1.0, bar=2.0, passed=True, wall_s=0.1, made_utc="2025-01-01T00:00:00Z",
)  # fmt: skip


def warned(*places: Path) -> Rows:
    rows: Any = mambabench.load_runs(*places).frame("warnings").to_dict("records")
    return list(rows)


def kinds(rows: Rows) -> list[str]:
    return [row["about"] for row in rows]


def only(rows: Rows, about: str) -> dict[str, Any]:
    [found] = [row for row in rows if row["about"] == about]
    return found


def swept(folder: Path, records: Sequence[ReplicateRecord] | None = None, **more: Any) -> Path:
    if records is None:
        records = sweep(prompt_lens=(128,), certificate=CERTIFICATE, load_average=0.1)
    return store_sweep(folder, records, **more)


def test_every_kind_has_a_severity_and_a_way_out() -> None:
    assert set(KINDS) == set(SEVERITY)
    assert set(KINDS) >= {*SPEED_ADVICE, *LONG_ADVICE}
    order = [SEVERITIES.index(kind.severity) for kind in KINDS.values()]
    assert order == sorted(order)
    for kind in KINDS.values():
        assert kind.advice[0] in "`*" or kind.advice[0].isupper()
        assert kind.advice.endswith(".")
        assert "\n" not in kind.advice
    assert _NOTHING_SHIPPED == UNSHIPPED


def test_a_sound_sweep_has_no_warning(tmp_path: Path) -> None:
    assert warned(swept(tmp_path / "a")) == []


@pytest.mark.parametrize(("seeds", "said"), [((0, 0), False), ((0, 1), True)])
def test_a_name_of_different_weights_is_said(tmp_path: Path, seeds: tuple[int, int], said: bool) -> None:
    runs = [
        LoadedRun(f"r{i}", tmp_path, None, checkpoints=(checkpoint_record(weights="random", seed=seed),))
        for i, seed in enumerate(seeds)
    ]
    found = [row for row in _of_all(Runs(runs)) if row.about == "different weights"]
    texts = ["m stands for different weights in r0 and r1: they are not one model."]
    assert [row.text for row in found] == (texts if said else [])


def test_what_is_unreadable_is_said_first(tmp_path: Path) -> None:
    swept(tmp_path / "a")
    (tmp_path / "a" / "replicates" / "00003.json").write_text("{")
    (tmp_path / "a" / "ceilings").mkdir()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "manifest.json").write_text("{")
    rows = warned(tmp_path)
    assert [row["severity"] for row in rows[:2]] == ["wrong", "wrong"]
    assert (only(rows, "unreadable run")["run"], only(rows, "unreadable part")["run"]) == ("b", "a")
    assert "00003.json" in only(rows, "unreadable part")["text"]
    assert only(rows, "unreadable part")["n"] == 1


def test_flags_are_one_row_a_model(tmp_path: Path) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128, 512), gen_len=8, certificate=CERTIFICATE)
    records += sweep(models=[PYTHIA], prompt_lens=(128, 512), gen_len=64, certificate=CERTIFICATE)
    found = only(warned(swept(tmp_path / "a", records)), "fewer than 64 tokens generated")
    assert (found["label"], found["n"], found["severity"]) == ("mamba-130m", 2, "note")
    assert found["text"] == "mamba-130m: fewer than 64 tokens generated at 2 of 2 points."
    assert found["advice"] == "Not for publication; use `--gen-len 64` or more."


@pytest.mark.parametrize(
    ("status", "about"),
    [
        ("failed", "failed points"), ("killed", "failed points"), ("timeout", "failed points"),
        ("illegal_access", "failed points"), ("oom", "out of memory"), ("skipped_after_oom", "out of memory"),
        ("unsupported", "cannot be measured"),
    ],
)  # fmt: skip
def test_points_that_did_not_end_well(tmp_path: Path, status: Any, about: str) -> None:
    records = [replicate(MAMBA, point(MAMBA, 128), n, certificate=CERTIFICATE) for n in range(6)]
    records += [failed(point(MAMBA, 512), n, status, detail="a <b>reason</b>.") for n in range(6)]
    found = only(warned(swept(tmp_path / "a", records)), about)
    assert (found["label"], found["n"]) == ("mamba-130m", 1)
    assert "1 of 2 points" in found["text"]
    assert found["text"].endswith("a <b>reason</b>.")


def test_few_processes_and_no_certificate(tmp_path: Path) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(128,), processes=2)
    rows = warned(swept(tmp_path / "a", records, settings={"processes": 2}))
    assert only(rows, "few processes")["n"] == 2
    found = only(rows, "not compared with the model as shipped")
    assert (found["label"], found["n"]) == ("mamba-130m", 2)
    bad = CERTIFICATE.model_copy(update={"passed": False})
    records = [r.model_copy(update={"certificate": bad}) for r in records]
    assert only(warned(swept(tmp_path / "b", records)), "certificate failed")["severity"] == "wrong"


def test_a_sweep_that_was_not_finished(tmp_path: Path) -> None:
    records = sweep(prompt_lens=(128,), certificate=CERTIFICATE, processes=4)
    found = only(warned(swept(tmp_path / "a", records)), "interrupted")
    assert (found["run"], found["label"], found["severity"], found["n"]) == ("a", "", "wrong", 2 * 2)
    # Not said of each model again.
    assert "processes missing" not in kinds(warned(tmp_path / "a"))


def test_conversations_that_differ_or_notice_nothing(tmp_path: Path) -> None:
    def told(record: ReplicateRecord, **changes: Any) -> ReplicateRecord:
        assert record.conversation is not None
        return record.model_copy(update={"conversation": record.conversation.model_copy(update=changes)})

    at = point(MAMBA, 512, gen_len=1)
    records = [conversation(at, n, resume_s=0.1) for n in range(6)]
    good = swept(tmp_path / "a", records, settings={"gen_len_tokens": (1,)})
    assert warned(good) == []
    records[2] = told(records[2], certified=False)
    records[3] = told(records[3], forgetful_difference=0.1, tolerance=0.2)
    rows = warned(swept(tmp_path / "b", records, settings={"gen_len_tokens": (1,)}))
    assert (only(rows, "resuming differs")["n"], only(rows, "history is not noticed")["n"]) == (1, 1)
    assert "1 of 6 processes" in only(rows, "resuming differs")["text"]


def test_runs_of_other_machines_and_versions(tmp_path: Path) -> None:
    swept(tmp_path / "a")
    packages = {"packages": {"torch": "2.13.0", "numpy": "2.0.0"}}
    swept(tmp_path / "b", environment=packages | {"processor": {"name": "another", "logical_cores": 4}})
    rows = warned(tmp_path)
    assert only(rows, "mixed machines")["text"].startswith(
        "Sweeps were measured on a processor (cpu) and another"
    )
    assert only(rows, "mixed versions")["text"] == "Runs were made with torch 2.12.0 and 2.13.0."
    assert only(rows, "mixed machines")["run"] == ""


def test_a_run_that_was_continued_elsewhere(tmp_path: Path) -> None:
    path = swept(tmp_path / "a")
    first = json.loads((path / "manifest.json").read_text())
    first["environment"]["git"]["commit"] = "another"
    (path / "manifest-2.json").write_text(json.dumps(first))
    assert warned(path) == []
    first["environment"]["packages"]["torch"] = "3.0"
    (path / "manifest-2.json").write_text(json.dumps(first))
    assert only(warned(path), "resumed elsewhere")["text"] == "a was continued with torch: 2.12.0 -> 3.0."


def scored(folder: Path, make: Callable[[RunManifest], Any] | None = None, **changes: Any) -> Path:
    """Write a zero-shot run of one cell, of which fields are changed."""
    (folder / "cells").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "samples").mkdir()
    accuracy = MetricRecord(
        metric="acc", value=0.5, unit="fraction", interval_low=0.48, interval_high=0.52, n=2000
    )
    made = cell(model="mamba-tiny", metrics=(accuracy,), **changes)
    task = {"task": made.task.task, "metrics": ["acc"], "label": "Last word"}
    run = manifest(suite="own", reads=(task,))
    (folder / "manifest.json").write_text(run.model_dump_json())
    # As the store writes it, which may hold NaN.
    (folder / "cells" / "one.json").write_text(json.dumps(made.model_dump(mode="json")))
    write_rows(StoredRun(folder).samples_path_of(made), [{"doc_id": 0}])
    return folder


def test_cells_that_failed_or_are_partial(tmp_path: Path) -> None:
    assert kinds(warned(scored(tmp_path / "sound"))) == []
    bad = warned(scored(tmp_path / "a", status="failed", error="ValueError:\n  why"))
    assert "ValueError: why" in only(bad, "failed cells")["text"]
    assert only(warned(scored(tmp_path / "b", partial=True)), "partial")["label"] == "mamba-tiny"
    said = only(warned(scored(tmp_path / "c", warnings=("x is odd", "x is odd"))), "said while computing")
    assert (said["text"], said["n"]) == ("mamba-tiny: x is odd.", 2)


@pytest.mark.parametrize("contents", [None, b"", b"PAR1 but not for long PAR1"])
def test_items_that_cannot_be_read(tmp_path: Path, contents: bytes | None) -> None:
    [path] = (scored(tmp_path / "a") / "samples").iterdir()
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    assert only(warned(tmp_path), "no samples")["label"] == "mamba-tiny"
    # Results of other programs need not come with items.
    run = json.loads((tmp_path / "a" / "manifest.json").read_text())
    settings = {"format": "old lm-eval", "files": []}
    (tmp_path / "a" / "manifest.json").write_text(
        json.dumps(run | {"kind": "imported", "settings": settings})
    )
    assert ("no samples" in kinds(warned(tmp_path))) == (contents is not None)
    assert "imported" in kinds(warned(tmp_path))


def test_values_that_are_no_numbers_and_wide_intervals(tmp_path: Path) -> None:
    run = scored(tmp_path / "a")
    path = run / "cells" / "one.json"
    record = json.loads(path.read_text())
    record["metrics"][0] |= {"value": math.nan, "interval_low": None, "interval_high": None}
    path.write_text(json.dumps(record))
    assert only(warned(run), "not a number")["severity"] == "wrong"
    record["metrics"][0] |= {"value": 0.5, "interval_low": 0.4, "interval_high": 0.6, "n": 90}
    path.write_text(json.dumps(record))
    [found] = warned(run)
    assert found["about"] == "few items"
    assert "(95% interval of 20 points over 90 items)" in found["text"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"implementation": "mambabench StepMamba", "certificate": CERTIFICATE}, []),
        ({"implementation": UNSHIPPED}, []),
        ({"implementation": "mambabench StepMamba"}, ["not compared with the model as shipped"]),
        ({"certificate": CERTIFICATE.model_copy(update={"passed": False})}, ["certificate failed"]),
        ({"weights": "random", "seed": 0}, ["random weights"]),
    ],
)
def test_checkpoints(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    run = scored(tmp_path / "a")
    record = checkpoint_record(name="mamba-tiny", **changes)
    (run / "checkpoints" / "one.json").write_text(record.model_dump_json())
    assert kinds(warned(run)) == expected


def long_run(table: LongTable) -> Rows:
    run = LoadedRun("r", Path("r"), None, labels={"mamba-130m": "M"}, long=table)
    return [dict(zip(("about", "text", "label", "n", "advice"), found, strict=True))
            for found in of_long(run, skip_missing=False)]  # fmt: skip


def test_long_context_flags_come_with_what_happened() -> None:
    run = Run(
        (256, 512, 4096), ("mamba-130m", "pythia-160m"), {"needle": falling(512)},
        speeds=(MAMBA, PYTHIA), unsupported={"pythia-160m": 512}, out_of_memory={"mamba-130m": 512},
        n_samples=8,
    )  # fmt: skip
    rows = long_run(run.table())
    assert ENDS in only(rows, "unsupported")["text"]
    assert only(rows, "unsupported")["label"] == "pythia-160m"
    assert "CUDA out of memory" in only(rows, "cost not measured")["text"]
    past = [(r["label"], r["n"]) for r in rows if r["about"] == "past training length"]
    assert past == [("M", 1), ("pythia-160m", 1)]
    assert [(r["label"], r["n"]) for r in rows if r["about"] == "fewer than 20 samples"] == [
        ("M", 3), ("pythia-160m", 2)
    ]  # fmt: skip
    assert set(kinds(rows)) <= set(KINDS)
    sound = Run(tasks={"needle": recalls({256: 0.9, 512: 0.5})}, n_samples=50)
    assert long_run(sound.table()) == []


def test_a_loss_that_overflowed_is_no_number() -> None:
    table = Run(tasks={}, loss=lambda model, length: 3.0).table()
    row = table.rows[0]
    assert row.loss is not None
    metrics = tuple(m.model_copy(update={"value": math.inf}) for m in row.loss.metrics)
    broken = replace(row, loss=row.loss.model_copy(update={"metrics": metrics}))
    found = only(long_run(replace(table, rows=(broken, *table.rows[1:]))), "not a number")
    assert found["n"] == 2


def test_no_runs_have_no_warnings() -> None:
    assert Runs(()).frame("warnings").empty
    assert Runs(()).frame("findings").empty
