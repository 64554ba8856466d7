"""What so many items can show: the smallest detectable difference, and the items that a given one needs.

Both take the standard error of a difference as normal, and the error of other numbers of items as that of
these, scaled by the square root. They speak of a true difference in either direction and a two-sided test.
An exact test of few items finds less than is said here: McNemar's has a power of 0.72 to 0.78 for 0.8 where
10 to 50 items differ, and needs a difference up to 8% larger; where 100 differ, 3%.

>>> round(detectable(0.01), 4), n_needed(0.01, 1000, 0.01)
(0.028, 7849)
"""

from __future__ import annotations

import math


def detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true difference that a test finds with so much power, in the unit of the error.

    Args:
        standard_error: of the difference, not negative; NaN gives NaN.
        alpha: level of the two-sided test, already divided where many tests are corrected.
        power: probability of finding the difference, at least alpha.

    Raises:
        ValueError: a negative error, or probabilities that are not such.
    """
    return _errors(alpha, power) * _checked(standard_error)


def n_needed(
    standard_error: float, n: int, difference: float, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Return how many items find a true difference with so much power.

    Args:
        standard_error: of the difference over `n` items, above 0.
        n: items.
        difference: to be found, not 0, in the unit of the error.
        alpha: level of the two-sided test.
        power: probability of finding the difference, at least alpha.

    Raises:
        ValueError: an error or difference that is 0 or not finite, or probabilities that are not such.
    """
    size = abs(difference)
    if not (_checked(standard_error) > 0 and math.isfinite(size) and size > 0 and n > 0):
        raise ValueError(f"no number of items follows from {difference}, {standard_error} and {n} items")
    return max(1, math.ceil(n * (_errors(alpha, power) * standard_error / size) ** 2 - 1e-9))


def _errors(alpha: float, power: float) -> float:
    """Return how many standard errors a difference must have."""
    from scipy.special import ndtri

    if not 0 < alpha < 1 or not alpha <= power < 1:
        raise ValueError(f"alpha {alpha} and power {power} are not possible")
    return float(ndtri(1 - alpha / 2) + ndtri(power))


def _checked(standard_error: float) -> float:
    if standard_error < 0 or math.isinf(standard_error):
        raise ValueError(f"{standard_error} is not a standard error")
    return standard_error
