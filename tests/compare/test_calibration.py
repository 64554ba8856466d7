"""Confidence of the likeliest choice, held against scipy's softmax, and what is said of each side."""

from __future__ import annotations

import numpy as np
import pytest
from aligned_items import aligned_task, measure
from scipy.special import softmax

from mambabench.compare.calibration import calibrations, confidence_of
from mambabench.compare.items import AlignedSide, AlignedTask, Choices
from mambabench.stats.calibration import reliability


def choices(log_likelihoods: list[list[float]], right: list[int]) -> Choices:
    values = np.array(log_likelihoods, float)
    return Choices(values, np.ones_like(values), np.ones_like(values), np.array(right))


def task_of(*sides: Choices | None, acc: int = 1) -> AlignedTask:
    n = next(len(one.right) for one in sides if one is not None)
    column = measure("binary", [acc] * n)
    return aligned_task(
        *[[column] for _ in sides], sides=tuple(AlignedSide({"acc": column}, one, ()) for one in sides)
    )


def test_confidence_is_the_softmax_over_an_items_own_choices() -> None:
    rng = np.random.default_rng(0)
    scores = -900 * rng.random((50, 4)) ** 3
    counts = rng.integers(2, 5, 50)
    right = rng.integers(0, 2, 50)
    padded = np.where(np.arange(4) < counts[:, None], scores, np.nan)
    confidences, correct = confidence_of(choices(padded.tolist(), right.tolist()))
    for i in range(50):
        mine = scores[i, : counts[i]]
        assert confidences[i] == pytest.approx(softmax(mine).max(), abs=1e-12)
        assert correct[i] == (mine.argmax() == right[i])


def test_each_side_is_described_by_its_own_choices() -> None:
    rng = np.random.default_rng(1)
    columns = [
        choices(rng.normal(size=(120, 3)).tolist(), rng.integers(0, 3, 120).tolist()) for _ in range(2)
    ]
    found = calibrations(task_of(*columns), ["base", "tuned"])
    assert [one.side for one in found] == ["base", "tuned"]
    for one, column in zip(found, columns, strict=True):
        expected = reliability(*confidence_of(column))
        assert (one.n, one.task, one.label) == (120, "arc_easy", "ARC-E")
        assert (one.error, one.low, one.high) == (expected.error, expected.low, expected.high)
        assert one.accuracy == pytest.approx(
            np.mean(np.nan_to_num(column.log_likelihoods).argmax(axis=1) == column.right)
        )
        assert [(b.n, b.accuracy, b.mean_confidence, b.low, b.high) for b in one.bins] == [
            (b.n, b.accuracy, b.mean_confidence, b.low, b.high) for b in expected.bins
        ]


def test_items_whose_choices_have_no_probability_are_left_out() -> None:
    nothing = float("-inf")
    column = choices([[0.0, -1.0], [nothing, nothing], [nothing, -3.0]], [0, 0, 1])
    (found,) = calibrations(task_of(column), ["base"])
    assert (found.n, found.accuracy) == (2, 1.0)
    assert found.mean_confidence == pytest.approx((1 / (1 + np.exp(-1)) + 1) / 2)
    assert calibrations(task_of(choices([[nothing, nothing]], [0])), ["base"]) == []


def test_a_side_without_choices_is_not_described() -> None:
    column = choices([[0.0, -1.0]] * 5, [0] * 5)
    assert [one.side for one in calibrations(task_of(None, column), ["base", "tuned"])] == ["tuned"]
