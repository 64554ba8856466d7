"""The best of many: how much of its lead comes from having looked for it, and which others may be the best.

Whoever picks the largest of several figures picks luck with it. `lucky_pick` says how much, by picking again
from resampled items and judging the pick on the items left out; `expected_maximum` bounds it where only
standard errors are known; `contenders` are those that cannot be told from the best.

>>> round(expected_maximum([1.0] * 3), 3)
0.846
>>> contenders([None, 0.4, 1e-5], alpha=0.05)
(True, True, False)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_CHUNK: Final = 1 << 20
"""Draws held at a time."""
_DIGITS: Final = 12
"""To which resampled values are compared: equal columns must stay equal, however sums are rounded."""
_GRID: Final = 4001
_REACH: Final = 10.0
_NEGLIGIBLE: Final = 1e-9


@dataclass(frozen=True)
class Resamples:
    """Values of the same figures on many resamples of the items, and on the items that each left out."""

    drawn: Floats
    """[replicates, k]"""
    left_out: Floats
    """[replicates, k]; NaN where every item was drawn."""


@dataclass(frozen=True)
class LuckyPick:
    """What the best figure is worth, given that it was picked for being the best."""

    best: int
    """Index of the largest figure, the first of equals."""
    value: float
    """As it stands."""
    expected: float
    """Mean over resamples of the pick's value on items that it was not picked by."""
    luck: float
    """How much higher `value` is."""
    shares: tuple[float, ...]
    """[k], of the resamples in which each figure is the largest."""
    replicates: int


def resample(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Resamples:
    """Draw items with replacement and return every figure on the drawn ones and on the others.

    The figure is sum(values) / sum(weights), a mean without weights. All figures see the same draws, so what
    items have in common for them stays in common.

    Args:
        values: [k, n], of k figures on the same n items.
        weights: [n], for example words of each item; 1 where left out.
        clusters: [n], equal where items are not independent; whole clusters are drawn then.
        replicates: at least 1.
        seed: equal seeds give equal draws.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, weights that are not above 0, or fewer
            than two items or clusters.
    """
    import numpy as np

    sums: Floats = np.array(values, dtype=np.float64)
    if sums.ndim != 2 or 0 in sums.shape or replicates < 1:
        raise ValueError(f"expected [k, n] values and some replicates, got {sums.shape} and {replicates}")
    n = sums.shape[1]
    sizes: Floats = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if sizes.shape != (n,) or not bool((sizes > 0).all()) or not bool(np.isfinite(sums).all()):
        raise ValueError("values must be finite, and each item needs one weight above 0")
    if clusters is not None:
        named = np.asarray(clusters)
        if named.shape != (n,):
            raise ValueError(f"{n} items and clusters of shape {named.shape}")
        _, places = np.unique(named, return_inverse=True)
        n = int(places.max()) + 1
        sums = np.stack([np.bincount(places, row, n) for row in sums]).astype(np.float64)
        sizes = np.bincount(places, sizes, n).astype(np.float64)
    if n < 2:
        raise ValueError("one item or cluster cannot be resampled")
    columns = np.concatenate([sums, sizes[None]]).T
    rng = np.random.default_rng(seed)
    drawn, left_out = [], []
    rows = max(1, _CHUNK // n)
    for begin in range(0, replicates, rows):
        n_rows = min(rows, replicates - begin)
        at = rng.integers(n, size=(n_rows, n)) + n * np.arange(n_rows)[:, None]
        counts = np.bincount(at.ravel(), minlength=n_rows * n).reshape(n_rows, n)
        drawn.append(_ratios(counts.astype(np.float64) @ columns))
        left_out.append(_ratios((counts == 0).astype(np.float64) @ columns))
    return Resamples(np.concatenate(drawn), np.concatenate(left_out))


def lucky_pick(figures: ArrayLike, resamples: Sequence[Resamples]) -> LuckyPick:
    """Pick the largest figure, and again in each resample, where the pick is judged on what was left out.

    This is the bootstrap bias correction of I. Tsamardinos, E. Greasidou and G. Borboudakis (2018), Machine
    Learning 107, 1895-1922, there for configurations of a learner, here for checkpoints. If all figures are
    equally good the expected value is right; if one is clearly the best there is no luck; in between a
    resample, which holds 63% of the items, picks a little worse than all items do, so that luck is over-
    rather than understated.

    Args:
        figures: [k], larger is better.
        resamples: of one task or several; over several each figure is the mean over tasks.

    Raises:
        ValueError: nothing given, or other numbers of figures.
    """
    import numpy as np

    known: Floats = np.asarray(figures, dtype=np.float64)
    if known.ndim != 1 or len(known) == 0 or not resamples:
        raise ValueError("expected figures and their resamples")
    if any(one.drawn.shape[1] != len(known) for one in resamples):
        raise ValueError(f"{len(known)} figures, but resamples of others")
    drawn = np.mean([one.drawn for one in resamples], axis=0)
    left_out = np.mean([one.left_out for one in resamples], axis=0)
    picks = np.round(drawn, _DIGITS).argmax(axis=1)
    judged = left_out[np.arange(len(picks)), picks]
    best = int(np.round(known, _DIGITS).argmax())
    judged = judged[np.isfinite(judged)]
    expected = float(judged.mean()) if len(judged) else float(known[best])
    shares = np.bincount(picks, minlength=len(known)) / len(picks)
    value = float(known[best])
    return LuckyPick(best, value, expected, value - expected, tuple(shares.tolist()), len(picks))


def expected_maximum(errors: ArrayLike) -> float:
    """Return how far the largest of several figures lies above the truth on average if all are equally good.

    For independent normal errors. It is the most that picking adds on average: the error of the figure picked
    is never above the largest error, and errors that rise and fall together, as those of checkpoints on the
    same items, have a smaller expected maximum (D. Slepian, 1962, Bell System Technical Journal 41, 463-501).

    Args:
        errors: [k], standard errors, not negative.

    Raises:
        ValueError: no errors, or one that is negative or not finite.
    """
    import numpy as np
    from scipy.special import log_ndtr

    spread: Floats = np.asarray(errors, dtype=np.float64)
    if spread.ndim != 1 or len(spread) == 0 or not bool((np.isfinite(spread) & (spread >= 0)).all()):
        raise ValueError("expected standard errors that are finite and not negative")
    largest = float(spread.max())
    if len(spread) == 1 or largest == 0:
        return 0.0
    x = np.linspace(-_REACH, _REACH, _GRID)
    below = np.zeros_like(x)
    for error in spread / largest:
        # Next to the largest one it is a certain 0.
        below += log_ndtr(x / error) if error > _NEGLIGIBLE else np.where(x < 0, -np.inf, 0.0)
    # E[M] is the integral of P(M > x) above 0 less that of P(M <= x) below it.
    chance = np.exp(below)
    step = float(x[1] - x[0])
    whole = float(np.trapezoid(1 - chance[x >= 0], dx=step) - np.trapezoid(chance[x <= 0], dx=step))
    return largest * max(0.0, whole)


def contenders(p_values: Sequence[float | None], *, alpha: float = 0.05) -> tuple[bool, ...]:
    """Return which of several may be the best, the truly best one among them with 1 - alpha confidence.

    The observed best is compared with each other one. A figure is out if it is worse by a one-sided test at
    alpha / (k - 1). The truly best one is out only if another beats it in one of its k - 1 comparisons, so
    that Bonferroni's bound covers the choice of the observed best as well: the idea of S. S. Gupta (1965),
    Technometrics 7, 225-245, and J. C. Hsu (1984), Annals of Statistics 12, 1136-1144, with any valid test.

    Args:
        p_values: [k], two-sided, of each against the observed best; None for that one, and where nothing
            could be tested.
        alpha: between 0 and 1.
    """
    k = len(p_values)
    return tuple(p is None or math.isnan(p) or p / 2 > alpha / max(1, k - 1) for p in p_values)


def _ratios(totals: Floats) -> Floats:
    import numpy as np

    sizes = totals[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(sizes > 0, totals[:, :-1] / sizes, np.nan)
    return found
