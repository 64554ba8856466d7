"""The BCa interval against scipy's, its refusals, and its memory."""

from __future__ import annotations

import math
import tracemalloc
import warnings

import numpy as np
import pytest

from mambabench.stats.bootstrap import LEAST_REPLICATES, N_FOR_BOOTSTRAP, bca

RNG = np.random.default_rng(3)
KINDS = {
    "normal": RNG.normal(0.2, 1, 600),
    "skewed": RNG.exponential(1, 600),
    "heavy": RNG.standard_t(3, 600),
    "with zeros": np.where(RNG.random(3000) < 0.3, RNG.normal(1, 1, 3000), 0.0),
}


@pytest.mark.parametrize("name", KINDS)
def test_agrees_with_scipy(name: str) -> None:
    from scipy.stats import bootstrap

    values = KINDS[name]
    theirs = bootstrap(
        (values,), np.mean, n_resamples=4000, method="BCa", batch=500, rng=np.random.default_rng(0)
    ).confidence_interval
    ours = bca(values, replicates=20_000, seed=1)
    # A quantile at 2.5% of 4,000 draws is known to a twentieth of a standard error or so; three times that.
    tolerance = 0.15 * values.std() / math.sqrt(len(values))
    assert ours.low == pytest.approx(theirs.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.high, abs=tolerance)
    assert (ours.method, ours.n) == ("BCa", len(values))


def test_skewness_moves_the_interval() -> None:
    values = KINDS["skewed"]
    interval = bca(values)
    assert interval.high - values.mean() > 1.02 * (values.mean() - interval.low)
    mirrored = bca(-values)
    assert (-mirrored.high, -mirrored.low) == pytest.approx((interval.low, interval.high), abs=2e-3)


def test_ratios_agree_with_resampled_documents() -> None:
    weights = np.ceil(RNG.lognormal(4, 0.5, 700))
    sums = 0.1 * weights + RNG.standard_normal(700) * np.sqrt(weights)
    ours = bca(sums, weights, replicates=4000)
    rng = np.random.default_rng(1)
    places = rng.integers(0, 700, (4000, 700))
    drawn = sums[places].sum(axis=1) / weights[places].sum(axis=1)
    # Nearly symmetric, so that the corrections hardly matter.
    error = float(drawn.std())
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.2 * error)


def test_whole_clusters_are_drawn() -> None:
    clusters = np.arange(1200) // 2
    doubled = np.repeat(RNG.standard_normal(600), 2)
    together, apart = bca(doubled, clusters=clusters), bca(doubled)
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(math.sqrt(2), rel=0.06)
    assert together.n == 600


def test_equal_seeds_give_equal_intervals() -> None:
    values = KINDS["normal"]
    assert bca(values, seed=7) == bca(values, seed=7)
    assert bca(values, seed=7) != bca(values, seed=8)


def test_refused_where_it_does_not_hold() -> None:
    values = RNG.standard_normal(N_FOR_BOOTSTRAP)
    bca(values, replicates=LEAST_REPLICATES)
    one_zero = values.copy()
    one_zero[0] = 0.0
    half = np.append(np.ones(N_FOR_BOOTSTRAP - 1), N_FOR_BOOTSTRAP)
    for refused, weights in (
        (values[1:], None),
        (one_zero, None),
        (values, half),
        (np.append(values, math.nan), None),
        (np.full(N_FOR_BOOTSTRAP, 0.3), None),
    ):
        with pytest.raises(ValueError, match="bootstrap needs"):
            bca(refused, weights)
    with pytest.raises(ValueError, match="replicates"):
        bca(values, replicates=LEAST_REPLICATES - 1)
    with pytest.raises(ValueError, match="confidence"):
        bca(values, confidence=1.0)


def test_it_is_right_to_refuse_heavy_tails_below_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("N_FOR_BOOTSTRAP", "ALIKE_FOR_BOOTSTRAP"):
        monkeypatch.setattr(f"mambabench.stats.bootstrap.{name}", 2)
    rng, covered = np.random.default_rng(0), 0
    for seed in range(600):
        interval = bca(rng.standard_t(3, 60), replicates=LEAST_REPLICATES, seed=seed)
        covered += interval.low <= 0 <= interval.high
    assert covered / 600 < 0.935


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mean"), [("normal", 0.0), ("exponential", 1.0), ("heavy", 0.0)])
def test_coverage_from_the_threshold_on(name: str, mean: float) -> None:
    rng, covered = np.random.default_rng(1), 0
    for seed in range(250):
        values = {
            "normal": lambda: rng.standard_normal(N_FOR_BOOTSTRAP),
            "exponential": lambda: rng.exponential(1, N_FOR_BOOTSTRAP),
            "heavy": lambda: rng.standard_t(3, N_FOR_BOOTSTRAP),
        }[name]()
        interval = bca(values, replicates=LEAST_REPLICATES, seed=seed)
        covered += interval.low <= mean <= interval.high
    # 93.5% less 2.5 standard errors of this simulation.
    assert covered / 250 >= 0.935 - 2.5 * math.sqrt(0.95 * 0.05 / 250)


def test_tens_of_thousands_of_items_take_little_memory() -> None:
    values = RNG.standard_normal(14_042)
    tracemalloc.start()
    try:
        bca(values, replicates=1000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 50e6


def test_extreme_sizes_do_not_overflow() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1e-120, 1e120):
            interval = bca(KINDS["skewed"] * scale, replicates=LEAST_REPLICATES)
            plain = bca(KINDS["skewed"], replicates=LEAST_REPLICATES)
            assert interval.low / scale == pytest.approx(plain.low, rel=1e-9)
