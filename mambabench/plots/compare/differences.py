"""Differences from the baseline with their intervals: a row a task, the margin as a band, right is better.

Marks are filled where a difference was shown, by the p-value adjusted for all tests, and hollow where not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.plots import shortened
from mambabench.plots.compare.fewer import fewer, short_title
from mambabench.plots.palette import BAND, FAINT, GRID, MUTED, PAPER, RULE
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.sheet import Sheet
from mambabench.tables.compare.format import amount, harmless
from mambabench.tables.compare.names import apart
from mambabench.tables.compare.words import verdicts
from mambabench.tables.speed.format import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.compare.result import Comparison, Contrast, Overall
    from mambabench.plots.speed.described import DescribedFigure

_WIDTH_INCHES = 7.2
_MOST_CANDIDATES = 20
_MOST_INCHES = 22.0
_ROW_INCHES = (0.3, 0.19)
"""Of a row with one mark: where there is room, and at least."""
_MARK_INCHES = (0.15, 0.075)
"""Between the marks of a row."""
_AROUND_INCHES = 0.75
_MARKER_POINTS = (5.5, 3.2)
_THIN_MARKERS = "PX"
_THIN_SIZE = 1.5
"""So much larger is a marker of which, hollow, nothing but its edge would be seen."""
_LONGEST_LABEL = 34
_LEAST_LABEL = 28
_TALL_ROWS = 25
_AXIS = {
    "pt": "difference, percentage points",
    "%": "change of perplexity, %",
    "bits/byte": "difference, bits a byte",
    "nats": "difference of the log-likelihood of the right answer, nats",
}
_TITLE = {
    "pt": "Accuracy against {}",
    "%": "Perplexity against {}",
    "bits/byte": "Bits a byte against {}",
    "nats": "Log-likelihood of right answers against {}",
}


def draw_differences(comparison: Comparison, unit: str) -> DescribedFigure | None:
    """Draw the differences in one unit; None where nothing was compared in it.

    Accuracies are those that tables read first, with their mean over the tasks. All that is drawn gets better
    in one direction: shares of which less is better stand in tables only, unless there are no others.

    Args:
        comparison: what to draw; tasks keep their order.
        unit: "pt", "%", "bits/byte" or "nats".
    """
    comparison, note = fewer(harmless(comparison), _MOST_CANDIDATES)
    found = [c for c in comparison.contrasts if c.effect_unit == unit and c.difference is not None]
    if unit == "pt":
        found = _one_a_task(found)
    if not found:
        return None
    higher = any(c.higher_is_better for c in found)
    n_other = len({c.task for c in found if c.higher_is_better != higher})
    found = [c for c in found if c.higher_is_better == higher]
    labels = [side.label for side in comparison.candidates]
    looks = Looks((comparison.baseline.label, *labels))
    rows = list(dict.fromkeys((c.task, c.measure) for c in found))
    overall = [o for o in comparison.overall if unit == "pt"]
    n_rows = len(rows) + bool(overall)
    pitch, step, marker_points = _spacing(n_rows, len(labels))
    sheet = Sheet(height_inches=_AROUND_INCHES + n_rows * pitch, width_inches=_WIDTH_INCHES)
    (axes,) = sheet.axes
    margin = found[0].margin
    # A ratio within the margin one way is within it the other way.
    low_margin = -margin / (1 + margin / 100) if unit == "%" else -margin
    axes.axvspan(low_margin, margin, color=BAND, linewidth=0, zorder=0)
    axes.axvline(0, color=RULE, linewidth=1, zorder=1)
    for place, label in enumerate(labels):
        offset = (place - (len(labels) - 1) / 2) * step / pitch
        mine: list[tuple[float, Contrast | Overall]] = [
            (rows.index((c.task, c.measure)) + offset, c) for c in found if c.candidate == label
        ]
        mine += [(len(rows) + offset, o) for o in overall if o.candidate == label]
        _draw(axes, looks, label, mine, marker_points)
    _name_rows(axes, rows, found, len(overall) > 0, comparison)
    _limit(axes, found, overall, (low_margin, margin), higher=higher)
    axes.set_xlabel(_AXIS.get(unit, "difference") + ("" if higher else ", axis reversed"))
    # Of a long figure the end is not seen with the beginning.
    tall = n_rows > _TALL_ROWS
    axes.tick_params(axis="x", top=tall, labeltop=tall)
    for x, words, side in ((0.0, "← worse", "left"), (1.0, "better →", "right")):
        axes.annotate(
            words, (x, 1), xycoords="axes fraction", xytext=(0, 16 if tall else 3),
            textcoords="offset points", ha=side, va="bottom", color=MUTED, fontsize=8.5,
            annotation_clip=False,
        )  # fmt: skip
    return sheet.finish(
        _TITLE.get(unit, "Differences from {}").format(shortened(comparison.baseline.label)),
        _subtitle(comparison, found, margin, unit, n_other, note),
        [
            *looks.handles(labels, lines=False),
            looks.extra("no difference shown", marker="o", markerfacecolor=PAPER, markersize=5),
            looks.extra(f"within {amount(margin, unit)}", marker="s", color=FAINT, markersize=8),
        ],
        _sentences(comparison, found, unit),
    )


def _one_a_task(found: Sequence[Contrast]) -> list[Contrast]:
    """Return the accuracy of each task that tables read first."""
    measures: dict[str, str] = {}
    for contrast in found:
        if contrast.headline:
            measures[contrast.task] = contrast.measure
    for contrast in found:
        measures.setdefault(contrast.task, contrast.measure)
    return [c for c in found if measures[c.task] == c.measure]


def _spacing(n_rows: int, n_marks: int) -> tuple[float, float, float]:
    """Return inches between rows and between marks of a row, and the marker's size, so that all have room."""
    for share in (0.0, 0.5, 1.0):
        row, step, points = (a + share * (b - a) for a, b in (_ROW_INCHES, _MARK_INCHES, _MARKER_POINTS))
        pitch = row + (n_marks - 1) * step
        if n_rows * pitch <= _MOST_INCHES * (0.5 if share == 0 else 0.75):
            break
    return pitch, step, points


def _draw(
    axes: Axes, looks: Looks, label: str, marks: Sequence[tuple[float, Contrast | Overall]], points: float
) -> None:
    colour, scale = looks.colour(label), points / _MARKER_POINTS[0]
    size = points * (_THIN_SIZE if looks.marker(label) in _THIN_MARKERS else 1.0)
    for y, one in marks:
        ends = [e for e in (one.low, one.high) if e is not None and math.isfinite(e)]
        if len(ends) == 2:
            axes.plot(ends, [y, y], color=colour, linewidth=1.5 * scale, zorder=2)
    for shown in (True, False):
        part = [(one.difference, y) for y, one in marks if (one.verdict in ("better", "worse")) == shown]
        axes.plot(
            [x if x is not None else math.nan for x, _ in part], [y for _, y in part],
            **{
                **looks.marker_style(label, hollow=not shown), "markersize": size,
                "markeredgewidth": 1.3 * scale,
            }, linestyle="none", label=f"_{'shown' if shown else 'hollow'} {label}", zorder=3,
        )  # fmt: skip


def _name_rows(
    axes: Axes, rows: Sequence[tuple[str, str]], found: Sequence[Contrast], mean: bool, comparison: Comparison
) -> None:
    several = len({measure for _, measure in rows}) > 1
    labels = {(c.task, c.measure): c.label for c in found}
    measures = [f" ({measure})" if several else "" for _, measure in rows]
    room = max(_LEAST_LABEL, _LONGEST_LABEL - max(map(len, measures)))
    shown = apart(labels.values(), room)
    names = [f"{shown[labels[row]]}{measure}" for row, measure in zip(rows, measures, strict=True)]
    if mean:
        names.append(f"mean of {comparison.overall[0].n_tasks} tasks")
        axes.axhline(len(rows) - 0.5, color=RULE, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(names)), names)
    if mean:
        axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    if len(comparison.candidates) > 1:
        # Which marks belong to which name.
        axes.hlines([y + 0.5 for y in range(len(rows) - 1)], 0, 1, transform=axes.get_yaxis_transform(),
                    colors=GRID, linewidth=0.7, zorder=0.5)  # fmt: skip
    axes.set_ylim(len(names) - 0.5, -0.5)
    for side in ("left", "right"):
        axes.spines[side].set_visible(False)


def _limit(
    axes: Axes,
    found: Sequence[Contrast],
    overall: Sequence[Overall],
    band: tuple[float, float],
    *,
    higher: bool,
) -> None:
    shown: list[Contrast | Overall] = [*found, *overall]
    ends = [e for one in shown for e in (one.low, one.high, one.difference)]
    finite = [e for e in (*ends, *band) if e is not None and math.isfinite(e)]
    low, high = min(finite), max(finite)
    room = 0.04 * (high - low)
    axes.set_xlim(low - room, high + room)
    if not higher:
        axes.invert_xaxis()


def _subtitle(
    comparison: Comparison, found: Sequence[Contrast], margin: float, unit: str, n_other: int, note: str
) -> str:
    counts = sorted({c.n for c in found})
    items = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    measures = list(dict.fromkeys(c.measure for c in found))
    partial = any(c.paired and c.n < c.n_total for c in found)
    unpaired = sum(not c.paired for c in found)
    parts = [
        short_title(comparison),
        note,
        f"{measures[0]} of {items} items" if len(measures) == 1 else f"{items} items",
        "lines are 95% intervals, not adjusted",
        f"the band is the margin of {amount(margin, unit)}",
        "partial" if partial else "",
        f"{'all' if unpaired == len(found) else 'some'} by totals only" if unpaired else "",
        f"without {plural(n_other, 'task')} of which less is better" if n_other else "",
    ]
    return " · ".join(filter(None, parts))


def _sentences(comparison: Comparison, found: Sequence[Contrast], unit: str) -> list[str]:
    said = [sentence for _, sentence in verdicts(comparison)] if unit == "pt" else []
    for contrast in found:
        said.append(
            f"{contrast.label}, {contrast.candidate}: {contrast.difference:+.3g} {unit}, {contrast.verdict}."
        )
    return said
