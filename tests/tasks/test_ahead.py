"""Questions of several tasks asked together: the ones that lm-eval asks, answered as if asked alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import tiny_mamba
from tasks.rows import write_rows

from mambabench.models.load import check, load
from mambabench.registry import resolve
from mambabench.scoring.requests import LoglikelihoodAnswer, LoglikelihoodRequest
from mambabench.suite import suite_from_tasks
from mambabench.tasks.ahead import Collector, TaskQuestions, collect
from mambabench.tasks.answering import Answerer, AnswersMissingError, MemoryAnswers
from mambabench.tasks.evaluate import ChatOptions, build_requests, score_task
from mambabench.tasks.lm_eval_backend import MambabenchLM
from mambabench.tasks.offline import PreparedTask, prepare

NAMES = ["hellaswag", "arc_easy", "lambada_openai", "wikitext"]


class Recording(Answerer):
    """Remembers the keys that it is asked for."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.keys: list[str] = []

    def loglikelihoods(
        self, asked: Sequence[LoglikelihoodRequest], worth: Sequence[int]
    ) -> list[LoglikelihoodAnswer]:
        self.keys += [r.key for r in asked]
        return super().loglikelihoods(asked, worth)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tiny_mamba(tmp_path_factory.mktemp("m") / "m")
    return load(check(resolve(str(path)), device="cpu", max_length=64))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedTask]:
    data: Path = write_rows(tmp_path_factory.mktemp("data"))
    tasks = prepare(suite_from_tasks(NAMES).tasks, data_dir=data)
    for task in tasks:
        build_requests(task.task, None, limit=None, chat=ChatOptions())
    return tasks


def over(answerer: Any, model: Any) -> MambabenchLM:
    return MambabenchLM.over(answerer, tokenizer=model.tokenizer, max_length=model.max_length)


@pytest.fixture(scope="module")
def tables(model: Any, prepared: list[PreparedTask]) -> list[TaskQuestions]:
    collector = Collector()
    lm = over(collector, model)
    return [collect(p.task, lm, collector) for p in prepared]


def test_what_is_collected_is_what_lm_eval_asks(
    model: Any, prepared: list[PreparedTask], tables: list[TaskQuestions]
) -> None:
    for task, table in zip(prepared, tables, strict=True):
        answerer = Recording(MemoryAnswers(), model)
        score_task(task.name, task.task, over(answerer, model), limit=None, chat=ChatOptions())
        assert list(table.questions.keys) == answerer.keys
        assert sum(table.worth) == len(task.task.instances)


def test_asked_together_each_task_finds_its_answers(
    model: Any, prepared: list[PreparedTask], tables: list[TaskQuestions]
) -> None:
    done: list[int] = []
    answers = MemoryAnswers()
    together = Answerer(answers, model, advance=done.append)
    found = together.answer_all([t.questions for t in tables], [t.worth for t in tables])
    assert sum(done) == sum(len(p.task.instances) for p in prepared)
    assert sum(f.tokens_forwarded for f in found) == together.tokens_forwarded > 0
    assert [f.n_answered_before for f in found] == [0] * len(tables)
    for task in prepared:
        ahead = score_task(
            task.name, task.task, over(Answerer(answers), model), limit=None, chat=ChatOptions()
        )
        alone = score_task(
            task.name,
            task.task,
            over(Answerer(MemoryAnswers(), model), model),
            limit=None,
            chat=ChatOptions(),
        )
        for a, b in zip(ahead.metrics, alone.metrics, strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-5)


def test_what_is_stored_is_not_forwarded_again(model: Any, tables: list[TaskQuestions]) -> None:
    answers = MemoryAnswers()
    first, second = tables[0], tables[1]
    Answerer(answers, model).answer_all([first.questions], [first.worth])
    again = Answerer(answers, model)
    found = again.answer_all([first.questions, second.questions], [first.worth, second.worth])
    assert found[0].n_answered_before == len(first.questions)
    assert found[1].n_answered_before == 0
    assert Answerer(answers).answer_all([second.questions], [second.worth])[0].tokens_forwarded == 0
    with pytest.raises(AnswersMissingError):
        Answerer(answers).answer_all([tables[2].questions], [tables[2].worth])


def test_questions_of_two_tasks_are_answered_and_counted_once(
    model: Any, tables: list[TaskQuestions]
) -> None:
    table = tables[0]
    answerer = Answerer(MemoryAnswers(), model)
    found = answerer.answer_all([table.questions, table.questions], [table.worth, table.worth])
    assert found[0].tokens_forwarded == answerer.tokens_forwarded
    assert found[1].tokens_forwarded == 0
