"""A report's tables as the page's template reads them: values apart from intervals, notes, keys to sort by.

>>> split("52.3 [50.1, 54.4]", 3)
('52.3', ' [50.1, 54.4]')
>>> split("mamba [base]", 0)
('mamba [base]', '')
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mambabench.report.document import Cell, Column, Table, Tone

MARKS: Final[dict[str, tuple[str, str]]] = {
    "good": ("✓", "good"),
    "bad": ("✗", "bad"),
    "doubt": ("?", "doubtful"),
}
"""The sign and the word of each tone that has them, for those who do not see its colour."""
_INTERVAL: Final = re.compile(r"(?P<value>.*\S)(?P<interval>\s+(?:[\[(][^\[\]()]*[\])]|±.*))")
_LONG_ROWS = 24
"""More rows than this scroll in a box of their own."""
_WIDE_COLUMNS, _WIDEST_COLUMNS = 8, 14
"""More columns than this are printed in small type, and across."""
_SHORT_LETTERS, _TEXT_LETTERS = 26, 70
"""Up to where a text is not broken into lines, and from where it gets the width of a sentence."""
_LONGEST_NAME = 18
"""Letters of a row's name that is not broken into lines."""
_MOST_OPEN_NOTES = 8


@dataclass(frozen=True)
class CellView:
    """A cell in a page."""

    value: str
    interval: str
    key: str
    """A number to sort by; empty where it is the text."""
    tone: Tone
    mark: tuple[str, str] | None
    note: str
    note_number: int
    """Of its note below the table; 0 for none."""


@dataclass(frozen=True)
class RowView:
    """A row in a page."""

    cells: tuple[CellView, ...]
    begins_group: bool
    """Whether its name is another than the row's above, in a table where names repeat."""


@dataclass(frozen=True)
class TableView:
    """A table in a page."""

    key: str
    title: str
    columns: tuple[Column, ...]
    kinds: tuple[str, ...]
    """What each column's cells are: "n" figures, "t" texts, "tt" sentences, "" short texts."""
    explained: tuple[Column, ...]
    """The columns with notes."""
    rows: tuple[RowView, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    """Notes of cells, each once, in the order of their numbers."""
    notes_open: bool
    long: bool
    breadth: str
    """How it is printed: "", "wide" or "wide across"."""
    look: str
    """Of "paper" and "short", where all names of rows are."""


def table_view(table: Table) -> TableView:
    """Return a table as the template reads it."""
    notes: dict[str, int] = {}
    names = [row[0].text for row in table.rows if row]
    grouped = len(set(names)) < len(names)
    long_names = max(map(len, names), default=0) > _LONGEST_NAME
    rows = []
    for place, row in enumerate(table.rows):
        cells = tuple(
            _cell_view(cell, column, notes) for cell, column in zip(row, table.columns, strict=True)
        )
        rows.append(RowView(cells, grouped and place > 0 and names[place] != names[place - 1]))
    return TableView(
        key=table.key,
        title=table.title,
        columns=table.columns,
        kinds=tuple(
            _kind(column, [row[i].text for row in table.rows]) for i, column in enumerate(table.columns)
        ),
        explained=tuple(column for column in table.columns if column.note),
        rows=tuple(rows),
        sentences=table.notes,
        notes=tuple(notes),
        notes_open=len(notes) <= _MOST_OPEN_NOTES,
        long=len(rows) > _LONG_ROWS,
        breadth=_breadth(len(table.columns)),
        look=" ".join(filter(None, [table.layout, "" if long_names else "short"])),
    )


def _kind(column: Column, texts: Sequence[str]) -> str:
    if column.numeric:
        return "n"
    longest = max(map(len, texts), default=0)
    return "" if longest <= _SHORT_LETTERS else "t" if longest <= _TEXT_LETTERS else "tt"


def _breadth(n_columns: int) -> str:
    return ("wide across" if n_columns > _WIDEST_COLUMNS else "wide") if n_columns > _WIDE_COLUMNS else ""


def _cell_view(cell: Cell, column: Column, notes: dict[str, int]) -> CellView:
    value, interval = split(cell.text, len(cell.numbers)) if column.numeric else (cell.text, "")
    number = notes.setdefault(cell.note, len(notes) + 1) if cell.note else 0
    return CellView(value, interval, _key(cell), cell.tone, MARKS.get(cell.tone), cell.note, number)


def split(text: str, n_numbers: int) -> tuple[str, str]:
    """Return a cell's value and its interval, whose text may be empty.

    Args:
        text: as shown.
        n_numbers: figures that it shows; a single one has no interval.
    """
    found = _INTERVAL.fullmatch(text) if n_numbers > 1 else None
    return (found["value"], found["interval"]) if found else (text, "")


def _key(cell: Cell) -> str:
    key = cell.sort_key
    if isinstance(key, str) or math.isnan(key):
        return ""
    # Scripts read it as they read any number.
    return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(key) or f"{key:.12g}"
