"""Which of a long-context run's records a table is of: one a model, task and length, as was asked for last.

    recall_asked(stored.long_records(RecallRecord), long_settings_of(manifests_of(stored)))

A run keeps all that was ever asked of its models: other numbers of samples, other texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mambabench.long_schema import ContextLossRecord, PerplexityRecord, RecallRecord

if TYPE_CHECKING:
    from mambabench.schema import LongSettingsRecord

_R = TypeVar("_R", RecallRecord, ContextLossRecord, PerplexityRecord)


def recall_asked(
    records: Sequence[RecallRecord], settings: Sequence[LongSettingsRecord]
) -> list[RecallRecord]:
    """Return a record of each model, task and length: of the last command's number of samples, if any."""
    wanted = next((each for each in reversed(settings) if each.tasks), None)

    def rank(record: RecallRecord) -> tuple[bool, bool, int, int]:
        as_asked = wanted is not None and record.n_samples == wanted.n_samples
        n_depths = 0 if wanted is None or wanted.n_depths is None else wanted.n_depths
        return as_asked, record.status == "ok", record.n_samples, -abs(len(record.depths) - n_depths)

    return one_of_each(records, lambda r: (r.model, r.task, r.length_tokens), rank)


def losses_asked(
    records: Sequence[ContextLossRecord], settings: Sequence[LongSettingsRecord]
) -> list[ContextLossRecord]:
    """Return the losses of one text: that of the last command with one, if it has any."""
    wanted = next((each for each in reversed(settings) if each.corpus_sha256 is not None), None)
    if wanted is not None:
        of_text = [r for r in records if r.corpus.sha256 == wanted.corpus_sha256]
        alike = [r for r in of_text if r.target_tokens == wanted.target_tokens]
        records = alike or of_text or records
    texts = [r.corpus.sha256 for r in records]
    records = [r for r in records if r.corpus.sha256 == max(texts, key=texts.count)]
    return one_of_each(
        records, lambda r: (r.model, r.context_tokens), lambda r: (r.status == "ok", r.n_blocks)
    )


def one_of_each(records: Iterable[_R], key: Callable[[_R], object], rank: Callable[[_R], Any]) -> list[_R]:
    """Return one record of each key, that of the highest rank."""
    found: dict[object, _R] = {}
    for record in records:
        known = found.get(key(record))
        if known is None or rank(record) > rank(known):
            found[key(record)] = record
    return list(found.values())


def lacks_some(
    models: Sequence[str],
    settings: Sequence[LongSettingsRecord],
    recall: Sequence[RecallRecord],
    losses: Sequence[ContextLossRecord],
) -> bool:
    """Tell whether something that a command asked for has no record."""
    asked: set[tuple[str, str | None, int]] = set()
    for each in settings:
        whats = [*each.tasks, *([] if each.corpus_sha256 is None else [None])]
        asked |= {(model, what, n) for model in models for what in whats for n in each.lengths_tokens}
    known: set[tuple[str, str | None, int]] = {(r.model, r.task, r.length_tokens) for r in recall}
    return not asked <= known | {(r.model, None, r.context_tokens) for r in losses}


def place_of(name: str, names: Sequence[str]) -> int:
    """Return where a name stands, for sorting; behind all others if it does not."""
    return names.index(name) if name in names else len(names)
