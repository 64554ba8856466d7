"""A figure whose sweep has one length and one batch size: a row for each model and variant.

A line of one point shows nothing, so each row shows its figure in words as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mambabench.plots.speed.lanes import failure_words, has_failed
from mambabench.plots.speed.quantity import Quantity, within_reach
from mambabench.plots.speed.scales import scale_values, tokens_text
from mambabench.plots.speed.series import Plan, past_training
from mambabench.plots.speed.sheet import Sheet
from mambabench.plots.speed.words import in_words, mark_handles, sentences, subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.plots.speed.looks import Looks
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

_ROW_INCHES = 0.27
_HALF_ROW = 0.36


def draw_rows(table: SpeedTable, what: Quantity, plan: Plan, looks: Looks) -> DescribedFigure:
    """Draw a quantity of each line's only point."""
    series = plan.series
    references = [what.references(table, plan.x, s) for s in series]
    kept, log, notes = within_reach([r for refs in references for r in refs], what.heights(series))
    sheet = Sheet(height_inches=0.75 + _ROW_INCHES * len(series))
    (axes,) = sheet.axes
    for y, (one, refs) in enumerate(zip(series, references, strict=True)):
        _draw_row(axes, y, one.rows[0], what, looks, one.label)
        for reference in (r for r in refs if r in kept):
            axes.plot([reference.top] * 2, [y - _HALF_ROW, y + _HALF_ROW], **reference.style(looks))
    axes.set_yticks(range(len(series)), [s.label for s in series])
    axes.set_ylim(len(series) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    values = [*what.heights(series), *(r.top for r in kept)]
    scale_values(axes, values, what.unit, what.words, log=log, vertical=False)
    x = plan.xs[0]
    place = f"prompt of {tokens_text(x)} tokens" if plan.x == "prompt_len_tokens" else f"batch {x:,}"
    return sheet.finish(
        what.title,
        subtitle(table, plan.rows, [*plan.notes, place, *notes], what, drawn="bars"),
        mark_handles(plan, looks, kept),
        sentences(plan, what),
    )


def _draw_row(axes: Axes, y: int, row: SpeedRow, what: Quantity, looks: Looks, label: str) -> None:
    found = what.of(row)
    failed = failure_words([row])
    colour = looks.colour(row.point.model)
    if found is not None:
        style = looks.marker_style(row.point.model, hollow=past_training(row))
        axes.plot([found.low, found.high], [y, y], color=colour, label=f"_band {label}")
        axes.plot([found.value], [y], label=label, **style)
    if has_failed(row):
        axes.plot(
            [1.0], [y], transform=axes.get_yaxis_transform(), clip_on=False, linestyle="none", marker="x",
            markersize=4.5, markeredgewidth=1.5, color=colour, label="_failed",
        )  # fmt: skip
    words = ", ".join(filter(None, ("" if found is None else in_words(found, what.unit), failed)))
    axes.annotate(
        words, (1.0, y), xycoords=axes.get_yaxis_transform(), xytext=(8, 0), textcoords="offset points",
        va="center", annotation_clip=False,
    )  # fmt: skip
