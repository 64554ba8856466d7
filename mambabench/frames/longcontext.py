"""Stored long-context runs as the tables that their commands show.

    long_table(stored).row("mamba-130m", 4096).recall_mean.value
    perplexity_table(stored).rows[0].bits_per_byte.value

What lengths cost is a sweep in a directory of its own, which lies beside the run and was measured by the same
command; it is looked for there. A run keeps all that was ever asked of its models: where two records are of
one model, task and length, the one that the run's last command asked for is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mambabench.errors import StoreError
from mambabench.frames.asked import long_settings_of, manifests_of, models_asked, siblings_of
from mambabench.frames.long_chosen import lacks_some, losses_asked, one_of_each, place_of, recall_asked
from mambabench.frames.sweeps import speed_table
from mambabench.long_schema import ContextLossRecord, LongRecord, PerplexityRecord, RecallRecord
from mambabench.schema import LongSettingsRecord, RunManifest, SpeedSettingsRecord
from mambabench.tables.longcontext.perplexity import build_perplexity_table
from mambabench.tables.longcontext.table import build_long_table

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun
    from mambabench.long_schema import CorpusRecord
    from mambabench.schema import MetricRecord
    from mambabench.store import StoredRun
    from mambabench.tables.longcontext.perplexity import Figure, PerplexityRow, PerplexityTable
    from mambabench.tables.longcontext.table import LongRow, LongTable, Measured

_COST: Final = "latency"
_PERPLEXITIES: Final = ("bits_per_byte", "byte_perplexity", "word_perplexity", "token_perplexity")


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
    recall = recall_asked(stored.long_records(RecallRecord), settings)
    losses = losses_asked(stored.long_records(ContextLossRecord), settings)
    recall.sort(key=lambda r: (place_of(r.model, models), place_of(r.task, tasks), r.length_tokens))
    losses.sort(key=lambda r: (place_of(r.model, models), r.context_tokens))
    cost = cost_run(stored)
    return build_long_table(
        stored.manifest.suite,
        recall,
        losses,
        None if cost is None else speed_table(cost, cost.replicates(), cost.ceilings()),
        rows=_rows(stored, [*recall, *losses]),
        models=models,
        partial=lacks_some(models, settings, recall, losses),
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
    records = one_of_each(stored.long_records(PerplexityRecord), lambda r: r.model, lambda r: r.n_tokens)
    return build_perplexity_table(sorted(records, key=lambda r: place_of(r.model, models)))


def cost_run(stored: StoredRun) -> StoredRun | None:
    """Return the sweep that measured what the lengths of a long-context run cost, None where there is none.

    It lies beside the run, is of the same models, weights and seed, and of a command that made the run; of
    several the latest is taken: another machine or version begins a new one.
    """
    from mambabench.frames.load import ReadableRun

    manifests = manifests_of(stored)
    commands = {manifest.command for manifest in manifests}
    found: list[StoredRun] = []
    for path in siblings_of(stored.path, kind=_COST):
        try:
            sibling = ReadableRun(path)
        except (StoreError, RecursionError):
            continue
        if _is_cost(sibling, manifests[0], commands):
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


def rows_of_recall(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `recall`: metrics of recall tasks, model by model and length by length."""
    found = []
    for run, table, row in _long_rows(runs):
        for task in table.tasks:
            if (record := row.recall.get(task)) is None:
                continue
            cell = {
                **_who(run, row.model),
                "task": task,
                "length_tokens": row.length_tokens,
                "status": record.status,
                "detail": record.detail,
                "n_questions": record.n_questions,
                "n_samples": record.n_samples,
                "chance": _percent(record.chance),
                "past_training_length": record.past_training_length,
            }
            metrics = record.metrics if record.status == "ok" else ()
            found += [{**cell, **_metric(metric)} for metric in metrics] or [
                {**cell, "metric": "", "unit": ""}
            ]
    return found


def rows_of_recall_means(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `recall_means`: models at lengths, as the command's table has them."""
    found = []
    for run, table, row in _long_rows(runs):
        mean, loss, bits = row.recall_mean, row.loss_nats, row.bits_per_byte
        found.append(
            {
                **_who(run, row.model),
                "length_tokens": row.length_tokens,
                "accuracy": mean and _percent(mean.value),
                "interval_low": mean and _percent(mean.low),
                "interval_high": mean and _percent(mean.high),
                "n": mean and mean.n,
                "n_tasks": mean and len(table.mean_tasks),
                "loss_nats": loss and loss.value,
                "bits_per_byte": bits and bits.value,
                "ttft_s": row.ttft_s and row.ttft_s.value,
                "tpot_s": row.tpot_s and row.tpot_s.value,
                "peak_bytes": row.peak_bytes and row.peak_bytes.value,
                "state_bytes": row.state_bytes,
                "flags": "; ".join(row.flags),
            }
        )
    return found


def rows_of_recall_depths(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `recall_depths`: parts of the context that holds answers."""
    return [
        {
            **_who(run, row.model),
            "task": task,
            "length_tokens": row.length_tokens,
            "depth_low": depth.depth_low,
            "depth_high": depth.depth_high,
            "accuracy": _percent(depth.accuracy),
            "interval_low": _percent(depth.interval_low),
            "interval_high": _percent(depth.interval_high),
            "n_questions": depth.n_questions,
        }
        for run, table, row in _long_rows(runs)
        for task in table.tasks
        if task in row.recall and row.recall[task].status == "ok"
        for depth in row.recall[task].depths
    ]


def rows_of_effective_contexts(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `effective_contexts`: both rules of each model and task, the plain one first."""
    return [
        {
            **_who(run, one.model),
            "task": one.task or "mean",
            "headline": found is one.headline,
            "rule": rule,
            "length_tokens": found.length_tokens,
            "length_low_tokens": found.low,
            "length_high_tokens": None if found.is_open else found.high,
            "ever_above_chance": one.ever_above_chance,
        }
        for run in runs
        if run.long is not None
        for one in run.long.effective
        for rule, found in (("90% of short", one.found), ("90% above chance", one.found_above_chance))
    ]


def rows_of_context_losses(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `context_losses`: losses of the same tokens after contexts of each length."""
    found = []
    for run, _, row in _long_rows(runs):
        if (record := row.loss) is not None:
            found.append(
                {
                    **_who(run, row.model),
                    "corpus": _corpus(record.corpus),
                    "context_tokens": record.context_tokens,
                    "status": record.status,
                    "detail": record.detail,
                    **_figure("loss_nats", row.loss_nats),
                    **_figure("bits_per_byte", row.bits_per_byte),
                    "n_blocks": record.n_blocks,
                    "n_documents": record.n_documents,
                    "past_training_length": record.past_training_length,
                }
            )
    return found


def rows_of_perplexities(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `perplexities`: metrics of texts."""
    found = []
    for run, corpus, row in _texts(runs):
        text = {
            **_who(run, row.model),
            "corpus": corpus,
            "context": row.context,
            "status": row.status,
            "detail": row.detail,
            "n_documents": row.n_documents,
            "n_tokens": row.n_tokens,
            "n_bytes": row.n_bytes,
            "partial": row.partial,
            "past_training_length": row.past_training_length,
        }
        found += [
            {**text, "metric": name, "value": f.value, "interval_low": f.low, "interval_high": f.high}
            for name, f in zip(_PERPLEXITIES, row.figures, strict=True)
            if f is not None
        ] or [{**text, "metric": ""}]
    return found


def rows_of_position_losses(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `position_losses`: ranges of positions in documents."""
    return [
        {
            **_who(run, row.model),
            "corpus": corpus,
            "context": row.context,
            "first_token": place.first_token,
            "end_token": place.end_token,
            **_figure("loss_nats", place.loss_nats),
            "n_tokens": place.n_tokens,
            "n_documents": place.n_documents,
            "past_training_length": place.past_training_length,
        }
        for run, corpus, row in _texts(runs)
        for place in row.positions
    ]


def _long_rows(runs: Sequence[LoadedRun]) -> Iterator[tuple[LoadedRun, LongTable, LongRow]]:
    for run in runs:
        if run.long is not None:
            for row in run.long.rows:
                yield run, run.long, row


def _texts(runs: Sequence[LoadedRun]) -> Iterator[tuple[LoadedRun, str, PerplexityRow]]:
    for run in runs:
        if run.perplexity is not None:
            # The title goes on with numbers of documents and bytes.
            corpus = run.perplexity.title.rpartition(": ")[0]
            for row in run.perplexity.rows:
                yield run, corpus, row


def _who(run: LoadedRun, model: str) -> dict[str, Any]:
    return {"run": run.name, "label": run.label(model), "model": model}


def _metric(metric: MetricRecord) -> dict[str, Any]:
    """Return a metric's columns; fractions become percent."""
    factor = 100.0 if metric.unit == "fraction" else 1.0
    ends = {"interval_low": metric.interval_low, "interval_high": metric.interval_high}
    return {
        "metric": metric.metric,
        "value": factor * metric.value,
        "unit": {"fraction": "%", "nats": "nats"}.get(metric.unit, ""),
        **{name: None if end is None else factor * end for name, end in ends.items()},
    }


def _figure(name: str, found: Measured | Figure | None) -> dict[str, Any]:
    return {} if found is None else {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _corpus(corpus: CorpusRecord) -> str:
    return corpus.name if corpus.part == "whole" else f"{corpus.name}, {corpus.part}"


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100.0 * fraction
