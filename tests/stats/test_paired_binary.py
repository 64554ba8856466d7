"""Right and wrong answers of the same items: sums over all outcomes, other implementations, hand cases."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paired_outcomes import counts_of, outcomes, probabilities

from mambabench.stats.exact_binary import exact_lower, score
from mambabench.stats.paired_binary import (
    N_FOR_EXACT_EQUIVALENCE,
    N_FOR_SCORE,
    binary_effect,
    binary_equivalence,
    equivalence_of_counts,
    interval_of_counts,
    mcnemar_exact,
)

few = st.integers(1, N_FOR_SCORE - 1).flatmap(counts_of)
many = st.integers(N_FOR_SCORE, 20_000).flatmap(counts_of)


def answers(won: int, lost: int, n: int) -> tuple[list[int], list[int]]:
    """Items won, lost, wrong in both and right in both."""
    alike = [i % 2 for i in range(n - won - lost)]
    return [1] * won + [0] * lost + alike, [0] * won + [1] * lost + alike


# --- McNemar's test


@pytest.mark.parametrize(
    ("won", "lost", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (2, 0, 0.5), (5, 0, 0.0625), (0, 5, 0.0625), (3, 3, 1.0), (6, 1, 0.125)],
)
def test_mcnemar_by_hand(won: int, lost: int, p_value: float) -> None:
    assert mcnemar_exact(won, lost) == pytest.approx(p_value, abs=1e-15)
    assert binary_effect(*answers(won, lost, won + lost + 4)).p_value == pytest.approx(p_value, abs=1e-15)


# The first example pays for importing statsmodels.
@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
@example(7000, 7042)
def test_mcnemar_agrees_with_statsmodels(won: int, lost: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    theirs = mcnemar([[3, won], [lost, 5]], exact=True).pvalue
    assert mcnemar_exact(won, lost) == pytest.approx(float(theirs), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.05 / 12])
def test_mcnemar_keeps_its_level_whatever_differs(alpha: float) -> None:
    # Given how many pairs differ the level is kept; then it is so for any n and any share that differs.
    for differing in range(60):
        won = np.arange(differing + 1)
        rejected = np.array([mcnemar_exact(int(w), differing - int(w)) <= alpha for w in won])
        assert float(probabilities(differing, won, differing - won, 1.0, 0.0)[rejected].sum()) <= alpha


@pytest.mark.parametrize(("won", "lost"), [(-1, 0), (2, -3), (0.5, 1), (math.nan, 1)])
def test_mcnemar_refuses_what_is_no_count(won: Any, lost: Any) -> None:
    with pytest.raises(ValueError, match="not possible"):
        mcnemar_exact(won, lost)


# --- the score interval


@given(many, st.sampled_from([0.8, 0.95, 0.99]))
@example((0, 0, 14042), 0.95)
@example((14042, 0, 14042), 0.95)
def test_ends_of_the_score_interval_are_where_the_score_is_the_quantile(
    counts: tuple[int, int, int], confidence: float
) -> None:
    from scipy.optimize import brentq
    from scipy.special import ndtri

    won, lost, n = counts
    z = float(ndtri(0.5 + confidence / 2))
    low, high, method = interval_of_counts(won, lost, n, confidence)
    assert method == "score"
    difference = (won - lost) / n
    for end, side, sign in ((low, -1.0, 1), (high, 1.0, -1)):
        if difference == side:
            assert end == side
        else:
            theirs = brentq(lambda d, s=sign: float(score(won, lost, n, d)) - s * z, side, difference)
            assert end == pytest.approx(theirs, abs=1e-8)


def test_the_score_interval_of_one_sided_pairs_is_wilsons() -> None:
    from mambabench.stats.intervals import wilson

    # Nothing lost: under a positive difference the free parameter is 0, and the count won is binomial.
    for won, n in ((0, 200), (40, 200), (200, 200)):
        assert interval_of_counts(won, 0, n)[1] == pytest.approx(wilson(won, n).high, abs=1e-8)


@pytest.mark.parametrize(
    ("counts", "confidence", "ends"),
    [
        ((60, 20, 1000), 0.95, (0.0231, 0.0584)),
        ((28, 25, 618), 0.90, (-0.0148, 0.0247)),
        ((48, 41, 549), 0.90, (-0.0157, 0.0414)),
    ],
)
def test_the_score_interval_is_what_others_print(
    counts: tuple[int, int, int], confidence: float, ends: tuple[float, float]
) -> None:
    # Ends printed by scoreci.mp of R's PropCIs 0.3-0.
    assert interval_of_counts(*counts, confidence)[:2] == pytest.approx(ends, abs=5.1e-5)


# --- coverage, summed over all outcomes


def score_coverage(n: int, differing: float, difference: float) -> float:
    won, lost = outcomes(n)
    p = probabilities(n, won, lost, differing, difference)
    return float(p[np.abs(score(won, lost, n, difference)) <= 1.959964].sum())


@pytest.mark.parametrize("n", [100, 101, 200])
def test_coverage_of_the_score_interval(n: int) -> None:
    assert n >= N_FOR_SCORE
    # From ten pairs that are expected to differ, some of them either way.
    enough = [score_coverage(n, m / n, m / n * f) for m in shares_of(n, 10, 0.9) for f in (0, 0.2, 0.6, 0.9)]
    assert 0.935 <= min(enough) <= max(enough) <= 0.965
    # All the same way: the count is binomial, the interval Wilson's.
    one_way = [score_coverage(n, m / n, m / n) for m in shares_of(n, 10, 0.8)]
    assert 0.925 <= min(one_way) <= max(one_way) <= 0.97
    # With fewer only few outcomes are likely.
    fewer = [score_coverage(n, m / n, m / n * f) for m in shares_of(n, 0.2, 10 / n) for f in (0, 0.3, 0.6, 1)]
    assert min(fewer) >= 0.925


def shares_of(n: int, least: float, most: float) -> list[float]:
    return [float(m) for m in np.geomspace(least, most * n, 12)]


def limits(n: int) -> tuple[Any, Any, Any, Any]:
    """All outcomes' wins, losses and ends of their intervals."""
    won, lost = outcomes(n)
    lower = {(w, o): exact_lower(w, o, n, 0.025) for w, o in zip(won.tolist(), lost.tolist(), strict=True)}
    low = np.array([lower[w, o] for w, o in zip(won.tolist(), lost.tolist(), strict=True)])
    high = np.array([-lower[o, w] for w, o in zip(won.tolist(), lost.tolist(), strict=True)])
    return won, lost, low, high


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 9, 14])
def test_the_exact_interval_covers_no_less_than_asked(n: int) -> None:
    won, lost, low, high = limits(n)
    # It covers least just outside of its ends, and those of one side mirror those of the other.
    worst, most = 1.0, 0.0
    for difference in np.unique(np.round(low[low > -1], 8)) - 2e-8:
        for share in np.linspace(0, 1, 41):
            differing = abs(difference) + (1 - abs(difference)) * math.sin(share * math.pi / 2) ** 2
            p = probabilities(n, won, lost, differing, difference)
            assert float(p[low > difference].sum()) <= 0.025
            worst = min(worst, float(p[(low <= difference) & (difference <= high)].sum()))
            most = max(most, float(p[low > difference].sum()))
    assert worst >= 0.95
    # And it is no wider than its order of outcomes needs: some outcomes do come up to the level.
    assert most > 0.0249


def test_the_exact_interval_by_hand() -> None:
    # One item: won with a probability of at most (1 + difference) / 2.
    assert interval_of_counts(1, 0, 1)[:2] == (pytest.approx(-0.95, abs=1e-4), 1.0)
    assert interval_of_counts(0, 0, 1)[:2] == pytest.approx((-0.975, 0.975), abs=1e-4)
    for n in (1, 7, 99):
        # All won: the probability of that is at most ((1 + difference) / 2)^n.
        assert interval_of_counts(n, 0, n)[0] == pytest.approx(2 * 0.025 ** (1 / n) - 1, abs=1e-4)
        # Nothing differs: at -difference, that has a probability of (1 - difference)^n if nothing is won.
        assert interval_of_counts(0, 0, n)[1] >= 1 - 0.025 ** (1 / n)


# --- the effect as a whole


@settings(max_examples=40, deadline=None)
@given(st.one_of(few, many))
@example((0, 0, 1))
@example((1, 0, 1))
@example((99, 0, 99))
@example((0, 100, 100))
def test_what_holds_for_any_answers(counts: tuple[int, int, int]) -> None:
    won, lost, n = counts
    effect = binary_effect(*answers(won, lost, n))
    assert effect.difference == (won - lost) / n
    assert -1 <= effect.low <= effect.difference <= effect.high <= 1
    assert effect.high - effect.low > 1e-5
    assert effect.standard_error > 0
    assert (effect.n, effect.test, effect.determined) == (n, "exact McNemar", True)
    assert effect.interval_method == ("score" if n >= N_FOR_SCORE else "exact score")
    # What the test finds the interval shows: it says "better" of no difference whose interval holds 0.
    if effect.p_value <= 0.05:
        assert effect.excludes(0.0)
    other = binary_effect(*reversed(answers(won, lost, n)))
    assert (other.low, other.high) == pytest.approx((-effect.high, -effect.low), abs=1e-7)
    assert (other.p_value, other.standard_error) == (effect.p_value, pytest.approx(effect.standard_error))
    wider = binary_effect(*answers(won, lost, n), confidence=0.99)
    assert wider.low <= effect.low + 1e-7
    assert wider.high >= effect.high - 1e-7


def test_the_standard_error_is_that_of_the_mean_difference() -> None:
    candidate, baseline = np.random.default_rng(0).integers(0, 2, (2, 150))
    effect = binary_effect(candidate, baseline)
    assert effect.standard_error == pytest.approx(np.std(candidate - baseline, ddof=1) / math.sqrt(150))


@pytest.mark.parametrize("n", [1, 50, 500])
def test_items_that_all_say_the_same_leave_an_error(n: int) -> None:
    for won, lost in ((0, 0), (n, 0), (0, n)):
        effect = binary_effect(*answers(won, lost, n))
        assert effect.standard_error == pytest.approx((effect.high - effect.low) / 2 / 1.959964, rel=1e-5)


@pytest.mark.parametrize(
    ("candidate", "baseline"),
    [
        ([], []),
        ([1, 0], [1]),
        ([1, math.nan], [1, 0]),
        ([1, 2], [1, 0]),
        ([0.5, 1], [1, 0]),
        ([1, 0], [-1, 0]),
        ([[1, 0]], [[1, 0]]),
    ],
)
def test_what_are_no_answers_is_refused(candidate: Any, baseline: Any) -> None:
    with pytest.raises(ValueError, match=r"item|answers"):
        binary_effect(candidate, baseline)
    with pytest.raises(ValueError, match=r"item|answers"):
        binary_equivalence(candidate, baseline, 0.01)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 95.0, math.nan])
def test_impossible_confidences_and_margins_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        binary_effect([1], [0], confidence=share)
    with pytest.raises(ValueError, match="margin"):
        binary_equivalence([1], [0], share)


def test_true_and_false_are_answers() -> None:
    assert binary_effect(np.array([True, False]), np.array([False, False])).difference == 0.5


# --- equivalence


@pytest.mark.parametrize("n", [1, 5, 18])
@pytest.mark.parametrize("margin", [0.02, 0.1, 0.3])
def test_equivalence_is_claimed_at_the_margin_no_more_than_asked(n: int, margin: float) -> None:
    won, lost = outcomes(n)
    p_values = np.array(
        [equivalence_of_counts(w, o, n, margin) for w, o in zip(won.tolist(), lost.tolist(), strict=True)]
    )
    for share in np.linspace(0, 1, 40):
        differing = margin + (1 - margin) * share**2
        # Beyond the margin it is claimed less often still.
        for difference in (margin, -margin, margin + (differing - margin) / 2):
            p = probabilities(n, won, lost, differing, difference)
            for alpha in (0.05, 0.01, 0.2):
                assert float(p[p_values <= alpha].sum()) <= alpha


@pytest.mark.parametrize("n", [N_FOR_EXACT_EQUIVALENCE + 1, 3000])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 12])
def test_equivalence_of_many_items_keeps_its_level_too(n: int, alpha: float) -> None:
    from scipy.special import ndtri

    from mambabench.stats import exact_binary

    for margin in (0.001, 0.01, 0.03):
        m = np.arange(n + 1)
        # The outcomes for which the test above the lower end claims equivalence.
        least = np.array(m + 1)
        for _ in range(14):
            lower = np.maximum(least - (1 << (13 - _)), 0)
            claimed = score(lower, m - lower, n, -margin, discount=1.0) >= ndtri(1 - alpha)
            least = np.where(claimed, lower, least)
        shares = np.linspace(0.0, 0.85, 60)
        p = exact_binary._Tail(n, least)._probabilities(-margin, shares)
        assert p.max() <= alpha


def test_equivalence_by_hand() -> None:
    # Nothing differs in 60 items: so much luck has probability (1 - margin)^60 at the margin.
    assert equivalence_of_counts(0, 0, 60, 0.05) == pytest.approx(0.95**60, rel=2e-4)
    assert equivalence_of_counts(0, 0, 1, 0.05) == pytest.approx(0.95, rel=2e-4)
    # A difference beyond the margin is no sign of equivalence.
    assert equivalence_of_counts(30, 0, 100, 0.05) > 0.9
    assert equivalence_of_counts(600, 0, 2000, 0.05) > 0.999


def test_equivalence_does_not_jump_where_its_method_changes() -> None:
    n = N_FOR_EXACT_EQUIVALENCE
    exact, corrected = equivalence_of_counts(40, 42, n, 0.02), equivalence_of_counts(40, 42, n + 1, 0.02)
    assert exact <= corrected <= 1.4 * exact


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 120).flatmap(counts_of), st.sampled_from([0.01, 0.05, 0.2]))
def test_what_holds_for_any_equivalence(counts: tuple[int, int, int], margin: float) -> None:
    won, lost, n = counts
    p_value = binary_equivalence(*answers(won, lost, n), margin)
    assert 0 <= p_value <= 1
    assert binary_equivalence(*answers(lost, won, n), margin) == pytest.approx(p_value, rel=1e-9)
    assert equivalence_of_counts(won, lost, n, margin + 0.1) <= p_value * (1 + 1e-3)
    if abs(won - lost) / n >= margin:
        assert p_value > 0.3


def test_scipy_stats_is_not_needed() -> None:
    code = (
        "import sys; from mambabench.stats.paired_binary import *\n"
        "binary_effect([1, 0, 1], [0, 0, 1]); binary_equivalence([1, 0], [0, 0], 0.1)\n"
        "assert 'scipy.stats' not in sys.modules and 'statsmodels' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
