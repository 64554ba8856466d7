"""A report as plain data: what every format renders and nothing else.

It follows a reader's questions: the answer, the tables, the figures, what could be wrong, how it was made.
Nothing here knows how a page looks, and nothing computes: numbers were rounded into text when the report was
built, and each cell keeps the figures that its text shows, as they stand in the frame that its table names.

    >>> Cell("52.3", (52.26,)).sort_key
    52.26
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mambabench.plots.speed.described import DescribedFigure

Tone = Literal["", "good", "bad", "doubt", "faint"]
"""What a colour would say; the words say it too."""
Layout = Literal["", "paper"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """As shown; of any content, so that every format escapes it."""
    numbers: tuple[float, ...] = ()
    """Figures that the text shows, in their order, not rounded, in the unit of the frame."""
    tone: Tone = ""
    note: str = ""
    """Longer words for whoever asks: a tooltip, a footnote."""
    frame: str = ""
    """Frame that its figures are in, where that is another than the table's."""

    @property
    def sort_key(self) -> float | str:
        """What a column is sorted by: the first figure, else the text."""
        return self.numbers[0] if self.numbers else self.text


EMPTY = Cell("")


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    unit: str = ""
    """Shown in the header, where all cells have one."""
    numeric: bool = False
    note: str = ""
    """What it is, in a sentence."""


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    key: str
    """Unique in the report, of lower-case letters, digits and hyphens: an anchor, a label, a file name."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """Each as long as `columns`; the first cell names the row."""
    frame: str
    """Name of the frame that its figures are in."""
    notes: tuple[str, ...] = ()
    """Sentences below it."""
    layout: Layout = ""
    """"paper": models in rows, tasks in columns, metric and direction below them, as papers print it."""


@dataclass(frozen=True)
class Picture:
    """A figure."""

    key: str
    """As of a table; the name of its file."""
    title: str
    description: str
    """What it shows, for readers who do not see it: sentences, separated by newlines."""
    draw: Callable[[], DescribedFigure]
    """Draws it anew; equal reports draw equal figures."""


@dataclass(frozen=True)
class Words:
    """Sentences, one a line."""

    sentences: tuple[str, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class Code:
    """Something to type or to compare: a command, a digest."""

    label: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What one model did with one item."""

    text: str
    """What it answered, shortened; empty where that is not known."""
    right: bool | None
    """None where items are not right or wrong."""
    log_likelihood: float | None = None
    """Of the right answer, in nats."""


@dataclass(frozen=True)
class Item:
    """One item of a task."""

    doc_id: int
    member: str
    """Task within a group, else the task itself."""
    question: str
    """Its end, where the question stands."""
    right_answer: str
    answers: tuple[Answer, ...]
    """One for each of the task's models, in their order."""


@dataclass(frozen=True)
class TaskItems:
    """The items of one task that models were asked."""

    key: str
    """Unique in the report."""
    title: str
    models: tuple[str, ...]
    """Labels; the first is the one that won and lost are told against."""
    items: tuple[Item, ...]
    n_items: int
    """That there are; those left out of `items` for the file's size are the difference."""


@dataclass(frozen=True)
class Browser:
    """Items to look through: what was asked, what each model answered, which were won and lost."""

    tasks: tuple[TaskItems, ...]


Block = Table | Picture | Words | Code | Browser


@dataclass(frozen=True)
class Section:
    """One question of the reader."""

    key: str
    """As of a table."""
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
    """What is shown and how to read it, in a sentence or two."""


@dataclass(frozen=True)
class Report:
    """Everything that a rendering shows, in its order."""

    title: str
    subtitle: str
    """Of what it is: runs, models and machine in a phrase."""
    answers: tuple[Words, ...]
    """The answer, in three sentences as a rule; each with its tone."""
    sections: tuple[Section, ...]
    """The tables and figures, what could be wrong, how it was made, and items to look through."""
    program: str
    """Name and version of what wrote it."""

    def tables(self) -> list[Table]:
        """Return all tables in order."""
        return [b for s in self.sections for b in s.blocks if isinstance(b, Table)]

    def pictures(self) -> list[Picture]:
        """Return all figures in order."""
        return [b for s in self.sections for b in s.blocks if isinstance(b, Picture)]
