"""Refuse the tasks that cannot be run here, and metrics that a task does not have.

The YAML tells most of it before any row is looked for; what a task's Python class decides is known only
once the task is built.

    require_yaml(["humaneval"], index)      # UsageError: it runs the code that a model writes
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from mambabench.errors import UnknownNameError, UsageError
from mambabench.taskindex import TaskIndex
from mambabench.taskindex_build import read_yaml


def require_yaml(names: Iterable[str], index: TaskIndex) -> None:
    """Read the YAML of tasks for what is not supported.

    Args:
        names: of tasks, not of groups.
        index: where their files are found; one that cannot be read is left to lm-eval.

    Raises:
        UsageError: naming the first such task, and why.
    """
    cache: dict[Any, dict[str, Any]] = {}
    for name in names:
        entry = index.get(name)
        try:
            config = read_yaml(index.folder_path(entry) / entry.yaml, cache)
        except (OSError, ValueError, yaml.YAMLError):
            continue
        _refuse(
            name,
            # As lm-eval reads it: anything but a written false.
            runs_code=config.get("unsafe_code", False) is not False,
            shows_more_than_text=config.get("doc_to_image") is not None or bool(config.get("doc_to_audio")),
        )


def require_task(name: str, task: Any, metrics: Sequence[str]) -> None:
    """Ask a built task itself.

    Args:
        name: for messages.
        task: lm-eval's.
        metrics: that will be read from its results.

    Raises:
        UsageError: it runs generated code or shows images or sounds.
        UnknownNameError: it has not all of the metrics.
    """
    _refuse(
        name,
        runs_code=bool(getattr(task, "UNSAFE_CODE", False)),
        shows_more_than_text=bool(getattr(task, "MULTIMODAL", False)),
    )
    # A metric written as a function is kept as one where the task processes its own results.
    known = [getattr(metric, "__name__", metric) for metric in task.aggregation()]
    if unknown := [metric for metric in metrics if metric not in known]:
        listed = ", ".join(f"'{metric}'" for metric in unknown)
        raise UnknownNameError(
            f"task '{name}' has no metric {listed}, it has {', '.join(known)}",
            hint="Change 'metrics' in the suite.",
        )


def _refuse(name: str, *, runs_code: bool, shows_more_than_text: bool) -> None:
    if runs_code:
        why = "runs the code that a model writes (code execution)"
    elif shows_more_than_text:
        why = "shows a model images or sounds"
    else:
        return
    raise UsageError(f"task '{name}' {why}, which is not supported", hint="Leave it out.")
