"""What a contrast says that its items can show: by the test that was made, and in the unit that is shown."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aligned_items import answers, compared_by

from mambabench.compare.contrasts import task_contrasts
from mambabench.compare.items import AlignedTask
from mambabench.compare.result import CompareOptions, Contrast
from mambabench.compare.verdicts import judged
from mambabench.stats.power import errors_needed
from mambabench.stats.power_means import Differences
from mambabench.stats.power_pairs import Pairs

OPTIONS = CompareOptions(replicates=1000)
THREE = replace(OPTIONS, detect_points=3.0)


def contrast(task: AlignedTask, options: CompareOptions = OPTIONS) -> Contrast:
    (found,) = task_contrasts(task, "base", ["tuned"], options)
    return judged([found.contrast], [], options)[0][0]


def nats(n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    base = -rng.exponential(2, n)
    return base, base + rng.normal(0, 0.3, n)


def test_what_items_can_show_is_what_the_test_finds() -> None:
    pairs = contrast(compared_by("binary", *answers(n_won=3, n_lost=12, n_both=60, n_neither=25)))
    assert pairs.detectable == pytest.approx(100 * (Pairs(15, 100).detectable() or 0))
    assert pairs.n_needed == Pairs(15, 100).n_needed(0.01)
    base, candidate = nats(40)
    found = contrast(compared_by("nats", base, candidate))
    error = np.std(candidate - base, ddof=1) / math.sqrt(40)
    assert found.detectable == pytest.approx((errors_needed(39, 0.05, 0.8) or 0) * error)
    grouped = contrast(compared_by("nats", base, candidate, clusters=np.arange(40) // 5))
    means = (candidate - base).reshape(8, 5).mean(axis=1)
    error = np.std(means, ddof=1) / math.sqrt(8)
    expected = Differences(error, float(means.mean()), 40, 8, 8)
    assert grouped.detectable == pytest.approx(expected.detectable())
    assert grouped.n_needed == expected.n_needed(0.01)


def test_so_few_items_show_nothing() -> None:
    for n, message in [(5, "fewer than 6 items show no difference, however large"), (6, None)]:
        found = contrast(compared_by("binary", [0] * n, [1] * n))
        assert (found.detectable is None) == (message is not None)
        assert (found.verdict == "better") == (message is None)
        assert found.remarks == ((message,) if message else ())
        # How many would is known nevertheless.
        assert found.n_needed is not None
    clustered = compared_by("nats", *nats(30), clusters=np.arange(30) // 10)
    assert contrast(clustered).remarks == (
        "fewer than 6 independent groups of items show no difference, however large",
    )


def test_items_are_told_for_the_difference_that_is_asked_for() -> None:
    task = compared_by("binary", *answers(n_won=3, n_lost=12, n_both=60, n_neither=25))
    found = contrast(task, THREE)
    assert found.n_needed == Pairs(15, 100).n_needed(0.03)
    # Points are no nats.
    task = compared_by("nats", *nats(40))
    plain = contrast(task)
    assert plain.n_needed == contrast(task, THREE).n_needed
