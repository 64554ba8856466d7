"""Perplexity records to the rows of a table, loss by position, and what follows from them in sentences.

Nothing here knows how a table looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mambabench.long_schema import CorpusRecord, PerplexityRecord, PositionRecord
    from mambabench.schema import MetricRecord

_LEAST_TOKENS = 256
"""Tokens that a bucket needs to be called the best or the last; the mean of fewer says little."""
_MARKED_NATS = 0.1
"""A loss that is so much above the lowest one is worth a sentence."""


@dataclass(frozen=True)
class Figure:
    """A value with its 95% interval, where documents determine one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PositionRow:
    """Loss of one model's tokens at some positions of their documents."""

    first_token: int
    end_token: int
    loss_nats: Figure
    n_tokens: int
    n_documents: int
    past_training_length: bool
    """Whether all of them are predicted from more context than the model was trained on."""


@dataclass(frozen=True)
class PerplexityRow:
    """One model."""

    model: str
    context: str
    """In words."""
    status: str
    detail: str
    bits_per_byte: Figure | None
    byte_perplexity: Figure | None
    word_perplexity: Figure | None
    token_perplexity: Figure | None
    n_documents: int
    n_tokens: int
    n_bytes: int
    longest_document_tokens: int
    training_length_tokens: int | None
    past_training_length: bool
    partial: bool
    positions: tuple[PositionRow, ...]

    @property
    def figures(self) -> tuple[Figure | None, ...]:
        """Bits per byte, then perplexities by byte, word and token."""
        return (self.bits_per_byte, self.byte_perplexity, self.word_perplexity, self.token_perplexity)


@dataclass(frozen=True)
class PerplexityTable:
    """Everything that a rendering shows."""

    title: str
    """The corpus, with its size."""
    label: str
    """What keeps the corpus from being the usual data set; mostly empty."""
    partial: bool
    rows: tuple[PerplexityRow, ...]
    notes: tuple[str, ...]
    """What limits the figures, in sentences, with the option to try."""
    words: tuple[str, ...]
    """What follows from the figures, in sentences."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names in the order of the table."""
        return tuple(row.model for row in self.rows)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """First position and end of every bucket that some model has; the last ends with its documents."""
        ends: dict[int, int] = {}
        for place in (place for row in self.rows for place in row.positions):
            ends[place.first_token] = max(place.end_token, ends.get(place.first_token, 0))
        return tuple(sorted(ends.items()))

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON types; numbers are not rounded."""
        return asdict(self)


def build_perplexity_table(records: Sequence[PerplexityRecord]) -> PerplexityTable:
    """Build the table of one run.

    Args:
        records: one a model, in order; all of one corpus.

    Raises:
        ValueError: there is none.
    """
    if not records:
        raise ValueError("a table needs a record")
    rows = tuple(_row(record) for record in records)
    corpus = records[0].corpus
    return PerplexityTable(
        title=_title(corpus),
        label=corpus.label,
        partial=any(row.partial for row in rows),
        rows=rows,
        notes=tuple(_notes(rows, records)),
        words=tuple(text for row in rows for text in _words(row)),
    )


def _title(corpus: CorpusRecord) -> str:
    part = "" if corpus.part == "whole" else f", {corpus.part}"
    documents = "1 document" if corpus.n_documents == 1 else f"{corpus.n_documents:,} documents"
    return f"{corpus.name}{part}: {documents}, {corpus.n_bytes:,} bytes"


def _row(record: PerplexityRecord) -> PerplexityRow:
    found = {metric.metric: _figure(metric) for metric in record.metrics}
    return PerplexityRow(
        model=record.model,
        context=record.context.label,
        status=record.status,
        detail=record.detail,
        bits_per_byte=found.get("bits_per_byte"),
        byte_perplexity=found.get("byte_perplexity"),
        word_perplexity=found.get("word_perplexity"),
        token_perplexity=found.get("token_perplexity"),
        n_documents=record.n_documents,
        n_tokens=record.n_tokens,
        n_bytes=record.n_bytes,
        longest_document_tokens=record.longest_document_tokens,
        training_length_tokens=record.training_length_tokens,
        past_training_length=record.past_training_length,
        partial=record.partial,
        positions=tuple(_position(record, place) for place in record.positions),
    )


def _figure(metric: MetricRecord) -> Figure:
    return Figure(metric.value, metric.interval_low, metric.interval_high)


def _position(record: PerplexityRecord, place: PositionRecord) -> PositionRow:
    trained, window = record.training_length_tokens, record.context.window_tokens
    # The token before the text counts: the first one is predicted from one.
    least_context = place.first_token + 1
    if window is not None:
        stride = record.context.stride_tokens or window
        least_context = min(least_context, window - stride + 1)
    return PositionRow(
        place.first_token,
        min(place.end_token, record.longest_document_tokens),
        Figure(place.loss_nats, place.interval_low, place.interval_high),
        place.n_tokens,
        place.n_documents,
        trained is not None and least_context > trained,
    )


def _notes(rows: Sequence[PerplexityRow], records: Sequence[PerplexityRecord]) -> list[str]:
    known = [row for row in rows if row.status == "ok"]
    notes = [f"{row.model}: {row.status}: {row.detail}" for row in rows if row.status != "ok"]
    if len({row.context for row in known}) > 1:
        notes.append(
            "Models were given different contexts, as the table says: each reads the text in its usual way. "
            "For equal contexts give --context sliding --window N."
        )
    if len({(row.n_tokens, row.n_bytes) for row in known}) > 1:
        notes.append(
            "Tokenizers differ: bits per byte, byte and word perplexity compare, token perplexity and loss "
            "by position do not."
        )
    for row in known:
        if row.past_training_length and row.training_length_tokens is not None:
            notes.append(
                f"{row.model} was trained on {row.training_length_tokens:,} tokens and predicts from more "
                "here."
            )
    if known and all(row.n_documents == 1 for row in known):
        notes.append(
            "No intervals: tokens of one document depend on each other, and it cannot tell how others would "
            "differ. Give a directory of documents for intervals."
        )
    elif any(len({p.n_documents for p in row.positions}) > 1 for row in known):
        notes.append("Late positions are of long documents only: see the number of documents.")
    if any(row.partial for row in known):
        notes.append("Partial: only some of the documents, or only their beginnings, were evaluated.")
    return notes


def _words(row: PerplexityRow) -> list[str]:
    """Say where loss is lowest, and whether it is higher where the text goes on.

    Where several documents give intervals, positions that only one of them reaches decide nothing, and those
    of few tokens never do; a lower loss there is mentioned, as the table shows it.
    """
    solid = [
        place
        for place in row.positions
        if place.n_tokens >= _LEAST_TOKENS and (row.n_documents == 1 or place.n_documents > 1)
    ]
    if len(solid) < 2:
        return []
    best = min(solid, key=lambda place: place.loss_nats.value)
    last = solid[-1]
    rise = last.loss_nats.value - best.loss_nats.value
    said = f"{row.model}: loss is lowest at positions {span(best)}, {best.loss_nats.value:.3f} nats a token"
    if any(place.loss_nats.value < best.loss_nats.value for place in row.positions):
        said += " (lower ones are of too few tokens or documents)"
    if last is best:
        return [f"{said}: the last ones."]
    past = ", past its training length" if last.past_training_length else ""
    if rise < _MARKED_NATS:
        return [f"{said}, and within {_MARKED_NATS:g} of that at the last ones, {span(last)}{past}."]
    return [f"{said}; at the last ones, {span(last)}{past}, it is {rise:.3f} higher."]


def span(place: PositionRow) -> str:
    """Return the positions of a row in words, counted from 0."""
    return positions_text(place.first_token, place.end_token)


def positions_text(first_token: int, end_token: int) -> str:
    """Return a range of positions in words, given its first one and the one past its last.

    >>> positions_text(1024, 2048)
    '1,024 to 2,047'
    """
    return f"{first_token:,}" if end_token == first_token + 1 else f"{first_token:,} to {end_token - 1:,}"
