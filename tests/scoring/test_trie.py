"""The planner against sets of prefixes, all choices of splits tried, and a model that remembers ids."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trie_cases import (
    AMPLE,
    Ids,
    all_costs,
    answers,
    branching,
    comb,
    cost_of,
    live_peak,
    made_of,
    path_of,
    requests,
    trie_nodes,
    wanted_answers,
)

from mambabench.scoring.trie import Costs


@given(requests(), all_costs())
@settings(max_examples=300, deadline=None)
def test_every_read_is_answered_once_from_exactly_what_stands_before_it(
    given_requests: tuple[list[Ids], list[int]], costs: Costs
) -> None:
    ids, n_read = given_requests
    p = made_of(ids, costs, n_read)
    assert answers(p) == wanted_answers(ids, n_read)


@given(requests(), all_costs())
@settings(max_examples=300, deadline=None)
def test_a_plan_is_sound_and_within_its_limits(
    given_requests: tuple[list[Ids], list[int]], costs: Costs
) -> None:
    ids, n_read = given_requests
    p = made_of(ids, costs, n_read)
    assert sorted(p.batch_segments.tolist()) == list(range(p.n_segments))
    assert p.keeps_state.tolist() == [s in set(p.parent.tolist()) for s in range(p.n_segments)]
    for s in range(p.n_segments):
        assert p.parent[s] < s
        assert p.parent[s] < 0 or p.batch_of[p.parent[s]] < p.batch_of[s]
        assert 0 <= p.begin[s] < p.end[s]
    n_tokens = 0
    for i in range(p.n_batches):
        batch = p.batch(i)
        assert len(batch)
        assert (p.batch_of[batch] == i).all()
        assert (np.diff(p.parent[batch]) >= 0).all(), "siblings stand together"
        lengths = (p.end - p.begin)[batch]
        held = int(lengths.max()) * len(batch) if costs.padded else int(lengths.sum())
        assert held <= costs.batch_tokens or len(batch) == 1
        assert costs.batch_rows is None or len(batch) <= costs.batch_rows
        n_tokens += held
    assert p.n_tokens == n_tokens
    assert p.peak_state_bytes == live_peak(p) <= costs.budget_bytes
    assert p.n_tokens_unshared == sum(map(len, ids))
    assert p.n_tokens_minimum == trie_nodes(ids)
    forwarded = int((p.end - p.begin).sum())
    assert trie_nodes(ids) <= forwarded <= p.n_tokens_unshared
    assert p.cost == forwarded + costs.split_tokens * sum(p.parent >= 0)
    assert p.cost <= cost_of(ids, set(), costs.split_tokens)
    if not costs.budget_bytes or costs.budget_bytes < costs.state_bytes:
        assert not p.keeps_state.any()
    for i, wanted in enumerate(ids):
        assert path_of(p, int(p.last[i]))[: len(wanted)] == wanted
        assert p.begin[p.last[i]] < len(wanted)
    for s in range(p.n_segments):
        below = [s]
        for child in range(s + 1, p.n_segments):
            if p.parent[child] in below:
                below.append(child)
        assert p.owner[s] == min(i for i in range(len(ids)) if p.last[i] in below)


@given(requests(most=9), st.sampled_from([0, 0.5, 1, 1.5, 2.75, 4, 9, 30]))
@settings(max_examples=300, deadline=None)
@example(([(0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 1), (0, 1), (1,)], [1] * 5), 1)
def test_splits_are_the_cheapest_of_all(
    given_requests: tuple[list[Ids], list[int]], split_tokens: float
) -> None:
    ids, _ = given_requests
    nodes = branching(ids)[:12]
    if len(branching(ids)) > len(nodes):
        return
    best = min(
        cost_of(ids, set(kept), split_tokens)
        for size in range(len(nodes) + 1)
        for kept in itertools.combinations(nodes, size)
    )
    assert made_of(ids, replace(AMPLE, split_tokens=split_tokens)).cost == pytest.approx(best, abs=1e-9)


@given(requests(most=30))
@settings(max_examples=100, deadline=None)
def test_free_splits_reach_the_minimum(given_requests: tuple[list[Ids], list[int]]) -> None:
    ids, n_read = given_requests
    assert made_of(ids, AMPLE, n_read).n_tokens == trie_nodes(ids)


@pytest.mark.parametrize(
    ("split_tokens", "n_segments", "n_tokens"),
    [(19, 3, 10 * 2 + 20), (20, 2, 60), (1e6, 2, 60)],
    ids=["cheap", "as dear as the prefix", "dear"],
)
def test_two_choices_are_split_only_below_the_price(
    split_tokens: float, n_segments: int, n_tokens: int
) -> None:
    """Splitting saves one prefix of 20 tokens and costs two starts."""
    ids = [(*range(20), *[k] * 10) for k in (50, 60)]
    p = made_of(ids, replace(AMPLE, split_tokens=split_tokens / 2))
    assert (p.n_segments, p.n_tokens) == (n_segments, n_tokens)


def test_a_prefix_of_another_costs_nothing() -> None:
    ids = [(1, 2), (1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 4)]
    p = made_of(ids, AMPLE, [2, 4, 1, 1])
    assert (p.n_segments, p.n_batches, p.n_tokens, p.cost) == (1, 1, 4, 4)
    assert p.last.tolist() == [0, 0, 0, 0]
    work = p.work(0)
    assert work.rows.tolist() == [0, 1, 2, 3]
    assert sorted(zip(work.read_sequence.tolist(), work.read_position.tolist(), strict=True)) == [
        *[(0, 0), (0, 1)],
        *[(1, 0), (1, 1), (1, 2), (1, 3)],
        (2, 2),
        (3, 3),
    ]


def test_reads_reach_into_what_siblings_share() -> None:
    ids: list[Ids] = [(7, 7, 7, 8, 1), (7, 7, 7, 8, 2)]
    p = made_of(ids, AMPLE, [3, 3])
    assert p.n_tokens == 6
    first = p.work(0)
    assert first.rows.tolist() == [2, 3], "shared rows are read once"
    assert first.read_row.tolist() == [0, 1, 0, 1]
    assert p.work(1).rows.tolist() == [0, 1]


def test_no_sequences() -> None:
    p = made_of([], AMPLE)
    assert (p.n_segments, p.n_batches, p.n_tokens, p.n_tokens_minimum, p.cost) == (0, 0, 0, 0, 0)
    assert p.peak_state_bytes == 0
    assert p.batches_for(np.zeros(0, dtype=np.bool_)).shape == (0,)
    assert made_of([], replace(AMPLE, padded=True)).n_tokens == 0


def test_one_sequence() -> None:
    p = made_of([(3, -1, 2**31 - 1)], AMPLE, [2])
    assert p.work(0).ids.tolist() == [3, -1, 2**31 - 1]
    assert (p.owner.tolist(), p.source.tolist(), p.parent.tolist()) == ([0], [0], [-1])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("per_token", [0, 1])
@pytest.mark.parametrize("split_tokens", [0, 10, 900])
def test_a_comb_of_depth_2000(split_tokens: float, per_token: int) -> None:
    ids = comb(2000)
    costs = replace(AMPLE, split_tokens=split_tokens, state_bytes_per_token=per_token, batch_tokens=4096)
    p = made_of(ids, costs)
    assert p.cost <= p.n_tokens_unshared
    assert p.n_tokens <= p.n_tokens_unshared
    if split_tokens == 0:
        assert p.n_tokens == p.n_tokens_minimum == 3999
    else:
        # Kept every k tokens: each of 2000 / k segments has a parent, and each tooth forwards k / 2 more.
        assert p.cost < min(
            2000 * (1 + split_tokens + k / 2) + 2000 / k * split_tokens + 2000 for k in (5, 40)
        )
    few = made_of(ids, replace(costs, budget_bytes=10 * costs.state_bytes + 1000 * per_token))
    assert few.peak_state_bytes <= few.costs.budget_bytes
    assert p.cost <= few.cost <= few.n_tokens_unshared
    assert few.keeps_state.any()


@given(requests(), st.integers(1, 3), st.sampled_from([0, 0.5, 1, 2.5]))
@settings(max_examples=200, deadline=None)
@example((comb(12), [1] * 12), 3, 0.5)
def test_the_cheapest_levels_of_a_path_are_given_up(
    given_requests: tuple[list[Ids], list[int]], budget: int, split_tokens: float
) -> None:
    ids, _ = given_requests
    costs = replace(AMPLE, split_tokens=split_tokens)
    free = made_of(ids, costs)
    order = [path_of(free, s) for s in np.flatnonzero(free.keeps_state).tolist()]
    kept = set(order)
    for node in order:
        path = [k for k in kept if k == node[: len(k)]]
        if len(path) > budget:
            kept.remove(min(path, key=lambda k: (cost_of(ids, kept - {k}, split_tokens), -len(k))))
    p = made_of(ids, replace(costs, budget_bytes=budget))
    assert {path_of(p, s) for s in np.flatnonzero(p.keeps_state).tolist()} == kept
    assert p.cost == cost_of(ids, kept, split_tokens)
