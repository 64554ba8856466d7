"""What McNemar's exact test can show, against sums over all outcomes and against draws."""

from __future__ import annotations

import functools
import itertools
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_outcomes import likely_outcomes, probabilities

from mambabench.stats.paired_binary import binary_effect, mcnemar_exact
from mambabench.stats.power_pairs import LARGEST_RATE, MOST_SUMMED, Pairs, most_lost

NUMBERS: Final = [10, 20, 40, 50, 100, 110, 200, 500, 2000, 2010]

p_of = functools.cache(mcnemar_exact)


def power_of(n: int, rate: float, difference: float, alpha: float) -> float:
    """Return how often the test finds the better one, over all outcomes that can be met with."""
    differing = max(rate, difference)
    won, lost = likely_outcomes(n, differing, difference)
    chances = probabilities(n, won, lost, differing, difference)
    found = [w > lo and p_of(int(w), int(lo)) < alpha for w, lo in zip(won, lost, strict=True)]
    return float(chances[np.array(found)].sum())


def rate_of(n_differing: int, n: int) -> float:
    return min(LARGEST_RATE, (n_differing + 0.5) / (n + 1))


@pytest.mark.parametrize(
    ("n_differing", "n"), [(0, 6), (3, 7), (1, 48), (20, 48), (48, 48), (30, 60), (4, 200), (60, 200)]
)
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.01, 0.95)])
def test_the_test_has_that_power(n_differing: int, n: int, alpha: float, power: float) -> None:
    smallest = Pairs(n_differing, n).detectable(alpha=alpha, power=power)
    if n < 8 and alpha == 0.01:
        assert smallest is None
        return
    assert smallest is not None
    rate = rate_of(n_differing, n)
    assert power_of(n, rate, smallest, alpha) == pytest.approx(power, abs=1e-4)
    assert power_of(n, rate, 0.98 * smallest, alpha) < power - 0.002


@pytest.mark.parametrize(("n_differing", "n"), [(1, 48), (20, 48)])
def test_drawn_items_are_found_as_often(n_differing: int, n: int) -> None:
    smallest = Pairs(n_differing, n).detectable()
    assert smallest is not None
    rate = max(rate_of(n_differing, n), smallest)
    kinds = np.random.default_rng(3).choice(
        3, size=(2000, n), p=[(rate + smallest) / 2, (rate - smallest) / 2, 1 - rate]
    )
    won, lost = (kinds == 0).sum(axis=1), (kinds == 1).sum(axis=1)
    found = [w > lo and p_of(w, lo) < 0.05 for w, lo in zip(won.tolist(), lost.tolist(), strict=True)]
    # Twice the standard error of a share of 2,000.
    assert np.mean(found) == pytest.approx(0.8, abs=0.018)


def test_the_test_that_is_made_is_that_one() -> None:
    for won, lost in ((6, 0), (5, 0), (9, 1), (8, 2)):
        answers = np.repeat([1, 0], [won, 30 - won]), np.repeat([0, 1], [30 - lost, lost])
        assert binary_effect(*answers).p_value == p_of(won, lost)
    assert most_lost(np.array([5, 6, 8, 9]), 0.05).tolist() == [-1, 0, 0, 1]


def test_nothing_is_shown_by_too_few() -> None:
    for n in range(1, 6):
        assert mcnemar_exact(n, 0) > 0.05
        assert Pairs(n, n).detectable() is None
        assert Pairs(n, n).too_few()
        # More of them show it nevertheless.
        assert Pairs(0, n).n_needed(0.9) == 7
    assert not Pairs(0, 6).too_few()
    assert Pairs(0, 6).detectable() == pytest.approx(0.8 ** (1 / 6))
    assert Pairs(6, 7).detectable(alpha=0.01) is None


def test_less_is_shown_by_fewer_items_and_by_more_that_differ() -> None:
    for alpha, power in ((0.05, 0.8), (0.01, 0.5), (0.004, 0.95)):
        grid = [
            [Pairs(round(share * n), n).detectable(alpha=alpha, power=power) for share in (0, 0.1, 0.4, 1)]
            for n in NUMBERS
        ]
        for row in grid:
            known = [d for d in row if d is not None]
            assert known == sorted(known)
        for column in zip(*grid, strict=True):
            known = [d for d in column if d is not None]
            assert known == sorted(known, reverse=True)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(6, 300), st.floats(0, 1), st.sampled_from([0.05, 0.01, 0.004]), st.sampled_from([0.5, 0.8])
)
def test_one_more_item_or_one_that_differs(n: int, share: float, alpha: float, power: float) -> None:
    k = round(share * n)
    first, more, alike = (
        Pairs(*pair).detectable(alpha=alpha, power=power) for pair in ((k, n), (k, n + 1), (max(0, k - 1), n))
    )
    if first is None:
        return
    assert more is not None
    assert alike is not None
    assert more <= first
    assert alike <= first


def test_no_differing_item_says_no_more_than_one() -> None:
    found = [Pairs(k, 48).detectable() for k in range(49)]
    assert found[0] == found[1] == found[5]
    assert all(b >= a for a, b in itertools.pairwise(found) if a is not None and b is not None)
    # Less than six items are no difference to the test.
    assert found[0] is not None
    assert found[0] > 6 / 48


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_many_items_meet_the_sums(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    n = int(MOST_SUMMED / rate)
    numbers = range(n - 3, n + 6)
    found = [Pairs(round(rate * (m + 1) - 0.5), m).detectable() for m in numbers]
    known = [d for d in found if d is not None]
    # The rate of whole items is off by up to half an item.
    for before, after in itertools.pairwise(known):
        assert after == pytest.approx(before, rel=2 / MOST_SUMMED)
    n_differing = round(4 * MOST_SUMMED)
    many = Pairs(n_differing, 4 * n)
    normal = many.detectable(power=0.81)
    monkeypatch.setattr("mambabench.stats.power_pairs.MOST_SUMMED", 1e6)
    assert Pairs(n_differing, 4 * n).detectable(power=0.81000001) == pytest.approx(normal, rel=2e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(6, 100_000), st.floats(0, 1), st.sampled_from([(0.05, 0.8), (0.03, 0.9)]))
def test_items_needed_are_those_that_show_it(n: int, share: float, asked: tuple[float, float]) -> None:
    alpha, power = asked
    pairs = Pairs(round(share * n), n)
    smallest = pairs.detectable(alpha=alpha, power=power)
    if smallest is None:
        return
    assert pairs.n_needed(smallest, alpha=alpha, power=power) in (n, n - 1)
    assert pairs.n_needed(0.99 * smallest, alpha=alpha, power=power) >= n
    assert pairs.n_needed(min(1, 1.3 * smallest), alpha=alpha, power=power) <= n


def test_a_point_needs_many_items() -> None:
    # Connor's number for 10% that differ: ((1.96 sqrt 0.1 + 0.8416 sqrt(0.1 - 0.0001)) / 0.01) ** 2 = 7,846,
    # and 2 / 0.01 for the correction for continuity.
    assert Pairs(1000, 10_000).n_needed(0.01) == pytest.approx(8046, rel=0.002)
    assert Pairs(1000, 10_000).n_needed(2.0) == 6


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=20), st.sampled_from([0.05, 0.01, 0.0004]))
def test_the_most_that_may_be_lost(differing: list[int], alpha: float) -> None:
    for n, lost in zip(differing, most_lost(np.array(differing), alpha).tolist(), strict=True):
        assert -1 <= lost <= n / 2
        if lost >= 0:
            assert p_of(n - lost, lost) < alpha
        if lost + 1 <= n:
            assert p_of(n - lost - 1, lost + 1) >= alpha
