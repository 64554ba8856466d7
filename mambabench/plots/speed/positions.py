"""Inter-token latency step by step within the generation."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from mambabench.plots import shortened
from mambabench.plots.palette import tint
from mambabench.plots.speed.looks import LINE_STYLES, Looks
from mambabench.plots.speed.scales import quantity, scale_values, spans_decades, tokens_text
from mambabench.plots.speed.series import (
    MOST_LINES,
    MOST_MODEL_PANELS,
    chunks,
    constants,
    facet_words,
    few,
    variants,
)
from mambabench.plots.speed.sheet import Sheet
from mambabench.plots.speed.words import subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

_MOST_LENGTHS = 3
_SPIKE = 3.0
"""Steps that take so many times the slowest line's median end at the frame, marked."""
_N_MARKERS = 5
_TINTS = (0.0, 0.25, 0.45)


def draw_positions(table: SpeedTable) -> DescribedFigure | None:
    """Draw one line for each model and length; None where no steps were measured.

    Of many lengths the shortest, the middle and the longest that all models reached are drawn; of many batch
    sizes the smallest.
    """
    measured = [r for r in table.rows if r.itl_s_by_position]
    if not measured:
        return None
    batch_size = min(r.point.batch_size for r in measured)
    rows = [r for r in measured if r.point.batch_size == batch_size]
    names = variants(rows)
    lengths = _lengths(rows)
    kept = [r for r in rows if r.point.prompt_len_tokens in lengths]
    panels, by_model = _panels(kept, table.models)
    looks = Looks(table.models)
    n_columns = 2 if len(panels) == 4 else min(3, len(panels))
    sheet = Sheet(len(panels), n_columns, lanes=1)
    top, spikes = _top(kept)
    for axes, (title, mine) in zip(sheet.axes, panels, strict=True):
        for row in mine:
            _draw(axes, row, lengths, looks, top, marked=not by_model)
        axes.set_title(title, fontweight="bold", pad=10)
        longest = max(len(r.itl_s_by_position) for r in kept) + 1
        axes.set_xlim(2 - 0.02 * longest, longest * 1.02)
        axes.set_xlabel("position within the generation (tokens)")
        values = [min(v, top) for r in kept for v in r.itl_s_by_position]
        scale_values(axes, values, "s", "inter-token latency", log=spans_decades(values))
    sheet.label_outer()
    notes = [*constants(kept), facet_words("batch_size", batch_size)]
    if (n := len({r.point.batch_size for r in measured})) > 1:
        notes.append(f"smallest of {n} batch sizes")
    if len(lengths) < (n := len({r.point.prompt_len_tokens for r in rows})):
        notes.append(f"{len(lengths)} of {n} prompt lengths")
    notes.append("medians over repeats and processes")
    if spikes:
        notes.append(f"triangles at the top: steps beyond the axis, up to {quantity(spikes, 's')}")
    shown = [] if by_model else [m for m in table.models if any(r.point.model == m for r in kept)]
    handles = looks.handles(shown)
    if len(lengths) > 1:
        for place, length in enumerate(lengths):
            handles.append(
                looks.extra(
                    f"prompt of {tokens_text(length)}", linestyle=_line_style(place, lengths), linewidth=1.6
                )
            )
    sentences = [
        f"{', '.join(filter(None, (shortened(r.point.model), names(r))))}, prompt of "
        f"{tokens_text(r.point.prompt_len_tokens)}: {quantity(r.itl_s_by_position[0], 's')} at first, "
        f"{quantity(r.itl_s_by_position[-1], 's')} at last."
        for r in kept
    ]
    return sheet.finish("Inter-token latency by position", subtitle(table, kept, notes), handles, sentences)


def _lengths(rows: list[SpeedRow]) -> tuple[int, ...]:
    """Return few lengths, such that all models have a line of each as far as possible."""
    by_model: dict[str, set[int]] = {}
    for row in rows:
        by_model.setdefault(row.point.model, set()).add(row.point.prompt_len_tokens)
    shared = set.intersection(*by_model.values()) or set.union(*by_model.values())
    return few(sorted(shared), _MOST_LENGTHS)


def _panels(rows: list[SpeedRow], models: tuple[str, ...]) -> tuple[list[tuple[str, list[SpeedRow]]], bool]:
    """Split rows by variant, and by model as well where a panel would hold too many lines.

    Returns:
        Titles with their rows, and whether the titles name the models.
    """
    names = variants(rows)
    named = list(dict.fromkeys(filter(None, map(names, rows)))) or [""]
    # What has no variant, such as a model without attention, is compared with every one.
    together = [(name, [r for r in rows if names(r) in (name, "")]) for name in named]
    if max(len(mine) for _, mine in together) <= MOST_LINES:
        return together, False
    if len({r.point.model for r in rows}) > MOST_MODEL_PANELS:
        drawn = [m for m in models if any(r.point.model == m for r in rows)]
        parts = chunks(drawn, max(len(mine) for _, mine in together))
        return [(name, kept) for part in parts for name, found in together
                if (kept := [r for r in found if r.point.model in part])], False  # fmt: skip
    ordered = sorted(rows, key=lambda r: (models.index(r.point.model), ["", *named].index(names(r))))
    panels = []
    for (model, variant), mine in itertools.groupby(ordered, lambda r: (r.point.model, names(r))):
        panels.append((", ".join(filter(None, (shortened(model), variant))), list(mine)))
    return panels, True


def _line_style(place: int, lengths: tuple[int, ...]) -> object:
    """Return the style of a length: the longest is solid."""
    return LINE_STYLES[(0, 1, 4)[len(lengths) - 1 - place]]


def _draw(
    axes: Axes, row: SpeedRow, lengths: tuple[int, ...], looks: Looks, top: float, *, marked: bool
) -> None:
    place = lengths.index(row.point.prompt_len_tokens)
    steps = row.itl_s_by_position
    xs = range(2, len(steps) + 2)
    every = max(1, len(steps) // _N_MARKERS)
    colour = tint(looks.colour(row.point.model), _TINTS[len(lengths) - 1 - place])
    label = f"{shortened(row.point.model)}, prompt of {tokens_text(row.point.prompt_len_tokens)}"
    axes.plot(
        xs, steps, color=colour, linestyle=_line_style(place, lengths), linewidth=1.3, label=label,
        marker=looks.marker(row.point.model) if marked or len(steps) == 1 else "", markersize=4.5,
        # Few, and of each model in other places: lines often lie upon each other.
        markevery=(looks.models.index(row.point.model) * every // _N_MARKERS % every, every),
    )  # fmt: skip
    beyond = [x for x, y in zip(xs, steps, strict=True) if y > top]
    if beyond:
        axes.plot(
            beyond, [1.0] * len(beyond), transform=axes.get_xaxis_transform(), linestyle="none", marker="^",
            markersize=4, color=colour, clip_on=False, label="_beyond",
        )  # fmt: skip


def _top(rows: list[SpeedRow]) -> tuple[float, float]:
    """Return the highest value that the axis must show, and the largest spike above it or 0."""
    slowest = max(statistics.median(r.itl_s_by_position) for r in rows)
    largest = max(max(r.itl_s_by_position) for r in rows)
    if largest <= _SPIKE * slowest:
        return largest, 0.0
    within = [v for r in rows for v in r.itl_s_by_position if v <= _SPIKE * slowest]
    return max(within), largest
