"""A stored zero-shot or imported run as the table that `mambabench zeroshot` shows of it.

    table = zeroshot_table(stored, stored.cells())
    table.rows[0].value, table.rows[0].verdict

A published figure is given where the command gives one, and nowhere else: the manifest, the checkpoints'
records and the command line must all say that prompts, tokenizer, window and suite were those of the figure.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from mambabench.errors import MambabenchError
from mambabench.registry import load_registry
from mambabench.schema import ReadRecord, SettingsRecord
from mambabench.tables.zeroshot import averaged
from mambabench.taskindex import TaskIndex

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun
    from mambabench.registry import ModelSpec
    from mambabench.schema import CellRecord, CheckpointRecord, RunManifest
    from mambabench.store import StoredRun
    from mambabench.suite import Suite
    from mambabench.tables.zeroshot import ZeroshotTable

_KINDS: Final = ("zeroshot", "imported")
_UNPUBLISHED: Final = ("--tokenizer", "--max-length")
"""Options that no record holds and that published figures were made without."""
_CHECKPOINTS_OWN: Final = "checkpoint"
"""Source of a tokenizer that lay beside the weights."""


def zeroshot_table(stored: StoredRun, cells: Sequence[CellRecord]) -> ZeroshotTable:
    """Return the table of a run's cells.

    A group of tasks of which some are not computed yet has no value: what is there are other items than the
    group's.

    Args:
        stored: the run.
        cells: of it, as far as they can be read.

    Raises:
        ValueError: the run is of another kind.
        StoreError: a checkpoint's record is damaged.
    """
    from mambabench.frames.asked import manifests_of
    from mambabench.tables.zeroshot import build_table

    manifest = stored.manifest
    if manifest.kind not in _KINDS:
        raise ValueError(f"a run of kind {manifest.kind} has no scores")
    suite, is_shipped = suite_of(stored, cells)
    models = list(dict.fromkeys([*manifest.models, *sorted({cell.model for cell in cells})]))
    names: dict[str, str | None] = dict.fromkeys(models)
    if is_shipped:
        manifests = manifests_of(stored)
        records = {record.name: record for record in stored.checkpoints().values()}
        names = {model: published_name(model, records.get(model), manifests) for model in models}
    lacking = {} if manifest.kind == "imported" else members_missing(suite, models, cells)
    whole = [c for c in cells if (c.model, c.task.group or c.task.task) not in lacking]
    table = build_table(suite, list(names.items()), _in_order(suite, whole))
    if not lacking:
        return table
    rows = tuple(
        replace(row, error=f"{len(lacking[row.model, row.task])} of its tasks are not computed yet")
        if len(_leaves(row.task)) > 1 and (row.model, row.task) in lacking
        else row
        for row in table.rows
    )
    return replace(table, rows=rows)


def suite_of(stored: StoredRun, cells: Sequence[CellRecord]) -> tuple[Suite, bool]:
    """Return the suite that a run's tables are laid out by, and whether it is a shipped one.

    Of other suites tasks and metrics are those of the manifest, or without any those of the cells; chance
    levels are then those that a shipped suite has for the task and metric.
    """
    from mambabench.compare.curves import chance_levels
    from mambabench.suite import Suite, SuiteTask

    manifest = stored.manifest
    if (found := _shipped(manifest)) is not None:
        return found, True
    levels = chance_levels()
    tasks = []
    for read in manifest.reads or _reads_of(cells):
        chance = {m: levels[read.task, m] for m in read.metrics if (read.task, m) in levels}
        task = SuiteTask(
            task=read.task, metrics=read.metrics, label=read.label or None, chance=chance or None
        )
        tasks.append(task)
    names = [task.task for task in tasks]
    title = ", ".join(names) if _has(manifest.command, ("--task",)) else manifest.suite or manifest.name
    return Suite(name=manifest.suite, title=title, tasks=tuple(tasks), sha256=manifest.suite_sha256), False


def _shipped(manifest: RunManifest) -> Suite | None:
    """Return the shipped suite that a run was made with, None where it was another or has changed.

    A file of the user's may have its name and its tasks, with other sources of figures.
    """
    from mambabench.suite import load_suite
    from mambabench.suite_file import shipped

    if manifest.kind != "zeroshot" or manifest.suite not in shipped():
        return None
    given = _values_of(manifest.command, "--suite")
    if any(text != manifest.suite for text in given):
        return None
    suite = load_suite(manifest.suite)
    if suite.sha256 != manifest.suite_sha256:
        return None
    labels = {read.task: read.label for read in manifest.reads}
    return suite if all(labels.get(t.task, t.label or "") == (t.label or "") for t in suite.tasks) else None


def published_name(
    model: str, record: CheckpointRecord | None, manifests: Sequence[RunManifest]
) -> str | None:
    """Return a model's name in the published figures, None unless its run is of the kind that made them.

    Args:
        model: its name in the run.
        record: what was loaded.
        manifests: of all calls that made the run.
    """
    spec = _registered(model)
    if record is None or spec is None or spec.published_as is None:
        return None
    settings = manifests[0].settings
    as_published = (
        record.weights == "pretrained"
        and record.adapter is None
        # A directory may have the name of a registered model.
        and record.hub_id == spec.hub_id
        and record.max_length_tokens == spec.training_length_tokens
        and record.tokenizer.source in (spec.tokenizer, _CHECKPOINTS_OWN)
        and isinstance(settings, SettingsRecord)
        and not (settings.apply_chat_template or settings.system_instruction or settings.fewshot_as_multiturn)
        and all(_says_as_published(manifest.command, spec) for manifest in manifests)
    )
    return spec.published_as if as_published else None


def _registered(name: str) -> ModelSpec | None:
    """Return the registry's row of a name as it is typed, None for other names and for a revision."""
    base, _, revision = name.removeprefix("hf:").partition("@")
    if revision not in ("", "main"):
        return None
    if name.startswith("hf:"):
        return next((spec for spec in load_registry().values() if spec.hub_id == base), None)
    return load_registry().get(base)


def _says_as_published(command: Sequence[str], spec: ModelSpec) -> bool:
    """Whether a command line names the model and none of the options; one that is not known says nothing.

    Cells of equal weights are taken over from other runs with the record of what was loaded there.
    """
    if not command:
        return True
    words = {part for word in command for part in (word, word.partition("=")[2])}
    return not _has(command, _UNPUBLISHED) and any(_registered(word) == spec for word in words if word)


def _has(command: Sequence[str], options: Sequence[str]) -> bool:
    return any(word.partition("=")[0] in options for word in command)


def _values_of(command: Sequence[str], option: str) -> list[str]:
    joined = [word.partition("=")[2] for word in command if word.startswith(f"{option}=")]
    return joined + [after for word, after in pairwise(command) if word == option]


def _reads_of(cells: Sequence[CellRecord]) -> list[ReadRecord]:
    """Return what an older run reads, every metric of its cells."""
    metrics: dict[str, dict[str, None]] = {}
    for cell in cells:
        mine = metrics.setdefault(cell.task.group or cell.task.task, {})
        mine |= dict.fromkeys(m.metric for m in cell.metrics)
    # A task that failed everywhere has a row as well.
    return [ReadRecord(task=task, metrics=tuple(found) or _first(task)) for task, found in metrics.items()]


def _first(task: str) -> tuple[str, ...]:
    known = _task_index()
    return (known.get(task).metrics if task in known else ())[:1] or ("",)


def members_missing(
    suite: Suite, models: Sequence[str], cells: Sequence[CellRecord]
) -> dict[tuple[str, str], list[str]]:
    """Return the tasks without a cell by (model, task or group), where there are any.

    A group's tasks are those that lm-eval knows; of other groups those that any model has.
    """
    there: dict[tuple[str, str], set[str]] = {}
    seen: dict[str, dict[str, None]] = {}
    for cell in cells:
        name = cell.task.group or cell.task.task
        there.setdefault((cell.model, name), set()).add(cell.task.task)
        seen.setdefault(name, {})[cell.task.task] = None
    missing = {}
    for task in suite.tasks:
        members = _leaves(task.task) or tuple(seen.get(task.task, {})) or (task.task,)
        for model in models:
            lacking = [m for m in members if m not in there.get((model, task.task), ())]
            if lacking:
                missing[model, task.task] = lacking
    return missing


def _in_order(suite: Suite, cells: Sequence[CellRecord]) -> list[CellRecord]:
    """Return cells in the order in which the command has them, for sums are of that order."""
    place = {leaf: i for i, leaf in enumerate(leaf for t in suite.tasks for leaf in _leaves(t.task))}
    return sorted(cells, key=lambda cell: place.get(cell.task.task, len(place)))


@functools.cache
def _leaves(name: str) -> tuple[str, ...]:
    """Return the tasks that a name of lm-eval's stands for, none for a name that it does not know."""
    # An unknown name's error holds the closest ones, which take long to find.
    if name not in _task_index():
        return ()
    try:
        return _task_index().leaves(name)
    except MambabenchError:
        return ()


@functools.cache
def _task_index() -> TaskIndex:
    return TaskIndex.load()


def rows_of_scores(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return the rows of frame `scores`, as the tables have them."""
    return [row for run in runs if run.zeroshot is not None for row in _scores(run, run.zeroshot)]


def _scores(run: LoadedRun, table: ZeroshotTable) -> list[dict[str, Any]]:
    asked: Mapping[tuple[str, str], CellRecord] = {
        (cell.model, cell.task.group or cell.task.task): cell for cell in reversed(run.cells)
    }
    means = {one.model: averaged(one.model, table.rows) for one in table.averages}
    found = []
    for row in table.rows:
        cell = asked.get((row.model, row.task))
        found.append(
            {
                "run": run.name,
                "label": run.label(row.model),
                "model": row.model,
                "suite": table.suite,
                "task": row.task,
                "task_label": row.label,
                "metric": row.metric,
                "filter": row.filter,
                "headline": row.headline,
                "value": row.value,
                "unit": row.unit,
                "interval_low": row.low,
                "interval_high": row.high,
                "n_items": row.n,
                "n_items_total": row.n_total,
                "chance": row.chance,
                "reference": row.reference,
                "reference_source": row.source,
                "difference": row.difference,
                "verdict": row.verdict,
                "higher_is_better": row.higher_is_better,
                "n_fewshot": None if cell is None else cell.task.n_fewshot,
                "task_version": "" if cell is None else cell.task.version,
                "error": row.error,
                "in_average": row in means.get(row.model, ()),
            }
        )
    return found


def rows_of_averages(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return the rows of frame `averages`."""
    return [
        {
            "run": run.name,
            "label": run.label(average.model),
            "model": average.model,
            "suite": run.zeroshot.suite,
            "value": average.value,
            "reference": average.reference,
            "n_tasks": average.n_tasks,
        }
        for run in runs
        if run.zeroshot is not None
        for average in run.zeroshot.averages
    ]
