"""Loss of the same tokens against the length of the context before them, and its change from the shortest.

Texts differ far more from each other than one text does between two contexts: bands of the change, which are
of paired differences, are the narrow ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.plots import shortened
from mambabench.plots.longcontext.curves import partial_words
from mambabench.plots.longcontext.lengths import (
    Point,
    Series,
    draw_series,
    mark_handles,
    scale_lengths,
    series_of,
    training_words,
)
from mambabench.plots.palette import RULE
from mambabench.plots.speed.looks import Looks, band_words
from mambabench.plots.speed.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.longcontext.table import LongTable

_HEIGHT_INCHES = 2.8
_WIDTH_INCHES = 3.9


def draw_context(table: LongTable) -> DescribedFigure | None:
    """Draw bits per byte by context, and beside it the change of loss; None where no loss was measured."""
    series = series_of(table, "loss", lambda row: row.bits_per_byte)
    if not series:
        return None
    looks = Looks(table.models)
    changes = _changes(table)
    n_panels = 2 if changes else 1
    if n_panels == 2:
        sheet = Sheet(
            2, 2, height_inches=_HEIGHT_INCHES, width_inches=_WIDTH_INCHES, lanes=1, same_values=False
        )
    else:
        sheet = Sheet()
    stops = {t.model: t.found.stops_at_tokens for t in table.trends if t.found.outcome == "stops"}
    for one in series:
        draw_series(sheet.axes[0], one, looks, ring_at=stops.get(one.model))
    scale_lengths(sheet.axes[0], table, "context (tokens)", width_inches=sheet.panel_inches)
    scale_near(sheet.axes[0], "bits per byte")
    if changes:
        axes = sheet.axes[1]
        for one in changes:
            draw_series(axes, one, looks, ring_at=stops.get(one.model))
        axes.axhline(0.0, color=RULE, linewidth=0.9, zorder=1.3)
        scale_lengths(axes, table, "context (tokens)", width_inches=sheet.panel_inches)
        scale_near(axes, "change (nats a token)")
        sheet.axes[0].set_title("Loss", fontweight="bold")
        axes.set_title("Change from the shortest context", fontweight="bold")
    corpora = dict.fromkeys(r.loss.corpus.name for r in table.rows if r.loss is not None)
    notes = [table.title, ", ".join(corpora), "the same tokens at every length"]
    bands = f"bands are 95% intervals{', on the right of paired differences' if changes else ''}"
    notes.append(band_words(len(looks.models), bands))
    return sheet.finish(
        "Loss by context",
        " · ".join(filter(None, [*notes, training_words(table), partial_words(table)])),
        [
            *looks.handles([s.model for s in series]),
            *mark_handles(table, series, looks, "stops falling" if stops else ""),
        ],
        _sentences(table, series),
    )


def scale_near(axes: Axes, label: str) -> None:
    """Set up the vertical axis around the values: a loss has no zero worth showing."""
    from matplotlib.ticker import MaxNLocator

    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    axes.set_ylabel(label)


def _changes(table: LongTable) -> list[Series]:
    found = []
    for trend in table.trends:
        if trend.found.from_shortest:
            lengths = trend.found.lengths
            past = {r.length_tokens: r.past_training_length("loss") for r in table.rows_of(trend.model)}
            points = [Point(lengths[0], 0.0, 0.0, 0.0, past[lengths[0]])]
            points += [
                Point(length, d.value, d.low, d.high, past[length])
                for length, d in zip(lengths[1:], trend.found.from_shortest, strict=True)
            ]
            found.append(Series(trend.model, lengths, tuple(points)))
    return found


def _sentences(table: LongTable, series: Sequence[Series]) -> list[str]:
    said = []
    for one in series:
        ends = [f"{p.value:.3f} bits per byte after {p.length_tokens:,} tokens" for p in one.points]
        text = " to ".join(dict.fromkeys((ends[0], ends[-1])))
        trend = table.trend_of(one.model)
        if trend is not None and trend.found.outcome == "stops":
            text += f"; stops falling at {trend.found.stops_at_tokens:,}"
        if trend is not None and trend.found.rises_from_tokens is not None:
            text += f"; rises from {trend.found.rises_from_tokens:,}"
        said.append(f"{shortened(one.model)}: {text}.")
    return said
