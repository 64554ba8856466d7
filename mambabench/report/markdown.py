"""A report as Markdown that code hosts render: for a pull request, an issue, a README.

    text = render_markdown(report, figures="figures")

Tables are those of GitHub and GitLab. Everything that a report's texts hold shows as text
(`mambabench.report.markdown_text`). Equal reports give equal text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mambabench.report.document import Browser, Code, Picture, Table, Words
from mambabench.report.items_summary import changed, counted, summary_of
from mambabench.report.markdown_text import fenced, inline

if TYPE_CHECKING:
    from mambabench.report.document import Block, Item, Report, TaskItems, Tone

_SAID: Final[dict[Tone, str]] = {"bad": "**Problem:** ", "doubt": "**Caution:** "}
_EXAMPLES: Final = 2
"""Items shown of those that a model won, and of those that it lost, for each task."""
_WIDEST_LETTERS: Final = 200
"""Of tables whose columns stand under each other in the text too."""
_MOST_OPEN_NOTES: Final = 3
"""More notes on single cells than these are folded away."""


def render_markdown(report: Report, *, figures: str | None = None) -> str:
    """Return the report as Markdown.

    Args:
        report: what to show.
        figures: directory in which `KEY.svg` of every picture lies, as links name it; None where there is
            none: then pictures are described.
    """
    parts = [f"# {inline(report.title, line_break=' ')}", inline(report.subtitle)]
    parts.append("\n".join(f"- {inline(text)}" for words in report.answers for text in words.sentences))
    for section in report.sections:
        parts += [f"## {inline(section.title, line_break=' ')}", inline(section.lead)]
        for block in section.blocks:
            parts += _block(block, figures)
    parts.append(f"<sub>{inline(report.program)}</sub>")
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block, figures: str | None) -> Iterator[str]:
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Picture):
        yield from _picture(block, figures)
    elif isinstance(block, Words):
        said = _SAID.get(block.tone, "")
        yield "\n".join(f"- {said}{inline(text)}" for text in block.sentences)
    elif isinstance(block, Code):
        yield inline(block.label)
        yield fenced(block.text)
    elif isinstance(block, Browser):
        for task in block.tasks:
            yield from _items(task)


def _table(table: Table) -> Iterator[str]:
    yield f"### {inline(table.title, line_break=' ')}"
    notes: dict[str, str] = {}
    rows = []
    for row in table.rows:
        cells = []
        for cell in row:
            mark = ""
            if cell.note:
                mark = f" <sup>{notes.setdefault(cell.note, str(len(notes) + 1))}</sup>"
            cells.append(inline(cell.text) + mark)
        rows.append(cells)
    headers = []
    for column in table.columns:
        unit = f" ({inline(column.unit)})" if column.unit else ""
        headers.append(inline(column.title) + unit)
    yield grid(headers, rows, [column.numeric for column in table.columns])
    if table.notes:
        yield "\n".join(f"- {inline(note)}" for note in table.notes)
    columns = [
        f"- {header}: {inline(column.note)}"
        for header, column in zip(headers, table.columns, strict=True)
        if column.note
    ]
    marked = [f"- <sup>{mark}</sup> {inline(note)}" for note, mark in notes.items()]
    if len(marked) <= _MOST_OPEN_NOTES and not columns:
        yield "\n".join(marked)
    else:
        yield _folded("Notes", "\n".join([*columns, *marked]))


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Return a table of Markdown cells.

    Args:
        headers: one a column.
        rows: each as long.
        numeric: which columns stand to the right.
    """
    if not headers:
        return ""
    from tabulate import tabulate

    drawn = tabulate(
        [list(row) for row in rows],
        headers=list(headers),
        tablefmt="pipe",
        colalign=["right" if right else "left" for right in numeric],
        disable_numparse=True,
    )
    lines = drawn.splitlines()
    if len(lines[0]) <= _WIDEST_LETTERS and not any(map(_is_uneven, drawn)):
        return drawn
    # Columns under each other help nobody in lines that are broken; a code host takes so many letters only.
    lines[1] = re.sub("-{4,}", "---", lines[1])
    return "\n".join(re.sub(" {2,}", " ", line) for line in lines)


def _is_uneven(letter: str) -> bool:
    """Return whether a letter has not one column's width: tabulate pads it as another package tells it to."""
    return not letter.isascii() and (
        unicodedata.category(letter)[0] == "M" or unicodedata.east_asian_width(letter) in "WF"
    )


def _folded(title: str, text: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def _picture(picture: Picture, figures: str | None) -> Iterator[str]:
    yield f"### {inline(picture.title, line_break=' ')}"
    if figures is None:
        yield f"*Figure.* {inline(picture.description)}"
        return
    place = quote(f"{figures.rstrip('/')}/{picture.key}.svg" if figures else f"{picture.key}.svg")
    yield f"![{inline(picture.title, line_break=' ')}]({place})"
    lines = [f"- {inline(line)}" for line in picture.description.splitlines() if line.strip()]
    yield _folded("What the figure shows", "\n".join(lines))


def _items(task: TaskItems) -> Iterator[str]:
    yield f"### {inline(task.title, line_break=' ')}"
    yield inline(counted(task))
    if (summary := summary_of(task)) is not None:
        yield grid(
            [inline(column.title) for column in summary.columns],
            [[inline(cell.text) for cell in row] for row in summary.rows],
            [column.numeric for column in summary.columns],
        )
    examples: list[str] = []
    for place in range(1, len(task.models)):
        won, lost = changed(task, place)
        examples += [_example(task, item, place, "won by") for item in won[:_EXAMPLES]]
        examples += [_example(task, item, place, "lost by") for item in lost[:_EXAMPLES]]
    examples = examples or [_example(task, item, None, "") for item in task.items[:_EXAMPLES]]
    if examples:
        yield _folded("Examples", "\n".join(examples))


def _example(task: TaskItems, item: Item, place: int | None, how: str) -> str:
    of = f"{inline(item.member)}, item {item.doc_id:,}"
    lines = [f"- {of}" + (f", {how} {inline(task.models[place])}" if place is not None else "")]
    lines.append(f"  - asked: {inline(item.question)}")
    if item.right_answer:
        lines.append(f"  - right: {inline(item.right_answer)}")
    for number in dict.fromkeys((0, place or 0)):
        answer = item.answers[number]
        judged = {True: " (right)", False: " (wrong)", None: ""}[answer.right]
        if answer.text or judged:
            lines.append(f"  - {inline(task.models[number])}{judged}: {inline(answer.text)}")
    return "\n".join(lines)
