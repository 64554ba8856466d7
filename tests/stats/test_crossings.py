"""Crossings of curves whose crossing is known, and of those that have none or no clear one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mambabench.stats.crossings import Curves, compare_curves, crossing_points

LENGTHS = [128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0]
grids = st.lists(st.integers(1, 10**6), min_size=2, max_size=12, unique=True).map(sorted)


def power_laws(lengths: list[float], at: float, n: int, noise: float, seed: int = 0) -> tuple[Curves, Curves]:
    """Return n replicates of y = 1 and y = x / at with lognormal noise."""
    rng = np.random.default_rng(seed)

    def noisy(y: float) -> float:
        return float(y * np.exp(noise * rng.standard_normal()))

    a = {i: {x: noisy(1.0) for x in lengths} for i in range(n)}
    b = {i: {x: noisy(x / at) for x in lengths} for i in range(n)}
    return a, b


@given(grids, st.floats(0.01, 0.99), st.floats(-3, 3), st.floats(-3, 3), st.floats(1e-6, 1e6))
def test_power_laws_cross_where_they_are_equal(
    grid: list[int], share: float, slope: float, other: float, scale: float
) -> None:
    assume(abs(slope - other) > 0.01)
    at = math.exp((1 - share) * math.log(grid[0]) + share * math.log(grid[-1]))
    assume(all(abs(math.log(x / at)) > 1e-6 for x in grid))
    a = [scale * (x / at) ** slope for x in grid]
    b = [scale * (x / at) ** other for x in grid]
    (found,) = crossing_points(grid, a, b)
    assert found == pytest.approx(at, rel=1e-6)


@given(grids, st.data())
def test_crossings_are_where_the_interpolated_curves_change_sides(
    grid: list[int], data: st.DataObject
) -> None:
    values = st.lists(st.floats(0.1, 10), min_size=len(grid), max_size=len(grid))
    a, b = data.draw(values), data.draw(values)
    gap = np.log(a) - np.log(b)
    assume(bool((np.abs(gap) > 1e-6).all()))
    found = crossing_points(grid, a, b)
    assert len(found) == int((np.sign(gap[1:]) != np.sign(gap[:-1])).sum())
    assert all(grid[0] <= x <= grid[-1] for x in found)
    assert np.interp(np.log(found), np.log(grid), gap) == pytest.approx([0.0] * len(found), abs=1e-6)


@given(grids, st.data())
def test_either_curve_may_come_first(grid: list[int], data: st.DataObject) -> None:
    values = st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=len(grid), max_size=len(grid))
    a, b = data.draw(values), data.draw(values)
    assert crossing_points(grid, a, b) == pytest.approx(crossing_points(grid, b, a))


def test_touching_is_no_crossing_and_equality_on_the_way_is_one() -> None:
    assert crossing_points([1, 2, 4], [2, 1, 2], [1, 1, 1]) == []
    assert crossing_points([1, 2, 4], [2, 1, 0.5], [1, 1, 1]) == pytest.approx([2.0])
    assert crossing_points([1, 2, 8, 16], [9, 1, 1, 0.9], [1, 1, 1, 1]) == pytest.approx([4.0])
    assert crossing_points([1, 2], [1, 2], [1, 2]) == []


def test_six_replicates_give_an_interval_around_the_crossing() -> None:
    found = compare_curves(*power_laws(LENGTHS, 700, 6, 0.02))
    assert found is not None
    (at,) = found.at
    assert at.low < 700 < at.high
    assert at.high / at.low < 1.2
    assert (found.outcome, at.method, found.n, found.n_crossing) == ("crosses", "t on log", 6, 6)
    assert (found.starts_below, found.first, found.last) == (False, 128, 4096)


def test_the_interval_covers_the_crossing_as_often_as_it_says() -> None:
    inside = []
    for seed in range(600):
        found = compare_curves(*power_laws([256, 1024, 4096], 700, 6, 0.05, seed))
        assert found is not None
        inside.append(found.at[0].low <= 700 <= found.at[0].high)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_few_replicates_give_a_range() -> None:
    found = compare_curves(*power_laws(LENGTHS, 700, 3, 0.02))
    assert found is not None
    assert found.at[0].method == "range"


def test_curves_apart_are_above_or_below() -> None:
    a, b = power_laws(LENGTHS, 10, 6, 0.02)
    below, above = compare_curves(a, b), compare_curves(b, a)
    assert below is not None
    assert above is not None
    assert (below.outcome, above.outcome) == ("below", "above")
    assert below.at == ()
    assert below.n_crossing == 0


def test_replicates_that_disagree_show_nothing() -> None:
    a = {0: {1.0: 1.0, 2.0: 1.0}, 1: {1.0: 1.0, 2.0: 1.0}}
    one_crosses = compare_curves(a, {0: {1.0: 2.0, 2.0: 0.9}, 1: {1.0: 2.0, 2.0: 1.1}})
    assert one_crosses is not None
    assert (one_crosses.outcome, one_crosses.n_crossing, one_crosses.n) == ("not distinguishable", 1, 2)
    other_sides = compare_curves(a, {0: {1.0: 2.0, 2.0: 2.0}, 1: {1.0: 0.5, 2.0: 0.5}})
    assert other_sides is not None
    assert other_sides.outcome == "not distinguishable"
    equal = compare_curves(a, a)
    assert equal is not None
    assert equal.outcome == "not distinguishable"


def test_each_of_two_crossings_has_its_estimate() -> None:
    flat = {i: {1.0: 1.0, 10.0: 1.0, 100.0: 1.0} for i in range(6)}
    bump = {i: {1.0: 0.5, 10.0: 2.0, 100.0: 0.5} for i in range(6)}
    found = compare_curves(bump, flat)
    assert found is not None
    assert found.starts_below
    assert [e.value for e in found.at] == pytest.approx([math.sqrt(10), math.sqrt(1000)])


def test_noise_at_a_crossing_does_not_hide_it() -> None:
    flat = {i: dict.fromkeys([1.0, 10.0, 100.0, 1000.0], 1.0) for i in range(2)}
    once = {1.0: 0.5, 10.0: 0.9, 100.0: 1.2, 1000.0: 2.0}
    thrice = {1.0: 0.5, 10.0: 1.01, 100.0: 0.99, 1000.0: 2.0}
    found = compare_curves({0: once, 1: thrice}, flat)
    assert found is not None
    assert found.outcome == "crosses"
    (at,) = found.at
    assert 10 < at.low < at.high < 100


def test_most_points_are_used_when_replicates_are_uneven() -> None:
    a, b = power_laws(LENGTHS, 700, 6, 0.01)
    begun = {**a, 6: {128.0: 1.0, 256.0: 1.0}}
    found = compare_curves(begun, {**b, 6: {128.0: 0.2, 256.0: 0.4}})
    assert found is not None
    assert (found.n, found.last, found.outcome) == (6, 4096, "crosses")
    one_longer = {**a, 0: {**a[0], 8192.0: 1.0}}
    found = compare_curves(one_longer, {**b, 0: {**b[0], 8192.0: 12.0}})
    assert found is not None
    assert (found.n, found.last) == (6, 4096)


def test_without_two_lengths_there_is_nothing_to_say() -> None:
    assert compare_curves({0: {1.0: 1.0}}, {0: {1.0: 2.0}}) is None
    assert compare_curves({0: {1.0: 1.0, 2.0: 1.0}}, {1: {1.0: 2.0, 2.0: 1.0}}) is None
