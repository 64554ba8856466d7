"""Recall as a map of depth against length: one panel for each model and task.

Colours go from dark to bright in equal steps (cividis, which looks alike to people of any colour vision);
bright is recalled. Chance is marked in the colour bar.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mambabench.plots import shortened
from mambabench.plots.longcontext.curves import partial_words
from mambabench.plots.longcontext.lengths import TRAINING, training_words
from mambabench.plots.palette import BAND, MUTED, ON_CELL_DARK, ON_CELL_LIGHT, RULE, TEXT
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.scales import tokens_text
from mambabench.plots.speed.sheet import Sheet
from mambabench.tables.longcontext.depths import thirds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.long_schema import DepthRecord
    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.longcontext.table import LongTable

MAP = "cividis"
_CELL_INCHES = (0.36, 0.2)
_PANEL_INCHES = ((1.9, 4.6), (0.95, 2.8))
"""Least and greatest width and height inside a panel's frame."""
_AROUND_INCHES = (0.28, 0.3)
_NUMBER_INCHES = (0.25, 0.13)
_BAR_INCHES = 0.9
_MOST_COLUMNS = 4
_WRAPPED_COLUMNS = 3
_WRAPPED_INCHES = 2.3
_MOST_PANELS = 48
"""More maps are not looked at one by one: then each model has one, of the mean over the tasks."""
_WORDS_INCHES = 0.75
"""Model names above all panels, lengths below them."""
_LEAST_INCHES = 1.7
"""Height of all panels together that a colour bar needs."""
_DARK = 0.55
"""Share below which a cell is dark."""


def draw_grid(table: LongTable) -> DescribedFigure | None:
    """Draw accuracy by depth and length; None where no depths were measured."""
    cells = _cells(table)
    if not cells:
        return None
    models = [m for m in table.models if any(m == model for model, _ in cells)]
    tasks = [t for t in table.tasks if any(t == task for _, task in cells)]
    chances, said = _chances(table, tasks), _sentences(table, models, tasks)
    if len(models) * len(tasks) > _MOST_PANELS:
        cells, tasks = _means(cells, models, tasks)
        # A task's chance means nothing for the mean.
        chances, said = [], _mean_sentences(cells)
    lengths = sorted({length for found in cells.values() for length, _ in found})
    depths = sorted({part for n in _n_depths(table) for part in _parts(n)})
    inner = [
        min(most, max(least, cell * n))
        for cell, n, (least, most) in zip(
            _CELL_INCHES, (len(lengths), len(depths)), _PANEL_INCHES, strict=True
        )
    ]
    looks = Looks(table.models)
    # Models side by side are compared best; many of them would make the sheet too wide to read.
    by_model = len(models) <= max(_MOST_COLUMNS, len(tasks))
    pairs = [(t, m) for t in tasks for m in models] if by_model else [(t, m) for m in models for t in tasks]
    n_columns = len(models) if by_model else len(tasks)
    # Many models with one map each fill rows.
    wrapped = len(tasks) == 1 and not by_model
    n_columns = _WRAPPED_COLUMNS if wrapped else n_columns
    n_rows = -(-len(pairs) // n_columns)
    width = inner[0] + _AROUND_INCHES[0]
    # One narrow panel would leave no room for the words above it.
    width = max(width, 6.0 / n_columns) if n_columns < 3 else width
    width = max(width, _WRAPPED_INCHES) if wrapped else width
    inner[1] = max(inner[1], _LEAST_INCHES / n_rows)
    sheet = Sheet(
        len(pairs),
        n_columns,
        height_inches=inner[1] + _AROUND_INCHES[1] + _WORDS_INCHES / n_rows,
        width_inches=width + _BAR_INCHES / n_columns,
    )
    cell_inches = (width - _AROUND_INCHES[0]) / len(lengths), inner[1] / len(depths)
    numbered = all(have >= need for have, need in zip(cell_inches, _NUMBER_INCHES, strict=True))
    image = None
    for place, axes in enumerate(sheet.axes):
        row, column = divmod(place, n_columns)
        task, model = pairs[place]
        found = cells.get((model, task), {})
        image = _draw(axes, found, lengths, depths, numbered=numbered)
        _mark_unsupported(axes, table, model, task, lengths)
        _mark_training(axes, table.training_lengths.get(model), lengths)
        _label(axes, lengths, depths, cell_inches)
        of_model, of_task = (shortened(model), looks.text_colour(model)), (task, TEXT)
        above, beside = (of_model, of_task) if by_model else (of_task, of_model)
        named = column == 0 or wrapped
        axes.set_title(
            beside[0] if named else "", fontweight="bold", color=beside[1], fontsize=8 if wrapped else 9
        )
        if row == 0 and column < len(models if by_model else tasks):
            axes.annotate(
                above[0], (0, 1), xycoords="axes fraction", xytext=(0, 18), textcoords="offset points",
                color=above[1], fontweight="bold", va="bottom", annotation_clip=False,
            )  # fmt: skip
    sheet.label_outer()
    assert image is not None
    _draw_bar(sheet, image, chances, n_rows)
    handles = []
    if any(_boundary(table.training_lengths.get(m), lengths) is not None for m in models):
        handles.append(looks.extra("end of training length", color=TEXT, linestyle=TRAINING, linewidth=1.4))
    if any(r.recall[t].status == "unsupported" for r in table.rows for t in tasks if t in r.recall):
        handles.append(_hatched("unsupported"))
    return sheet.finish(
        "Recall by depth and length",
        " · ".join(filter(None, [
            table.title, "how often the right choice is the likeliest",
            "depth 0% is the beginning", training_words(table), partial_words(table),
        ])),
        handles,
        said,
    )  # fmt: skip


Cells = dict[tuple[int, tuple[float, float]], float]


def _cells(table: LongTable) -> dict[tuple[str, str], Cells]:
    """Return accuracy by length and depth, for each model and task that was measured and has depths."""
    found: dict[tuple[str, str], Cells] = {}
    for row in table.rows:
        for task, record in row.recall.items():
            for part in record.depths:
                cells = found.setdefault((row.model, task), {})
                n = _n_parts(part)
                depth = _parts(n)[round(n * part.depth_low)]
                cells[row.length_tokens, depth] = part.accuracy
    return found


def _means(
    cells: dict[tuple[str, str], Cells], models: Sequence[str], tasks: Sequence[str]
) -> tuple[dict[tuple[str, str], Cells], list[str]]:
    """Return the mean over tasks of each model, where all tasks have a figure, and what it is called."""
    name = f"mean of {len(tasks)} tasks"
    found: dict[tuple[str, str], Cells] = {}
    for model in models:
        mine = [cells.get((model, task), {}) for task in tasks]
        shared = set.intersection(*map(set, mine))
        found[model, name] = {place: statistics.fmean(one[place] for one in mine) for place in shared}
    return found, [name]


def _mean_sentences(cells: Mapping[tuple[str, str], Cells]) -> list[str]:
    said = []
    for (model, name), found in cells.items():
        if found:
            longest = max(length for length, _ in found)
            share = statistics.fmean(v for (length, _), v in found.items() if length == longest)
            said.append(f"{shortened(model)}, {name}: {100 * share:.0f}% at {longest:,} tokens.")
    return said


def _n_depths(table: LongTable) -> set[int]:
    """Return into how many parts records divide what holds answers; most tables have one such number."""
    return {_n_parts(part) for row in table.rows for r in row.recall.values() for part in r.depths}


def _n_parts(part: DepthRecord) -> int:
    return round(1 / (part.depth_high - part.depth_low))


def _parts(n: int) -> list[tuple[float, float]]:
    """Return all equal parts, those without questions too: their rows stay empty."""
    return [(i / n, (i + 1) / n) for i in range(n)]


def _draw(
    axes: Axes, found: Cells, lengths: Sequence[int], depths: Sequence[tuple[float, float]], *, numbered: bool
) -> Any:
    import numpy as np

    shares = np.array([[found.get((length, depth), math.nan) for length in lengths] for depth in depths])
    image = axes.imshow(
        np.ma.masked_invalid(shares), cmap=MAP, vmin=0, vmax=1, aspect="auto", interpolation="none"
    )
    axes.grid(visible=False)
    for (y, x), share in np.ndenumerate(shares):
        if numbered and not math.isnan(share):
            colour = ON_CELL_LIGHT if share < _DARK else ON_CELL_DARK
            axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    return image


def _label(
    axes: Axes,
    lengths: Sequence[int],
    depths: Sequence[tuple[float, float]],
    cell_inches: tuple[float, float],
) -> None:
    texts = [tokens_text(length) for length in lengths]
    step = _step(max(map(len, texts)) * 0.08 + 0.06, cell_inches[0])
    # Counted from the last, so that the longest length is always named.
    places = range(len(lengths) - 1, -1, -step)
    axes.set_xticks(list(places), [texts[i] for i in places])
    step = _step(0.16, cell_inches[1])
    axes.set_yticks(
        range(0, len(depths), step), [f"{100 * (low + high) / 2:.0f}%" for low, high in depths][::step]
    )
    axes.tick_params(length=2)
    axes.set_xlabel("length (tokens)")
    axes.set_ylabel("depth")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _step(needed_inches: float, cell_inches: float) -> int:
    return max(1, math.ceil(needed_inches / cell_inches))


def _mark_unsupported(axes: Axes, table: LongTable, model: str, task: str, lengths: Sequence[int]) -> None:
    from matplotlib.patches import Rectangle

    for row in table.rows_of(model):
        record = row.recall.get(task)
        if record is not None and record.status == "unsupported" and row.length_tokens in lengths:
            x, (bottom, top) = lengths.index(row.length_tokens), axes.get_ylim()
            axes.add_patch(
                Rectangle((x - 0.5, top), 1, bottom - top, **_HATCH, label="_unsupported", linewidth=0)
            )


_HATCH: dict[str, Any] = {"facecolor": BAND, "edgecolor": RULE, "hatch": "////"}


def _hatched(label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(label=label, linewidth=0, **_HATCH)


def _boundary(trained: int | None, lengths: Sequence[int]) -> float | None:
    """Return between which columns a training length ends; None outside what was measured."""
    if trained is None or not lengths[0] <= trained < lengths[-1]:
        return None
    return sum(length <= trained for length in lengths) - 0.5


def _mark_training(axes: Axes, trained: int | None, lengths: Sequence[int]) -> None:
    x = _boundary(trained, lengths)
    if x is not None:
        # White below black shows on dark and bright cells alike.
        axes.axvline(x, color=ON_CELL_LIGHT, linewidth=2.6, label="_training")
        axes.axvline(x, color=ON_CELL_DARK, linewidth=1.4, linestyle=TRAINING, label="_training")


def _chances(table: LongTable, tasks: Sequence[str]) -> list[float]:
    records = [row.recall[task] for row in table.rows for task in tasks if task in row.recall]
    return sorted({round(r.chance, 4) for r in records if r.chance is not None})


def _draw_bar(sheet: Sheet, image: Any, chances: Sequence[float], n_rows: int) -> None:
    bar = sheet.figure.colorbar(
        image, ax=sheet.axes, location="right", shrink=min(1.0, 3.0 / n_rows), pad=0.02
    )
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0%", "25%", "50%", "75%", "100%"])
    bar.ax.tick_params(length=2)
    bar.ax.set_title("recall", fontsize=8.5, pad=6)
    for level in chances:
        bar.ax.axhline(level, color=ON_CELL_LIGHT, linewidth=2.4, label="_chance")
        bar.ax.axhline(level, color=ON_CELL_DARK, linewidth=1.2, label="_chance")
    if chances:
        low, high = chances[0], chances[-1]
        bar.ax.annotate(
            "chance", (0, (low + high) / 2), xycoords=("axes fraction", "data"), xytext=(-3, 0),
            textcoords="offset points", ha="right", va="center", rotation=90, fontsize=7.5, color=MUTED,
            annotation_clip=False,
        )  # fmt: skip


def _sentences(table: LongTable, models: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Say recall by thirds of what holds answers at the longest length that has them."""
    said = []
    for task in tasks:
        for model in models:
            rows = [r for r in table.rows_of(model) if task in r.recall and thirds(r.recall[task])]
            if rows:
                parts = [
                    f"{100 * t.accuracy:.0f}% in the {t.name} third" for t in thirds(rows[-1].recall[task])
                ]
                said.append(
                    f"{task}, {shortened(model)} at {rows[-1].length_tokens:,} tokens: {', '.join(parts)}."
                )
    return said
