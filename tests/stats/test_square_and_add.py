"""The interval of a mean from its parts': it covers as often as they do, and is as lopsided."""

from __future__ import annotations

import numpy as np
import pytest

from mambabench.stats.intervals import wilson
from mambabench.stats.square_and_add import mean_ends


def test_one_part_keeps_its_interval() -> None:
    assert mean_ends([(0.5, 0.3, 0.9)]) == pytest.approx((0.3, 0.9))


def test_equal_parts_narrow_with_their_root() -> None:
    assert mean_ends([(0.5, 0.4, 0.7)] * 4) == pytest.approx((0.45, 0.6))


def test_no_part_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_ends([])


@pytest.mark.parametrize("truth", [(0.9, 0.5, 0.25), (0.97, 0.95, 0.99)])
def test_it_covers_the_true_mean_as_often_as_it_says(truth: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    sizes, n_trials, covered = (60, 120, 200), 2000, 0
    for _ in range(n_trials):
        drawn = [int(rng.binomial(n, p)) for n, p in zip(sizes, truth, strict=True)]
        ends = [wilson(k, n) for k, n in zip(drawn, sizes, strict=True)]
        parts = [(k / n, e.low, e.high) for k, n, e in zip(drawn, sizes, ends, strict=True)]
        low, high = mean_ends(parts)
        covered += low <= sum(truth) / 3 <= high
    # Three standard errors of a share of 2000 are 1.5%; Wilson's own coverage is off by up to 2%.
    assert 0.925 <= covered / n_trials <= 0.975
