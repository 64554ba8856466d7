"""Requests of a task, and its score once they are answered: lm-eval's own metrics with our intervals."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from lm_eval.evaluator import evaluate

from mambabench.fingerprint import canonical_json
from mambabench.schema import MetricRecord
from mambabench.tasks.intervals import metric_interval

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from mambabench.tasks.lm_eval_backend import MambabenchLM


@dataclass(frozen=True)
class ChatOptions:
    """How prompts are dressed up for models trained on conversations."""

    apply_chat_template: bool = False
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = False


@dataclass(frozen=True)
class BuiltRequests:
    """What a task asks, in digest."""

    n_requests: int
    sha256: str
    """Over the type and the text of every request in order."""


@dataclass(frozen=True)
class TaskScore:
    """A task's metrics and scored items."""

    metrics: tuple[MetricRecord, ...]
    samples: list[dict[str, Any]]
    """lm-eval's samples: one a document and filter."""


def build_requests(
    task: Task, lm: MambabenchLM | None, *, limit: int | None, chat: ChatOptions
) -> BuiltRequests:
    """Build a task's requests and keep them on the task.

    Args:
        task: lm-eval's task with its data loaded.
        lm: renders conversations; needed with a chat template only.
        limit: documents to take from the front; null for all.
        chat: how prompts are dressed up.
    """
    task.build_all_requests(
        limit=limit,
        rank=0,
        world_size=1,
        system_instruction=chat.system_instruction,
        apply_chat_template=chat.apply_chat_template,
        fewshot_as_multiturn=chat.fewshot_as_multiturn,
        chat_template=lm.apply_chat_template if lm is not None and chat.apply_chat_template else None,
        tokenizer_name=lm.tokenizer_name if lm is not None and chat.apply_chat_template else "",
    )
    hasher = hashlib.sha256()
    for instance in task.instances:
        hasher.update(canonical_json([instance.request_type, list(instance.args)]).encode())
        hasher.update(b"\n")
    repeats = sum(instance.repeats or 1 for instance in task.instances)
    return BuiltRequests(repeats, hasher.hexdigest())


def score_task(name: str, task: Task, lm: MambabenchLM, *, limit: int | None, chat: ChatOptions) -> TaskScore:
    """Answer a task's requests, which must have been built, and compute its metrics.

    Args:
        name: lm-eval's name of the task.
        task: lm-eval's task, after `build_requests`.
        lm: answers the requests.
        limit: the number of documents that the requests were built with.
        chat: what the requests were built with.
    """
    with requests_as_built([task]):
        # Our own intervals replace lm-eval's bootstrap, which gives 0 at the ends of the scale and
        # takes minutes for perplexities.
        found = evaluate(
            lm=lm,
            task_dict={"tasks": {name: task}},
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=chat.apply_chat_template,
            system_instruction=chat.system_instruction,
            fewshot_as_multiturn=chat.fewshot_as_multiturn,
        )
    samples = found.pop("samples")[name]
    return TaskScore(_metrics(name, task, found, samples), samples)


@contextmanager
def requests_as_built(tasks: Iterable[Task]) -> Iterator[None]:
    """Let lm-eval's evaluation use the requests that are there instead of building them once more."""
    tasks = list(tasks)
    for task in tasks:
        for instance in task.instances:
            instance.resps = []
            instance.filtered_resps = {}
        task.build_all_requests = lambda **kwargs: None
    try:
        yield
    finally:
        for task in tasks:
            del task.build_all_requests


def _metrics(
    name: str, task: Task, found: dict[str, Any], samples: Sequence[dict[str, Any]]
) -> tuple[MetricRecord, ...]:
    values: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for sample in samples:
        for metric in sample["metrics"]:
            values[metric, sample["filter"]].append(sample[metric])
    better = found.get("higher_is_better", {}).get(name, {})
    records = []
    for (metric, filter_name), items in values.items():
        value = found["results"][name].get(f"{metric},{filter_name}")
        # numpy's 32-bit floats are real numbers, but no Python floats.
        if not isinstance(value, Real) or not math.isfinite(value):
            continue
        aggregation = getattr(task.aggregation().get(metric), "__name__", "")
        unit, interval = metric_interval(metric, aggregation, items)
        if interval is not None and not interval.determined:
            interval = None
        records.append(
            MetricRecord(
                metric=metric,
                filter=filter_name,
                value=float(value),
                unit=unit,
                interval_low=interval.low if interval else None,
                interval_high=interval.high if interval else None,
                interval_method=interval.method if interval else "",
                n=len(items),
                higher_is_better=bool(better.get(metric, True)),
            )
        )
    return tuple(records)
