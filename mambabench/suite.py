"""Suites: which tasks to run, and which metric of each to read.

A suite is a YAML file, shipped (`mambabench suites` lists those) or the user's own. It is checked as a
whole, against the index of lm-eval's tasks, and all its mistakes are reported at once.

    name: mine                 # default: the file's name
    title: Two tasks           # default: the name
    reference: mamba           # source of published figures, or several in order of preference
    tasks:
      - hellaswag              # every metric of the task
      - task: mmlu             # a group is pooled over its members' items
        metrics: [acc]         # the first one is the headline
        num_fewshot: 5
        label: MMLU
        chance: {acc: 0.25}

>>> [task.task for task in load_suite("mamba-paper").tasks][:2]
['lambada_openai', 'hellaswag']
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mambabench.errors import ConfigError
from mambabench.fingerprint import digest
from mambabench.schema import Record
from mambabench.suite_check import SuiteChecker
from mambabench.suite_file import declared_kind, read_suite, require_kind, shipped
from mambabench.taskindex import TaskIndex

_MOST_NAMED = 3
_EXAMPLE = "For example: `tasks: [hellaswag, {task: arc_easy, metrics: [acc]}]`."


class SuiteTask(Record):
    """One task or group of a suite."""

    task: str
    """lm-eval's name."""
    metrics: tuple[str, ...]
    """Metrics that are read; the first one is the headline."""
    num_fewshot: int | None = None
    """Worked examples in each prompt; null leaves it to the task."""
    label: str | None = None
    """Name in tables; null for the task's own."""
    chance: dict[str, float] | None = None
    """What guessing gives, in lm-eval's unit, by metric."""


class Suite(Record):
    """A named list of tasks with the metrics to read."""

    name: str
    title: str
    description: str = ""
    kind: Literal["zeroshot"] = "zeroshot"
    reference: tuple[str, ...] = ()
    """Sources of published figures in order of preference."""
    tasks: tuple[SuiteTask, ...]
    sha256: str
    """Digest of what is run and read: titles, labels and comments do not change it."""
    path: Path | None = None
    """The file; null for a suite made of `--task` options."""


def load_suite(name_or_path: str | Path, *, index: TaskIndex | None = None) -> Suite:
    """Load a shipped suite by name, or any suite by path.

    Args:
        name_or_path: a path if it ends in .yaml or .yml or holds a path separator, otherwise a name.
        index: tasks to check against; by default those of the installed lm-eval.

    Raises:
        UnknownNameError: for a name that is not shipped, with the closest ones.
        UsageError: for a file that cannot be read, or a suite that another command runs.
        ConfigError: with every mistake in the file.
    """
    content, path = read_suite(name_or_path)
    require_kind(content, name_or_path, ["zeroshot"])
    return _parse(content, path, index or TaskIndex.load())


def list_suites() -> list[Suite]:
    """Return the shipped suites of tasks by name."""
    index = TaskIndex.load()
    names = [name for name in shipped() if declared_kind(read_suite(name)[0]) == "zeroshot"]
    return [load_suite(name, index=index) for name in names]


def suite_from_tasks(tasks: Sequence[str], *, num_fewshot: int | None = None) -> Suite:
    """Return a suite of the given tasks, each with all of its metrics, first the one it lists first.

    Raises:
        UnknownNameError: for a single unknown task, with the closest ones.
        ConfigError: for several mistakes.
    """
    index = TaskIndex.load()
    if len(tasks) == 1:
        index.get(tasks[0])
    document = {
        "tasks": [
            {"task": t} if num_fewshot is None else {"task": t, "num_fewshot": num_fewshot} for t in tasks
        ]
    }
    checker = SuiteChecker(index)
    plain = checker.check(document, default_name="tasks")
    if checker.mistakes:
        raise ConfigError(
            "--task", checker.mistakes, hint="A suite file can name metrics and examples task by task."
        )
    more = len(tasks) - _MOST_NAMED
    name = "+".join(tasks[:_MOST_NAMED]) + (f"+{more}-more" if more > 0 else "")
    return _suite({**plain, "name": re.sub(r"[^\w.+-]", "_", name), "title": ", ".join(tasks)}, None)


def _parse(content: str, path: Path, index: TaskIndex) -> Suite:
    return _suite(SuiteChecker(index).read(content, path, example=_EXAMPLE), path)


def _suite(plain: dict[str, object], path: Path | None) -> Suite:
    suite = Suite.model_validate({**plain, "path": path, "sha256": ""})
    asked = [[t.task, list(t.metrics), t.num_fewshot] for t in suite.tasks]
    return suite.model_copy(update={"sha256": digest({"kind": suite.kind, "tasks": asked})})
