"""The BCa bootstrap's interval of a mean, or of a ratio of sums, without keeping the resamples.

scipy.stats.bootstrap does the same for any statistic, and needs gigabytes for tens of thousands of items or
minutes in small batches: for a mean it is enough to draw, add up and forget.

    bca(differences, replicates=10_000, seed=0).low
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mambabench.stats.intervals import Interval
from mambabench.stats.totals import Totals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

N_FOR_BOOTSTRAP = 100
NONZERO_FOR_BOOTSTRAP = 50
LEAST_REPLICATES = 1000
_CHUNK = 1 << 18
"""Draws held at a time: 2 MB of places and 2 MB of values, which stay in the processor's cache."""


def bca(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    replicates: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return the bias-corrected and accelerated interval of a mean.

    Args:
        values: [n], one an item.
        weights: [n], of each item: the interval is that of sum(values) / sum(weights).
        clusters: [n], equal where items are not independent; whole clusters are drawn then.
        replicates: of the bootstrap, at least 1,000.
        seed: equal seeds give equal intervals.
        confidence: between 0 and 1, exclusive.

    Raises:
        ValueError: fewer than `N_FOR_BOOTSTRAP` items (or clusters), fewer than `NONZERO_FOR_BOOTSTRAP` of
            them not zero, no spread, values that are not finite, or an impossible option.
    """
    return bca_of(Totals.of(values, weights, clusters), replicates, seed, confidence)


def holds(totals: Totals) -> bool:
    """Return whether there is enough for the bootstrap."""
    return len(totals) >= N_FOR_BOOTSTRAP and totals.n_nonzero >= NONZERO_FOR_BOOTSTRAP


def bca_of(totals: Totals, replicates: int, seed: int, confidence: float) -> Interval:
    """Return what `bca` does, of totals."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not {confidence}")
    if replicates < LEAST_REPLICATES:
        raise ValueError(f"at least {LEAST_REPLICATES:,} replicates, not {replicates:,}")
    if not holds(totals):
        raise ValueError(
            f"the bootstrap needs {N_FOR_BOOTSTRAP} items of which {NONZERO_FOR_BOOTSTRAP} are not zero, "
            f"not {len(totals)} and {totals.n_nonzero}"
        )
    if totals.error() is None:
        raise ValueError("the bootstrap needs finite values that differ")
    ratio = totals.ratio
    drawn = _drawn(totals, replicates, seed)
    below = (float((drawn < ratio).mean()) + float((drawn <= ratio).mean())) / 2
    bias = float(ndtri(min(max(below, 0.5 / replicates), 1 - 0.5 / replicates)))
    acceleration = _acceleration(totals, ratio)
    ends = []
    for normal in (float(ndtri(0.5 - confidence / 2)), float(ndtri(0.5 + confidence / 2))):
        moved = bias + normal
        ends.append(float(ndtr(bias + moved / (1 - acceleration * moved))))
    low, high = np.quantile(drawn, ends)
    return Interval(float(low), float(high), "BCa", len(totals))


def _drawn(totals: Totals, replicates: int, seed: int) -> Floats:
    import numpy as np

    rng = np.random.Generator(np.random.SFC64(seed))
    n = len(totals)
    equal = bool((totals.sizes == totals.sizes[0]).all())
    rows = max(1, _CHUNK // n)
    drawn = np.empty(replicates)
    for start in range(0, replicates, rows):
        stop = min(start + rows, replicates)
        places = rng.integers(0, n, (stop - start, n), dtype=np.intp)
        sums = np.take(totals.sums, places).sum(axis=1)
        sizes = n * totals.sizes[0] if equal else np.take(totals.sizes, places).sum(axis=1)
        drawn[start:stop] = sums / sizes
    return drawn


def _acceleration(totals: Totals, ratio: float) -> float:
    """Return a sixth of the skewness of the jackknife's values (B. Efron, 1987, JASA 82, 171-185)."""
    moves = (totals.sums - ratio * totals.sizes) / (totals.sizes.sum() - totals.sizes)
    moves = moves - moves.mean()
    return float((moves**3).sum()) / (6 * math.pow(float((moves**2).sum()), 1.5))
