"""Sides ranked over tasks: which tasks count, how much, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aligned_items import aligned_task, measure

from mambabench.compare import ranking
from mambabench.compare.items import AlignedTask
from mambabench.compare.ranking import rank
from mambabench.compare.result import CompareOptions
from mambabench.errors import UsageError
from mambabench.stats.ranking import bradley_terry

OPTIONS = CompareOptions(ranking=True, replicates=60)


def right(n: int, chances: list[float], seed: int = 0, **changes: Any) -> AlignedTask:
    rng = np.random.default_rng(seed)
    draws = rng.random((n, 1)) * 0.6 + 0.4 * rng.random((n, len(chances)))
    return aligned_task(*[[measure("binary", draws[:, i] < p)] for i, p in enumerate(chances)], **changes)


def test_sides_stand_by_strength_with_all_their_groups() -> None:
    task = right(400, [0.5, 0.2, 0.52, 0.8])
    found = rank([task], ["base", "broken", "same", "tuned"], OPTIONS)
    assert [one.label for one in found.ranks] == ["tuned", "same", "base", "broken"]
    assert [one.groups for one in found.ranks] == [(1,), (2,), (2,), (3,)]
    assert [one.group for one in found.ranks] == [1, 2, 2, 3]
    assert all(one.low <= one.strength <= one.high for one in found.ranks)
    scores = np.column_stack([side.measures["acc"].values for side in task.sides])
    assert (found.n_items, found.n_decisive) == (400, int((np.ptp(scores, axis=1) > 0).sum()))
    assert found.ranks[0].strength == bradley_terry(scores, replicates=1).strengths[3]


def test_every_task_counts_the_same() -> None:
    large, small = right(600, [0.6, 0.5]), right(60, [0.2, 0.8], seed=1, label="Small")
    found = rank([large, small], ["base", "tuned"], OPTIONS)
    assert found.ranks[0].label == "tuned"
    assert found.tasks == ("ARC-E", "Small")
    assert "every task counts the same" in found.method
    assert "every task" not in rank([large], ["base", "tuned"], OPTIONS).method
    # By items the large one would decide.
    pooled = bradley_terry(
        np.vstack([np.column_stack([s.measures["acc"].values for s in t.sides]) for t in (large, small)]),
        replicates=1,
    )
    assert pooled.strengths[0] > pooled.strengths[1]


def test_a_group_that_averages_its_parts_is_said_to_be_pooled() -> None:
    member_of = np.repeat([0, 1], [20, 40])
    task = right(60, [0.4, 0.6], task="blimp", label="BLiMP", members=("blimp_a", "blimp_b"))
    averaged = replace(task, member_of=member_of)
    pooled = replace(averaged, task="mmlu", label="MMLU")
    method = rank([averaged, pooled], ["base", "tuned"], OPTIONS).method
    assert "The items of BLiMP are pooled, while its accuracy averages that of its parts." in method


def test_equal_sides_keep_the_order_given() -> None:
    task = right(300, [0.5])
    same = replace(task, sides=task.sides * 4)
    found = rank([same], ["a", "b", "c", "d"], OPTIONS)
    assert [one.label for one in found.ranks] == ["a", "b", "c", "d"]
    assert {one.groups for one in found.ranks} == {(1,)}


def test_what_is_not_right_or_wrong_is_left_out() -> None:
    text = aligned_task([measure("ratio", [-3.0], 2)], [measure("ratio", [-4.0], 2)], label="Texts")
    found = rank([text, right(30, [0.5, 0.6])], ["base", "tuned"], OPTIONS)
    assert found.tasks == ("ARC-E",)
    errors = aligned_task(*[[measure("error", [0, 1])] for _ in range(2)])
    with pytest.raises(UsageError, match="nothing to rank by"):
        rank([text, errors], ["base", "tuned"], OPTIONS)
    with pytest.raises(UsageError, match="one side"):
        rank([right(5, [0.5])], ["base"], OPTIONS)


def test_clusters_are_drawn_whole_and_named() -> None:
    once = right(40, [0.4, 0.6])
    columns = [[measure("binary", np.repeat(s.measures["acc"].values, 9))] for s in once.sides]
    clusters = np.repeat(np.arange(40), 9)
    plain = aligned_task(*columns)
    together = replace(plain, clusters=clusters, cluster_name="passage")
    widths = []
    for task in (once, plain, together):
        best = rank([task], ["base", "tuned"], replace(OPTIONS, replicates=300)).ranks[0]
        widths.append(best.high - best.low)
    assert widths[2] == pytest.approx(widths[0], rel=0.25)
    assert widths[2] > 2 * widths[1]
    method = rank([together, once], ["base", "tuned"], OPTIONS).method
    assert "all items of a passage where they share one" in method
    assert "No intervals" not in method
    few = replace(plain, clusters=clusters % 3, cluster_name="passage", label="Few")
    found = rank([few], ["base", "tuned"], OPTIONS)
    assert "fewer than 10 groups of items in Few" in found.method
    assert (found.ranks[0].low, found.ranks[0].high) == (0.0, 1.0)


def test_no_more_replicates_are_drawn_than_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "MOST_REPLICATES", 25)
    found = rank([right(30, [0.5, 0.6])], ["base", "tuned"], CompareOptions(replicates=10_000, alpha=0.1))
    assert found.replicates == 25
    assert "25 replicates" in found.method
    assert "10% for the largest difference" in found.method
