"""Curves over training steps as text for a terminal: a table of best steps, then values step by step.

render(curves)
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TextIO

from mambabench.tables.compare.curves import contenders_text, luck_text, shown_steps, words
from mambabench.tables.compare.format import harmless, value
from mambabench.tables.compare.names import apart
from mambabench.tables.console import console_on, fitting, no_room

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mambabench.compare.curves_result import Curve, CurvePoint, Curves

_WIDTH_OF_FILES: Final = 140
_MOST_STEPS: Final = 16
_LONGEST_NAMES: Final = (28, 16)
_BEST, _MAY_BE = "*", "~"
_SUMMARY_DROPPED: Final = ("luck", "metric", "may be the best")


def render(curves: Curves, stream: TextIO | None = None) -> None:
    """Write curves to a stream, in colour where that is a terminal."""
    curves = harmless(curves)
    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    for series in curves.series:
        mine = [c for c in curves.curves if c.series == series]
        if mine:
            _summary(console, mine)
            _by_step(console, [c for c in mine if c.headline])
    for sentence in (*words(curves), *(_sentence(remark) for remark in curves.remarks)):
        console.print(sentence)


def as_text(curves: Curves) -> str:
    """Return the curves as plain text without colour."""
    stream = io.StringIO()
    render(curves, stream)
    return stream.getvalue()


def _sentence(remark: str) -> str:
    return f"{remark[0].upper()}{remark[1:]}." if remark else ""


def _title(series: str, what: str) -> str:
    return f"{series}: {what}" if series else f"{what[0].upper()}{what[1:]}"


def _summary(console: Console, curves: Sequence[Curve]) -> None:
    from rich.text import Text

    first, last = curves[0].points[0].step, curves[0].points[-1].step
    columns = [
        ("metric", lambda c: c.metric),
        ("n", lambda c: f"{c.n:,}"),
        (f"step {first:,}", lambda c: value(c.points[0].value, c.unit)),
        ("best", lambda c: value(c.best.value, c.unit)),
        ("at step", _best_step),
        (f"step {last:,}", lambda c: value(c.points[-1].value, c.unit)),
        ("may be the best", contenders_text),
        ("luck", luck_text),
    ]

    def draw(kept: Sequence[tuple[str, object]], narrow: bool) -> Table:
        drawn = _frame()
        names = apart((curve.label for curve in curves), _LONGEST_NAMES[narrow])
        drawn.add_column("task", no_wrap=True)
        for title, _ in kept:
            right = title not in ("metric", "may be the best", "luck")
            drawn.add_column(title, justify="right" if right else "left", no_wrap=True)
        for curve in curves:
            cells = [cell(curve) for _, cell in kept]  # type: ignore[operator]
            drawn.add_row(names[curve.label], *cells)
        return drawn

    drawn, _, left_out = fitting(console, columns, _SUMMARY_DROPPED, draw)
    console.print(Text(_title(curves[0].series, "best steps"), style="bold"), soft_wrap=True)
    console.print(drawn)
    if left_out:
        console.print(no_room(left_out), style="dim")


def _best_step(curve: Curve) -> str:
    others = len(curve.best.ties) - 1
    return f"{curve.best.step:,}" + (f" and {others} more" if others else "")


def _by_step(console: Console, curves: Sequence[Curve]) -> None:
    from rich.text import Text

    steps = sorted({p.step for c in curves for p in c.points})
    shown = shown_steps(steps, [c.best.step for c in curves], _MOST_STEPS)
    # The mean and the first tasks last.
    names = apart((c.label for c in curves), _LONGEST_NAMES[0])
    columns = [(f"{_wrapped(names[c.label])}\n{c.metric}", c) for c in curves]
    drawn, _, left_out = fitting(
        console,
        columns,
        [title for title, _ in reversed(columns[1:])],
        lambda kept, narrow: _steps_table(kept, shown, n_with_ends=1 if narrow else len(kept)),
    )
    console.print(Text(_title(curves[0].series, "by training step"), style="bold"), soft_wrap=True)
    console.print(drawn)
    notes = [
        "in brackets: 95% intervals, each step by itself",
        f"{_BEST} best",
        f"{_MAY_BE} may be the best as well",
    ]
    if len(shown) < len(steps):
        notes.append(f"{len(steps) - len(shown)} of {len(steps)} steps are left out here; `--json` has all")
    console.print(f"{'; '.join(notes)}.", style="dim")
    if left_out:
        console.print(no_room(left_out), style="dim")
    console.print()


def _wrapped(name: str) -> str:
    return textwrap.fill(name, _LONGEST_NAMES[1], break_on_hyphens=False)


def _steps_table(columns: Sequence[tuple[str, Curve]], steps: Sequence[int], *, n_with_ends: int) -> Table:
    drawn = _frame()
    drawn.add_column("step", justify="right", no_wrap=True)
    for title, _ in columns:
        drawn.add_column(title, justify="right", no_wrap=True)
    for step in steps:
        points = [next((p for p in curve.points if p.step == step), None) for _, curve in columns]
        cells = [
            _cell(curve, point, with_ends=place < n_with_ends)
            for place, ((_, curve), point) in enumerate(zip(columns, points, strict=True))
        ]
        drawn.add_row(f"{step:,}", *cells)
    return drawn


def _cell(curve: Curve, point: CurvePoint | None, *, with_ends: bool) -> Text:
    from rich.text import Text

    if point is None:
        return Text("")
    best = point.step == curve.best.step
    mark = _BEST if best else _MAY_BE if point.contender else " "
    text = value(point.value, curve.unit)
    if with_ends and point.low is not None and point.high is not None:
        ends = [value(end, curve.unit).removesuffix("%") for end in (point.low, point.high)]
        text += f" [{ends[0]}, {ends[1]}]"
    return Text(f"{text} {mark}", style="bold" if best else "" if point.contender is not False else "dim")


def _frame() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
