"""One figure over all tasks: the mean difference of their accuracies, each task counting the same.

    figures, remarks = overall_figures(drafts, ["tuned"], CompareOptions())

An accuracy is a task's first fraction of which more is better, as in the average of a table of scores. Tasks
are taken as given and their items as independent of each other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mambabench.compare.contrasts import Draft, of_error, power_of
from mambabench.compare.result import Overall

if TYPE_CHECKING:
    from mambabench.compare.result import CompareOptions
    from mambabench.stats.effect import Effect

FEWEST_TASKS: Final = 2
_PERCENT: Final = 100.0


def overall_figures(
    drafts: Sequence[Draft], candidates: Sequence[str], options: CompareOptions
) -> tuple[list[Overall], list[str]]:
    """Average each candidate's accuracies, where at least two tasks have one.

    Args:
        drafts: of all tasks.
        candidates: labels.
        options: margin and power.

    Returns:
        One a candidate at most, and why others have none, if not for want of tasks.
    """
    figures, remarks = [], []
    for label in candidates:
        chosen = _accuracies([d for d in drafts if d.contrast.candidate == label])
        if len(chosen) < FEWEST_TASKS:
            continue
        untested = [d.contrast.label for d in chosen if d.effect is None]
        if untested:
            remarks.append(f"{label} has no overall figure: {', '.join(untested)} could not be tested")
            continue
        figures.append(_figure(label, chosen, [d.effect for d in chosen if d.effect is not None], options))
    return figures, remarks


def _accuracies(drafts: Sequence[Draft]) -> list[Draft]:
    chosen: dict[str, Draft] = {}
    for draft in drafts:
        if draft.contrast.unit == "%" and draft.contrast.higher_is_better:
            chosen.setdefault(draft.contrast.task, draft)
    return list(chosen.values())


def _figure(
    label: str, chosen: Sequence[Draft], effects: Sequence[Effect], options: CompareOptions
) -> Overall:
    from mambabench.stats.combined import average_effect, equivalence_from

    effect = average_effect(effects)
    margin = options.margin_points / _PERCENT
    p_equivalence = equivalence_from(effect, margin) if margin > 0 else 1.0
    smallest, _ = power_of(of_error(effect), 0.0, options)
    return Overall(
        candidate=label,
        n_tasks=len(chosen),
        baseline_value=_mean([d.contrast.baseline_value for d in chosen]),
        candidate_value=_mean([d.contrast.candidate_value for d in chosen]),
        difference=effect.difference * _PERCENT,
        # Where items determine no interval, the ends of the scale are one.
        low=max(effect.low, -1.0) * _PERCENT,
        high=min(effect.high, 1.0) * _PERCENT,
        p_value=effect.p_value,
        p_adjusted=effect.p_value,
        p_equivalence=p_equivalence,
        p_equivalence_adjusted=p_equivalence,
        detectable=None if smallest is None else smallest * _PERCENT,
        verdict="not distinguishable",
        method=effect.interval_method,
        paired=all(d.contrast.paired for d in chosen),
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)
