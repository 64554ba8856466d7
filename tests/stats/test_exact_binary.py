"""Tails of outcomes in the order of scores: sums over all of them, searches, what holds for any counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paired_outcomes import counts_of, outcomes, probabilities

from mambabench.stats import exact_binary
from mambabench.stats.exact_binary import exact_lower, score, score_lower, tail_p

differences = st.floats(-0.999, 0.999)


# --- the score


@given(st.integers(1, 300).flatmap(counts_of), differences)
@example((0, 0, 7), 0.0)
@example((7, 0, 7), 0.5)
@example((0, 7, 7), 0.5)
def test_the_score_is_tangos(counts: tuple[int, int, int], difference: float) -> None:
    won, lost, n = counts
    # The most likely probability of a loss, by a search instead of the quadratic equation.
    least, most = max(0.0, -difference), (1 - difference) / 2

    def slope(q: float) -> float:
        parts = [(won, q + difference, 1), (lost, q, 1), (n - won - lost, 1 - 2 * q - difference, -2)]
        return sum(factor * count / max(p, 1e-300) for count, p, factor in parts if count)

    low, high = least, most
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    variance = n * (2 * low + difference - difference**2)
    gap = won - lost - n * difference
    if abs(gap) > 1e-9 * n and variance > 1e-9:
        value = float(score(won, lost, n, difference))
        assert value == pytest.approx(gap / math.sqrt(variance), rel=1e-6, abs=1e-9)


@given(st.integers(1, 60).flatmap(counts_of), differences)
def test_the_score_orders_outcomes(counts: tuple[int, int, int], difference: float) -> None:
    won, lost, n = counts
    value = float(score(won, lost, n, difference))
    if won + lost < n:
        assert float(score(won + 1, lost, n, difference)) >= value - 1e-9
        assert float(score(won, lost + 1, n, difference)) <= value + 1e-9
    if lost > 0:
        assert float(score(won + 1, lost - 1, n, difference)) >= value - 1e-9
    falling = score(won, lost, n, np.linspace(-0.999, 0.999, 101))
    assert bool((np.diff(falling) <= 1e-9).all())
    mirrored = float(score(lost, won, n, -difference))
    assert mirrored == pytest.approx(-value, abs=1e-9 * (1 + abs(value)))


# --- exact tails and limits


@pytest.mark.parametrize(("won", "lost", "n"), [(3, 1, 7), (2, 2, 6), (0, 1, 5), (4, 1, 12)])
def test_the_exact_limit_is_a_brute_force_search_s(won: int, lost: int, n: int) -> None:
    all_won, all_lost = outcomes(n)
    order = [score_lower(w, o, n, 1.959964) for w, o in zip(all_won.tolist(), all_lost.tolist(), strict=True)]
    rank = np.array(order) >= score_lower(won, lost, n, 1.959964) - 1e-9
    low, high = -1.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        shares = np.linspace(abs(middle), 1.0, 400)
        most = max(float(probabilities(n, all_won, all_lost, d, middle)[rank].sum()) for d in shares)
        low, high = (low, middle) if most > 0.025 else (middle, high)
    assert exact_lower(won, lost, n, 0.025) == pytest.approx(low, abs=1e-4)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 99).flatmap(counts_of), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_largest_probability_is_found(counts: tuple[int, int, int], confidence: float) -> None:
    won, lost, n = counts
    difference = exact_lower(won, lost, n, (1 - confidence) / 2)
    tail = exact_binary._Tail(n, exact_binary._least_won(won, lost, n, difference, 1.0))
    found = tail.largest(difference)[1]
    step = 0.002
    shares = np.linspace(0.0, 1.0, math.ceil(math.pi * math.sqrt(n) / step) + 1)
    dense = float(tail._probabilities(difference, shares).max())
    assert dense <= found * (1 + exact_binary.SAFETY)
    # Between points of that grid nothing is much larger: arcsin sqrt P changes by at most half the distance
    # in standard deviations of the counts (Cauchy and Schwarz, with Fisher's information).
    anywhere = math.sin(min(math.pi / 2, math.asin(math.sqrt(min(1.0, dense))) + step / 4)) ** 2
    assert anywhere <= found * 1.01 or found < 0.01


@given(st.integers(1, 40).flatmap(counts_of), differences, st.floats(0, 1))
def test_tails_are_sums_over_outcomes(counts: tuple[int, int, int], difference: float, share: float) -> None:
    won, lost, n = counts
    observed = float(score(won, lost, n, difference))
    least = exact_binary._least_won(won, lost, n, difference, observed)
    ours = float(exact_binary._Tail(n, least)._probabilities(difference, np.array([share]))[0])
    all_won, all_lost = outcomes(n)
    differing = abs(difference) + (1 - abs(difference)) * math.sin(share * math.pi / 2) ** 2
    p = probabilities(n, all_won, all_lost, differing, difference)
    reached = score(all_won, all_lost, n, difference)
    # Outcomes that tie but for rounding may be in or out.
    sums = [float(p[reached >= observed + slack * (1 + abs(observed))].sum()) for slack in (1e-8, -1e-8)]
    assert sums[0] - 1e-10 <= ours <= sums[1] + 1e-10


def test_a_tail_is_one_sided() -> None:
    # Both of two items won, where a win has at most probability 1/2: 1/4.
    assert tail_p(2, 0, 2, 0.0) == pytest.approx(0.25, rel=2e-4)
    assert tail_p(0, 2, 2, 0.0) == 1.0
