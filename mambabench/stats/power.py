"""What so many items can show: the smallest detectable difference, and the items that a given one needs.

A difference is shown where the test finds it and the sign is right. The power is spoken of before the items
are seen: how often so many items like these show a true difference of that size. How it follows depends on
the test; this module has what all have in common and the power of a test that only knows an error, others
are in `power_pairs` (McNemar's) and `power_means` (Student's and flipping signs).

>>> round(KnownError(0.01, 1000).detectable(), 4), KnownError(0.01, 1000).n_needed(0.01)
(0.028, 7849)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

_SLACK: Final = 1e-9
"""A difference this little short of the one asked for, relative to it, is rounding."""


class Sensitivity(Protocol):
    """What the items of one comparison can show; differences are above 0, in the unit that is tested."""

    def detectable(self, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
        """Return the smallest true difference that so many items show with so much power.

        Args:
            alpha: level of the two-sided test, already divided where many tests are corrected.
            power: probability of finding the difference, at least alpha.

        Returns:
            None where there is none: too few items to show any, or items that do not tell how differences
            vary.

        Raises:
            ValueError: probabilities that are not such.
        """

    def n_needed(self, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
        """Return how many items like these show a true difference with so much power.

        Args:
            difference: to be found, above 0.
            alpha: as for `detectable`.
            power: as for `detectable`.

        Returns:
            None where the items do not tell how differences vary.

        Raises:
            ValueError: a difference that is not above 0, or probabilities that are not such.
        """

    def fewest(self, *, alpha: float = 0.05) -> int:
        """Return how many independent items the test needs to show anything at all."""

    def too_few(self, *, alpha: float = 0.05) -> bool:
        """Return whether there are fewer than that."""


@dataclass(frozen=True)
class KnownError:
    """A difference of which only the standard error is known, tested by Student or as normal."""

    standard_error: float
    """In the unit that is tested; NaN where it is not known."""
    n: int
    """Items it is over; that of other numbers follows by the square root."""
    degrees_of_freedom: float | None = None
    """None for a normal one."""

    def detectable(self, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
        """See `Sensitivity.detectable`."""
        errors = errors_needed(self.degrees_of_freedom, alpha, power)
        if not self._known or errors is None:
            return None
        return errors * self.standard_error

    def n_needed(self, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
        """See `Sensitivity.n_needed`."""
        check_difference(difference)
        if self.detectable(alpha=alpha, power=power) is None:
            return None

        def shown(n: int) -> bool:
            df = None if self.degrees_of_freedom is None else self.degrees_of_freedom * n / self.n
            error = self.standard_error * math.sqrt(self.n / n)
            errors = errors_needed(df, alpha, power)
            return errors is not None and reaches(difference, errors * error)

        return least(1, shown)

    def fewest(self, *, alpha: float = 0.05) -> int:
        """Return 1: an error that is known says all."""
        return 1

    def too_few(self, *, alpha: float = 0.05) -> bool:
        """Return False."""
        return False

    @property
    def _known(self) -> bool:
        return math.isfinite(self.standard_error) and self.standard_error > 0


@functools.lru_cache(maxsize=4096)
def errors_needed(degrees_of_freedom: float | None, alpha: float, power: float) -> float | None:
    """Return how many standard errors a difference must have: the noncentrality of Student's t.

    Args:
        degrees_of_freedom: of the error; None for a normal one.
        alpha: level of the two-sided test.
        power: asked for.

    Returns:
        None with fewer than one degree of freedom, where next to nothing is found.

    Raises:
        ValueError: probabilities that are not such.
    """
    from scipy.special import nctdtrinc, ndtri, stdtrit

    check_probabilities(alpha, power)
    if degrees_of_freedom is None:
        return float(ndtri(1 - alpha / 2) + ndtri(power))
    if degrees_of_freedom < 1:
        return None
    critical = stdtrit(degrees_of_freedom, 1 - alpha / 2)
    found = float(nctdtrinc(degrees_of_freedom, 1 - power, critical))
    return found if math.isfinite(found) else None


def fewest_one_way(alpha: float) -> int:
    """Return how many items that all go one way are a difference to an exact test of signs.

    Its smallest p-value of k items that differ is 2 ** (1 - k).

    >>> fewest_one_way(0.05)
    6
    """
    k = 1
    while 2.0 ** (1 - k) >= alpha:
        k += 1
    return k


def one_way_rate(n: int, alpha: float, power: float) -> float:
    """Return the rate at which items must differ, all one way, so that an exact test of signs finds it.

    Args:
        n: items, at least `fewest_one_way(alpha)`.
        alpha: level of the two-sided test.
        power: asked for: the chance that enough of the items differ.
    """
    from scipy.special import betaincinv

    k = fewest_one_way(alpha)
    return float(betaincinv(k, n - k + 1, power))


def least(first: int, holds: Callable[[int], bool]) -> int:
    """Return the least number from `first` on that something holds for, and for all larger ones.

    >>> least(3, lambda n: n * n >= 50)
    8
    """
    if holds(first):
        return first
    low, high = first, 2 * first
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def reaches(difference: float, smallest: float) -> bool:
    """Return whether a difference is as large as the smallest that is shown."""
    return difference >= smallest * (1 - _SLACK)


def check_probabilities(alpha: float, power: float) -> None:
    """Refuse what is no level or no power.

    Raises:
        ValueError: not between 0 and 1, or less power than chance alone has.
    """
    if not 0 < alpha < 1 or not alpha <= power < 1:
        raise ValueError(f"alpha {alpha} and power {power} are not possible")


def check_difference(difference: float) -> None:
    """Refuse a difference that no number of items shows.

    Raises:
        ValueError: not above 0, or not finite.
    """
    if not (math.isfinite(difference) and difference > 0):
        raise ValueError(f"no number of items shows a difference of {difference}")
