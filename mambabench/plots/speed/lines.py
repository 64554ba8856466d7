"""Figures of a table as lines against length or batch size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mambabench.plots.palette import FAINT
from mambabench.plots.speed.lanes import draw_lanes, has_failed, lanes, lanes_points, n_lanes
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.quantity import Quantity, Reference, within_reach
from mambabench.plots.speed.rows import draw_rows
from mambabench.plots.speed.scales import scale_counts, scale_values
from mambabench.plots.speed.series import Axis, Plan, Series, at, past_training, plan
from mambabench.plots.speed.sheet import Sheet
from mambabench.plots.speed.words import mark_handles, sentences, subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.speed.table import SpeedTable

_BY: dict[Axis, str] = {"prompt_len_tokens": "prompt length", "batch_size": "batch size"}
_LABELS: dict[Axis, str] = {"prompt_len_tokens": "prompt (tokens)", "batch_size": "batch size"}


def draw_quantity(table: SpeedTable, what: Quantity) -> DescribedFigure | None:
    """Draw a figure of all rows; None where no row has it."""
    if all(what.of(r) is None for r in table.rows):
        return None
    kept = [r for r in table.rows if what.of(r) is not None or has_failed(r)]
    laid_out = plan(table.models, kept, what.preferred)
    looks = Looks(table.models, laid_out.variants)
    draw = draw_rows if len(laid_out.xs) == 1 else _draw_lines
    return draw(table, what, laid_out, looks)


def _draw_lines(table: SpeedTable, what: Quantity, laid_out: Plan, looks: Looks) -> DescribedFigure:
    panels = laid_out.panels
    references = [[r for s in p.series for r in what.references(table, laid_out.x, s)] for p in panels]
    heights = what.heights(laid_out.series)
    kept, log, notes = within_reach([r for refs in references for r in refs], heights)
    width_inches = Sheet(len(panels), laid_out.n_columns).panel_inches
    found = [lanes(laid_out, panel, width_inches) for panel in panels]
    titled = any(panel.title for panel in panels)
    sheet = Sheet(len(panels), laid_out.n_columns, lanes=max(map(n_lanes, found)) + titled)
    by_depth = what.depth and laid_out.x == "prompt_len_tokens"
    label = "depth (tokens in the prompt)" if by_depth else _LABELS[laid_out.x]
    for axes, panel, refs, lane in zip(sheet.axes, panels, references, found, strict=True):
        for series in panel.muted:
            xs, ys = what.curve(series, laid_out.x)
            axes.plot(xs, ys, color=FAINT, linewidth=1.2, zorder=1.2, label="_muted")
        for reference in dict.fromkeys(r for r in refs if r in kept):
            _draw_reference(axes, reference, looks)
        for series in panel.series:
            _draw_series(axes, series, laid_out.x, what, looks)
        draw_lanes(axes, lane, laid_out, looks)
        axes.set_title(panel.title, fontweight="bold", pad=4 + lanes_points(lane))
        scale_counts(axes, laid_out.xs, label, width_inches=width_inches)
        values = [*heights, *(v for r in kept for _, v in r.rows)]
        scale_values(axes, values, what.unit, what.words, log=log)
    sheet.label_outer()
    drawn = {s.model for s in laid_out.series}
    shown = [] if laid_out.by_model else [m for m in laid_out.models if m in drawn]
    return sheet.finish(
        f"{what.title} by {'depth' if by_depth else _BY[laid_out.x]}",
        subtitle(table, laid_out.rows, [*laid_out.notes, *notes], what),
        [*looks.handles(shown), *mark_handles(laid_out, looks, kept)],
        sentences(laid_out, what),
    )


def _draw_series(axes: Axes, series: Series, x: Axis, what: Quantity, looks: Looks) -> None:
    colour = looks.colour(series.model)
    xs, ys = what.curve(series, x)
    axes.plot(xs, ys, color=colour, linestyle=looks.line_style(series.variant), label=series.label)
    found = {at(r, x): (e, past_training(r)) for r in series.rows if (e := what.of(r)) is not None}
    if len(found) == 1:
        for place, (e, _) in found.items():
            axes.plot([place, place], [e.low, e.high], color=colour, label=f"_band {series.label}")
    else:
        low = [found[p][0].low if p in found else math.nan for p in xs]
        high = [found[p][0].high if p in found else math.nan for p in xs]
        axes.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0, label=f"_band {series.label}")
    for hollow in (False, True):
        marked = [(p, e.value) for p, (e, past) in found.items() if past == hollow]
        if marked:
            axes.plot(
                *zip(*marked, strict=True), linestyle="none", zorder=3,
                label="_past" if hollow else "_within", **looks.marker_style(series.model, hollow=hollow),
            )  # fmt: skip


def _draw_reference(axes: Axes, reference: Reference, looks: Looks) -> None:
    style = reference.style(looks) | {"zorder": 1.8}
    if reference.model is None:
        axes.axhline(reference.top, **style)
    else:
        axes.plot(*zip(*reference.rows, strict=True), **style)
