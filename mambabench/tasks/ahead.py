"""The questions of several tasks asked together, before any task is scored.

lm-eval asks task by task. Asked together, tasks share prefixes and fill each other's batches; each task
finds its answers in the store afterwards.

    collector = Collector()
    lm = MambabenchLM.over(collector, tokenizer=tokenizer, max_length=2048)
    tables = [collect(task, lm, collector) for task in tasks]
    answerer.answer_all([t.questions for t in tables], [t.worth for t in tables])
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mambabench.scoring.questions import Questions
from mambabench.scoring.requests import GenerationRequest, LoglikelihoodAnswer, LoglikelihoodRequest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

    from mambabench.tasks.lm_eval_backend import MambabenchLM

_ASKED_AHEAD = ("loglikelihood", "loglikelihood_rolling")


@dataclass(frozen=True)
class TaskQuestions:
    """What a task asks, in token ids."""

    questions: Questions
    worth: tuple[int, ...]
    """What each counts for in the progress."""


class Collector:
    """Takes the place of an answerer, and keeps the questions instead of answering them."""

    def __init__(self) -> None:
        self._tables: list[Questions] = []
        self._worth: list[int] = []

    def loglikelihoods(
        self, asked: Sequence[LoglikelihoodRequest], worth: Sequence[int]
    ) -> list[LoglikelihoodAnswer]:
        """Keep log-likelihood requests."""
        self._tables.append(Questions.of(asked))
        self._worth += worth
        return [LoglikelihoodAnswer(0.0, False) for _ in asked]

    def texts(self, asked: Sequence[GenerationRequest]) -> list[str]:
        """Answer nothing: texts are not generated ahead."""
        return ["" for _ in asked]

    def take(self) -> TaskQuestions:
        """Return what was kept, and begin anew."""
        taken = TaskQuestions(Questions.concat(self._tables), tuple(self._worth))
        self._tables, self._worth = [], []
        return taken


def collect(task: Task, lm: MambabenchLM, collector: Collector) -> TaskQuestions:
    """Return the log-likelihood requests that lm-eval is going to make for a task.

    Args:
        task: lm-eval's task, after its requests were built.
        lm: over `collector`.
        collector: empty.
    """
    by_type: dict[str, list[Instance]] = defaultdict(list)
    for instance in task.instances:
        by_type[instance.request_type] += [instance] * (instance.repeats or 1)
    for request_type in _ASKED_AHEAD:
        if by_type[request_type]:
            getattr(lm, request_type)(by_type[request_type])
    return collector.take()
