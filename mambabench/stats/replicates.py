"""What several fresh processes say together: a centre, the ratio of two, and whether two are alike.

A process gives one figure, the median of its repeats. Repeats of one process share its memory layout, clocks
and neighbours, so that only further processes tell how far the figure can be trusted: the processes are the
sample. Times are skewed and are compared as ratios, so everything is computed on logarithms. From six
processes there is Student's 95% interval; fewer do not support one: what is returned is their range, and is
called so.

>>> estimate = centre([1.0, 1.1, 1.0, 0.9, 1.0, 1.0])
>>> round(estimate.low, 2), round(estimate.value, 2), round(estimate.high, 2), estimate.method
(0.93, 1.0, 1.07, 't on log')
>>> verdict(paired_ratio([2.0, 2.1, 2.2], [1.0, 1.0, 1.1]))
'difference'
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Method = Literal["t on log", "range", "single"]
Verdict = Literal["no difference", "difference", "not distinguishable"]

N_FOR_INTERVAL = 6
"""Processes from which there is an interval; the bootstrap over 3 covers 76% where 95% is asked."""

_CONFIDENCE = 0.95
# |mean| / range above which a mean of n normal values differs from 0 at 5%: E. Lord (1947), "The use of range
# in place of standard deviation in the t-test", Biometrika 34, 41-67, two-sided; tests simulate the levels.
_MEAN_OVER_RANGE = {2: 6.353, 3: 1.304, 4: 0.717, 5: 0.507}


@dataclass(frozen=True)
class Estimate:
    """A figure over processes, in the unit of what it was computed from; positive but for differences.

    >>> Estimate(0.5, 0.4, 0.8, 6, "t on log").inverse(2.0).high
    5.0
    """

    value: float
    """Geometric mean; of differences the arithmetic one."""
    low: float
    high: float
    n: int
    """Processes, or pairs of them."""
    method: Method
    """"t on log": ends of the 95% interval; "range": smallest and largest; "single": one process."""

    def times(self, factor: float) -> Estimate:
        """Return the estimate of `factor` times the figure, for a factor above 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.n, self.method)

    def inverse(self, numerator: float = 1.0) -> Estimate:
        """Return the estimate of `numerator` over the figure: exact, since logarithms are symmetric."""
        return Estimate(
            numerator / self.value, numerator / self.high, numerator / self.low, self.n, self.method
        )


def centre(values: Sequence[float]) -> Estimate:
    """Return the geometric mean of the processes' figures with its interval, or their range.

    Args:
        values: [n], one figure a process, above 0.

    Raises:
        ValueError: no values, or one that is not a positive number.
    """
    return _estimate(_checked(values))


def centre_of_differences(values: Sequence[float]) -> Estimate:
    """Return the arithmetic mean of figures of any sign, such as net energy, with their range.

    Such figures have no logarithm; of how they are distributed nothing is assumed, whatever their number.

    Args:
        values: [n], one figure a process.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError("expected finite figures of at least one process")
    least, greatest = min(values), max(values)
    mean = min(greatest, max(least, math.fsum(values) / len(values)))
    return Estimate(mean, least, greatest, len(values), "range" if len(values) > 1 else "single")


def paired_ratio(
    a: Sequence[float] | Mapping[int, float], b: Sequence[float] | Mapping[int, float]
) -> Estimate:
    """Return a over b from pairs that were measured near each other in time, whatever changed since then.

    Args:
        a: figures above 0: by the number of the replicate, or [n] in the order of the replicates.
        b: the same of the other side. A replicate that only one side has is left out: `n` counts the pairs.

    Raises:
        ValueError: no pair, sequences of unequal length, or a figure that is not a positive number.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        numbers = sorted(a.keys() & b.keys())
        pairs = [(a[number], b[number]) for number in numbers]
    elif isinstance(a, Mapping) or isinstance(b, Mapping) or len(a) != len(b):
        raise ValueError("two sides that cannot be paired")
    else:
        pairs = list(zip(a, b, strict=True))
    above, below = _checked([x for x, _ in pairs]), _checked([y for _, y in pairs])
    return _estimate([x / y for x, y in zip(above, below, strict=True)])


def verdict(ratio: Estimate, margin: float = 0.02) -> Verdict:
    """Return what a ratio of two says about them.

    Args:
        ratio: of `paired_ratio`.
        margin: ratios from 1 / (1 + margin) to 1 + margin do not matter.

    Returns:
        "no difference" only if a whole interval lies inside the margin, which a range never shows;
        "difference" if the interval leaves out 1. For a range the mean must be far from 1 as measured by the
        range, by Lord's test, so that equals are told apart in 5% of the cases here too.
    """
    if ratio.method == "single":
        return "not distinguishable"
    if ratio.method == "range":
        far = abs(math.log(ratio.value)) > _MEAN_OVER_RANGE[ratio.n] * math.log(ratio.high / ratio.low)
        return "difference" if far else "not distinguishable"
    if ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
        return "no difference"
    return "not distinguishable" if ratio.low <= 1.0 <= ratio.high else "difference"


def _checked(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise ValueError("expected at least one process")
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{value} is not a positive number")
    return values


def _estimate(values: Sequence[float]) -> Estimate:
    n = len(values)
    least, greatest = min(values), max(values)
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / n
    # Within its bounds, which rounding can miss: equal values must give back themselves.
    value = min(greatest, max(least, math.exp(mean)))
    if n < N_FOR_INTERVAL:
        return Estimate(value, least, greatest, n, "range" if n > 1 else "single")
    # scipy.stats has the quantile too but takes 0.8 s to import.
    from scipy.special import stdtrit

    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (n - 1)) if greatest > least else 0.0
    half = float(stdtrit(n - 1, 0.5 + _CONFIDENCE / 2)) * spread / math.sqrt(n)
    return Estimate(value, value * math.exp(-half), value * math.exp(half), n, "t on log")
