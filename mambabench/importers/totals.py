"""A metric of which only the value and its standard error are known, and the number of items these betray.

lm-eval's standard error of a mean is the items' standard deviation over the root of their number. Of items
that are right or wrong that is sqrt(p (1 - p) / (n - 1)), so that n follows from p and the error, which files
keep with all their digits.

>>> import math
>>> n_behind(0.25, math.sqrt(0.25 * 0.75 / 99))
100
"""

from __future__ import annotations

import math
from typing import Final

from mambabench.schema import MetricRecord, Unit
from mambabench.stats.intervals import wilson
from mambabench.tasks.intervals import FRACTIONS

FROM_ERROR: Final = "from standard error"
_NORMAL_95: Final = 1.96
_RELATIVE: Final = 1e-6
_LOWER_IS_BETTER: Final = frozenset(
    {"bits_per_byte", "brier_score", "ter", "likelihood_diff", "likelihood_difference", "pct_stereotype"}
)


def n_behind(value: float, error: float | None) -> int | None:
    """Return the number of items behind a share of right ones; None where it does not follow.

    Args:
        value: p, between 0 and 1; at either end the error is 0 and tells nothing.
        error: its standard error.
    """
    if error is None or not error > 0 or not 0 < value < 1:
        return None
    n = round(1 + value * (1 - value) / error**2)
    return n if n > 1 and is_share(value, error, n) else None


def is_share(value: float, error: float | None, n: int) -> bool:
    """Return whether a value and its error are those of n items that are right or wrong."""
    if n < 1 or not 0 <= value <= 1:
        return False
    count = value * n
    if abs(count - round(count)) > _RELATIVE * max(1.0, count):
        return False
    if error is None:
        return True
    expected = math.sqrt(value * (1 - value) / (n - 1)) if n > 1 else 0.0
    return math.isclose(error, expected, rel_tol=_RELATIVE, abs_tol=1e-12)


def total(
    metric: str, filter_name: str, value: float, error: float | None, n: int | None, *, better: bool | None
) -> MetricRecord:
    """Return a metric's record without its items.

    Of right and wrong items in a known number the interval is Wilson's, as if the items were there. Else it
    is the value with 1.96 standard errors to either side; an error of 0 says nothing, and there is none.

    Args:
        metric: lm-eval's name.
        filter_name: lm-eval's filter.
        value: in lm-eval's unit.
        error: standard error, None where the file has none.
        n: items; None where that is not known, and 0 is written.
        better: whether more is better, None where the file does not say.
    """
    unit: Unit = _unit(metric)
    low: float | None = None
    high: float | None = None
    method = ""
    share = n is not None and is_share(value, error, n) and (error is not None or metric in FRACTIONS)
    if n is not None and share and (unit == "fraction" or (unit == "score" and 0 < value < 1)):
        interval = wilson(round(value * n), n)
        unit, low, high, method = "fraction", interval.low, interval.high, interval.method
    elif error is not None and error > 0:
        low, high, method = value - _NORMAL_95 * error, value + _NORMAL_95 * error, FROM_ERROR
    return MetricRecord(
        metric=metric,
        filter=filter_name,
        value=value,
        unit=unit,
        interval_low=low,
        interval_high=high,
        interval_method=method,
        n=n or 0,
        higher_is_better=more_is_better(metric) if better is None else better,
    )


def more_is_better(metric: str) -> bool:
    """Return whether a metric's larger values are the better ones, where no file says it."""
    return metric not in _LOWER_IS_BETTER and not metric.endswith("perplexity")


def _unit(metric: str) -> Unit:
    if metric == "bits_per_byte":
        return "bits_per_byte"
    if metric.endswith("perplexity"):
        return "perplexity"
    return "fraction" if metric in FRACTIONS else "score"
