"""A task's measures as differences with their uncertainty, before p-values are adjusted.

    drafts = task_contrasts(task, "base", ["tuned"], CompareOptions())
    drafts[0].contrast.difference

A draft keeps the effect in the unit that was tested: the overall figure is made of those.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mambabench.compare.effects import Outcome, paired_outcome
from mambabench.compare.items import LOG_LIKELIHOOD
from mambabench.compare.result import Contrast, FamilyName
from mambabench.compare.scales import Scale, scale_of
from mambabench.compare.totals import unpaired_outcome
from mambabench.taskindex import TaskIndex

if TYPE_CHECKING:
    from mambabench.compare.asked import TotalsTask
    from mambabench.compare.items import AlignedTask
    from mambabench.compare.result import CompareOptions
    from mambabench.stats.effect import Effect
    from mambabench.stats.power import Sensitivity


@dataclass(frozen=True)
class Draft:
    """A contrast without a verdict."""

    contrast: Contrast
    effect: Effect | None
    """In the unit that was tested; None where nothing was."""


def task_contrasts(
    task: AlignedTask, baseline: str, candidates: Sequence[str], options: CompareOptions
) -> list[Draft]:
    """Compare every measure of a task, item by item.

    Args:
        task: its first side is the baseline, the others are the candidates in order.
        baseline: label.
        candidates: labels.
        options: margins, power, bootstrap, and whether log-likelihoods are compared.

    Returns:
        By measure, then candidate. Measures are the metrics that are read, then the log-likelihood.
    """
    if len(task.sides) != 1 + len(candidates):
        raise ValueError(
            f"{task.task} has {len(task.sides)} sides, not {baseline} and {len(candidates)} more"
        )
    names = [*task.metrics]
    if options.log_likelihoods and LOG_LIKELIHOOD in task.sides[0].measures:
        names.append(LOG_LIKELIHOOD)
    by_size = weighs_by_size(task.task) if len(task.members) > 1 else True
    drafts = []
    for name in names:
        for label, side in zip(candidates, task.sides[1:], strict=True):
            outcome = paired_outcome(task, name, side, task.sides[0], options, by_size=by_size)
            blank = _blank(label, task.task, task.label, name, headline=(name,) == task.metrics[:1])
            sized = replace(
                blank,
                n=task.n,
                n_candidate=task.n,
                n_total=task.n_total,
                cluster_name=task.cluster_name,
            )
            drafts.append(_filled(sized, outcome, options))
    return drafts


def totals_contrasts(
    task: TotalsTask, baseline: str, candidates: Sequence[str], options: CompareOptions
) -> list[Draft]:
    """Compare values that are known without their items.

    Args:
        task: its first side is the baseline, the others are the candidates in order.
        baseline: label.
        candidates: labels.
        options: margins and power.

    Returns:
        By measure, then candidate.
    """
    if len(task.sides) != 1 + len(candidates):
        raise ValueError(
            f"{task.task} has {len(task.sides)} sides, not {baseline} and {len(candidates)} more"
        )
    drafts = []
    for place, name in enumerate(task.metrics):
        old = task.sides[0][place]
        for label, side in zip(candidates, task.sides[1:], strict=True):
            blank = _blank(label, task.task, task.label, name, headline=place == 0)
            sized = replace(blank, paired=False, n=old.n, n_candidate=side[place].n, n_total=old.n)
            drafts.append(_filled(sized, unpaired_outcome(side[place], old), options))
    return drafts


def weighs_by_size(group: str) -> bool:
    """Return whether a group of lm-eval pools its members' items; so do groups that are not known."""
    index = _task_index()
    return index.get(group).weight_by_size if group in index else True


@functools.cache
def _task_index() -> TaskIndex:
    return TaskIndex.load()


def _blank(candidate: str, task: str, label: str, measure: str, *, headline: bool) -> Contrast:
    family: FamilyName = "tasks" if headline else "further metrics"
    if measure == LOG_LIKELIHOOD:
        family = "log-likelihoods"
    return Contrast(
        candidate=candidate,
        task=task,
        label=label,
        measure=measure,
        headline=headline,
        family=family,
        unit="",
        effect_unit="",
        higher_is_better=True,
        paired=True,
        n=0,
        n_candidate=0,
        n_total=0,
        baseline_value=None,
        candidate_value=None,
        difference=None,
        low=None,
        high=None,
        interval_method="",
        test="",
        p_value=None,
        p_adjusted=None,
        n_won=None,
        n_lost=None,
        n_clusters=None,
        cluster_name="",
        margin=0.0,
        p_equivalence=None,
        p_equivalence_adjusted=None,
        detectable=None,
        n_needed=None,
        verdict="not tested",
    )


def _filled(blank: Contrast, outcome: Outcome, options: CompareOptions) -> Draft:
    """Put what was found into a contrast, in the units that are shown."""
    scale = scale_of(outcome.unit, outcome.kind)
    old, new = _shown_value(scale, outcome.baseline_value), _shown_value(scale, outcome.candidate_value)
    margin = scale.margin(options, old or 0.0)
    contrast = replace(
        blank,
        unit=scale.unit,
        effect_unit=scale.effect_unit,
        higher_is_better=outcome.higher_is_better,
        baseline_value=old,
        candidate_value=new,
        difference=_between(scale, outcome),
        n_won=outcome.n_won,
        n_lost=outcome.n_lost,
        margin=margin,
    )
    effect = outcome.effect
    if effect is None:
        return Draft(replace(contrast, remarks=(*contrast.remarks, f"not tested: {outcome.why_not}")), None)
    low, high = scale.ends(effect.low, effect.high)
    determined = effect.determined and math.isfinite(low) and math.isfinite(high)
    equivalence = None
    if outcome.equivalence is not None and margin > 0:
        equivalence = outcome.equivalence(scale.tested_margin(margin))
    sensitivity = outcome.sensitivity or of_error(effect)
    wanted = options.detect_points if scale.effect_unit == "pt" else None
    smallest, n_needed = power_of(
        sensitivity, scale.tested_margin(margin if wanted is None else wanted), options
    )
    filled = replace(
        contrast,
        difference=_finite(scale.difference(effect.difference)),
        low=low if determined else None,
        high=high if determined else None,
        interval_method=effect.interval_method,
        test=effect.test,
        p_value=effect.p_value,
        n_clusters=effect.n_clusters,
        cluster_name=contrast.cluster_name if effect.n_clusters is not None else "",
        p_equivalence=equivalence,
        detectable=None if smallest is None else _finite(scale.size(smallest)),
        n_needed=n_needed,
    )
    if not determined:
        filled = replace(filled, remarks=(*filled.remarks, "the items determine no interval"))
    if sensitivity.too_few(alpha=options.alpha):
        fewest = sensitivity.fewest(alpha=options.alpha)
        independent = "items" if effect.n_clusters is None else "independent groups of items"
        said = f"fewer than {fewest} {independent} show no difference, however large"
        filled = replace(filled, remarks=(*filled.remarks, said))
    return Draft(filled, effect)


def power_of(
    sensitivity: Sensitivity, wanted: float, options: CompareOptions
) -> tuple[float | None, int | None]:
    """Return the smallest difference that the items show, and how many items would show a given one.

    Args:
        sensitivity: of the items compared.
        wanted: the difference to be shown, in the tested unit; 0 for none.
        options: level and power asked for.

    Returns:
        None for either where the items do not tell how much differences vary; for the first also where so
        few items show none, for the second where none is wanted.
    """
    asked = {"alpha": options.alpha, "power": options.power}
    return sensitivity.detectable(**asked), (sensitivity.n_needed(wanted, **asked) if wanted > 0 else None)


def of_error(effect: Effect) -> Sensitivity:
    """Return what items can show of which nothing is known but the error of their difference."""
    from mambabench.stats.power import KnownError

    return KnownError(effect.standard_error, effect.n, effect.degrees_of_freedom)


def _between(scale: Scale, outcome: Outcome) -> float | None:
    """Return the difference of the values as it is shown, whether or not it was tested."""
    old, new = outcome.baseline_value, outcome.candidate_value
    if old is None or new is None or (scale.shown == "percent" and min(old, new) <= 0):
        return None
    return _finite(scale.difference(scale.tested(new) - scale.tested(old)))


def _shown_value(scale: Scale, value: float | None) -> float | None:
    return None if value is None else _finite(scale.value(value))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
