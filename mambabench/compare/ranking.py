"""Sides ranked over all tasks whose items are right or wrong: see `mambabench.stats.ranking`.

A ranking answers another question than the contrasts with the baseline: which order of all sides do the items
settle? Every task counts the same, as in the mean over tasks, however many items it has.

    ranking = rank(tasks, ["base", "tuned", "broken"], CompareOptions(ranking=True))
    [(place.label, place.groups) for place in ranking.ranks]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mambabench.compare.contrasts import weighs_by_size
from mambabench.compare.result import CompareOptions, Rank, Ranking
from mambabench.errors import UsageError
from mambabench.stats.ranking import MIN_CLUSTERS, bradley_terry

if TYPE_CHECKING:
    from mambabench.compare.items import AlignedTask, Floats, Integers

MOST_REPLICATES: Final = 2_000
"""Each replicate is a fit; more move the ends of an interval by less than its last shown digit."""


def rank(tasks: Sequence[AlignedTask], labels: Sequence[str], options: CompareOptions) -> Ranking:
    """Rank all sides by each task's first metric by which items are right or wrong.

    Args:
        tasks: aligned items; those without such a metric are left out.
        labels: of the sides, in the order of each task's `sides`.
        options: replicates (up to `MOST_REPLICATES` are drawn), seed and alpha.

    Raises:
        UsageError: fewer than two sides, or no task whose items are right or wrong.
        ExtraMissingError: evalica is not installed.
    """
    import numpy as np

    if len(labels) < 2:
        raise UsageError("one side cannot be ranked", hint="Name two or more runs or models.")
    ranked = [task for task in tasks if task.n and task.accuracy is not None]
    if not ranked:
        raise UsageError(
            "nothing to rank by: no task that was compared has items that are right or wrong",
            hint="Leave out `--rank`, or compare a suite with accuracies.",
        )
    replicates = min(options.replicates, MOST_REPLICATES)
    scores = np.concatenate([_right(task) for task in ranked])
    strata = np.concatenate([np.full(task.n, number) for number, task in enumerate(ranked)])
    clustered = any(task.clusters is not None for task in ranked)
    found = bradley_terry(
        scores,
        strata=strata,
        clusters=_clusters(ranked) if clustered else None,
        replicates=replicates,
        seed=options.seed,
        alpha=options.alpha,
    )
    # Fitted strengths of sides that are right on equally many items differ in the last digits.
    order = sorted(range(len(labels)), key=lambda i: (-round(found.strengths[i], 9), i))
    ranks = tuple(
        Rank(labels[i], found.strengths[i], found.low[i], found.high[i], found.groups[i][0], found.groups[i])
        for i in order
    )
    names = tuple(task.label for task in ranked)
    method = _method(ranked, replicates, options.alpha)
    return Ranking(ranks, found.n_items, found.n_decisive, names, replicates, method)


def _right(task: AlignedTask) -> Floats:
    import numpy as np

    assert task.accuracy is not None
    return np.column_stack([side.measures[task.accuracy].values for side in task.sides])


def _clusters(tasks: Sequence[AlignedTask]) -> Integers:
    """Return clusters of all items; they are told apart within a task only."""
    import numpy as np

    return np.concatenate(
        [np.arange(task.n) if task.clusters is None else np.asarray(task.clusters) for task in tasks]
    )


def _method(tasks: Sequence[AlignedTask], replicates: int, alpha: float) -> str:
    """Return what the ranking is, in sentences."""
    units = sorted({task.cluster_name or "cluster" for task in tasks if task.clusters is not None})
    drawn = f"items, or of all items of a {' or '.join(units)} where they share one," if units else "items"
    weights = "every task counts the same; " if len(tasks) > 1 else ""
    sentences = [
        "Bradley-Terry: every item is a game between each two sides, won by the one that is right, a tie "
        f"(half a win) where both or neither is; {weights}strength is the fitted chance to win against an "
        "average side, and its order is that of the mean accuracies.",
        f"Intervals: 95%, Bayesian bootstrap of {drawn} within tasks, {replicates:,} replicates.",
        "Groups: sides share one where their order is not settled, judged by random signs of the same units, "
        f"{100 * alpha:g}% for the largest difference of all pairs.",
    ]
    averaged = [t.label for t in tasks if len(t.members) > 1 and not weighs_by_size(t.task)]
    if averaged:
        sentences.insert(
            1,
            f"The items of {', '.join(averaged)} are pooled, while its accuracy averages that of its parts.",
        )
    few = [task.label for task in tasks if _n_clusters(task) < min(task.n, MIN_CLUSTERS)]
    if few:
        sentences.append(f"No intervals: fewer than {MIN_CLUSTERS} groups of items in {', '.join(few)}.")
    return " ".join(sentences)


def _n_clusters(task: AlignedTask) -> int:
    return task.n if task.clusters is None else len(set(task.clusters.tolist()))
