"""Stored long-context runs as the tables that their commands show.

    long_table(stored).row("mamba-130m", 4096).recall_mean.value
    perplexity_table(stored).rows[0].bits_per_byte.value

What lengths cost is a sweep in a directory of its own, which lies beside the run and was measured by the same
command; it is looked for there. A run keeps all that was ever asked of its models: where two records are of
one model, task and length, the one that the run's last command asked for is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mambabench.errors import StoreError
from mambabench.frames.asked import long_settings_of, manifests_of, models_asked, siblings_of
from mambabench.frames.sweeps import speed_table
from mambabench.long_schema import ContextLossRecord, LongRecord, PerplexityRecord, RecallRecord
from mambabench.schema import LongSettingsRecord, RunManifest, SpeedSettingsRecord
from mambabench.tables.longcontext.perplexity import build_perplexity_table
from mambabench.tables.longcontext.table import build_long_table

if TYPE_CHECKING:
    from mambabench.store import StoredRun
    from mambabench.tables.longcontext.perplexity import PerplexityTable
    from mambabench.tables.longcontext.table import LongTable

_COST: Final = "latency"
_R = TypeVar("_R", RecallRecord, ContextLossRecord, PerplexityRecord)


def long_table(stored: StoredRun) -> LongTable:
    """Return the table of a long-context run, with the cost that was measured by the same command.

    Raises:
        ValueError: the run is of another kind.
        StoreError: a record is damaged.
    """
    if stored.manifest.kind != "longcontext":
        raise ValueError(f"a run of kind {stored.manifest.kind} is no long-context run")
    manifests = manifests_of(stored)
    models, settings = models_asked(manifests), long_settings_of(manifests)
    tasks = list(dict.fromkeys(task for each in settings for task in each.tasks))
    recall = _recall(stored.long_records(RecallRecord), settings)
    losses = _losses(stored.long_records(ContextLossRecord), settings)
    recall.sort(key=lambda r: (_place(r.model, models), _place(r.task, tasks), r.length_tokens))
    losses.sort(key=lambda r: (_place(r.model, models), r.context_tokens))
    cost = cost_run(stored)
    return build_long_table(
        stored.manifest.suite,
        recall,
        losses,
        None if cost is None else speed_table(cost, cost.replicates(), cost.ceilings()),
        rows=_rows(stored, [*recall, *losses]),
        models=models,
        partial=_lacks_some(models, settings, recall, losses),
    )


def perplexity_table(stored: StoredRun) -> PerplexityTable:
    """Return the table of a run of perplexity.

    Raises:
        ValueError: the run is of another kind, or holds no record yet.
        StoreError: a record is damaged.
    """
    if stored.manifest.kind != "perplexity":
        raise ValueError(f"a run of kind {stored.manifest.kind} is no run of perplexity")
    models = models_asked(manifests_of(stored))
    records = _chosen(stored.long_records(PerplexityRecord), lambda r: r.model, lambda r: r.n_tokens)
    return build_perplexity_table(sorted(records, key=lambda r: _place(r.model, models)))


def cost_run(stored: StoredRun) -> StoredRun | None:
    """Return the sweep that measured what the lengths of a long-context run cost, None where there is none.

    It lies beside the run, is of the same models, weights and seed, and of a command that made the run; of
    several the latest is taken: another machine or version begins a new one.
    """
    from mambabench.store import StoredRun

    manifests = manifests_of(stored)
    commands = {manifest.command for manifest in manifests}
    found: list[StoredRun] = []
    for path in siblings_of(stored.path):
        try:
            sibling = StoredRun(path)
        except StoreError:
            continue
        if sibling.manifest.kind == _COST and _is_cost(sibling, manifests[0], commands):
            found.append(sibling)
    return max(found, key=lambda run: (run.manifest.created_utc, run.path.name), default=None)


def rows_unread(stored: StoredRun) -> list[str]:
    """Name the records of a long-context run whose questions, documents or blocks cannot be read."""
    said = []
    for kind in (RecallRecord, ContextLossRecord, PerplexityRecord):
        records: list[Any] = stored.long_records(kind)
        for record in records:
            if record.status == "ok":
                try:
                    stored.read_long_rows(record)
                except StoreError as error:
                    said.append(str(error))
    return said


def _is_cost(sweep: StoredRun, long: RunManifest, commands: Iterable[tuple[str, ...]]) -> bool:
    settings, asked = sweep.manifest.settings, long.settings
    if not isinstance(settings, SpeedSettingsRecord) or not isinstance(asked, LongSettingsRecord):
        return False
    return (
        sweep.manifest.models == long.models
        and (settings.weights, settings.seed) == (asked.weights, asked.seed)
        and not settings.gen_len_tokens[1:]
        and settings.batch_size == (1,)
        and not {manifest.command for manifest in manifests_of(sweep)}.isdisjoint(commands)
    )


def _recall(records: Sequence[RecallRecord], settings: Sequence[LongSettingsRecord]) -> list[RecallRecord]:
    wanted = next((each for each in reversed(settings) if each.tasks), None)

    def rank(record: RecallRecord) -> tuple[bool, bool, int, int]:
        as_asked = wanted is not None and record.n_samples == wanted.n_samples
        n_depths = 0 if wanted is None or wanted.n_depths is None else wanted.n_depths
        return as_asked, record.status == "ok", record.n_samples, -abs(len(record.depths) - n_depths)

    return _chosen(records, lambda r: (r.model, r.task, r.length_tokens), rank)


def _losses(
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
    return _chosen(records, lambda r: (r.model, r.context_tokens), lambda r: (r.status == "ok", r.n_blocks))


def _chosen(records: Iterable[_R], key: Callable[[_R], object], rank: Callable[[_R], Any]) -> list[_R]:
    """Return one record of each key, that of the highest rank."""
    found: dict[object, _R] = {}
    for record in records:
        known = found.get(key(record))
        if known is None or rank(record) > rank(known):
            found[key(record)] = record
    return list(found.values())


def _rows(stored: StoredRun, records: Sequence[LongRecord]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the rows of records that have them; without theirs a record is in no mean."""
    found: dict[str, Sequence[Mapping[str, Any]]] = {}
    for record in records:
        if record.status == "ok":
            try:
                found[record.fingerprint] = stored.read_long_rows(record)
            except StoreError:
                continue
    return found


def _lacks_some(
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


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)
