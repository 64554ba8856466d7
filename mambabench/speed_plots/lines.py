"""Lines of one figure of a table against length or batch size; rows where only one was swept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mambabench.speed_plots.lanes import (
    FAILED_WORDS,
    draw_lanes,
    failure_words,
    has_failed,
    lanes,
    lanes_points,
    n_lanes,
)
from mambabench.speed_plots.looks import FAINT, GREY, Looks
from mambabench.speed_plots.scales import (
    Unit,
    quantity,
    scale_counts,
    scale_values,
    spans_decades,
    tokens_text,
)
from mambabench.speed_plots.series import Axis, Panel, Plan, Series, at, past_training, plan
from mambabench.speed_plots.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from mambabench.report.speed import SpeedRow, SpeedTable
    from mambabench.speed_plots.described import DescribedFigure
    from mambabench.stats.replicates import Estimate

AXIS_LABELS: dict[Axis, str] = {"prompt_len_tokens": "prompt (tokens)", "batch_size": "batch size"}
_BY: dict[Axis, str] = {"prompt_len_tokens": "prompt length", "batch_size": "batch size"}
_FAR = 2.5
"""A line for comparison that lies so many times above all figures is named instead of drawn."""
_ROW_INCHES = 0.27


@dataclass(frozen=True)
class Reference:
    """A line that figures are held against."""

    name: str
    """For the legend."""
    rows: tuple[tuple[int, float], ...]
    """(place on the axis, value), in order; one of them is a level."""
    model: str | None = None
    """Whose line it is; None for a bound on all."""
    style: dict[str, Any] = field(default_factory=dict)
    optional: bool = False
    """Whether it is left out where it would press the figures together."""


@dataclass(frozen=True)
class Quantity:
    """One figure of a row, and how to draw it."""

    title: str
    words: str
    """Label of its axis."""
    unit: Unit
    of: Callable[[SpeedRow], Estimate | None]
    preferred: Axis = "prompt_len_tokens"
    depth: bool = False
    """Whether the prompt's length is the depth at which tokens were generated."""
    references: Callable[[SpeedTable, Plan, Panel], Sequence[Reference]] = lambda *_: ()


def draw_quantity(table: SpeedTable, what: Quantity) -> DescribedFigure | None:
    """Draw a figure of all rows; None where no row has it."""
    if all(what.of(r) is None for r in table.rows):
        return None
    kept = [r for r in table.rows if what.of(r) is not None or has_failed(r)]
    laid_out = plan(table.models, kept, what.preferred)
    looks = Looks(table.models, laid_out.variants)
    draw = _draw_rows if len(laid_out.xs) == 1 else _draw_panels
    return draw(table, what, laid_out, looks)


def _draw_panels(table: SpeedTable, what: Quantity, laid_out: Plan, looks: Looks) -> DescribedFigure:
    references = [tuple(what.references(table, laid_out, panel)) for panel in laid_out.panels]
    references, log, notes = _within(references, laid_out, what)
    width_inches = Sheet(len(laid_out.panels), laid_out.n_columns).panel_inches
    found = [lanes(laid_out, panel, width_inches) for panel in laid_out.panels]
    most = max(map(n_lanes, found))
    titled = any(panel.title for panel in laid_out.panels)
    sheet = Sheet(len(laid_out.panels), laid_out.n_columns, lanes=most + titled)
    for axes, panel, refs, lane in zip(sheet.axes, laid_out.panels, references, found, strict=True):
        for series in panel.muted:
            xs, ys = _curve(series, laid_out.x, what)
            axes.plot(xs, ys, color=FAINT, linewidth=1.2, zorder=1.2, label="_muted")
        for reference in refs:
            _draw_reference(axes, reference, looks)
        for series in panel.series:
            _draw_series(axes, series, laid_out.x, what, looks)
        draw_lanes(axes, lane, laid_out, looks)
        axes.set_title(panel.title, fontweight="bold", pad=4 + lanes_points(lane))
        label = "depth (tokens in the prompt)" if what.depth else AXIS_LABELS["prompt_len_tokens"]
        label = AXIS_LABELS["batch_size"] if laid_out.x == "batch_size" else label
        scale_counts(axes, laid_out.xs, label, width_inches=width_inches)
    everything = [v for s in laid_out.series for v in _heights(s, what)]
    everything += [v for refs in references for r in refs for _, v in r.rows]
    for axes in sheet.axes:
        scale_values(axes, everything, what.unit, what.words, log=log)
    sheet.label_outer()
    by = "depth" if what.depth and laid_out.x == "prompt_len_tokens" else _BY[laid_out.x]
    return sheet.finish(
        f"{what.title} by {by}",
        subtitle(table, laid_out, what, notes),
        _handles(laid_out, looks, references, muted=any(p.muted for p in laid_out.panels)),
        _sentences(laid_out, what),
    )


def _within(
    references: list[tuple[Reference, ...]], laid_out: Plan, what: Quantity
) -> tuple[list[tuple[Reference, ...]], bool, list[str]]:
    """Leave out what would press the figures together, and say so."""
    measured = [v for s in laid_out.series for v in _heights(s, what)]
    firm = measured + [v for refs in references for r in refs if not r.optional for _, v in r.rows]
    log = spans_decades(firm)
    far = {
        r
        for refs in references
        for r in map(_frozen, refs)
        if r[2] and not log and max(v for _, v in r[1]) > _FAR * max(firm)
    }
    kept = [tuple(r for r in refs if _frozen(r) not in far) for refs in references]
    return kept, log, [f"{name} is above the axis" for name in sorted({name for name, *_ in far})]


def _frozen(reference: Reference) -> tuple[str, tuple[tuple[int, float], ...], bool]:
    return reference.name, reference.rows, reference.optional


def _curve(series: Series, x: Axis, what: Quantity) -> tuple[list[int], list[float]]:
    """Return a line's points; a failure between two of them breaks it."""
    points = [(at(r, x), what.of(r)) for r in series.rows]
    while points and points[-1][1] is None:
        points.pop()
    while points and points[0][1] is None:
        points.pop(0)
    return [p for p, _ in points], [math.nan if e is None else e.value for _, e in points]


def _heights(series: Series, what: Quantity) -> list[float]:
    return [v for r in series.rows if (e := what.of(r)) is not None for v in (e.low, e.value, e.high)]


def _draw_series(axes: Axes, series: Series, x: Axis, what: Quantity, looks: Looks) -> None:
    colour = looks.colour(series.model)
    found = [(at(r, x), e, past_training(r)) for r in series.rows if (e := what.of(r)) is not None]
    axes.plot(
        *_curve(series, x, what), color=colour, linestyle=looks.line_style(series.variant), label=series.label
    )
    if len(found) > 1:
        xs, _ = _curve(series, x, what)
        ends = {p: (e.low, e.high) for p, e, _ in found}
        low, high = zip(*(ends.get(p, (math.nan, math.nan)) for p in xs), strict=True)
        axes.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0, label=f"_band {series.label}")
    else:
        for place, e, _ in found:
            axes.plot([place, place], [e.low, e.high], color=colour, label=f"_band {series.label}")
    for hollow in (False, True):
        marked = [(p, e.value) for p, e, past in found if past == hollow]
        if marked:
            axes.plot(
                *zip(*marked, strict=True), linestyle="none", zorder=3,
                label="_past" if hollow else "_within", **looks.marker_style(series.model, hollow=hollow),
            )  # fmt: skip


def _draw_reference(axes: Axes, reference: Reference, looks: Looks) -> None:
    colour = "#000000" if reference.model is None else looks.colour(reference.model)
    settings: dict[str, Any] = {
        "color": colour,
        "linewidth": 1.0,
        "zorder": 1.8,
        "label": f"_{reference.name}",
    }
    settings |= reference.style
    if len(reference.rows) == 1:
        axes.axhline(reference.rows[0][1], **settings)
    else:
        axes.plot(*zip(*reference.rows, strict=True), **settings)


def _handles(
    laid_out: Plan,
    looks: Looks,
    references: Sequence[Sequence[Reference]],
    *,
    muted: bool,
    lines: bool = True,
) -> list[Line2D]:
    shown = {s.model for s in laid_out.series}
    if all(len({s.model for s in panel.series}) == 1 and panel.title for panel in laid_out.panels):
        # Their titles name the models.
        shown = set()
    handles = looks.handles([m for m in laid_out.models if m in shown], lines=lines)
    if any(past_training(r) and not has_failed(r) for r in laid_out.rows):
        handles.append(
            looks.extra("past training length", marker="o", markerfacecolor="white", markeredgewidth=1.3)
        )
    if any(map(has_failed, laid_out.rows)):
        handles.append(looks.extra("failed", marker="x", markeredgewidth=1.5))
    for name, style in {r.name: (r.style, r.model) for refs in references for r in refs}.items():
        colour = "#000000" if style[1] is None else GREY
        handles.append(
            looks.extra(name, **({"linestyle": "solid", "linewidth": 1.0, "color": colour} | style[0]))
        )
    if muted:
        handles.append(
            looks.extra(", ".join(["other models", *laid_out.variants[:1]]), linestyle="solid", color=FAINT)
        )
    return handles


def _draw_rows(table: SpeedTable, what: Quantity, laid_out: Plan, looks: Looks) -> DescribedFigure:
    """Draw one row a line, with its figure in words: a line of one point shows nothing else."""
    panel = Panel("", laid_out.series)
    references, log, notes = _within([tuple(what.references(table, laid_out, panel))], laid_out, what)
    series = laid_out.series
    sheet = Sheet(height_inches=0.75 + _ROW_INCHES * len(series))
    (axes,) = sheet.axes
    for y, s in enumerate(series):
        row = s.rows[0]
        found = what.of(row)
        words = failure_words([row])
        if found is not None:
            style = looks.marker_style(s.model, hollow=past_training(row))
            axes.plot([found.low, found.high], [y, y], color=style["color"], label=f"_band {s.label}")
            axes.plot([found.value], [y], label=s.label, **style)
            words = ", ".join(filter(None, (_in_words(found, what.unit), words)))
        axes.annotate(
            words, (1.0, y), xycoords=axes.get_yaxis_transform(), xytext=(8, 0), textcoords="offset points",
            va="center", annotation_clip=False,
        )  # fmt: skip
        if has_failed(row):
            axes.plot(
                [1.0], [y], transform=axes.get_yaxis_transform(), clip_on=False, linestyle="none", marker="x",
                markersize=4.5, markeredgewidth=1.5, color=looks.colour(s.model), label="_failed",
            )  # fmt: skip
    for reference in references[0]:
        colour = "#000000" if reference.model is None else looks.colour(reference.model)
        label = f"_{reference.name}"
        settings: dict[str, Any] = {"color": colour, "linewidth": 1.2, "label": label} | reference.style
        for y in (y for y, s in enumerate(series) if reference.model in (None, s.model)):
            axes.plot([reference.rows[0][1]] * 2, [y - 0.36, y + 0.36], **settings)
    axes.set_yticks(range(len(series)), [s.label for s in series])
    axes.set_ylim(len(series) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    values = [v for s in series for v in _heights(s, what)] + [v for r in references[0] for _, v in r.rows]
    scale_values(axes, values, what.unit, what.words, log=log, vertical=False)
    x = laid_out.xs[0]
    place = f"prompt of {tokens_text(x)} tokens" if laid_out.x == "prompt_len_tokens" else f"batch {x:,}"
    handles = _handles(laid_out, looks, references, muted=False, lines=False)
    return sheet.finish(
        what.title,
        subtitle(table, laid_out, what, [place, *notes]),
        [h for h in handles if h.get_label() not in set(map(str, laid_out.models))],
        _sentences(laid_out, what),
    )


def _in_words(found: Estimate, unit: Unit) -> str:
    value, low, high = (quantity(v, unit) for v in (found.value, found.low, found.high))
    name = " tokens/s" if unit == "tokens/s" else ""
    return f"{value}{name}" if low == high else f"{value}{name} ({low} to {high})"


def subtitle(table: SpeedTable, laid_out: Plan, what: Quantity | None, notes: Sequence[str]) -> str:
    """Say on what machine, in what arm and how often the figures were measured, and what bands are."""
    devices = {r.point.device for r in laid_out.rows}
    names = dict.fromkeys(c.device_name for c in table.ceilings if c.device in devices and c.device_name)
    estimates = [] if what is None else [e for r in laid_out.rows if (e := what.of(r)) is not None]
    counts = sorted({e.n for e in estimates})
    parts = [", ".join(names), *laid_out.notes, *notes]
    if counts:
        drawn = "bars" if len(laid_out.xs) == 1 else "bands"
        plural = "process" if counts[-1] == 1 else "processes"
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        parts.append(f"{n} {plural} a point")
        methods = {e.method for e in estimates}
        bands = [
            words
            for method, words in (("t on log", "95% intervals"), ("range", "ranges over processes"))
            if method in methods
        ]
        parts.append(f"{drawn} are {' or '.join(bands)}" if bands else "one process shows no interval")
    if table.partial:
        parts.append("partial: not everything was measured")
    return " · ".join(filter(None, parts))


def _sentences(laid_out: Plan, what: Quantity) -> list[str]:
    """Say of each line where it begins and ends, and what failed."""
    found = []
    for panel in laid_out.panels:
        for series in panel.series:
            measured = [(at(r, laid_out.x), e) for r in series.rows if (e := what.of(r)) is not None]
            ends = [f"{quantity(e.value, what.unit)} at {tokens_text(x)}" for x, e in measured]
            parts = [" to ".join(dict.fromkeys((ends[0], ends[-1])))] if ends else []
            for status, word in FAILED_WORDS.items():
                places = [tokens_text(at(r, laid_out.x)) for r in series.rows if r.status == status]
                parts += [f"{word} at {', '.join(places)}"] if places else []
            facet = f" ({panel.title})" if panel.title and series.label not in panel.title else ""
            found.append(f"{series.label}{facet}: {'; '.join(parts)}.")
    return found
