"""Tables of stored runs: a verdict where the command gives one, and never another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_runs import task_record
from stored import cell, checkpoint_record, manifest

import mambabench
from mambabench.fingerprint import digest
from mambabench.frames.zeroshot import published_name, zeroshot_table
from mambabench.references import n_items, published
from mambabench.registry import load_registry, resolve
from mambabench.schema import (
    AdapterRecord,
    CellRecord,
    CheckpointRecord,
    MetricRecord,
    ReadRecord,
    RunManifest,
    SettingsRecord,
    TokenizerRecord,
)
from mambabench.store import Store, StoredRun
from mambabench.suite import Suite, load_suite, suite_from_tasks
from mambabench.tables.zeroshot import build_table
from mambabench.taskindex import TaskIndex
from mambabench.zeroshot import ZeroshotOptions, published_as

PAPER = load_suite("mamba-paper")
COMMAND = ("mambabench", "zeroshot", "--model", "mamba-130m")
MAMBA = load_registry()["mamba-130m"]
UNITS = {"perplexity": "perplexity", "word_perplexity": "perplexity", "bits_per_byte": "bits_per_byte"}


def loaded(name: str = "mamba-130m", **changes: Any) -> CheckpointRecord:
    fields: dict[str, Any] = {
        "name": name,
        "hub_id": MAMBA.hub_id,
        "revision": "0123abc",
        "max_length_tokens": 2048,
        "tokenizer": TokenizerRecord(source=MAMBA.tokenizer, sha256="0", n_tokens=50277),
    }
    return checkpoint_record(**{**fields, **changes})


def scored(task: str, model: str, value: float, metrics: tuple[str, ...], **changes: Any) -> CellRecord:
    group = changes.pop("group", "")
    n = changes.pop("n", n_items(task) or 40)
    record = task_record(task, n, group=group, **changes)
    found = tuple(
        MetricRecord(metric=m, value=value, unit=UNITS.get(m, "fraction"), n=n, interval_method="wilson",
                     interval_low=value / 2, interval_high=value)  # type: ignore[arg-type]
        for m in metrics
    )  # fmt: skip
    return cell(
        digest([model, task]),
        model=model,
        task=record,
        metrics=found,
        partial=record.n_docs < record.n_docs_total,
    )


def cells_of(suite: Suite, model: str) -> list[CellRecord]:
    """Cells whose values are the published figures, rounded as printed."""
    found = []
    for task in suite.tasks:
        leaves = TaskIndex.load().leaves(task.task)
        for leaf in leaves:
            group = task.task if len(leaves) > 1 else ""
            reference = published("mamba-130m", task.task, task.metrics[0], suite.reference)
            scale = 1.0 if task.metrics[0] in UNITS else 100.0
            value = 0.31 if reference is None else reference.value / scale
            found.append(
                scored(leaf, model, value, task.metrics, group=group, n_fewshot=task.num_fewshot or 0)
            )
    return found


def stored(
    root: Path, of: Suite, cells: list[CellRecord], record: CheckpointRecord | None = None, **changes: Any
) -> StoredRun:
    """Write a run; without cells nothing but its manifest and its checkpoint."""
    reads = tuple(ReadRecord(task=t.task, metrics=t.metrics, label=t.label or "") for t in of.tasks)
    fields: dict[str, Any] = {
        "suite": of.name,
        "suite_sha256": of.sha256,
        "models": ("mamba-130m",),
        "command": COMMAND,
        "reads": reads,
    }
    with Store(root).open_run(manifest("run", **{**fields, **changes})) as run:
        for one in cells:
            run.write_cell(one, [])
        if record is not None:
            run.write_checkpoint(record.name, record)
    return StoredRun(run.path)


def test_published_weights_get_the_verdicts_that_the_command_prints(tmp_path: Path) -> None:
    cells = cells_of(PAPER, "mamba-130m")
    run = stored(tmp_path, PAPER, [], loaded())
    table = zeroshot_table(run, cells)
    assert table == build_table(PAPER, [("mamba-130m", "mamba-130m")], cells)
    assert {row.verdict for row in table.rows if row.headline} == {"reproduced"}
    assert table.averages[0].reference is not None
    # An older run does not say what it reads.
    older = stored(tmp_path / "older", PAPER, [], loaded(), reads=())
    assert zeroshot_table(older, cells) == table


def adapter() -> AdapterRecord:
    return AdapterRecord(name="a", peft_type="LORA", base_model="b", merged=True, files=())


def settings(**changes: Any) -> SettingsRecord:
    return SettingsRecord(dtype="auto", device="auto", batch_size=None, limit=None, **changes)


CHANGES: list[dict[str, Any]] = [
    {"record": None},
    {"record": loaded(weights="random", seed=0)},
    {"record": loaded(hub_id=None, revision=None)},
    {"record": loaded(hub_id="someone/else")},
    {"record": loaded(max_length_tokens=512)},
    {"record": loaded(tokenizer=TokenizerRecord(source="./mine", sha256="0", n_tokens=9))},
    {"record": loaded(adapter=adapter())},
    {"command": (*COMMAND, "--max-length", "2048")},
    {"command": (*COMMAND, "--tokenizer=EleutherAI/gpt-neox-20b")},
    {"command": ("mambabench", "zeroshot", "--model", "./mamba-130m")},
    {"command": (*COMMAND, "--suite", "./mamba-paper.yaml")},
    {"command": (*COMMAND, "--suite=mine/mamba-paper.yml")},
    {"suite": "mine"},
    {"suite_sha256": digest("changed")},
    {"reads": (ReadRecord(task="hellaswag", metrics=("acc_norm",), label="Mine"),)},
    {"settings": settings(apply_chat_template=True)},
    {"settings": settings(system_instruction="x")},
    {"kind": "imported"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_in_doubt_there_is_no_reference(tmp_path: Path, change: dict[str, Any]) -> None:
    changes = {"record": loaded(), **change}
    run = stored(tmp_path, PAPER, [], changes.pop("record"), **changes)
    table = zeroshot_table(run, cells_of(PAPER, "mamba-130m"))
    assert {row.verdict for row in table.rows} == {"no reference"}
    assert all(row.reference is None for row in table.rows)
    assert all(row.value is not None for row in table.rows)


def test_a_later_call_of_the_run_counts_too(tmp_path: Path) -> None:
    cells = cells_of(PAPER, "mamba-130m")
    run = stored(tmp_path, PAPER, [], loaded())
    later = run.manifest.model_copy(update={"command": (*COMMAND, "--max-length", "2048")})
    with Store(tmp_path).open_run(later):
        pass
    assert (run.path / "manifest-2.json").exists()
    assert {row.reference for row in zeroshot_table(run, cells).rows} == {None}


@given(
    text=st.sampled_from(
        ["mamba-130m", "hf:state-spaces/mamba-130m", "mamba-130m@main", "mamba-130m@v1", "mamba-tiny",
         "hf:state-spaces/mamba-130m@abc", "pythia-160m@step1000", "falcon-mamba-7b"]
    ),
    told_apart=st.booleans(),
    weights=st.sampled_from(["pretrained", "random"]),
    adapted=st.booleans(),
    chat=st.booleans(),
    system=st.sampled_from([None, "", "x"]),
    option=st.sampled_from(["", "--max-length", "--tokenizer"]),
    told=st.booleans(),
)  # fmt: skip
def test_a_name_is_published_only_where_the_command_says_so(
    text: str,
    told_apart: bool,
    weights: Any,
    adapted: bool,
    chat: bool,
    system: str | None,
    option: str,
    told: bool,
) -> None:
    ref = resolve(text)
    ref = replace(ref, name=text) if told_apart else ref
    spec = ref.spec
    assert spec is not None
    options = ZeroshotOptions(
        models=(text,), suite=PAPER, apply_chat_template=chat, system_instruction=system,
        max_length=spec.training_length_tokens if option == "--max-length" else None,
        tokenizer="./other" if option == "--tokenizer" else None,
    )  # fmt: skip
    plan = SimpleNamespace(spec=spec, weights=weights, adapter=object() if adapted else None, ref=ref)
    expected = published_as(plan, options)  # type: ignore[arg-type]
    added = (option, "x") if option else ()
    run = SimpleNamespace(
        settings=options.settings,
        command=("mambabench", "zeroshot", "--model", text, *added)
        if told or option == "--max-length"
        else (),
    )
    record = loaded(
        ref.name,
        weights=weights,
        hub_id=spec.hub_id,
        max_length_tokens=spec.training_length_tokens,
        adapter=adapter() if adapted else None,
        tokenizer=TokenizerRecord(
            source="other" if option == "--tokenizer" else spec.tokenizer, sha256="0", n_tokens=9
        ),
    )
    runs: list[RunManifest] = [run]  # type: ignore[list-item]
    assert published_name(ref.name, record, runs) == expected


def test_of_other_suites_chance_is_what_a_shipped_one_knows(tmp_path: Path) -> None:
    suite = suite_from_tasks(["piqa", "hellaswag"])
    cells = [scored(t.task, "mamba-130m", 0.5, t.metrics) for t in suite.tasks]
    table = zeroshot_table(stored(tmp_path, suite, [], loaded()), cells)
    printed = build_table(suite, [("mamba-130m", None)], cells)
    assert [replace(row, chance=None) for row in table.rows] == list(printed.rows)
    assert {(row.task, row.metric): row.chance for row in table.rows} == {
        ("piqa", "acc"): 50.0, ("piqa", "acc_norm"): 50.0, ("hellaswag", "acc"): None,
        ("hellaswag", "acc_norm"): 25.0,
    }  # fmt: skip


def test_a_group_that_is_not_whole_has_no_value(tmp_path: Path) -> None:
    suite = load_suite("mmlu")
    cells = cells_of(suite, "mamba-130m")
    assert len(cells) == 57
    for place, one in enumerate(cells):
        value = (place + 1) / 100
        found = tuple(m.model_copy(update={"value": value}) for m in one.metrics)
        cells[place] = one.model_copy(update={"metrics": found})
    run = stored(tmp_path, suite, [])
    # Sums are in the order of the command, whatever that of the files is.
    assert zeroshot_table(run, cells[::-1]) == build_table(suite, [("mamba-130m", None)], cells)
    half = zeroshot_table(run, cells[:30])
    assert {(row.value, row.error) for row in half.rows} == {(None, "27 of its tasks are not computed yet")}
    # What is there is another program's whole group, as far as anybody can tell.
    other = stored(tmp_path / "other", suite, [], kind="imported")
    assert zeroshot_table(other, cells[:30]).rows[0].value is not None


def test_a_task_that_one_model_lacks_is_a_row_of_it(tmp_path: Path) -> None:
    cells = [*cells_of(PAPER, "a"), *cells_of(PAPER, "b")[:3]]
    stored(tmp_path, PAPER, cells, models=("a", "b"))
    runs = mambabench.load_runs(tmp_path)
    scores = runs.frame("scores")
    assert scores.groupby("model").size().nunique() == 1
    mine = scores[scores["model"] == "b"]
    lacking = mine[mine["value"].isna()]
    assert set(lacking["error"]) == {"nothing was computed"}
    assert lacking["n_fewshot"].isna().all()
    assert runs.frame("runs").loc[0, "n_missing"] == len(PAPER.tasks) - 3 == lacking["task"].nunique()
    assert runs.frame("runs").loc[0, "state"] == "interrupted"
    assert list(runs.frame("averages")["model"]) == ["a"]


def test_a_group_that_lm_eval_does_not_know_is_pooled_by_size(tmp_path: Path) -> None:
    sizes = {"odd_one": 10, "odd_two": 30}
    cells = [
        scored(task, "m", 0.5 if n == 10 else 0.1, ("acc",), n=n, group="odd") for task, n in sizes.items()
    ]
    reads = (ReadRecord(task="odd", metrics=("acc",)),)
    stored(tmp_path, PAPER, cells, kind="imported", suite="", reads=reads, models=("m",))
    row = mambabench.load_runs(tmp_path).frame("scores").iloc[0]
    assert (row["task"], row["value"], row["n_items"]) == ("odd", 100 * (5 + 3) / 40, 40)
    assert not pd.isna(row["interval_low"])
