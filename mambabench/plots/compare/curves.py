"""Metrics over training steps: one panel a task, with bands, chance and the best step.

Marks are filled where a step may be the best, hollow where it is shown to be worse than the best one, which
has a ring. Steps that double, such as 0, 1, 2, 4 to 143,000, stand on a logarithmic axis with a place for 0.

    with sheet_style():
        figure = draw_steps(curves)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mambabench.plots.longcontext.curves import CHANCE
from mambabench.plots.longcontext.lengths import ring_style
from mambabench.plots.palette import MUTED, PAPER
from mambabench.plots.speed.looks import Looks, band_opacity, band_words
from mambabench.plots.speed.sheet import Sheet
from mambabench.tables.compare.curves import contenders_text
from mambabench.tables.compare.curves import name as curve_name
from mambabench.tables.compare.format import harmless, shortened, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.compare.curves_result import Curve, CurvePoint, Curves
    from mambabench.plots.speed.described import DescribedFigure

_SPREAD: Final = 64
"""Largest over smallest step above 0 from which the axis is logarithmic."""
_MANY_STEPS: Final = 12
_MARKER_POINTS: Final = (5.0, 2.9)
_RING_POINTS: Final = (10.5, 7.5)
_COLUMNS: Final = 3
_LONGEST_TITLE: Final = 34
_DECADE: Final = 10.0
_UNITS: Final = {"%": "%", "ppl": "perplexity", "bits/byte": "bits a byte"}
_ZERO_INCHES: Final = 0.35
_LETTER_INCHES: Final = 0.085


def draw_steps(curves: Curves) -> DescribedFigure | None:
    """Draw each task's first metric over the steps, the mean over tasks first; None without curves."""
    curves = harmless(curves)
    panels = [key for key in curves.panels if any(c.headline for c in curves.of(*key))]
    if not panels:
        return None
    drawn = [name for name in curves.series if any(c.series == name for c in curves.curves)]
    looks = Looks(drawn)
    n_columns = 2 if len(panels) in (2, 4) else min(_COLUMNS, len(panels))
    sheet = Sheet(len(panels), n_columns, lanes=1 if len(panels) > 1 else 0, same_values=False)
    steps = sorted({step for name in drawn for step in curves.steps_of(name)})
    said: list[str] = []
    for axes, key in zip(sheet.axes, panels, strict=True):
        mine = curves.of(*key)
        for curve in mine:
            _draw(axes, curve, looks)
            said.append(_sentence(curve))
        levels = {curve.chance for curve in mine if curve.chance is not None}
        for level in levels:
            axes.axhline(level, zorder=1.3, label="_chance", **CHANCE)
        _scale_values(axes, mine)
        scale_steps(axes, steps, width_inches=sheet.panel_inches)
        axes.set_xlabel("training step")
        axes.set_title(_title(mine[0]) if len(panels) > 1 else "", fontweight="bold")
    _label_lowest(sheet, n_columns)
    everything = [c for key in panels for c in curves.of(*key)]
    return sheet.finish(
        f"{_title(everything[0])} by training step" if len(panels) == 1 else "Scores by training step",
        " · ".join(
            filter(None, [
                f"{len(steps):,} steps from {steps[0]:,} to {steps[-1]:,}",
                band_words(len(drawn), "bands are 95% intervals of each step by itself"),
                _partial(everything),
            ])
        ),
        [
            *(looks.handles(drawn) if any(drawn) else []),
            *([looks.extra("chance", **CHANCE)] if any(c.chance is not None for c in everything) else []),
            *_mark_handles(everything, looks),
        ],
        said,
    )  # fmt: skip


def scale_steps(axes: Axes, steps: Sequence[int], *, width_inches: float) -> None:
    """Set up the horizontal axis for training steps: even, or logarithmic where they are spread widely.

    Args:
        axes: to set up.
        steps: ascending, at least two.
        width_inches: of the axis.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    above = [step for step in steps if step > 0]
    if above[-1] < _SPREAD * above[0]:
        room = (steps[-1] - steps[0]) * 0.035
        axes.set_xlim(steps[0] - room, steps[-1] + room)
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(width_inches / 0.62)), integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: step_text(round(x))))
        return
    with_zero = steps[0] == 0
    first, last = above[0], above[-1]
    decades = math.log10(last / first)
    if with_zero:
        # A straight stretch from 0 to the first step, as wide as a label needs, then decades.
        share = decades * _ZERO_INCHES / (width_inches - _ZERO_INCHES)
        axes.set_xscale("symlog", base=10, linthresh=first, linscale=share * 0.9)
        axes.set_xlim(-first * 0.25, last * 10 ** (decades * 0.03))
    else:
        axes.set_xscale("log", base=10)
        axes.set_xlim(first / 10 ** (decades * 0.03), last * 10 ** (decades * 0.03))
    ticks = [10**e for e in range(math.ceil(math.log10(first) - 1e-9), math.floor(math.log10(last)) + 1)]
    per_inch = (width_inches - with_zero * _ZERO_INCHES) / decades
    every = max(1, math.ceil(5 * _LETTER_INCHES / per_inch))
    kept = ticks[::-1][::every][::-1]
    kept = [0, *kept] if with_zero else kept
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: step_text(round(x))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(FixedLocator([t for t in ticks if t not in kept]) if kept else NullLocator())


def step_text(step: int) -> str:
    """Return a step for an axis.

    >>> step_text(500), step_text(143000), step_text(12500), step_text(2000000)
    ('500', '143k', '12.5k', '2M')
    """
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if abs(step) >= size:
            return f"{step / size:.4g}{letter}"
    return str(step)


def _draw(axes: Axes, curve: Curve, looks: Looks) -> None:
    name, colour = curve.series or "all", looks.colour(curve.series)
    points = [p for p in curve.points if math.isfinite(p.value)]
    xs = [p.step for p in points]
    axes.plot(xs, [p.value for p in points], color=colour, label=name, zorder=2.5)
    low = [math.nan if p.low is None else p.low for p in points]
    high = [math.nan if p.high is None else p.high for p in points]
    opacity = band_opacity(len(looks.models))
    if opacity:
        axes.fill_between(xs, low, high, color=colour, alpha=opacity, linewidth=0, label=f"_band {name}")
    many = len(points) > _MANY_STEPS
    size = _MARKER_POINTS[many]
    for hollow in (False, True):
        marked = [(p.step, p.value) for p in points if _hollow(p) == hollow]
        if marked:
            style = looks.marker_style(curve.series, hollow=hollow) | {"markersize": size}
            style |= {"markeredgewidth": 0.9} if many else {}
            axes.plot(
                *zip(*marked, strict=True), linestyle="none", zorder=3,
                label="_worse" if hollow else "_may be", **style,
            )  # fmt: skip
    best = curve.at(curve.best.step)
    axes.plot(
        [best.step], [best.value], linestyle="none", zorder=4, clip_on=False, label=f"_best {name}",
        **(ring_style(colour) | {"markersize": _RING_POINTS[many]}),
    )  # fmt: skip


def _hollow(point: CurvePoint) -> bool:
    return point.contender is False


def _scale_values(axes: Axes, curves: Sequence[Curve]) -> None:
    """Set up the vertical axis: logarithmic where perplexities are far apart."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    unit = curves[0].unit
    axes.set_ylabel(_UNITS.get(unit, curves[0].metric))
    found = [p.value for c in curves for p in c.points if math.isfinite(p.value) and p.value > 0]
    if unit == "ppl" and found and max(found) > _DECADE * min(found):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=7))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _power_text(y)))
        return
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if unit == "%":
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(-4.0, bottom), min(104.0, top))


def _power_text(number: float) -> str:
    """Return a power of ten as people write it."""
    if 1 <= number < 1_000_000:
        return step_text(round(number))
    return f"{number:.0e}".replace("e+0", "e").replace("e-0", "e-")


def _label_lowest(sheet: Sheet, n_columns: int) -> None:
    """Leave the steps' label to the lowest panel of each column."""
    for place, axes in enumerate(sheet.axes):
        if place + n_columns < len(sheet.axes):
            axes.set_xlabel("")


def _title(curve: Curve) -> str:
    label = shortened(curve.label, _LONGEST_TITLE)
    return label if curve.unit == "ppl" else f"{label}, {curve.metric}"


def _mark_handles(curves: Sequence[Curve], looks: Looks) -> list[Any]:
    handles = [looks.extra("best step", **ring_style(MUTED))]
    if any(_hollow(point) for curve in curves for point in curve.points):
        handles += [
            looks.extra("may be the best as well", marker="o", markersize=5),
            looks.extra("worse than the best", marker="o", markersize=5, markerfacecolor=PAPER),
        ]
    return handles


def _partial(curves: Sequence[Curve]) -> str:
    few = any(c.n < c.n_total for c in curves)
    return "partial: not all items were scored" if few else ""


def _sentence(curve: Curve) -> str:
    first, last = curve.points[0], curve.points[-1]
    values = [value(number, curve.unit) for number in (first.value, curve.best.value, last.value)]
    text = (
        f"{curve_name(curve)}: {values[0]} at step {first.step:,}, best {values[1]} at step "
        f"{curve.best.step:,}, {values[2]} at step {last.step:,}"
    )
    also = contenders_text(curve)
    return f"{text}; may be the best: {also}." if also else f"{text}."
