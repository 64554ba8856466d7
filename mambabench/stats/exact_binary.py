"""Exact one-sided tail probabilities for paired yes-or-no answers, whatever share of the pairs differs.

Of n pairs, `won` are right only in the candidate and `lost` only in the baseline. Under a given difference of
the two proportions the share of pairs that differ is still free: an exact test takes the largest probability
over it. Outcomes are ordered by the score statistic of T. Tango (1998), "Equivalence test and confidence
interval for the difference in proportions for the paired-sample design", Statistics in Medicine 17, 891-908.

The sets of outcomes here contain, with any outcome, those with a loss less or a win more. Such a set is the
more probable the larger the difference, so that its largest probability at a difference bounds that at all
smaller ones (K. Sidik, 2003, "Exact unconditional tests for testing non-inferiority in matched-pairs
design", Statistics in Medicine 22, 265-278).

>>> round(tail_p(2, 0, 2, 0.0), 3), round(exact_lower(1, 0, 1, 0.025), 3)
(0.25, -0.95)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

SAFETY = 1e-4
"""The largest probability over a grid is taken to be too small by at most this share of itself."""

_SPACING = 0.25
_REFINED = 16
_CELLS = 1 << 15
_TIE = 1e-9


def score(won: ArrayLike, lost: ArrayLike, n: int, difference: ArrayLike, discount: float = 0.0) -> Floats:
    """Return the score statistic of a difference of paired proportions: standard normal for many pairs.

    It is won - lost - n difference over its standard deviation, with the most likely share of pairs that
    differ given that difference. It rises with `won` and falls with `lost` and with `difference`.

    Args:
        won: pairs that only the candidate has right.
        lost: pairs that only the baseline has right; won + lost <= n.
        n: pairs.
        difference: between -1 and 1; this and the counts broadcast.
        discount: pairs taken off `won` above the line only, a correction for continuity.
    """
    import numpy as np

    won, lost, difference = (np.asarray(x, np.float64) for x in (won, lost, difference))
    up = difference >= 0
    # A negative difference is a positive one with the sides exchanged.
    more, less, delta = np.where(up, won, lost), np.where(up, lost, won), np.abs(difference)
    # The probability of a loss is the larger root of 2 n q^2 - b q - c = 0.
    b = more + less + (more - less - 2 * n) * delta
    c = less * delta * (1 - delta)
    root = np.sqrt(b**2 + 8 * n * c)
    gap = won - lost - n * difference - discount
    with np.errstate(invalid="ignore", divide="ignore"):
        # Of the two ways to write it the one without cancellation.
        q = np.where(b >= 0, (b + root) / (4 * n), np.where(c > 0, 2 * c / (root - b), 0.0))
        value = gap / np.sqrt(n * (2 * q + delta * (1 - delta)))
    return np.where(np.abs(gap) <= 1e-12 * n, 0.0, value)


def score_lower(won: int, lost: int, n: int, z: float) -> float:
    """Return the difference below the observed one at which the score statistic is `z`, above 0."""
    return _last(lambda differences: score(won, lost, n, differences) >= z, -1.0, (won - lost) / n)


def tail_p(won: int, lost: int, n: int, difference: float) -> float:
    """Return the exact one-sided p-value of the hypothesis that the difference is at most `difference`.

    The largest probability, over all shares of pairs that differ, of a score at least the observed one.
    """
    observed = float(score(won, lost, n, difference))
    tail = _Tail(n, _least_won(won, lost, n, difference, observed))
    return min(1.0, tail.largest(difference)[1] * (1 + SAFETY))


def exact_lower(won: int, lost: int, n: int, alpha: float) -> float:
    """Return a limit that is above the true difference with a probability of at most `alpha`.

    Outcomes are ordered by `score_lower`; the limit is the smallest difference at which an outcome of at
    least the observed rank has probability `alpha` for some share of pairs that differ. With that order no
    larger limit is valid: R. J. Buehler (1957), JASA 52, 482-493, and for paired proportions C. J. Lloyd and
    M. V. Moldovan (2007), Statistics in Medicine 26, 3369-3384.
    """
    from scipy.special import ndtri

    if lost == n:
        return -1.0
    z = float(ndtri(1 - alpha))
    difference = score_lower(won, lost, n, z)
    # Scores fall with the difference: a limit is no less than this one where the score at it is at least z.
    tail = _Tail(n, _least_won(won, lost, n, difference, z))
    share, _ = tail.largest(difference)
    while True:
        difference = tail.limit(share, alpha / (1 + 2 * SAFETY))
        share, probability = tail.largest(difference)
        if probability * (1 + SAFETY) <= alpha:
            return difference


class _Tail:
    """A set of outcomes that contains, with any one, those with a loss less or a win more.

    Args:
        n: pairs.
        least: int [n + 1], of m pairs that differ the least number of wins that belongs to the set; m + 1
            where none does. Neighbours differ by 0 or 1.
    """

    def __init__(self, n: int, least: Ints) -> None:
        import numpy as np

        logs, m = _log_factorials(n), np.arange(n)
        self._n, self._least = n, least
        # From m to m + 1 pairs that differ one binomial probability is gained or lost: that of j wins of m.
        stays = least[:-1] == least[1:]
        j = np.where(stays, least[:-1] - 1, least[:-1])
        possible = (j >= 0) & (j <= m)
        j = np.where(possible, j, 0)
        chosen = np.where(possible, logs[m] - logs[j] - logs[m - j], -np.inf)
        self._steps = chosen, j.astype(np.float64), (m - j).astype(np.float64)
        self._lost = np.where(stays, 0.0, 1.0)

    def limit(self, share: float, alpha: float) -> float:
        """Return the largest difference whose probability is at most `alpha` along a share.

        With the share, see `_probabilities`, the probability of the set rises with the difference.
        """
        import numpy as np

        return _last(lambda d: self._probabilities(d, np.full_like(d, share)) <= alpha, -1.0, 1.0)

    def largest(self, difference: float) -> tuple[float, float]:
        """Return where the probability is largest at a difference, and that probability."""
        import numpy as np

        shares, grid = _coarse(self._n, difference)
        values = self._sums(grid)
        padded = np.concatenate([[-1.0], values, [-1.0]])
        peaks = (values >= padded[:-2]) & (values >= padded[2:]) & (values >= 0.99 * values.max())
        around = shares[peaks][:, None] + np.linspace(-1.0, 1.0, 2 * _REFINED + 1) / (len(shares) - 1)
        fine = np.unique(np.clip(around, 0.0, 1.0))
        values = self._probabilities(difference, fine)
        best = int(values.argmax())
        return float(fine[best]), float(values[best])

    def _probabilities(self, difference: float | Floats, shares: Floats) -> Floats:
        """Return the probability of the set for each share, as `_grid` takes them."""
        return self._sums(_grid(self._n, difference, shares))

    def _sums(self, grid: Sequence[_Block]) -> Floats:
        """Return the sums over m of P(m pairs differ) times P(at least `least` wins of m)."""
        import numpy as np

        return np.concatenate([(block.weights * self._wins(block)).sum(axis=1) for block in grid])

    def _wins(self, block: _Block) -> Floats:
        """Return the probability of at least `least` wins of m, [shares, m]."""
        import numpy as np
        from scipy.special import betainc

        # The first by the beta function, the others by steps.
        first, before, win = block.counts[:, 0], block.counts[:, :-1], block.win
        k = self._least[first]
        inside = (k > 0) & (k <= first)
        start = betainc(np.where(inside, k, 1), np.where(inside, first - k + 1, 1), win)
        wins = np.empty(block.counts.shape)
        wins[:, 0] = np.where(inside, start, np.where(k == 0, 1.0, 0.0))
        step = _binomial(self._steps, before, win)
        step *= win[:, None] - self._lost.take(before)
        np.cumsum(step, axis=1, out=wins[:, 1:])
        wins[:, 1:] += wins[:, :1]
        return wins


@dataclass(frozen=True)
class _Block:
    """Shares of pairs that differ, each with the counts of weight around it."""

    win: Floats
    """[shares], the probability that a pair that differs is won."""
    counts: Ints
    """[shares, counts], of pairs that differ, rising by 1."""
    weights: Floats
    """[shares, counts], the probability that so many differ."""


def _grid(n: int, difference: float | Floats, shares: Floats) -> list[_Block]:
    """Return what the sums over counts have in common for all sets.

    Args:
        n: pairs.
        difference: one for all, or [shares].
        shares: 0 where as few pairs differ as the difference allows, 1 where all do; evenly spaced ones are
            about evenly spaced in standard deviations of the counts.
    """
    import numpy as np

    difference = np.broadcast_to(np.asarray(difference, np.float64), shares.shape)
    differing = np.abs(difference) + (1 - np.abs(difference)) * np.sin(np.pi / 2 * shares) ** 2
    win = np.clip((1 + difference / np.maximum(differing, 1e-300)) / 2, 0.0, 1.0)
    # Beyond so many standard deviations nothing of weight is left.
    half = np.sqrt(n * differing * (1 - differing)) * 8.5 + 20
    width = min(n + 1, math.ceil(2 * float(half.max())) + 2)
    first = np.clip(np.floor(n * differing - half).astype(np.int64), 0, n + 1 - width)
    logs, m = _log_factorials(n), np.arange(n + 1)
    columns = logs[n] - logs[m] - logs[n - m], m.astype(np.float64), (n - m).astype(np.float64)
    rows = max(1, _CELLS // width)
    blocks = []
    for i in range(0, len(shares), rows):
        part = slice(i, i + rows)
        counts = first[part, None] + np.arange(width)
        blocks.append(_Block(win[part], counts, _binomial(columns, counts, differing[part])))
    return blocks


@lru_cache(maxsize=4)
def _coarse(n: int, difference: float) -> tuple[Floats, list[_Block]]:
    """Return shares that leave out no peak, and what sums over their counts have in common.

    Many comparisons have the same items and margin.
    """
    import numpy as np

    # Neighbours are at most _SPACING standard deviations of the counts apart, everywhere.
    steps = math.ceil(math.pi * math.sqrt(n) / _SPACING) + 1
    shares = np.linspace(0.0, 1.0, steps + 1)
    return shares, _grid(n, difference, shares)


@lru_cache(maxsize=4)
def _log_factorials(n: int) -> Floats:
    import numpy as np
    from scipy.special import gammaln

    return np.asarray(gammaln(np.arange(n + 2) + 1.0))


def _binomial(columns: tuple[Floats, Floats, Floats], at: Ints, p: Floats) -> Floats:
    """Return the probability of k of n for each [rows, columns] of `at`, with p [rows].

    Args:
        columns: log of the ways to choose k, then k, then n - k, each in the places that `at` names.
        at: places.
        p: of the chosen kind.
    """
    import numpy as np

    yes, no = np.log(np.maximum(p, 1e-300))[:, None], np.log(np.maximum(1 - p, 1e-300))[:, None]
    chosen, k, others = (column.take(at) for column in columns)
    k *= yes
    chosen += k
    others *= no
    chosen += others
    return np.asarray(np.exp(chosen, out=chosen))


def _least_won(won: int, lost: int, n: int, difference: float, at_least: float) -> Ints:
    """Return `least` of `_Tail` for the outcomes whose score at a difference is at least so large.

    (won, lost) belongs to them in any case, and so do outcomes that rounding would leave out: a set that is
    too large makes a test conservative.
    """
    import numpy as np

    m = np.arange(n + 1)
    out, inside = np.full(n + 1, -1), m + 1
    while bool((inside - out > 1).any()):
        middle = np.clip((out + inside) // 2, 0, m)
        reached = score(middle, m - middle, n, difference) >= at_least - _TIE * (1 + abs(at_least))
        open_ = inside - out > 1
        inside = np.where(open_ & reached, middle, inside)
        out = np.where(open_ & ~reached, middle, out)
    inside[won + lost] = min(inside[won + lost], won)
    inside = np.minimum.accumulate(inside - m) + m
    return np.asarray(np.minimum.accumulate(inside[::-1])[::-1])


def _last(holds: Callable[[Floats], Bools], low: float, high: float) -> float:
    """Return the last value, to 2^-30 of the range, at which a condition holds that ceases within it."""
    import numpy as np

    for _ in range(6):
        points = np.linspace(low, high, 33)
        first_not = int(np.argmin(np.append(holds(points[1:-1]), False)))
        low, high = float(points[first_not]), float(points[first_not + 1])
    return low
