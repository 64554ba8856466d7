"""The BCa bootstrap's interval of a mean, or of a ratio of sums, without keeping the resamples.

scipy.stats.bootstrap does the same for any statistic, and needs gigabytes for tens of thousands of items or
minutes in small batches: for a mean it is enough to draw, add up and forget.

    bca(differences, replicates=10_000, seed=0).low
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mambabench.stats.combined import check_confidence
from mambabench.stats.intervals import Interval
from mambabench.stats.totals import Totals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

N_FOR_BOOTSTRAP = 500
"""Items, clusters or documents whose difference is not zero, from which the interval holds.

Its correction for skewness is itself estimated, and is noise to symmetric differences with heavy tails: of
Student's t on 3 degrees of freedom the 95% interval of 100 or 200 items holds the mean in 92% of the cases,
that of 500 in 94%; Student's holds it in 95% of all. Items whose difference is 0 do not help: with four of
five at 0, 500 items cover 91% and 2,500 cover 94%, as `tests/performance/interval_coverage.py --section
bootstrap` prints."""
ALIKE_FOR_BOOTSTRAP = 100
"""Degrees of freedom that are left where sizes differ: a resample without the largest is another thing."""
LEAST_REPLICATES = 1000
_MOST_KEPT = 1 << 23
"""Draws that are kept for the next mean of as many items, in 64 MB."""
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
        ValueError: fewer than `N_FOR_BOOTSTRAP` items (or clusters) that are not zero, too different sizes
            (`ALIKE_FOR_BOOTSTRAP`), values that are not finite or all equal, or an impossible option.
    """
    return bca_of(Totals.of(values, weights, clusters), replicates, seed, confidence)


def holds(totals: Totals) -> bool:
    """Return whether there is enough for the bootstrap."""
    return totals.n_nonzero >= N_FOR_BOOTSTRAP and totals.degrees_of_freedom() >= ALIKE_FOR_BOOTSTRAP


def bca_of(totals: Totals, replicates: int, seed: int, confidence: float) -> Interval:
    """Return what `bca` does, of totals."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    check_options(replicates, confidence)
    if not holds(totals) or totals.error() is None:
        raise ValueError(
            f"the bootstrap needs {N_FOR_BOOTSTRAP} items that differ, of sizes that do not differ much, "
            f"and there are {totals.n_nonzero} of {len(totals)}"
        )
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


def check_options(replicates: int, confidence: float) -> None:
    """Refuse what no bootstrap can be asked for.

    Raises:
        ValueError: fewer replicates than `LEAST_REPLICATES`, or a confidence not between 0 and 1.
    """
    if replicates < LEAST_REPLICATES:
        raise ValueError(f"at least {LEAST_REPLICATES:,} replicates are needed, not {replicates:,}")
    check_confidence(confidence)


def _drawn(totals: Totals, replicates: int, seed: int) -> Floats:
    import numpy as np

    n = len(totals)
    equal = bool((totals.sizes == totals.sizes[0]).all())
    drawn = np.empty(replicates)
    start = 0
    # The same are drawn for each of many models that are held against one: keeping them saves most of it.
    chunks = _kept_places if n * replicates <= _MOST_KEPT else _places
    for places in chunks(n, replicates, seed):
        stop = start + len(places)
        sums = np.take(totals.sums, places).sum(axis=1)
        sizes = n * totals.sizes[0] if equal else np.take(totals.sizes, places).sum(axis=1)
        drawn[start:stop] = sums / sizes
        start = stop
    return drawn


def _places(n: int, replicates: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield which items are in each resample, [resamples of the chunk, n]."""
    import numpy as np

    rng = np.random.Generator(np.random.SFC64(seed))
    rows = max(1, _CHUNK // n)
    for start in range(0, replicates, rows):
        yield rng.integers(0, n, (min(rows, replicates - start), n), dtype=np.intp)


@functools.lru_cache(maxsize=1)
def _kept_places(n: int, replicates: int, seed: int) -> tuple[NDArray[np.intp], ...]:
    return tuple(_places(n, replicates, seed))


def _acceleration(totals: Totals, ratio: float) -> float:
    """Return a sixth of the skewness of the jackknife's values (B. Efron, 1987, JASA 82, 171-185)."""
    moves = (totals.sums - ratio * totals.sizes) / (totals.sizes.sum() - totals.sizes)
    moves = moves - moves.mean()
    return float(((moves / math.sqrt(float((moves**2).sum()))) ** 3).sum()) / 6
