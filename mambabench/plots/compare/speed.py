"""Ratios of sweeps with their intervals, one line a figure and place.

    figure = draw_speed_ratios(comparison)      # None where nothing was compared
    save(figure, Path("speed-ratios.svg"))

Filled markers have a 95% interval or are exact, hollow ones have a range, which is none. The band is the
margin within which ratios do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mambabench.plots import MARKERS, shortened
from mambabench.plots.palette import BAND, COLOURS, MUTED, PAPER
from mambabench.plots.speed.sheet import Sheet, sheet_style
from mambabench.tables.compare.speed import outcome_lines, tallies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from mambabench.compare.speed_result import Match, SpeedComparison, SpeedContrast
    from mambabench.plots.speed.described import DescribedFigure

NAME: Final = "speed-ratios"
"""Of the file."""
_LEFT_OUT: Final = ("itl", "itl_p99", "decode")
"""Figures that say again what another one says."""
_MOST_PLACES: Final = 10
_LANE_INCHES: Final = 0.17
_GAP: Final = 0.8
_TICKS: Final = (
    1.0, 0.1, 10.0, 0.01, 100.0, 0.5, 2.0, 0.2, 5.0, 0.05, 20.0, 0.02, 50.0, 0.9, 1.1, 0.8, 1.25, 0.7, 1.5,
    0.95, 1.05,
)  # fmt: skip
"""The first ones stand wherever they have room."""
_BETWEEN_TICKS: Final = 0.07
"""Of the axis, so that their numbers do not touch."""


def draw_speed_ratios(comparison: SpeedComparison) -> DescribedFigure | None:
    """Draw the ratios of a comparison; None where nothing was compared."""
    places = _places(comparison)
    chosen = [
        c for c in comparison.contrasts if c.figure not in _LEFT_OUT and comparison.where(c.match) in places
    ]
    chosen = chosen or [c for c in comparison.contrasts if comparison.where(c.match) in places]
    if not chosen:
        return None
    with sheet_style():
        return _draw(comparison, chosen, places)


def _places(comparison: SpeedComparison) -> list[str]:
    """Return the places in words; of many some, evenly spread from the first to the last."""
    matches: list[Match] = sorted({c.match for c in comparison.contrasts}, key=lambda m: m.place)
    words = list(dict.fromkeys(comparison.where(m) for m in matches))
    if len(words) <= _MOST_PLACES:
        return words
    return [words[round(i * (len(words) - 1) / (_MOST_PLACES - 1))] for i in range(_MOST_PLACES)]


def _draw(
    comparison: SpeedComparison, chosen: Sequence[SpeedContrast], places: Sequence[str]
) -> DescribedFigure:
    labels = [side.label for side in comparison.candidates]
    rows: list[tuple[str, str]] = []
    heights: dict[tuple[str, str], float] = {}
    names = list(dict.fromkeys(c.label for c in chosen))
    height = 0.0
    for name in names:
        for place in places:
            if any((c.label, comparison.where(c.match)) == (name, place) for c in chosen):
                rows.append((name, place))
                heights[name, place] = height
                height += 1 + 0.55 * (len(labels) - 1)
        height += _GAP
    sheet = Sheet(height_inches=1.0 + _LANE_INCHES * height)
    axes = sheet.axes[0]
    margin = chosen[0].margin
    axes.axvspan(1 / (1 + margin), 1 + margin, color=BAND, linewidth=0, label="_margin")
    axes.axvline(1.0, color=MUTED, linewidth=1.0, label="_one")
    for contrast in chosen:
        lane = labels.index(contrast.match.candidate)
        row = heights[contrast.label, comparison.where(contrast.match)]
        _draw_ratio(axes, contrast, row + 0.55 * lane, lane)
    axes.set_yticks([heights[row] + 0.275 * (len(labels) - 1) for row in rows])
    axes.set_yticklabels([f"{shortened(name)}, {place}" for name, place in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(height - _GAP, -1)
    _scale(axes, [v for c in chosen for v in (c.low, c.high)], margin)
    axes.set_xlabel(f"times {shortened(comparison.baseline.label)}")
    sentences = [*tallies(comparison), *(line for line, _ in outcome_lines(comparison))]
    return sheet.finish(
        f"Compared with {shortened(comparison.baseline.label)}",
        _subtitle(comparison, chosen, places),
        _handles(chosen, labels),
        sentences,
    )


def _draw_ratio(axes: Axes, contrast: SpeedContrast, y: float, lane: int) -> None:
    colour = COLOURS[lane % len(COLOURS)]
    sure = contrast.has_interval
    axes.plot(
        [contrast.low, contrast.high], [y, y], color=colour, linewidth=1.5,
        linestyle="solid" if sure else (0, (1.5, 1.5)), label="_ends",
    )  # fmt: skip
    axes.plot(
        [contrast.ratio], [y], linestyle="none", marker=MARKERS[lane % len(MARKERS)], markersize=5,
        color=colour, markerfacecolor=colour if sure else PAPER, label="_ratio",
    )  # fmt: skip


def _scale(axes: Axes, ends: Sequence[float], margin: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    room = 1.06
    low, high = min(*ends, 1 / (1 + 2 * margin)) / room, max(*ends, 1 + 2 * margin) * room
    axes.set_xlim(low, high)
    apart = _BETWEEN_TICKS * math.log(high / low)
    ticks: list[float] = []
    for tick in _TICKS:
        if low <= tick <= high and all(abs(math.log(tick / other)) >= apart for other in ticks):
            ticks.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _subtitle(comparison: SpeedComparison, chosen: Sequence[SpeedContrast], places: Sequence[str]) -> str:
    tested = any(c.p_value is not None for c in chosen)
    parts = [comparison.title, "ratios with 95% intervals" if tested else "ratios with their range"]
    parts.append(f"band: {100 * chosen[0].margin:g}% either way")
    n_places = len({comparison.where(c.match) for c in comparison.contrasts})
    if n_places > len(places):
        parts.append(f"{len(places)} of {n_places} places")
    parts += [f"NOT ALIKE: {d.describe()}" for d in comparison.differences if d.loud]
    if comparison.outcomes:
        parts.append("where a side could not run there is no ratio")
    return "; ".join(parts)


def _handles(chosen: Sequence[SpeedContrast], labels: Sequence[str]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    found = [
        Line2D(
            [], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=5,
            label=shortened(label),
        )
        for i, label in enumerate(labels)
    ]  # fmt: skip
    if any(not c.has_interval for c in chosen):
        found.append(
            Line2D(
                [], [], color=MUTED, linestyle=(0, (1.5, 1.5)), marker="o", markersize=5,
                markerfacecolor=PAPER, label="a range: too few processes for an interval",
            )
        )  # fmt: skip
    return found
