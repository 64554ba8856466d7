"""Runs of every kind of task with chosen words, aligned, for tests of what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scored_runs import Samples, accuracy, hashed, stored_run, task_record

from mambabench.compare.align import aligned_tasks
from mambabench.compare.items import AlignedTask
from mambabench.compare.result import CompareOptions
from mambabench.compare.sources import parse_given, sides_of
from mambabench.schema import MetricRecord, ReadRecord


def sampled(doc_id: int, arguments: Any, target: Any, resps: Any, **metrics: float) -> dict[str, Any]:
    """One of lm-eval's samples; `resps` holds the first answer to each request."""
    return {
        "doc_id": doc_id,
        "doc": {"n": doc_id},
        "target": target,
        "arguments": arguments,
        "resps": [[answer] for answer in resps],
        "filtered_resps": resps,
        "filter": "none",
        "doc_hash": hashed(str(doc_id)),
        "prompt_hash": hashed(str(arguments[0][0])),
        "target_hash": hashed(str(target)),
        "metrics": list(metrics),
        **metrics,
    }


def chosen(
    doc_id: int, question: str, choices: Sequence[str], right: int, likelihoods: Sequence[float]
) -> dict[str, Any]:
    """A multiple-choice item with lm-eval's acc and acc_norm."""
    scores = np.array(likelihoods, float)
    lengths = np.array([len(choice) for choice in choices], float)
    return sampled(
        doc_id,
        [(question, f" {choice}") for choice in choices],
        right,
        [(float(score), False) for score in scores],
        acc=float(int(scores.argmax()) == right),
        acc_norm=float(int((scores / lengths).argmax()) == right),
    )


def aligned_runs(
    root: Path,
    sides: Sequence[Mapping[str, Samples]],
    *,
    metrics: Sequence[str] = ("acc",),
    group: str = "",
    output_type: str = "multiple_choice",
    records: Sequence[Sequence[MetricRecord]] = (),
) -> list[AlignedTask]:
    """Store one run a side and lay them side by side.

    Args:
        root: a new directory.
        sides: samples by task.
        metrics: read, the headline first.
        group: of which all tasks are members, if there is one.
        output_type: lm-eval's, of all tasks.
        records: of the metrics of each side's only task, where these are no accuracies.
    """
    given = []
    for number, tasks in enumerate(sides):
        run = stored_run(
            root / str(number),
            f"side-{number}",
            tasks,
            records={
                task: task_record(task, len(samples), group=group, output_type=output_type)
                for task, samples in tasks.items()
            },
            metrics={
                task: records[number] if records else [accuracy(samples, metric) for metric in metrics]
                for task, samples in tasks.items()
            },
            reads=tuple(
                ReadRecord(task=task, metrics=tuple(metrics)) for task in ([group] if group else tasks)
            ),
        )
        given.append(parse_given(str(run)))
    return aligned_tasks(sides_of(given), CompareOptions())[0]
