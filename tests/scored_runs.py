"""Stored runs with chosen answers, as `mambabench zeroshot` leaves them, without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stored import manifest

from mambabench.fingerprint import digest
from mambabench.schema import CellRecord, MetricRecord, ReadRecord, TaskRecord
from mambabench.stats.intervals import wilson
from mambabench.store import Store

Samples = list[dict[str, Any]]


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def choice_samples(
    log_likelihoods: Any, right: Sequence[int], *, prompt: str = "Question {}?", **document: Any
) -> Samples:
    """Samples of a multiple-choice task with acc; a list among `document` gives each item its own value."""
    samples = []
    for i, (scores, at) in enumerate(zip(np.asarray(log_likelihoods, float), right, strict=True)):
        doc = {"n": i, **{k: v[i] if isinstance(v, list) else v for k, v in document.items()}}
        asked = prompt.format(i)
        samples.append(
            {
                "doc_id": i,
                "doc": doc,
                "target": int(at),
                "arguments": [(asked, f" choice {j}") for j in range(len(scores))],
                "resps": [[(float(score), False)] for score in scores],
                "filtered_resps": [(float(score), False) for score in scores],
                "filter": "none",
                "metrics": ["acc"],
                "doc_hash": hashed(json.dumps(doc)),
                "prompt_hash": hashed(asked),
                "target_hash": hashed(str(at)),
                "acc": float(int(np.argmax(scores)) == at),
            }
        )
    return samples


def task_record(task: str, n: int, **changes: Any) -> TaskRecord:
    fields: dict[str, Any] = {
        "task": task,
        "version": "1",
        "config_sha256": digest(task),
        "output_type": "multiple_choice",
        "n_fewshot": 0,
        "n_docs": n,
        "n_docs_total": n,
        "requests_sha256": "1",
        "data": (),
    }
    return TaskRecord(**{**fields, **changes})


def accuracy(samples: Samples, metric: str = "acc") -> MetricRecord:
    right = sum(int(sample[metric]) for sample in samples)
    interval = wilson(right, len(samples))
    return MetricRecord(
        metric=metric, value=right / len(samples), unit="fraction", interval_low=interval.low,
        interval_high=interval.high, interval_method="wilson", n=len(samples),
    )  # fmt: skip


def stored_run(
    root: Path,
    model: str,
    tasks: Mapping[str, Samples],
    *,
    records: Mapping[str, TaskRecord] | None = None,
    metrics: Mapping[str, Sequence[MetricRecord]] | None = None,
    **changes: Any,
) -> Path:
    """Write a run of one model; return its directory.

    Args:
        root: directory of runs.
        model: its name.
        tasks: samples by lm-eval's task; none for a task of which only values are known.
        records: of tasks that are not as `task_record` makes them.
        metrics: of tasks whose metrics are not `acc` alone.
        changes: fields of the manifest.
    """
    fields: dict[str, Any] = {
        "models": (model,),
        "suite": "made-up",
        "identity": digest([model, str(root), sorted(tasks)]),
        "reads": tuple(ReadRecord(task=task, metrics=("acc",)) for task in tasks),
    }
    with Store(root).open_run(manifest(f"zeroshot-{model}", **{**fields, **changes})) as run:
        for task, samples in tasks.items():
            record = (records or {}).get(task) or task_record(task, len(samples))
            run.write_cell(
                CellRecord(
                    fingerprint=digest([model, task]),
                    checkpoint_fingerprint=digest(model),
                    model=model,
                    task=record,
                    status="ok",
                    partial=record.n_docs < record.n_docs_total,
                    metrics=tuple((metrics or {}).get(task) or [accuracy(samples)]),
                ),
                samples,
            )
        return run.path


def drawn(n: int, *, seed: int = 0, skill: float = 1.0, n_choices: int = 4) -> tuple[Any, list[int]]:
    """Draw log-likelihoods [n, n_choices], the right choice's raised by `skill`, and the right choices."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, n_choices, n)
    scores = -rng.exponential(3.0, (n, n_choices)) - 0.1
    scores[np.arange(n), right] += skill
    return scores, [int(at) for at in right]
