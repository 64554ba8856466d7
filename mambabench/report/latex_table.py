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
    from mambabench.report.document import Cell, Table

_LETTERS: Final = 104
"""That stand side by side on a page of the document, in the small letters of tables."""
_GAP_LETTERS: Final = 3
"""Room that two columns have between them."""
_SCALED_LETTERS: Final = 1.45 * _LETTERS
"""Wider tables would be too small to read if they were scaled."""
_NARROWEST_LETTERS: Final = 16
"""Of a column of texts that are broken into lines."""
_NARROWEST_HEAD_LETTERS: Final = 10
_READABLE_LETTERS: Final = 24
"""That a column of texts gets in a table that is split anyway."""
_LONGEST_WORD: Final = 40
_MOST_ROWS: Final = 34
"""Of a table that is kept on one page."""
_EM_A_LETTER: Final = 0.5
_NUMBER: Final = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]+))?")
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
    decimals: tuple[str, ...] = ()
    """Digits of columns that are aligned at the decimal point, as siunitx's `table-format`; empty of others,
    and where none is."""


def latex_table(table: Table, *, place: str = "t", siunitx: bool = False) -> str:
    r"""Return a table as LaTeX.

    Args:
        table: of any size and content.
        place: of the float; `H` needs the package float.
        siunitx: whether columns of plain numbers are aligned at the decimal point, which needs the package
            siunitx from version 3 on.

    Returns:
        One `table`, several where it is split, or a `longtable`; with a caption and the label `tab:KEY`.
    """
    written = []
    for i, laid in enumerate(_laid_out(table)):
        aligned = replace(laid, decimals=_decimals(laid)) if siunitx else laid
        written.append(_written(aligned, place, f"{table.key}-part-{i + 1}" if i else table.key, i))
    return "\n".join(written)


def _laid_out(table: Table) -> Iterator[_Laid]:
    natural, narrowest = _widths(table)
    whole: tuple[int | None, ...] = (None,) * len(natural)
    if _sum(natural) <= _LETTERS:
        yield _Laid(table, whole, scaled=False)
    elif table.layout == "paper" and _sum(natural) <= _SCALED_LETTERS and len(table.rows) <= _MOST_ROWS:
        yield _Laid(table, whole, scaled=True)
    else:
        readable = [
            min(n, max(least, _READABLE_LETTERS)) for n, least in zip(natural, narrowest, strict=True)
        ]
        for kept in _parts(table, narrowest if _sum(narrowest) <= _LETTERS else readable):
            part = replace(
                table,
                columns=tuple(table.columns[j] for j in kept),
                rows=tuple(tuple(row[j] for j in kept) for row in table.rows),
                notes=table.notes if kept[-1] == len(natural) - 1 else (),
            )
            widths = _filled([natural[j] for j in kept], [narrowest[j] for j in kept])
            yield _Laid(part, widths, scaled=False)


def _widths(table: Table) -> tuple[list[int], list[int]]:
    """Return each column's width on one line, and that below which it cannot be read."""
    natural, narrowest = [], []
    for j, column in enumerate(table.columns):
        head = max(len(column.title), len(column.unit))
        body = max((len(row[j].text.strip()) + bool(row[j].note) for row in table.rows), default=0)
        natural.append(max(head, body, 1))
        # Figures stay on their line; of a head only words are broken.
        least = max(body, _NARROWEST_HEAD_LETTERS) if column.numeric else _NARROWEST_LETTERS
        narrowest.append(min(natural[-1], least, _LETTERS // 2))
    return natural, narrowest


def _parts(table: Table, widths: Sequence[int]) -> list[list[int]]:
    """Return the columns of each part of a table, in all of them those that name a row."""
    numeric = [column.numeric for column in table.columns]
    names = [0]
    for j in range(1, numeric.index(True) if True in numeric else 1):
        if _sum([widths[i] for i in (*names, j)]) > _LETTERS // 2:
            break
        names.append(j)
    parts = [names]
    for j in range(len(names), len(widths)):
        if len(parts[-1]) > len(names) and _sum([widths[i] for i in (*parts[-1], j)]) > _LETTERS:
            parts.append(names)
        parts[-1] = [*parts[-1], j]
    return parts


def _filled(natural: Sequence[int], narrowest: Sequence[int]) -> tuple[int | None, ...]:
    """Share a page's width among columns: none is wider than it needs, and wide ones are equally wide."""
    widths = list(narrowest)
    for widest in range(1, max(natural) + 1):
        wider = [min(n, max(least, widest)) for n, least in zip(natural, narrowest, strict=True)]
        if _sum(wider) > _LETTERS:
            break
        widths = wider
    return tuple(w if w < n else None for w, n in zip(widths, natural, strict=True))


def _sum(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP_LETTERS * (len(widths) - 1)


def _written(laid: _Laid, place: str, label: str, number: int) -> str:
    table = laid.table
    notes: dict[str, int] = {}
    groups = [[_row(laid, row, notes, best) for row, best in group] for group in _groups(table)]
    body = "\n\\midrule\n".join("\n".join(rows) for rows in groups)
    title = inline(table.title) + (", continued" if number else "")
    heading = f"\\caption{{{title}}}\\label{{tab:{label}}}"
    form = "".join(_form(laid, j) for j in range(len(table.columns)))
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


def _decimals(laid: _Laid) -> tuple[str, ...]:
    found = []
    for j, column in enumerate(laid.table.columns):
        numbers = [_NUMBER.fullmatch(row[j].text) for row in laid.table.rows]
        known = [number for number in numbers if number is not None]
        if not column.numeric or laid.widths_letters[j] is not None or not known:
            found.append("")
            continue
        sign = "-" if any(number[1] for number in known) else ""
        before, after = (max(len(number[i] or "") for number in known) for i in (2, 3))
        found.append(f"{sign}{before}.{after}" if after else f"{sign}{before}")
    return tuple(found)


def _form(laid: _Laid, j: int) -> str:
    column, width = laid.table.columns[j], laid.widths_letters[j]
    if laid.decimals and laid.decimals[j]:
        return f"S[table-format={laid.decimals[j]},mode=text,reset-text-series=false]"
    if width is not None:
        side = "raggedleft" if column.numeric else "raggedright"
        return f">{{\\{side}\\arraybackslash}}p{{{_EM_A_LETTER * width:g}em}}"
    return "r" if column.numeric else "l"


def _head(laid: _Laid) -> str:
    columns = laid.table.columns
    widths = laid.widths_letters
    rows = [[inline(c.title, longest_word=_longest(w)) for c, w in zip(columns, widths, strict=True)]]
    if any(column.unit for column in columns):
        rows.append([inline(column.unit) for column in columns])
    if laid.decimals:
        rows = [[f"{{{t}}}" if d else t for t, d in zip(row, laid.decimals, strict=True)] for row in rows]
    return "\n".join(f"{' & '.join(row)} \\\\" for row in rows)


def _longest(width: int | None) -> int | None:
    """Return how many letters of a word fit into a column for sure: they may be wide ones."""
    return None if width is None else max(2, int(0.8 * width))


def _row(laid: _Laid, row: Sequence[Cell], notes: dict[str, int], best: frozenset[int]) -> str:
    cells = []
    for j, cell in enumerate(row):
        text = inline(cell.text, longest_word=_longest(laid.widths_letters[j]))
        mark = f"\\textsuperscript{{{notes.setdefault(cell.note, len(notes) + 1)}}}" if cell.note else ""
        if not laid.decimals or not laid.decimals[j]:
            cells.append((f"\\textbf{{{text}}}" if j in best else text) + mark)
        elif _NUMBER.fullmatch(cell.text):
            # siunitx reads the number itself; what stands in braces it leaves alone.
            cells.append(("\\bfseries " if j in best else "") + text + (f" {{{mark}}}" if mark else ""))
        else:
            cells.append(f"{{{text}{mark}}}")
    return f"{' & '.join(cells)} \\\\"


def _below(table: Table, notes: dict[str, int]) -> str:
    def shown(text: str) -> str:
        return inline(text, longest_word=_LONGEST_WORD)

    said = [shown(note) for note in table.notes]
    said += [
        f"{shown(' '.join([column.title, column.unit]))}: {shown(column.note)}."
        for column in table.columns
        if column.note
    ]
    said += [f"\\textsuperscript{{{number}}}~{shown(note)}." for note, number in notes.items()]
    if table.layout == "paper" and any(best for group in _groups(table) for _, best in group):
        said.append("Bold: the best of its group, which may be by chance.")
    return f"\\par\\smallskip{{\\footnotesize\\raggedright {' '.join(said)}\\par}}\n" if said else ""


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
