"""What a conversation's state costs: keeping it, going on from it, branching it.

section = conversation_section(Rows(runs))
"""

from __future__ import annotations

from typing import Final

from mambabench.report.document import EMPTY, Cell, Column, Section
from mambabench.report.format import Row, Rows, integer, measured, plural, seconds, size
from mambabench.report.sections.layout import findings, first_rows, table
from mambabench.report.sections.settings import brackets

_OPERATIONS: Final = {
    "resume": ("go on after a turn", "the turn is forwarded from the kept state"),
    "prefill_again": ("forward it all again", "history and turn are forwarded from nothing"),
    "snapshot": ("copy the state", "into the host's memory"),
    "restore": ("copy it back", "to go on from"),
    "fork": ("branch", "all continuations begin with a token each"),
    "rewind": ("go back a turn", "stand after the history again"),
    "save": ("write to a file", "as far as the system's cache"),
    "load": ("read it back", "from the file"),
}
"""By name in frame conversation: heading and what is timed."""


def conversation_section(rows: Rows) -> Section | None:
    """Return the section, or None where no conversation was measured."""
    found = rows("conversation")
    failed = [row for row in rows("speed") if row["kind"] == "conversation" and row["status"] != "ok"]
    if not found and not failed:
        return None
    by: dict[tuple[str, int], dict[str, Row]] = {}
    for row in found:
        by.setdefault((row["label"], row["history_tokens"] or 0), {})[row["operation"]] = row
    columns = [
        Column("model"),
        Column("history", "tokens", numeric=True),
        Column("state", numeric=True, note="of one conversation"),
        *(Column(title, numeric=True, note=note) for title, note in _OPERATIONS.values()),
        Column("branches", numeric=True),
        Column("state of all branches", numeric=True, note="shared memory once"),
        Column("checked", note="whether going on from the state gave the reply of forwarding everything"),
    ]
    body = [_line(label, own) for (label, _), own in by.items()]
    shown, notes = first_rows(body, "conversation", "line")
    notes += _notes(found)
    notes += [
        f"{(row['status'] or '').replace('_', ' ')} ({row['label']}, history {row['prompt_len_tokens']:,}): "
        f"{row['detail'] or ''}"
        for row in failed[:6]
    ]
    blocks = [table("conversation", "Operations on a conversation", "conversation", columns, shown, notes)]
    lead = "Times are geometric means over processes of their medians; batch 1."
    return Section(
        "conversations", "What keeping a conversation costs",
        (*blocks, *findings(rows, ("conversation",))), lead,
    )  # fmt: skip


def _line(label: str, own: dict[str, Row]) -> list[Cell]:
    first = next(iter(own.values()))
    fork = own.get("fork")
    return [
        Cell(label),
        integer(first["history_tokens"]),
        measured(first["state_bytes"], size),
        *(_time(own.get(name)) for name in _OPERATIONS),
        EMPTY if fork is None else integer(fork["n_forks"]),
        EMPTY if fork is None else measured(fork["forked_state_bytes"], size),
        _checked(list(own.values())),
    ]


def _time(row: Row | None) -> Cell:
    return EMPTY if row is None else measured(row["time_s"], seconds, row["time_low_s"], row["time_high_s"])


def _checked(own: list[Row]) -> Cell:
    known = [row["certified"] for row in own if row["certified"] is not None]
    if not known:
        return EMPTY
    return Cell("agrees", tone="good") if all(known) else Cell("differs", tone="bad")


def _notes(found: list[Row]) -> list[str]:
    turns = sorted({row["turn_len_tokens"] for row in found if row["turn_len_tokens"] is not None})
    counts = sorted({row["n_processes"] for row in found if row["n_processes"]})
    notes = [f"A turn of {plural(turns[0], 'token')}."] if len(turns) == 1 else []
    if len(counts) == 1:
        notes.append(f"Of {plural(counts[0], 'process', 'processes')}.")
    elif counts:
        notes.append(f"Of {counts[0]:,} to {counts[-1]:,} processes.")
    return notes + brackets([{"time_s_method": row["method"]} for row in found], ["time_s"])
