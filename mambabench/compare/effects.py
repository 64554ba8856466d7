"""Which statistic a measure calls for, on items that two sides have in common.

Right or wrong items are compared by McNemar's test, other means by Student's, and where items share a
cluster, both by clustered errors; word and byte perplexities by the ratio of sums over documents. Of a group
whose members count the same the members' differences are combined, or are themselves the sample where each
is one cluster.

    outcome = paired_outcome(task, "acc", task.sides[1], task.sides[0], CompareOptions())
    outcome.effect.difference, outcome.why_not
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.read import value_of
from mambabench.stats.bootstrap import LEAST_REPLICATES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mambabench.compare.items import AlignedSide, AlignedTask, Floats, Integers, Measure, MeasureKind
    from mambabench.compare.result import CompareOptions
    from mambabench.schema import Unit
    from mambabench.stats.effect import Effect
    from mambabench.stats.power import Sensitivity

    Mask = NDArray[np.bool_]

_SLACK: Final = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What a test says of one measure, or why there is none; in lm-eval's unit and in the tested one."""

    unit: Unit
    kind: MeasureKind
    higher_is_better: bool
    baseline_value: float | None
    """In lm-eval's unit, over the items compared."""
    candidate_value: float | None
    effect: Effect | None = None
    """In the tested unit, of which `mambabench.compare.scales` knows."""
    equivalence: Callable[[float], float] | None = None
    """Gives the p-value of a difference of the given size or more, in the tested unit."""
    sensitivity: Sensitivity | None = None
    """What so many items can show by the test that was made; None where an error is all that is known."""
    n_won: int | None = None
    n_lost: int | None = None
    why_not: str = ""
    """Why nothing is tested, as one sentence without a stop; empty where something is."""


def paired_outcome(
    task: AlignedTask,
    name: str,
    candidate: AlignedSide,
    baseline: AlignedSide,
    options: CompareOptions,
    *,
    by_size: bool = True,
) -> Outcome:
    """Compare one measure that both sides have, item by item.

    Args:
        task: says which items are one member's or share a cluster.
        name: of the measure.
        candidate: of the task.
        baseline: of the task.
        options: replicates and seed of a bootstrap.
        by_size: whether a group pools its members' items; else their values are averaged.
    """
    new, old = candidate.measures[name], baseline.measures[name]
    pooled = by_size or len(task.members) == 1
    plain = Outcome(
        unit=old.unit,
        kind=old.kind,
        higher_is_better=old.higher_is_better,
        baseline_value=value_over(old, task.member_of, by_size=by_size),
        candidate_value=value_over(new, task.member_of, by_size=by_size),
        why_not=_why_not(new, old, task),
    )
    if plain.why_not:
        return plain
    if new.kind == "binary":
        won = int(((new.values == 1) & (old.values == 0)).sum())
        lost = int(((new.values == 0) & (old.values == 1)).sum())
        plain = replace(plain, n_won=won, n_lost=lost)
    if pooled:
        effect, equivalence, sensitivity = _pooled(new, old, task.clusters, options)
    else:
        effect, equivalence, sensitivity = _averaged(new, old, task, options)
    return replace(plain, effect=effect, equivalence=equivalence, sensitivity=sensitivity)


def _why_not(new: Measure, old: Measure, task: AlignedTask) -> str:
    import numpy as np

    if (new.unit, new.higher_is_better) != (old.unit, old.higher_is_better):
        return f"the sides do not mean the same by {old.name}"
    if "corpus" in (new.kind, old.kind) or new.kind != old.kind:
        return f"{old.name} is no mean over items, so that its uncertainty is not known"
    if len(task.members) > 1 and new.kind in ("log mean", "ratio"):
        return f"the {old.name} of a group is the mean of its members' own; compare them one by one"
    if new.kind != "ratio":
        return ""
    if new.weights is None or old.weights is None or not np.array_equal(new.weights, old.weights):
        return f"the sides count the words or bytes of {old.name} differently"
    return ""


def value_over(measure: Measure, member_of: Integers, *, by_size: bool) -> float | None:
    """Return the value over the items, of a group as reports weigh its members."""
    import numpy as np

    members = np.unique(member_of)
    if measure.kind == "corpus":
        return measure.recorded if len(members) == 1 else None
    if len(members) < 2 or (by_size and measure.kind in ("binary", "mean")):
        return value_of(measure)
    values = [value_of(_of(measure, member_of == member)) for member in members]
    sizes = [int((member_of == member).sum()) if by_size else 1 for member in members]
    if any(value is None for value in values):
        return None
    return float(sum(w * v for w, v in zip(sizes, values, strict=True) if v is not None) / sum(sizes))


def _of(measure: Measure, mask: Mask) -> Measure:
    weights = None if measure.weights is None else measure.weights[mask]
    return replace(measure, values=measure.values[mask], weights=weights)


Tested = tuple["Effect", Callable[[float], float], "Sensitivity | None"]


def _pooled(new: Measure, old: Measure, clusters: Integers | None, options: CompareOptions) -> Tested:
    """Test all items together."""
    from mambabench.stats import paired_binary, paired_mean
    from mambabench.stats.power_pairs import Pairs

    c, b = new.values, old.values
    if new.kind == "binary" and clusters is None:
        return (
            paired_binary.binary_effect(c, b),
            lambda margin: paired_binary.binary_equivalence(c, b, margin),
            Pairs(int((c != b).sum()), len(c)),
        )
    bootstrap: dict[str, Any] = {"replicates": options.replicates, "seed": options.seed}
    if new.kind == "ratio" and new.weights is not None:
        weights = new.weights
        effect = paired_mean.ratio_effect(c, b, weights, **bootstrap)
        return (
            effect,
            lambda margin: paired_mean.ratio_equivalence(c, b, weights, -margin, margin),
            _of_means(effect, c, b, None),
        )
    bounds = _bounds(new, old)
    if bounds is not None:
        c, b = c.clip(*bounds), b.clip(*bounds)
    effect = paired_mean.mean_effect(c, b, clusters=clusters, bounds=bounds, **bootstrap)
    return (
        effect,
        lambda margin: paired_mean.mean_equivalence(c, b, margin, clusters=clusters, bounds=bounds),
        _of_means(effect, c, b, clusters),
    )


def _of_means(effect: Effect, c: Floats, b: Floats, clusters: Integers | None) -> Sensitivity:
    from mambabench.stats.power_means import Differences
    from mambabench.stats.totals import Totals, differences

    totals = Totals.of(differences(c, b)[0], clusters=clusters)
    return Differences(
        effect.standard_error,
        effect.difference,
        effect.n,
        len(totals),
        totals.n_nonzero,
        effect.degrees_of_freedom,
    )


def _bounds(new: Measure, old: Measure) -> tuple[float, float] | None:
    """Return the ends of what an item can be worth; sums of probabilities pass 1 by a rounding error."""
    within = all(bool(((m.values >= -_SLACK) & (m.values <= 1 + _SLACK)).all()) for m in (new, old))
    return (0.0, 1.0) if new.unit == "fraction" and within else None


def _averaged(new: Measure, old: Measure, task: AlignedTask, options: CompareOptions) -> Tested:
    """Test the mean over members of their means."""
    import numpy as np

    from mambabench.stats.combined import average_effect, equivalence_from
    from mambabench.stats.power_means import Differences

    masks = [task.member_of == member for member in np.unique(task.member_of)]
    owners = _owners(task.clusters, masks)
    if owners is not None:
        means = [
            replace(m, kind="mean", values=np.array([m.values[mask].mean() for mask in masks]))
            for m in (new, old)
        ]
        effect, equivalence, sensitivity = _pooled(means[0], means[1], owners, options)
        if isinstance(sensitivity, Differences):
            sensitivity = replace(sensitivity, n=task.n)
        return replace(effect, n=task.n), equivalence, sensitivity
    # Of a member's interval only the width is used.
    fewer = replace(options, replicates=LEAST_REPLICATES)
    effects = []
    for mask in masks:
        clusters = None if task.clusters is None else task.clusters[mask]
        effects.append(_pooled(_of(new, mask), _of(old, mask), clusters, fewer)[0])
    effect = average_effect(effects)
    return effect, lambda margin: equivalence_from(effect, margin), None


def _owners(clusters: Integers | None, masks: list[Mask]) -> Integers | None:
    """Return each member's cluster, [members]; None where members are divided, or nothing is clustered."""
    import numpy as np

    if clusters is None or any(len(np.unique(clusters[mask])) > 1 for mask in masks):
        return None
    return np.array([clusters[mask][0] for mask in masks])
