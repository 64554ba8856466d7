"""Rows of conversation costs as text for a terminal: one line a history."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from mambabench.stats.replicates import N_FOR_INTERVAL
from mambabench.tables.console import console_on, fitting, no_room
from mambabench.tables.speed.conversation import OPERATIONS, ConversationRow
from mambabench.tables.speed.format import plural, seconds, size, times

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH_OF_FILES = 120
_LONGEST_NAME = 30
_LONGEST_DETAIL = 160
_PAST, _FORGETFUL = "*", "†"
_HEADINGS = {"prefill_again": "prefill\nagain"}
_DROPPED_FIRST = ("load", "save", "file", "restore", "snapshot", "rewind\nholds", "rewind", "a turn\nadds")

Cell = Callable[[ConversationRow], str]


def render(title: str, rows: Sequence[ConversationRow], stream: TextIO | None = None) -> None:
    """Write the table to a stream, in colour where that is a terminal."""
    from rich.text import Text

    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    console.print(Text(title, style="bold"), soft_wrap=True)
    drawn, names, left_out = fitting(
        console,
        list(_columns(rows).items()),
        _DROPPED_FIRST,
        lambda columns, narrow: _drawn(rows, columns),
    )
    console.print(drawn)
    for line in _notes(rows, names, left_out):
        console.print(line, style="dim")
    for line in dict.fromkeys(_failure(row) for row in rows if row.status != "ok"):
        console.print(line, style="red")


def _columns(rows: Sequence[ConversationRow]) -> dict[str, Cell]:
    forks = next((row.n_forks for row in rows if row.n_forks), 0)
    columns: dict[str, Cell] = {
        "model": lambda r: textwrap.fill(r.point.model, _LONGEST_NAME, break_on_hyphens=False),
        "history": lambda r: f"{r.point.prompt_len_tokens:,}{_marks(r)}",
        "state": _bytes(lambda r: r.state_bytes),
        "a turn\nadds": _bytes(lambda r: r.turn_bytes),
    }
    for operation in OPERATIONS:
        heading = _HEADINGS.get(operation, operation)
        columns[f"fork\nin {forks}" if operation == "fork" else heading] = _time(operation)
        if operation == "prefill_again":
            columns["times as\nlong"] = lambda r: (
                "" if r.prefill_over_resume is None else times(r.prefill_over_resume.value)
            )
        elif operation == "fork":
            columns["forks\ntake"] = _bytes(lambda r: r.fork_bytes)
        elif operation == "rewind":
            columns["rewind\nholds"] = _bytes(lambda r: r.rewind_bytes)
        elif operation == "load":
            columns["file"] = _bytes(lambda r: r.file_bytes)
    return columns


def _drawn(rows: Sequence[ConversationRow], columns: Sequence[tuple[str, Cell]]) -> Table:
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, _ in columns:
        drawn.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    for row in rows:
        words = "" if row.status == "ok" else row.status.replace("_", " ")
        drawn.add_row(*(cell(row) for _, cell in columns), words)
    return drawn


def _notes(rows: Sequence[ConversationRow], names: Sequence[str], left_out: Sequence[str]) -> list[str]:
    measured = [row for row in rows if row.times]
    if not measured:
        return []
    shown = [
        f"{name.replace('_', ' ')}: {words}"
        for name, words in OPERATIONS.items()
        if _HEADINGS.get(name, name) in names or name == "fork"
    ]
    n = measured[0].n_processes
    spread = (
        f"Medians of {plural(n, 'process', 'processes')} a line"
        f"{'' if n >= N_FOR_INTERVAL else ', as fewer than 6 give no interval: try `--processes 6`'}."
    )
    lines = [
        f"A turn of {plural(measured[0].turn_len_tokens or 0, 'token')}; batch 1. {spread}",
        f"{'; '.join(shown)}.",
        "Before they count, the reply from a kept, rewound, restored and loaded state is compared with that "
        "of forwarding everything again, and each fork's with going on alone.",
    ]
    if any(row.past_training_length for row in rows):
        lines.append(
            f"{_PAST} past the length that the model was trained on: what it costs, not what it says."
        )
    if any(row.forgetful for row in rows):
        lines.append(
            f"{_FORGETFUL} this model's reply hardly depends on its history: the comparison says nothing."
        )
    return [*lines, *filter(None, [no_room(left_out)])]


def _marks(row: ConversationRow) -> str:
    return f"{_PAST if row.past_training_length else ''}{_FORGETFUL if row.forgetful else ''}"


def _failure(row: ConversationRow) -> str:
    detail = " ".join(row.detail.split())
    cut = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL].rstrip()}..."
    return f"{row.status} ({row.point.model}, history {row.point.prompt_len_tokens:,}): {cut}"


def _bytes(figure: Callable[[ConversationRow], int | None]) -> Cell:
    def cell(row: ConversationRow) -> str:
        value = figure(row)
        return "" if value is None else size(value)

    return cell


def _time(operation: str) -> Cell:
    def cell(row: ConversationRow) -> str:
        return seconds(row.times[operation].value) if operation in row.times else ""

    return cell
