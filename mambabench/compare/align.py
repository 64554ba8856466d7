"""Sides laid side by side: the same items, asked in the same way, or a refusal that shows what differs.

tasks, totals, remarks = aligned_tasks(sides, CompareOptions())

Items are the same where their document has the same number and digest, and were asked in the same way where
all texts of their requests have the same digest. Of a partial run only what all sides have is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mambabench.compare.asked import (
    Asked,
    TotalsTask,
    asked_of,
    check_settings,
    common_members,
    cut_totals,
    left_out,
    total_of,
)
from mambabench.compare.differences import refuse_mismatch
from mambabench.compare.items import AlignedSide, AlignedTask, Choices, Measure, TaskItems
from mambabench.compare.read import read_task_items, value_of
from mambabench.compare.sources import has_rows
from mambabench.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mambabench.compare.result import CompareOptions, Side
    from mambabench.store import StoredRun

__all__ = ["TotalsTask", "aligned_tasks", "side_by_side"]

_FEWEST_SUBJECTS: Final = 10
"""Members of a group from which they are clusters: an error estimated from fewer is worth little."""


def aligned_tasks(
    sides: Sequence[Side], options: CompareOptions, opened: Mapping[Path, StoredRun] | None = None
) -> tuple[list[AlignedTask], list[TotalsTask], list[str]]:
    """Return what all sides have in common, in the order of the first side's run.

    Args:
        sides: at least two, the baseline first.
        options: how items are grouped.
        opened: runs that are open already, by their directory.

    Returns:
        Tasks with items, tasks of which some side has only values, and remarks on what was left out.

    Raises:
        MismatchError: nothing in common, or a task's documents, prompts or worked examples differ.
        StoreError: samples are missing or damaged.
    """
    from mambabench.store import StoredRun

    stored = {**(opened or {})}
    for side in sides:
        stored[side.run] = stored.get(side.run) or StoredRun(side.run)
    runs = [stored[side.run] for side in sides]
    cells = {path: stored[path].cells() for path in {side.run for side in sides}}
    asked = [asked_of(run, cells[s.run], s.model) for run, s in zip(runs, sides, strict=True)]
    names = [name for name in asked[0] if all(name in other for other in asked)]
    remarks = left_out(sides, asked, names)
    tasks: list[AlignedTask] = []
    totals: list[TotalsTask] = []
    for name in names:
        mine = [other[name] for other in asked]
        members, said = common_members(name, mine, sides)
        remarks += said
        if not members:
            continue
        check_settings(name, members, mine, sides)
        if all(_has_items(run, one, members) for run, one in zip(runs, mine, strict=True)):
            tasks.append(_aligned(name, members, mine, runs, sides, options))
        elif (total := total_of(name, members, mine)) is not None:
            totals.append(total)
        else:
            remarks.append(f"{name} is left out: a group without items on all sides")
    if not tasks and not totals:
        raise MismatchError(
            f"{' and '.join(side.label for side in sides)} have no task in common that ended well",
            hint="Evaluate them on the same suite.",
        )
    _check_cluster_field(tasks, options)
    remarks += cut_totals([total.task for total in totals], asked, sides)
    return tasks, totals, remarks


def _has_items(run: StoredRun, one: Asked, members: Sequence[str]) -> bool:
    return all(has_rows(run.samples_path_of(one.cells[m])) for m in members)


def _aligned(
    name: str,
    members: Sequence[str],
    mine: Sequence[Asked],
    runs: Sequence[StoredRun],
    sides: Sequence[Side],
    options: CompareOptions,
) -> AlignedTask:
    items = (
        [
            read_task_items(run, one.cells[member], cluster=options.cluster)
            for run, one in zip(runs, mine, strict=True)
        ]
        for member in members
    )
    return side_by_side(name, mine[0], members, items, sides, options)


def side_by_side(
    name: str,
    asked: Asked,
    members: Sequence[str],
    read: Iterable[Sequence[TaskItems]],
    sides: Sequence[Side],
    options: CompareOptions,
) -> AlignedTask:
    """Lay items of one task that were read side by side; one side alone keeps all of its own.

    Args:
        name: of the task or group.
        asked: the first side's, for the label and the metrics that are read.
        members: lm-eval's tasks in it.
        read: for each member each side's items.
        sides: in the same order.
        options: how items are grouped.

    Raises:
        MismatchError: an item differs, or is missing on a side that should have all.
    """
    import numpy as np

    remarks: list[str] = []
    columns: list[list[TaskItems]] = [[] for _ in sides]
    member_of, n_total = [], 0
    held_back_by: set[int] = set()
    for place, (member, items) in enumerate(zip(members, read, strict=True)):
        remarks += [
            f"{side.label}: {remark}" for side, i in zip(sides, items, strict=True) for remark in i.remarks
        ]
        kept = _in_common(member, items, sides)
        held_back_by |= _fewer(items)
        for column, one in zip(columns, kept, strict=True):
            column.append(one)
        member_of.append(np.full(len(kept[0].doc_ids), place, np.int64))
        n_total += max(i.cell.task.n_docs_total for i in items)
    first = columns[0]
    names = [m for m in asked.metrics if all(m in i.measures for column in columns for i in column)]
    shared = [
        m
        for m in dict.fromkeys(k for i in first for k in i.measures)
        if all(m in i.measures for column in columns for i in column)
    ]
    clusters, cluster_name = _clusters(first, options)
    doc_ids = np.concatenate([i.doc_ids for i in first])
    return AlignedTask(
        task=name,
        label=asked.label,
        metrics=tuple(names or [m for m in shared if m != "log-likelihood"]),
        members=tuple(members),
        member_of=np.concatenate(member_of),
        doc_ids=doc_ids,
        doc_hashes=tuple(h for i in first for h in i.doc_hashes),
        context_lengths_bytes=np.concatenate([i.context_lengths_bytes for i in first]),
        clusters=clusters,
        cluster_name=cluster_name,
        n_total=n_total,
        sides=_of_one_kind([_side(column, shared) for column in columns]),
        partial=len(doc_ids) < n_total,
        held_back_by=tuple(sorted(held_back_by)),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _in_common(member: str, items: Sequence[TaskItems], sides: Sequence[Side]) -> list[TaskItems]:
    """Return each side's items that all sides have.

    Raises:
        MismatchError: an item differs, or is missing on a side that should have all.
    """
    import numpy as np

    common = items[0].doc_ids
    for other in items[1:]:
        common = np.intersect1d(common, other.doc_ids, assume_unique=True)
    if len(common) == 0:
        raise MismatchError(
            f"{member}: no document was scored on all sides",
            hint="Evaluate them on the same documents (`--limit` takes the first ones).",
        )
    kept = [_taken(i, np.searchsorted(i.doc_ids, common)) for i in items]
    for other, side in zip(kept[1:], sides[1:], strict=True):
        refuse_mismatch(member, (kept[0], other), (sides[0].label, side.label))
    totals = {i.cell.task.n_docs_total for i in items}
    whole = [not i.cell.partial for i in items]
    if len(totals) > 1 and all(whole):
        counts = ", ".join(
            f"{s.label} {i.cell.task.n_docs_total:,}" for s, i in zip(sides, items, strict=True)
        )
        raise MismatchError(
            f"{member} has another number of documents on each side: {counts}",
            hint="One of them was run on a part of the data, or on another version of it.",
        )
    return kept


def _fewer(items: Sequence[TaskItems]) -> set[int]:
    """Return the places of sides that have fewer items than another one."""
    counts = [len(i.doc_ids) for i in items]
    return {place for place, n in enumerate(counts) if n < max(counts)}


def _taken(items: TaskItems, at: NDArray[np.intp]) -> TaskItems:
    if len(at) == len(items.doc_ids):
        return items

    def texts(column: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column[i] for i in at)

    return replace(
        items,
        doc_ids=items.doc_ids[at],
        doc_hashes=texts(items.doc_hashes),
        prompt_hashes=texts(items.prompt_hashes),
        target_hashes=texts(items.target_hashes),
        context_lengths_bytes=items.context_lengths_bytes[at],
        measures={name: _measure_at(measure, at) for name, measure in items.measures.items()},
        choices=None
        if items.choices is None
        else Choices(
            items.choices.log_likelihoods[at],
            items.choices.lengths_bytes[at],
            items.choices.lengths_chars[at],
            items.choices.right[at],
        ),
        cluster_texts=None
        if items.cluster_texts is None
        else (items.cluster_texts[0], texts(items.cluster_texts[1])),
    )


def _measure_at(measure: Measure, at: NDArray[np.intp]) -> Measure:
    weights = None if measure.weights is None else measure.weights[at]
    taken = replace(measure, values=measure.values[at], weights=weights)
    value = value_of(taken)
    return taken if value is None else replace(taken, recorded=value)


def _of_one_kind(sides: Sequence[AlignedSide]) -> tuple[AlignedSide, ...]:
    """Let a measure be of one kind and unit on all sides.

    By its own items alone a side may take a share for a score (all of them 0), or numbers for yes and no.
    """
    agreed: dict[str, Measure] = {}
    for name in sides[0].measures:
        mine = [side.measures[name] for side in sides]
        kinds = {m.kind for m in mine}
        kind = mine[0].kind if len(kinds) == 1 else ("mean" if kinds <= {"binary", "mean"} else "corpus")
        if all(bool(((m.values == 0) | (m.values == 1)).all()) for m in mine) and kinds <= {"binary", "mean"}:
            kind = "binary"
        unit = next((m.unit for m in mine if m.unit == "fraction"), mine[0].unit)
        agreed[name] = replace(mine[0], kind=kind, unit=unit)
    return tuple(
        replace(
            side,
            measures={
                name: replace(m, kind=agreed[name].kind, unit=agreed[name].unit)
                for name, m in side.measures.items()
            },
        )
        for side in sides
    )


def _side(column: Sequence[TaskItems], names: Sequence[str]) -> AlignedSide:
    return AlignedSide(
        measures={name: _joined([i.measures[name] for i in column]) for name in names},
        choices=_joined_choices([i.choices for i in column]),
        samples_paths=tuple(i.samples_path for i in column),
    )


def _joined(measures: Sequence[Measure]) -> Measure:
    import numpy as np

    if len(measures) == 1:
        return measures[0]
    kinds = {m.kind for m in measures}
    kind = measures[0].kind if len(kinds) == 1 else ("mean" if kinds <= {"binary", "mean"} else "corpus")
    weights = [m.weights for m in measures if m.weights is not None]
    joined = replace(
        measures[0],
        kind=kind,
        values=np.concatenate([m.values for m in measures]),
        weights=np.concatenate(weights) if len(weights) == len(measures) else None,
    )
    value = value_of(joined)
    return joined if value is None else replace(joined, recorded=value)


def _joined_choices(found: Sequence[Choices | None]) -> Choices | None:
    import numpy as np

    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return None
    widest = max(one.log_likelihoods.shape[1] for one in known)

    def padded(columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(
            [np.pad(c, ((0, 0), (0, widest - c.shape[1])), constant_values=np.nan) for c in columns]
        )

    return Choices(
        padded([one.log_likelihoods for one in known]),
        padded([one.lengths_bytes for one in known]),
        padded([one.lengths_chars for one in known]),
        np.concatenate([one.right for one in known]),
    )


def _clusters(items: Sequence[TaskItems], options: CompareOptions) -> tuple[NDArray[np.int64] | None, str]:
    """Return which items of a task are not independent, and what they share."""
    import numpy as np

    if options.cluster == "none":
        return None, ""
    if options.cluster == "auto" and len(items) >= _FEWEST_SUBJECTS:
        sizes = [len(i.doc_ids) for i in items]
        return np.repeat(np.arange(len(items), dtype=np.int64), sizes), "subject"
    if not all(i.cluster_texts for i in items):
        return None, ""
    keys = [
        (place, digest)
        for place, i in enumerate(items)
        if i.cluster_texts is not None
        for digest in i.cluster_texts[1]
    ]
    numbers: dict[tuple[int, str], int] = {}
    clusters = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    if len(numbers) == len(keys):
        return None, ""
    assert items[0].cluster_texts is not None
    return clusters, items[0].cluster_texts[0]


def _check_cluster_field(tasks: Sequence[AlignedTask], options: CompareOptions) -> None:
    asked_for_field = options.cluster not in ("auto", "none")
    if asked_for_field and tasks and not any(task.cluster_name == options.cluster for task in tasks):
        raise UsageError(
            f"no task has documents that share a field '{options.cluster}'",
            hint="`--cluster auto` finds passages and subjects by itself.",
        )
