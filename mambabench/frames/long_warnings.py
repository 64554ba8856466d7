"""What limits long-context runs and texts: flags of their tables, what failed, what was said on the way.

for about, text, label, n, advice in of_long(run, skip_missing=False):
    print(text)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mambabench.frames.longcontext import rows_unread
from mambabench.frames.warning_kinds import LONG_ADVICE
from mambabench.tables.longcontext import flags
from mambabench.tables.speed.format import plural

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun
    from mambabench.long_schema import ContextLossRecord, RecallRecord
    from mambabench.tables.longcontext.table import LongRow, LongTable

Found = tuple[str, str, str, int, str]
"""Kind, sentence, label, number of rows, and advice, empty for the kind's."""
_MOST_DETAILS: Final = 2


def of_long(run: LoadedRun, *, skip_missing: bool) -> Iterator[Found]:
    """Yield what limits a long-context run.

    Args:
        run: with a table of that kind.
        skip_missing: whether it is already said that something is still to be measured.
    """
    table = run.long
    if table is None:
        return
    for model in table.models:
        label, rows = run.label(model), table.rows_of(model)
        for flag, advice in LONG_ADVICE.items():
            flagged = [row for row in rows if flag in row.flags]
            if not flagged or (skip_missing and flag == flags.MISSING):
                continue
            details = (
                _details(flagged) if flag in (flags.FAILED, flags.UNSUPPORTED, flags.COST_FAILED) else ""
            )
            text = f"{label}: {flag} at {len(flagged)} of {plural(len(rows), 'length')}{details}."
            yield flag, text, label, len(flagged), advice
        metrics = [m for row in rows for r in row.recall.values() for m in r.metrics]
        metrics += [m for row in rows if row.loss is not None for m in row.loss.metrics]
        bad = [m for m in metrics if not math.isfinite(m.value)]
        if bad:
            text = f"{label}: {plural(len(bad), 'value')} without a finite number, as {bad[0].metric}."
            yield "not a number", text, label, len(bad), ""
    unread = rows_unread(run.stored) if run.stored is not None and _lacks_rows(run, table) else []
    for problem in unread[:1]:
        more = f" and {len(unread) - 1} more" if unread[1:] else ""
        text = f"Answers of {run.name} cannot be read, and are in no mean: {problem.rstrip('.')}{more}."
        yield "no answers", text, "", len(unread), ""


def of_perplexity(run: LoadedRun) -> Iterator[Found]:
    """Yield what limits a run of perplexity."""
    table = run.perplexity
    if table is None:
        return
    for row in table.rows:
        label = run.label(row.model)
        if row.status != "ok":
            about = "cannot be measured" if row.status == "unsupported" else "failed cells"
            yield about, f"{label}: {row.status}: {row.detail.rstrip('.')}.", label, 1, ""
        bad = [f for f in row.figures if f is not None and not math.isfinite(f.value)]
        if bad:
            yield (
                "not a number",
                f"{label}: {plural(len(bad), 'value')} without a finite number.",
                label,
                len(bad),
                "",
            )
        if row.partial:
            yield (
                "partial",
                f"{label}: only some documents, or their beginnings, were evaluated.",
                label,
                1,
                "",
            )
    ended = tuple(f"{row.model}: {row.status}: " for row in table.rows if row.status != "ok")
    for note in table.notes:
        if not note.startswith((*ended, "Partial: ")):
            yield "about the text", note, "", 1, ""


def _details(rows: list[LongRow]) -> str:
    said = list(dict.fromkeys(detail.rstrip(".") for row in rows for detail in row.details))
    more = f"; and {len(said) - _MOST_DETAILS} more" if len(said) > _MOST_DETAILS else ""
    return f"; {'; '.join(said[:_MOST_DETAILS])}{more}" if said else ""


def said_of(row: LongRow) -> Iterator[str]:
    """Yield what was said while a row's records were computed, without the model's name before it."""
    records: list[RecallRecord | ContextLossRecord] = [*row.recall.values()]
    records += [] if row.loss is None else [row.loss]
    for record in records:
        for text in record.warnings:
            yield text.removeprefix(f"{row.model}: ")


def _lacks_rows(run: LoadedRun, table: LongTable) -> bool:
    """Tell whether some result has no mean although all its parts are there, or no file of answers."""
    for row in table.rows:
        records = [row.recall.get(task) for task in table.mean_tasks]
        if row.recall_mean is None and records and all(r is not None and r.status == "ok" for r in records):
            return True
        told: list[RecallRecord | ContextLossRecord] = [*row.recall.values()]
        told += [] if row.loss is None else [row.loss]
        ended_well = [record for record in told if record.status == "ok"]
        if run.stored is not None and not all(run.stored.long_rows_path(r).is_file() for r in ended_well):
            return True
    return False
