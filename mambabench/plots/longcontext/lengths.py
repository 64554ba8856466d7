"""What figures over length share: lines of rows with bands and rings, where training ends, the axis.

series = series_of(table, "recall", lambda row: row.accuracy("needle"))
draw_series(axes, series[0], looks, factor=100.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mambabench.plots import shortened
from mambabench.plots.palette import MUTED, PAPER, RULE
from mambabench.plots.speed.looks import band_opacity
from mambabench.plots.speed.scales import scale_counts, tokens_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from mambabench.plots.speed.looks import Looks
    from mambabench.tables.longcontext.table import LongRow, LongTable

TRAINING = (0, (1, 1.5))
"""Line style of the end of a training length."""
_RING_POINTS = 10.5


class Figure(Protocol):
    """A figure of a row: a measurement of items, or an estimate over processes."""

    @property
    def value(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True)
class Point:
    """A figure at a length."""

    length_tokens: int
    value: float
    low: float | None
    high: float | None
    hollow: bool
    """Whether it lies past the model's training length."""


@dataclass(frozen=True)
class Series:
    """A model's figures by length; lengths between them without a figure break its line."""

    model: str
    lengths: tuple[int, ...]
    points: tuple[Point, ...]

    def at(self, length_tokens: int) -> Point | None:
        """Return the figure at a length."""
        return next((p for p in self.points if p.length_tokens == length_tokens), None)


def series_of(
    table: LongTable, what: Literal["recall", "loss", "cost"], figure: Callable[[LongRow], Figure | None]
) -> list[Series]:
    """Return a line of each model that has the figure, which belongs to a part of the rows, anywhere."""
    found = []
    for model in table.models:
        rows = table.rows_of(model)
        points = tuple(
            Point(row.length_tokens, one.value, one.low, one.high, row.past_training_length(what))
            for row in rows
            if (one := figure(row)) is not None
        )
        if points:
            asked = tuple(
                r.length_tokens
                for r in rows
                if points[0].length_tokens <= r.length_tokens <= points[-1].length_tokens
            )
            found.append(Series(model, asked, points))
    return found


def draw_series(
    axes: Axes, series: Series, looks: Looks, *, factor: float = 1.0, ring_at: int | None = None
) -> None:
    """Draw a line with its band, markers and ring.

    Args:
        axes: to draw on.
        series: what to draw.
        looks: of the table's models.
        factor: of values: 100 for percentages.
        ring_at: the length to mark with a ring, such as an effective context.
    """
    name, colour = shortened(series.model), looks.colour(series.model)
    points = [series.at(length) for length in series.lengths]
    opacity = band_opacity(len(looks.models))
    xs = list(series.lengths)
    axes.plot(xs, [math.nan if p is None else factor * p.value for p in points], color=colour, label=name)
    ends = [
        (math.nan, math.nan) if p is None or p.low is None or p.high is None else (p.low, p.high)
        for p in points
    ]
    low, high = ([factor * end[side] for end in ends] for side in (0, 1))
    if len(points) == 1:
        axes.plot([xs[0], xs[0]], [low[0], high[0]], color=colour, label=f"_band {name}")
    elif opacity and not all(map(math.isnan, low)):
        axes.fill_between(xs, low, high, color=colour, alpha=opacity, linewidth=0, label=f"_band {name}")
    for hollow in (False, True):
        marked = [(p.length_tokens, factor * p.value) for p in series.points if p.hollow == hollow]
        if marked:
            axes.plot(
                *zip(*marked, strict=True), linestyle="none", zorder=3,
                label="_past" if hollow else "_within", **looks.marker_style(series.model, hollow=hollow),
            )  # fmt: skip
    ringed = None if ring_at is None else series.at(ring_at)
    if ringed is not None:
        axes.plot(
            [ringed.length_tokens], [factor * ringed.value], linestyle="none", zorder=4, clip_on=False,
            label=f"_ring {name}", **ring_style(colour),
        )  # fmt: skip


def ring_style(colour: str) -> dict[str, Any]:
    """Return matplotlib's settings of a ring around a marker."""
    return {
        "marker": "o", "markersize": _RING_POINTS, "markerfacecolor": "none", "markeredgecolor": colour,
        "markeredgewidth": 1.2,
    }  # fmt: skip


def scale_lengths(axes: Axes, table: LongTable, label: str, *, width_inches: float) -> None:
    """Set up a horizontal axis of equal steps for equal factors of the length, and mark training lengths."""
    lengths = table.lengths
    ends = (lengths[0] // 2 or 1, lengths[0] * 2) if len(lengths) == 1 else None
    scale_counts(axes, lengths, label, width_inches=width_inches, ends=ends, log=True)
    for length in training_lengths(table):
        axes.axvline(length, color=RULE, linestyle=TRAINING, linewidth=1.1, zorder=1.4, label="_training")


def training_lengths(table: LongTable) -> dict[int, list[str]]:
    """Return models by their training length, of those that lie within what was measured."""
    found: dict[int, list[str]] = {}
    for model in table.models:
        length = table.training_lengths.get(model)
        if length is not None and table.lengths[0] <= length <= table.lengths[-1]:
            found.setdefault(length, []).append(model)
    return dict(sorted(found.items()))


def training_words(table: LongTable) -> str:
    """Say what models were trained on; empty where that is not known or not within the measured lengths."""
    found = training_lengths(table)
    if not found:
        return ""
    if len(found) == 1 and sum(map(len, found.values())) == len(table.models):
        return f"trained on {tokens_text(next(iter(found)))} tokens"
    return "trained on " + "; ".join(
        f"{tokens_text(length)} tokens: {', '.join(map(shortened, models))}"
        for length, models in found.items()
    )


def mark_handles(table: LongTable, series: Sequence[Series], looks: Looks, ring: str = "") -> list[Line2D]:
    """Return the legend's entries besides models: marks past training, its end, and what a ring means."""
    handles = []
    if any(p.hollow for s in series for p in s.points):
        handles.append(
            looks.extra("past training length", marker="o", markerfacecolor=PAPER, markeredgewidth=1.3)
        )
    if training_lengths(table):
        handles.append(looks.extra("end of training length", color=RULE, linestyle=TRAINING, linewidth=1.1))
    if ring:
        handles.append(looks.extra(ring, **ring_style(MUTED)))
    return handles
