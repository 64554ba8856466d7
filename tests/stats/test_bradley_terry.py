"""Strengths held against a maximum-likelihood fit by scipy, settled orders against exact tests."""

from __future__ import annotations

import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import comb

from mambabench.errors import ExtraMissingError
from mambabench.stats.ranking import MIN_CLUSTERS, bradley_terry, groups_of, order_p_values

Floats = NDArray[np.float64]


def drawn(n: int, chances: list[float], *, seed: int = 0, shared: float = 0.7) -> Floats:
    """Right and wrong answers of sides to items that are hard for all or easy for all."""
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    skill = np.sqrt(shared) * rng.normal(size=(n, 1)) + np.sqrt(1 - shared) * rng.normal(
        size=(n, len(chances))
    )
    return np.asarray(skill < ndtri(np.array(chances)), np.float64)


def likeliest(scores: Floats, weights: Floats) -> Floats:
    """Fit the chances against an average side by minimising the negative log-likelihood, game by game."""
    k = scores.shape[1]
    shares = {
        (i, j): float(weights @ (0.5 + (scores[:, i] - scores[:, j]) / 2))
        for i, j in combinations(range(k), 2)
    }
    total = float(weights.sum())

    def negative(free: Floats) -> float:
        logs = np.append(free, -free.sum())
        return sum(
            won * np.log1p(np.exp(logs[j] - logs[i])) + (total - won) * np.log1p(np.exp(logs[i] - logs[j]))
            for (i, j), won in shares.items()
        )

    found = minimize(negative, np.zeros(k - 1), method="BFGS", options={"gtol": 1e-9})
    return np.asarray(1 / (1 + np.exp(-np.append(found.x, -found.x.sum()))))


class TestStrengths:
    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_are_those_of_another_fit(self, k: int) -> None:
        scores = drawn(120, [0.2 + 0.6 * i / k for i in range(k)], seed=k)
        found = bradley_terry(scores, replicates=3)
        assert found.strengths == pytest.approx(likeliest(scores, np.ones(120)), abs=1e-6)

    def test_count_every_stratum_the_same(self) -> None:
        scores = np.vstack([drawn(200, [0.3, 0.6, 0.5], seed=1), drawn(20, [0.7, 0.4, 0.5], seed=2)])
        strata = np.repeat([4, 9], [200, 20])
        found = bradley_terry(scores, strata=strata, replicates=3)
        weights = np.where(strata == 4, 1 / 200, 1 / 20)
        assert found.strengths == pytest.approx(likeliest(scores, weights), abs=1e-6)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=12))
    def test_stand_in_the_order_of_the_accuracies(self, items: list[tuple[int, ...]]) -> None:
        scores = np.array(items, float)
        found = bradley_terry(scores, replicates=2)
        right = scores.sum(axis=0)
        for i, j in combinations(range(3), 2):
            if right[i] == right[j]:
                assert found.strengths[i] == pytest.approx(found.strengths[j], abs=1e-6)
            else:
                assert (found.strengths[i] > found.strengths[j]) == (right[i] > right[j])
        assert found.n_decisive == sum(len(set(item)) > 1 for item in items)

    def test_reach_their_limit_where_sides_are_separated(self) -> None:
        found = bradley_terry([[1, 0, 1]] * 9, replicates=50)
        assert found.strengths == (1.0, 0.0, 1.0)
        assert found.low[0] < 1
        assert found.high[1] > 0

    def test_are_finite_where_a_side_in_between_ties(self) -> None:
        scores = np.array([[1, 0, 0], [1, 1, 0]] * 5, float)
        found = bradley_terry(scores, replicates=3)
        assert found.strengths == pytest.approx(likeliest(scores, np.ones(10)), abs=1e-6)
        assert found.strengths[1] == pytest.approx(0.5, abs=1e-6)
        assert 0.5 < found.strengths[0] < 1

    def test_of_nearly_separated_sides_converge(self) -> None:
        scores = np.array([[1, 1, 0, 0]] * 5000 + [[1, 1, 1, 1]], float)
        found = bradley_terry(scores, replicates=1)
        # Each of the first two wins 5000.5 of 5001 games with each of the others.
        logs = np.log(5000.5 / 0.5) / 2
        assert found.strengths == pytest.approx(
            [1 / (1 + np.exp(-s * logs)) for s in (1, 1, -1, -1)], abs=1e-7
        )


class TestIntervals:
    def test_hold_the_true_strengths(self) -> None:
        chances = [0.4, 0.5, 0.55]
        truth = bradley_terry(drawn(200_000, chances, seed=99), replicates=1).strengths
        held = []
        for seed in range(50):
            found = bradley_terry(drawn(100, chances, seed=seed), replicates=80, seed=seed)
            held += [lo <= t <= hi for lo, t, hi in zip(found.low, truth, found.high, strict=True)]
        assert np.mean(held) == pytest.approx(0.94, abs=0.06)

    def test_have_a_width_where_nothing_differs(self) -> None:
        found = bradley_terry([[1, 1], [0, 0]] * 100, replicates=200)
        assert found.strengths == (0.5, 0.5)
        assert found.low[0] < 0.5 < found.high[0] < 0.53

    def test_are_wider_where_items_hang_together(self) -> None:
        once = drawn(40, [0.4, 0.6], seed=5)
        scores = np.repeat(once, 10, axis=0)
        clusters = np.repeat(np.arange(40), 10)
        alone, single = bradley_terry(scores, replicates=300), bradley_terry(once, replicates=300)
        together = bradley_terry(scores, clusters=clusters, replicates=300)
        width = together.high[0] - together.low[0]
        assert width > 2 * (alone.high[0] - alone.low[0])
        # Ten copies of an item say as much as the item.
        assert width == pytest.approx(single.high[0] - single.low[0], rel=0.2)
        assert together.strengths == pytest.approx(alone.strengths)

    def test_are_refused_for_few_clusters(self) -> None:
        scores = drawn(60, [0.4, 0.6])
        few = bradley_terry(scores, clusters=np.arange(60) % (MIN_CLUSTERS - 1), replicates=20)
        assert (few.low, few.high) == ((0.0, 0.0), (1.0, 1.0))
        assert bradley_terry(scores, clusters=np.arange(60) % MIN_CLUSTERS, replicates=20).low[0] > 0

    def test_do_not_depend_on_the_order_of_the_items(self) -> None:
        scores = drawn(50, [0.4, 0.6, 0.5])
        assert bradley_terry(scores, replicates=30) == bradley_terry(scores[::-1], replicates=30)
        assert bradley_terry(scores, replicates=30) != bradley_terry(scores, replicates=30, seed=1)


class TestSettled:
    @pytest.mark.parametrize(("n_won", "n_lost"), [(1, 0), (5, 0), (6, 0), (9, 2), (3, 3)])
    def test_of_two_sides_is_the_sign_test(self, n_won: int, n_lost: int) -> None:
        scores = [[1, 0]] * n_won + [[0, 1]] * n_lost + [[1, 1]] * 7
        found = order_p_values(scores, replicates=4000)
        n, least = n_won + n_lost, min(n_won, n_lost)
        exact = min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n)
        assert found[0, 1] == pytest.approx(exact, abs=0.02)

    def test_clusters_flip_together(self) -> None:
        scores = [[1, 0]] * 60
        found = order_p_values(scores, clusters=[i // 15 for i in range(60)], replicates=4000)
        assert found[0, 1] == pytest.approx(2 / 2**4, abs=0.02)

    def test_alike_sides_are_rarely_told_apart(self) -> None:
        """All pairs together, with few items and many ties; a fourth side is far off."""
        wrong = 0
        for seed in range(400):
            found = order_p_values(drawn(25, [0.6, 0.6, 0.6, 0.2], seed=seed), replicates=200, seed=seed)
            wrong += any(found[pair] <= 0.05 for pair in combinations(range(3), 2))
        # Three standard errors above 5%.
        assert wrong / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)

    def test_clear_orders_are_settled(self) -> None:
        found = bradley_terry(drawn(400, [0.3, 0.5, 0.7]), replicates=200)
        assert found.groups == ((3,), (2,), (1,))

    @settings(max_examples=60, deadline=None)
    @given(st.data(), st.integers(2, 7))
    def test_sides_share_a_group_exactly_where_their_order_is_open(self, data: Any, k: int) -> None:
        pairs = list(combinations(range(k), 2))
        settled = {pair for pair in pairs if data.draw(st.booleans())}
        order = data.draw(st.permutations(range(k)))
        groups = groups_of(list(order), settled)
        for pair in pairs:
            assert (not set(groups[pair[0]]) & set(groups[pair[1]])) == (pair in settled)
        numbers = {number for mine in groups for number in mine}
        assert numbers == set(range(1, len(numbers) + 1))
        assert 1 in groups[order[0]]
        members = {number: {a for a in range(k) if number in groups[a]} for number in numbers}
        assert not any(one < other for one in members.values() for other in members.values())

    def test_a_side_in_between_can_be_in_two_groups(self) -> None:
        assert groups_of([2, 0, 1], {(1, 2)}) == ((1, 2), (2,), (1,))


class TestInput:
    @pytest.mark.parametrize(
        "scores", [[], [[1.0], [0.0]], [[0.5, 1.0]], [[1.0, float("nan")]], [1.0, 0.0]], ids=str
    )
    def test_what_is_no_table_of_right_and_wrong_is_refused(self, scores: Any) -> None:
        with pytest.raises(ValueError):
            bradley_terry(scores)

    def test_labels_of_another_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="2 labels"):
            bradley_terry([[1, 0], [0, 1]], clusters=[1])

    def test_without_evalica_the_way_out_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "evalica", None)
        with pytest.raises(ExtraMissingError, match="evalica") as raised:
            bradley_terry([[1, 0], [0, 1]])
        assert "pip install 'mambabench[ranking]'" in raised.value.hint
