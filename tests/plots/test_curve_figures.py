"""Figures of curves hold what the curves hold, from two steps of one run to 27 of three."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from drawn_words import check_words
from hypothesis import given, settings
from hypothesis import strategies as st
from made_curves import DOUBLING, made_curve, made_curves

from mambabench.compare.curves_result import Curves
from mambabench.plots.compare.curves import draw_steps, scale_steps
from mambabench.plots.speed.sheet import sheet_style

CASES: dict[str, dict[str, Any]] = {
    "published": {"paired": False},
    "few": {"series": ("ft-lr3e-3",), "steps": (100, 200, 300, 400, 500, 600), "n_tasks": 7},
    "two": {"series": ("",), "steps": (500, 1000), "n_tasks": 1},
    "no zero": {"steps": DOUBLING[1:], "n_tasks": 2},
    "long names": {"series": tuple(f"a-long-name-of-a-run-of-training-{i}" for i in range(6))},
    "many": {"n_tasks": 16, "series": ("a",)},
}


@cache
def made(case: str) -> Curves:
    return made_curves(**CASES[case])


@cache
def drawn(case: str) -> Any:
    with sheet_style():
        return draw_steps(made(case))


def lines(axes: Any, label: str) -> Any:
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return [tuple(map(float, pair)) for pair in zip(*found.get_data(), strict=True)]


@pytest.mark.parametrize("case", list(CASES))
def test_words_can_be_read(case: str) -> None:
    check_words(drawn(case), case)


@pytest.mark.parametrize("case", ["published", "few", "two"])
def test_lines_bands_and_rings_are_the_points(case: str) -> None:
    curves, figure = made(case), drawn(case)
    assert len(figure.axes) == len(curves.panels)
    for axes, key in zip(figure.axes, curves.panels, strict=True):
        for curve in curves.of(*key):
            name = curve.series or "all"
            assert lines(axes, name) == [(p.step, p.value) for p in curve.points]
            (band,) = [c for c in axes.collections if c.get_label() == f"_band {name}"]
            corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
            assert {(p.step, end) for p in curve.points for end in (p.low, p.high)} <= corners
            assert lines(axes, f"_best {name}") == [(curve.best.step, curve.best.value)]
        chance = [one for one in axes.lines if one.get_label() == "_chance"]
        assert bool(chance) == (curves.of(*key)[0].chance is not None)


def test_marks_are_filled_where_a_step_may_be_the_best() -> None:
    curve = made_curve(steps=tuple(range(100, 2000, 100)))
    with sheet_style():
        figure = draw_steps(Curves(("160m",), (curve,), 0.05, 2000))
    assert figure is not None
    (axes,) = figure.axes
    filled, hollow = lines(axes, "_may be"), lines(axes, "_worse")
    assert [int(x) for x, _ in filled] == list(curve.best.contenders)
    assert len(filled) + len(hollow) == len(curve.points)
    (legend,) = figure.legends
    assert {"best step", "may be the best as well", "worse than the best"} <= {
        t.get_text() for t in legend.get_texts()
    }


def test_steps_that_double_stand_apart_and_others_evenly() -> None:
    published = drawn("published").axes[-1]
    assert published.get_xscale() == "symlog"
    places = published.transData.transform([(s, 30.0) for s in DOUBLING])[:, 0]
    width = published.get_window_extent().width
    # 0 has a place of its own, and decades are of one width.
    assert places[1] - places[0] > 0.08 * width
    by_step = dict(zip(DOUBLING, places, strict=True))
    assert by_step[512] - by_step[256] == pytest.approx(by_step[128] - by_step[64], rel=0.02)
    assert drawn("no zero").axes[0].get_xscale() == "log"
    assert drawn("few").axes[0].get_xscale() == "linear"


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 10**7), min_size=2, max_size=30), st.floats(2.0, 7.0))
def test_any_steps_lie_within_the_axis(steps: set[int], width: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 2))
    axes = figure.subplots()
    ordered = sorted(steps)
    scale_steps(axes, ordered, width_inches=width)
    low, high = axes.get_xlim()
    assert low < ordered[0]
    assert high > ordered[-1]
    figure.draw_without_rendering()
    within = [t for t in axes.get_xticks() if low <= t <= high]
    assert within or len(ordered) < 3


def test_perplexities_far_apart_are_on_a_logarithmic_axis() -> None:
    curves = made("published")
    scales = {
        key[1]: axes.get_yscale() for key, axes in zip(curves.panels, drawn("published").axes, strict=True)
    }
    assert scales["perplexity"] == "log"
    assert scales["acc"] == "linear"


def test_the_description_says_what_is_drawn() -> None:
    title, how, *sentences = drawn("few").description.split("\n")
    assert title == "Scores by training step"
    assert "6 steps from 100 to 600" in how
    assert len(sentences) == len(made("few").curves)
    assert "best 45.0% at step 400" in sentences[0]
    assert drawn("two").description.startswith("LAMBADA, acc by training step")


def test_partial_curves_say_so() -> None:
    partial = replace(made_curve(), n=50)
    with sheet_style():
        figure = draw_steps(Curves(("160m",), (partial,), 0.05, 2000))
        assert draw_steps(Curves((), (), 0.05, 2000)) is None
    assert figure is not None
    assert "partial" in figure.description
