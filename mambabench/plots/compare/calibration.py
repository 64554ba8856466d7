"""Accuracy against confidence, a panel a task: on the diagonal a side is right as often as it is sure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.plots.compare.fewer import fewer, short_title
from mambabench.plots.palette import MUTED
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.sheet import Sheet
from mambabench.tables.compare.format import harmless
from mambabench.tables.compare.names import apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.compare.result import Calibration, Comparison
    from mambabench.plots.speed.described import DescribedFigure

_COLUMNS = ((1, 1), (2, 2), (3, 3), (4, 2), (9, 3), (20, 4), (math.inf, 6))
"""Up to so many panels, so many columns."""
_INCHES = {1: 4.6, 2: 3.2, 3: 2.5, 4: 2.0, 6: 1.5}
"""Of a square panel, by columns."""
_MOST_WITH_ERRORS = 20
_MOST_CANDIDATES = 6
_MARKER_POINTS = (2.0, 7.0)
_DIAGONAL = (0, (4, 3))


def draw_calibration(comparison: Comparison) -> DescribedFigure | None:
    """Draw accuracy against confidence of all sides; None where no task has choices.

    Marks grow with the items of their bin.
    """
    comparison, note = fewer(harmless(comparison), _MOST_CANDIDATES)
    by_task: dict[str, list[Calibration]] = {}
    for one in comparison.calibrations:
        by_task.setdefault(one.task, []).append(one)
    if not by_task:
        return None
    sides = [s.label for s in (comparison.baseline, *comparison.candidates)]
    sides = [s for s in sides if any(one.side == s for one in comparison.calibrations)]
    looks = Looks([s.label for s in (comparison.baseline, *comparison.candidates)])
    n_columns = next(columns for most, columns in _COLUMNS if len(by_task) <= most)
    inches = _INCHES[n_columns]
    sheet = Sheet(len(by_task), n_columns, height_inches=inches + 0.25, width_inches=inches + 0.15)
    letters = round(11 * inches)
    titles = apart((found[0].label for found in by_task.values()), letters)
    largest = max(b.n for one in comparison.calibrations for b in one.bins)
    for axes, found in zip(sheet.axes, by_task.values(), strict=True):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=_DIAGONAL, zorder=1)
        for one in found:
            _draw(axes, looks, one, largest, inches)
        title = textwrap.fill(titles[found[0].label], letters)
        axes.set_title(title, fontweight="bold", fontsize=9 if inches > 2 else 8)
        if len(by_task) <= _MOST_WITH_ERRORS:
            _write_errors(axes, looks, found)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        ticks = [0, 0.5, 1] if inches < 3 else [0, 0.25, 0.5, 0.75, 1]
        axes.set_xticks(ticks, [f"{100 * t:g}" for t in ticks])
        axes.set_yticks(ticks, [f"{100 * t:g}" for t in ticks])
        axes.set_ylabel("accuracy, %")
        axes.set_box_aspect(1)
    sheet.label_outer()
    for axes in sheet.axes[-n_columns:]:
        axes.set_xlabel("confidence, %")
    told = len(by_task) <= _MOST_WITH_ERRORS
    errors = "ECE: mean distance from the diagonal, less what noise adds" if told else ""
    return sheet.finish(
        "Calibration",
        " · ".join(filter(None, [
            short_title(comparison),
            note,
            "how often the likeliest choice is right, by its probability among the choices",
            "larger marks are of more items",
            errors,
        ])),
        [
            *looks.handles(sides),
            looks.extra("as often right as sure", linestyle=_DIAGONAL, linewidth=0.9),
        ],
        [
            f"{one.label}, {one.side}: right {one.accuracy:.1%}, confidence {one.mean_confidence:.1%}, "
            f"calibration error {one.error:.1%}."
            for one in comparison.calibrations
        ],
    )  # fmt: skip


def _draw(axes: Axes, looks: Looks, one: Calibration, largest: int, inches: float) -> None:
    bins = [b for b in one.bins if b.n]
    xs, ys = [b.mean_confidence for b in bins], [b.accuracy for b in bins]
    colour, scale = looks.colour(one.side), min(1.0, inches / 2.5)
    axes.plot(xs, ys, color=colour, linewidth=1.3 * scale, alpha=0.8, label=one.side, zorder=2)
    least, most = (points * scale for points in _MARKER_POINTS)
    sizes = [(least + (most - least) * math.sqrt(b.n / largest)) ** 2 for b in bins]
    axes.scatter(
        xs, ys, s=sizes, color=colour, marker=looks.marker(one.side), zorder=3, linewidths=0, clip_on=False
    )


def _write_errors(axes: Axes, looks: Looks, found: Sequence[Calibration]) -> None:
    """Write each side's error where curves seldom are: sure and wrong."""
    for place, one in enumerate(reversed(found)):
        axes.annotate(
            f"ECE {100 * one.error:.1f}", (1, 0), xycoords="axes fraction", xytext=(-3, 3 + 10 * place),
            textcoords="offset points", ha="right", va="bottom", fontsize=7.5,
            color=looks.text_colour(one.side),
        )  # fmt: skip
