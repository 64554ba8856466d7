"""What tests of a mean can show, against draws that are tested as they are, and against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.stats.paired_mean import mean_effect
from mambabench.stats.power import KnownError
from mambabench.stats.power_means import Differences
from mambabench.stats.power_pairs import Pairs


def normal(n: int, **changes: float) -> Differences:
    """Return differences with a standard deviation of 1."""
    fields = {"standard_error": 1 / math.sqrt(n), "difference": 0.1, "n_independent": n, "n_differing": n}
    return Differences(n=n, **{**fields, **changes})  # type: ignore[arg-type]


# Six normal differences must all go one way; of nine hardly more is asked than by Student.
@pytest.mark.parametrize(("n", "alpha"), [(6, 0.05), (7, 0.05), (9, 0.05), (8, 0.01)])
def test_the_tests_that_are_made_have_that_power(n: int, alpha: float) -> None:
    smallest = normal(n).detectable(alpha=alpha)
    assert smallest is not None
    rng = np.random.default_rng(n)
    draws = 1200
    found = 0
    for _ in range(draws):
        differences = rng.normal(smallest, 1, n)
        found += mean_effect(differences, np.zeros(n), replicates=1000).p_value < alpha
    # Twice the standard error of a share, and 1% of what the level of so few signs makes of it.
    assert found / draws == pytest.approx(0.8, abs=0.033)


def test_many_are_student_s() -> None:
    from statsmodels.stats.power import TTestPower

    for n in (17, 100, 5000):
        theirs = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
        assert normal(n).detectable() == pytest.approx(float(theirs), rel=1e-4)
    assert (
        normal(200, degrees_of_freedom=3.0).detectable()
        == KnownError(1 / math.sqrt(200), 200, 3.0).detectable()
    )


def test_nothing_is_shown_by_too_few() -> None:
    for n in (1, 2, 5):
        assert normal(n).detectable() is None
        assert normal(n).too_few()
    assert normal(5).n_needed(10.0) == 6
    assert not normal(6).too_few()
    assert normal(7).detectable(alpha=0.01) is None
    # All of six, whatever their size: their spread is not what stands against them.
    assert normal(6, difference=50.0).detectable() == normal(6).detectable()


def test_more_items_show_more() -> None:
    for alpha in (0.05, 0.01):
        found = [normal(n).detectable(alpha=alpha) for n in range(8, 120)]
        known = [d for d in found if d is not None]
        assert known == sorted(known, reverse=True)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(6, 3000),
    st.integers(1, 5),
    st.floats(0.001, 1),
    st.sampled_from([None, 0.7]),
    st.sampled_from([0.8, 0.95]),
)
def test_the_two_say_the_same(
    n_independent: int, size: int, share: float, less: float | None, power: float
) -> None:
    found = Differences(
        0.01, 0.002, n_independent * size, n_independent, max(1, round(share * n_independent)),
        None if less is None else less * (n_independent - 1),
    )  # fmt: skip
    smallest = found.detectable(power=power)
    assert smallest is not None
    assert found.n_needed(smallest, power=power) == n_independent * size
    assert (found.n_needed(1.5 * smallest, power=power) or math.inf) <= n_independent * size
    assert (found.n_needed(0.5 * smallest, power=power) or 0) > n_independent * size


@pytest.mark.parametrize(("k", "n"), [(1, 48), (3, 200), (2, 1000)])
def test_few_differing_ones_are_counted_as_pairs_are(k: int, n: int) -> None:
    apart = np.zeros(n)
    apart[:k] = 1.0
    effect = mean_effect(apart, np.zeros(n), replicates=1000)
    found = Differences(effect.standard_error, effect.difference, n, n, k, effect.degrees_of_freedom)
    assert found.detectable() == pytest.approx(Pairs(k, n).detectable(), rel=1e-6)
    # In any unit.
    halved = Differences(effect.standard_error / 2, effect.difference / 2, n, n, k)
    assert halved.detectable() == pytest.approx((found.detectable() or 0) / 2)


@pytest.mark.parametrize(
    "unknown",
    [normal(9, standard_error=math.nan), normal(9, n_differing=0), normal(9, degrees_of_freedom=0.0)],
)
def test_without_an_error_nothing_is_known(unknown: Differences) -> None:
    assert unknown.detectable() is None
    assert unknown.n_needed(1.0) is None
