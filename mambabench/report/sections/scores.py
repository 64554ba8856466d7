"""Cells of scores: values with intervals, items, published figures and verdicts, and what to call them.

value_cell(row).text        # "52.3 [50.1, 54.4]"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mambabench.report.document import EMPTY, Cell, Tone
from mambabench.report.format import Row, figure, integer, rounded, some, unique

_TONES: Final[dict[str, Tone]] = {
    "reproduced": "good", "differs": "bad", "failed": "bad", "partial": "doubt"
}  # fmt: skip
_MOST_ERRORS: Final = 6
Line = tuple[str, str, str, int | None]
"""Task, metric, filter and worked examples: what stands in one line of a table."""


def line_of(row: Row) -> Line:
    """Return in which line of a table a score stands."""
    return row["task"], row["metric"], row["filter"] or "none", row["n_fewshot"]


def lines_of(group: list[Row]) -> list[Row]:
    """Return one row a line, in order: one with a value, as a failed one knows no unit."""
    found: dict[Line, Row] = {}
    for row in group:
        line = line_of(row)
        if line not in found or (found[line]["value"] is None and row["value"] is not None):
            found[line] = row
    return list(found.values())


def shots_differ(group: list[Row]) -> bool:
    """Return whether a task was asked with different numbers of worked examples."""
    shots: dict[tuple[str, str, str], set[int | None]] = {}
    for row in group:
        shots.setdefault(line_of(row)[:3], set()).add(row["n_fewshot"])
    return any(len(found) > 1 for found in shots.values())


def task_name(row: Row, several: bool) -> str:
    """Return a task's name, with its worked examples where these differ."""
    name = row["task_label"] or row["task"] or ""
    return f"{name}, {row['n_fewshot']}-shot" if several and row["n_fewshot"] is not None else name


def metric_name(row: Row) -> str:
    """Return a metric's name, with its filter where it has one."""
    return row["metric"] if (row["filter"] or "none") == "none" else f"{row['metric']} ({row['filter']})"


def metric_with_unit(row: Row) -> str:
    """Return a metric's name with its unit."""
    return f"{metric_name(row)}, {row['unit']}" if row["unit"] else metric_name(row)


def arrow(row: Row) -> str:
    """Return which way is better."""
    return "" if row["higher_is_better"] is None else "↑" if row["higher_is_better"] else "↓"


def is_partial(row: Row) -> bool:
    """Return whether not all items of the task were scored."""
    return None not in (row["n_items"], row["n_items_total"]) and row["n_items"] < row["n_items_total"]


def _missing(row: Row) -> Cell:
    failed = bool(row["error"]) or row["verdict"] == "failed"
    return Cell("failed" if failed else "no value", tone="bad", note=row["error"] or "")


def value_cell(row: Row) -> Cell:
    """Return a value with its interval."""
    if row["value"] is None:
        return _missing(row)
    ends = row["interval_low"], row["interval_high"]
    tone: Tone = "doubt" if is_partial(row) else ""
    return figure(row["value"], row["unit"], *ends, tone=tone, note=_of_items(row))


def headline_cell(row: Row) -> Cell:
    """Return a value alone."""
    return _missing(row) if row["value"] is None else figure(row["value"], row["unit"], note=_of_items(row))


def _of_items(row: Row) -> str:
    return f"{items_cell(row).text} items" if is_partial(row) else ""


def items_cell(row: Row) -> Cell:
    """Return how many items were scored, of all where these are more."""
    if not row["n_items"]:
        return EMPTY
    if not is_partial(row):
        return integer(row["n_items"])
    numbers = row["n_items"], row["n_items_total"]
    return Cell(f"{numbers[0]:,} of {numbers[1]:,}", numbers, "doubt")


def items_of_all(rows: Sequence[Row]) -> Cell:
    """Return how many items were scored of every one of some models."""
    cells = unique(cell for row in rows if (cell := items_cell(row)).text)
    return cells[0] if len(cells) == 1 else Cell("differ", tone="doubt") if cells else EMPTY


def difference_cell(row: Row) -> Cell:
    """Return what a value is above its published figure."""
    if row["difference"] is None:
        return EMPTY
    return Cell(_signed(row["difference"]), (row["difference"],))


def _signed(value: float) -> str:
    text = f"{value:+.2f}" if abs(value) < 1e5 else f"{value:+.2e}"
    return text[1:] if not text.strip("+-0.") else text


def difference_in_words(row: Row) -> Cell:
    """Return the same with the verdict, unless the figure was reproduced."""
    if row["difference"] is None:
        return _missing(row)
    word = "" if row["verdict"] == "reproduced" else f" {row['verdict']}"
    note = f"{rounded(row['value'], row['unit'])}, published {rounded(row['reference'], row['unit'])}"
    tone = _TONES.get(row["verdict"], "")
    return Cell(f"{_signed(row['difference'])}{word}", (row["difference"],), tone, note)


def verdict_cell(row: Row) -> Cell:
    """Return the verdict on a published figure."""
    return Cell(row["verdict"] or "", tone=_TONES.get(row["verdict"], ""))


def mean_cell(row: Row | None) -> Cell:
    """Return an average of accuracies."""
    if row is None:
        return EMPTY
    return figure(row["value"], "%", frame="averages")


def sources(group: list[Row]) -> list[str]:
    """Say where published figures come from."""
    known = unique(row["reference_source"] or None for row in group if row["reference"] is not None)
    return [f"Published: {source}" for source in known]


def failures(group: list[Row]) -> list[str]:
    """Say why values are missing, each reason once."""
    said: dict[str, list[str]] = {}
    for row in group:
        if row["error"]:
            said.setdefault(row["error"], []).append(f"{row['label']} on {row['task_label'] or row['task']}")
    notes = [f"Failed: {some(unique(where))}: {error}" for error, where in list(said.items())[:_MOST_ERRORS]]
    if len(said) > _MOST_ERRORS:
        notes.append(f"{len(said) - _MOST_ERRORS} more ways of failing in frame scores.")
    return notes
