"""Which items changed between the baseline and each candidate, with the words of a few of them.

    changes = task_changes(task, "base", ["tuned"], CompareOptions())
    changes[0].n_lost, changes[0].lost[0].text

Examples show what kind of item changed; how much changed, and whether that is more than chance, is what the
contrasts say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mambabench.compare.categories import category_changes
from mambabench.compare.items import LOG_LIKELIHOOD
from mambabench.compare.result import CompareOptions, Shift, TaskChanges
from mambabench.compare.texts import ItemText, read_texts

if TYPE_CHECKING:
    from mambabench.compare.items import AlignedSide, AlignedTask, Floats, Measure

Change = Literal["won", "lost", "shift"]


def task_changes(
    task: AlignedTask, baseline: str, candidates: Sequence[str], options: CompareOptions
) -> list[TaskChanges]:
    """Return what changed in one task, for each candidate.

    Items are won and lost by the first metric by which each is right or wrong. Examples are those whose
    right answer's log-likelihood changed most; of tasks without one, the first. Texts are read for the
    examples only.

    Args:
        task: aligned items; the first side is the baseline, the others are the candidates in order.
        baseline: its label.
        candidates: their labels.
        options: how many examples are shown of each kind.

    Raises:
        StoreError: samples are missing or damaged.
    """
    if len(task.sides) != 1 + len(candidates):
        raise ValueError(
            f"{task.task} has {len(task.sides)} sides, not {baseline} and {len(candidates)} more"
        )
    flips = [flips_of(task, number) for number in range(1, len(task.sides))]
    chosen = [_examples(one, options.n_examples) for one in flips]
    shown = [item for one in chosen for items in one.values() for item in items]
    texts = read_texts(task, shown) if shown else {}
    categories = category_changes(task, candidates)
    found = []
    for number, (label, one, examples) in enumerate(zip(candidates, flips, chosen, strict=True), 1):
        shifts = {
            kind: tuple(_shift(task, number, label, item, one, texts[item]) for item in items)
            for kind, items in examples.items()
        }
        found.append(
            TaskChanges(
                candidate=label,
                task=task.task,
                label=task.label,
                n=task.n,
                n_won=None if one.won is None else int(one.won.sum()),
                n_lost=None if one.lost is None else int(one.lost.sum()),
                won=shifts["won"],
                lost=shifts["lost"],
                shifts=shifts["shift"],
                categories=categories[label],
            )
        )
    return found


@dataclass(frozen=True)
class Flips:
    """How one candidate's items differ from the baseline's."""

    won: Floats | None
    """[n], 1 where only the candidate is right; None unless each item is right or wrong."""
    lost: Floats | None
    shifts: Floats | None
    """[n], change of the right answer's log-likelihood in nats, of whole texts for each word or byte; None
    where there is none."""

    def change(self, item: int) -> Change:
        """Return how an item changed."""
        if self.won is not None and self.won[item]:
            return "won"
        return "lost" if self.lost is not None and self.lost[item] else "shift"


def flips_of(task: AlignedTask, number: int) -> Flips:
    """Return how the items of side `number` differ from those of the first side."""
    import numpy as np

    baseline, candidate = task.sides[0], task.sides[number]
    won = lost = None
    if task.accuracy is not None:
        before, after = baseline.measures[task.accuracy].values, candidate.measures[task.accuracy].values
        won = ((after == 1) & (before == 0)).astype(np.float64)
        lost = ((after == 0) & (before == 1)).astype(np.float64)
    measures = likelihood_of(baseline), likelihood_of(candidate)
    shifts = None
    if measures[0] is not None and measures[1] is not None:
        with np.errstate(invalid="ignore"):
            difference = measures[1].values - measures[0].values
        if measures[0].weights is not None:
            difference = difference / np.maximum(measures[0].weights, 1.0)
        shifts = np.where(np.isnan(difference), 0.0, difference)
    return Flips(won, lost, shifts)


def likelihood_of(side: AlignedSide) -> Measure | None:
    """Return the measure whose items are log-likelihoods of right answers, or of whole texts."""
    if LOG_LIKELIHOOD in side.measures:
        return side.measures[LOG_LIKELIHOOD]
    return next((m for m in side.measures.values() if m.kind in ("log mean", "ratio")), None)


def _examples(flips: Flips, most: int) -> dict[Change, list[int]]:
    """Return places of the items that are shown."""
    import numpy as np

    sizes = None if flips.shifts is None else np.abs(flips.shifts)

    def first(items: Floats | None) -> list[int]:
        if items is None:
            return []
        places = np.flatnonzero(items)
        order = np.argsort(-sizes[places], kind="stable") if sizes is not None else np.arange(len(places))
        return [int(place) for place in places[order][:most]]

    return {"won": first(flips.won), "lost": first(flips.lost), "shift": first(sizes)}


def _shift(task: AlignedTask, number: int, label: str, item: int, flips: Flips, text: ItemText) -> Shift:
    baseline, candidate = task.sides[0], task.sides[number]
    scored = task.accuracy or next(iter(task.metrics), "")
    return Shift(
        candidate=label,
        task=task.task,
        member=task.members[int(task.member_of[item])],
        doc_id=int(task.doc_ids[item]),
        change=flips.change(item),
        baseline_value=_value(_scored(baseline, scored), item),
        candidate_value=_value(_scored(candidate, scored), item),
        baseline_log_likelihood=_value(likelihood_of(baseline), item),
        candidate_log_likelihood=_value(likelihood_of(candidate), item),
        text=text.question,
        right_answer=text.right_answer,
        baseline_answer=text.answers[0],
        candidate_answer=text.answers[number],
    )


def _scored(side: AlignedSide, name: str) -> Measure | None:
    """Return the measure where an item's value means something by itself."""
    measure = side.measures.get(name)
    return measure if measure is not None and measure.kind in ("binary", "mean") else None


def _value(measure: Measure | None, item: int) -> float | None:
    value = math.nan if measure is None else float(measure.values[item])
    return value if math.isfinite(value) else None
