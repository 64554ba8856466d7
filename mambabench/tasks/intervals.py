"""The unit and the interval of a metric, from what each item gave: alike for every source of samples.

>>> unit, interval = metric_interval("acc", "mean", [1.0, 0.0, 1.0])
>>> unit, interval.method
('fraction', 'wilson')
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mambabench.stats.intervals import (
    Interval,
    mean_interval,
    perplexity_interval,
    ratio_interval,
    wilson,
)

if TYPE_CHECKING:
    from mambabench.schema import Unit

FRACTIONS = frozenset(
    {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_greedy", "exact_match", "em", "mc1", "mc2"}
)
"""Metrics that are shares by definition, even where all items are 0."""
_SLACK = 1e-9


def metric_interval(metric: str, aggregation: str, items: Sequence[Any]) -> tuple[Unit, Interval | None]:
    """Return the metric's unit and its interval from the items' values.

    Args:
        metric: lm-eval's name; some metrics count from 0 to 100 although their values may lie below 1.
        aggregation: name of lm-eval's aggregation function.
        items: one value a document; (log-likelihood, length) pairs for weighted perplexities.
    """
    if aggregation == "perplexity":
        return "perplexity", perplexity_interval([float(v) for v in items])
    if aggregation in ("weighted_perplexity", "bits_per_byte"):
        totals, lengths = [float(v[0]) for v in items], [float(v[1]) for v in items]
        if aggregation == "bits_per_byte":
            return "bits_per_byte", ratio_interval(totals, lengths, transform="bits")
        return "perplexity", ratio_interval(totals, lengths, transform="perplexity")
    numbers = _numbers(items)
    if aggregation not in ("mean", "nanmean") or numbers is None:
        return "score", None
    if all(v in (0.0, 1.0) for v in numbers) and (any(numbers) or metric in FRACTIONS):
        return "fraction", wilson(int(sum(numbers)), len(numbers))
    # lm-eval's own sums of probabilities pass 1 by a rounding error now and then.
    if metric in FRACTIONS or (any(numbers) and all(-_SLACK <= v <= 1 + _SLACK for v in numbers)):
        return "fraction", mean_interval([min(1.0, max(0.0, v)) for v in numbers], bounds=(0.0, 1.0))
    return "score", mean_interval(numbers)


def _numbers(items: Sequence[Any]) -> list[float] | None:
    """Return the items as floats without NaN, or null if they are no numbers."""
    plain = [item.item() if hasattr(item, "item") else item for item in items]
    if not plain or not all(isinstance(v, bool | int | float) for v in plain):
        return None
    return [float(v) for v in plain if not math.isnan(v)] or None
