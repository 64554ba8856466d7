"""What differences of means can show by Student's test, held back by flipping signs where items are few.

Differences of items, or of groups of items that are not independent, are taken as normal with the observed
spread. The power of Student's test is then exact; up to 16 differences the test is also that of flipping
their signs, which finds nothing of five of them. If hardly any item differs, as many as the exact test asks
for must do so first, each by as much as the observed ones.

>>> six = Differences(standard_error=0.1, difference=0.3, n=6, n_independent=6, n_differing=6)
>>> round(six.detectable() or 0, 2), round(errors_needed(5, 0.05, 0.8) or 0, 2)
(0.44, 3.51)
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

from mambabench.stats.power import (
    check_difference,
    check_probabilities,
    errors_needed,
    fewest_one_way,
    least,
    one_way_rate,
    reaches,
)
from mambabench.stats.totals import MOST_FLIPPED

_MOST_RANKED: Final = 8
"""Choices of signs at least as extreme up to which what they ask for is drawn; beyond, they are close to
Student's test at the level that they attain."""
_DRAWS: Final = 8000


@dataclass(frozen=True)
class Differences:
    """A mean difference over the same items: see `mambabench.stats.power.Sensitivity`."""

    standard_error: float
    """In the unit that is tested; NaN where it is not known."""
    difference: float
    """Observed; with the error it says by how much items differ that do."""
    n: int
    """Items."""
    n_independent: int
    """Items, groups of them or documents that are independent of each other."""
    n_differing: int
    """Those of the independent ones whose difference is not 0."""
    degrees_of_freedom: float | None = None
    """Of the error; None for one less than the independent ones."""

    def detectable(self, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
        """Return the smallest true difference that is shown; None where none is, or no error is known."""
        check_probabilities(alpha, power)
        return self._detectable(self.n_independent, alpha, power)

    def n_needed(self, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
        """Return how many items show a true difference, as many to a group as now."""
        check_difference(difference)
        check_probabilities(alpha, power)
        if not self._known:
            return None

        def shown(n: int) -> bool:
            smallest = self._detectable(n, alpha, power)
            return smallest is not None and reaches(difference, smallest)

        return math.ceil(least(self.fewest(alpha=alpha), shown) * self.n / self.n_independent)

    def fewest(self, *, alpha: float = 0.05) -> int:
        """Return how many independent ones show something if all go one way."""
        return fewest_one_way(alpha)

    def too_few(self, *, alpha: float = 0.05) -> bool:
        """Return whether there are fewer than that."""
        return self.n_independent < self.fewest(alpha=alpha)

    @property
    def _known(self) -> bool:
        return (
            math.isfinite(self.standard_error)
            and self.standard_error > 0
            and self.n_differing > 0
            and self._freedom(self.n_independent) > 0
        )

    def _detectable(self, n: int, alpha: float, power: float) -> float | None:
        """Return what is detectable with another number of independent ones."""
        if not self._known or n < fewest_one_way(alpha):
            return None
        errors = errors_needed(self._freedom(n), alpha, power)
        if errors is None:
            return None
        if n <= MOST_FLIPPED:
            errors = max(errors, _errors_for_flips(n, alpha, power))
        smallest = errors * self.standard_error * math.sqrt(self.n_independent / n)
        one_way = one_way_rate(n, alpha, power)
        rate = (self.n_differing + 0.5) / (self.n_independent + 1)
        if self.n_differing == self.n_independent or one_way < rate:
            return smallest
        return max(smallest, one_way * self._size())

    def _size(self) -> float:
        """Return the root mean square of the differences that are not 0."""
        n = self.n_independent
        squares = n * (n - 1) * self.standard_error**2 + n * self.difference**2
        return math.sqrt(squares / self.n_differing)

    def _freedom(self, n: int) -> float:
        own = self.n_independent - 1 if self.degrees_of_freedom is None else self.degrees_of_freedom
        return own * (n - 1) / (self.n_independent - 1) if self.n_independent > 1 else 0.0


@functools.lru_cache(maxsize=512)
def _errors_for_flips(n: int, alpha: float, power: float) -> float:
    """Return how many standard errors a difference must have for both Student and flips to find it.

    Args:
        n: normal differences, at least `fewest_one_way(alpha)` and at most `MOST_FLIPPED`.
        alpha: level of both tests.
        power: asked for.
    """
    # Choices of signs, one of two mirrored ones, whose sum may be as far from 0 as the observed one.
    most = math.ceil(alpha * 2.0 ** (n - 1)) - 1
    if most > _MOST_RANKED:
        return errors_needed(n - 1, most / 2.0 ** (n - 1), power) or math.inf
    import numpy as np
    from scipy.special import stdtrit

    drawn = np.sort(np.random.default_rng(0).standard_normal((_DRAWS, n)), axis=1)
    # Flipped signs leave the sum as large where the flipped ones have a mean of at most 0. Of all choices the
    # few with the lowest means flip only the lowest values.
    lowest = min(n, most)
    flipped = (np.arange(1, 2**lowest)[:, None] >> np.arange(lowest)) & 1
    means = drawn[:, :lowest] @ (flipped / flipped.sum(axis=1, keepdims=True)).T
    # Each draw is found from this true difference on, in standard deviations.
    by_flips = -np.partition(means, most - 1, axis=1)[:, most - 1]
    bar = float(stdtrit(n - 1, 1 - alpha / 2)) * drawn.std(axis=1, ddof=1) / math.sqrt(n)
    by_student = bar - drawn.mean(axis=1)
    return math.sqrt(n) * float(np.quantile(np.maximum(by_flips, by_student), power))
