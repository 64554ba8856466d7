"""Quality against cost: what a model gives beside what it takes, with the front that no other model beats.

    figure = draw_quality_cost(runs.frame("quality_cost"))      # None where nothing has both
    save(figure, Path("quality-cost.svg"))

One panel a cost. A mark is a model at a length, with both intervals; a model's lengths are joined by a line.
The best corner is at the upper left. Steps join the models of one length that no other one beats: above and
left of them there is nothing. Marks that some other model beats at their length are small and pale.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mambabench.plots import shortened
from mambabench.plots.palette import FAINT, MUTED, PAPER, tint
from mambabench.plots.quality_points import Panel, Point, panels_of, undrawn
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.scales import quantity, scale_values, tokens_text
from mambabench.plots.speed.sheet import Sheet, sheet_style
from mambabench.tables.compare.format import harmless

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from mambabench.plots.speed.described import DescribedFigure

QUALITIES: Final = ("average accuracy", "recall")
"""In the order of a report."""
_PANEL_INCHES: Final = (3.6, 2.6)
_NARROW_INCHES: Final = (2.75, 2.3)
_SINGLE_INCHES: Final = (7.2, 3.8)
_MARGIN_INCHES: Final = 0.75
_BETTER_INCHES: Final = 0.6
_TITLE_LETTERS_PER_INCH: Final = 13.5
_MARKER_POINTS: Final = (6.5, 4.0)
"""Of marks on the front and of others."""
_FEW_MODELS: Final = 8
_PALE: Final = 0.5
_LETTER_INCHES: Final = 0.068
_LINE_INCHES: Final = 0.125
_OFFSET_POINTS: Final = 6.5
_SAME_PLACE_INCHES: Final = 0.12
_STEPS: Final = {"color": MUTED, "linewidth": 1.3, "zorder": 1.6}


def draw_quality_cost(frame: pd.DataFrame, quality: str | None = None) -> DescribedFigure | None:
    """Draw one quality of a frame `quality_cost` against its costs.

    Args:
        frame: with the rows of one or of several qualities.
        quality: of `QUALITIES`; the first one that the frame has when omitted.

    Returns:
        The figure; None where no row has both a quality and a cost.
    """
    for name in QUALITIES if quality is None else (quality,):
        rows = frame[frame["quality"] == name]
        panels, left_out = panels_of(rows)
        if panels:
            with sheet_style():
                return _draw(name, rows, panels, left_out)
    return None


def _draw(name: str, rows: pd.DataFrame, panels: Sequence[Panel], left_out: Sequence[str]) -> DescribedFigure:
    ways = list(dict.fromkeys(p.way for p in panels))
    n_costs = len({p.cost for p in panels})
    if len(panels) == 1:
        n_columns, (width, height) = 1, _SINGLE_INCHES
    elif len(ways) == 1 and n_costs != 3:
        n_columns, (width, height) = 2, _PANEL_INCHES
    else:
        n_columns, (width, height) = n_costs, _NARROW_INCHES
    titles = [_title(panel, ways, n_costs, len(panels), width - _MARGIN_INCHES) for panel in panels]
    lanes = max(title.count("\n") for title in titles)
    sheet = Sheet(
        len(panels), n_columns, width_inches=width, height_inches=height, lanes=lanes, same_places=False
    )
    labels = tuple(dict.fromkeys(rows["label"]))
    looks = Looks(labels)
    low, high = _limits(panels)
    said: list[str] = []
    for axes, panel, title in zip(sheet.axes, panels, titles, strict=True):
        axes.set_ylim(low, high)
        scale_values(
            axes, panel.ends, panel.cost.unit, panel.cost.words, log=panel.log, vertical=False,
            width_inches=sheet.panel_inches,
        )  # fmt: skip
        inside = sheet.panel_inches, height - 0.75
        _draw_panel(axes, panel, looks, inside)
        axes.set_title(title, fontweight="bold")
        axes.set_ylabel(f"{name} (%)")
        said += _sentences(panel, name)
    sheet.axes[0].set_title("↖ better", loc="right", color=MUTED, fontsize=8.5)
    for place, axes in enumerate(sheet.axes):
        if place % n_columns:
            axes.set_ylabel("")
    drawn = [label for label in labels if any(label in p.labels for p in panels)]
    return sheet.finish(
        f"{'Recall' if name == 'recall' else 'Accuracy'} and what it costs",
        _subtitle(panels, ways, left_out),
        [*looks.handles(drawn), *_handles(looks, panels)],
        [*said, *map(harmless, undrawn(rows))],
    )


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    ends = [v for panel in panels for p in panel.points for v in p.quality if math.isfinite(v)]
    room = max(0.07 * (max(ends) - min(ends)), 0.8)
    return max(-5.0, min(ends) - 1.3 * room), min(106.0, max(ends) + 1.5 * room)


def _title(panel: Panel, ways: Sequence[str], n_costs: int, n_panels: int, inches: float) -> str:
    """Return what tells a panel from the others, in lines that leave its neighbours room."""
    if n_panels == 1:
        return ""
    if len(ways) == 1:
        return panel.cost.title
    # Beside the last line stands which way is better.
    room = inches - _BETTER_INCHES if n_costs == 1 else inches
    way = "\n".join(textwrap.wrap(panel.way, int(room * _TITLE_LETTERS_PER_INCH)))
    return way if n_costs == 1 else f"{way}\n{panel.cost.title}"


def _draw_panel(axes: Axes, panel: Panel, looks: Looks, inches: tuple[float, float]) -> None:
    fronts = panel.fronts()
    for front in fronts:
        _draw_front(axes, front)
    faint = len(panel.labels) > _FEW_MODELS
    for label in panel.labels:
        _draw_model(axes, panel.line(label), looks, faint=faint)
    _write_lengths(axes, panel, looks, fronts, inches)


def _draw_front(axes: Axes, front: Sequence[Point]) -> None:
    """Draw the steps: between the marks firmly, beyond them, where all that is known is a bound, faintly."""
    xs, ys = [p.cost[1] for p in front], [p.quality[1] for p in front]
    if len(front) > 1:
        axes.step(xs, ys, where="post", label="_front", **_STEPS)
    bottom, right = axes.get_ylim()[0], axes.get_xlim()[1]
    for ends in (([xs[0], xs[0]], [bottom, ys[0]]), ([xs[-1], right], [ys[-1], ys[-1]])):
        axes.plot(*ends, color=FAINT, linewidth=1.0, zorder=1.2, label="_bound")


def _draw_model(axes: Axes, points: Sequence[Point], looks: Looks, *, faint: bool) -> None:
    label = points[0].label
    colour = looks.colour(label)
    opacity = 0.35 if faint else 0.7
    if len(points) > 1:
        axes.plot(
            [p.cost[1] for p in points], [p.quality[1] for p in points], color=colour, linewidth=1.0,
            alpha=opacity + 0.2, zorder=2, label=f"_lengths {label}",
        )  # fmt: skip
    ys = [p.quality[1] for p in points]
    # An accuracy is the same at all lengths, and has one bar.
    barred = points[:1] if len({p.quality for p in points}) == 1 else points
    axes.vlines(
        [p.cost[1] for p in barred], [p.quality[0] for p in barred], [p.quality[2] for p in barred],
        color=colour, linewidth=1.1, alpha=opacity, zorder=2, label=f"_quality {label}",
    )  # fmt: skip
    axes.hlines(
        ys, [p.cost[0] for p in points], [p.cost[2] for p in points], color=colour, linewidth=1.1,
        alpha=opacity, zorder=2, label=f"_cost {label}",
    )  # fmt: skip
    for beaten in (True, False):
        marked = [(p.cost[1], p.quality[1]) for p in points if (p.front is False) == beaten]
        if marked:
            style = looks.marker_style(label) | {"markersize": _MARKER_POINTS[beaten]}
            style |= (
                {"markerfacecolor": tint(colour, _PALE), "markeredgewidth": 0.8}
                if beaten
                else {"markeredgecolor": PAPER, "markeredgewidth": 0.6}
            )
            axes.plot(
                *zip(*marked, strict=True), linestyle="none", zorder=3 if beaten else 3.5,
                label=f"_beaten {label}" if beaten else label, **style,
            )  # fmt: skip


def _write_lengths(
    axes: Axes, panel: Panel, looks: Looks, fronts: Sequence[Sequence[Point]], inches: tuple[float, float]
) -> None:
    """Write the lengths at the ends of lines where there is room, those on the front first."""
    to_axes = axes.transData + axes.transAxes.inverted()
    width, height = inches

    def place(point: Point) -> tuple[float, float]:
        x, y = to_axes.transform((point.cost[1], point.quality[1]))
        return x * width, y * height

    wanted: list[tuple[Point, str, bool]] = []
    for label in panel.labels:
        ends = _ends(panel.line(label))
        texts = [tokens_text(p.length_tokens) for p in ends]
        if len(ends) == 2 and math.dist(place(ends[0]), place(ends[1])) < _SAME_PLACE_INCHES:
            ends, texts = ends[:1], [" to ".join(texts)]
        # Away from the line: above its upper end and below its lower one.
        middle = sum(p.quality[1] for p in ends) / len(ends)
        wanted += [(p, t, p.quality[1] >= middle) for p, t in zip(ends, texts, strict=True)]
    wanted.sort(key=lambda one: one[0].front is not True)
    taken = [(*place(p), 0.05, 0.05) for p in panel.points]
    for point, text, upwards in wanted:
        at_x, y = place(point)
        half = len(text) * _LETTER_INCHES / 2
        x = min(max(at_x, half), width - half)
        for side in (1, -1) if upwards else (-1, 1):
            box = (x, y + side * _OFFSET_POINTS * 1.9 / 72, half, _LINE_INCHES / 2)
            if 0.06 < box[1] < height and not any(_touch(box, other) for other in taken):
                taken.append(box)
                axes.annotate(
                    text, (point.cost[1], point.quality[1]), xytext=(72 * (x - at_x), side * _OFFSET_POINTS),
                    textcoords="offset points", ha="center", va="bottom" if side > 0 else "top",
                    fontsize=7.5, color=looks.text_colour(point.label), label="_length",
                    bbox={"facecolor": PAPER, "alpha": 0.7, "linewidth": 0, "pad": 0.4},
                )  # fmt: skip
                break


def _ends(line: Sequence[Point]) -> list[Point]:
    return [line[0], line[-1]] if len(line) > 1 else list(line)


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return abs(a[0] - b[0]) < a[2] + b[2] and abs(a[1] - b[1]) < a[3] + b[3]


def _subtitle(panels: Sequence[Panel], ways: Sequence[str], left_out: Sequence[str]) -> str:
    points = [p for panel in panels for p in panel.points]
    lengths = sorted({p.length_tokens for p in points})
    several = len(lengths) > 1
    shown = any(panel.fronts() for panel in panels)
    intervals = [end for p in points for end in (p.cost[0], p.cost[2])]
    return " · ".join(filter(None, [
        ways[0] if len(ways) == 1 else "",
        f"lines join prompts of {tokens_text(lengths[0])} to {tokens_text(lengths[-1])} tokens" if several
        else f"prompts of {tokens_text(lengths[0])} tokens",
        "steps: no other model gives as much for less" if shown else "",
        "bars: 95% intervals" + (", of costs ranges where processes are few"
                                 if any(map(math.isfinite, intervals)) else ""),
        f"without {'; '.join(left_out)}" if left_out else "",
    ]))  # fmt: skip


def _handles(looks: Looks, panels: Sequence[Panel]) -> list[Line2D]:
    handles = []
    if any(panel.fronts() for panel in panels):
        handles.append(looks.extra("the most for the least", linestyle="solid", **_STEPS))
    if any(p.front is False for panel in panels for p in panel.points):
        handles.append(
            looks.extra(
                "beaten by another model", marker="o", markersize=_MARKER_POINTS[1],
                markerfacecolor=FAINT, markeredgewidth=0.8,
            )
        )  # fmt: skip
    return handles


def _sentences(panel: Panel, name: str) -> Iterator[str]:
    unit = panel.cost.unit
    what = panel.cost.words + (f" ({panel.way})" if panel.way else "")
    for front in panel.fronts():
        listed = [f"{harmless(p.label)} {p.quality[1]:.1f}% for {quantity(p.cost[1], unit)}" for p in front]
        length = tokens_text(front[0].length_tokens)
        yield f"{name} by {what} at {length} tokens, no other gives as much for less: {', '.join(listed)}."
    for label in panel.labels:
        ends = [
            f"{p.quality[1]:.1f}% for {quantity(p.cost[1], unit)} at {tokens_text(p.length_tokens)} tokens"
            for p in _ends(panel.line(label))
        ]
        yield f"{shortened(label)}, {what}: {' to '.join(ends)}."
