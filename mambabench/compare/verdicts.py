"""From p-values to words: families are corrected, then every contrast is called what it is.

>>> verdict(-2.0, 0.001, 0.9, higher_is_better=True, alpha=0.05)
('worse', False)
>>> verdict(-0.2, 0.4, 0.01, higher_is_better=True, alpha=0.05)
('equivalent', False)

A difference that is not shown is called "not distinguishable", never "none": that two sides are alike
within a margin takes a test of its own, and the p-values of those are corrected in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, get_args

from mambabench.compare.result import Family, FamilyName, Verdict

if TYPE_CHECKING:
    from mambabench.compare.result import CompareOptions, Contrast, Overall

_FAMILIES: Final[tuple[FamilyName, ...]] = get_args(FamilyName)


def verdict(
    difference: float | None,
    p_adjusted: float | None,
    p_equivalence_adjusted: float | None,
    *,
    higher_is_better: bool,
    alpha: float,
) -> tuple[Verdict, bool]:
    """Return the word for a difference, and whether one that is better or worse is within the margin.

    Args:
        difference: candidate minus baseline.
        p_adjusted: of no difference; None where that was not tested.
        p_equivalence_adjusted: of a difference of the margin or more; None where that was not tested.
        higher_is_better: of what differs.
        alpha: level of both tests.
    """
    if p_adjusted is None:
        return "not tested", False
    alike = p_equivalence_adjusted is not None and p_equivalence_adjusted < alpha
    if p_adjusted < alpha and difference:
        return ("better" if (difference > 0) == higher_is_better else "worse"), alike
    return ("equivalent" if alike else "not distinguishable"), False


def judged(
    contrasts: Sequence[Contrast], overall: Sequence[Overall], options: CompareOptions
) -> tuple[tuple[Contrast, ...], tuple[Overall, ...], tuple[Family, ...]]:
    """Adjust p-values within each family and give every contrast and overall figure its verdict.

    Args:
        contrasts: with p-values; those that were not tested do not count.
        overall: with p-values; one family.
        options: correction and level.

    Returns:
        The same in the same order, and the families in which something was tested.
    """
    found: list[Contrast] = [*contrasts]
    families = []
    for name in _FAMILIES:
        if name == "overall":
            p_values: list[float | None] = [o.p_value for o in overall]
        else:
            p_values = [c.p_value for c in contrasts if c.family == name]
        if n_tests := sum(p is not None for p in p_values):
            families.append(Family(name, n_tests, options.correction, options.alpha))
    for name in _FAMILIES:
        places = [i for i, c in enumerate(found) if c.family == name]
        changed = _judged_contrasts([found[i] for i in places], options)
        for i, contrast in zip(places, changed, strict=True):
            found[i] = contrast
    return tuple(found), _judged_overall(overall, options), tuple(families)


def _judged_contrasts(family: Sequence[Contrast], options: CompareOptions) -> list[Contrast]:
    from mambabench.stats.multiplicity import adjusted

    p_adjusted = adjusted([c.p_value for c in family], options.correction)
    p_equivalence = adjusted([c.p_equivalence for c in family], options.correction)
    changed = []
    for contrast, p, p_alike in zip(family, p_adjusted, p_equivalence, strict=True):
        word, within = verdict(
            contrast.difference,
            p,
            p_alike,
            higher_is_better=contrast.higher_is_better,
            alpha=options.alpha,
        )
        changed.append(
            replace(
                contrast, p_adjusted=p, p_equivalence_adjusted=p_alike, verdict=word, within_margin=within
            )
        )
    return changed


def _judged_overall(family: Sequence[Overall], options: CompareOptions) -> tuple[Overall, ...]:
    from mambabench.stats.multiplicity import adjusted

    p_adjusted = adjusted([o.p_value for o in family], options.correction)
    p_equivalence = adjusted([o.p_equivalence for o in family], options.correction)
    changed = []
    for figure, p, p_alike in zip(family, p_adjusted, p_equivalence, strict=True):
        word, within = verdict(figure.difference, p, p_alike, higher_is_better=True, alpha=options.alpha)
        changed.append(
            replace(
                figure,
                p_adjusted=1.0 if p is None else p,
                p_equivalence_adjusted=1.0 if p_alike is None else p_alike,
                verdict=word,
                within_margin=within,
            )
        )
    return tuple(changed)
