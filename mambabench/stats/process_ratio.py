"""The ratio of two figures over fresh processes, tested: pairs of one sweep, or processes of two sweeps.

Pairs were measured near each other in time, and their ratios are the sample. Between two sweeps nothing is
paired: each side's processes are a sample of their own. All is computed on logarithms, and the ratio is that
of the geometric means.

>>> found = unpaired_ratio([2.0, 2.1, 1.9, 2.0, 2.2, 2.1], [1.0, 1.1, 1.0, 0.9, 1.0, 1.1])
>>> round(found.low, 2), round(found.value, 2), round(found.high, 2), found.method
(1.86, 2.02, 2.2, 'Welch t on log')
>>> unpaired_ratio([2.0, 2.1], [1.0, 1.1]).method
'range'
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from mambabench.stats.replicates import N_FOR_INTERVAL, paired_ratio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RatioMethod = Literal["t on log", "Welch t on log", "bootstrap t on log", "exact", "range", "single"]
N_FOR_BOOTSTRAP: Final = 10
"""Processes of each side from which two sweeps are compared by a bootstrap.

In 3,000 simulated pairs of sweeps each, of 10, 12, 16, 20 and 30 processes a side, it covers 94.8 to 96.2% of
lognormal figures, and 95.9 to 98.0% where both sides are skewed or have rare slow processes; with 6 or 8 its
resamples too often lack spread. Where one side alone is skewed nothing holds 95%: this covers 91 to 94%,
Welch's t 90 to 92%. `tests/stats/test_process_ratio.py` simulates the same.
"""
MARGIN: Final = 0.02
_LEVEL = 0.05
_MOST_LOG = 700.0
"""Of what a float holds."""
_MOST_AT_ONCE = 2_000_000
"""Resampled figures held at once: 16 MB."""


@dataclass(frozen=True)
class ProcessRatio:
    """A ratio over processes with its tests."""

    value: float
    """Of the geometric means."""
    low: float
    high: float
    """Ends of the 95% interval, or of the range."""
    method: RatioMethod
    """"t on log": of pairs; "Welch t on log", "bootstrap t on log": of two samples; "exact": all processes of
    a side gave the same number; "range": smallest and largest ratio that the figures allow, which is no
    interval; "single": one process a side."""
    n_candidate: int
    n_baseline: int
    """Processes; of pairs both are their number."""
    p_value: float | None
    """Two-sided, of no difference; None where nothing is tested."""
    p_equivalence: float | None
    """Of a ratio beyond the margin, by two one-sided tests."""


def paired_process_ratio(
    candidate: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    margin: float = MARGIN,
    n_for_exact: int = 2,
) -> ProcessRatio:
    """Compare two sides of one sweep by their pairs.

    Args:
        candidate: figures above 0 by the number of the replicate. One that the other side lacks is left out.
        baseline: the same.
        margin: ratios from 1 / (1 + margin) to 1 + margin do not matter.
        n_for_exact: pairs from which equal figures are taken as exact.

    Raises:
        ValueError: no pair, or a figure that is not a positive number.
    """
    estimate = paired_ratio(candidate, baseline)
    numbers = sorted(candidate.keys() & baseline.keys())
    above, below = ([side[n] for n in numbers] for side in (candidate, baseline))
    n = len(numbers)
    if exact := _exact(above, below, n_for_exact):
        return exact
    found = ProcessRatio(estimate.value, estimate.low, estimate.high, "range", n, n, None, None)
    if estimate.method != "t on log":
        return replace(found, method="single" if n == 1 else "range")
    logs = [math.log(x / y) for x, y in zip(above, below, strict=True)]
    mean = math.fsum(logs) / n
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (n - 1) / n)
    p, p_equivalence = _t_tests(mean, error, n - 1, margin)
    return replace(found, method="t on log", p_value=p, p_equivalence=p_equivalence)


def unpaired_ratio(
    candidate: Sequence[float],
    baseline: Sequence[float],
    *,
    margin: float = MARGIN,
    n_for_exact: int = 2,
    replicates: int = 10_000,
    seed: int = 0,
) -> ProcessRatio:
    """Compare processes of two sweeps.

    From `N_FOR_BOOTSTRAP` processes a side the interval and the tests are those of the symmetric bootstrap of
    Welch's statistic: P. Hall (1988), "On symmetric bootstrap confidence intervals", JRSS B 50(1), 35-45.
    Equal-tailed, BCa and percentile intervals cover less at such numbers, the last two below 90%. From 6
    processes a side it is Welch's t; below that there is a range.

    Args:
        candidate: [n], figures above 0.
        baseline: [m], the same.
        margin: ratios from 1 / (1 + margin) to 1 + margin do not matter.
        n_for_exact: processes a side from which equal figures are taken as exact.
        replicates: of the bootstrap.
        seed: of its draws.

    Raises:
        ValueError: no process on a side, or a figure that is not a positive number.
    """
    for values in (candidate, baseline):
        if not values or not all(math.isfinite(v) and v > 0 for v in values):
            raise ValueError("expected positive figures of at least one process a side")
    if exact := _exact(candidate, baseline, n_for_exact):
        return exact
    n, m = len(candidate), len(baseline)
    above, below = ([math.log(v) for v in values] for values in (candidate, baseline))
    difference = math.fsum(above) / n - math.fsum(below) / m
    least, greatest = min(candidate) / max(baseline), max(candidate) / min(baseline)
    # Rounding can put the mean of equal figures outside of them.
    value = min(greatest, max(least, math.exp(difference)))
    found = ProcessRatio(value, least, greatest, "range", n, m, None, None)
    if min(n, m) < N_FOR_INTERVAL:
        return replace(found, method="single" if n == m == 1 else "range")
    error, df = _welch(above, below)
    if min(n, m) < N_FOR_BOOTSTRAP:
        from scipy.special import stdtrit

        half = float(stdtrit(df, 1 - _LEVEL / 2)) * error
        p, p_equivalence = _t_tests(difference, error, df, margin)
        method: RatioMethod = "Welch t on log"
    else:
        import numpy as np

        drawn = _bootstrap_t(above, below, replicates, seed)
        sizes = np.sort(np.abs(drawn))
        half = _quantile(sizes, 1 - _LEVEL) * error
        p = _share(sizes >= abs(difference) / error)
        room = [(math.log1p(margin) + sign * difference) / error for sign in (1, -1)]
        # Skewed figures make one tail longer than half of both, and the larger p-value is the one to trust.
        tails = [_share(sign * drawn >= t) for sign, t in zip((1, -1), room, strict=True)]
        p_equivalence = max(*tails, *(_half(sizes, t) for t in room))
        method = "bootstrap t on log"
    low, high = value * math.exp(-half), value * math.exp(min(half, _MOST_LOG))
    return ProcessRatio(value, low, high, method, n, m, p, p_equivalence)


def _exact(candidate: Sequence[float], baseline: Sequence[float], n_for_exact: int) -> ProcessRatio | None:
    """Return the ratio of two numbers that do not vary; None where one does, or too few say so."""
    same = min(candidate) == max(candidate) and min(baseline) == max(baseline)
    if not same or min(len(candidate), len(baseline)) < n_for_exact:
        return None
    value = candidate[0] / baseline[0]
    return ProcessRatio(value, value, value, "exact", len(candidate), len(baseline), None, None)


def _t_tests(difference: float, error: float, df: float, margin: float) -> tuple[float, float]:
    """Return the p-values of no difference and of one beyond the margin, both by Student's t."""
    from scipy.special import stdtr

    if error == 0:
        return float(difference == 0), float(abs(difference) >= math.log1p(margin))
    room = [(math.log1p(margin) + sign * difference) / error for sign in (1, -1)]
    return 2 * float(stdtr(df, -abs(difference) / error)), max(float(stdtr(df, -t)) for t in room)


def _welch(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Return the standard error of the difference of means and Satterthwaite's degrees of freedom."""
    parts = []
    for values in (above, below):
        mean = math.fsum(values) / len(values)
        parts.append(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    whole = sum(parts)
    shares = [part / whole for part in parts]
    df = 1 / sum(s**2 / (len(v) - 1) for s, v in zip(shares, (above, below), strict=True))
    return math.sqrt(whole), df


def _bootstrap_t(above: Sequence[float], below: Sequence[float], replicates: int, seed: int) -> Floats:
    """Return Welch's statistic over resamples of each side, infinite where neither varies."""
    import numpy as np

    rng = np.random.default_rng(seed)
    sides = [np.asarray(values) - math.fsum(values) / len(values) for values in (above, below)]
    step = max(1, _MOST_AT_ONCE // (len(above) + len(below)))
    drawn = []
    for begin in range(0, replicates, step):
        count = min(step, replicates - begin)
        resampled = [side[rng.integers(0, len(side), (count, len(side)))] for side in sides]
        difference = resampled[0].mean(axis=1) - resampled[1].mean(axis=1)
        errors = np.sqrt(sum(r.var(axis=1, ddof=1) / r.shape[1] for r in resampled))
        varied = errors > 0
        infinite = np.where(difference < 0, -np.inf, np.inf)
        drawn.append(np.where(varied, difference / np.where(varied, errors, 1.0), infinite))
    return np.concatenate(drawn)


def _quantile(rising: Floats, share: float) -> float:
    # The next larger one of the drawn, as an infinite neighbour allows no interpolation.
    return float(rising[min(len(rising) - 1, math.ceil(share * (len(rising) + 1)) - 1)])


def _share(beyond: NDArray[np.bool_]) -> float:
    """Return the share of resamples at least as far out, the sample itself counted: never 0."""
    return (int(beyond.sum()) + 1) / (len(beyond) + 1)


def _half(sizes: Floats, t: float) -> float:
    """Return the p-value of one side of a symmetric statistic."""
    share = _share(sizes >= abs(t)) / 2
    return share if t > 0 else 1 - share
