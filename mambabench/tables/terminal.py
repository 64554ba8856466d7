"""A zero-shot table as text for a terminal: one model in full, several side by side."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from mambabench.tables.zeroshot import Average, Row, ZeroshotTable

_WIDTH_OF_FILES = 160
_DIGITS = {"%": 1, "ppl": 2, "bits/byte": 4}
_LARGEST_WRITTEN_OUT = 1e5
_VERDICT_STYLE = {"reproduced": "green", "differs": "bold red", "failed": "bold red", "partial": "yellow"}


def render(table: ZeroshotTable, stream: TextIO | None = None) -> None:
    """Write the table to a stream, in colour where that is a terminal."""
    from rich.console import Console
    from rich.text import Text

    out = stream or sys.stdout
    width = None if out.isatty() else _WIDTH_OF_FILES
    # Names and texts come from files and models: nothing in them is markup.
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    # Above the table rather than as its title, which would be wrapped to the table's width.
    console.print(Text(_heading(table), style="bold"), soft_wrap=True)
    console.print(_single(table) if len(table.models) == 1 else _side_by_side(table))


def as_text(table: ZeroshotTable) -> str:
    """Return the table as plain text without colour."""
    stream = io.StringIO()
    render(table, stream)
    return stream.getvalue()


def _single(table: ZeroshotTable) -> Table:
    drawn = _frame()
    with_chance = any(r.chance is not None for r in table.rows)
    with_reference = any(r.reference is not None for r in table.rows)
    drawn.add_column("task", no_wrap=True)
    drawn.add_column("metric", no_wrap=True)
    for name in ("value", "95% interval", "n"):
        drawn.add_column(name, justify="right", no_wrap=True)
    if with_chance:
        drawn.add_column("chance", justify="right", no_wrap=True)
    if with_reference:
        drawn.add_column("published", justify="right", no_wrap=True)
        drawn.add_column("difference", justify="right", no_wrap=True)
    drawn.add_column("verdict", no_wrap=True)
    for row in table.rows:
        cells = [row.label, _metric(row), _value(row), _interval(row), _items(row)]
        if with_chance:
            cells.append(_number(row.chance, row.unit))
        if with_reference:
            cells += [_number(row.reference, row.unit), _difference(row)]
        drawn.add_row(*cells, _styled(row.verdict))
    for average in table.averages:
        drawn.add_section()
        cells = [f"average of {average.n_tasks}", "accuracies", f"{average.value:.1f} %", "", ""]
        if with_chance:
            cells.append("")
        if with_reference:
            cells += _average_reference(average)
        drawn.add_row(*cells, "")
    return drawn


def _side_by_side(table: ZeroshotTable) -> Table:
    drawn = _frame()
    drawn.add_column("task", no_wrap=True)
    drawn.add_column("metric", no_wrap=True)
    drawn.add_column("n", justify="right", no_wrap=True)
    with_chance = any(r.chance is not None for r in table.rows)
    if with_chance:
        drawn.add_column("chance", justify="right", no_wrap=True)
    for model in table.models:
        drawn.add_column(model, justify="right", no_wrap=True)
    by_line: dict[tuple[str, str], list[Row]] = {}
    for row in table.rows:
        by_line.setdefault((row.task, row.metric), []).append(row)
    for rows in by_line.values():
        # A failed row knows neither unit nor number of items.
        first = next((r for r in rows if r.value is not None), rows[0])
        cells = [first.label, _metric(first), _items(first)]
        if with_chance:
            cells.append(_number(first.chance, first.unit))
        drawn.add_row(*cells, *(_in_column(row) for row in rows))
    if table.averages:
        drawn.add_section()
        by_model = {a.model: a for a in table.averages}
        cells = ["average", "accuracies", "", *([""] if with_chance else [])]
        drawn.add_row(*cells, *(_average_in_column(by_model.get(m)) for m in table.models))
    return drawn


def _heading(table: ZeroshotTable) -> str:
    who = table.models[0] if len(table.models) == 1 else f"{len(table.models)} models"
    partial = "   PARTIAL: not all items were scored" if table.partial else ""
    return f"{who}: {table.title or table.suite}{partial}"


def _frame() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def _in_column(row: Row) -> Text:
    from rich.text import Text

    if row.value is None:
        return _styled("failed")
    text = Text(f"{_value(row)}  {_interval(row)}".rstrip())
    if row.reference is not None:
        text.append(f"\n{_number(row.reference, row.unit)} published, {_difference(row)}, ")
        text.append_text(_styled(row.verdict))
    return text


def _average_in_column(average: Average | None) -> str:
    if average is None:
        return ""
    text = f"{average.value:.1f} %"
    if average.reference is not None:
        text += f"\n{average.reference:.1f} % published"
    return text


def _average_reference(average: Average) -> list[str]:
    if average.reference is None:
        return ["", ""]
    return [f"{average.reference:.1f} %", f"{average.value - average.reference:+.1f}"]


def _metric(row: Row) -> str:
    return row.metric if row.filter == "none" else f"{row.metric} ({row.filter})"


def _value(row: Row) -> str:
    return "" if row.value is None else _number(row.value, row.unit)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{_rounded(value, unit)} %" if unit == "%" else _rounded(value, unit)


def _interval(row: Row) -> str:
    if row.low is None or row.high is None:
        return ""
    return f"[{_rounded(row.low, row.unit)}, {_rounded(row.high, row.unit)}]"


def _rounded(value: float, unit: str) -> str:
    """Return as many digits as a paper prints; an untrained model's perplexity needs an exponent."""
    if abs(value) >= _LARGEST_WRITTEN_OUT:
        return f"{value:.2e}"
    return f"{value:.{_DIGITS.get(unit, 3)}f}"


def _items(row: Row) -> str:
    return str(row.n) if row.n in (0, row.n_total) else f"{row.n} of {row.n_total}"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    return f"{row.difference:+.2f}"


def _styled(verdict: str) -> Text:
    from rich.text import Text

    return Text(verdict, style=_VERDICT_STYLE.get(verdict, ""))


def footnotes(table: ZeroshotTable, sources: Sequence[str]) -> list[str]:
    """Return the lines that belong under the table: failures and where published figures come from."""
    lines = dict.fromkeys(f"{r.model}, {r.label}: {r.error}" for r in table.rows if r.error)
    return [*lines, *(f"published: {s}" for s in sources)]
