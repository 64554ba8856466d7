"""Ratios over processes: coverage and levels by simulation, scipy's tests, what holds for any figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mambabench.stats.process_ratio import (
    N_FOR_BOOTSTRAP,
    ProcessRatio,
    paired_process_ratio,
    unpaired_ratio,
)
from mambabench.stats.replicates import paired_ratio

positive = st.floats(1e-3, 1e3)
few = st.lists(positive, min_size=1, max_size=5)
some = st.lists(positive, min_size=6, max_size=9)
many = st.lists(positive, min_size=N_FOR_BOOTSTRAP, max_size=14)
SIMULATED = 2000


def noise(rng: np.random.Generator, shape: str, n: int) -> NDArray[np.float64]:
    if shape == "skewed":
        return rng.exponential(size=n) - 1
    normal = rng.standard_normal(n)
    # One process in ten is slower by six standard deviations.
    return normal + 6 * (rng.random(n) < 0.1) - 0.6 if shape == "rarely slow" else normal


def simulated(n: int, m: int, shape: str, *, wider: float = 1.0, factor: float = 1.0) -> list[ProcessRatio]:
    rng = np.random.default_rng([n, m])
    found = []
    for seed in range(SIMULATED):
        a, b = (np.exp(0.03 * noise(rng, shape, size)) for size in (n, m))
        b **= wider
        found.append(unpaired_ratio((factor * a).tolist(), b.tolist(), replicates=399, seed=seed))
    return found


@pytest.mark.parametrize(
    ("n", "m", "shape", "wider", "least", "most"),
    [
        (6, 6, "normal", 1.0, 0.935, 0.975),
        (8, 8, "normal", 3.0, 0.935, 0.975),
        (10, 10, "normal", 1.0, 0.935, 0.975),
        (12, 12, "normal", 3.0, 0.935, 0.975),
        # Processes that are slow in one of ten cases cost width, not coverage, where both sides have them.
        (12, 12, "rarely slow", 1.0, 0.95, 1.0),
        (12, 12, "skewed", 1.0, 0.94, 0.99),
    ],
)
def test_coverage_and_level(n: int, m: int, shape: str, wider: float, least: float, most: float) -> None:
    found = simulated(n, m, shape, wider=wider)
    assert {r.method for r in found} == {"Welch t on log" if n < N_FOR_BOOTSTRAP else "bootstrap t on log"}
    assert least <= np.mean([r.low <= 1.0 <= r.high for r in found]) <= most
    rejected = np.mean([r.p_value is not None and r.p_value < 0.05 for r in found])
    assert 1 - most - 0.01 <= rejected <= 1 - least + 0.01


@pytest.mark.parametrize("n", [6, 12])
def test_unequal_beyond_the_margin_are_called_alike_in_at_most_one_of_twenty(n: int) -> None:
    at_the_edge = simulated(n, n, "normal", factor=1.02)
    assert np.mean([(r.p_equivalence or 0) < 0.05 for r in at_the_edge]) <= 0.065


@given(some, some, st.floats(0.0, 0.1))
@settings(deadline=None, max_examples=60)
def test_few_processes_have_welchs_interval(a: list[float], b: list[float], margin: float) -> None:
    from scipy import stats

    ours = unpaired_ratio(a, b, margin=margin)
    if np.ptp(a) < 1e-6 or np.ptp(b) < 1e-6:
        return
    theirs = stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours.method == "Welch t on log"
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert (math.log(ours.low), math.log(ours.high)) == pytest.approx(
        (interval.low, interval.high), rel=1e-6, abs=1e-9
    )
    # Two one-sided tests of the shifted samples.
    edge = math.log1p(margin)
    sides = [
        stats.ttest_ind(np.log(a) + edge, np.log(b), equal_var=False, alternative="greater").pvalue,
        stats.ttest_ind(np.log(a) - edge, np.log(b), equal_var=False, alternative="less").pvalue,
    ]
    assert ours.p_equivalence == pytest.approx(max(sides), rel=1e-6, abs=1e-12)


@given(many, many)
@settings(deadline=None, max_examples=40)
def test_the_bootstrap_is_the_formula(a: list[float], b: list[float]) -> None:
    if np.ptp(a) < 1e-6 or np.ptp(b) < 1e-6:
        return
    ours = unpaired_ratio(a, b, replicates=500, seed=3)
    x, y = np.log(a), np.log(b)
    error = math.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y))
    rng = np.random.default_rng(3)
    first, second = (rng.integers(0, len(v), (500, len(v))) for v in (x, y))
    sizes = []
    for i, j in zip(first, second, strict=True):
        spread = math.sqrt(x[i].var(ddof=1) / len(x) + y[j].var(ddof=1) / len(y))
        shift = x[i].mean() - x.mean() - (y[j].mean() - y.mean())
        sizes.append(abs(shift) / spread if spread > 1e-12 else math.inf)
    half = sorted(sizes)[math.ceil(0.95 * 501) - 1] * error
    assert ours.method == "bootstrap t on log"
    if math.isfinite(half):
        assert math.log(ours.high / ours.value) == pytest.approx(half, rel=1e-6)
        assert math.log(ours.low / ours.value) == pytest.approx(-half, rel=1e-6)
    assert ours.p_value is not None
    assert 1 / 501 <= ours.p_value <= 1
    # The interval and the test are of one distribution.
    if abs(ours.p_value - 0.05) > 0.005:
        assert (ours.p_value > 0.05) == (ours.low <= 1.0 <= ours.high)


@given(few, st.lists(positive, min_size=1, max_size=12))
def test_fewer_have_the_range_of_all_ratios(a: list[float], b: list[float]) -> None:
    for above, below in ((a, b), (b, a)):
        found = unpaired_ratio(above, below)
        ratios = [x / y for x in above for y in below]
        if found.method != "exact":
            assert found.method == ("single" if len(a) == len(b) == 1 else "range")
            assert (found.p_value, found.p_equivalence) == (None, None)
        assert (found.low, found.high) == (min(ratios), max(ratios))
        assert found.low <= found.value <= found.high


@given(st.one_of(few, some, many), st.one_of(few, some, many))
@settings(deadline=None, max_examples=60)
def test_a_ratio_and_its_inverse_say_the_same(a: list[float], b: list[float]) -> None:
    one, other = unpaired_ratio(a, b), unpaired_ratio(b, a)
    assert (other.value, other.method) == (pytest.approx(1 / one.value), one.method)
    if one.method != "bootstrap t on log":
        assert (other.low, other.high) == pytest.approx((1 / one.high, 1 / one.low), rel=1e-6)
        assert other.p_value == pytest.approx(one.p_value)
        assert other.p_equivalence == pytest.approx(one.p_equivalence, abs=1e-9)


@given(st.integers(1, 2**50), st.integers(1, 2**50), st.integers(2, 12), st.integers(2, 12))
def test_what_does_not_vary_is_exact(a: int, b: int, n: int, m: int) -> None:
    found = unpaired_ratio([float(a)] * n, [float(b)] * m)
    assert found == ProcessRatio(a / b, a / b, a / b, "exact", n, m, None, None)
    paired = paired_process_ratio(dict.fromkeys(range(n), float(a)), dict.fromkeys(range(n), float(b)))
    assert paired == ProcessRatio(a / b, a / b, a / b, "exact", n, n, None, None)


def test_one_process_is_exact_only_where_that_is_known() -> None:
    assert unpaired_ratio([3.0], [2.0]).method == "single"
    assert unpaired_ratio([3.0], [2.0], n_for_exact=1).method == "exact"
    assert paired_process_ratio({0: 3.0}, {0: 2.0}).method == "single"
    assert paired_process_ratio({0: 3.0}, {0: 2.0}, n_for_exact=1).method == "exact"


def test_one_side_that_does_not_vary_is_tested_by_the_other() -> None:
    varied = [1.0, 1.02, 0.99, 1.01, 1.0, 0.98]
    found = unpaired_ratio([2.0] * 6, varied)
    assert found.method == "Welch t on log"
    assert found.high - found.low > 0.01
    assert found.p_value is not None
    assert found.p_value < 1e-6


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_pairs_are_those_of_replicates(pairs: list[tuple[float, float]]) -> None:
    from scipy import stats

    a, b = ({i: pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
    found, known = paired_process_ratio(a | {99: 5.0}, b | {98: 0.1}), paired_ratio(a, b)
    assert found.value == pytest.approx(known.value)
    if found.method == "exact":
        return
    assert (found.low, found.high, found.n_candidate) == (known.low, known.high, len(pairs))
    assert found.method == known.method
    logs = [math.log(x / y) for x, y in pairs]
    if found.method == "t on log" and np.ptp(logs) > 1e-6:
        assert found.p_value == pytest.approx(stats.ttest_1samp(logs, 0).pvalue, rel=1e-6, abs=1e-12)
        edge = math.log(1.02)
        beyond = [
            stats.ttest_1samp(logs, -edge, alternative="greater").pvalue,
            stats.ttest_1samp(logs, edge, alternative="less").pvalue,
        ]
        assert found.p_equivalence == pytest.approx(max(beyond), rel=1e-6, abs=1e-12)


def test_pairs_of_one_ratio_leave_no_doubt() -> None:
    base = {i: 1.0 + i / 8 for i in range(8)}
    same, twice = (paired_process_ratio({i: f * v for i, v in base.items()}, base) for f in (1.0, 2.0))
    assert (same.p_value, same.p_equivalence, same.low, same.high) == (1.0, 0.0, 1.0, 1.0)
    assert (twice.p_value, twice.p_equivalence, twice.value) == (0.0, 1.0, 2.0)


def test_equal_seeds_give_equal_answers() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.exp(0.1 * rng.standard_normal(12)).tolist() for _ in range(2))
    assert unpaired_ratio(a, b, seed=1) == unpaired_ratio(a, b, seed=1)
    assert unpaired_ratio(a, b, seed=1) != unpaired_ratio(a, b, seed=2)


@pytest.mark.parametrize("bad", [[], [1.0, 0.0], [math.nan], [math.inf], [-1.0]])
def test_what_is_no_positive_number_is_refused(bad: list[float]) -> None:
    for sides in ((bad, [1.0]), ([1.0], bad)):
        with pytest.raises(ValueError, match="positive"):
            unpaired_ratio(*sides)
