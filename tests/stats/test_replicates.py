"""Estimates over processes: coverage by simulation, scipy's interval, and what must hold for any figures."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.stats.replicates import Estimate, centre, centre_of_differences, paired_ratio, verdict

figures = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20)
many = st.lists(st.floats(1e-6, 1e6), min_size=6, max_size=20)


# The first example pays for importing scipy.stats.
@settings(deadline=None)
@given(many)
def test_the_interval_is_scipys_on_logarithms(values: list[float]) -> None:
    from scipy import stats

    logs = np.log(values)
    ours = centre(values)
    assert ours.value == pytest.approx(float(stats.gmean(values)), rel=1e-12)
    if np.ptp(logs) > 1e-9:
        interval = stats.t.interval(0.95, len(logs) - 1, loc=logs.mean(), scale=stats.sem(logs))
        assert (ours.low, ours.high) == pytest.approx(np.exp(interval), rel=1e-9)
    assert (ours.method, ours.n) == ("t on log", len(values))


@pytest.mark.parametrize("n", [6, 8, 12])
def test_coverage_is_what_is_claimed(n: int) -> None:
    rng = np.random.default_rng(n)
    samples = np.exp(0.1 * rng.standard_normal((6000, n)))
    inside = [e.low <= 1.0 <= e.high for e in map(centre, samples.tolist())]
    assert 0.935 <= np.mean(inside) <= 0.965


@pytest.mark.parametrize("n", [6, 9])
def test_coverage_of_ratios_does_not_suffer_from_drift(n: int) -> None:
    rng = np.random.default_rng(n)
    inside = []
    for _ in range(6000):
        # The machine gets slower by a third over the sweep, for both sides alike.
        drift = np.linspace(1.0, 4 / 3, n)
        a, b = np.exp(0.05 * rng.standard_normal((2, n))) * drift
        ratio = paired_ratio((1.3 * a).tolist(), b.tolist())
        inside.append(ratio.low <= 1.3 <= ratio.high)
    assert 0.935 <= np.mean(inside) <= 0.965


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_equals_are_told_apart_by_a_range_in_one_of_twenty(n: int) -> None:
    rng = np.random.default_rng(n)
    ratios = np.exp(0.1 * rng.standard_normal((12000, n)))
    told = [verdict(centre(r)) == "difference" for r in ratios.tolist()]
    assert 0.044 <= np.mean(told) <= 0.056


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5))
def test_few_processes_have_a_range(values: list[float]) -> None:
    estimate = centre(values)
    assert (estimate.low, estimate.high) == (min(values), max(values))
    assert (estimate.method, estimate.n) == ("range", len(values))
    assert estimate.low <= estimate.value <= estimate.high


def test_one_process_has_neither() -> None:
    assert centre([0.1]) == Estimate(0.1, 0.1, 0.1, 1, "single")


@given(st.floats(1e-6, 1e12), st.integers(1, 20))
def test_equal_values_give_back_themselves(value: float, n: int) -> None:
    estimate = centre([value] * n)
    assert (estimate.low, estimate.value, estimate.high) == (value, value, value)


@given(many, st.floats(1e-3, 1e3))
def test_the_inverse_of_times_is_the_estimate_of_the_speeds(values: list[float], count: float) -> None:
    speeds = centre([count / v for v in values])
    derived = centre(values).inverse(count)
    assert (derived.low, derived.value, derived.high) == pytest.approx(
        (speeds.low, speeds.value, speeds.high)
    )
    assert centre(values).times(count).high == pytest.approx(centre([count * v for v in values]).high)


@given(figures)
def test_a_ratio_and_its_inverse_say_the_same(a: list[float]) -> None:
    b = [value * (1 + (i % 3) / 7) for i, value in enumerate(a)]
    ratio, inverse = paired_ratio(a, b), paired_ratio(b, a)
    assert (inverse.low, inverse.high) == pytest.approx((1 / ratio.high, 1 / ratio.low))
    assert verdict(ratio) == verdict(inverse)


def test_pairs_are_found_by_number() -> None:
    a = {0: 2.0, 2: 8.0, 5: 3.0}
    b = {2: 4.0, 0: 1.0, 3: 100.0}
    assert paired_ratio(a, b) == Estimate(2.0, 2.0, 2.0, 2, "range")


def test_sides_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio({0: 1.0}, [1.0])
    with pytest.raises(ValueError, match="at least one"):
        paired_ratio({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_positive_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        centre([1.0, bad])
    with pytest.raises(ValueError, match="positive"):
        paired_ratio([1.0], [bad])
    with pytest.raises(ValueError, match="at least one"):
        centre([])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.99, 1.01, "no difference"),
        (1.005, 1.015, "no difference"),
        (1 / 1.02, 1.02, "no difference"),
        (0.97, 1.01, "not distinguishable"),
        (0.99, 1.03, "not distinguishable"),
        (1.01, 1.03, "difference"),
        (0.5, 0.9, "difference"),
        (1.0, 1.5, "not distinguishable"),
    ],
)
def test_verdict_of_an_interval(low: float, high: float, expected: str) -> None:
    assert verdict(Estimate(math.sqrt(low * high), low, high, 6, "t on log")) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_differences_of_any_sign_have_a_mean_and_a_range(values: list[float]) -> None:
    found = centre_of_differences(values)
    assert found.value == pytest.approx(float(np.mean(values)), rel=1e-9, abs=1e-9)
    assert (found.low, found.high, found.n) == (min(values), max(values), len(values))
    assert found.low <= found.value <= found.high
    assert found.method == ("range" if len(values) > 1 else "single")


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_differences_that_are_no_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        centre_of_differences(values)


def test_verdict_of_too_little() -> None:
    assert verdict(centre([1.0] * 5)) == "not distinguishable"
    assert verdict(centre([3.0])) == "not distinguishable"
    assert verdict(centre([3.0, 3.1, 3.2])) == "difference"
    assert verdict(centre([3.0, 1.1, 1.0])) == "not distinguishable"


def test_a_wider_margin_forgives_more() -> None:
    ratio = Estimate(1.0, 0.96, 1.04, 6, "t on log")
    assert (verdict(ratio), verdict(ratio, margin=0.05)) == ("not distinguishable", "no difference")


def test_scipy_stats_is_not_imported() -> None:
    code = "import sys; from mambabench.stats.replicates import centre; centre([1.0, 2.0] * 3);"
    done = subprocess.run(
        [sys.executable, "-c", code + "print('scipy.stats' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
