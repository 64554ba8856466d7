"""Two models' right and wrong answers to the same items: their difference, its interval, and tests.

Only the items that one side alone has right count for a difference: `won` by the candidate, `lost` to it.
From 100 items the difference has the score interval of T. Tango (1998), Statistics in Medicine 17, 891-908;
below, one whose limits are exact (`exact_binary`).

Summed over all outcomes, the score interval of 95% covers 93.5 to 96.5% if at least ten items are expected to
differ and some of them either way. Where all differ the same way it is Wilson's and covers 93 to 97%. If
fewer than ten are expected, it covers 92.5% or more, up to all where hardly any item differs. The exact one
never covers less than 95%, nor is either end beyond the truth in more than 2.5%.

The exact test is the more cautious: where it finds a difference the interval leaves out 0, but of few
differing items (5 to 0, 7 to 1) the interval may leave it out and the test find nothing.

>>> effect = binary_effect([1, 1, 1, 1, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0, 0, 1])
>>> effect.difference, effect.p_value
(0.625, 0.0625)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mambabench.stats.effect import Effect
from mambabench.stats.exact_binary import exact_lower, score, score_lower, tail_p

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

N_FOR_SCORE = 100
"""Items from which the score interval is given; below, the exact one."""

N_FOR_EXACT_EQUIVALENCE = 1000
"""Items up to which equivalence is tested exactly; beyond, by the score with a correction of one item."""


def mcnemar_exact(n_won: int, n_lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: that a difference goes either way with even odds.

    Args:
        n_won: items that only the candidate has right.
        n_lost: items that only the baseline has right.

    Raises:
        ValueError: a count is negative or not whole.
    """
    from scipy.special import bdtr

    if not (n_won >= 0 and n_lost >= 0) or n_won % 1 or n_lost % 1:
        raise ValueError(f"{n_won} items won and {n_lost} lost are not possible")
    return min(1.0, 2 * float(bdtr(min(n_won, n_lost), n_won + n_lost, 0.5)))


def binary_effect(candidate: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> Effect:
    """Return the difference of two accuracies on the same items, with its interval and exact McNemar test.

    Args:
        candidate: [n], 1 for a right answer and 0 for a wrong one.
        baseline: [n], of the same items.
        confidence: between 0 and 1, exclusive.

    Raises:
        ValueError: no items, unequal lengths, or another value than 0 and 1.
    """
    from scipy.special import ndtri

    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not {confidence}")
    won, lost, n = _counts(candidate, baseline)
    low, high, method = interval_of_counts(won, lost, n, confidence)
    difference = (won - lost) / n
    # Items that all say the same still leave a doubt, which the interval measures.
    alike = won + lost == 0 or n in (won, lost)
    reach = (high - low) / 2 / float(ndtri(0.5 + confidence / 2))
    error = reach if alike else math.sqrt(((won + lost) / n - difference**2) / (n - 1))
    p_value = mcnemar_exact(won, lost)
    return Effect(difference, low, high, method, "exact McNemar", p_value, error, n)


def interval_of_counts(won: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float, str]:
    """Return the ends of the interval of the difference, and the method's name.

    Args:
        won: items that only the candidate has right.
        lost: items that only the baseline has right.
        n: all items.
        confidence: between 0 and 1, exclusive.
    """
    from scipy.special import ndtri

    if n < N_FOR_SCORE:
        alpha = (1 - confidence) / 2
        return exact_lower(won, lost, n, alpha), -exact_lower(lost, won, n, alpha), "exact score"
    z = float(ndtri(0.5 + confidence / 2))
    return score_lower(won, lost, n, z), -score_lower(lost, won, n, z), "score"


def binary_equivalence(candidate: ArrayLike, baseline: ArrayLike, margin: float) -> float:
    """Return the p-value of the hypothesis that two accuracies differ by the margin or more.

    The larger p-value of two one-sided score tests. Up to `N_FOR_EXACT_EQUIVALENCE` items they are exact and
    equivalence is never claimed at the margin more often than asked; beyond, the correction for continuity
    sees to that as long as no more than 95% of the items differ.

    Args:
        candidate: [n], 1 for a right answer and 0 for a wrong one.
        baseline: [n], of the same items.
        margin: between 0 and 1, exclusive: 0.01 is one percentage point.

    Raises:
        ValueError: no items, unequal lengths, another value than 0 and 1, or an impossible margin.
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin lies between 0 and 1, not {margin}")
    won, lost, n = _counts(candidate, baseline)
    return equivalence_of_counts(won, lost, n, margin)


def equivalence_of_counts(won: int, lost: int, n: int, margin: float) -> float:
    """Return what `binary_equivalence` does, from the items won, those lost and all."""
    from scipy.special import ndtr

    if n <= N_FOR_EXACT_EQUIVALENCE:
        return max(tail_p(won, lost, n, -margin), tail_p(lost, won, n, -margin))
    # Where all pairs differ won - lost changes in steps of two: one item is half of the largest step.
    scores = (float(score(*counts, n, -margin, discount=1.0)) for counts in ((won, lost), (lost, won)))
    return float(ndtr(-min(scores)))


def _counts(candidate: ArrayLike, baseline: ArrayLike) -> tuple[int, int, int]:
    """Return the items won, those lost, and all."""
    ours, theirs = _answers(candidate), _answers(baseline)
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} items of the candidate and {len(theirs)} of the baseline")
    return int((ours > theirs).sum()), int((ours < theirs).sum()), len(ours)


def _answers(values: ArrayLike) -> Floats:
    import numpy as np

    array: Floats = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"expected at least one item in one dimension, got shape {array.shape}")
    if not bool(((array == 0) | (array == 1)).all()):
        raise ValueError("answers are 1 for right or 0 for wrong")
    return array
