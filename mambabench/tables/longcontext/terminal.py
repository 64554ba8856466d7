"""A long-context table as text for a terminal: what a length gives beside what it costs, then recall by task.

render(table)
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from mambabench.tables.console import console_on, fitting, no_room
from mambabench.tables.longcontext.depths import uneven
from mambabench.tables.longcontext.flags import ADVICE
from mambabench.tables.longcontext.words import span
from mambabench.tables.speed.format import percent, plural, seconds, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mambabench.stats.replicates import Estimate
    from mambabench.tables.longcontext.table import LongRow, LongTable, Measured

_WIDTH_OF_FILES = 120
_LONGEST_NAMES = (30, 18)
_LONGEST_DETAIL = 200
_MOST_DETAILS = 6
_MOST_DEPTHS = 6
_EFFECTIVE = "90% kept\nup to"
_DROPPED_FIRST = ("recall\n95%", "loss\n95%", "bits a\nbyte", "TPOT", "peak")
_LEGEND = {
    "loss": "loss: nats a token of text that is the same at every length",
    "TTFT": "TTFT: time to first token after a prompt of the length",
    "TPOT": "TPOT: time of each later one",
    "peak": "peak: weights, state and all else at most",
    "state": "state: of one sequence, after the prompt",
}

Cell = Callable[["LongRow"], str]
Column = tuple[str, Cell]


def render(table: LongTable, stream: TextIO | None = None) -> None:
    """Write the table to a stream, in colour where that is a terminal."""
    from rich.text import Text

    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    partial = "   PARTIAL: not everything has been measured" if table.partial else ""
    console.print(Text(f"{table.title}{partial}", style="bold"), soft_wrap=True)
    drawn, names, left_out = fitting(
        console, _columns(table), _DROPPED_FIRST, lambda columns, narrow: _joined(table, columns, narrow)
    )
    console.print(drawn)
    _notes(table, console, names, left_out)
    if table.tasks:
        _tasks(table, console)


def as_text(table: LongTable) -> str:
    """Return the table as plain text without colour."""
    stream = io.StringIO()
    render(table, stream)
    return stream.getvalue()


def _columns(table: LongTable) -> list[Column]:
    columns: list[Column] = [
        ("recall", lambda r: _percent(r.recall_mean)),
        ("recall\n95%", lambda r: _interval(r.recall_mean, "{:.0%}")),
        ("loss", lambda r: _number(r.loss_nats)),
        ("loss\n95%", lambda r: _interval(r.loss_nats, "{:.2f}")),
        ("bits a\nbyte", lambda r: _number(r.bits_per_byte)),
        ("TTFT", lambda r: _estimate(r.ttft_s, seconds)),
        ("TPOT", lambda r: _estimate(r.tpot_s, seconds)),
        ("peak", lambda r: _estimate(r.peak_bytes, size)),
        ("state", lambda r: "" if r.state_bytes is None else size(r.state_bytes)),
    ]
    # A column without a figure only takes room, such as that of costs that were not measured.
    return [("length", lambda r: f"{r.length_tokens:,}")] + [
        column for column in columns if any(map(column[1], table.rows))
    ]


def _joined(table: LongTable, columns: Sequence[Column], narrow: bool) -> Table:
    from rich.text import Text

    drawn = _frame()
    drawn.add_column("model", no_wrap=True)
    for name, _ in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    marks = _marks(table)
    for model in table.models:
        for row in table.rows_of(model):
            name = textwrap.fill(model, _LONGEST_NAMES[narrow], break_on_hyphens=False)
            footnotes = ",".join(marks[flag] for flag in row.flags)
            mark = Text(f"[{footnotes}]" if footnotes else "", style="yellow")
            # A long name takes lines of its own; one such a model is enough.
            shown = name if row is table.rows_of(model)[0] else name.partition("\n")[0]
            drawn.add_row(shown, *(cell(row) for _, cell in columns), mark)
        drawn.add_section()
    return drawn


def _notes(table: LongTable, console: Console, names: Sequence[str], left_out: Sequence[str]) -> None:
    """Print what the figures are of, and the footnotes."""
    for line in (_what(table, names), no_room(left_out)):
        if line:
            console.print(line, style="dim")
    said: dict[str, list[str]] = {}
    for row in table.rows:
        for detail in row.details:
            said.setdefault(detail, []).append(f"{row.model} at {row.length_tokens:,}")
    for detail, places in list(said.items())[:_MOST_DETAILS]:
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        cut = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL].rstrip()}..."
        console.print(f"{places[0]}{more}: {cut}", style="red")
    if len(said) > _MOST_DETAILS:
        more_ways = plural(len(said) - _MOST_DETAILS, "more way")
        console.print(f"{more_ways} of failing in the run's records.", style="red")
    for flag, mark in _marks(table).items():
        console.print(f"[{mark}] {flag}: {ADVICE[flag]}.", style="yellow")


def _what(table: LongTable, names: Sequence[str]) -> str:
    parts = []
    if "recall" in names:
        n = len(table.mean_tasks)
        of = f"mean of {plural(n, 'task')}, each counting alike" if n > 1 else table.mean_tasks[0]
        left = [task for task in table.tasks if task not in table.mean_tasks]
        without = f" (without {', '.join(left)}, not measured at all of these lengths)" if left else ""
        parts.append(f"recall: {of}{without}")
    parts += [words for name, words in _LEGEND.items() if name in names]
    if any("95%" in name for name in names):
        parts.append("95%: interval")
    return f"{'; '.join(parts)}." if parts else ""


def _marks(table: LongTable) -> dict[str, str]:
    used = [flag for flag in ADVICE if any(flag in row.flags for row in table.rows)]
    return {flag: chr(ord("a") + i) for i, flag in enumerate(used)}


def _tasks(table: LongTable, console: Console) -> None:
    """Print accuracy by length for each task and model, and where depth matters."""
    from rich.text import Text

    lengths = sorted({row.length_tokens for row in table.rows if row.recall})
    columns = [(f"{length:,}", length) for length in lengths]
    inner = [name for name, _ in columns[1:-1]]
    # Every other length first, so that both ends and the shape of a curve stay.
    dropped = [*inner[0::2], *inner[1::2]]
    drawn, _, left_out = fitting(
        console,
        # Of one length there is nothing to keep.
        [*([(_EFFECTIVE, 0)] if len(lengths) > 1 else []), *columns],
        [_EFFECTIVE, *dropped],
        lambda kept, narrow: _by_task(table, kept, narrow),
    )
    console.print(Text("Recall by task and length, in %", style="bold"))
    console.print(drawn)
    notes = ["In brackets: not above chance by its 95% interval.", no_room(left_out)]
    found = uneven(table)
    notes += [f"Depth: {one.words}" for one in found[:_MOST_DEPTHS]]
    if len(found) > _MOST_DEPTHS:
        notes.append(f"Depth matters to {len(found) - _MOST_DEPTHS:,} more pairs of model and task.")
    for line in filter(None, notes):
        console.print(line, style="dim")


def _by_task(table: LongTable, columns: Sequence[tuple[str, int]], narrow: bool) -> Table:
    from rich.text import Text

    drawn = _frame()
    drawn.add_column("task\n  model", no_wrap=True)
    for name, _ in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    for task in table.tasks:
        levels = [c for r in table.rows if task in r.recall and (c := r.recall[task].chance) is not None]
        chance = f" (chance {_share(levels[0])})" if levels else ""
        drawn.add_row(Text(f"{task}{chance}", style="bold"))
        for model in table.models:
            rows = {row.length_tokens: row for row in table.rows_of(model)}
            name = textwrap.fill(
                model, _LONGEST_NAMES[narrow], initial_indent="  ", subsequent_indent="    ",
                break_on_hyphens=False,
            )  # fmt: skip
            cells = [_kept(table, model, task) if not n else _recalled(rows[n], task) for _, n in columns]
            drawn.add_row(name, *cells)
    return drawn


def _kept(table: LongTable, model: str, task: str) -> str:
    effective = table.effective_of(model, task)
    if effective is None or effective.found.shortest_tokens == effective.found.longest_tokens:
        return ""
    return "chance" if effective.found.outcome == "none" else span(effective.headline)


def _recalled(row: LongRow, task: str) -> Text | str:
    from rich.text import Text

    record, found = row.recall.get(task), row.accuracy(task)
    if record is None:
        return ""
    if found is None:
        return Text("-" if record.status == "unsupported" else record.status, style="dim")
    guessed = found.low is not None and record.chance is not None and found.low <= record.chance
    text = f"{100 * found.value:.0f}"
    return Text(f"({text})", style="dim") if guessed else text


def _frame() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _share(share: float) -> str:
    """Return a share with no more decimals than it needs."""
    return percent(share).replace(".0%", "%")


def _percent(found: Measured | None) -> str:
    return "" if found is None else f"{100 * found.value:.1f}%"


def _number(found: Measured | None) -> str:
    return "" if found is None else f"{found.value:.3f}"


def _interval(found: Measured | None, form: str) -> str:
    if found is None or found.low is None or found.high is None:
        return ""
    low, high = form.format(found.low), form.format(found.high)
    return f"{low.removesuffix('%')}-{high}"


def _estimate(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    return "" if estimate is None else write(estimate.value)
