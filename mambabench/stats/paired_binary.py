"""Two models' right and wrong answers to the same items: their difference, its interval, and tests.

Only the items that one side alone has right count for a difference: `won` by the candidate, `lost` to it.

>>> effect = binary_effect([1, 1, 1, 1, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0, 0, 1])
>>> effect.difference, effect.p_value
(0.625, 0.0625)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mambabench.stats.effect import Effect
from mambabench.stats.exact_binary import exact_lower, score_lower, tail_p

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

N_FOR_SCORE = 100
"""Items from which the score interval is given; below, the exact one."""


def mcnemar_exact(n_won: int, n_lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: that a difference goes either way with even odds.

    Args:
        n_won: items that only the candidate has right.
        n_lost: items that only the baseline has right.

    Raises:
        ValueError: a count is negative or not whole.
    """
    from scipy.special import bdtr

    if min(n_won, n_lost) < 0 or n_won != int(n_won) or n_lost != int(n_lost):
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
    z = float(ndtri(0.5 + confidence / 2))
    if n < N_FOR_SCORE:
        alpha, method = (1 - confidence) / 2, "exact score"
        low, high = exact_lower(won, lost, n, alpha), -exact_lower(lost, won, n, alpha)
    else:
        method = "score"
        low, high = score_lower(won, lost, n, z), -score_lower(lost, won, n, z)
    difference = (won - lost) / n
    low, high = min(low, difference), max(high, difference)
    spread = (won + lost) / n - difference**2
    # Items that all say the same still leave a doubt, which the interval measures.
    alike = won + lost == 0 or n in (won, lost)
    error = (high - low) / (2 * z) if alike else math.sqrt(spread / (n - 1))
    p_value = mcnemar_exact(won, lost)
    return Effect(difference, low, high, method, "exact McNemar", p_value, error, n)


def binary_equivalence(candidate: ArrayLike, baseline: ArrayLike, margin: float) -> float:
    """Return the p-value of the hypothesis that two accuracies differ by the margin or more.

    The larger p-value of two exact one-sided tests, so that it keeps its level for any number of items.

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
    return max(tail_p(won, lost, n, -margin), tail_p(lost, won, n, -margin))


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
