"""Luck of picking the best, against the truth of simulations and other computations of the same."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.stats.selection import contenders, expected_maximum, lucky_pick, resample


def errors_drawn(k: int, n: int, shared: float, rng: np.random.Generator) -> Any:
    """Draw [k, n] of variance 1 of which a share is common to all k."""
    common = rng.normal(size=n)
    return math.sqrt(shared) * common + math.sqrt(1 - shared) * rng.normal(size=(k, n))


class TestExpectedMaximum:
    @pytest.mark.parametrize(
        ("k", "expected"),
        # Of two 1 / sqrt(pi), of three 3 / (2 sqrt(pi)); the others from tables of normal order statistics.
        [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)), (5, 1.16296), (10, 1.53875)],
    )
    def test_known_values(self, k: int, expected: float) -> None:
        assert expected_maximum([1.0] * k) == pytest.approx(expected, abs=1e-4)

    @settings(max_examples=20)
    @given(st.floats(0.01, 10), st.floats(0.01, 10))
    def test_of_two_by_their_formula(self, a: float, b: float) -> None:
        expected = math.hypot(a, b) / math.sqrt(2 * math.pi)
        assert expected_maximum([a, b]) == pytest.approx(expected, rel=1e-3)

    def test_of_unequal_ones_by_simulation(self) -> None:
        errors = np.array([0.2, 0.0, 1.0, 3.0, 0.7])
        drawn: Any = np.random.default_rng(0).normal(size=(400_000, 5)) * errors
        assert expected_maximum(errors) == pytest.approx(drawn.max(axis=1).mean(), abs=0.01)

    @settings(max_examples=20)
    @given(st.lists(st.floats(0, 5), min_size=1, max_size=6), st.floats(0.1, 100))
    def test_grows_with_the_unit_and_with_company(self, errors: list[float], factor: float) -> None:
        one = expected_maximum(errors)
        scaled = expected_maximum([factor * e for e in errors])
        assert scaled == pytest.approx(factor * one, rel=1e-6, abs=1e-12)
        assert expected_maximum([*errors, 1.0]) >= one - 1e-9

    @pytest.mark.parametrize("errors", [[], [-1.0], [math.nan], [math.inf, 1.0], [[1.0]]])
    def test_impossible_errors_are_refused(self, errors: Any) -> None:
        with pytest.raises(ValueError, match="standard errors"):
            expected_maximum(errors)


class TestResample:
    def test_each_resample_and_its_rest_make_all_there_is(self) -> None:
        """With values of 1, 10 and 100, means say which items were drawn."""
        found = resample([[1.0, 10.0, 100.0]], replicates=300, seed=1)
        possible: dict[float, float] = {}
        for draw in itertools.product([1.0, 10.0, 100.0], repeat=3):
            rest = [v for v in (1.0, 10.0, 100.0) if v not in draw]
            possible[round(float(np.mean(draw)), 6)] = float(np.mean(rest)) if rest else math.nan
        for drawn, left_out in zip(found.drawn[:, 0], found.left_out[:, 0], strict=True):
            assert possible[round(float(drawn), 6)] == pytest.approx(float(left_out), nan_ok=True)
        assert np.isnan(found.left_out).mean() == pytest.approx(6 / 27, abs=0.08)

    def test_means_and_errors_are_those_of_the_bootstrap(self) -> None:
        values = np.random.default_rng(2).normal(size=(2, 60))
        found: Any = resample(values, replicates=4000, seed=3)
        assert found.drawn.mean(axis=0) == pytest.approx(values.mean(axis=1), abs=0.01)
        assert found.drawn.std(axis=0) == pytest.approx(values.std(axis=1) / math.sqrt(60), rel=0.05)
        # The same draws for all.
        correlations: list[Any] = [np.corrcoef(values), np.corrcoef(found.drawn.T)]
        expected = correlations[0][0, 1]
        assert correlations[1][0, 1] == pytest.approx(expected, abs=0.05)

    def test_weights_are_those_of_a_ratio(self) -> None:
        rng = np.random.default_rng(4)
        weights = rng.integers(1, 9, 30).astype(float)
        found = resample([3 * weights, -weights], weights, replicates=20)
        assert np.allclose(found.drawn, [3, -1])
        assert np.allclose(found.left_out, [3, -1])

    def test_clusters_are_drawn_whole(self) -> None:
        clusters = np.repeat([0, 1, 2], [1, 2, 3])
        # All of a cluster is 1 and nothing else.
        values = [(clusters == place).astype(float) for place in range(3)]
        found = resample(values, clusters=clusters, replicates=200, seed=5)
        sizes = np.array([1, 2, 3])
        shares = found.drawn / sizes
        # Shares over sizes are counts over a total: whole numbers up to 3 over their weighted sum.
        counts = shares / shares.sum(axis=1, keepdims=True) * 3
        assert np.allclose(counts, counts.round())

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(6).normal(size=(3, 40))
        whole = resample(values, replicates=50, seed=7)
        monkeypatch.setattr("mambabench.stats.selection._CHUNK", 40 * 7)
        in_parts = resample(values, replicates=50, seed=7)
        assert np.allclose(whole.drawn, in_parts.drawn)
        assert np.allclose(whole.left_out, in_parts.left_out, equal_nan=True)

    @pytest.mark.parametrize(
        ("values", "options"),
        [
            ([1.0, 2.0], {}),
            ([[]], {}),
            ([[1.0]], {}),
            ([[1.0, math.nan]], {}),
            ([[1.0, 2.0]], {"replicates": 0}),
            ([[1.0, 2.0]], {"weights": [1.0, 0.0]}),
            ([[1.0, 2.0]], {"weights": [1.0]}),
            ([[1.0, 2.0]], {"clusters": [1]}),
            ([[1.0, 2.0]], {"clusters": [1, 1]}),
        ],
    )
    def test_what_cannot_be_resampled_is_refused(self, values: Any, options: Any) -> None:
        with pytest.raises(ValueError, match=r".+"):
            resample(values, **options)


class TestLuckyPick:
    @pytest.mark.parametrize(("shared", "n"), [(0.0, 60), (0.9, 60)])
    def test_among_equals_the_estimate_is_the_true_luck(self, shared: float, n: int) -> None:
        rng = np.random.default_rng(8)
        true, estimated = [], []
        for seed in range(200):
            values = errors_drawn(8, n, shared, rng)
            pick = lucky_pick(values.mean(axis=1), [resample(values, replicates=100, seed=seed)])
            true.append(pick.value)
            estimated.append(pick.luck)
        noise = np.std(np.subtract(true, estimated)) / math.sqrt(200)
        assert np.mean(estimated) == pytest.approx(np.mean(true), abs=float(3 * noise))
        assert np.mean(true) > 5 * noise

    def test_a_clear_winner_has_no_luck(self) -> None:
        values = errors_drawn(5, 100, 0.5, np.random.default_rng(9)) + np.arange(5)[:, None]
        pick = lucky_pick(values.mean(axis=1), [resample(values, replicates=1000)])
        assert (pick.best, pick.shares[4]) == (4, 1.0)
        assert pick.luck == pytest.approx(0, abs=0.02)

    def test_equals_share_the_first_place(self) -> None:
        column = np.random.default_rng(10).integers(0, 2, 50).astype(float)
        pick = lucky_pick([column.mean()] * 3, [resample([column] * 3, replicates=200)])
        assert (pick.best, pick.shares) == (0, (1.0, 0.0, 0.0))

    def test_several_tasks_count_the_same(self) -> None:
        rng = np.random.default_rng(11)
        tasks = [rng.normal(size=(2, 30)), rng.normal(size=(2, 300))]
        drawn = [resample(t, replicates=50, seed=i) for i, t in enumerate(tasks)]
        means = np.mean([t.mean(axis=1) for t in tasks], axis=0)
        pick = lucky_pick(means, drawn)
        bag = (drawn[0].drawn + drawn[1].drawn) / 2
        rest = (drawn[0].left_out + drawn[1].left_out) / 2
        expected = np.mean([rest[i, bag[i].argmax()] for i in range(50)])
        assert pick.expected == pytest.approx(expected)
        assert pick.luck == pytest.approx(means.max() - expected)

    def test_other_numbers_of_figures_are_refused(self) -> None:
        drawn = resample([[1.0, 2.0]] * 3, replicates=2)
        with pytest.raises(ValueError, match="resamples of others"):
            lucky_pick([1.0, 2.0], [drawn])
        with pytest.raises(ValueError, match="expected figures"):
            lucky_pick([1.0], [])


class TestContenders:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.001, 0.2))
    def test_out_is_who_is_worse_by_bonferroni(self, p_values: list[float], alpha: float) -> None:
        found = contenders([None, *p_values], alpha=alpha)
        assert found[0]
        assert list(found[1:]) == [p / 2 > alpha / len(p_values) for p in p_values]

    def test_nothing_tested_leaves_all_in(self) -> None:
        assert contenders([None]) == (True,)
        assert contenders([None, math.nan, None]) == (True,) * 3

    @pytest.mark.parametrize("shared", [0.0, 0.8])
    def test_the_truly_best_is_in(self, shared: float) -> None:
        """However many are looked at, and whichever comes out best: in at least 95% of the cases."""
        from scipy.special import stdtr

        rng, n, k = np.random.default_rng(12), 80, 10
        missed = 0
        for _ in range(400):
            # The first is truly the best by a hair; that another one comes out best is the rule.
            values = errors_drawn(k, n, shared, rng)
            values[0] += 0.001
            means = values.mean(axis=1)
            best = int(means.argmax())
            p_values: list[float | None] = []
            for place in range(k):
                difference = values[place] - values[best]
                t = 0.0 if place == best else difference.mean() / (difference.std(ddof=1) / math.sqrt(n))
                p_values.append(None if place == best else 2 * float(stdtr(n - 1, -abs(t))))
            missed += not contenders(p_values)[0]
        # One in a thousand would see more than 34 of 400 if it were 5%.
        assert missed <= 34
