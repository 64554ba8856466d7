"""Figures of a comparison hold its differences, intervals and bins, and stay readable from small to large."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from comparisons import TWO, comparison, contrast
from drawn_words import check_words

from mambabench.compare.result import Comparison
from mambabench.plots.compare import KEYS, figures, save_figures
from mambabench.plots.compare.differences import draw_differences
from mambabench.plots.palette import PAPER
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.sheet import sheet_style

FOUR = {**TWO, "third": 0.2, "a-rather-long-name-of-a-checkpoint-42": 8.0}
CASES = {
    "one": lambda: comparison(1, {"tuned": 0.5}),
    "usual": lambda: comparison(3, TWO),
    "several": lambda: comparison(8, FOUR),
}


@cache
def case(name: str) -> Comparison:
    return CASES[name]()


@cache
def drawn(name: str) -> dict[str, Any]:
    return dict(figures(case(name)))


def line(axes: Any, label: str) -> Any:
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


def perplexities() -> Comparison:
    found = tuple(
        contrast(
            name, task="lambada", label="LAMBADA", measure="perplexity", unit="ppl", effect_unit="%",
            higher_is_better=False, difference=change, error=1.0, margin=25.0,
            verdict="better" if change < 0 else "worse",
        )
        for name, change in (("ft-lr5e-5", -3.0), ("ft-lr5e-4", 14.0))
    )  # fmt: skip
    made = case("usual")
    return replace(made, contrasts=(*made.contrasts, *found))


def test_what_there_is_data_for_is_drawn_in_order() -> None:
    assert tuple(drawn("usual")) == ("differences", "log_likelihoods", "calibration")
    assert set(drawn("usual")) < set(KEYS)
    assert list(figures(perplexities())) == ["differences", "perplexities", "log_likelihoods", "calibration"]
    assert figures(replace(case("usual"), contrasts=(), calibrations=(), overall=())) == {}


def test_the_error_of_calibration_is_said_to_be_without_noise() -> None:
    assert (
        "mean distance from the diagonal, less what noise adds" in drawn("usual")["calibration"].description
    )


def test_marks_are_differences_and_lines_their_intervals() -> None:
    shown = case("usual")
    (axes,) = drawn("usual")["differences"].axes
    looks = Looks(("base", *TWO))
    ends = {
        (round(float(x0), 9), round(float(x1), 9), one.get_color())
        for one in axes.lines
        if one.get_label().startswith("_child") and len(one.get_xdata()) == 2 and one.get_linestyle() == "-"
        for x0, x1 in [one.get_xdata()]
    }
    headlines = [c for c in shown.contrasts if c.headline]
    for one in (*headlines, *shown.overall):
        assert (round(one.low or 0, 9), round(one.high or 0, 9), looks.colour(one.candidate)) in ends
    for name in TWO:
        solid, hollow = (line(axes, f"_{kind} {name}") for kind in ("shown", "hollow"))
        mine = [c for c in (*headlines, *shown.overall) if c.candidate == name]
        told = [c.difference for c in mine if c.verdict in ("better", "worse")]
        assert list(solid.get_xdata()) == told
        assert list(hollow.get_xdata()) == [c.difference for c in mine if c.difference not in told]
        assert hollow.get_markerfacecolor() == PAPER != solid.get_markerfacecolor()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["HellaSwag", "PIQA", "ARC-E", "mean of 3 tasks"]
    # The first task is the uppermost.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-1.0, 1.0))
    assert not axes.xaxis_inverted()


def test_right_is_better_for_perplexities_too() -> None:
    figure = figures(perplexities())["perplexities"]
    (axes,) = figure.axes
    assert axes.xaxis_inverted()
    assert "axis reversed" in axes.get_xlabel()
    # Within a quarter more is within a fifth less.
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert sorted((band.x0, band.x1)) == pytest.approx([-20.0, 25.0])
    assert "LAMBADA, ft-lr5e-5: -3 %, better." in figure.description


def test_a_task_has_one_row_of_accuracy_its_headline_or_its_first() -> None:
    second = contrast(measure="acc", headline=False, difference=40.0)
    only = contrast(task="lambada", label="LAMBADA", measure="acc", headline=False, difference=2.0)
    made = replace(comparison(1, {"tuned": 0.5}), contrasts=(contrast(difference=1.0), second, only))
    with sheet_style():
        figure = draw_differences(made, "pt")
    assert figure is not None
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["HellaSwag (acc_norm)", "LAMBADA (acc)"]
    assert sorted([*line(axes, "_shown tuned").get_xdata(), *line(axes, "_hollow tuned").get_xdata()]) == [
        1,
        2,
    ]


def test_what_is_not_known_is_not_drawn() -> None:
    open_ended = contrast(low=-math.inf, high=math.inf, difference=1.0)
    none = contrast(task="b", label="B", difference=None, low=None, high=None, verdict="not tested")
    made = replace(comparison(1, {"tuned": 0.5}), contrasts=(open_ended, none))
    (axes,) = figures(made)["differences"].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["HellaSwag"]
    assert all(map(math.isfinite, axes.get_xlim()))


def test_calibration_is_accuracy_by_confidence() -> None:
    shown = case("usual")
    figure = drawn("usual")["calibration"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["HellaSwag", "PIQA", "ARC-E"]
    axes = figure.axes[0]
    for one in shown.calibrations[:3]:
        curve = line(axes, one.side)
        assert list(curve.get_xdata()) == [b.mean_confidence for b in one.bins]
        assert list(curve.get_ydata()) == [b.accuracy for b in one.bins]
    sizes = axes.collections[0].get_sizes()
    counts = [b.n for b in shown.calibrations[0].bins]
    assert list(sizes).index(max(sizes)) == counts.index(max(counts))
    assert {t.get_text() for t in axes.texts} == {"ECE 2.0", "ECE 5.0", "ECE 15.0"}
    assert "HellaSwag, base: right" in figure.description


def test_a_side_looks_the_same_in_all_figures() -> None:
    forest, curves = drawn("usual")["differences"].axes[0], drawn("usual")["calibration"].axes[0]
    for name in TWO:
        assert line(forest, f"_shown {name}").get_color() == line(curves, name).get_color()


@pytest.mark.parametrize("name", list(CASES))
def test_words_can_be_read(name: str) -> None:
    for key, figure in drawn(name).items():
        check_words(figure, f"{name} {key}")
        assert figure.description.count("\n") >= 2


def test_sixty_tasks_have_room() -> None:
    with sheet_style():
        figure = draw_differences(comparison(60, FOUR), "pt")
    assert figure is not None
    check_words(figure, "sixty")
    assert figure.get_size_inches()[1] < 30
    (axes,) = figure.axes
    assert len(axes.get_yticklabels()) == 61
    marks = sorted(
        y for name in FOUR for kind in ("shown", "hollow") for y in line(axes, f"_{kind} {name}").get_ydata()
    )
    between = min(b - a for a, b in itertools.pairwise(marks)) * axes.get_window_extent().height / 61
    # In points of 1/72 inch at the figure's resolution.
    assert between * 72 / figure.dpi > line(axes, "_shown third").get_markersize()


def test_names_that_look_like_markup_are_drawn_as_they_are(tmp_path: Path) -> None:
    made = comparison(2, {"a$b_{c}$": 1.0}, title="$x$ \x1b[31m & <b>")
    paths = save_figures(made, tmp_path, ("svg",))
    assert [p.name for p in paths] == ["differences.svg", "log_likelihoods.svg", "calibration.svg"]
    drawing = paths[0].read_text("utf-8")
    assert "a$b_{c}$" in drawing
    assert "\x1b" not in drawing
    again = [p.read_bytes() for p in save_figures(made, tmp_path, ("svg",))]
    assert again == [p.read_bytes() for p in paths]
