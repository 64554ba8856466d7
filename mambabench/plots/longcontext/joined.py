"""What a length gives and what it costs, one above the other on one axis of lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mambabench.plots import shortened
from mambabench.plots.longcontext.context import scale_near
from mambabench.plots.longcontext.curves import (
    CHANCE,
    effective_at,
    mean_label,
    partial_words,
    scale_percent,
)
from mambabench.plots.longcontext.lengths import (
    Figure,
    Point,
    Series,
    draw_series,
    mark_handles,
    scale_lengths,
    series_of,
    training_words,
)
from mambabench.plots.speed.lanes import FAILED_WORDS
from mambabench.plots.speed.looks import Looks, band_words
from mambabench.plots.speed.scales import Unit, quantity, scale_values, spans_decades
from mambabench.plots.speed.sheet import Sheet, above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.longcontext.table import LongRow, LongTable

_HEIGHT_INCHES = 1.45
_LANE_POINTS = (6.0, 10.0)


@dataclass(frozen=True)
class _Held:
    """State bytes as a figure without an interval."""

    value: float
    low: None = None
    high: None = None


def _state(row: LongRow) -> Figure | None:
    return None if row.state_bytes is None else _Held(float(row.state_bytes))


_COSTS: tuple[tuple[str, Unit, Callable[[LongRow], Figure | None]], ...] = (
    ("first token", "s", lambda row: row.ttft_s),
    ("later tokens", "s", lambda row: row.tpot_s),
    ("peak memory", "bytes", lambda row: row.peak_bytes),
    ("state", "bytes", _state),
)


def draw_joined(table: LongTable) -> DescribedFigure | None:
    """Draw recall and loss above times and memory; None where cost, or everything else, was not measured."""
    looks = Looks(table.models)
    recall = series_of(table, "recall", lambda row: row.recall_mean)
    loss = series_of(table, "loss", lambda row: row.bits_per_byte)
    costs = [(name, unit, found) for name, unit, of in _COSTS if (found := series_of(table, "cost", of))]
    if not costs or not (recall or loss):
        return None
    failed = _failures(table)
    n_panels = bool(recall) + bool(loss) + len(costs)
    sheet = Sheet(n_panels, height_inches=_HEIGHT_INCHES, width_inches=7.2, same_values=False)
    panels = iter(sheet.axes)
    said: list[str] = []
    ringed = False
    levels: list[float] = []
    if recall:
        axes = next(panels)
        for one in recall:
            at = effective_at(table, one.model, None)
            ringed |= at is not None
            draw_series(axes, one, looks, factor=100.0, ring_at=at)
            said.append(_sentence("recall", one, lambda value: f"{100 * value:.0f}%"))
        levels = [e.found.chance for e in table.effective if e.task is None or len(table.mean_tasks) == 1]
        if levels:
            axes.axhline(100 * levels[0], zorder=1.3, label="_chance", **CHANCE)
        scale_percent(axes)
    if loss:
        axes = next(panels)
        for one in loss:
            draw_series(axes, one, looks)
            said.append(_sentence("loss", one, lambda value: f"{value:.3f} bits per byte"))
        scale_near(axes, "bits per byte")
    for place, (name, unit, found) in enumerate(costs):
        axes = next(panels)
        values = [v for s in found for p in s.points for v in _ends(p)]
        for one in found:
            draw_series(axes, one, looks)
            said.append(_sentence(name, one, partial(quantity, unit=unit)))
        scale_values(axes, values, unit, name, log=spans_decades(values))
        if place == 0:
            _draw_failures(axes, failed, looks)
    for axes in sheet.axes:
        scale_lengths(axes, table, "length (tokens)", width_inches=sheet.panel_inches)
    sheet.label_outer()
    sheet.figure.align_ylabels(sheet.axes)
    drawn = [m for m in table.models if any(s.model == m for s in [*recall, *loss, *costs[0][2]])]
    everything = [*recall, *loss, *(s for _, _, found in costs for s in found)]
    handles = [
        *looks.handles(drawn),
        *([looks.extra("chance", **CHANCE)] if levels else []),
        *mark_handles(table, everything, looks, "effective context" if ringed else ""),
    ]
    notes = [f"recall is the {mean_label(table)}" if len(table.mean_tasks) > 1 else ""]
    if len(table.mean_tasks) == 1 and recall:
        notes = [f"recall in {mean_label(table)}"]
    return sheet.finish(
        "What a length gives, and what it costs",
        " · ".join(filter(None, [
            table.title, *notes,
            band_words(
                len(looks.models),
                _band_words([*recall, *loss], [s for _, _, found in costs for s in found]),
            ),
            training_words(table), partial_words(table),
        ])),
        handles,
        [*said, *(f"{model}: cost {word} at {', '.join(f'{n:,}' for n in lengths)} tokens."
                  for model, word, lengths in failed)],
    )  # fmt: skip


def _band_words(given: list[Series], costs: list[Series]) -> str:
    """Say what bands are, of what has any: one process gives a cost without."""

    def has_band(series: list[Series]) -> bool:
        ends = [(p.low, p.high) for s in series for p in s.points]
        return any(low is not None and high is not None and low < high for low, high in ends)

    if not has_band(costs):
        return "bands are 95% intervals" if has_band(given) else ""
    return "bands are 95% intervals, of costs ranges where processes are few"


def _failures(table: LongTable) -> list[tuple[str, str, list[int]]]:
    """Return models with what their cost ended in, and the lengths."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in table.rows:
        if row.cost is not None and row.cost.status in FAILED_WORDS:
            found.setdefault((row.model, FAILED_WORDS[row.cost.status]), []).append(row.length_tokens)
    return [(model, word, lengths) for (model, word), lengths in found.items()]


def _draw_failures(axes: Axes, failed: list[tuple[str, str, list[int]]], looks: Looks) -> None:
    """Mark failures above the frame, a line of text for each model and way of failing."""
    from matplotlib.lines import Line2D

    for lane, (model, word, lengths) in enumerate(failed):
        where = above(axes, _LANE_POINTS[0] + lane * _LANE_POINTS[1])
        axes.add_artist(
            Line2D(
                lengths, [1.0] * len(lengths), color=looks.colour(model), linestyle="none", marker="x",
                markersize=4.5, markeredgewidth=1.5, clip_on=False, transform=where, label="_failed",
            )
        )  # fmt: skip
        axes.annotate(
            f"{shortened(model)}: {word}", (lengths[0], 1.0), xycoords=where, xytext=(-7, 0),
            textcoords="offset points", color=looks.text_colour(model), fontsize=7.5, ha="right",
            va="center_baseline", annotation_clip=False,
        )  # fmt: skip


def _ends(point: Point) -> list[float]:
    return [v for v in (point.low, point.value, point.high) if v is not None]


def _sentence(name: str, series: Series, write: Callable[[float], str]) -> str:
    ends = [f"{write(p.value)} at {p.length_tokens:,} tokens" for p in series.points]
    return f"{shortened(series.model)}, {name}: {' to '.join(dict.fromkeys((ends[0], ends[-1])))}."
