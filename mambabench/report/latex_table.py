r"""A report's table as LaTeX with booktabs, in the layout that papers print.

    print(latex_table(table))

In a document that loads `booktabs`, `graphicx`, `longtable` and `array`, a file with this text can be
`\input`. Models stand in rows, in groups of about one size where their names tell it, with the best value of
a group in bold, as in Table 3 of the Mamba paper (arXiv:2312.00752); what was measured and an arrow towards
better stand below a task's name. Long tables break over pages, wide ones are scaled or split.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mambabench.report.latex_text import inline

if TYPE_CHECKING:
    from mambabench.report.document import Cell, Column, Table

_LETTERS: Final = 96
"""That stand side by side on a page of the document, in the small letters of tables."""
_GAP_LETTERS: Final = 3
"""Room that two columns have between them."""
_SCALED_LETTERS: Final = 1.45 * _LETTERS
"""Wider tables would be too small to read if they were scaled."""
_WIDEST_LETTERS: Final = (48, 32, 22, 16)
"""Widths at which texts of a column are broken into lines, tried in this order."""
_MOST_ROWS: Final = 34
"""Of a table that is kept on one page."""
_EM_A_LETTER: Final = 0.5
_SIZE: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)
_NEXT_SIZE: Final = 1.28
"""From one group of sizes to the next: published tables put 790M and 1B together, 1B and 1.3B apart."""


@dataclass(frozen=True)
class _Laid:
    """A table that fits a page's width."""

    table: Table
    widths_letters: tuple[int | None, ...]
    """Of columns whose texts are broken into lines; None of the others."""
    scaled: bool


def latex_table(table: Table, *, place: str = "t") -> str:
    r"""Return a table as LaTeX.

    Args:
        table: of any size and content.
        place: of the float; `H` needs the package float.

    Returns:
        One `table`, several where it is split, or a `longtable`; with a caption and the label `tab:KEY`.
    """
    laid = list(_laid_out(table))
    return "\n".join(
        _written(one, place, f"{table.key}-{i}" if i else table.key, i) for i, one in enumerate(laid)
    )


def _laid_out(table: Table) -> Iterator[_Laid]:
    natural = [_letters(table, j) for j in range(len(table.columns))]
    if _sum(natural) <= _LETTERS:
        yield _Laid(table, (None,) * len(natural), scaled=False)
        return
    for widest in _WIDEST_LETTERS:
        widths = [min(n, widest) if not c.numeric else n for n, c in zip(natural, table.columns, strict=True)]
        if _sum(widths) <= _LETTERS:
            broken = tuple(w if w < n else None for w, n in zip(widths, natural, strict=True))
            yield _Laid(table, broken, scaled=False)
            return
    if _sum(natural) <= _SCALED_LETTERS and len(table.rows) <= _MOST_ROWS:
        yield _Laid(table, (None,) * len(natural), scaled=True)
        return
    yield from _split(table, natural)


def _split(table: Table, natural: Sequence[int]) -> Iterator[_Laid]:
    """Yield parts of a table, each with its first column."""
    widths = [min(n, _WIDEST_LETTERS[1] if j else _WIDEST_LETTERS[2]) for j, n in enumerate(natural)]
    parts: list[list[int]] = [[0]]
    for j in range(1, len(widths)):
        if len(parts[-1]) > 1 and _sum([widths[i] for i in (*parts[-1], j)]) > _LETTERS:
            parts.append([0])
        parts[-1].append(j)
    for number, kept in enumerate(parts):
        part = replace(
            table,
            columns=tuple(table.columns[j] for j in kept),
            rows=tuple(tuple(row[j] for j in kept) for row in table.rows),
            notes=table.notes if number == len(parts) - 1 else (),
        )
        broken = tuple(widths[j] if widths[j] < natural[j] else None for j in kept)
        yield _Laid(part, broken, scaled=False)


def _letters(table: Table, j: int) -> int:
    column = table.columns[j]
    texts = [column.title, column.unit, *(row[j].text for row in table.rows)]
    return max(1, *(len(text.strip()) for text in texts))


def _sum(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP_LETTERS * (len(widths) - 1)


def _written(laid: _Laid, place: str, label: str, number: int) -> str:
    table = laid.table
    notes: dict[str, int] = {}
    groups = [[_row(laid, row, notes, best) for row, best in group] for group in _groups(table)]
    body = "\n\\midrule\n".join("\n".join(rows) for rows in groups)
    title = inline(table.title) + (", continued" if number else "")
    heading = f"\\caption{{{title}}}\\label{{tab:{label}}}"
    form = "".join(map(_form, table.columns, laid.widths_letters))
    head = f"\\toprule\n{_head(laid)}\n\\midrule"
    below = _below(table, notes)
    if len(table.rows) > _MOST_ROWS or any(laid.widths_letters):
        head = f"{heading}\\\\\n{head}\n\\endfirsthead\n{head}\n\\endhead"
        inside = f"{head}\n\\bottomrule\n\\endfoot\n{body}"
        whole = f"\\begin{{longtable}}{{{form}}}\n{inside}\n\\end{{longtable}}"
        return f"\\begingroup\\small\n{whole}\n{below}\\endgroup\n"
    tabular = f"\\begin{{tabular}}{{{form}}}\n{head}\n{body}\n\\bottomrule\n\\end{{tabular}}"
    if laid.scaled:
        tabular = f"\\resizebox{{\\linewidth}}{{!}}{{%\n{tabular}%\n}}"
    return f"\\begin{{table}}[{place}]\n\\centering\\small\n{heading}\n{tabular}\n{below}\\end{{table}}\n"


def _form(column: Column, width: int | None) -> str:
    if width is not None:
        side = "raggedleft" if column.numeric else "raggedright"
        return f">{{\\{side}\\arraybackslash}}p{{{_EM_A_LETTER * width:g}em}}"
    return "r" if column.numeric else "l"


def _head(laid: _Laid) -> str:
    columns = laid.table.columns
    rows = [[inline(column.title) for column in columns]]
    if any(column.unit for column in columns):
        rows.append([inline(column.unit) for column in columns])
    return "\n".join(f"{' & '.join(row)} \\\\" for row in rows)


def _row(laid: _Laid, row: Sequence[Cell], notes: dict[str, int], best: frozenset[int]) -> str:
    cells = []
    for j, cell in enumerate(row):
        text = inline(cell.text)
        if j in best:
            text = f"\\textbf{{{text}}}"
        if cell.note:
            text += f"\\textsuperscript{{{notes.setdefault(cell.note, len(notes) + 1)}}}"
        cells.append(text)
    return f"{' & '.join(cells)} \\\\"


def _below(table: Table, notes: dict[str, int]) -> str:
    said = [inline(note) for note in table.notes]
    said += [
        f"{inline(' '.join([column.title, column.unit]))}: {inline(column.note)}."
        for column in table.columns
        if column.note
    ]
    said += [f"\\textsuperscript{{{number}}}~{inline(note)}." for note, number in notes.items()]
    if table.layout == "paper" and any(best for group in _groups(table) for _, best in group):
        said.append("Bold: the best of its group, which may be by chance.")
    return f"\\par\\smallskip{{\\footnotesize {' '.join(said)}\\par}}\n" if said else ""


def _groups(table: Table) -> list[list[tuple[tuple[Cell, ...], frozenset[int]]]]:
    """Return rows in groups, each with the columns in which it is the best of its group."""
    if table.layout != "paper":
        return [[(row, frozenset()) for row in table.rows]]
    return [_marked(table, rows) for rows in _by_size(table.rows)]


def _by_size(rows: Sequence[tuple[Cell, ...]]) -> list[list[tuple[Cell, ...]]]:
    sizes = [_size(row[0].text) for row in rows]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or not known:
        return [list(rows)]
    order = sorted(range(len(rows)), key=known.__getitem__)
    groups: list[list[tuple[Cell, ...]]] = []
    for before, i in zip([None, *order], order, strict=False):
        if before is None or known[i] > _NEXT_SIZE * known[before]:
            groups.append([])
        groups[-1].append(rows[i])
    return groups


def _size(name: str) -> float | None:
    """Return the number of parameters that a model's name tells: the last one, as of "tuned-130m"."""
    found = _SIZE.findall(name)
    return float(found[-1][0]) * (1e6 if found[-1][1] in "mM" else 1e9) if found else None


def _marked(table: Table, rows: Sequence[tuple[Cell, ...]]) -> list[tuple[tuple[Cell, ...], frozenset[int]]]:
    best: list[set[int]] = [set() for _ in rows]
    for j, column in enumerate(table.columns):
        sign = 1 if "↑" in column.unit else -1 if "↓" in column.unit else 0
        values = {
            i: sign * row[j].numbers[0]
            for i, row in enumerate(rows)
            if row[j].numbers and not math.isnan(row[j].numbers[0])
        }
        if sign and len(values) > 1:
            first = rows[max(values, key=values.__getitem__)][j].text
            # What is equal as printed is equally good to a reader.
            for i in values:
                if rows[i][j].text == first:
                    best[i].add(j)
    return [(row, frozenset(columns)) for row, columns in zip(rows, best, strict=True)]
