"""Runs from the disk to frames: the command's own rows, and whatever can be wrong with a directory."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from scored_runs import accuracy, choice_samples, drawn, stored_run, task_record
from stored import manifest

import mambabench
from mambabench.cli import cli
from mambabench.errors import UnknownNameError, UsageError
from mambabench.frames.columns import FRAMES, columns_of
from mambabench.schema import MetricRecord, ReadRecord
from mambabench.store import Store

NASTY = "<b>&amp;</b> \"q\" 'a' \\n | _x_ {%} $y$ \u202e\n"


def items(seed: int = 0, n: int = 30) -> list[dict[str, Any]]:
    return choice_samples(*drawn(n, seed=seed))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of the command, and the document that it prints."""
    out = tmp_path_factory.mktemp("results")
    argv = ["mambabench", "zeroshot", "--model", "mamba-tiny", "--model", "pythia-tiny", "--suite", "smoke"]
    argv += ["--limit", "2", "--no-verify", "--json", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        done = CliRunner().invoke(cli, argv[1:], prog_name="mambabench", catch_exceptions=False)
    assert done.exit_code == 0
    return out, json.loads(done.stdout)


def test_scores_are_the_rows_that_the_command_prints(command: tuple[Path, dict[str, Any]]) -> None:
    out, document = command
    runs = mambabench.load_runs(out)
    table = runs.runs[0].zeroshot
    assert table is not None
    assert json.loads(json.dumps(table.as_json())) == document["table"]
    scores = runs.frame("scores")
    names = {
        "label": "task_label", "low": "interval_low", "high": "interval_high", "n": "n_items",
        "n_total": "n_items_total", "source": "reference_source",
    }  # fmt: skip
    assert len(scores) == len(document["table"]["rows"]) > 10
    for (_, mine), printed in zip(scores.iterrows(), document["table"]["rows"], strict=True):
        for name, value in printed.items():
            found = mine[names.get(name, name)]
            assert (pd.isna(found) and value is None) or found == value, name
    averages = runs.frame("averages")
    assert list(averages["value"]) == [a["value"] for a in document["table"]["averages"]]
    assert list(averages["n_tasks"]) == [a["n_tasks"] for a in document["table"]["averages"]]


def test_a_run_tells_what_it_is(command: tuple[Path, dict[str, Any]]) -> None:
    runs = mambabench.load_runs(command[0])
    row = runs.frame("runs").iloc[0]
    assert (row["kind"], row["state"], row["suite"]) == ("zeroshot", "partial", "smoke")
    assert row["models"] == "mamba-tiny, pythia-tiny"
    assert row["command"].startswith("mambabench zeroshot --model mamba-tiny")
    assert (row["n_results"], row["n_failed"], row["n_missing"]) == (14, 0, 0)
    assert row["size_bytes"] == sum(p.stat().st_size for p in command[0].rglob("*") if p.is_file())
    assert (row["mambabench"], row["problem"]) == (mambabench.__version__, "")
    assert json.loads(row["settings"])["limit"] == 2
    loaded = runs.frame("checkpoints").set_index("model")
    printed = command[1]["checkpoints"]["mamba-tiny"]
    assert loaded.loc["mamba-tiny", "n_parameters"] == printed["n_parameters"]
    assert loaded.loc["mamba-tiny", "kernel_path"] == printed["kernel_path"]
    assert loaded.loc["mamba-tiny", "dtype"] == "float32"
    weights = [f["sha256"] for f in printed["files"] if f["name"].endswith(".safetensors")]
    assert [loaded.loc["mamba-tiny", "weights_sha256"]] == weights


def test_every_frame_has_its_columns_and_can_be_changed_by_whoever_asks(
    command: tuple[Path, dict[str, Any]],
) -> None:
    runs = mambabench.load_runs(command[0])
    found = runs.frames()
    assert list(found) == list(FRAMES)
    for name, frame in found.items():
        assert list(frame.columns) == [column.name for column in columns_of(name)]
    found["scores"]["value"] = 0.0
    assert runs.frame("scores")["value"].max() > 0
    with pytest.raises(UnknownNameError, match="unknown frame 'score'"):
        runs.frame("score")
    with pytest.raises(UnknownNameError, match=r"items are had by `samples\(\)`"):
        runs.frame("samples")


def test_importing_and_loading_stay_light(command: tuple[Path, dict[str, Any]]) -> None:
    code = (
        "import sys, mambabench, mambabench.cli\n"
        "assert not {'pandas', 'numpy', 'torch'} & set(sys.modules), 'imported with the package'\n"
        "runs = mambabench.load_runs(sys.argv[1])\n"
        "runs.frame('scores'), runs.frame('contrasts'), runs.frame('steps')\n"
        "assert not {'torch', 'transformers', 'lm_eval', 'numba', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(command[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_damaged_record_costs_what_it_holds(tmp_path: Path) -> None:
    path = stored_run(tmp_path, "base", {"piqa": items(), "sciq": items(1)})
    record = next((path / "cells").glob("*piqa*"))
    record.write_text(record.read_text()[:-40])
    runs = mambabench.load_runs(path)
    scores = runs.frame("scores").set_index("task")
    assert scores.loc["piqa", "error"] == "nothing was computed"
    assert scores.loc["sciq", "value"] == 100 * runs.runs[0].cells[0].metrics[0].value
    row = runs.frame("runs").iloc[0]
    assert (row["state"], row["n_results"], row["n_missing"]) == ("interrupted", 1, 1)
    assert record.name in row["problem"]
    assert "not JSON" in row["problem"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"schema_version": 99}', b"\xff\xfe", b"[" * 99_999]
)
def test_a_damaged_manifest_leaves_a_row(tmp_path: Path, content: bytes) -> None:
    good = stored_run(tmp_path, "base", {"piqa": items()})
    bad = stored_run(tmp_path, "other", {"piqa": items()})
    (bad / "manifest.json").write_bytes(content)
    runs = mambabench.load_runs(good, bad)
    table = runs.frame("runs").set_index("run")
    assert list(table["state"]) == ["complete", "unreadable"]
    assert table.loc[bad.name, "kind"] in ("", None) or pd.isna(table.loc[bad.name, "kind"])
    assert "manifest" in table.loc[bad.name, "problem"]
    assert list(runs.frame("scores")["label"]) == ["base"]
    assert runs.comparison is None
    assert runs.comparison_problem == ""


def test_a_run_that_was_not_begun_is_empty(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(manifest("none", reads=(ReadRecord(task="piqa", metrics=("acc",)),))):
        pass
    runs = mambabench.load_runs(tmp_path)
    assert runs.frame("runs").loc[0, "state"] == "empty"
    scores = runs.frame("scores")
    assert list(scores["error"]) == ["nothing was computed"]
    assert list(scores["verdict"]) == ["failed"]
    assert runs.frame("averages").empty
    assert runs.frame("contrasts").empty


def test_names_pass_through_and_values_that_are_no_numbers_stay(tmp_path: Path) -> None:
    values = {"piqa": math.nan, "sciq": math.inf}
    metrics = {
        task: [MetricRecord(metric="perplexity", value=value, unit="perplexity", n=30)]
        for task, value in values.items()
    }
    reads = tuple(ReadRecord(task=task, metrics=("perplexity",), label=NASTY) for task in values)
    stored_run(
        tmp_path, NASTY, {task: [] for task in values}, metrics=metrics, reads=reads, suite=NASTY,
        command=("mambabench", NASTY),
    )  # fmt: skip
    runs = mambabench.load_runs(tmp_path)
    scores = runs.frame("scores").set_index("task")
    assert set(scores["label"]) == set(scores["model"]) == set(scores["task_label"]) == {NASTY}
    assert math.isnan(scores.loc["piqa", "value"])
    assert scores.loc["sciq", "value"] == math.inf
    assert scores.loc["sciq", "error"] == ""
    assert runs.frame("runs").loc[0, "command"] == f"mambabench {NASTY}"


def test_runs_come_by_time_each_once_and_under_a_name_of_its_own(tmp_path: Path) -> None:
    late = stored_run(tmp_path / "a", "m", {"piqa": items()}, created_utc="2026-02-02T00:00:00Z")
    early = stored_run(tmp_path / "b", "m", {"piqa": items(1)}, created_utc="2026-01-01T00:00:00Z")
    shutil.move(early, early.with_name(late.name))
    early = early.with_name(late.name)
    link = tmp_path / "link"
    link.symlink_to(late)
    runs = mambabench.load_runs(late, link, tmp_path / "b", early / "manifest.json")
    assert [run.path for run in runs.runs] == [early, late]
    assert [run.name for run in runs.runs] == [late.name, f"{late.name}~2"]
    assert list(runs.frame("scores")["label"]) == [f"m ({late.name[-8:]})", f"m ({late.name}~2)"]


def test_a_name_under_results_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored_run(tmp_path / "results", "base", {"piqa": items()})
    monkeypatch.chdir(tmp_path)
    for places in ((), ("results",), (path.name,), (Path("results") / path.name,)):
        assert [run.name for run in mambabench.load_runs(*places).runs] == [path.name]


def test_what_is_asked_for_and_not_there_is_named(tmp_path: Path) -> None:
    path = stored_run(tmp_path / "results", "base", {"piqa": items()})
    (tmp_path / "none").mkdir()
    (tmp_path / "file").touch()
    for place, what in (("none", "holds no runs"), ("file", "is no run"), ("gone", "does not exist")):
        with pytest.raises(UsageError, match=what):
            mambabench.load_runs(path, tmp_path / place)
    with pytest.raises(UsageError, match="no run of kind latency"):
        mambabench.load_runs(path, kinds=["latency"])
    with pytest.raises(UnknownNameError, match="unknown kind 'latenzy'") as raised:
        mambabench.load_runs(path, kinds=["latenzy"])
    assert "latency" in raised.value.hint
    with pytest.raises(UnknownNameError, match="unknown baseline 'bass'") as raised:
        mambabench.load_runs(path, baseline="bass")
    assert "base" in raised.value.hint


def test_kinds_are_picked_and_what_cannot_be_read_is_kept(tmp_path: Path) -> None:
    stored_run(tmp_path, "base", {"piqa": items()})
    stored_run(tmp_path, "other", {"piqa": items()}, kind="imported")
    bad = stored_run(tmp_path, "bad", {"piqa": items()})
    (bad / "manifest.json").write_text("{")
    runs = mambabench.load_runs(tmp_path, kinds=["imported"])
    assert [run.path for run in mambabench.load_runs(tmp_path, kinds="imported").runs] == [
        run.path for run in runs.runs
    ]
    assert [run.manifest.kind if run.manifest else "" for run in runs.runs] == ["imported", ""]
    assert [run.name for run in runs.of_kind("imported")] == [runs.runs[0].name]
    assert runs.of_kind("zeroshot") == []


def test_a_failed_cell_is_a_failed_run(tmp_path: Path) -> None:
    from stored import cell

    made = manifest("failing", models=("m",), reads=(ReadRecord(task="piqa", metrics=("acc",)),))
    with Store(tmp_path).open_run(made) as run:
        error = "ValueError: <odd>"
        run.write_cell(cell(model="m", task=task_record("piqa", 3), status="failed", error=error), [])
    runs = mambabench.load_runs(tmp_path)
    row = runs.frame("runs").iloc[0]
    assert (row["state"], row["n_results"], row["n_failed"], row["n_missing"]) == ("failed", 0, 1, 0)
    assert list(runs.frame("scores")["error"]) == [error]


def test_accuracies_are_in_percent_with_their_interval(tmp_path: Path) -> None:
    samples = items()
    stored_run(tmp_path, "base", {"piqa": samples})
    row = mambabench.load_runs(tmp_path).frame("scores").iloc[0]
    record = accuracy(samples)
    assert record.interval_low is not None
    assert record.interval_high is not None
    assert (row["value"], row["unit"]) == (100 * record.value, "%")
    assert (row["interval_low"], row["interval_high"]) == (
        100 * record.interval_low, 100 * record.interval_high,
    )  # fmt: skip
    assert row["chance"] == 50.0
