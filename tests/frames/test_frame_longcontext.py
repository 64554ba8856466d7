"""Stored long-context runs as tables: what the command showed, its cost found beside it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mambabench.frames.longcontext import cost_run, long_table, perplexity_table, rows_unread
from mambabench.longcontext.options import CostPart, LongOptions, LongOutcome, LossPart, RecallPart
from mambabench.longcontext.perplexity import run_perplexity
from mambabench.longcontext.perplexity_options import PerplexityOptions, PerplexityOutcome
from mambabench.longcontext.run import run_longcontext
from mambabench.store import StoredRun
from mambabench.tables.longcontext.table import LongTable

STANDIN = Path(__file__).parent.with_name("standin_child.py")
MODELS = ("mamba-tiny", "pythia-tiny")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "book.txt"
    path.write_text(" ".join(f"word{i % 97} and {i * 7919 % 1000}," for i in range(900)))
    return path


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, book: Path) -> LongOutcome:
    """Return a run at whose longer length one model has no memory for the sweep."""
    folder = tmp_path_factory.mktemp("long")
    options = LongOptions(
        models=MODELS,
        lengths_tokens=(64, 128),
        recall=RecallPart(tasks=("selective_copying", "copying"), n_samples=6, n_depths=3),
        loss=LossPart(target_tokens=16, n_blocks=8),
        cost=CostPart(gen_len_tokens=4),
        data=str(book),
        out=folder / "results",
        device="cpu",
        verify=False,
        title="a title",
        command=("mambabench", "longcontext"),
    )
    rules = [[{"model": "pythia-tiny", "prompt_len_tokens": 128}, "oom"]]
    child = (sys.executable, "-S", "-E", str(STANDIN), str(folder / "log"), json.dumps(rules))
    return run_longcontext(options, child=child)


def without_words(table: LongTable) -> dict[str, Any]:
    return {**table.as_json(), "title": ""}


def test_a_stored_run_gives_the_table_of_its_command(outcome: LongOutcome) -> None:
    found = long_table(StoredRun(outcome.path))
    assert without_words(found) == without_words(outcome.table)
    assert any(row.ttft_s is not None for row in found.rows)
    assert any("cost not measured" in row.flags for row in found.rows)
    assert found.trends == outcome.table.trends
    assert found.effective == outcome.table.effective


def test_the_cost_is_found_beside_the_run_and_beside_what_a_link_leads_to(
    outcome: LongOutcome, tmp_path: Path
) -> None:
    cost = outcome.cost
    assert cost is not None
    linked = tmp_path / "linked"
    linked.symlink_to(outcome.path)
    for path in (outcome.path, linked):
        found = cost_run(StoredRun(path))
        assert found is not None
        assert found.path.resolve() == cost.path.resolve()


@pytest.mark.parametrize(
    "change",
    [
        {"command": ["mambabench", "latency"]},
        {"models": ["mamba-tiny"]},
        {"kind": "throughput"},
    ],
)
def test_another_sweep_is_not_the_cost(outcome: LongOutcome, tmp_path: Path, change: dict[str, Any]) -> None:
    stored = copied(outcome, tmp_path)
    assert cost_run(stored) is not None
    cost = next(p for p in tmp_path.iterdir() if p.name.startswith("latency"))
    manifest = json.loads((cost / "manifest.json").read_text())
    (cost / "manifest.json").write_text(json.dumps({**manifest, **change}))
    assert cost_run(stored) is None
    assert long_table(stored).speed is None
    # A broken one beside the run is none either.
    (cost / "manifest.json").write_text("{")
    assert cost_run(stored) is None


def test_of_several_sweeps_the_latest_is_the_cost(outcome: LongOutcome, tmp_path: Path) -> None:
    stored = copied(outcome, tmp_path)
    cost = next(p for p in tmp_path.iterdir() if p.name.startswith("latency"))
    later = shutil.copytree(cost, tmp_path / "a-later-one")
    manifest = json.loads((later / "manifest.json").read_text())
    (later / "manifest.json").write_text(json.dumps({**manifest, "created_utc": "2999-01-01T00:00:00Z"}))
    found = cost_run(stored)
    assert found is not None
    assert found.path.name == "a-later-one"


def test_what_has_no_record_makes_the_run_partial(outcome: LongOutcome, tmp_path: Path) -> None:
    stored = copied(outcome, tmp_path)
    assert not long_table(stored).partial
    for path in (stored.path / "context-loss").glob("*.json"):
        path.unlink()
    found = long_table(stored)
    assert found.partial
    assert all(row.loss is None for row in found.rows)
    for path in (stored.path / "recall").glob("*.json"):
        path.unlink()
    empty = long_table(replace_cost(stored))
    assert (empty.models, empty.rows, empty.partial) == (MODELS, (), True)


def test_a_record_whose_rows_are_gone_is_in_no_mean(outcome: LongOutcome, tmp_path: Path) -> None:
    stored = copied(outcome, tmp_path)
    assert rows_unread(stored) == []
    lost = next(r for r in outcome.recall if r.model == "mamba-tiny" and r.length_tokens == 64)
    stored.long_rows_path(lost).write_bytes(b"")
    found = long_table(stored)
    assert found.row("mamba-tiny", 64).recall_mean is None
    assert found.row("mamba-tiny", 128).recall_mean is not None
    assert found.row("mamba-tiny", 64).accuracy(lost.task) is not None
    [said] = rows_unread(stored)
    assert str(stored.long_rows_path(lost)) in said


def test_of_two_records_the_one_that_was_asked_for_last_is_taken(
    outcome: LongOutcome, tmp_path: Path
) -> None:
    stored = copied(outcome, tmp_path)
    record = next(r for r in outcome.recall if (r.model, r.task) == ("mamba-tiny", "copying"))
    more = record.model_copy(update={"fingerprint": "0" * 64, "n_samples": 50, "status": "ok"})
    (stored.path / "recall" / "more.json").write_text(more.model_dump_json())
    at = record.model, record.length_tokens
    assert long_table(stored).row(*at).recall["copying"].n_samples == 6
    settings = stored.manifest.settings.model_copy(update={"n_samples": 50})
    later = stored.manifest.model_copy(update={"settings": settings, "command": ("mambabench", "more")})
    (stored.path / "manifest-2.json").write_text(later.model_dump_json())
    assert long_table(stored).row(*at).recall["copying"].n_samples == 50


def test_losses_are_of_one_text(outcome: LongOutcome, tmp_path: Path) -> None:
    stored = copied(outcome, tmp_path)
    other = outcome.losses[0].corpus.model_copy(update={"sha256": "1" * 64, "name": "another"})
    for number, record in enumerate(outcome.losses):
        told = record.model_copy(update={"corpus": other, "fingerprint": f"{number:064}"})
        (stored.path / "context-loss" / f"a{number}.json").write_text(told.model_dump_json())
    assert {row.loss.corpus.name for row in long_table(stored).rows if row.loss} == {"book.txt"}


def test_a_stored_perplexity_gives_the_table_of_its_command(
    predicted: PerplexityOutcome, tmp_path: Path
) -> None:
    assert perplexity_table(StoredRun(predicted.path)) == predicted.table
    folder = shutil.copytree(predicted.path, tmp_path / "copied")
    for path in (folder / "perplexity").glob("*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="needs a record"):
        perplexity_table(StoredRun(folder))


def test_runs_of_other_kinds_are_refused(outcome: LongOutcome, predicted: PerplexityOutcome) -> None:
    refused: list[tuple[Callable[[StoredRun], Any], Path]] = [
        (long_table, predicted.path), (perplexity_table, outcome.path)
    ]  # fmt: skip
    for build, path in refused:
        with pytest.raises(ValueError, match="is no"):
            build(StoredRun(path))


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory, book: Path) -> PerplexityOutcome:
    out = tmp_path_factory.mktemp("perplexity")
    # The order of the command is not that of the files.
    options = PerplexityOptions(models=MODELS[::-1], data=str(book), out=out, device="cpu", verify=False)
    return run_perplexity(replace(options, max_tokens=300))


def copied(outcome: LongOutcome, folder: Path) -> StoredRun:
    for path in outcome.path.parent.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
    return StoredRun(folder / outcome.path.name)


def replace_cost(stored: StoredRun) -> StoredRun:
    """Return the same run without its cost."""
    for path in stored.path.parent.iterdir():
        if path.name.startswith("latency"):
            shutil.rmtree(path)
    return stored
