"""How well models predict texts: bits per byte and perplexities, and the loss by position.

section = texts_section(Rows(runs))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mambabench.report.document import EMPTY, Block, Cell, Column, Section, Table
from mambabench.report.format import Row, Rows, figure, integer, unique
from mambabench.report.sections.layout import MOST_ROWS, findings, grids, table, thinned
from mambabench.tables.longcontext.perplexity import positions_text

_METRICS: Final = {
    "bits_per_byte": ("bits a byte [95%]", "bits/byte"),
    "byte_perplexity": ("byte perplexity", ""),
    "word_perplexity": ("word perplexity", "ppl"),
    "token_perplexity": ("token perplexity", "ppl"),
}


def texts_section(rows: Rows) -> Section | None:
    """Return the section, or None where no text was predicted."""
    found = rows("perplexities")
    if not found:
        return None
    blocks: list[Block] = []
    corpora = unique(row["corpus"] for row in found)
    for i, corpus in enumerate(corpora, 1):
        number = f"-{i}" if len(corpora) > 1 else ""
        blocks.append(_perplexities([row for row in found if row["corpus"] == corpus], corpus, number))
        blocks += _positions(
            [row for row in rows("position_losses") if row["corpus"] == corpus], corpus, number
        )
    lead = (
        "Lower is better. Bits per byte and perplexities by byte and word compare between models with "
        "different tokenizers; token perplexity and loss do not."
    )
    return Section(
        "texts", "How well models predict texts", (*blocks, *findings(rows, ("perplexity",))), lead
    )


def _perplexities(found: list[Row], corpus: str, number: str) -> Table:
    lines: dict[str, dict[str, Row]] = {}
    for row in found:
        lines.setdefault(row["label"], {})[row["metric"] or ""] = row
    columns = [
        Column("model"),
        *(Column(title, numeric=True) for title, _ in _METRICS.values()),
        Column("documents", numeric=True),
        Column("tokens", numeric=True),
        Column("bytes", numeric=True),
        Column("context"),
        Column("state"),
    ]
    body = [[Cell(label), *_line(by)] for label, by in lines.items()]
    notes = []
    if all(row["interval_low"] is None for row in found):
        notes.append("No intervals: they take several documents.")
    return table(f"perplexities{number}", f"Text: {corpus}", "perplexities", columns, body, notes)


def _line(by: dict[str, Row]) -> list[Cell]:
    any_row = next(iter(by.values()))
    cells = []
    for metric, (_, unit) in _METRICS.items():
        row = by.get(metric)
        if row is None or row["value"] is None:
            cells.append(EMPTY)
        elif metric == "bits_per_byte":
            cells.append(figure(row["value"], unit, row["interval_low"], row["interval_high"]))
        else:
            cells.append(figure(row["value"], unit))
    counts = [integer(any_row[name] or None) for name in ("n_documents", "n_tokens", "n_bytes")]
    return [*cells, *counts, Cell(any_row["context"] or ""), _state(any_row)]


def _state(row: Row) -> Cell:
    if row["status"] not in (None, "ok"):
        return Cell(row["status"], tone="bad", note=row["detail"] or "")
    if row["partial"]:
        return Cell("partial", tone="doubt", note="only some documents or tokens were evaluated")
    if row["past_training_length"]:
        return Cell("past training length", tone="doubt")
    return EMPTY


def _positions(found: list[Row], corpus: str, number: str) -> list[Table]:
    """Return loss by position, positions in rows, models in columns."""
    places = sorted({(row["first_token"], row["end_token"]) for row in found})
    shown = thinned(places, MOST_ROWS)
    by = {(row["label"], row["first_token"], row["end_token"]): row for row in found}

    def at(label: str) -> Callable[[int], Cell]:
        def cell(i: int) -> Cell:
            row = by.get((label, *shown[i]))
            if row is None or row["loss_nats"] is None:
                return EMPTY
            past = bool(row["past_training_length"])
            ends = row["loss_nats_low"], row["loss_nats_high"]
            return figure(row["loss_nats"], "nats", *ends, tone="doubt" if past else "")

        return cell

    notes = [] if len(shown) == len(places) else ["Some positions; frame position_losses has all."]
    return grids(
        f"position-losses{number}",
        f"Loss by position: {corpus}",
        "position_losses",
        heads=[Column("positions", "tokens")],
        names=[(Cell(positions_text(*place), place[:1]),) for place in shown],
        columns=[
            (Column(label, "nats", numeric=True), at(label))
            for label in unique(row["label"] for row in found)
        ],
        notes=notes,
    )
