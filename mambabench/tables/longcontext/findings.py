"""From the rows of records to means over tasks, effective contexts and trends of loss.

for task, (plain, above_chance, ever) in effective(records, tasks, mean_tasks, rows):
    print(task, plain.length_tokens)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mambabench.stats.effective import (
    Credits,
    Curve,
    EffectiveContext,
    effective_context,
    recall_interval,
    shared_lengths,
)
from mambabench.stats.effective import mean_recall as mean_of
from mambabench.stats.falling import LossTrend, loss_trend

if TYPE_CHECKING:
    from mambabench.long_schema import ContextLossRecord, RecallRecord

    Rows = Mapping[str, Sequence[Mapping[str, Any]]]
    Found = tuple[EffectiveContext, EffectiveContext, bool]

N_DOCUMENTS = 6
"""Documents from which on they are the items of tests on loss; a test over fewer would see nothing."""


def mean_tasks(recall: Sequence[RecallRecord], tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks that a mean can be over at most models and lengths.

    A mean over other tasks at another length would not be comparable. Candidates are the sets that single
    models and lengths have; the one that makes most use of what was measured is taken.
    """
    cells: dict[tuple[str, int], set[str]] = {}
    for record in recall:
        if record.status == "ok":
            cells.setdefault((record.model, record.length_tokens), set()).add(record.task)
    best = max(
        cells.values(),
        key=lambda found: (len(found) * sum(found <= other for other in cells.values()), len(found)),
        default=set(),
    )
    return tuple(task for task in tasks if task in best)


def mean_recall(
    records: Sequence[RecallRecord | None], rows: Rows
) -> tuple[float, float | None, float | None, int] | None:
    """Return the mean over tasks with its interval and number of items; None unless all have rows."""
    found = [None if record is None else credits_of(record, rows) for record in records]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    interval = recall_interval(known)
    return mean_of(known), interval.low, interval.high, interval.n


def credits_of(record: RecallRecord, rows: Rows) -> Credits | None:
    """Return what a record's questions gave; None where it is not ok or has no rows."""
    import numpy as np

    mine = rows.get(record.fingerprint, ())
    if record.status != "ok" or not mine:
        return None
    return Credits(
        np.array([row["sample"] for row in mine], dtype=np.int64),
        np.array([row["credit"] for row in mine], dtype=np.float64),
    )


def effective(
    recall: Sequence[RecallRecord], tasks: Sequence[str], mean_over: Sequence[str], rows: Rows
) -> list[tuple[str | None, Found]]:
    """Return one model's effective contexts: in the mean (None) where it is over several, in each task."""
    curves = {task: curve for task in tasks if (curve := _curve(recall, task, rows)) is not None}
    found: list[tuple[str | None, Found]] = []
    several = [curves[task] for task in mean_over if task in curves]
    if len(several) == len(mean_over) > 1 and set.intersection(*(set(c.by_length) for c in several)):
        found.append((None, _found(several)))
    return found + [(task, _found([curve])) for task, curve in curves.items()]


def loss_trend_of(losses: Sequence[ContextLossRecord], rows: Rows) -> tuple[LossTrend, bool] | None:
    """Return how one model's loss changes, and whether documents are the items; None without any loss."""
    by_length = {
        record.context_tokens: {
            (row["document_index"], row["start_char"]): row for row in rows.get(record.fingerprint, ())
        }
        for record in losses
        if record.status == "ok"
    }
    # A forward that overflowed has no loss to compare; its record says so.
    lengths = sorted(
        length
        for length, blocks in by_length.items()
        if blocks and all(math.isfinite(row["logprob"]) for row in blocks.values())
    )
    if not lengths:
        return None
    common = set.intersection(*(set(by_length[length]) for length in lengths))
    blocks = [block for block in by_length[lengths[0]] if block in common]
    if not blocks:
        return None
    by_document = len({document for document, _ in blocks}) >= N_DOCUMENTS
    found = loss_trend(
        lengths,
        [[-by_length[length][block]["logprob"] for block in blocks] for length in lengths],
        [by_length[lengths[0]][block]["n_tokens"] for block in blocks],
        [block[0] if by_document else block for block in blocks],
    )
    return found, by_document


def _curve(recall: Sequence[RecallRecord], task: str, rows: Rows) -> Curve | None:
    mine = sorted((r for r in recall if r.task == task), key=lambda r: r.length_tokens)
    by_length = {r.length_tokens: found for r in mine if (found := credits_of(r, rows)) is not None}
    if not by_length:
        return None
    levels = [r.chance for r in mine if r.chance is not None and r.length_tokens in by_length]
    return Curve(math.fsum(levels) / len(levels) if levels else 0.0, by_length)


def _found(curves: Sequence[Curve]) -> Found:
    chance = math.fsum(curve.chance for curve in curves) / len(curves)
    lengths = shared_lengths(curves)
    # Of many lengths at chance one would come out above it now and then.
    confidence = 1 - 0.05 / len(lengths)
    ever = any(
        recall_interval([curve.by_length[length] for curve in curves], confidence).low > chance
        for length in lengths
    )
    return effective_context(curves), effective_context(curves, above_chance=True), ever
