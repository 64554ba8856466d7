"""Units and intervals for every kind of metric that lm-eval's tasks give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mambabench.stats.intervals import mean_interval, perplexity_interval, ratio_interval, wilson
from mambabench.tasks.intervals import metric_interval


@pytest.mark.parametrize(
    ("metric", "aggregation", "items", "unit", "expected"),
    [
        ("acc", "mean", [1.0, 0.0, 1.0], "fraction", wilson(2, 3)),
        ("acc", "mean", [0.0] * 9, "fraction", wilson(0, 9)),
        ("acc", "mean", [True, False], "fraction", wilson(1, 2)),
        ("acc", "mean", [np.bool_(True), np.int64(0)], "fraction", wilson(1, 2)),
        ("acc", "nanmean", [1.0, float("nan"), 0.0], "fraction", wilson(1, 2)),
        # A sum of probabilities that rounding has carried beyond 1.
        ("mc2", "mean", [0.4, 1.0000000000000002], "fraction", mean_interval([0.4, 1.0], bounds=(0, 1))),
        ("mc2", "mean", [np.float32(0.25), 0.5], "fraction", mean_interval([0.25, 0.5], bounds=(0, 1))),
        # A score from 0 to 100 of which no item got anything is not an accuracy.
        ("rouge1", "mean", [0.0] * 9, "score", mean_interval([0.0] * 9)),
        ("rouge1", "mean", [0.0, 31.5], "score", mean_interval([0.0, 31.5])),
        ("perplexity", "perplexity", [-1.0, -2.0], "perplexity", perplexity_interval([-1.0, -2.0])),
        (
            "byte_perplexity", "weighted_perplexity", [(-9.0, 3), (-4.0, 2)], "perplexity",
            ratio_interval([-9.0, -4.0], [3, 2], transform="perplexity"),
        ),
        (
            "bits_per_byte", "bits_per_byte", [(-9.0, 3), (-4.0, 2), (0.0, 0)], "bits_per_byte",
            ratio_interval([-9.0, -4.0, 0.0], [3, 2, 0], transform="bits"),
        ),
        ("bleu", "bleu", [("a", "b")], "score", None),
        ("f1", "mean", ["a"], "score", None),
    ],
)  # fmt: skip
def test_units_and_intervals(
    metric: str, aggregation: str, items: list[Any], unit: str, expected: Any
) -> None:
    assert metric_interval(metric, aggregation, items) == (unit, expected)
