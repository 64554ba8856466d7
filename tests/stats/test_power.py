"""Power of a difference whose error is known, against statsmodels, scipy and by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.stats.power import KnownError, errors_needed, fewest_one_way, least, one_way_rate

alphas = st.sampled_from([0.05, 0.01, 0.05 / 12])
powers = st.sampled_from([0.5, 0.8, 0.95])
errors = st.floats(1e-6, 10.0)


def test_detectable_differences_are_statsmodels() -> None:
    from statsmodels.stats.power import NormalIndPower, TTestPower

    for n, alpha, power in ((4, 0.05, 0.8), (100, 0.05, 0.8), (1000, 0.01, 0.9), (14042, 0.05 / 12, 0.5)):
        error = 1 / math.sqrt(n)
        # Of one sample: that of the differences.
        normal = NormalIndPower(ddof=0).solve_power(nobs1=n, alpha=alpha, power=power, ratio=0)
        assert KnownError(error, n).detectable(alpha=alpha, power=power) == pytest.approx(
            float(normal), rel=1e-4
        )
        student = TTestPower().solve_power(nobs=n, alpha=alpha, power=power)
        ours = KnownError(error, n, n - 1).detectable(alpha=alpha, power=power)
        assert ours == pytest.approx(float(student), rel=1e-4)


def test_items_needed_are_statsmodels() -> None:
    from statsmodels.stats.power import NormalIndPower

    for difference, alpha, power in ((0.1, 0.05, 0.8), (0.02, 0.01, 0.9)):
        ours = KnownError(0.5, 4).n_needed(difference, alpha=alpha, power=power)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = NormalIndPower(ddof=0).solve_power(difference, alpha=alpha, power=power, ratio=0)
        # Items vary by 1: an error of 0.5 over 4 of them.
        assert ours == math.ceil(float(np.squeeze(theirs)))


def test_power_by_hand() -> None:
    # 1.959964 + 0.841621 standard errors.
    known = KnownError(1.0, 100)
    assert known.detectable() == pytest.approx(2.801585, abs=1e-6)
    assert known.n_needed(2.801586) == 100
    assert known.n_needed(2.8015) == 101
    assert known.n_needed(2.801586 / 2) == 400
    assert known.detectable(power=0.5) == pytest.approx(1.959964, abs=1e-6)
    assert (known.fewest(), known.too_few()) == (1, False)


@given(errors, st.integers(1, 100_000), st.sampled_from([None, 0.1, 3.0]), alphas, powers)
def test_the_two_say_the_same(
    error: float, n: int, df_of_each: float | None, alpha: float, power: float
) -> None:
    known = KnownError(error, n, None if df_of_each is None else df_of_each * n)
    smallest = known.detectable(alpha=alpha, power=power)
    if smallest is None:
        assert df_of_each == 0.1
        assert n < 10
        return
    assert known.n_needed(smallest, alpha=alpha, power=power) == n
    twice = known.n_needed(2 * smallest, alpha=alpha, power=power)
    assert twice is not None
    assert twice <= (n if df_of_each else n // 4 + 1)
    assert (known.detectable(alpha=alpha, power=0.99) or 0) > smallest


@pytest.mark.parametrize("known", [KnownError(math.nan, 9), KnownError(0.0, 9), KnownError(1.0, 9, 0.0)])
def test_an_unknown_error_shows_nothing(known: KnownError) -> None:
    assert known.detectable() is None
    assert known.n_needed(0.1) is None


@pytest.mark.parametrize("difference", [0.0, -1.0, math.nan, math.inf])
def test_no_number_of_items_shows_no_difference(difference: float) -> None:
    with pytest.raises(ValueError, match="no number of items"):
        KnownError(0.1, 9).n_needed(difference)


@pytest.mark.parametrize(("alpha", "power"), [(0, 0.8), (1, 1), (0.05, 1), (0.05, 0.01), (math.nan, 0.8)])
def test_impossible_probabilities_are_refused(alpha: float, power: float) -> None:
    with pytest.raises(ValueError, match="not possible"):
        KnownError(0.1, 9).detectable(alpha=alpha, power=power)


def test_errors_needed_give_the_power_of_student() -> None:
    from scipy import stats

    for df in (1.0, 5.0, 12.5, 400.0):
        found = errors_needed(df, 0.05, 0.8)
        assert stats.nct.sf(stats.t.isf(0.025, df), df, found) == pytest.approx(0.8, abs=1e-6)


def test_the_fewest_items_that_show_something() -> None:
    assert [fewest_one_way(alpha) for alpha in (0.06, 0.05, 0.03125, 0.03, 0.01)] == [6, 6, 7, 7, 8]
    # Six of six must differ, in 80% of the cases.
    assert one_way_rate(6, 0.05, 0.8) == pytest.approx(0.8 ** (1 / 6))


@given(st.integers(1, 50), st.integers(0, 2000))
def test_the_least_number_is_found(first: int, wanted: int) -> None:
    assert least(first, lambda n: n >= wanted) == max(first, wanted)
