"""Recall against length: one panel a task, with chance, where training ends, and effective contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mambabench.plots import shortened
from mambabench.plots.longcontext.lengths import (
    Figure,
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
    from mambabench.tables.longcontext.table import LongRow, LongTable

CHANCE: dict[str, Any] = {"color": RULE, "linestyle": (0, (4, 2)), "linewidth": 1.1}
_COLUMNS = 3


@dataclass(frozen=True)
class _Panel:
    title: str
    task: str | None
    """Null for the mean."""
    series: list[Series]
    chance: float | None


def draw_curves(table: LongTable) -> DescribedFigure | None:
    """Draw accuracy by length; None where no recall was measured."""
    panels = _panels(table)
    if not panels:
        return None
    looks = Looks(table.models)
    n_columns = 2 if len(panels) in (2, 4) else min(_COLUMNS, len(panels))
    sheet = Sheet(len(panels), n_columns, lanes=1 if len(panels) > 1 else 0)
    said = []
    ringed = False
    for axes, panel in zip(sheet.axes, panels, strict=True):
        for one in panel.series:
            at = effective_at(table, one.model, panel.task)
            ringed |= at is not None
            draw_series(axes, one, looks, factor=100.0, ring_at=at)
            said.append(_sentence(panel, one, at))
        if panel.chance is not None:
            axes.axhline(100 * panel.chance, zorder=1.3, label="_chance", **CHANCE)
        scale_lengths(axes, table, "length (tokens)", width_inches=sheet.panel_inches)
        scale_percent(axes)
        axes.set_title(panel.title if len(panels) > 1 else "", fontweight="bold")
    sheet.label_outer()
    everything = [s for p in panels for s in p.series]
    drawn = [m for m in table.models if any(s.model == m for s in everything)]
    of = "" if len(panels) > 1 else f" in {panels[0].title}"
    chance = [looks.extra("chance", **CHANCE)] if any(p.chance is not None for p in panels) else []
    return sheet.finish(
        f"Recall by length{of}",
        " · ".join(filter(None, [
            table.title, "how often the right choice is the likeliest",
            band_words(len(looks.models), "bands are 95% intervals"), training_words(table),
            partial_words(table),
        ])),
        [
            *looks.handles(drawn),
            *chance,
            *mark_handles(table, everything, looks, "effective context" if ringed else ""),
        ],
        said,
    )  # fmt: skip


def effective_at(table: LongTable, model: str, task: str | None) -> int | None:
    """Return the effective context that is told of a model in a task, or in the mean."""
    effective = table.effective_of(model, task)
    if effective is None or effective.found.shortest_tokens == effective.found.longest_tokens:
        return None
    return effective.headline.length_tokens if effective.found.outcome != "none" else None


def mean_label(table: LongTable) -> str:
    """Return what means are over."""
    n = len(table.mean_tasks)
    return f"mean of {n} tasks" if n > 1 else table.mean_tasks[0]


def scale_percent(axes: Axes) -> None:
    """Set up the vertical axis for shares in percent, with room for markers at both ends."""
    axes.set_ylim(-4, 104)
    axes.set_yticks(range(0, 101, 25))
    axes.set_ylabel("recall (%)")


def partial_words(table: LongTable) -> str:
    """Say so where something is still to be measured."""
    return "partial: not everything was measured" if table.partial else ""


def _panels(table: LongTable) -> list[_Panel]:
    panels = []
    if len(table.mean_tasks) > 1 and (series := series_of(table, "recall", lambda row: row.recall_mean)):
        levels = [e.found.chance for e in table.effective if e.task is None]
        panels.append(_Panel(mean_label(table), None, series, levels[0] if levels else None))
    for task in table.tasks:
        series = series_of(table, "recall", _accuracy(task))
        if series:
            chances = [r.recall[task].chance for r in table.rows if task in r.recall]
            panels.append(_Panel(task, task, series, next((c for c in chances if c is not None), None)))
    return panels


def _accuracy(task: str) -> Callable[[LongRow], Figure | None]:
    return lambda row: row.accuracy(task)


def _sentence(panel: _Panel, series: Series, at: int | None) -> str:
    ends = [f"{100 * p.value:.0f}% at {p.length_tokens:,} tokens" for p in series.points]
    text = " to ".join(dict.fromkeys((ends[0], ends[-1])))
    effective = "" if at is None else f"; effective context {at:,} tokens"
    return f"{panel.title}, {shortened(series.model)}: {text}{effective}."
