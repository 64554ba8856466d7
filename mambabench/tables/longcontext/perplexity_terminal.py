"""A perplexity table as text for a terminal: the models, then their loss by position."""

from __future__ import annotations

import io
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from mambabench.tables.console import console_on, fitting, no_room
from mambabench.tables.longcontext.perplexity import positions_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mambabench.tables.longcontext.perplexity import (
        Figure,
        PerplexityRow,
        PerplexityTable,
        PositionRow,
    )

_WIDTH_OF_FILES = 160
_LARGEST_WRITTEN_OUT = 1e5
_LONGEST_NAMES = (60, 18)
_DROPPED_FIRST = ("word ppl", "byte ppl", "documents", "tokens", "token ppl")
_INTERVALS = "intervals"
_BITS_DIGITS = 4
_LOSS_DIGITS = 3
_PERPLEXITY_DIGITS = 4
"""All digits of a perplexity together, where it is no whole number of more."""
_STATUS_STYLE = {"unsupported": "yellow", "failed": "bold red"}
_PAST = "*"

Cell = Callable[["PerplexityRow"], str]


def render(table: PerplexityTable, stream: TextIO | None = None) -> None:
    """Write the table to a stream, in colour where that is a terminal."""
    from rich.text import Text

    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    heading = table.title + (f" ({table.label})" if table.label else "")
    partial = "   PARTIAL: not all of it was evaluated" if table.partial else ""
    console.print(Text(f"{heading}{partial}", style="bold"), soft_wrap=True)
    drawn, _, left_out = fitting(
        console, _columns(), _DROPPED_FIRST, lambda columns, narrow: _models(table, columns, narrow)
    )
    console.print(drawn)
    _print_no_room(console, left_out)
    if table.edges:
        console.print(Text("Loss by position in the document (nats a token)", style="bold"), soft_wrap=True)
        drawn, _, left_out = fitting(
            console,
            [("losses", None), (_INTERVALS, None)],
            [_INTERVALS],
            lambda parts, narrow: _positions(table, narrow, intervals=len(parts) > 1),
        )
        console.print(drawn)
        _print_no_room(console, left_out)
        if any(place.past_training_length for row in table.rows for place in row.positions):
            console.print(Text(f"{_PAST} past the training length"), soft_wrap=True)


def as_text(table: PerplexityTable) -> str:
    """Return the table as plain text without colour."""
    stream = io.StringIO()
    render(table, stream)
    return stream.getvalue()


def _print_no_room(console: Console, left_out: Sequence[str]) -> None:
    if left_out:
        console.print(no_room(left_out), style="dim")


def _columns() -> list[tuple[str, Cell]]:
    return [
        ("bits/byte", lambda row: _figure(row.bits_per_byte, _BITS_DIGITS)),
        ("byte ppl", lambda row: _perplexity(row.byte_perplexity)),
        ("word ppl", lambda row: _perplexity(row.word_perplexity)),
        ("token ppl", lambda row: _perplexity(row.token_perplexity)),
        ("documents", lambda row: f"{row.n_documents:,}"),
        ("tokens", lambda row: f"{row.n_tokens:,}"),
    ]


def _models(table: PerplexityTable, columns: Sequence[tuple[str, Cell]], narrow: bool) -> Table:
    from rich.text import Text

    drawn = _frame()
    for name in ("model", "context"):
        drawn.add_column(name, no_wrap=True)
    for name, _ in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        said = Text(row.status, style=_STATUS_STYLE.get(row.status, ""))
        cells = [cell(row) for _, cell in columns] if row.status == "ok" else [said]
        drawn.add_row(_filled(row.model, narrow), _filled(row.context, narrow), *cells)
    return drawn


def _filled(text: str, narrow: bool) -> str:
    return textwrap.fill(text, _LONGEST_NAMES[narrow], break_on_hyphens=False)


def _positions(table: PerplexityTable, narrow: bool, *, intervals: bool) -> Table:
    drawn = _frame()
    drawn.add_column("positions", justify="right", no_wrap=True)
    shown = [row for row in table.rows if row.positions]
    by_row = [{place.first_token: place for place in row.positions} for row in shown]
    counts = [{first: place.n_documents for first, place in places.items()} for places in by_row]
    # Models with one tokenizer have the same documents at each position.
    groups = [by_row] if all(count == counts[0] for count in counts) else [[places] for places in by_row]
    counted = any(n > 1 for count in counts for n in count.values())
    names = iter(row.model for row in shown)
    for group in groups:
        for _ in group:
            drawn.add_column(_filled(next(names), narrow), justify="right", no_wrap=True)
        if counted:
            drawn.add_column("documents", justify="right", no_wrap=True)
    for first, end in table.edges:
        cells = []
        for group in groups:
            cells += [_loss(places[first], intervals) if first in places else "" for places in group]
            if counted:
                cells.append(f"{group[0][first].n_documents:,}" if first in group[0] else "")
        drawn.add_row(positions_text(first, end), *cells)
    return drawn


def _loss(place: PositionRow, intervals: bool) -> str:
    mark = _PAST if place.past_training_length else " "
    figure = place.loss_nats
    interval = _interval(figure, _LOSS_DIGITS) if intervals else ""
    return f"{_rounded(figure.value, _LOSS_DIGITS)}{mark}" + (f" {interval}" if interval else "")


def _figure(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return ""
    interval = _interval(figure, digits)
    return _rounded(figure.value, digits) + (f"\n{interval}" if interval else "")


def _perplexity(figure: Figure | None) -> str:
    return _figure(figure, _digits(figure))


def _digits(perplexity: Figure | None) -> int:
    """Return the decimals that leave a perplexity so many digits; its interval has the same."""
    if perplexity is None or perplexity.value < 1:
        return _PERPLEXITY_DIGITS - 1
    return max(0, _PERPLEXITY_DIGITS - 1 - math.floor(math.log10(perplexity.value)))


def _interval(figure: Figure, digits: int) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"[{_rounded(figure.low, digits)}, {_rounded(figure.high, digits)}]"


def _rounded(value: float, digits: int) -> str:
    """Return a figure; an untrained model's perplexity needs an exponent."""
    return f"{value:.2e}" if abs(value) >= _LARGEST_WRITTEN_OUT else f"{value:,.{digits}f}"


def _frame() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
