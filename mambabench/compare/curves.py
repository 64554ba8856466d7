"""Many checkpoints of one run of training, or of several: every metric over the steps, and the best step.

    found = curves(sides, CompareOptions())
    found.curves[0].best.step, found.curves[0].best.contenders

Whoever looks at many steps finds a best one, lucky or not. So each curve says which steps may be the best as
well, and how much of the best one's value is the luck of having been picked (`mambabench.stats.selection`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mambabench.compare.curves_result import BestStep, Curve, CurvePoint, Curves, StepChange
from mambabench.compare.measured import Measured, mean_of, of_items, of_totals
from mambabench.compare.steps import Stepped, stepped
from mambabench.errors import UnknownNameError, UsageError
from mambabench.progress import progress
from mambabench.stats.bootstrap import LEAST_REPLICATES
from mambabench.stats.selection import LuckyPick, Resamples, contenders, expected_maximum, lucky_pick

if TYPE_CHECKING:
    from pathlib import Path

    from mambabench.compare.result import CompareOptions, Side
    from mambabench.stats.effect import Effect
    from mambabench.store import StoredRun

MOST_REPLICATES: Final = 2000
"""What is drawn for luck: its mean is then known to a fortieth of a standard error."""
MOST_TASKS: Final = 16
"""Of more tasks only those with a name for tables are drawn, unless asked for."""
_FEWEST_STEPS: Final = 2
_FEWEST_TASKS: Final = 2
_SAME: Final = 1e-12
_HINT: Final = "A step is read from a name such as checkpoint-500 or step1000, or from trainer_state.json."


def curves(
    sides: Sequence[Side],
    options: CompareOptions,
    *,
    known: Mapping[str, Stepped] | None = None,
    tasks: Sequence[str] = (),
    opened: Mapping[Path, StoredRun] | None = None,
) -> Curves:
    """Lay checkpoints out by step.

    Args:
        sides: models of runs, each with a step in its label, its model's name or what was typed for it.
        options: alpha, replicates, seed and clusters.
        known: run of training and step by label, for sides whose names do not say it.
        tasks: lm-eval's names of those to draw. By default all, and of more than `MOST_TASKS` those that a
            suite has a name for, if any.
        opened: runs that are open already, by their directory; what these leave out is not laid out.

    Raises:
        UnknownNameError: a task that the sides do not have.
        UsageError: a side without a step, two sides of one step, or no run of training with two steps.
        MismatchError: a run's checkpoints were asked different things, or have no task in common.
        StoreError: samples are missing or damaged.
    """
    by_series = _by_series(sides, known or {})
    single = [name for name, members in by_series.items() if len(members) < _FEWEST_STEPS]
    if len(single) == len(by_series):
        raise UsageError(
            "a curve needs two steps of one run of training, and there is one of each", hint=_HINT
        )
    remarks: dict[str, list[str]] = {}
    replicates = min(options.replicates, MOST_REPLICATES)
    found: list[Curve] = []
    several = {name: members for name, members in by_series.items() if name not in single}
    for name, members in several.items():
        steps = tuple(sorted(members))
        measured, said = _measured([members[step] for step in steps], options, tasks, opened)
        for remark in said:
            remarks.setdefault(remark, []).append(name)
        labels = tuple(members[step].label for step in steps)
        with progress(len(measured), f"curves of {name}" if name else "curves", unit="metrics") as bar:
            for place, one in enumerate(measured):
                bar.stage(f"{one.label} {one.metric}")
                found.append(_curve(name, steps, labels, one, options, replicates, place))
                bar.advance(1)
    said = [f"{name} has one step only and is not drawn" for name in single]
    for remark, names in remarks.items():
        said.append(remark if len(names) == len(several) else f"{', '.join(names)}: {remark}")
    return Curves(tuple(several), tuple(found), options.alpha, replicates, tuple(said))


def _by_series(sides: Sequence[Side], known: Mapping[str, Stepped]) -> dict[str, dict[int, Side]]:
    """Return sides by run of training and step.

    Raises:
        UsageError: a side without a step, or two of one step.
    """
    places = {side.label: known.get(side.label) or _place_of(side) for side in sides}
    without = [label for label, place in places.items() if place is None]
    if without:
        raise UsageError(f"no training step is known of {', '.join(without[:4])}", hint=_HINT)
    names = {place.series for place in places.values() if place is not None}
    named = names - {""}
    found: dict[str, dict[int, Side]] = {}
    for side in sides:
        place = places[side.label]
        assert place is not None
        # A bare step, such as a base that is labelled "step0", belongs to the only run there is.
        series = next(iter(named)) if not place.series and len(named) == 1 else place.series
        members = found.setdefault(series, {})
        if place.step in members:
            raise UsageError(
                f"{members[place.step].label} and {side.label} are both step {place.step:,}"
                + (f" of {series}" if series else ""),
                hint="Leave one out, or tell them apart by labels: a-step500=RUN b-step500=RUN.",
            )
        members[place.step] = side
    return found


def _place_of(side: Side) -> Stepped | None:
    for text in (side.label, side.model, side.origin):
        if (place := stepped(text)) is not None:
            return place
    return None


def _measured(
    sides: Sequence[Side],
    options: CompareOptions,
    wanted: Sequence[str],
    opened: Mapping[Path, StoredRun] | None,
) -> tuple[list[Measured], list[str]]:
    """Return every metric that all sides have, the mean of the accuracies first, and remarks."""
    from mambabench.compare.align import aligned_tasks

    items, totals, remarks = aligned_tasks(sides, options, opened)
    there = [(task.task, task.label) for task in items] + [(task.task, task.label) for task in totals]
    kept, left_out = _kept(there, wanted)
    if left_out:
        remarks.append(f"not drawn, since there are many: {left_out} tasks (`--task NAME` draws one)")
    tasks = [task for task in items if task.task in kept]
    remarks += [f"{task.label}: {remark}" for task in tasks for remark in task.remarks]
    found = [m for task in tasks for metric in task.metrics if (m := of_items(task, metric)) is not None]
    found += [of_totals(task, m) for task in totals if task.task in kept for m in task.metrics]
    accuracies: dict[str, Measured] = {}
    for one in found:
        if one.scale.unit == "%" and one.higher_is_better:
            accuracies.setdefault(one.task, one)
    if len(accuracies) >= _FEWEST_TASKS:
        found.insert(0, mean_of(list(accuracies.values())))
    return found, remarks


def _kept(tasks: Sequence[tuple[str, str]], wanted: Sequence[str]) -> tuple[set[str], int]:
    """Return the tasks to draw, of (name, label), and how many others there are unasked for."""
    names = [name for name, _ in tasks]
    for name in wanted:
        if name not in names:
            raise UnknownNameError.for_name(
                "task", name, names, where=f"There are {', '.join(names[:MOST_TASKS])}."
            )
    labelled = {name for name, label in tasks if label != name}
    if wanted or len(names) <= MOST_TASKS or not labelled:
        return set(wanted or names), 0
    return labelled, len(names) - len(labelled)


def _curve(
    series: str,
    steps: Sequence[int],
    labels: Sequence[str],
    one: Measured,
    options: CompareOptions,
    replicates: int,
    place: int,
) -> Curve:
    quick = replace(options, replicates=LEAST_REPLICATES)
    tested = one.tested()
    pick = _lucky(one, tested, replicates, options.seed + place)
    # A value that is no number is never the best.
    order = [-math.inf if math.isnan(value) else value for value in tested]
    best = pick.best if pick is not None else order.index(max(order))
    p_values: list[float | None] = [
        None if place == best else _p_value(one.outcome(place, best, quick).effect)
        for place in range(len(steps))
    ]
    tested_any = any(p is not None for p in p_values)
    may: list[bool | None] = [
        (is_one if p is not None or place == best else None) if tested_any else None
        for place, (p, is_one) in enumerate(
            zip(p_values, contenders(p_values, alpha=options.alpha), strict=True)
        )
    ]
    points = tuple(
        CurvePoint(
            step=step,
            side=labels[at],
            value=one.scale.value(one.values[at]),
            low=None if (ends := one.ends[at]) is None else one.scale.value(ends[0]),
            high=None if ends is None else one.scale.value(ends[1]),
            n=one.ns[at],
            p_value=p_values[at],
            contender=may[at],
            share_best=None if pick is None else pick.shares[at],
        )
        for at, step in enumerate(steps)
    )
    return Curve(
        series=series,
        task=one.task,
        label=one.label,
        metric=one.metric,
        headline=one.headline,
        unit=one.scale.unit,
        effect_unit=one.scale.effect_unit,
        higher_is_better=one.higher_is_better,
        chance=_chance(one),
        n=min(one.ns),
        n_total=one.n_total,
        paired=one.paired,
        points=points,
        best=_best(one, tested, best, points, _expected(one, tested, best, pick, may, quick)),
        change=_change(one, steps, options),
        n_tasks=one.n_tasks,
    )


def _lucky(one: Measured, tested: Sequence[float], replicates: int, seed: int) -> LuckyPick | None:
    if not all(map(math.isfinite, tested)):
        return None
    resamples = one.resamples(replicates, seed)
    if resamples is None:
        return None
    turned = [Resamples(one.sign * r.drawn, one.sign * r.left_out) for r in resamples]
    return lucky_pick(tested, turned)


def _p_value(effect: Effect | None) -> float | None:
    return None if effect is None or not effect.determined else effect.p_value


def _expected(
    one: Measured,
    tested: Sequence[float],
    best: int,
    pick: LuckyPick | None,
    may: Sequence[bool | None],
    options: CompareOptions,
) -> float | None:
    """Return what the best step is worth on other items, in the tested unit, or the least on average.

    Of steps that are clearly worse none would have been picked, however lucky. In a simulation of 27 steps
    with independent errors, all equal, rising, or with one or two above the others, the mean luck was never
    above the bound of the contenders alone by more than noise.
    """
    if pick is not None:
        return pick.expected
    errors = None if one.paired else one.errors(options)
    if errors is None or not any(may) or not math.isfinite(tested[best]):
        return None
    return tested[best] - expected_maximum([e for e, is_one in zip(errors, may, strict=True) if is_one])


def _best(
    one: Measured, tested: Sequence[float], best: int, points: Sequence[CurvePoint], expected: float | None
) -> BestStep:
    at = points[best]
    luck = None
    if expected is not None:
        lower = one.scale.difference(one.sign * (expected - tested[best]))
        luck = -lower if one.higher_is_better else lower
    return BestStep(
        step=at.step,
        value=at.value,
        ties=tuple(
            p.step
            for p, value in zip(points, tested, strict=True)
            if math.isclose(value, tested[best], rel_tol=_SAME, abs_tol=_SAME)
        ),
        contenders=tuple(p.step for p in points if p.contender),
        paired=one.paired,
        expected=None if expected is None else one.shown(expected),
        luck=luck,
    )


def _change(one: Measured, steps: Sequence[int], options: CompareOptions) -> StepChange | None:
    effect = one.outcome(len(steps) - 1, 0, options).effect
    if effect is None or not effect.determined:
        return None
    low, high = one.scale.ends(effect.low, effect.high)
    return StepChange(
        first_step=steps[0],
        last_step=steps[-1],
        difference=one.scale.difference(effect.difference),
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        p_value=effect.p_value,
        test=effect.test,
    )


def _chance(one: Measured) -> float | None:
    """Return what guessing gives as far as a shipped suite knows it."""
    if one.parts:
        levels = [_chance(part) for part in one.parts]
        known = [level for level in levels if level is not None]
        return sum(known) / len(known) if len(known) == len(levels) else None
    level = chance_levels().get((one.task, one.metric))
    return None if level is None else one.scale.value(level)


@functools.cache
def chance_levels() -> dict[tuple[str, str], float]:
    """Return what guessing gives by (task, metric), in lm-eval's unit, as far as a shipped suite knows it."""
    from mambabench.suite import list_suites

    return {
        (task.task, metric): level
        for suite in list_suites()
        for task in suite.tasks
        for metric, level in (task.chance or {}).items()
    }
