"""The zero-shot profile: each model's accuracy in each task, with its interval, chance and published figure.

    figure = draw_profile(runs.frame("scores"))     # of all runs; None without accuracies
    figure = zeroshot_profile(table)                # of one run's table

A task is a row and a model a mark in it, in the order of the legend from above. Of many models marks are
smaller and closer; of more than can be told apart the best few have their colours and the others are grey.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mambabench.errors import UsageError
from mambabench.plots.checkpoints import last_steps
from mambabench.plots.palette import BAND, MUTED, RULE
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.sheet import Sheet, sheet_style
from mambabench.tables.compare.format import harmless
from mambabench.tables.compare.names import apart

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.zeroshot import ZeroshotTable

_WIDTH_INCHES: Final = 7.2
_MOST_INCHES: Final = 24.0
_AROUND_INCHES: Final = 0.75
_STEPS_INCHES: Final = ((3, 0.16), (8, 0.11), (14, 0.06), (20, 0.042), (math.inf, 0.0))
"""Between the marks of a row, by the number of models."""
_GAP_INCHES: Final = (0.26, 0.12)
"""Between the rows: where there is room, and at least."""
_MARKER_POINTS: Final = ((3, 5.5), (8, 4.6), (14, 3.9), (math.inf, 3.4))
_MOST_APART: Final = 20
"""Models whose marks can be told apart; of more only so many as below have a colour."""
_N_BEST: Final = 5
_LONGEST_LABEL: Final = 30
_TALL_INCHES: Final = 8.0
_MOST_TASKS_SAID: Final = 12
_CHANCE: Final[dict[str, Any]] = {"color": RULE, "linestyle": (0, (2, 1.5)), "linewidth": 1.3}
_CHANCE_ROOM_INCHES: Final = 0.03
_TICKS: Final = 10
_FINE_PERCENT: Final = 60


@dataclass(frozen=True)
class _Score:
    """One accuracy in percent."""

    model: str
    task: str
    label: str
    metric: str
    value: float
    low: float
    high: float
    chance: float
    reference: float
    """NaN for all that is missing."""

    @property
    def row(self) -> tuple[str, str]:
        return self.task, self.metric


@dataclass(frozen=True)
class _Row:
    """One task: where it lies, in inches from the top, and its marks with their places."""

    top: float
    bottom: float
    marks: tuple[tuple[_Score, float], ...]


def zeroshot_profile(table: ZeroshotTable) -> DescribedFigure:
    """Draw each accuracy of a zero-shot table with its 95% interval, chance and published figure.

    Args:
        table: rows in percent are drawn, one a task; perplexities have no place on the axis.

    Raises:
        UsageError: when the table holds no accuracy.
    """
    found = [
        _Score(r.model, r.task, r.label, r.metric,
               *(math.nan if v is None else v for v in (r.value, r.low, r.high, r.chance, r.reference)))
        for r in table.rows
        if r.unit == "%"
    ]  # fmt: skip
    figure = _draw(_one_a_task(found), table.models, table.title or table.suite, partial=table.partial)
    if figure is None:
        raise UsageError(f"suite {table.suite} has no accuracies to draw")
    return figure


def draw_profile(scores: pd.DataFrame) -> DescribedFigure | None:
    """Draw the accuracies of a frame `scores` by label, those of several runs beside each other.

    Returns:
        The figure; None where no model has an accuracy.
    """
    shown = scores[scores["unit"] == "%"]
    columns = ("label", "task", "task_label", "metric", "value", "interval_low", "interval_high", "chance",
               "reference")  # fmt: skip
    found = [_Score(*row) for row in zip(*(shown[name].tolist() for name in columns), strict=True)]
    few = shown["n_items"] < shown["n_items_total"]
    every = tuple(dict.fromkeys(shown["label"]))
    kept = last_steps(every) if len(every) > _MOST_APART else every
    return _draw(
        _one_a_task([score for score in found if score.model in kept]), every, "Zero-shot accuracy",
        partial=bool(few.fillna(False).any()),
        note="of each run of training the last step" if len(kept) < len(every) else "",
    )  # fmt: skip


def _one_a_task(found: Sequence[_Score]) -> list[_Score]:
    """Return one accuracy a model and task, the first: tables have the headline there."""
    chosen: dict[tuple[str, str], _Score] = {}
    for score in found:
        if math.isfinite(score.value):
            chosen.setdefault((score.model, score.task), score)
    return list(chosen.values())


def _draw(
    scores: Sequence[_Score], every: Sequence[str], title: str, *, partial: bool, note: str = ""
) -> DescribedFigure | None:
    models = [m for m in every if any(s.model == m for s in scores)]
    if not models:
        return None
    looks = Looks(every)
    bright = models if len(models) <= _MOST_APART else _best(scores, models)
    rows = _rows(scores, models)
    height = rows[-1].bottom
    with sheet_style():
        sheet = Sheet(height_inches=_AROUND_INCHES + height, width_inches=_WIDTH_INCHES)
        (axes,) = sheet.axes
        _draw_ground(axes, rows)
        for model in models:
            mine = [(s, y) for row in rows for s, y in row.marks if s.model == model]
            _draw_model(axes, mine, looks, model, len(models), grey=model not in bright)
        _name_rows(axes, rows)
        _limit(axes, scores)
        return sheet.finish(
            harmless(title),
            " · ".join(filter(None, [
                "how many items are answered right, in percent",
                "lines are 95% intervals" if len(models) <= _MOST_APART else "",
                note,
                "partial: not all items were scored" if partial else "",
            ])),
            _handles(scores, looks, models, bright),
            list(_sentences(scores, models, len(rows))),
        )  # fmt: skip


def _rows(scores: Sequence[_Score], models: Sequence[str]) -> list[_Row]:
    """Lay out the rows: each as high as its marks need, and all of them no higher than a page holds."""
    by_row: dict[tuple[str, str], list[_Score]] = {}
    for score in scores:
        by_row.setdefault(score.row, []).append(score)
    step, gap = _by_count(_STEPS_INCHES, max(map(len, by_row.values()))), _GAP_INCHES[0]
    n_steps = sum(len(mine) - 1 for mine in by_row.values())
    if n_steps * step + len(by_row) * gap > _MOST_INCHES:
        gap = max(_GAP_INCHES[1], 0.4 * _MOST_INCHES / len(by_row))
        step = min(step, max(0.0, _MOST_INCHES - len(by_row) * gap) / max(1, n_steps))
    rows = []
    top = 0.0
    for mine in by_row.values():
        mine.sort(key=lambda s: models.index(s.model))
        bottom = top + gap + (len(mine) - 1) * step
        marks = tuple((s, top + gap / 2 + place * step) for place, s in enumerate(mine))
        rows.append(_Row(top, bottom, marks))
        top = bottom
    return rows


def _by_count(steps: Sequence[tuple[float, float]], n: int) -> float:
    return next(value for most, value in steps if n <= most)


def _best(scores: Sequence[_Score], models: Sequence[str]) -> list[str]:
    """Return the models that are best against the mean of each task that they have, in their order."""
    by_task: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        by_task.setdefault(score.row, []).append(score.value)
    means = {row: statistics.fmean(values) for row, values in by_task.items()}
    above = {m: statistics.fmean(s.value - means[s.row] for s in scores if s.model == m) for m in models}
    chosen = sorted(models, key=lambda m: -above[m])[:_N_BEST]
    return [m for m in models if m in chosen]


def _draw_ground(axes: Axes, rows: Sequence[_Row]) -> None:
    """Shade every other row, and mark chance in each."""
    for row in rows[1::2]:
        axes.axhspan(row.top, row.bottom, color=BAND, alpha=0.55, linewidth=0, zorder=0, label="_row")
    for row in rows:
        levels = {s.chance for s, _ in row.marks if not math.isnan(s.chance)}
        for level in levels:
            ends = [row.top + _CHANCE_ROOM_INCHES, row.bottom - _CHANCE_ROOM_INCHES]
            axes.plot([level] * 2, ends, label="_chance", **_CHANCE)


def _draw_model(
    axes: Axes,
    mine: Sequence[tuple[_Score, float]],
    looks: Looks,
    model: str,
    n_models: int,
    *,
    grey: bool,
) -> None:
    points = _by_count(_MARKER_POINTS, n_models)
    colour = RULE if grey else looks.colour(model)
    ys = [y for _, y in mine]
    if n_models <= _MOST_APART:
        crowded = n_models > _STEPS_INCHES[1][0]
        axes.hlines(
            ys, [s.low for s, _ in mine], [s.high for s, _ in mine], color=colour,
            linewidth=0.9 if crowded else 1.6, alpha=0.6 if crowded else 1.0, label=f"_interval {model}",
        )  # fmt: skip
        published = [(s.reference, y) for s, y in mine if not math.isnan(s.reference)]
        if published:
            axes.plot(
                *zip(*published, strict=True), marker="|", markersize=2.1 * points, markeredgewidth=1.3,
                linestyle="none", color=colour, label=f"_published {model}",
            )  # fmt: skip
    style = looks.marker_style(model) | {"markersize": points}
    if grey:
        style |= {"color": RULE, "markerfacecolor": RULE, "marker": "o", "markeredgewidth": 0, "alpha": 0.5}
    axes.plot(
        [s.value for s, _ in mine], ys, linestyle="none", label=f"_{model}" if grey else model,
        zorder=2.5 if grey else 3, **style,
    )  # fmt: skip


def _name_rows(axes: Axes, rows: Sequence[_Row]) -> None:
    first = [row.marks[0][0] for row in rows]
    shown = apart((harmless(s.label) for s in first), _LONGEST_LABEL)
    axes.set_yticks(
        [(row.top + row.bottom) / 2 for row in rows],
        [f"{shown[harmless(s.label)]} ({harmless(s.metric)})" for s in first],
    )
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(rows[-1].bottom, 0)
    axes.spines["left"].set_visible(False)
    # Of a long figure the end is not seen with the beginning.
    tall = rows[-1].bottom > _TALL_INCHES
    axes.tick_params(axis="x", top=tall, labeltop=tall)


def _limit(axes: Axes, scores: Sequence[_Score]) -> None:
    """Show the tens around all figures."""
    ends = [v for s in scores for v in (s.value, s.low, s.high, s.chance, s.reference) if math.isfinite(v)]
    low = max(0, math.floor((min(ends) - 1) / _TICKS) * _TICKS)
    high = min(100, math.ceil((max(ends) + 1) / _TICKS) * _TICKS)
    # Room for the markers at both ends of the scale.
    axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    every = _TICKS if high - low <= _FINE_PERCENT else 2 * _TICKS
    axes.set_xticks([tick for tick in range(0, 101, every) if low <= tick <= high])
    axes.set_xlabel("accuracy (%)")


def _handles(
    scores: Sequence[_Score], looks: Looks, models: Sequence[str], bright: Sequence[str]
) -> list[Line2D]:
    handles = looks.handles(bright, lines=False)
    if len(bright) < len(models):
        handles.append(
            looks.extra(f"{len(models) - len(bright)} others", color=RULE, marker="o", markersize=3.4)
        )
    elif any(not math.isnan(s.reference) for s in scores):
        handles.append(looks.extra("published", color=MUTED, marker="|", markersize=11, markeredgewidth=1.3))
    if any(not math.isnan(s.chance) for s in scores):
        handles.append(looks.extra("chance", **_CHANCE))
    return handles


def _sentences(scores: Sequence[_Score], models: Sequence[str], n_rows: int) -> Iterator[str]:
    for model in models:
        mine = [s for s in scores if s.model == model]
        parts = [_said(s) for s in mine]
        if n_rows > _MOST_TASKS_SAID:
            worst, best = (pick(mine, key=lambda s: s.value) for pick in (min, max))
            mean = statistics.fmean(s.value for s in mine)
            parts = [f"{mean:.1f}% in the mean of {len(mine)} tasks", *map(_said, (worst, best))]
        yield f"{harmless(model)}: {', '.join(parts)}."


def _said(score: _Score) -> str:
    return f"{harmless(score.label)} {score.value:.1f}%"
