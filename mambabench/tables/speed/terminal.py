"""A speed table as text for a terminal: one line a point, what limits it as footnotes.

render(table)
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from mambabench.stats.replicates import N_FOR_INTERVAL
from mambabench.tables.console import console_on, fitting
from mambabench.tables.speed.flags import ADVICE
from mambabench.tables.speed.format import listed, number, seconds, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mambabench.speed_schema import MemoryRecord
    from mambabench.stats.replicates import Estimate
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

_WIDTH_OF_FILES = 120
_LONGEST_DETAIL = 160
_MOST_DETAILS = 6
_LONGEST_NAME = 30
_STATE_WIDTHS = (20, 12)
_WORDS = {"skipped_after_oom": "skipped after oom", "missing": "not measured yet"}
_STYLE = {"ok": "", "missing": "dim", "skipped_after_oom": "dim", "unsupported": "dim"}
_DROPPED_FIRST = (
    "reserved", "process", "ITL\np90", "transient", "prefill\n% max", "peak", "expected", "% host\nwait",
    "spread", "weights", "state\nand KV",
)  # fmt: skip
"""Columns that a narrow terminal has no room for."""

_LEGEND = {
    "TTFT": "TTFT: time to first token",
    "TPOT": "TPOT: mean time of each later one, from {depth} on",
    "decode\ntok/s": "decode: tokens after the first, from {depth} on",
    "ITL\np90": "ITL p90: 90th percentile of single steps",
    "e2e\ntok/s": "e2e: prompt and all tokens together",
    "decode\nbytes/s": "bytes/s: of the text, which tokenizers cut differently",
    "prefill\n% max": "prefill % max: of the speed that a matrix product measured here allows",
    "decode\n% max": "decode % max: of the speed that a copy measured here allows",
    "J/tok": "J/tok: energy of a token, of the whole card",
    "net\nJ/tok": "net: without what the idle card takes",
    "% host\nwait": "host wait: share of the host's time before and after the device's events, which have "
    "the pauses between launches in them",
    "transient": "transient: peak without weights and state",
    "expected": "expected: peak computed beforehand",
    "reserved": "reserved: by the GPU's allocator, at most",
    "process": "process: all that it took, libraries and GPU context with it",
}

Cell = Callable[["SpeedRow"], str]
Column = tuple[str, Cell]


def render(table: SpeedTable, stream: TextIO | None = None) -> None:
    """Write the table to a stream, in colour where that is a terminal."""
    from rich.text import Text

    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    partial = "   PARTIAL: not everything has been measured" if table.partial else ""
    console.print(Text(f"{table.title}{partial}", style="bold"), soft_wrap=True)
    drawn, names, left_out = fitting(
        console,
        [*_identity(table), *_figures(table)],
        _DROPPED_FIRST,
        lambda columns, narrow: _drawn(table, columns, _STATE_WIDTHS[narrow]),
    )
    console.print(drawn)
    _notes(table, console, names, left_out)


def as_text(table: SpeedTable) -> str:
    """Return the table as plain text without colour."""
    stream = io.StringIO()
    render(table, stream)
    return stream.getvalue()


def outcome(row: SpeedRow) -> str:
    """Say in a few words what became of a point; a memory that ran out by what was asked for, or was held."""
    if row.status == "oom" and row.requested_bytes is not None:
        return f"oom: wanted {size(row.requested_bytes)}"
    if row.status == "oom" and row.allocated_bytes is not None:
        return f"oom at {size(row.allocated_bytes)}"
    return _WORDS.get(row.status, row.status.replace("_", " "))


def _drawn(table: SpeedTable, columns: Sequence[Column], state_width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    marks = _marks(table)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, _ in columns:
        is_word = name in ("model", "arm", "attention", "dtype", "device")
        drawn.add_column(name, justify="left" if is_word else "right", no_wrap=True)
    drawn.add_column("state", no_wrap=True)
    rows = _by_series(table)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        footnotes = ",".join(marks[flag] for flag in row.flags)
        state = Text(textwrap.fill(outcome(row), state_width), style=_STYLE.get(row.status, "bold red"))
        state.append(f" [{footnotes}]" if footnotes else "", style="yellow")
        drawn.add_row(*(cell(row) for _, cell in columns), state)
        if following is not None and _series(following) != _series(row) and len(rows) > len(table.models):
            drawn.add_section()
    return drawn


def _by_series(table: SpeedTable) -> list[SpeedRow]:
    """Return the rows with each model's arms and attention together, so that a column is read downwards."""
    order = {series: i for i, series in enumerate(dict.fromkeys(_series(row) for row in table.rows))}
    models = {model: i for i, model in enumerate(table.models)}
    return sorted(
        table.rows,
        key=lambda row: (
            models[row.point.model],
            order[_series(row)],
            row.point.prompt_len_tokens,
            row.point.batch_size,
            row.point.gen_len_tokens,
        ),
    )


def _series(row: SpeedRow) -> tuple[str, str, str]:
    return row.point.model, row.point.arm, row.point.attention


def _identity(table: SpeedTable) -> list[Column]:
    """Return the columns that tell the points apart; what all have in common stands below the table."""
    points = [row.point for row in table.rows]
    always = {"latency": "prompt_len_tokens", "throughput": "batch_size", "memory": "prompt_len_tokens"}[
        table.kind
    ]
    names = {
        "model": "model",
        "arm": "arm",
        "attention": "attention",
        "dtype": "dtype",
        "device": "device",
        "prompt_len_tokens": "prompt",
        "batch_size": "batch",
        "gen_len_tokens": "gen",
        "prefill_chunk_tokens": "chunk",
    }
    shown = [
        name
        for name in names
        if name in ("model", always) or (len({getattr(p, name) for p in points}) > 1 and name != "attention")
    ]
    # Models differ in having attention at all; the column is for those run with several.
    if any(len({p.attention for p in points if p.model == model}) > 1 for model in table.models):
        shown.insert(1, "attention")
    return [(names[name], _part(name)) for name in shown]


def _part(name: str) -> Cell:
    def cell(row: SpeedRow) -> str:
        value = getattr(row.point, name)
        if isinstance(value, int):
            return f"{value:,}"
        return "" if value is None else textwrap.fill(value, _LONGEST_NAME, break_on_hyphens=False)

    return cell


def _figures(table: SpeedTable) -> list[Column]:
    columns: list[Column]
    if table.kind == "memory":
        shown: tuple[str, ...] = ("peak_bytes", "ttft_s", "decode_tokens_per_s")
        columns = [
            ("peak memory", lambda r: _estimate(r.peak_bytes, size)),
            ("weights", _memory(lambda m: m.weights_bytes)),
            ("state\nand KV", _memory(lambda m: m.state_bytes)),
            ("transient", _memory(lambda m: m.transient_bytes)),
            ("expected", lambda r: _expected(table, r)),
            ("reserved", _memory(lambda m: m.peak_reserved_bytes)),
            ("process", _memory(lambda m: m.peak_process_bytes)),
            ("TTFT", lambda r: _estimate(r.ttft_s, seconds)),
            ("decode\ntok/s", lambda r: _estimate(r.decode_tokens_per_s, number)),
        ]
    elif table.kind == "throughput":
        shown = ("decode_tokens_per_s", "prefill_tokens_per_s", "e2e_tokens_per_s")
        columns = [
            ("decode\ntok/s", lambda r: _estimate(r.decode_tokens_per_s, number)),
            ("prefill\ntok/s", lambda r: _estimate(r.prefill_tokens_per_s, number)),
            ("e2e\ntok/s", lambda r: _estimate(r.e2e_tokens_per_s, number)),
            ("decode\nbytes/s", lambda r: _estimate(r.decode_bytes_per_s, number)),
            ("peak", lambda r: _estimate(r.peak_bytes, size)),
            ("prefill\n% max", lambda r: _share(r.prefill_ceiling_share)),
            ("decode\n% max", lambda r: _share(r.decode_ceiling_share)),
        ]
    else:
        shown = ("ttft_s", "tpot_s", "itl_p90_s", "e2e_tokens_per_s")
        columns = [
            ("TTFT", lambda r: _estimate(r.ttft_s, seconds)),
            ("TPOT", lambda r: _estimate(r.tpot_s, seconds)),
            ("ITL\np90", lambda r: _estimate(r.itl_p90_s, seconds)),
            ("e2e\ntok/s", lambda r: _estimate(r.e2e_tokens_per_s, number)),
            ("decode\nbytes/s", lambda r: _estimate(r.decode_bytes_per_s, number)),
            ("prefill\n% max", lambda r: _share(r.prefill_ceiling_share)),
            ("decode\n% max", lambda r: _share(r.decode_ceiling_share)),
        ]
    columns += [
        ("J/tok", lambda r: _estimate(r.gross_j_per_token, number)),
        ("net\nJ/tok", lambda r: _estimate(r.net_j_per_token, number)),
    ]
    columns += [
        ("% host\nwait", lambda r: _share(r.host_wait_share)),
        ("spread", lambda r: _widest(r, shown)),
    ]
    # A column without a figure only takes room, such as that of ceilings that were not measured.
    return [(name, cell) for name, cell in columns if name == columns[0][0] or any(map(cell, table.rows))]


def _estimate(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    return "" if estimate is None else write(estimate.value)


def _memory(figure: Callable[[MemoryRecord], int | None]) -> Cell:
    def cell(row: SpeedRow) -> str:
        value = None if row.memory is None else figure(row.memory)
        return "" if value is None else size(value)

    return cell


def _widest(row: SpeedRow, names: Sequence[str]) -> str:
    """Return the largest half-width of an interval or a range among a line's figures, in percent of it."""
    found = [e for name in names if (e := getattr(row, name)) is not None and e.n > 1]
    if not found:
        return ""
    half, sign = max((50 * (e.high - e.low) / e.value, "±" if e.method == "t on log" else "~") for e in found)
    return f"{sign}{half:.1f}%" if half < 9.95 else f"{sign}{half:.0f}%"


def _share(share: Estimate | float | None) -> str:
    if share is None:
        return ""
    return f"{100 * (share if isinstance(share, float) else share.value):.0f}"


def _expected(table: SpeedTable, row: SpeedRow) -> str:
    from mambabench.sizes import expected_bytes_of, layout_for
    from mambabench.tables.speed.table import library_of

    point, sizes = row.point, table.sizes.get(row.point.model)
    if sizes is None:
        return ""
    layout = layout_for(library_of(row.implementation), point.dtype, sizes)
    return size(expected_bytes_of(point, sizes, layout))


def _marks(table: SpeedTable) -> dict[str, str]:
    used = [flag for flag in ADVICE if any(flag in row.flags for row in table.rows)]
    return {flag: chr(ord("a") + i) for i, flag in enumerate(used)}


def _notes(table: SpeedTable, console: Console, names: Sequence[str], left_out: Sequence[str]) -> None:
    """Print what all points have in common, what spread means, and the footnotes."""
    narrow = f"No room for {listed(list(left_out))}: a wider terminal shows more." if left_out else ""
    prompts = {row.point.prompt_len_tokens for row in table.rows}
    depth = f"depth {prompts.pop():,}" if len(prompts) == 1 else "the prompt's depth"
    legend = "; ".join(words.format(depth=depth) for name, words in _LEGEND.items() if name in names)
    lines = (_common(table), _run_by(table), f"{legend}." if legend else "", _spread(table.rows), narrow)
    for line in lines:
        if line:
            console.print(line, style="dim")
    for line in _details(table):
        console.print(line, style="red")
    for flag, mark in _marks(table).items():
        console.print(f"[{mark}] {flag}: {ADVICE[flag]}.", style="yellow")


def _details(table: SpeedTable) -> list[str]:
    """Return what failed points said, each saying once, with the first point that said it."""
    found: dict[str, list[SpeedRow]] = {}
    for row in _by_series(table):
        if row.detail and row.status != "skipped_after_oom":
            found.setdefault(" ".join(row.detail.split()), []).append(row)
    lines = []
    for detail, rows in list(found.items())[:_MOST_DETAILS]:
        point = rows[0].point
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        cut = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL].rstrip()}..."
        where = f"{point.model}, prompt {point.prompt_len_tokens:,}, batch {point.batch_size:,}{more}"
        lines.append(f"{rows[0].status.replace('_', ' ')} ({where}): {cut}")
    if len(found) > _MOST_DETAILS:
        lines.append(f"{len(found) - _MOST_DETAILS} more ways of failing are in the run's records.")
    return lines


def _common(table: SpeedTable) -> str:
    points = [row.point for row in table.rows]
    words = []
    for name, phrase in (
        ("prompt_len_tokens", "prompt {:,}"),
        ("batch_size", "batch {:,}"),
        ("gen_len_tokens", "{:,} tokens generated"),
        ("arm", "{} arm"),
        ("dtype", "{}"),
        ("device", "on {}"),
    ):
        values = {getattr(p, name) for p in points}
        if len(values) == 1:
            words.append(phrase.format(values.pop()))
    return f"All: {', '.join(words)}." if words else ""


def _run_by(table: SpeedTable) -> str:
    """Say what computed each model, arm by arm where arms differ in it."""
    parts = []
    for model in table.models:
        found: dict[str, list[str]] = {}
        rows = [row for row in table.rows if row.point.model == model]
        attentions = {row.point.attention for row in rows}
        for row in rows:
            if words := _path(row):
                attention = f" with {row.point.attention} attention" if len(attentions) > 1 else ""
                found.setdefault(words, []).append(f"{row.point.arm} arm{attention}")
        named = {words: list(dict.fromkeys(arms)) for words, arms in found.items()}
        whole = len(named) == 1
        said = [words if whole else f"{words} ({', '.join(arms)})" for words, arms in named.items()]
        parts += [f"{model}: {', '.join(said)}"] if said else []
    return f"Run by {'; '.join(parts)}." if parts else ""


def _path(row: SpeedRow) -> str:
    # Libraries are named by their first word, which most paths begin with.
    library = row.implementation.partition(" ")[0]
    if not row.kernel_path or row.kernel_path.startswith(library):
        return row.kernel_path or row.implementation
    return f"{library} {row.kernel_path}"


def _spread(rows: Sequence[SpeedRow]) -> str:
    counts = sorted({row.n_processes for row in rows if row.n_processes})
    if not counts:
        return ""
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if counts[-1] == 1:
        return "One process a point: nothing is known of the spread; try `--processes 6`."
    parts = [f"{n} processes a point; spread is the widest of a line's figures,"]
    kinds = ["± half of its 95% interval"] if counts[-1] >= N_FOR_INTERVAL else []
    if counts[0] < N_FOR_INTERVAL:
        kinds.append("~ half of its range, as fewer than 6 give no interval: try `--processes 6`")
    parts.append(f"{', '.join(kinds)}.")
    return " ".join(parts)
