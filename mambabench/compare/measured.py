"""Several checkpoints' figures of one metric, with or without items: one face for what curves need of either.

figures = of_items(task, "acc")
figures.values, figures.outcome(3, 0, CompareOptions()).effect
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mambabench.compare.contrasts import weighs_by_size
from mambabench.compare.curves_result import OVERALL
from mambabench.compare.effects import paired_outcome, value_over
from mambabench.compare.scales import Scale, scale_of
from mambabench.compare.totals import kind_of, unpaired_outcome
from mambabench.stats.combined import average_effect

if TYPE_CHECKING:
    from mambabench.compare.asked import TotalsTask
    from mambabench.compare.effects import Outcome
    from mambabench.compare.items import AlignedTask, Measure
    from mambabench.compare.result import CompareOptions
    from mambabench.stats.intervals import Interval
    from mambabench.stats.selection import Resamples

Ends = tuple[float, float]
_SEEDS: Final = 10_000


@dataclass(frozen=True)
class Measured:
    """One metric of one task, in the order of the sides."""

    task: str
    label: str
    metric: str
    headline: bool
    scale: Scale
    higher_is_better: bool
    values: tuple[float, ...]
    """In lm-eval's unit."""
    ends: tuple[Ends | None, ...]
    """Of each value's 95% interval, in the same unit; None where undetermined."""
    ns: tuple[int, ...]
    """Items of each."""
    n_total: int
    paired: bool
    outcome: Callable[[int, int, CompareOptions], Outcome]
    """Compares a side with another, by their places."""
    resamples: Callable[[int, int], list[Resamples] | None]
    """Draws so many resamples from a seed, in the tested unit; None where that is not possible. What the
    value is a mean of has each its own."""
    parts: tuple[Measured, ...] = ()
    """What it is the mean of; empty for a single task."""

    @property
    def n_tasks(self) -> int:
        """Tasks that it is over."""
        return max(1, len(self.parts))

    @property
    def sign(self) -> int:
        """1 where more is better in the tested unit, else -1."""
        if self.scale.shown == "percent" or self.scale.factor < 0:
            return 1
        return 1 if self.higher_is_better else -1

    def tested(self) -> list[float]:
        """Return the values in the tested unit, turned so that more is better; NaN where that has none."""
        usable = [math.isfinite(v) and (v > 0 or self.scale.shown != "percent") for v in self.values]
        return [
            self.sign * self.scale.tested(v) if ok else math.nan
            for v, ok in zip(self.values, usable, strict=True)
        ]

    def shown(self, tested: float) -> float:
        """Return a value of `tested` as it is shown."""
        value = self.sign * tested
        return math.exp(-value) if self.scale.shown == "percent" else value * self.scale.factor

    def errors(self, options: CompareOptions) -> list[float] | None:
        """Return each value's standard error in the tested unit; None where one is not known."""
        effects = [self.outcome(i, i, options).effect for i in range(len(self.values))]
        # That of a difference from an independent equal.
        found = [math.nan if e is None else e.standard_error / math.sqrt(2) for e in effects]
        return found if all(map(math.isfinite, found)) else None


def of_items(task: AlignedTask, metric: str) -> Measured | None:
    """Return a metric over the items that all sides have; None where a side has no value."""
    by_size = weighs_by_size(task.task)
    measures = [side.measures[metric] for side in task.sides]
    values = [value_over(m, task.member_of, by_size=by_size) for m in measures]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    first = measures[0]
    pooled = by_size or len(task.members) == 1
    return Measured(
        task=task.task,
        label=task.label,
        metric=metric,
        headline=metric == task.metrics[0],
        scale=scale_of(first.unit, first.kind),
        higher_is_better=first.higher_is_better,
        values=tuple(known),
        ends=tuple(_ends(m, len(task.members)) if pooled else None for m in measures),
        ns=(task.n,) * len(measures),
        n_total=task.n_total,
        paired=True,
        outcome=lambda i, j, options: paired_outcome(
            task, metric, task.sides[i], task.sides[j], options, by_size=by_size
        ),
        resamples=lambda replicates, seed: _resamples(task, measures, pooled, replicates, seed),
    )


def of_totals(task: TotalsTask, metric: str) -> Measured:
    """Return a metric of which only values are known."""
    place = task.metrics.index(metric)
    records = [side[place] for side in task.sides]
    first = records[0]
    return Measured(
        task=task.task,
        label=task.label,
        metric=metric,
        headline=place == 0,
        scale=scale_of(first.unit, kind_of(first.unit)),
        higher_is_better=first.higher_is_better,
        values=tuple(r.value for r in records),
        ends=tuple(
            None if r.interval_low is None or r.interval_high is None else (r.interval_low, r.interval_high)
            for r in records
        ),
        ns=tuple(r.n for r in records),
        n_total=0,
        paired=False,
        outcome=lambda i, j, options: unpaired_outcome(records[i], records[j]),
        resamples=lambda replicates, seed: None,
    )


def mean_of(parts: Sequence[Measured]) -> Measured:
    """Return the mean of several tasks' accuracies, each task counting the same and independent.

    Its interval adds the distances to each one's ends in squares: G. Y. Zou and A. Donner (2008), Statistics
    in Medicine 27, 1693-1702. That keeps their unequal distances, and wants tasks of more than a few items.
    """
    first = parts[0]
    sides = range(len(first.values))

    def outcome(i: int, j: int, options: CompareOptions) -> Outcome:
        found = [part.outcome(i, j, options) for part in parts]
        effects = [one.effect for one in found if one.effect is not None]
        whole = len(effects) == len(parts)
        return replace(
            found[0],
            baseline_value=_mean([part.values[j] for part in parts]),
            candidate_value=_mean([part.values[i] for part in parts]),
            effect=average_effect(effects) if whole else None,
            equivalence=None,
            n_won=None,
            n_lost=None,
            why_not="" if whole else "not all of its tasks can be tested",
        )

    return Measured(
        task=OVERALL,
        label=f"mean of {len(parts)} tasks",
        metric="accuracy",
        headline=True,
        scale=first.scale,
        higher_is_better=True,
        values=tuple(_mean([part.values[i] for part in parts]) for i in sides),
        ends=tuple(_mean_ends([(p.values[i], p.ends[i]) for p in parts]) for i in sides),
        ns=tuple(sum(part.ns[i] for part in parts) for i in sides),
        n_total=sum(part.n_total for part in parts),
        paired=all(part.paired for part in parts),
        outcome=outcome,
        resamples=lambda replicates, seed: _joined(parts, replicates, seed),
        parts=tuple(parts),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_ends(found: Sequence[tuple[float, Ends | None]]) -> Ends | None:
    known = [(value, ends) for value, ends in found if ends is not None]
    if len(known) < len(found):
        return None
    mean = _mean([value for value, _ in known])
    below = math.hypot(*(value - low for value, (low, _) in known)) / len(known)
    above = math.hypot(*(high - value for value, (_, high) in known)) / len(known)
    return mean - below, mean + above


def _joined(parts: Sequence[Measured], replicates: int, seed: int) -> list[Resamples] | None:
    import numpy as np

    from mambabench.stats.selection import Resamples

    found = []
    for place, part in enumerate(parts):
        # Apart from the seeds that members of a group take.
        mine = part.resamples(replicates, seed + _SEEDS * (place + 1))
        if mine is None:
            return None
        drawn = np.mean([one.drawn for one in mine], axis=0)
        found.append(Resamples(drawn, np.mean([one.left_out for one in mine], axis=0)))
    return found


def _ends(measure: Measure, n_members: int) -> Ends | None:
    """Return the interval that tables show of such a value."""
    from mambabench.stats import intervals

    found: Interval | None = None
    if measure.kind == "binary":
        found = intervals.wilson(int(measure.values.sum()), len(measure.values))
    elif measure.kind == "mean":
        bounds = (0.0, 1.0) if measure.unit == "fraction" else None
        values = measure.values.clip(*bounds) if bounds else measure.values
        found = intervals.mean_interval(values, bounds=bounds)
    elif n_members > 1:
        return None
    elif measure.kind == "log mean":
        found = intervals.perplexity_interval(measure.values)
    elif measure.kind == "ratio" and measure.weights is not None:
        transform: intervals.Transform = "bits" if measure.unit == "bits_per_byte" else "perplexity"
        found = intervals.ratio_interval(measure.values, measure.weights, transform=transform)
    return (found.low, found.high) if found is not None and found.determined else None


def _resamples(
    task: AlignedTask, measures: Sequence[Measure], pooled: bool, replicates: int, seed: int
) -> list[Resamples] | None:
    import numpy as np

    from mambabench.stats.selection import resample

    first = measures[0]
    if first.kind == "corpus" or (len(task.members) > 1 and first.kind in ("log mean", "ratio")):
        return None
    values = np.stack([m.values for m in measures])
    whole = np.ones(task.n, dtype=bool)
    masks = [whole] if pooled else [task.member_of == member for member in np.unique(task.member_of)]
    found = []
    for place, mask in enumerate(masks):
        clusters = None if task.clusters is None else task.clusters[mask]
        weights = None if first.weights is None else first.weights[mask]
        units = int(mask.sum()) if clusters is None else len(np.unique(clusters))
        if units < 2 or not np.isfinite(values).all() or (weights is not None and not (weights > 0).all()):
            return None
        found.append(
            resample(values[:, mask], weights, clusters=clusters, replicates=replicates, seed=seed + place)
        )
    return found
