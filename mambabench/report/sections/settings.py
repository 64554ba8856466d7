"""What tells the points of sweeps apart: ways of executing, lengths and batches, in columns and in words.

>>> setting_words({"batch_size": 8, "prompt_len_tokens": 4096}, ("prompt_len_tokens", "batch_size"))
'prompt 4,096, batch 8'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mambabench.report.document import EMPTY, Cell, Column, Tone
from mambabench.report.format import Row, integer, measured, plural, size
from mambabench.tables.speed.format import Write

AXES: Final = {
    "latency": "prompt_len_tokens",
    "throughput": "batch_size",
    "memory": "prompt_len_tokens",
}
"""Kinds of sweeps with points, each with what it varies."""
_NAMES: Final = {
    "arm": "arm", "attention": "attention", "dtype": "dtype", "device": "device",
    "prompt_len_tokens": "prompt", "batch_size": "batch", "gen_len_tokens": "generated",
    "prefill_chunk_tokens": "chunk",
}  # fmt: skip
LENGTHS: Final = ("prompt_len_tokens", "batch_size", "gen_len_tokens", "prefill_chunk_tokens")
WAYS: Final = ("arm", "attention", "dtype", "device")
_WORDS: Final = {"skipped_after_oom": "skipped after oom", "missing": "not measured yet"}
_TONES: Final[dict[str, Tone]] = {
    "ok": "", "oom": "doubt", "missing": "faint", "skipped_after_oom": "faint", "unsupported": "faint"
}  # fmt: skip


def varied(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Return the columns that rows differ in; attention only where a model was run with several."""
    found = []
    for name in names:
        if name == "attention":
            by: dict[str, set[str]] = {}
            for row in rows:
                by.setdefault(row["label"], set()).add(row["attention"])
            differs = any(len(values) > 1 for values in by.values())
        else:
            differs = len({row[name] for row in rows}) > 1
        if differs:
            found.append(name)
    return found


def setting_words(row: Row, names: Iterable[str]) -> str:
    """Return where a row stands in words, by the columns named."""
    parts = []
    for name in names:
        if row[name] is not None:
            number = isinstance(row[name], int)
            parts.append(f"{_NAMES[name]} {row[name]:,}" if number else str(row[name]))
    return ", ".join(parts)


def identity(name: str) -> tuple[Column, Callable[[Row], Cell]]:
    """Return a column that tells points apart, with its cells."""
    if name in WAYS:
        return Column(_NAMES[name]), lambda row: Cell(row[name] or "")
    unit = "" if name == "batch_size" else "tokens"
    return Column(_NAMES[name], unit, numeric=True), lambda row: integer(row[name])


def common(rows: Sequence[Row], without: Iterable[str]) -> list[str]:
    """Say what all points have in common."""
    left = set(without)
    names = [name for name in (*LENGTHS, *WAYS) if name not in left and name != "attention"]
    words = setting_words(rows[0], [n for n in names if len({row[n] for row in rows}) == 1])
    return [f"All: {words}."] if words else []


def estimate(name: str, write: Write) -> Callable[[Row], Cell]:
    """Return what writes a figure that is estimated over processes, with its ends."""

    def cell(row: Row) -> Cell:
        return measured(row[name], write, row[f"{name}_low"], row[f"{name}_high"])

    return cell


def brackets(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Say what stands in brackets: intervals, ranges of processes, or neither."""
    methods = {row[f"{name}_method"] for name in names for row in rows} - {None, ""}
    said = []
    if "t on log" in methods:
        said.append("95% intervals over processes")
    if "range" in methods:
        said.append("the fastest and the slowest process, where too few ran for an interval")
    text = [f"In brackets: {'; or '.join(said)}."] if said else []
    return [*text, "Without brackets: a single process."] if "single" in methods else text


def outcome(row: Row) -> Cell:
    """Say what became of a point; of memory that ran out, how much was asked for, or was held."""
    status = row["status"] or ""
    if status == "ok":
        return EMPTY
    tone: Tone = _TONES.get(status, "bad")
    note = row["detail"] or ""
    if status == "oom" and row["requested_bytes"] is not None:
        return Cell(f"oom: wanted {size(row['requested_bytes'])}", (row["requested_bytes"],), tone, note)
    if status == "oom" and row["allocated_bytes"] is not None:
        return Cell(f"oom at {size(row['allocated_bytes'])}", (row["allocated_bytes"],), tone, note)
    return Cell(_WORDS.get(status, status.replace("_", " ")), (), tone, note)


def failures(rows: Sequence[Row], most: int) -> list[str]:
    """Return what points that did not end well said, each saying once."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["detail"] and row["status"] not in ("ok", "skipped_after_oom"):
            found.setdefault(row["detail"], []).append(row)
    notes = []
    for detail, alike in list(found.items())[:most]:
        first = alike[0]
        where = f"{first['label']}, {setting_words(first, LENGTHS[:2])}"
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        notes.append(f"{(first['status'] or '').replace('_', ' ')} ({where}{more}): {detail[:300]}")
    if len(found) > most:
        notes.append(f"{plural(len(found) - most, 'more way')} of failing in frame speed.")
    return notes
