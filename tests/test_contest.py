"""Models that are compared are evaluated once, in the runs that the command for one model makes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from builders import tiny_mamba, tiny_neox
from tasks.rows import write_rows

import mambabench.models.load
import mambabench.tasks.offline
from mambabench.compare.sources import Given, parse_given
from mambabench.contest import Asked, contest_options, evaluate_first
from mambabench.errors import CheckpointError, UsageError
from mambabench.execute import run_zeroshot
from mambabench.store import Store, StoredRun
from mambabench.suite import Suite, load_suite, suite_from_tasks
from mambabench.zeroshot import ZeroshotOptions

FEW = suite_from_tasks(["piqa", "lambada_openai"])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_mamba(folder / "base")
    tiny_neox(folder / "tuned")
    shutil.copytree(folder / "base", folder / "copy")
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, checkpoints: Path) -> Path:
    """A run of both models."""
    models = tuple(str(checkpoints / name) for name in ("base", "tuned"))
    out = tmp_path_factory.mktemp("both")
    return run_zeroshot(ZeroshotOptions(models, FEW, out=out, data_dir=data_dir)).path


def refuse(*args: Any, **more: Any) -> Any:
    raise AssertionError("must not be needed")


def given(checkpoints: Path, *names: str) -> list[Given]:
    return [parse_given(str(checkpoints / name)) for name in names]


def options(out: Path, data_dir: Path, suite: Suite = FEW, **more: Any) -> ZeroshotOptions:
    return contest_options(Asked(suite=suite, **more), [], out=out, data_dir=data_dir)


def test_either_command_finds_the_run_of_the_other(
    checkpoints: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run_zeroshot(ZeroshotOptions((str(checkpoints / "base"),), FEW, out=tmp_path, data_dir=data_dir))
    calls: list[int] = []
    prepare = mambabench.tasks.offline.prepare

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(1)
        return prepare(*args, **more)

    monkeypatch.setattr(mambabench.tasks.offline, "prepare", counted)
    base, tuned = evaluate_first(
        [parse_given(f"start={checkpoints / 'base'}"), *given(checkpoints, "tuned")],
        options(tmp_path, data_dir),
    )
    assert len(calls) == 1
    assert (base.given.path, base.given.label, base.given.model) == (alone.path, "start", None)
    assert (base.outcome.n_computed, tuned.outcome.n_computed) == (0, 2)
    assert tuned.given.label == "tuned"
    assert len(Store(tmp_path).runs()) == 2
    monkeypatch.setattr(mambabench.models.load, "load", refuse)
    again = run_zeroshot(ZeroshotOptions((str(checkpoints / "tuned"),), FEW, out=tmp_path, data_dir=data_dir))
    assert (again.path, again.n_computed) == (tuned.given.path, 0)


def test_shared_tasks_give_each_model_what_it_gets_alone(
    checkpoints: Path, data_dir: Path, tmp_path: Path, both: Path
) -> None:
    done = evaluate_first(given(checkpoints, "base", "tuned"), options(tmp_path, data_dir))
    theirs = {(c.model, c.task.task): c for c in StoredRun(both).cells()}
    for one in done:
        for cell in one.outcome.cells:
            other = theirs[cell.model, cell.task.task]
            assert (cell.fingerprint, cell.metrics) == (other.fingerprint, other.metrics)


def test_equal_cells_of_other_runs_are_taken_over_with_their_samples(
    checkpoints: Path, data_dir: Path, tmp_path: Path, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(both, tmp_path / both.name)
    # A cell that is damaged there is not taken over.
    damaged = next((tmp_path / both.name / "samples").glob("tuned-piqa*"))
    damaged.write_bytes(b"x")
    (base,) = evaluate_first(given(checkpoints, "base"), options(tmp_path, data_dir))
    (tuned,) = evaluate_first(given(checkpoints, "tuned"), options(tmp_path, data_dir))
    assert (base.outcome.n_computed, tuned.outcome.n_computed) == (0, 1)
    run, original = StoredRun(base.outcome.path), StoredRun(both)
    assert run.path.name != both.name
    assert {c.name for c in run.checkpoints().values()} == {"base"}
    assert len(run.cells()) == 2
    for cell in run.cells():
        assert cell == original.cell(cell.fingerprint)
        mine, theirs = (pq.read_table(r.samples_path(cell.fingerprint)) for r in (run, original))
        assert mine.equals(theirs)
    # What another suite asks of the same model is another matter.
    (other,) = evaluate_first(
        given(checkpoints, "base"), options(tmp_path, data_dir, suite_from_tasks(["piqa"]), limit=2)
    )
    assert other.outcome.n_computed == 1


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (("base", "gone"), CheckpointError, "no such file or directory"),
        (("base", "base"), UsageError, "is given 2 times. Name it once"),
        (("base", "copy"), UsageError, "are the same weights"),
        (("base", "half"), CheckpointError, "half"),
    ],
)
def test_what_is_wrong_with_any_model_shows_before_the_first_is_evaluated(
    checkpoints: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...], error: type[Exception], words: str,
) -> None:  # fmt: skip
    for name in ("base", "copy"):
        shutil.copytree(checkpoints / name, tmp_path / name)
    shutil.copytree(checkpoints / "base", tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    monkeypatch.setattr(mambabench.models.load, "load", refuse)
    with pytest.raises(error, match=words):
        evaluate_first(given(tmp_path, *names), options(tmp_path / "out", data_dir))
    assert not (tmp_path / "out").exists()


def test_a_run_with_other_worked_examples_is_refused_first(
    checkpoints: Path, data_dir: Path, tmp_path: Path, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mambabench.models.load, "load", refuse)
    few_shot = options(tmp_path, data_dir, suite_from_tasks(["lambada_openai"], num_fewshot=2))
    with pytest.raises(UsageError, match=r"gave 0 worked examples in lambada_openai, and .* given 2"):
        evaluate_first(given(checkpoints, "base"), few_shot, [StoredRun(both)])


def remade(tmp_path: Path, run: Path, name: str, **changes: Any) -> StoredRun:
    """Return a copy of a run with changes to its manifest."""
    path = shutil.copytree(run, tmp_path / name)
    old = StoredRun(path).manifest
    settings = old.settings.model_copy(update=changes.pop("settings", {}))
    manifest = old.model_copy(update={**changes, "settings": settings})
    (path / "manifest.json").write_text(manifest.model_dump_json())
    return StoredRun(path)


def test_the_suite_is_that_of_the_runs(tmp_path: Path, both: Path) -> None:
    assert contest_options(Asked(), []).suite.name == "mamba-paper"
    # Of tasks by themselves, of a shipped suite, and of a file.
    assert contest_options(Asked(), [StoredRun(both)]).suite.sha256 == FEW.sha256
    few_shot = suite_from_tasks(["piqa", "lambada_openai"], num_fewshot=3)
    cells = [
        c.model_copy(update={"task": c.task.model_copy(update={"n_fewshot": 3})})
        for c in StoredRun(both).cells()
    ]
    shots = remade(tmp_path, both, "shots", suite_sha256=few_shot.sha256)
    for cell, path in zip(cells, sorted((shots.path / "cells").iterdir()), strict=True):
        path.write_text(cell.model_dump_json())
    assert contest_options(Asked(), [shots]).suite.tasks[0].num_fewshot == 3
    paper = load_suite("mamba-paper")
    shipped = remade(tmp_path, both, "paper", suite="mamba-paper", suite_sha256=paper.sha256)
    assert contest_options(Asked(), [shipped]).suite == paper
    file = tmp_path / "mine.yaml"
    file.write_text("tasks: [{task: piqa, metrics: [acc]}]")
    mine = load_suite(file)
    of_file = remade(
        tmp_path, both, "file", suite="mine", suite_sha256=mine.sha256, command=("x", "--suite", str(file))
    )
    assert contest_options(Asked(), [of_file]).suite.sha256 == mine.sha256
    file.write_text("tasks: [piqa]")
    with pytest.raises(UsageError, match=r"suite mine is not here as it was when .*file was made. Name what"):
        contest_options(Asked(), [of_file])
    with pytest.raises(UsageError, match=r"is of suite piqa.lambada_openai and .*paper of mamba-paper"):
        contest_options(Asked(), [StoredRun(both), shipped])
    assert contest_options(Asked(suite=FEW), [StoredRun(both), shipped]).suite is FEW
    with pytest.raises(UsageError, match="has no task of suite sciq: it has lambada_openai, piqa"):
        contest_options(Asked(suite=suite_from_tasks(["sciq"])), [StoredRun(both)])


def test_settings_are_those_of_the_runs(tmp_path: Path, both: Path) -> None:
    few = remade(tmp_path, both, "few", settings={"limit": 5})
    chat = remade(tmp_path, both, "chat", settings={"apply_chat_template": True})
    plain = StoredRun(both)
    assert contest_options(Asked(), [few]).limit == 5
    assert contest_options(Asked(), [chat]).apply_chat_template
    with pytest.raises(UsageError, match=r"was made with no --limit, and .*few was made with --limit 5. Say"):
        contest_options(Asked(), [plain, few])
    assert contest_options(Asked(limit=3), [plain, few]).limit == 3
    with pytest.raises(UsageError, match=r"the command has --apply-chat-template, and .* no --apply-chat"):
        contest_options(Asked(apply_chat_template=True), [plain])
    with pytest.raises(UsageError, match=r"was made with --apply-chat-template. Only equal prompts"):
        contest_options(Asked(), [plain, chat])


def test_imported_results_name_no_suite(tmp_path: Path, both: Path) -> None:
    imported = remade(tmp_path, both, "imported", kind="imported")
    with pytest.raises(UsageError, match=r"Name what .* It has --task lambada_openai --task piqa"):
        contest_options(Asked(), [imported])
    assert contest_options(Asked(suite=FEW), [imported]).suite is FEW


def test_options_reach_the_runs(tmp_path: Path) -> None:
    made = contest_options(Asked(suite=FEW, limit=2), [], out=tmp_path, dtype="bfloat16")
    assert replace(made, models=("m",)) == ZeroshotOptions(
        ("m",), FEW, out=tmp_path, limit=2, dtype="bfloat16"
    )
