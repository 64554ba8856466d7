"""What pairs of right and wrong answers can show by McNemar's exact test.

The power is that of the test itself, summed over how many pairs may differ: that number is binomial with the
observed rate (half a pair added, so that it is never 0), or with the true difference where that is larger,
since no fewer pairs can differ. Of 48 pairs of which one differs a standard error would make 5.8 points
detectable; but six pairs must differ, all one way, before the test finds anything:

>>> round(100 * (Pairs(1, 48).detectable() or 0), 1), Pairs(0, 5).detectable() is None
(16.0, True)
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mambabench.stats.power import (
    check_difference,
    check_probabilities,
    fewest_one_way,
    least,
    one_way_rate,
    reaches,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST_SUMMED: Final = 1000.0
"""Pairs expected to differ up to which the power is summed; beyond, it is normal, made to meet the sums."""

LARGEST_RATE: Final = 0.9
"""Where more pairs differ, as many are taken to. If nearly all do, the exact power swings with their number,
as one more lost pair is allowed or not; what is detectable is then up to 12% more than said here."""

_HALVINGS: Final = 24
_DEVIATIONS: Final = 7.0


@dataclass(frozen=True)
class Pairs:
    """A difference of two accuracies over the same items: see `mambabench.stats.power.Sensitivity`.

    Differences are fractions. More items, or fewer that differ, never show less.
    """

    n_differing: int
    """Items that one side alone has right."""
    n: int
    """All items."""

    def detectable(self, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
        """Return the smallest true difference that is shown; None where all items one way show nothing."""
        check_probabilities(alpha, power)
        return None if self.too_few(alpha=alpha) else _detectable(self.n, self._rate, alpha, power)

    def n_needed(self, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
        """Return how many items show a true difference; one above 1 counts as 1."""
        check_difference(difference)
        check_probabilities(alpha, power)
        return _n_needed(self._rate, min(1.0, difference), alpha, power)

    def fewest(self, *, alpha: float = 0.05) -> int:
        """Return how many items show something if all go one way."""
        return fewest_one_way(alpha)

    def too_few(self, *, alpha: float = 0.05) -> bool:
        """Return whether there are fewer than that."""
        return self.n < self.fewest(alpha=alpha)

    @property
    def _rate(self) -> float:
        return min(LARGEST_RATE, (self.n_differing + 0.5) / (self.n + 1))


@functools.lru_cache(maxsize=4096)
def _detectable(n: int, rate: float, alpha: float, power: float) -> float:
    one_way = one_way_rate(n, alpha, power)
    if one_way >= rate:
        return one_way
    summed = int(MOST_SUMMED / rate)
    if n > summed:
        # What the normal one is wrong by shrinks with the number of items.
        ratio = _detectable(summed, rate, alpha, power) / _normal(summed, rate, alpha, power)
        return max(one_way, _normal(n, rate, alpha, power) * (1 + (ratio - 1) * summed / n))
    found = _Test(n, rate, alpha)
    low, high = 0.0, rate
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if found.power(middle) >= power else (middle, high)
    return max(one_way, high)


@functools.lru_cache(maxsize=4096)
def _n_needed(rate: float, difference: float, alpha: float, power: float) -> int:
    def shown(n: int) -> bool:
        if not reaches(difference, one_way_rate(n, alpha, power)):
            return False
        if difference >= rate:
            return True
        if n > int(MOST_SUMMED / rate):
            return reaches(difference, _detectable(n, rate, alpha, power))
        return _Test(n, rate, alpha).power(difference) >= power

    return least(fewest_one_way(alpha), shown)


def _normal(n: int, rate: float, alpha: float, power: float) -> float:
    """Return the difference d where n d - 1 is as far as the level and the power ask for.

    The level asks for errors of no difference, sqrt(n rate), the power for those of d, sqrt(n (rate - d^2)).
    Pairs won less those lost change in steps of two: 1 is the correction for continuity.
    """
    from scipy.special import ndtri

    bar = 1 - float(ndtri(alpha / 2)) * math.sqrt(n * rate)
    z = float(ndtri(power))
    square = n * n + z * z * n
    root = math.sqrt(max(0.0, (n * bar) ** 2 - square * (bar**2 - z * z * n * rate)))
    return (n * bar + math.copysign(root, z)) / square


class _Test:
    """McNemar's exact test of n pairs that differ at a given rate."""

    def __init__(self, n: int, rate: float, alpha: float) -> None:
        import numpy as np
        from scipy.special import gammaln, xlog1py, xlogy

        reach = _DEVIATIONS * math.sqrt(n * rate * (1 - rate)) + _DEVIATIONS
        differing = np.arange(max(0, int(n * rate - reach)), min(n, int(n * rate + reach) + 1) + 1)
        lost = most_lost(differing, alpha)
        able = lost >= 0
        self.rate, self.differing, self.lost = rate, differing[able], lost[able]
        ways = gammaln(n + 1) - gammaln(self.differing + 1) - gammaln(n - self.differing + 1)
        logs = ways + xlogy(self.differing, rate) + xlog1py(n - self.differing, -rate)
        self.weights: Floats = np.exp(logs)

    def power(self, difference: float) -> float:
        """Return the chance that the better side is found, at most `rate` apart."""
        from scipy.special import bdtr

        losses = bdtr(self.lost, self.differing, max(0.0, (1 - difference / self.rate) / 2))
        return float((self.weights * losses).sum())


def most_lost(differing: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    """Return of so many differing pairs the most that may be lost for the test to call the others better.

    Args:
        differing: [m].
        alpha: level; p-values must be below it.

    Returns:
        [m], -1 where not even none is enough.
    """
    import numpy as np
    from scipy.special import bdtr, ndtri

    def found(lost: NDArray[np.int64]) -> NDArray[np.bool_]:
        within = (lost >= 0) & (lost < differing)
        p_values: Floats = 2 * bdtr(np.where(within, lost, 0), differing, 0.5)
        return within & (p_values < alpha)

    guess = differing / 2 + float(ndtri(alpha / 2)) * np.sqrt(differing) / 2
    lost = np.clip(np.floor(guess).astype(np.int64), -1, differing)
    while bool((more := found(lost + 1)).any()):
        lost = lost + more
    while bool((fewer := (lost >= 0) & ~found(lost)).any()):
        lost = lost - fewer
    return lost
