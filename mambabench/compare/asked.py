"""What each side was asked, task by task, before any item is read: what is in common, and what cannot be.

run = StoredRun(side.run)
asked_of(run, run.cells(), side.model)["hellaswag"].metrics
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mambabench.compare.read import filter_read
from mambabench.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from mambabench.compare.result import Side
    from mambabench.schema import CellRecord, MetricRecord
    from mambabench.store import StoredRun

_MOST_NAMED: Final = 4


@dataclass(frozen=True)
class TotalsTask:
    """A task of which at least one side has no items, only values."""

    task: str
    label: str
    metrics: tuple[str, ...]
    sides: tuple[tuple[MetricRecord, ...], ...]
    """One a side, the baseline first: the values of the metrics that all sides have."""


@dataclass(frozen=True)
class Asked:
    """One task or group as one side has it."""

    label: str
    metrics: tuple[str, ...]
    cells: dict[str, CellRecord]
    """By lm-eval's task."""
    failed: tuple[str, ...] = ()
    """Tasks that ended in an error."""


def asked_of(run: StoredRun, cells: Sequence[CellRecord], model: str) -> dict[str, Asked]:
    """Return a model's tasks by name, in the order of the run's tables.

    Args:
        run: says the order.
        cells: all of the run, read once for all of its models.
        model: whose tasks.
    """
    by_name: dict[str, dict[str, CellRecord]] = {}
    failed: dict[str, list[str]] = {}
    for cell in cells:
        if cell.model != model:
            continue
        name = cell.task.group or cell.task.task
        if cell.status != "ok":
            failed.setdefault(name, []).append(cell.task.task)
            continue
        mine = by_name.setdefault(name, {})
        if cell.task.task in mine:
            raise UsageError(
                f"{run.path} holds two results of {model} on {cell.task.task}",
                hint="Delete the one that is not meant from `cells/`.",
            )
        mine[cell.task.task] = cell
    read = {one.task: (one.label, one.metrics) for one in run.manifest.reads} or _suite_reads(run)
    known = [*by_name, *failed]
    order = [name for name in read if name in known]
    order += [name for name in dict.fromkeys(known) if name not in read]
    found = {}
    for name in order:
        mine = by_name.get(name, {})
        label, metrics = read.get(name, ("", ()))
        found[name] = Asked(label or name, metrics or _all_metrics(mine), mine, tuple(failed.get(name, ())))
    return found


def _suite_reads(run: StoredRun) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return what tables read of a run that does not say it itself, from its suite."""
    from mambabench.errors import MambabenchError
    from mambabench.suite import load_suite

    try:
        suite = load_suite(run.manifest.suite)
    except MambabenchError:
        return {}
    if suite.sha256 != run.manifest.suite_sha256:
        return {}
    return {task.task: (task.label or "", task.metrics) for task in suite.tasks}


def _all_metrics(cells: Mapping[str, CellRecord]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(m.metric for cell in cells.values() for m in cell.metrics))


def left_out(sides: Sequence[Side], asked: Sequence[Mapping[str, Asked]], common: Sequence[str]) -> list[str]:
    """Say which tasks only some sides have, and which sides lack them."""
    remarks = []
    for side, mine in zip(sides, asked, strict=True):
        rest = [name for name in mine if name not in common]
        if rest:
            without = [
                s.label
                for s, other in zip(sides, asked, strict=True)
                if any(name not in other for name in rest)
            ]
            why = (
                f"{without[0]} does not have it"
                if len(without) == 1
                else f"not all of {', '.join(without)} have it"
            )
            remarks.append(f"left out, since {why}: {_some(rest)} of {side.label}")
    return remarks


def cut_totals(
    names: Sequence[str], asked: Sequence[Mapping[str, Asked]], sides: Sequence[Side]
) -> list[str]:
    """Say which values that are compared by themselves are over a part of the task's items.

    Args:
        names: tasks that are compared by their values.
        asked: of each side, by task.
        sides: in the same order.
    """
    remarks = []
    for mine, side in zip(asked, sides, strict=True):
        tasks = [(name, cell.task) for name in names for cell in mine[name].cells.values() if cell.partial]
        counts = [
            f"{name} {task.n_docs:,} of {task.n_docs_total:,}"
            if 0 < task.n_docs < task.n_docs_total
            else f"{name} {task.n_docs:,}"
            for name, task in tasks
        ]
        if counts:
            remarks.append(
                f"PARTIAL: values of {side.label} are over a part of the items, which can be easier or "
                f"harder: {_some(counts)}"
            )
    return remarks


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def common_members(name: str, mine: Sequence[Asked], sides: Sequence[Side]) -> tuple[list[str], list[str]]:
    """Return the tasks of a group that ended well on all sides, and what is to be said of the others."""
    members = [m for m in mine[0].cells if all(m in other.cells for other in mine)]
    remarks = []
    for one, side in zip(mine, sides, strict=True):
        if one.failed:
            remarks.append(f"{name}: {', '.join(one.failed[:_MOST_NAMED])} failed for {side.label}, left out")
        elif not members:
            remarks.append(f"{name} is left out: nothing of it is on all sides")
    everything = {m for one in mine for m in (*one.cells, *one.failed)}
    if members and len(members) < len(everything):
        remarks.append(f"{name}: {len(members)} of its {len(everything)} tasks are on all sides")
    return members, list(dict.fromkeys(remarks))


def check_settings(name: str, members: Sequence[str], mine: Sequence[Asked], sides: Sequence[Side]) -> None:
    """Check what shows without reading items.

    Raises:
        MismatchError: another number of worked examples, or another kind of task under the same name.
    """
    for member in members:
        first = mine[0].cells[member].task
        for one, side in zip(mine[1:], sides[1:], strict=True):
            other = one.cells[member].task
            if other.n_fewshot != first.n_fewshot:
                raise MismatchError(
                    f"{member} was asked with {first.n_fewshot} worked examples of {sides[0].label}, "
                    f"with {other.n_fewshot} of {side.label}",
                    hint="Evaluate both in the same way.",
                )
            if other.output_type and first.output_type and other.output_type != first.output_type:
                raise MismatchError(
                    f"{member} is a {first.output_type} task for {sides[0].label}, "
                    f"a {other.output_type} one for {side.label}",
                    hint="These are two tasks of one name.",
                )


def total_of(name: str, members: Sequence[str], mine: Sequence[Asked]) -> TotalsTask | None:
    """Return a task's values where there are no items; None for a group, or without a common metric."""
    if len(members) > 1:
        return None
    by_side = []
    for one in mine:
        cell = one.cells[members[0]]
        by_side.append({m.metric: m for m in cell.metrics if m.filter == filter_read(cell, m.metric)})
    metrics = [m for m in mine[0].metrics if all(m in found for found in by_side)]
    metrics = metrics or [m for m in by_side[0] if all(m in found for found in by_side)]
    if not metrics:
        return None
    return TotalsTask(
        task=name,
        label=mine[0].label,
        metrics=tuple(metrics),
        sides=tuple(tuple(found[m] for m in metrics) for found in by_side),
    )
