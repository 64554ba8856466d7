"""Power against statsmodels, and against sums over what McNemar's exact test finds."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.stats.paired_binary import mcnemar_exact
from mambabench.stats.power import detectable, n_needed

alphas = st.sampled_from([0.05, 0.01, 0.05 / 12])
powers = st.sampled_from([0.5, 0.8, 0.95])
errors = st.floats(1e-6, 10.0)


def test_detectable_differences_are_statsmodels() -> None:
    from statsmodels.stats.power import NormalIndPower, TTestPower

    for n, alpha, power in ((100, 0.05, 0.8), (1000, 0.01, 0.9), (14042, 0.05 / 12, 0.5)):
        ours = detectable(1 / math.sqrt(n), alpha=alpha, power=power)
        # Of one sample: that of the differences.
        normal = NormalIndPower(ddof=0).solve_power(nobs1=n, alpha=alpha, power=power, ratio=0)
        assert ours == pytest.approx(float(normal), rel=1e-4)
        student = TTestPower().solve_power(nobs=n, alpha=alpha, power=power)
        assert ours == pytest.approx(float(student), rel=2 / n + 1e-3)


def test_items_needed_are_statsmodels() -> None:
    from statsmodels.stats.power import NormalIndPower

    for difference, alpha, power in ((0.1, 0.05, 0.8), (0.02, 0.01, 0.9)):
        ours = n_needed(0.5, 4, difference, alpha=alpha, power=power)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = NormalIndPower(ddof=0).solve_power(difference, alpha=alpha, power=power, ratio=0)
        # Items vary by 1: an error of 0.5 over 4 of them.
        assert ours == math.ceil(float(np.squeeze(theirs)))


def test_power_by_hand() -> None:
    # 1.959964 + 0.841621 standard errors.
    assert detectable(1.0) == pytest.approx(2.801585, abs=1e-6)
    assert n_needed(1.0, 100, 2.801586) == 100
    assert n_needed(1.0, 100, 2.8015) == 101
    assert n_needed(1.0, 100, -2.801586 / 2) == 400
    assert detectable(1.0, alpha=0.05, power=0.5) == pytest.approx(1.959964, abs=1e-6)


@given(errors, st.integers(1, 100_000), alphas, powers)
def test_the_two_say_the_same(error: float, n: int, alpha: float, power: float) -> None:
    smallest = detectable(error, alpha=alpha, power=power)
    assert n_needed(error, n, smallest, alpha=alpha, power=power) == n
    assert n_needed(error, n, 2 * smallest, alpha=alpha, power=power) <= n // 4 + 1
    assert detectable(error, alpha=alpha, power=0.99) > smallest


def test_an_unknown_error_shows_nothing() -> None:
    assert math.isnan(detectable(math.nan))


@pytest.mark.parametrize("error", [-1.0, math.inf])
def test_what_is_no_error_is_refused(error: float) -> None:
    with pytest.raises(ValueError, match="error"):
        detectable(error)
    with pytest.raises(ValueError, match="error"):
        n_needed(error, 10, 0.1)


@pytest.mark.parametrize(
    ("error", "n", "difference"),
    [(0.0, 10, 0.1), (math.nan, 10, 0.1), (1, 10, 0), (1, 10, math.nan), (1, 0, 1)],
)
def test_items_that_follow_from_nothing_are_refused(error: float, n: int, difference: float) -> None:
    with pytest.raises(ValueError, match="no number of items"):
        n_needed(error, n, difference)


@pytest.mark.parametrize(("alpha", "power"), [(0, 0.8), (1, 1), (0.05, 1), (0.05, 0.01), (math.nan, 0.8)])
def test_impossible_levels_are_refused(alpha: float, power: float) -> None:
    with pytest.raises(ValueError, match="not possible"):
        detectable(1.0, alpha=alpha, power=power)


def mcnemar_power(n: int, differing: float, difference: float) -> float:
    """Probability that the exact test finds the difference at 5%, summed over how many pairs differ."""
    from scipy.special import bdtr
    from scipy.stats import binom

    total = 0.0
    for m in range(n + 1):
        likely = float(binom.pmf(m, n, differing))
        if likely < 1e-9:
            continue
        fewest = max((k for k in range(m // 2 + 1) if mcnemar_exact(m - k, k) <= 0.05), default=-1)
        win = (differing + difference) / 2 / differing
        if fewest >= 0:
            total += likely * float(bdtr(fewest, m, win) + bdtr(fewest, m, 1 - win))
    return total


@pytest.mark.parametrize(
    ("n", "differing", "low"), [(100, 0.1, 0.70), (200, 0.2, 0.74), (1000, 0.1, 0.77), (2000, 0.2, 0.78)]
)
def test_the_exact_test_has_nearly_the_power_promised(n: int, differing: float, low: float) -> None:
    difference = 0.0
    for _ in range(50):
        difference = detectable(math.sqrt((differing - difference**2) / n))
    power = mcnemar_power(n, differing, difference)
    assert low <= power <= 0.8
    # The difference that it truly finds is at most a tenth larger.
    assert mcnemar_power(n, differing, 1.1 * difference) >= 0.8
