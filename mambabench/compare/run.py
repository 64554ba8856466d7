"""Sides in, a whole comparison out.

    given = [parse_given("results/base"), parse_given("results/tuned")]
    sides = sides_of(given)
    compared = compare_sides(sides, sides[0], CompareOptions())
    compared.comparison.contrasts[0].verdict

Whatever has items is compared item by item; a side without items is compared by its values alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mambabench.compare.contrasts import Draft, task_contrasts, totals_contrasts
from mambabench.compare.overall import overall_figures
from mambabench.compare.result import Comparison
from mambabench.compare.verdicts import judged
from mambabench.compare.ways import ways
from mambabench.errors import UsageError
from mambabench.progress import progress

if TYPE_CHECKING:
    from pathlib import Path

    from mambabench.compare.asked import TotalsTask
    from mambabench.compare.items import AlignedTask
    from mambabench.compare.result import Calibration, CompareOptions, Contrast, Ranking, Side, TaskChanges
    from mambabench.progress import Progress
    from mambabench.store import StoredRun

_MOST_REMARKS: Final = 3
_MOST_PARTIAL: Final = 6


@dataclass(frozen=True)
class Compared:
    """A comparison and the items it was made of."""

    comparison: Comparison
    tasks: tuple[AlignedTask, ...]
    """Those with items."""
    labels: tuple[str, ...]
    """Of the sides of `tasks`, in their order: the baseline, and the candidates that have items."""


@dataclass(frozen=True)
class _Aligned:
    """What the baseline and some candidates have in common."""

    candidates: tuple[str, ...]
    tasks: tuple[AlignedTask, ...]
    totals: tuple[TotalsTask, ...]


def compare_sides(
    sides: Sequence[Side],
    baseline: Side,
    options: CompareOptions,
    opened: Mapping[Path, StoredRun] | None = None,
) -> Compared:
    """Compare all sides with one of them.

    Args:
        sides: at least two, the baseline among them; candidates keep their order.
        baseline: one of `sides`.
        options: corrections, margins, clusters, bootstrap.
        opened: runs that are open already, by their directory; what these leave out is not compared.

    Raises:
        MismatchError: different items, prompts or worked examples, or no task in common.
        StoreError: samples are missing or damaged.
        UsageError: an option is out of range, or a ranking is asked for and nothing can be ranked.
        ExtraMissingError: a ranking is asked for and its package is not installed.
    """
    check_options(options)
    candidates = [side for side in sides if side is not baseline]
    parts, remarks = _aligned(baseline, candidates, options, opened)
    paired = next((part for part in parts if part.tasks), None)
    tasks = paired.tasks if paired else ()
    labels = (baseline.label, *(paired.candidates if paired else ()))
    # First, since it may be refused.
    ranking = _ranking(tasks, labels, candidates, options, remarks)
    steps = sum(len(part.tasks) + len(part.totals) for part in parts) + len(tasks)
    with progress(max(steps, 1), "compare", unit="tasks") as bar:
        drafts = _drafts(parts, baseline.label, options, bar)
        changes, calibrations = _what_changed(tasks, labels, options, bar)
    order = {side.label: place for place, side in enumerate(candidates)}
    figures, why_none = overall_figures(drafts, list(order), options)
    contrasts, overall, families = judged(_in_order(drafts, order), figures, options)
    return Compared(
        comparison=Comparison(
            baseline=baseline,
            candidates=tuple(candidates),
            title=f"{_listed([side.label for side in candidates])} against {baseline.label}",
            contrasts=contrasts,
            overall=overall,
            families=families,
            changes=changes,
            calibrations=calibrations,
            ranking=ranking,
            remarks=tuple(
                dict.fromkeys(
                    [
                        *ways(baseline, candidates),
                        *remarks,
                        *why_none,
                        *_without_items(baseline, candidates),
                    ]
                )
            ),
            options=options,
        ),
        tasks=tasks,
        labels=labels,
    )


def check_options(options: CompareOptions) -> None:
    """Refuse options that no statistic can be computed with.

    Raises:
        UsageError: naming the first one that is out of range.
    """
    from mambabench.stats.bootstrap import LEAST_REPLICATES

    if not 0 < options.alpha < 1:
        raise UsageError(f"alpha lies between 0 and 1, not {options.alpha:g}")
    if not options.alpha <= options.power < 1:
        raise UsageError(
            f"a power of {options.power:g} is not possible", hint="It lies between alpha and 1, 0.8 is usual."
        )
    if options.replicates < LEAST_REPLICATES:
        raise UsageError(f"at least {LEAST_REPLICATES:,} replicates, not {options.replicates:,}")
    margins = options.margin_points, options.margin_percent, options.margin_nats
    if not all(math.isfinite(margin) and margin >= 0 for margin in margins) or options.margin_points >= 100:
        raise UsageError("a margin is not negative, and below 100 percentage points")


def _aligned(
    baseline: Side,
    candidates: Sequence[Side],
    options: CompareOptions,
    opened: Mapping[Path, StoredRun] | None,
) -> tuple[list[_Aligned], list[str]]:
    """Align candidates that have items apart from those that have none, so that the former lose nothing."""
    from mambabench.compare.align import aligned_tasks

    groups = [[side for side in candidates if side.has_samples], [s for s in candidates if not s.has_samples]]
    if not baseline.has_samples:
        groups = [list(candidates)]
    parts, remarks = [], []
    for group in groups:
        if not group:
            continue
        tasks, totals, said = aligned_tasks([baseline, *group], options, opened)
        parts.append(_Aligned(tuple(side.label for side in group), tuple(tasks), tuple(totals)))
        remarks += [*_partial(tasks, [baseline, *group]), *said]
        remarks += [remark for task in tasks for remark in _remarks_of(task)]
    return parts, remarks


def _partial(tasks: Sequence[AlignedTask], sides: Sequence[Side]) -> list[str]:
    """Say of which tasks not all items are compared, and which sides have fewer than others."""
    found = [f"{task.label} {task.n:,} of {task.n_total:,}" for task in tasks if task.partial]
    if not found:
        return []
    more = len(found) - _MOST_PARTIAL
    named = "; ".join(found[:_MOST_PARTIAL]) + (f" and {more:,} more" if more > 0 else "")
    places = sorted({place for task in tasks for place in task.held_back_by})
    who = [sides[place].label for place in places]
    why = f"; {_listed(who)} {'has' if len(who) == 1 else 'have'} fewer than others" if who else ""
    return [f"PARTIAL: not all items were compared: {named}{why}."]


def _remarks_of(task: AlignedTask) -> list[str]:
    """Return a task's remarks with its name; a group can have one for each of its members."""
    said = [r if r.startswith((*task.members, task.task)) else f"{task.task}: {r}" for r in task.remarks]
    more = len(said) - _MOST_REMARKS
    return said if more <= 1 else [*said[:_MOST_REMARKS], f"{task.task}: {more} more remarks like these"]


def _drafts(parts: Sequence[_Aligned], baseline: str, options: CompareOptions, bar: Progress) -> list[Draft]:
    drafts: list[Draft] = []
    for part in parts:
        for task in part.tasks:
            bar.stage(task.label)
            drafts += task_contrasts(task, baseline, part.candidates, options)
            bar.advance(1)
        for total in part.totals:
            bar.stage(total.label)
            drafts += totals_contrasts(total, baseline, part.candidates, options)
            bar.advance(1)
    return drafts


def _what_changed(
    tasks: Sequence[AlignedTask], labels: Sequence[str], options: CompareOptions, bar: Progress
) -> tuple[tuple[TaskChanges, ...], tuple[Calibration, ...]]:
    from mambabench.compare.calibration import calibrations
    from mambabench.compare.changes import task_changes

    changes: list[TaskChanges] = []
    found: list[Calibration] = []
    for task in tasks:
        bar.stage(f"{task.label}: what changed")
        changes += task_changes(task, labels[0], labels[1:], options)
        found += calibrations(task, labels)
        bar.advance(1)
    return tuple(changes), tuple(found)


def _ranking(
    tasks: Sequence[AlignedTask],
    labels: Sequence[str],
    candidates: Sequence[Side],
    options: CompareOptions,
    remarks: list[str],
) -> Ranking | None:
    if not options.ranking:
        return None
    from mambabench.compare.ranking import rank

    absent = [side.label for side in candidates if side.label not in labels]
    if absent:
        remarks.append(f"not ranked, without items: {', '.join(absent)}")
    return rank(tasks, labels, options)


def _in_order(drafts: Sequence[Draft], order: dict[str, int]) -> list[Contrast]:
    """Return contrasts by task, measure, then candidate, tasks and measures as they first occur."""
    contrasts = [draft.contrast for draft in drafts]
    tasks = {task: i for i, task in enumerate(dict.fromkeys(c.task for c in contrasts))}
    measures = {key: i for i, key in enumerate(dict.fromkeys((c.task, c.measure) for c in contrasts))}
    return sorted(contrasts, key=lambda c: (tasks[c.task], measures[c.task, c.measure], order[c.candidate]))


def _without_items(baseline: Side, candidates: Sequence[Side]) -> list[str]:
    """Say whose items are not known, so that nothing of it could be paired."""
    without = [side.label for side in (baseline, *candidates) if not side.has_samples]
    if not without:
        return []
    has = "has" if len(without) == 1 else "have"
    return [
        f"{_listed(without)} {has} no items: pairing the same ones makes errors smaller, several times so "
        "for models that are alike"
    ]


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
