"""Proportions of other items against statsmodels and scipy, and their level summed over all outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.stats.unpaired import unpaired_binary, unpaired_errors


@pytest.mark.parametrize("counts", [(30, 50, 20, 50), (0, 10, 3, 12), (7, 7, 0, 9), (612, 1000, 3300, 5000)])
def test_interval_agrees_with_statsmodels(counts: tuple[int, int, int, int]) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    theirs = proportion.confint_proportions_2indep(*counts, method="newcomb", compare="diff")
    ours = unpaired_binary(*counts)
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-12)
    assert (ours.n, ours.interval_method, ours.test) == (counts[3], "newcombe", "Fisher exact")


def test_published_interval() -> None:
    # Newcombe (1998), table II (a): 56/70 and 48/80, method 10.
    effect = unpaired_binary(56, 70, 48, 80)
    assert (round(effect.low, 4), round(effect.high, 4)) == (0.0524, 0.3339)


def test_p_value_is_the_sum_of_what_is_no_more_likely() -> None:
    n, m, right = 8, 6, 7
    chances = {a: math.comb(n, a) * math.comb(m, right - a) for a in range(1, 8)}
    for a, chance in chances.items():
        by_hand = sum(c for c in chances.values() if c <= chance) / math.comb(n + m, right)
        assert unpaired_binary(a, n, right - a, m).p_value == pytest.approx(by_hand, rel=1e-9)


def test_level_is_kept_at_every_rate() -> None:
    from scipy.stats import binom

    for n, m in ((1, 1), (4, 9), (15, 15)):
        p = np.array([[unpaired_binary(i, n, j, m).p_value for j in range(m + 1)] for i in range(n + 1)])
        for rate in (0.02, 0.1, 0.3, 0.5, 0.8):
            chances = np.outer(binom.pmf(np.arange(n + 1), n, rate), binom.pmf(np.arange(m + 1), m, rate))
            for level in (0.01, 0.05, 0.2):
                assert chances[p <= level].sum() <= level


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_sides_mirror(n: int, m: int, data: st.DataObject) -> None:
    i, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    one, other = unpaired_binary(i, n, j, m), unpaired_binary(j, m, i, n)
    assert one.low <= one.difference <= one.high
    assert (one.low, one.p_value) == pytest.approx((-other.high, other.p_value), abs=1e-12)


def test_errors_add_in_squares() -> None:
    effect = unpaired_errors(0.6, 0.03, 0.5, 0.04, n=200)
    assert (effect.difference, effect.standard_error) == pytest.approx((0.1, 0.05))
    assert (effect.low, effect.high) == pytest.approx((0.1 - 1.959963985 * 0.05, 0.1 + 1.959963985 * 0.05))
    # Two-sided tail of a normal variable beyond 2.
    assert effect.p_value == pytest.approx(math.erfc(2 / math.sqrt(2)), rel=1e-9)
    assert (effect.n, effect.determined, effect.interval_method) == (200, True, "from standard errors")


@pytest.mark.parametrize("error", [0.0, math.nan, math.inf])
def test_an_error_that_says_nothing_determines_nothing(error: float) -> None:
    effect = unpaired_errors(1.0, error, 0.2, 0.01)
    assert (effect.p_value, effect.determined, effect.high) == (1.0, False, math.inf)
    assert math.isnan(effect.standard_error)


def test_impossible_input_is_refused() -> None:
    for counts in ((3, 2, 1, 5), (-1, 2, 1, 5), (0, 0, 1, 5)):
        with pytest.raises(ValueError, match="not possible"):
            unpaired_binary(*counts)
    with pytest.raises(ValueError, match="not negative"):
        unpaired_errors(1.0, -0.1, 1.0, 0.1)
    with pytest.raises(ValueError, match="confidence"):
        unpaired_errors(1.0, 0.1, 1.0, 0.1, confidence=0.0)
