"""All outcomes of n pairs of right and wrong answers, with their probabilities: sums, no simulations."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def counts_of(n: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Draw items won, items lost and n."""
    return st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda c: (min(c), n - max(c), n))


def outcomes(n: int) -> tuple[Ints, Ints]:
    """Return the items won and those lost in each outcome, both [(n + 1) (n + 2) / 2]."""
    won, lost = np.indices((n + 1, n + 1))
    possible = won + lost <= n
    return won[possible], lost[possible]


def likely_outcomes(n: int, differing: float, difference: float) -> tuple[Ints, Ints]:
    """Return the outcomes without those more than nine standard deviations away, for many pairs."""
    win = (differing + difference) / 2
    won, lost = _window(n, win), _window(n, differing - win)
    grid = np.meshgrid(won, lost, indexing="ij")
    possible = grid[0] + grid[1] <= n
    return grid[0][possible], grid[1][possible]


def probabilities(n: int, won: Ints, lost: Ints, differing: float, difference: float) -> Floats:
    """Return the probability of each outcome.

    Args:
        n: pairs.
        won: [m].
        lost: [m].
        differing: share of pairs that differ.
        difference: probability of a win less that of a loss; between -differing and differing.
    """
    win, alike = (differing + difference) / 2, n - won - lost
    chosen = gammaln(n + 1) - gammaln(won + 1) - gammaln(lost + 1) - gammaln(alike + 1)
    logs = xlogy(won, win) + xlogy(lost, max(0.0, differing - win)) + xlogy(alike, 1 - differing)
    return np.asarray(np.exp(chosen + logs))


def _window(n: int, probability: float) -> Ints:
    half = 9 * np.sqrt(n * probability * (1 - probability)) + 20
    return np.arange(max(0, int(n * probability - half)), min(n, int(n * probability + half) + 1) + 1)
