"""From long-context records to one row for each model and length: recall, loss and cost side by side.

Effective contexts and where loss stops falling belong to models rather than to rows, and stand beside them.

    table = build_long_table("my run", recall, losses, speed, rows={r.fingerprint: run.read_long_rows(r) ...})
    table.row("mamba-130m", 4096).recall_mean.value
    table.effective_of("mamba-130m").length_tokens
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from mambabench.long_schema import ContextLossRecord, RecallRecord
from mambabench.stats.replicates import N_FOR_INTERVAL, Estimate
from mambabench.tables.longcontext import findings
from mambabench.tables.longcontext.flags import (
    COST_FAILED,
    FAILED,
    FEW_PROCESSES,
    FEW_SAMPLES,
    MISSING,
    N_SAMPLES,
    PAST_TRAINING,
    UNSUPPORTED,
    is_cost_past,
    is_past,
)
from mambabench.tables.longcontext.joined import cost_rows

if TYPE_CHECKING:
    from mambabench.schema import MetricRecord
    from mambabench.stats.effective import EffectiveContext
    from mambabench.stats.falling import LossTrend
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of records by their fingerprint, as a run keeps them: questions of recall, blocks of loss."""


@dataclass(frozen=True)
class Measured:
    """A figure with its 95% interval; ends are null where the items do not determine one."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Items it is over; of a mean over tasks, so many independent ones as say as much."""


@dataclass(frozen=True)
class LongRow:
    """One model at one length. A figure is None where nothing was measured that gives it."""

    model: str
    length_tokens: int
    recall: Mapping[str, RecallRecord]
    """By task, whatever became of it; tasks that are still to be measured are absent."""
    recall_mean: Measured | None
    """Over `LongTable.mean_tasks`, each task counting alike; samples are drawn anew within each task."""
    loss: ContextLossRecord | None
    cost: SpeedRow | None
    """At a prompt of this length, in the fastest way of running the model."""
    flags: tuple[str, ...]
    """What limits the figures; keys of `flags.ADVICE`."""
    details: tuple[str, ...]
    """What records that are not ok say, each once."""

    def accuracy(self, task: str) -> Measured | None:
        """Return a task's accuracy."""
        return measured(self.recall.get(task), "accuracy")

    @property
    def loss_nats(self) -> Measured | None:
        """Mean over the predicted tokens."""
        return measured(self.loss, "loss_nats")

    @property
    def bits_per_byte(self) -> Measured | None:
        """The loss in a unit that does not depend on the tokenizer."""
        return measured(self.loss, "bits_per_byte")

    @property
    def ttft_s(self) -> Estimate | None:
        """Time to the first token after a prompt of this length."""
        return None if self.cost is None else self.cost.ttft_s

    @property
    def tpot_s(self) -> Estimate | None:
        """Time of each later token."""
        return None if self.cost is None else self.cost.tpot_s

    @property
    def peak_bytes(self) -> Estimate | None:
        """Weights, state and everything transient at most."""
        return None if self.cost is None else self.cost.peak_bytes

    @property
    def state_bytes(self) -> int | None:
        """State or cache of one sequence, after the prompt and what was generated."""
        if self.cost is None or self.cost.memory is None:
            return None
        return self.cost.memory.state_bytes // self.cost.point.batch_size

    def past_training_length(self, what: Literal["recall", "loss", "cost"]) -> bool:
        """Return whether a part of the row lies beyond what the model was trained on; never what failed.

        The targets of a loss lie after the context, so that the row of the training length itself is past it.
        """
        if what == "recall":
            return any(is_past(r) for r in self.recall.values())
        if what == "loss":
            return self.loss is not None and is_past(self.loss)
        return is_cost_past(self.cost, self.length_tokens)


@dataclass(frozen=True)
class Effective:
    """The effective context of a model in one task, or in the mean over tasks."""

    model: str
    task: str | None
    """Null for the mean over `LongTable.mean_tasks`."""
    found: EffectiveContext
    """With the bar at 90% of the short-context value."""
    found_above_chance: EffectiveContext
    """With the bar at 90% of what is above chance."""
    ever_above_chance: bool
    """Whether accuracy is above chance at any length by its interval."""

    @property
    def headline(self) -> EffectiveContext:
        """Return the one to tell: above chance where guessing alone would reach the other one's bar."""
        return self.found if self.found.bar_tells else self.found_above_chance


@dataclass(frozen=True)
class Trend:
    """Where a model's loss stops falling."""

    model: str
    found: LossTrend
    by_document: bool
    """Whether documents are the items of its tests; else blocks are."""


@dataclass(frozen=True)
class LongTable:
    """A long-context run in rows, with what follows from them."""

    title: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    """Recall tasks, in the order of their first record."""
    lengths: tuple[int, ...]
    """All that something was measured or asked at, ascending."""
    rows: tuple[LongRow, ...]
    """Model by model, lengths ascending."""
    mean_tasks: tuple[str, ...]
    """Tasks that means are over: those that most models and lengths have in common."""
    effective: tuple[Effective, ...]
    """Model by model: the mean, if there are several tasks, then each task."""
    trends: tuple[Trend, ...]
    training_lengths: Mapping[str, int | None]
    """By model, in tokens; null where it is not known."""
    speed: SpeedTable | None
    partial: bool
    """Whether something is still to be measured."""

    def row(self, model: str, length_tokens: int) -> LongRow:
        """Return one row.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.model, row.length_tokens) == (model, length_tokens):
                return row
        raise KeyError((model, length_tokens))

    def rows_of(self, model: str) -> tuple[LongRow, ...]:
        """Return a model's rows, lengths ascending."""
        return tuple(row for row in self.rows if row.model == model)

    def effective_of(self, model: str, task: str | None = None) -> Effective | None:
        """Return what is known of a model in a task, or in the mean; of a single task for the mean too."""
        if task is None and len(self.mean_tasks) == 1:
            task = self.mean_tasks[0]
        return next((e for e in self.effective if (e.model, e.task) == (model, task)), None)

    def trend_of(self, model: str) -> Trend | None:
        """Return how a model's loss changes with context."""
        return next((t for t in self.trends if t.model == model), None)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values; questions and blocks are in the run's rows."""
        return {
            "title": self.title,
            "partial": self.partial,
            "models": list(self.models),
            "tasks": list(self.tasks),
            "lengths_tokens": list(self.lengths),
            "mean_tasks": list(self.mean_tasks),
            "training_length_tokens": dict(self.training_lengths),
            "rows": [_row_as_json(row) for row in self.rows],
            "effective_context": [asdict(one) for one in self.effective],
            "loss_trend": [asdict(one) for one in self.trends],
        }


def build_long_table(
    title: str,
    recall: Sequence[RecallRecord],
    losses: Sequence[ContextLossRecord],
    speed: SpeedTable | None = None,
    *,
    rows: Rows,
    models: Sequence[str] = (),
    partial: bool = False,
) -> LongTable:
    """Join a run's records by model and length.

    Args:
        title: for headings.
        recall: of all models, tasks and lengths so far, whatever became of them; at most one of each.
        losses: the same of contexts, of one text.
        speed: of the same models with prompts of the same lengths; null where cost was not measured.
        rows: of each record that is ok, by its fingerprint: of recall "sample" and "credit", of losses
            "document_index", "start_char", "n_tokens" and "logprob".
        models: their order; others follow.
        partial: whether something is still to be measured that no record of another model, task or length
            shows to be missing.
    """
    records: list[RecallRecord | ContextLossRecord] = [*recall, *losses]
    speed_models = speed.models if speed is not None else ()
    names = tuple(dict.fromkeys([*models, *(r.model for r in records), *speed_models]))
    tasks = tuple(dict.fromkeys(r.task for r in recall))
    by_task = {(r.model, r.length_tokens, r.task): r for r in recall}
    by_context = {(r.model, r.context_tokens): r for r in losses}
    costs = {} if speed is None else cost_rows(speed)
    lengths = sorted(
        {r.length_tokens for r in recall} | {r.context_tokens for r in losses} | {n for _, n in costs}
    )
    asked = _Asked(
        {r.length_tokens for r in recall}, tasks, {r.context_tokens for r in losses}, {n for _, n in costs}
    )
    mean_tasks = findings.mean_tasks(recall, tasks)
    made = []
    for model in names:
        for length in lengths:
            found = {t: by_task[model, length, t] for t in tasks if (model, length, t) in by_task}
            loss, cost = by_context.get((model, length)), costs.get((model, length))
            mean = findings.mean_recall([found.get(t) for t in mean_tasks], rows)
            made.append(
                LongRow(
                    model=model,
                    length_tokens=length,
                    recall=found,
                    recall_mean=mean and Measured(*mean),
                    loss=loss,
                    cost=cost,
                    flags=_flags(length, found, loss, cost, asked),
                    details=_details(found, loss, cost),
                )
            )
    return LongTable(
        title=title,
        models=names,
        tasks=tasks,
        lengths=tuple(lengths),
        rows=tuple(made),
        mean_tasks=mean_tasks,
        effective=tuple(
            Effective(model, task, *contexts)
            for model in names
            for task, contexts in findings.effective(
                [r for r in recall if r.model == model], tasks, mean_tasks, rows
            )
        ),
        trends=tuple(
            Trend(model, *trend)
            for model in names
            if (trend := findings.loss_trend_of([r for r in losses if r.model == model], rows)) is not None
        ),
        training_lengths={model: _trained_on(model, records, speed) for model in names},
        speed=speed,
        partial=partial or any(MISSING in row.flags for row in made),
    )


def measured(record: RecallRecord | ContextLossRecord | None, metric: str) -> Measured | None:
    """Return a metric of a record that is ok and has it."""
    if record is None or record.status != "ok":
        return None
    found: MetricRecord | None = next((m for m in record.metrics if m.metric == metric), None)
    if found is None:
        return None
    return Measured(found.value, found.interval_low, found.interval_high, found.n)


@dataclass(frozen=True)
class _Asked:
    """What some model was measured at."""

    recall_lengths: set[int]
    tasks: tuple[str, ...]
    contexts: set[int]
    prompts: set[int]


def _flags(
    length: int,
    recall: Mapping[str, RecallRecord],
    loss: ContextLossRecord | None,
    cost: SpeedRow | None,
    asked: _Asked,
) -> tuple[str, ...]:
    records: list[RecallRecord | ContextLossRecord] = [*recall.values(), *([loss] if loss else [])]
    missing = length in asked.recall_lengths and len(recall) < len(asked.tasks)
    missing |= length in asked.contexts and loss is None
    missing |= length in asked.prompts and (cost is None or cost.status == "missing")
    found = {
        PAST_TRAINING: any(map(is_past, records)) or is_cost_past(cost, length),
        UNSUPPORTED: any(r.status == "unsupported" for r in records),
        FAILED: any(r.status == "failed" for r in records),
        MISSING: missing,
        FEW_SAMPLES: any(r.status == "ok" and r.n_samples < N_SAMPLES for r in recall.values()),
        COST_FAILED: cost is not None and cost.status not in ("ok", "missing"),
        FEW_PROCESSES: cost is not None and cost.tpot_s is not None and cost.tpot_s.n < N_FOR_INTERVAL,
    }
    return tuple(flag for flag, holds in found.items() if holds)


def _details(
    recall: Mapping[str, RecallRecord], loss: ContextLossRecord | None, cost: SpeedRow | None
) -> tuple[str, ...]:
    """Return what went otherwise than well; tasks that say the same are named together."""
    said: dict[str, list[str]] = {}
    records: list[tuple[str, RecallRecord | ContextLossRecord]] = [*recall.items()]
    records += [] if loss is None else [("loss", loss)]
    for what, record in records:
        if record.status != "ok":
            said.setdefault(" ".join(f"{record.status}: {record.detail}".split()), []).append(what)
    if cost is not None and cost.status not in ("ok", "missing"):
        word = cost.status.replace("_", " ")
        said.setdefault(" ".join(f"{word}: {cost.detail}".split()), []).append("cost")
    every = list(recall)
    return tuple(f"{_named(names, every)} {words.rstrip(': ')}" for words, names in said.items())


def _named(names: Sequence[str], every: Sequence[str]) -> str:
    if len(every) > 1 and set(every) <= set(names):
        return ", ".join(["recall", *(name for name in names if name not in every)])
    return ", ".join(names)


def _trained_on(
    model: str, records: Sequence[RecallRecord | ContextLossRecord], speed: SpeedTable | None
) -> int | None:
    known = [r.training_length_tokens for r in records if r.model == model and r.training_length_tokens]
    if known or speed is None:
        return known[0] if known else None
    sizes = speed.sizes.get(model)
    return None if sizes is None else sizes.training_length_tokens


def _row_as_json(row: LongRow) -> dict[str, Any]:
    def figure(found: Measured | Estimate | None) -> dict[str, Any] | None:
        return None if found is None else asdict(found)

    return {
        "model": row.model,
        "length_tokens": row.length_tokens,
        "recall_mean": figure(row.recall_mean),
        "recall": {
            task: {
                "status": record.status,
                "detail": record.detail,
                "chance": record.chance,
                "n_samples": record.n_samples,
                "n_questions": record.n_questions,
                **{m.metric: figure(measured(record, m.metric)) for m in record.metrics},
                "depths": [depth.model_dump(mode="json") for depth in record.depths],
            }
            for task, record in row.recall.items()
        },
        "loss_nats": figure(row.loss_nats),
        "bits_per_byte": figure(row.bits_per_byte),
        "ttft_s": figure(row.ttft_s),
        "tpot_s": figure(row.tpot_s),
        "peak_bytes": figure(row.peak_bytes),
        "state_bytes": row.state_bytes,
        "flags": list(row.flags),
        "details": list(row.details),
    }
