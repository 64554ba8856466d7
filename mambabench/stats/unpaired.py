"""Differences where only totals are known: two proportions, or two figures with their standard errors.

Without the items of both sides nothing cancels: errors are larger than those of pairs, the more so the more
alike the models are.

>>> effect = unpaired_binary(30, 50, 20, 50)
>>> round(effect.low, 3), round(effect.difference, 3), round(effect.high, 3), effect.interval_method
(0.005, 0.2, 0.375, 'newcombe')
"""

from __future__ import annotations

import math

from mambabench.stats.combined import check_confidence, quantile, two_sided
from mambabench.stats.effect import Effect
from mambabench.stats.intervals import wilson


def unpaired_binary(
    candidate_right: int, n_candidate: int, baseline_right: int, n_baseline: int, confidence: float = 0.95
) -> Effect:
    """Return the difference of two proportions of independent items.

    The interval is R. G. Newcombe's hybrid of two score intervals (1998, Statistics in Medicine 17, 873-890,
    method 10). The test is Fisher's exact one, which keeps its level at every number of items.

    Args:
        candidate_right: 0 to `n_candidate`.
        n_candidate: items, at least 1.
        baseline_right: 0 to `n_baseline`.
        n_baseline: items, at least 1.
        confidence: between 0 and 1, exclusive.

    Returns:
        An effect whose `n` is the baseline's.

    Raises:
        ValueError: the counts are impossible.
    """
    from scipy.stats import fisher_exact

    one = wilson(candidate_right, n_candidate, confidence)
    other = wilson(baseline_right, n_baseline, confidence)
    p, q = candidate_right / n_candidate, baseline_right / n_baseline
    table = [
        [candidate_right, n_candidate - candidate_right],
        [baseline_right, n_baseline - baseline_right],
    ]
    return Effect(
        p - q,
        p - q - math.hypot(p - one.low, other.high - q),
        p - q + math.hypot(one.high - p, q - other.low),
        "newcombe",
        "Fisher exact",
        min(1.0, float(fisher_exact(table).pvalue)),
        math.sqrt(p * (1 - p) / n_candidate + q * (1 - q) / n_baseline),
        n_baseline,
    )


def unpaired_errors(
    candidate: float,
    candidate_error: float,
    baseline: float,
    baseline_error: float,
    *,
    n: int = 0,
    confidence: float = 0.95,
) -> Effect:
    """Return the difference of two independent figures of which only standard errors are known.

    Args:
        candidate: any figure.
        candidate_error: its standard error.
        baseline: in the same unit.
        baseline_error: its standard error.
        n: items of the baseline, where that is known.
        confidence: between 0 and 1, exclusive.

    Returns:
        An effect with `determined` False where an error is 0 or no number, as programs give for figures that
        all items agree on: it says nothing then.

    Raises:
        ValueError: a negative error.
    """
    check_confidence(confidence)
    if candidate_error < 0 or baseline_error < 0:
        raise ValueError(f"standard errors are not negative: {candidate_error} and {baseline_error}")
    difference = candidate - baseline
    error = math.hypot(candidate_error, baseline_error)
    method, test = "from standard errors", "z, unpaired"
    known = candidate_error > 0 and baseline_error > 0 and math.isfinite(error)
    if not known or not math.isfinite(difference):
        nothing = (difference, -math.inf, math.inf, method, test, 1.0, math.nan, n)
        return Effect(*nothing, determined=False)
    half = quantile(confidence, None) * error
    return Effect(
        difference,
        difference - half,
        difference + half,
        method,
        test,
        two_sided(difference / error, None),
        error,
        n,
    )
