"""Means of several differences: against Welch's test, and what must not make them look certain."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mambabench.stats.combined import average_effect, ends_of, equivalence_from
from mambabench.stats.effect import Effect
from mambabench.stats.paired_binary import binary_effect
from mambabench.stats.paired_mean import mean_effect, mean_equivalence
from mambabench.stats.unpaired import unpaired_errors

NOTHING = Effect(0.2, -math.inf, math.inf, "t", "paired t", 1.0, math.nan, 1, determined=False)


def of_items(n: int, spread: float, seed: int) -> tuple[np.ndarray, Effect]:
    values = np.random.default_rng(seed).normal(0.3, spread, n)
    return values, mean_effect(values, np.zeros(n))


def test_two_tasks_agree_with_welch() -> None:
    from scipy import stats

    one, first = of_items(20, 1.0, 1)
    other, second = of_items(35, 3.0, 2)
    # The sum of two means is the difference of one and the other's negative.
    theirs = stats.ttest_ind(one, -other, equal_var=False)
    ours = average_effect([first, second])
    interval = theirs.confidence_interval(0.95)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.degrees_of_freedom == pytest.approx(theirs.df, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((interval.low / 2, interval.high / 2), rel=1e-9)
    assert (ours.n, ours.n_clusters, ours.determined) == (55, None, True)


def test_one_task_is_itself() -> None:
    _, effect = of_items(40, 1.0, 3)
    ours = average_effect([effect])
    for name in ("difference", "low", "high", "p_value", "standard_error"):
        assert getattr(ours, name) == pytest.approx(getattr(effect, name), rel=1e-9)


def test_clusters_count_as_degrees_of_freedom() -> None:
    values = np.random.default_rng(0).standard_normal(60)
    few = mean_effect(values, np.zeros(60), clusters=np.arange(60) % 4)
    ours = average_effect([few, few])
    assert ours.degrees_of_freedom == pytest.approx(6.0)
    assert (ours.n, ours.n_clusters) == (120, 8)
    _, items = of_items(30, 1.0, 1)
    assert average_effect([few, items]).n_clusters == 34


def test_a_task_without_discordant_pairs_is_not_certain() -> None:
    rng = np.random.default_rng(0)
    same = binary_effect(np.ones(50), np.ones(50))
    noisy = binary_effect(rng.random(50) < 0.5, rng.random(50) < 0.5)
    ours = average_effect([same, same])
    half = (same.high - same.low) / 2
    assert half > 0
    assert (ours.p_value, ours.high) == (1.0, pytest.approx(half / math.sqrt(2), rel=0.05))
    alone = average_effect([noisy])
    assert average_effect([same, noisy]).standard_error > alone.standard_error / 2
    assert equivalence_from(ours, 0.001) > 0.4


@pytest.mark.parametrize("undetermined", [NOTHING, unpaired_errors(1.0, 0.0, 0.5, 0.0)])
def test_an_undetermined_task_leaves_the_mean_undetermined(undetermined: Effect) -> None:
    _, effect = of_items(40, 1.0, 3)
    ours = average_effect([effect, undetermined])
    assert (ours.p_value, ours.determined) == (1.0, False)
    assert (ours.low, ours.high) == (-math.inf, math.inf)
    assert ours.difference == pytest.approx((effect.difference + undetermined.difference) / 2)
    assert equivalence_from(ours, 5.0) == 1.0


def test_an_error_of_0_without_an_interval_is_unknown() -> None:
    effect = Effect(0.0, 0.0, 0.0, "wald", "none", 1.0, 0.0, 100)
    assert not average_effect([effect, effect]).determined
    assert equivalence_from(effect, 1.0) == 1.0


def test_coverage_of_unlike_tasks() -> None:
    rng, covered = np.random.default_rng(4), 0
    clusters = np.arange(25) // 5
    for _ in range(1200):
        clustered = rng.standard_normal(25) + rng.standard_normal(5)[clusters]
        effects = [
            mean_effect(clustered, np.zeros(25), clusters=clusters),
            mean_effect(rng.standard_normal(12), np.zeros(12)),
            mean_effect(rng.standard_t(3, 100), np.zeros(100)),
        ]
        whole = average_effect(effects)
        covered += whole.low <= 0 <= whole.high
    # 94.7% by a simulation of 20,000; this one's standard error is 0.6%.
    assert 0.93 <= covered / 1200 <= 0.965


def test_equivalence_of_an_effect_is_that_of_its_items() -> None:
    values, effect = of_items(40, 1.0, 3)
    for margin in (0.5, 1.0, (-0.2, 0.9)):
        expected = mean_equivalence(values, np.zeros(40), margin)
        assert equivalence_from(effect, margin) == pytest.approx(expected, rel=1e-9)
    normal = unpaired_errors(1.0, 0.3, 0.8, 0.4)
    # Normal tails beyond (0.8 - 0.2) / 0.5 and (0.8 + 0.2) / 0.5.
    assert equivalence_from(normal, 0.8) == pytest.approx(math.erfc(1.2 / math.sqrt(2)) / 2, rel=1e-9)


def test_a_wider_interval_than_the_error_counts() -> None:
    _, effect = of_items(40, 1.0, 3)
    wider = replace(effect, low=effect.low - 1, high=effect.high + 1)
    assert average_effect([wider]).standard_error > 2 * effect.standard_error


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        average_effect([])
    for margin in (0.0, -1.0, (0.1, 0.2), (-0.2, 0.0), math.nan):
        with pytest.raises(ValueError, match="margin"):
            ends_of(margin)
    assert ends_of((-math.inf, 0.5)) == (-math.inf, 0.5)
