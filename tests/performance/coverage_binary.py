"""Right and wrong answers of the same items: coverage, false positives and power, summed over all outcomes.

`--section binary-exact` computes every outcome's interval for up to 99 items; it takes two minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from paired_outcomes import likely_outcomes, outcomes, probabilities
from performance.coverage_rows import Row, Section
from scipy.special import bdtr, ndtri
from scipy.stats import binom

from mambabench.stats.exact_binary import score
from mambabench.stats.paired_binary import (
    N_FOR_EXACT_EQUIVALENCE,
    N_FOR_SCORE,
    equivalence_of_counts,
    interval_of_counts,
    mcnemar_exact,
)
from mambabench.stats.power_pairs import Pairs

ONE_SIDEDNESS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
"""Differences as shares of the probability that a pair differs; 1 where all differ the same way."""


def exact_interval() -> Iterator[Row]:
    """Rows of the interval below `N_FOR_SCORE` items, at differences just outside of its ends."""
    for n in (1, 2, 3, 5, 10, 20, 35, 50, 75, N_FOR_SCORE - 1):
        won, lost = outcomes(n)
        index = {pair: i for i, pair in enumerate(zip(won.tolist(), lost.tolist(), strict=True))}
        low = np.array([interval_of_counts(w, o, n)[0] if w >= o else 0.0 for w, o in index])
        high = np.array([interval_of_counts(w, o, n)[1] if w >= o else 0.0 for w, o in index])
        mirror = np.array([index[o, w] for w, o in index])
        low, high = np.where(won >= lost, low, -high[mirror]), np.where(won >= lost, high, -low[mirror])
        ends = np.unique(np.round(low[low > -1], 8)) - 2e-8
        covered, beyond = [], []
        for difference in ends[:: max(1, len(ends) // 150)]:
            for differing in _differing(float(difference), 40):
                p = probabilities(n, won, lost, differing, float(difference))
                covered.append(float(p[(low <= difference) & (difference <= high)].sum()))
                beyond.append(float(p[low > difference].sum()))
        yield Row(n, "interval covers", "sum", min(covered), max(covered))
        yield Row(n, "lower end above the truth", "sum", min(beyond), max(beyond))


def score_interval() -> Iterator[Row]:
    """Rows of the interval from `N_FOR_SCORE` items on, by how many are expected to differ."""
    for n in (N_FOR_SCORE, 101, 110, 125, 150, 200, 300, 500, 1000, 3000, 14042):
        points = 60 if n <= 300 else 25 if n <= 1000 else 10
        few, some, most = (np.geomspace(a, b, points) for a, b in ((0.2, 5), (5, 10), (10, 0.9 * n)))
        plausible = np.geomspace(max(0.02 * n, 10), 0.6 * n, points)
        for cases, expected, sides in (
            ("2 to 60% differ, 10 or more; difference to 30% of that", plausible, ONE_SIDEDNESS[:4]),
            ("10 or more to 90% differ; difference to 90% of that", most, ONE_SIDEDNESS),
            ("10 or more to 80% differ, all the same way", most[most <= 0.8 * n], (1.0,)),
            ("5 to 10 differ; difference to 30% of that", some, ONE_SIDEDNESS[:4]),
            ("5 to 10 differ, any way", some, (*ONE_SIDEDNESS, 1.0)),
            ("fewer than 5 differ, any way", few, (*ONE_SIDEDNESS, 1.0)),
        ):
            shares = [_score_coverage(n, m / n, m / n * side) for m in expected for side in sides]
            yield Row(n, cases, "sum", min(shares), max(shares))


def mcnemar() -> Iterator[Row]:
    """Rows of the exact test where nothing differs on average."""
    for n in (1, 5, 6, 10, 30, 100, 300, 1000):
        fewest = _fewest(n, 0.05)
        shares = [_found(n, m / n, 0.0, fewest) for m in np.geomspace(min(0.2, n / 2), n, 80)]
        yield Row(n, "any share of pairs differs", "sum", min(shares), max(shares))


def exact_equivalence() -> Iterator[Row]:
    """Rows of the equivalence test at its margin, every outcome tested."""
    for n, margins in ((5, (0.3,)), (20, (0.1, 0.3)), (50, (0.02, 0.1, 0.2)), (100, (0.01, 0.05, 0.1))):
        won, lost = outcomes(n)
        for margin in margins:
            claimed = np.zeros(len(won), bool)
            # At the margin and beyond it p-values are near 1/2 and above.
            for i in np.flatnonzero(np.abs(won - lost) < margin * n):
                claimed[i] = equivalence_of_counts(int(won[i]), int(lost[i]), n, margin) <= 0.05
            shares = [
                float(probabilities(n, won, lost, differing, margin)[claimed].sum())
                for differing in _differing(margin, 60)
            ]
            yield Row(n, f"difference of {margin:.0%} = margin", "sum", min(shares), max(shares))


def score_equivalence() -> Iterator[Row]:
    """Rows of one of the two tests of equivalence beyond `N_FOR_EXACT_EQUIVALENCE` items, at the margin."""
    for n in (N_FOR_EXACT_EQUIVALENCE + 1, 3000, 14042):
        for alpha in (0.05, 0.05 / 12):
            for margin in (0.001, 0.01, 0.05):
                shares = []
                for differing in _differing(margin, 8 if n > 5000 else 20):
                    if differing > 0.95:
                        continue
                    won, lost = likely_outcomes(n, differing, -margin)
                    claimed = score(won, lost, n, -margin, discount=1.0) >= ndtri(1 - alpha)
                    shares.append(
                        float(probabilities(n, won, lost, differing, -margin)[claimed].sum()) / alpha
                    )
                cases = f"margin {margin:.1%}, level {alpha:.2%}, to 95% differ; share of the level"
                yield Row(n, cases, "sum", min(shares), max(shares))


def power() -> Iterator[Row]:
    """Rows of the exact test's power at the difference for which `Pairs.detectable` promises 80%."""
    for n in (50, 100, 200, 500, 1000, 2000, 14042):
        fewest = _fewest(n, 0.05)
        for expected in (0, 5, 10, 20, 50, 100, 1000):
            difference = Pairs(expected, n).detectable() if expected <= n / 2 else None
            if difference is None:
                continue
            # As many differ as the difference takes, if that is more than were seen to.
            differing = max((expected + 0.5) / (n + 1), difference)
            share = _found(n, differing, difference, fewest)
            yield Row(n, f"{expected} differ, by {difference:.1%}", "sum", share, share)


SECTIONS = {
    "binary-exact": Section("Exact interval of the difference of accuracies", "95% interval", exact_interval),
    "binary-score": Section("Score interval of the difference of accuracies", "95% interval", score_interval),
    "mcnemar": Section("McNemar's exact test: false positives", "at 5%", mcnemar),
    "binary-equivalence": Section("Equivalence of accuracies: false positives", "at 5%", exact_equivalence),
    "binary-equivalence-many": Section(
        "Equivalence of accuracies of many items: false positives", "at the level", score_equivalence
    ),
    "mcnemar-power": Section("Power of McNemar's exact test", "promised 80%", power),
}


def _differing(difference: float, points: int) -> list[float]:
    """Shares of pairs that differ, from the least that the difference allows to all."""
    least = abs(difference)
    return [float(least + (1 - least) * math.sin(s) ** 2) for s in np.linspace(0, math.pi / 2, points)]


def _score_coverage(n: int, differing: float, difference: float) -> float:
    won, lost = likely_outcomes(n, differing, difference)
    inside = np.abs(score(won, lost, n, difference)) <= ndtri(0.975)
    return float(probabilities(n, won, lost, differing, difference)[inside].sum())


def _fewest(n: int, alpha: float) -> list[int]:
    """By how many pairs differ, the most of the rarer kind at which the test finds a difference, or -1."""
    found = [-1]
    for m in range(1, n + 1):
        k = found[-1]
        while k + 1 <= m // 2 and mcnemar_exact(m - k - 1, k + 1) <= alpha:
            k += 1
        while k >= 0 and mcnemar_exact(m - k, k) > alpha:
            k -= 1
        found.append(k)
    return found


def _found(n: int, differing: float, difference: float, fewest: list[int]) -> float:
    m, k = np.arange(n + 1), np.array(fewest)
    win = min(1.0, (differing + difference) / 2 / differing)
    either = bdtr(np.maximum(k, 0), m, win) + bdtr(np.maximum(k, 0), m, 1 - win)
    return float((binom.pmf(m, n, differing) * np.where(k >= 0, either, 0.0)).sum())
