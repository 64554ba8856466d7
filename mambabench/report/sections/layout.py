"""How much fits into a table, and what stands in for what does not.

>>> parts(list("abcdefghi"), 4)
[['a', 'b', 'c'], ['d', 'e', 'f'], ['g', 'h', 'i']]
>>> thinned([1, 2, 3, 4, 5, 6, 7], 4)
[1, 3, 5, 7]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

from mambabench.report.document import Cell, Column, Layout, Table, Words
from mambabench.report.format import Rows, plural, shortened

FEW_MODELS: Final = 4
"""Models that fit side by side, each with its interval in a column."""
MOST_COLUMNS: Final = 8
"""Columns of figures with intervals."""
MOST_PLAIN_COLUMNS: Final = 12
"""Columns of figures alone."""
MOST_ROWS: Final = 60
MOST_SENTENCES: Final = 8
_LONGEST_SLUG = 40

_T = TypeVar("_T")
_Key = TypeVar("_Key", bound=Hashable)


def parts(values: Sequence[_T], most: int) -> list[list[_T]]:
    """Return values in pieces of about the same length, none longer than `most`."""
    if not values:
        return []
    n_parts = -(-len(values) // most)
    length = -(-len(values) // n_parts)
    return [list(values[i : i + length]) for i in range(0, len(values), length)]


def thinned(values: Sequence[_T], most: int) -> list[_T]:
    """Return at most so many values, spread evenly, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (most - 1))] for i in range(most)]


def slug(text: str) -> str:
    """Return a text as part of a key: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:_LONGEST_SLUG].strip("-") or "x"


def grids(
    key: str,
    title: str,
    frame: str,
    *,
    heads: Sequence[Column],
    names: Sequence[tuple[Cell, ...]],
    columns: Sequence[tuple[Column, Callable[[int], Cell]]],
    most: int = MOST_COLUMNS,
    notes: Sequence[str] = (),
    layout: Layout = "",
) -> list[Table]:
    """Lay figures out under columns, in several tables where there are too many of them.

    Args:
        key: of the table; of several ones with a number at the end.
        title: of the table; of several ones with the number of the part.
        frame: that the figures are in.
        heads: columns that name a row, in each part.
        names: of each row, under `heads`.
        columns: each with what its cell of a row is; one without any text is left out.
        most: columns of a part, without `heads`.
        notes: below the last part.
        layout: of each part.
    """
    filled = [(column, [cell(i) for i in range(len(names))]) for column, cell in columns]
    filled = [(column, cells) for column, cells in filled if any(cell.text for cell in cells)]
    pieces = parts(filled, most)
    tables = []
    for i, piece in enumerate(pieces, 1):
        several = len(pieces) > 1
        rows = [(*name, *(cells[j] for _, cells in piece)) for j, name in enumerate(names)]
        tables.append(
            Table(
                key=f"{key}-{i}" if several else key,
                title=f"{title}, part {i} of {len(pieces)}" if several else title,
                columns=(*heads, *(column for column, _ in piece)),
                # A row without a figure only takes room; elsewhere it has one.
                rows=tuple(
                    row for row in rows if not several or any(cell.text for cell in row[len(heads) :])
                ),
                frame=frame,
                notes=tuple(notes) if i == len(pieces) else (),
                layout=layout,
            )
        )
    return tables


def table(
    key: str,
    title: str,
    frame: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    notes: Sequence[str] = (),
) -> Table:
    """Return a table without the columns that are empty throughout; the first one always stays."""
    kept = [j for j in range(len(columns)) if j == 0 or any(row[j].text for row in rows)]
    return Table(
        key=key,
        title=title,
        columns=tuple(columns[j] for j in kept),
        rows=tuple(tuple(row[j] for j in kept) for row in rows),
        frame=frame,
        notes=tuple(notes),
    )


def first_rows(
    rows: Sequence[_T], frame: str, what: str, most: int = MOST_ROWS
) -> tuple[list[_T], list[str]]:
    """Return the rows that have room, and a note on the others."""
    if len(rows) <= most:
        return list(rows), []
    return list(rows[:most]), [f"The first {most} of {plural(len(rows), what)}; frame {frame} has all."]


def earlier_checkpoints(rows: Rows) -> set[str]:
    """Return the labels of checkpoints of a training before its last, which tables over steps show."""
    last: dict[str, tuple[int, str]] = {}
    for row in rows("steps"):
        reached = (row["step"] or 0, row["label"])
        last[row["series"]] = max(last.get(row["series"], reached), reached)
    return {row["label"] for row in rows("steps")} - {label for _, label in last.values()}


def findings(rows: Rows, kinds: Sequence[str], without: tuple[str, ...] = ()) -> list[Words]:
    """Return the sentences that follow from runs of some kinds; of several runs each with its run's name.

    Args:
        rows: of the frames.
        kinds: of findings.
        without: beginnings of sentences that are said elsewhere.
    """
    found = [row for row in rows("findings") if row["kind"] in kinds and row["text"]]
    found = [row for row in found if not (without and row["text"].startswith(without))]
    # Runs of the same models say the same of other figures.
    several = len({row["run"] for row in found}) > 1
    said = list(
        dict.fromkeys(
            f"{row['run']}: {row['text']}" if several and row["run"] else row["text"] for row in found
        )
    )
    if not said:
        return []
    shown = [shortened(text, 600) for text in said[:MOST_SENTENCES]]
    if len(said) > len(shown):
        shown.append(f"{plural(len(said) - len(shown), 'more sentence')} in frame findings.")
    return [Words(tuple(shown))]
