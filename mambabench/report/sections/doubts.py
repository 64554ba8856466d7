"""What could be wrong: everything that limits the figures, worst first, with the way out.

section = doubts_section(Rows(runs))
"""

from __future__ import annotations

from typing import Final

from mambabench.report.document import Block, Cell, Column, Section, Table, Tone, Words
from mambabench.report.format import Row, Rows, plural, shortened, some, unique
from mambabench.report.sections.layout import table

SEVERITIES: Final[dict[str, tuple[str, Tone]]] = {
    "wrong": ("Missing or unusable", "bad"),
    "doubt": ("May mislead", "doubt"),
    "note": ("Worth knowing", "faint"),
}
"""Worst first, with what each means and its tone."""
NOTHING: Final = "No run failed, was cut short or carries a warning."
_MOST_LINES: Final = 40
_MOST_ALIKE: Final = 6
"""Lines about one kind of warning; what is beyond is counted."""
_LONGEST: Final = 400


def doubts_section(rows: Rows) -> Section:
    """Return the section; where there is nothing to doubt it says so."""
    found = rows("warnings")
    title = "What could be wrong"
    if not found:
        return Section("doubts", title, (Words((NOTHING,), "good"),))
    blocks: list[Block] = []
    for severity, (heading, tone) in SEVERITIES.items():
        own = [row for row in found if row["severity"] == severity]
        if own:
            blocks.append(_table(severity, heading, tone, own))
    return Section("doubts", title, tuple(blocks), "Worst first, each with the way out.")


def grouped(found: list[Row]) -> list[list[Row]]:
    """Return warnings that say the same together, kinds in the order of their first one."""
    by: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        by.setdefault((row["about"] or "", what(row), row["advice"] or ""), []).append(row)
    kinds = unique(row["about"] or "" for row in found)
    return sorted(by.values(), key=lambda rows: kinds.index(rows[0]["about"] or ""))


def what(row: Row) -> str:
    """Return what a warning says, without the name of what it is about in front."""
    text: str = row["text"] or row["about"] or ""
    for name in (row["label"], row["run"]):
        if name and text.startswith(f"{name}: "):
            text = text.removeprefix(f"{name}: ")
            return text[:1].upper() + text[1:]
    return text


def where(rows: list[Row]) -> str:
    """Say what warnings that say the same are about: models, else runs."""
    labels = unique(row["label"] or None for row in rows)
    return (
        some(labels or unique(row["run"] or None for row in rows))
        if any(row["label"] or row["run"] for row in rows)
        else ""
    )


def _table(severity: str, heading: str, tone: Tone, found: list[Row]) -> Table:
    groups = grouped(found)
    kept: list[list[Row]] = []
    counts: dict[str, int] = {}
    for group in groups:
        about = group[0]["about"] or ""
        counts[about] = counts.get(about, 0) + 1
        if counts[about] <= _MOST_ALIKE and len(kept) < _MOST_LINES:
            kept.append(group)
    body = [
        [
            Cell(group[0]["about"] or "", tone=tone),
            Cell(where(group)),
            Cell(shortened(what(group[0]), _LONGEST)),
            Cell(shortened(group[0]["advice"] or "", _LONGEST)),
        ]
        for group in kept
    ]
    left = len(groups) - len(kept)
    notes = [f"{plural(left, 'more')} of these kinds in frame warnings."] if left else []
    columns = [Column("kind"), Column("of"), Column("what"), Column("way out")]
    return table(f"warnings-{severity}", heading, "warnings", columns, body, notes)
