"""Whether answers given with 70% confidence are right in 70% of the cases.

The expected calibration error is the mean distance of accuracy and mean confidence over bins that hold about
equally many items. As it is made of distances, noise alone makes it larger: of 300 items of a perfectly
calibrated model, what is commonly computed is 0.05. The estimate here takes that off: it is the error whose
expected value under such noise is what was observed.

    found = reliability([0.9, 0.8, 0.6, 0.3], [1, 1, 0, 0])
    found.error, found.bins[0].accuracy
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

MOST_BINS: Final = 10
ITEMS_PER_BIN: Final = 50
"""Fewer items make so noisy a bin that intervals of the error hold it in less than 90% of cases."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Items of about the same confidence."""

    low: float
    high: float
    """Least and greatest confidence in it."""
    n: int
    mean_confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """Accuracy against confidence."""

    n: int
    accuracy: float
    mean_confidence: float
    error: float
    """Expected calibration error over the bins, less what noise adds; 0 to 1."""
    plain_error: float
    """The same with it, as it is commonly computed."""
    low: float
    high: float
    """95% interval of the error."""
    bins: tuple[ReliabilityBin, ...]


def reliability(confidences: ArrayLike, right: ArrayLike, confidence: float = 0.95) -> Reliability:
    """Return the calibration error with an interval, and the bins it is computed from.

    A bin's gap of accuracy and confidence is about normal, its distance from zero therefore a folded normal
    (F. C. Leone, L. S. Nelson and R. B. Nottingham, 1961, Technometrics 3, 543-550). Error and interval
    follow by asking how much of all observed gaps there would have to be for the observed error to be the
    mean, or an end of what chance gives. The error is at least the overall gap, which bounds the upper end.
    In simulations of 18 models, from 10 to 5,000 items each, it held the true error in 96% of cases on
    average and in 88% at worst (the tests repeat some).

    Args:
        confidences: [n], 0 to 1.
        right: [n], 1 where the answer was right, else 0.
        confidence: of the interval, between 0 and 1, exclusive.

    Raises:
        ValueError: no items, unequal lengths, or values outside 0 to 1.
    """
    import numpy as np
    from scipy.special import ndtri

    held, correct = _checked(confidences), _checked(right)
    if len(held) != len(correct):
        raise ValueError(f"{len(held)} confidences and {len(correct)} answers")
    order = np.argsort(held, kind="stable")
    held, correct = held[order], correct[order]
    parts = [slice(start, stop) for start, stop in _bounds(held)]
    shares = np.array([part.stop - part.start for part in parts]) / len(held)
    gaps = np.array([float((correct[part] - held[part]).mean()) for part in parts])
    errors = np.array([_error(correct[part], held[part]) for part in parts])
    observed = float(shares @ np.abs(gaps))
    z = float(ndtri(0.5 + confidence / 2))
    overall = abs(float((correct - held).mean())) + z * _error(correct, held)
    middle, low, high = (_solved(shares, np.abs(gaps), errors, observed, at) for at in (0.0, z, -z))
    return Reliability(
        n=len(held),
        accuracy=float(correct.mean()),
        mean_confidence=float(held.mean()),
        error=min(1.0, middle),
        plain_error=observed,
        low=min(1.0, low),
        high=min(1.0, max(high, overall)),
        bins=tuple(
            ReliabilityBin(
                float(held[part][0]),
                float(held[part][-1]),
                part.stop - part.start,
                float(held[part].mean()),
                float(correct[part].mean()),
            )
            for part in parts
        ),
    )


def _bounds(held: Floats) -> list[tuple[int, int]]:
    """Return first and last place of each bin; equal confidences share one."""
    import numpy as np

    n_bins = min(MOST_BINS, max(1, len(held) // ITEMS_PER_BIN))
    cuts = {0, len(held)}
    for number in range(1, n_bins):
        value = held[round(number * len(held) / n_bins)]
        ends = [int(np.searchsorted(held, value, side)) for side in ("left", "right")]
        cuts.add(min(ends, key=lambda end: abs(end - number * len(held) / n_bins)))
    ordered = sorted(cuts)
    return list(pairwise(ordered))


def _error(correct: Floats, held: Floats) -> float:
    """Return the standard error of a gap; not 0 where all answers are right or all are wrong.

    The largest of three: as the answers vary, as they would with one right and one wrong answer more
    (Laplace), and as they would if the confidence were right. By the first two alone, 20 right answers of 20
    at 90% would be taken to refute the confidence, which chance gives in 12% of cases.
    """
    n = len(correct)
    share = (float(correct.sum()) + 1) / (n + 2)
    spread = float((correct - held).var(ddof=1)) if n > 1 else 0.0
    return math.sqrt(max(spread, share * (1 - share), float((held * (1 - held)).mean())) / n)


def _solved(shares: Floats, gaps: Floats, errors: Floats, observed: float, z: float) -> float:
    """Return the error for which the observed one lies `z` deviations above what is expected."""
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def expected(times: float) -> float:
        ratio = times * gaps / errors
        mean = errors * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + times * gaps * (
            2 * ndtr(ratio) - 1
        )
        variance = (times * gaps) ** 2 + errors**2 - mean**2
        return float(shares @ mean + z * math.sqrt(float(shares**2 @ np.maximum(variance, 0.0))))

    if observed == 0.0 or expected(0.0) >= observed:
        return 0.0
    most = 1.0
    while expected(most) < observed:
        most *= 2
    return observed * float(brentq(lambda times: expected(times) - observed, 0.0, most, xtol=1e-9))


def _checked(values: ArrayLike) -> Floats:
    import numpy as np

    array: Floats = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not bool(((array >= 0) & (array <= 1)).all()):
        raise ValueError("expected at least one value, all from 0 to 1")
    return array
