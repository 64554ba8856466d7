"""Long-context runs that were never made, from known accuracies and losses, for tests of tables and figures.

    table = Run(lengths=(256, 512), tasks={"needle": recalls({256: 0.95, 512: 0.4})}).table()

Whether a question is answered depends on model, task and length alone; a sample is about as hard at every
length.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from speed_records import MAMBA, PYTHIA, Speeds, failed, point, replicate, sizes_by_name

from mambabench.long_schema import ContextLossRecord, CorpusRecord, DepthRecord, RecallRecord
from mambabench.schema import MetricRecord
from mambabench.stats.intervals import ratio_interval, wilson
from mambabench.tables.longcontext.table import LongTable, build_long_table
from mambabench.tables.speed.table import SpeedTable, build_speed_table

Truth = Callable[[str, int], float]
"""Accuracy, or loss in nats a token, of a model at a length."""

CORPUS = CorpusRecord(
    name="book.txt", kind="file", part="whole", source="path", n_documents=8, n_bytes=10**6, n_words=10**5,
    sha256="0" * 64,
)  # fmt: skip
ENDS = "learned positions end at 2,048"
TRAINED = {"mamba-130m": 2048, "pythia-160m": 2048}


def recall_record(
    model: str, task: str, length: int, accuracy: float, *, n_samples: int = 50, n_questions: int = 1,
    n_choices: int = 4, n_depths: int = 5, given: Sequence[float] | None = None, **more: Any,
) -> tuple[RecallRecord, list[dict[str, Any]]]:  # fmt: skip
    """Return a record and its rows; credits are drawn unless given, one a question."""
    rng = np.random.default_rng([zlib.crc32(model.encode()), zlib.crc32(task.encode())])
    hard = rng.random(n_samples * n_questions)
    noise = np.random.default_rng([length, zlib.crc32(model.encode())]).random(n_samples * n_questions)
    drawn = (0.7 * hard + 0.3 * noise < _quantile(accuracy)).astype(float)
    values = drawn.tolist() if given is None else list(given)
    rows: list[dict[str, Any]] = [
        {
            "sample": i // n_questions,
            "question": i % n_questions,
            "depth": (i // n_questions % n_depths + 0.5) / n_depths,
            "credit": value,
        }
        for i, value in enumerate(values)
    ]
    fingerprint = f"{model}/{task}/{length}"
    record = RecallRecord(
        fingerprint=fingerprint,
        checkpoint_fingerprint=model,
        model=model,
        task=task,
        task_version="1",
        length_tokens=length,
        status="ok",
        n_samples=len({row["sample"] for row in rows}),
        n_questions=len(rows),
        chance=1 / n_choices,
        metrics=(_accuracy(values), _metric("exact_match", "fraction", float(np.mean(values)) / 2)),
        depths=tuple(_depths(rows, n_depths)),
        training_length_tokens=TRAINED.get(model),
        past_training_length=length > TRAINED.get(model, length),
    )
    return record.model_copy(update=more), rows


def unsupported_recall(model: str, task: str, length: int, detail: str) -> RecallRecord:
    record, _ = recall_record(model, task, length, 0.5, n_samples=1)
    return record.model_copy(
        update={
            "status": "unsupported", "detail": detail, "metrics": (), "depths": (), "n_samples": 0,
            "n_questions": 0, "chance": None,
        }
    )  # fmt: skip


def loss_record(
    model: str, length: int, loss: float, *, n_documents: int = 8, n_blocks: int = 32,
    target_tokens: int = 64, noise: float = 0.02, **more: Any,
) -> tuple[ContextLossRecord, list[dict[str, Any]]]:  # fmt: skip
    """Return a record of equal blocks and their rows: texts differ far more than a text at two lengths."""
    hard = np.random.default_rng(7).normal(0, 0.3, n_blocks)
    own = np.random.default_rng([length, zlib.crc32(model.encode())]).normal(0, noise, n_blocks)
    per_token = loss + hard - hard.mean() + own - own.mean()
    rows: list[dict[str, Any]] = [
        {
            "document": f"document {i % n_documents}",
            "document_index": i % n_documents,
            "start_char": 1000 * i,
            "n_bytes": 4 * target_tokens,
            "n_tokens": target_tokens,
            "logprob": -float(value) * target_tokens,
        }
        for i, value in enumerate(per_token)
    ]
    sums = np.zeros((n_documents, 3))
    for row in rows:
        sums[row["document_index"]] += (row["logprob"], row["n_tokens"], row["n_bytes"])
    nats = ratio_interval(-sums[:, 0], sums[:, 1])
    bits = ratio_interval(sums[:, 0], sums[:, 2], transform="bits")
    record = ContextLossRecord(
        fingerprint=f"{model}/loss/{length}",
        checkpoint_fingerprint=model,
        model=model,
        corpus=CORPUS,
        context_tokens=length,
        target_tokens=target_tokens,
        n_blocks=n_blocks,
        n_documents=n_documents,
        status="ok",
        metrics=(
            _metric("loss_nats", "nats", -sums[:, 0].sum() / sums[:, 1].sum(), nats),
            _metric(
                "bits_per_byte", "bits_per_byte", -sums[:, 0].sum() / sums[:, 2].sum() / math.log(2), bits
            ),
        ),
        training_length_tokens=TRAINED.get(model),
        past_training_length=length > TRAINED.get(model, length),
    )
    return record.model_copy(update=more), rows


@dataclass(frozen=True)
class Run:
    """A run of every model, task and length."""

    lengths: Sequence[int] = (256, 512)
    models: Sequence[str] = ("mamba-130m",)
    tasks: Mapping[str, Truth] = field(default_factory=dict)
    loss: Truth | None = None
    speeds: Sequence[Speeds] = ()
    processes: int = 1
    unsupported: Mapping[str, int] = field(default_factory=dict)
    """By model, the longest length that it can run."""
    n_samples: int = 50
    out_of_memory: Mapping[str, int] = field(default_factory=dict)
    """By model, the longest prompt that it has memory for."""

    def table(self, **more: Any) -> LongTable:
        rows: dict[str, Sequence[Mapping[str, Any]]] = {}
        recall, losses = [], []
        for model in self.models:
            for length in self.lengths:
                fits = length <= self.unsupported.get(model, length)
                for task, truth in self.tasks.items():
                    if not fits:
                        recall.append(unsupported_recall(model, task, length, ENDS))
                        continue
                    one, found = recall_record(
                        model, task, length, truth(model, length), n_samples=self.n_samples
                    )
                    recall.append(one)
                    rows[one.fingerprint] = found
                if self.loss is not None:
                    other, found = loss_record(model, length, self.loss(model, length))
                    if fits:
                        rows[other.fingerprint] = found
                    else:
                        other = other.model_copy(
                            update={"status": "unsupported", "detail": ENDS, "metrics": ()}
                        )
                    losses.append(other)
        return build_long_table("a run", recall, losses, self.speed(), rows=rows, models=self.models, **more)

    def speed(self) -> SpeedTable | None:
        if not self.speeds:
            return None
        records = []
        for speeds in self.speeds:
            for length in self.lengths:
                at = point(speeds, length)
                if length > self.out_of_memory.get(speeds.name, length):
                    records.append(failed(at))
                else:
                    records += [
                        replicate(speeds, at, n, process_noise=0.02, repeat_noise=0.0)
                        for n in range(self.processes)
                    ]
        names = [name for name in ("mamba-130m", "pythia-160m") if any(s.name == name for s in self.speeds)]
        return build_speed_table("latency", "cost", records, [], sizes_by_name(*names), expected=())


def recalls(by_length: Mapping[int, float]) -> Truth:
    return lambda model, length: by_length[length]


def falling(until: int, high: float = 0.98, chance: float = 0.25) -> Truth:
    """Return recall that is near `high` up to a length and falls to chance by eight times that."""
    return lambda model, length: high - (high - chance) * min(1.0, max(0.0, math.log2(length / until) / 3))


def small() -> LongTable:
    """One model, one task, two lengths, nothing of cost."""
    return Run(tasks={"needle": recalls({256: 0.9, 512: 0.5})}, loss=lambda m, n: 3.0 - n / 2560).table()


MODELS = ("mamba-130m", "pythia-160m", "mamba-1.4b", "transformer-with-a-name-of-36-letters")
TEN = (
    "passkey", "needle", "multi_key", "multi_value", "multi_query", "variable_tracking", "frequent_words",
    "phone_book", "mqar", "selective_copying",
)  # fmt: skip


@cache
def usual() -> LongTable:
    """Two models, three tasks, five lengths, with loss and cost."""
    return Run(
        lengths=(256, 512, 1024, 2048, 4096),
        models=("mamba-130m", "pythia-160m"),
        tasks={
            "needle": _by_model({"mamba-130m": falling(512), "pythia-160m": falling(4096)}),
            "passkey": _by_model({"mamba-130m": falling(2048), "pythia-160m": falling(4096)}),
            "copying": lambda model, length: 0.25,
        },
        loss=_losses,
        speeds=(MAMBA, PYTHIA),
        processes=3,
    ).table()


def long(tasks: Sequence[str] = TEN) -> LongTable:
    """Four models, ten tasks, nine lengths; one has no path past 4,096, another no memory past 16,384."""
    ends = dict(zip(MODELS, (512, 2048, 4096, 8192), strict=True))

    def truth(task: int) -> Truth:
        if task in (6, 9):
            return lambda model, length: 0.25
        return lambda model, length: falling(max(128, ends[model] >> (task % 3)), 0.99 - 0.04 * task)(
            model, length
        )

    pythia = replace(PYTHIA, kv_bytes_per_token=73_728)
    big = replace(MAMBA, name="mamba-1.4b", prefill_s_per_token=0.01, token_s=0.3, state_bytes=12_000_000)
    other = replace(PYTHIA, name=MODELS[3], token_s=0.05, kv_bytes_per_token=200_000)
    return Run(
        lengths=tuple(2**i for i in range(8, 17)),
        models=MODELS,
        tasks={name: truth(i) for i, name in enumerate(TEN) if name in tasks},
        loss=_losses,
        speeds=(MAMBA, pythia, big, other),
        processes=3,
        unsupported={MODELS[3]: 4096},
        out_of_memory={"pythia-160m": 16384},
    ).table()


@cache
def wide() -> LongTable:
    """The same with two tasks, which draw in a fraction of the time."""
    return long(("passkey", "variable_tracking"))


CASES: dict[str, Callable[[], LongTable]] = {
    "small": small,
    "usual": usual,
    "wide": wide,
    "long": cache(long),
}


def _losses(model: str, length: int) -> float:
    base = 3.2 - 0.1 * MODELS.index(model)
    if model.startswith("mamba"):
        # Mamba's loss grows past the length that it was trained on.
        return base - 0.08 * min(3.0, math.log2(length / 256)) + 0.15 * max(0.0, math.log2(length / 4096))
    return base - 0.08 * math.log2(length / 256)


def _by_model(truths: Mapping[str, Truth]) -> Truth:
    return lambda model, length: truths[model](model, length)


def _quantile(share: float) -> float:
    """Return below which value 0.7 of one plus 0.3 of another uniform number lies so often."""
    grid = np.linspace(0, 1, 2001)
    # The sum of two uniform numbers of widths a and b has a trapezoid for a density.
    a, b = 0.7, 0.3
    total = (
        np.clip(grid, 0, None) ** 2 - np.clip(grid - a, 0, None) ** 2 - np.clip(grid - b, 0, None) ** 2
    ) / (2 * a * b)
    return float(np.interp(share, total, grid))


def _accuracy(values: Sequence[float]) -> MetricRecord:
    found = wilson(round(sum(values)), len(values))
    return _metric("accuracy", "fraction", float(np.mean(values)), found)


def _metric(name: str, unit: Any, value: float, interval: Any = None) -> MetricRecord:
    return MetricRecord(
        metric=name,
        value=value,
        unit=unit,
        interval_low=None if interval is None else interval.low,
        interval_high=None if interval is None else interval.high,
        n=1 if interval is None else interval.n,
    )


def _depths(rows: Sequence[Mapping[str, Any]], n_depths: int) -> list[DepthRecord]:
    found = []
    for part in range(n_depths):
        inside = [row["credit"] for row in rows if int(row["depth"] * n_depths) == part]
        if inside:
            ends = wilson(round(sum(inside)), len(inside))
            found.append(
                DepthRecord(
                    depth_low=part / n_depths,
                    depth_high=(part + 1) / n_depths,
                    n_questions=len(inside),
                    accuracy=float(np.mean(inside)),
                    interval_low=ends.low,
                    interval_high=ends.high,
                )
            )
    return found
