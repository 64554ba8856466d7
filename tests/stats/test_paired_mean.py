"""Paired means, clusters and ratios against scipy, statsmodels and loops; levels and coverage simulated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.stats.bootstrap import N_FOR_BOOTSTRAP
from mambabench.stats.paired_binary import mcnemar_exact
from mambabench.stats.paired_mean import mean_effect, mean_equivalence, ratio_effect, ratio_equivalence
from mambabench.stats.totals import MOST_FLIPPED, Totals

RNG = np.random.default_rng(5)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.1, 1, n), rng.normal(0, 1, n)


# --- items


@pytest.mark.parametrize("n", [17, 60, 400])
def test_items_agree_with_scipy(n: int) -> None:
    from scipy import stats

    candidate, baseline = drawn(n)
    theirs = stats.ttest_rel(candidate, baseline)
    interval = theirs.confidence_interval(0.95)
    ours = mean_effect(candidate, baseline)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert ours.standard_error == pytest.approx(stats.sem(candidate - baseline), rel=1e-9)
    assert (ours.test, ours.interval_method, ours.n, ours.n_clusters) == ("paired t", "t", n, None)
    assert ours.degrees_of_freedom == n - 1


def test_many_items_have_the_bootstrap_and_scipy_s_test() -> None:
    from scipy import stats

    candidate, baseline = drawn(N_FOR_BOOTSTRAP)
    ours = mean_effect(candidate, baseline, replicates=2000, seed=4)
    assert ours.interval_method == "BCa"
    assert ours.p_value == pytest.approx(stats.ttest_rel(candidate, baseline).pvalue, rel=1e-9)
    assert ours == mean_effect(candidate, baseline, replicates=2000, seed=4)
    assert ours != mean_effect(candidate, baseline, replicates=2000, seed=5)
    assert mean_effect(candidate[1:], baseline[1:]).interval_method == "t"


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_few_differences_are_tested_by_all_their_signs(differences: list[int]) -> None:
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    share = sum(s >= abs(sum(differences)) for s in sums) / len(sums)
    assert Totals.of(np.array(differences) * 0.1).flips() == pytest.approx(share, rel=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_flips_of_binary_values_are_mcnemar(won: int, lost: int) -> None:
    differences = [1.0] * won + [-1.0] * lost + [0.0] * 3
    assert Totals.of(differences).flips() == pytest.approx(mcnemar_exact(won, lost), rel=1e-9)


def test_flips_end_where_there_are_many() -> None:
    few = np.arange(1.0, MOST_FLIPPED + 1)
    assert Totals.of(few).flips() == 2.0 ** (1 - MOST_FLIPPED)
    assert Totals.of(np.arange(1.0, 41)).flips() == 2.0**-39
    assert Totals.of([*few, -1.0]).flips() is None


def test_an_interval_keeps_0_in_if_the_test_does() -> None:
    # 5 to 0: the test's p is 0.0625, while Student's would be 0.025.
    effect = mean_effect([0.5] * 5 + [0.0] * 95, np.zeros(100))
    assert (effect.test, effect.p_value, effect.low) == ("exact sign flips", 0.0625, 0.0)
    assert effect.high > 0.04


def test_nothing_but_zeros() -> None:
    effect = mean_effect([3.0, 4.0, 5.0], [3.0, 4.0, 5.0])
    assert (effect.difference, effect.p_value, effect.determined) == (0.0, 1.0, False)
    assert (effect.low, effect.high) == (-math.inf, math.inf)
    assert math.isnan(effect.standard_error)
    assert mean_equivalence([3.0, 4.0], [3.0, 4.0], 1.0) == 1.0


def test_rounding_is_no_difference() -> None:
    values = RNG.random(50)
    moved = (values + 0.3) - 0.3
    assert (moved != values).any()
    assert not mean_effect(moved, values).determined
    assert mean_effect(moved, values).p_value == 1.0
    # All moved by as much, but for rounding: so large a t-value would mean nothing.
    shifted = mean_effect(values + 0.1, values)
    assert (shifted.determined, shifted.p_value) == (False, 2.0**-49)


def test_bounds_limit_what_equal_differences_hide() -> None:
    n = 100
    effect = mean_effect([1] * n, [1] * n)
    share = 1 - 0.025 ** (1 / n)
    assert effect.determined
    assert (effect.low, effect.high) == pytest.approx((-share, share), rel=1e-12)
    # The chance that none of n items shows a difference which the mean says is there.
    assert mean_equivalence([1] * n, [1] * n, 0.05) == pytest.approx(0.95**n, rel=1e-12)
    graded = mean_effect([0.5] * n, [0.25] * n, bounds=(0.0, 1.0))
    assert graded.low == pytest.approx(0.25 - 1.25 * share, rel=1e-12)
    assert graded.high == pytest.approx(0.25 + 0.75 * share, rel=1e-12)
    # A cluster that is half of all counts for half of the mean.
    halves = mean_effect([1] * n, [1] * n, clusters=[0] * 50 + list(range(1, 51)))
    assert halves.high == pytest.approx(1 - 0.025**0.5, rel=1e-12)


def test_one_and_two_items() -> None:
    one = mean_effect([2.0], [1.5])
    assert (one.difference, one.p_value, one.determined) == (0.5, 1.0, False)
    two = mean_effect([2.0, 3.0], [1.0, 1.0])
    assert (two.p_value, two.determined, two.degrees_of_freedom) == (0.5, True, 1.0)
    # Student's quantile on one degree of freedom.
    assert two.high == pytest.approx(1.5 + 12.7062047361747 * 0.5, rel=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_determine_nothing(bad: float) -> None:
    effect = mean_effect([1.0, bad, *range(30)], [0.0] * 32)
    assert (effect.p_value, effect.determined, effect.interval_method) == (1.0, False, "t")
    assert mean_equivalence([1.0, bad, 2.0], [0.0, bad, 0.0], 9.0) == 1.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=30), st.integers(1, 5))
def test_any_finite_values_give_a_p_value_and_an_interval_around_it(values: list[float], n: int) -> None:
    clusters = [i % n for i in range(len(values))]
    for effect in (
        mean_effect(values, [0.0] * len(values)),
        mean_effect(values, values[::-1], clusters=clusters),
    ):
        assert 0 <= effect.p_value <= 1
        if effect.determined:
            assert effect.low <= effect.difference <= effect.high
            assert effect.interval_method == "bound" or effect.standard_error > 0


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 60), st.integers(0, 99))
def test_swapped_sides_mirror(n: int, seed: int) -> None:
    candidate, baseline = drawn(n, seed)
    one, other = mean_effect(candidate, baseline), mean_effect(baseline, candidate)
    assert (one.low, one.p_value) == pytest.approx((-other.high, other.p_value), rel=1e-9)


# --- clusters


def test_clusters_agree_with_statsmodels() -> None:
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    clusters = np.arange(240) // 12
    candidate, baseline = drawn(240)
    candidate = candidate + np.random.default_rng(1).normal(0, 1, 20)[clusters]
    differences = candidate - baseline
    fitted = regression.OLS(differences, np.ones(240)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "df_correction": True}, use_t=True
    )
    ours = mean_effect(candidate, baseline, clusters=[f"passage {c}" for c in clusters])
    # Its factor is G / (G - 1) * (n - 1) / (n - k), and k is 1.
    assert ours.standard_error == pytest.approx(fitted.bse[0], rel=1e-9)
    assert ours.p_value == pytest.approx(fitted.pvalues[0], rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(tuple(fitted.conf_int()[0]), rel=1e-9)
    assert (ours.test, ours.n, ours.n_clusters, ours.degrees_of_freedom) == ("clustered t", 240, 20, 19.0)


def test_unequal_clusters_are_more_cautious_than_statsmodels() -> None:
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    clusters = np.repeat(np.arange(18), np.append(np.arange(1, 18), 100))
    candidate, baseline = drawn(len(clusters))
    ours = mean_effect(candidate, baseline, clusters=clusters)
    fitted = regression.OLS(candidate - baseline, np.ones(len(clusters))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True
    )
    assert ours.difference == pytest.approx(fitted.params[0], rel=1e-9)
    assert ours.standard_error > fitted.bse[0]
    assert ours.degrees_of_freedom is not None
    assert ours.degrees_of_freedom < 17


def test_error_of_unequal_clusters_is_that_of_leaving_each_out() -> None:
    clusters = RNG.integers(0, 9, 80)
    values = RNG.standard_normal(80)
    mean = values.mean()
    moves = [values[clusters != g].mean() - mean for g in range(9)]
    by_hand = math.sqrt(8 / 9 * sum(move**2 for move in moves))
    assert Totals.of(values, clusters=clusters).error() == pytest.approx(by_hand, rel=1e-9)


def test_degrees_of_freedom_are_those_of_the_quadratic_form() -> None:
    sizes = np.array([1.0, 3.0, 8.0, 2.0, 40.0, 5.0])
    moved = (np.eye(6) - np.outer(sizes, np.ones(6)) / sizes.sum()) / (sizes.sum() - sizes)[:, None]
    covariance = moved @ np.diag(sizes) @ moved.T
    by_hand = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    assert Totals(sizes, sizes).degrees_of_freedom() == pytest.approx(by_hand, rel=1e-9)
    assert Totals(np.ones(7), np.full(7, 3.0)).degrees_of_freedom() == 6.0


def test_one_cluster_determines_nothing() -> None:
    effect = mean_effect([1.0, 2.0, 4.0], [0.0, 0.0, 0.0], clusters=["a"] * 3)
    assert (effect.p_value, effect.determined, effect.n_clusters) == (1.0, False, 1)


def test_clusters_of_one_item_are_items() -> None:
    candidate, baseline = drawn(40)
    one, other = mean_effect(candidate, baseline), mean_effect(candidate, baseline, clusters=np.arange(40))
    assert (one.low, one.high, one.p_value) == pytest.approx(
        (other.low, other.high, other.p_value), rel=1e-12
    )


@pytest.mark.parametrize("sizes", [[20] * 10, [20] * 9 + [180], [3, 5, 8, 13, 21, 34, 55]])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_clustered_intervals_cover(sizes: list[int], shared: float) -> None:
    rng = np.random.default_rng(11)
    weights = np.array(sizes, float)
    spread = np.sqrt((1 - shared) * weights + shared * weights**2)
    covered = 0
    for _ in range(1500):
        # Totals of clusters, one row each: a mean over items weighs them by their size.
        effect = ratio_effect(rng.standard_normal(len(sizes)) * spread, np.zeros(len(sizes)), weights)
        covered += effect.low <= 0 <= effect.high
    assert covered / 1500 >= 0.935


# --- levels


SPARSE = {
    "signs": lambda rng, n: rng.choice([-1.0, 1.0], n),
    "rare signs": lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.8, 0.1]),
    "ties": lambda rng, n: rng.integers(-2, 3, n) / 4,
    "heavy": lambda rng, n: rng.standard_t(3, n),
}


@pytest.mark.parametrize("n", [4, 8, 16, 30])
@pytest.mark.parametrize("name", SPARSE)
def test_false_positives(n: int, name: str) -> None:
    rng = np.random.default_rng(n)
    found = sum(mean_effect(SPARSE[name](rng, n), np.zeros(n)).p_value < 0.05 for _ in range(1000))
    assert found / 1000 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 1000)


def test_equivalence_at_the_margin_is_found_in_5_of_100_cases() -> None:
    rng, clusters = np.random.default_rng(2), np.arange(120) // 4
    found = 0
    for _ in range(1000):
        common = rng.standard_normal(30)[clusters]
        found += (
            mean_equivalence(
                rng.standard_normal(120) + common + 1.0, np.zeros(120), (-5.0, 1.0), clusters=clusters
            )
            < 0.05
        )
    assert 0.03 <= found / 1000 <= 0.067


def test_equivalence_agrees_with_two_tests_of_scipy() -> None:
    from scipy import stats

    candidate, baseline = drawn(80)
    for margin, (low, high) in ((0.4, (-0.4, 0.4)), ((-0.2, 0.7), (-0.2, 0.7))):
        below = stats.ttest_1samp(candidate - baseline, low, alternative="greater").pvalue
        above = stats.ttest_1samp(candidate - baseline, high, alternative="less").pvalue
        assert mean_equivalence(candidate, baseline, margin) == pytest.approx(max(below, above), rel=1e-9)


# --- ratios


def test_ratio_agrees_with_leaving_each_document_out() -> None:
    weights = np.ceil(RNG.lognormal(5, 1, 40))
    baseline = -3.0 * weights + RNG.standard_normal(40) * np.sqrt(weights)
    candidate = baseline + 0.1 * weights + RNG.standard_normal(40) * np.sqrt(weights)

    def ratio(keep: np.ndarray) -> float:
        total = math.fsum(weights[keep])
        return math.fsum(candidate[keep]) / total - math.fsum(baseline[keep]) / total

    whole = ratio(np.full(40, True))
    moves = [ratio(np.arange(40) != i) - whole for i in range(40)]
    error = math.sqrt(39 / 40 * math.fsum(move**2 for move in moves))
    ours = ratio_effect(candidate, baseline, weights)
    assert ours.difference == pytest.approx(whole, rel=1e-9)
    assert ours.standard_error == pytest.approx(error, rel=1e-9)
    assert ours.test == "paired t of ratios"
    narrow, wide = (ratio_equivalence(candidate, baseline, weights, -w, w) for w in (0.05, 1.0))
    assert narrow > 0.5
    assert wide < 1e-6


def test_equal_weights_are_a_mean() -> None:
    candidate, baseline = drawn(50)
    ratio, mean = ratio_effect(candidate, baseline, [2.0] * 50), mean_effect(candidate / 2, baseline / 2)
    assert (ratio.low, ratio.high, ratio.p_value) == pytest.approx(
        (mean.low, mean.high, mean.p_value), rel=1e-9
    )


# --- mistakes


def test_impossible_input_is_refused() -> None:
    for call, words in (
        (lambda: mean_effect([], []), "at least one"),
        (lambda: mean_effect([1.0], [1.0, 2.0]), "baseline"),
        (lambda: mean_effect([[1.0]], [[1.0]]), "one dimension"),
        (lambda: mean_effect([1.0, 2.0], [1.0, 2.0], clusters=[1]), "clusters"),
        (lambda: mean_effect([1.0, 2.0], [1.0, 2.0], clusters=[1.0, math.nan]), "NaN"),
        (lambda: mean_effect([1.0], [2.0], bounds=(0.0, 1.0)), "within"),
        (lambda: mean_effect([1.0], [2.0], confidence=95.0), "confidence"),
        (lambda: mean_effect([1.0], [2.0], replicates=10), "replicates"),
        (lambda: mean_equivalence([1.0], [2.0], -1.0), "margin"),
        (lambda: mean_equivalence([1.0], [2.0], (0.5, 1.0)), "margin"),
        (lambda: mean_equivalence([1.0], [2.0], math.nan), "margin"),
        (lambda: ratio_effect([1.0], [2.0], [1.0, 2.0]), "weights"),
        (lambda: ratio_effect([1.0, 1.0], [2.0, 2.0], [1.0, -2.0]), "weights"),
        (lambda: ratio_effect([1.0], [2.0], [0.0]), "weights"),
        (lambda: ratio_equivalence([1.0], [2.0], [1.0], 0.1, 0.2), "margin"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
