"""Build a suite's tasks with their data before any weights are read.

lm-eval builds the tasks from its own YAML, but reads only the folders that the suite needs and gets its
rows from here: from files, from the package, or from the Hub. Every split that is needed and missing is
reported at once, before lm-eval is imported.

    tasks = prepare(load_suite("mamba-paper").tasks, data_dir=Path("eval-data"))
    tasks[0].task.build_all_requests(limit=10, rank=0, world_size=1)
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambabench.errors import ExtraMissingError, MambabenchError, UsageError
from mambabench.schema import DataFileRecord, TaskRecord
from mambabench.taskindex import TaskEntry, TaskIndex
from mambabench.tasks.quiet import quiet
from mambabench.tasks.sources import DataSource
from mambabench.tasks.supported import require_task, require_yaml

if TYPE_CHECKING:
    from mambabench.suite import SuiteTask
    from mambabench.tasks.serving import Served

FEWSHOT_SEED = 1234
"""lm-eval's default, so that few-shot prompts are the ones it would make."""


@dataclass(frozen=True)
class PreparedTask:
    """One task of lm-eval, ready to build its requests."""

    task: Any
    """lm-eval's `Task` with its rows loaded. Building its requests twice gives the same requests."""
    name: str
    """lm-eval's name."""
    entry: TaskEntry
    data: tuple[DataFileRecord, ...]
    """The splits that results depend on."""
    n_docs_total: int
    """Documents of the scored split."""
    group: str
    """The suite's group or tag that it is a member of; "" if the suite names the task itself."""
    record: TaskRecord
    """All fields but `requests_sha256` are filled in; `n_docs` counts what `limit` leaves."""


def prepare(
    suite_tasks: Sequence[SuiteTask],
    *,
    index: TaskIndex | None = None,
    data_dir: Path | None = None,
    limit: int | None = None,
) -> list[PreparedTask]:
    """Build the tasks of a suite, groups and tags as their members.

    Args:
        suite_tasks: tasks in order; `num_fewshot` overrides the YAML unless that fixes it to 0.
        index: known tasks; by default those of the installed lm-eval.
        data_dir: directory of data sets as files; null for the Hub and its cache.
        limit: documents a task that will be scored; enters `record.n_docs` only.

    Raises:
        DataMissingError: naming every missing data set and where it was looked for.
        UsageError: when a file is damaged or lacks a column, naming it; when a task needs more than text,
            or has not the metrics that the suite reads.
        ExtraMissingError: when a task needs a package that is not installed.
    """
    index = index or TaskIndex.load()
    require_yaml(_leaves(suite_tasks, index), index)
    source = DataSource(data_dir)
    if missing := source.find_missing(_wanted(suite_tasks, index)):
        raise source.error(missing)
    with quiet():
        return _build_all(suite_tasks, index, source, limit)


def require_files(suite_tasks: Sequence[SuiteTask], *, data_dir: Path | None = None) -> None:
    """Find out from file names alone, in milliseconds, which data sets a directory lacks.

    What comes from the Hub is passed over: `prepare` asks for it.

    Raises:
        DataMissingError: naming every missing data set and where it was looked for.
        UsageError: when the directory does not exist, or a task needs more than text.
    """
    index = TaskIndex.load()
    require_yaml(_leaves(suite_tasks, index), index)
    source = DataSource(data_dir)
    if missing := source.find_missing(_wanted(suite_tasks, index), files_only=True):
        raise source.error(missing)


def _leaves(suite_tasks: Sequence[SuiteTask], index: TaskIndex) -> list[str]:
    return [leaf for task in suite_tasks for leaf in index.leaves(task.task)]


def _wanted(suite_tasks: Sequence[SuiteTask], index: TaskIndex) -> list[tuple[TaskEntry, int]]:
    """Return each task of a suite with its number of worked examples."""
    return [
        (entry, _shots(entry.num_fewshot, task.num_fewshot))
        for task in suite_tasks
        for entry in map(index.get, index.leaves(task.task))
    ]


def _shots(in_yaml: int | None, asked: int | None) -> int:
    """Return how many worked examples a prompt gets, by lm-eval's rule that a written 0 stays 0."""
    return in_yaml or 0 if asked is None or in_yaml == 0 else asked


def _build_all(
    suite_tasks: Sequence[SuiteTask], index: TaskIndex, source: DataSource, limit: int | None
) -> list[PreparedTask]:
    from lm_eval.tasks import TaskManager

    from mambabench.tasks.serving import compile_templates_once

    compile_templates_once()
    folders = index.folders(task.task for task in suite_tasks)
    manager = TaskManager(include_defaults=False, include_path=[str(f) for f in folders])
    prepared = []
    for suite_task in suite_tasks:
        for name, task, served in _build(manager, suite_task, source):
            entry = index.get(name) if name in index else index.get(suite_task.task)
            group = "" if name == suite_task.task else suite_task.task
            prepared.append(_prepared(name, task, entry, group, served, limit))
    return prepared


def _build(
    manager: Any, suite_task: SuiteTask, source: DataSource
) -> Iterator[tuple[str, Any, Served | None]]:
    """Yield (name, task, its rows) of one suite task's members."""
    from mambabench.tasks.serving import Server, make_repeatable

    for everything in (False, True):
        server = Server(
            source, lambda in_yaml: _shots(in_yaml, suite_task.num_fewshot), everything=everything
        )
        try:
            with server.serving():
                tasks = manager.load([suite_task.task])["tasks"]
            break
        except MambabenchError:
            raise
        except Exception as error:
            # Splits that are not needed are left empty at first; a task may want them all the same.
            if everything or not server.left_empty:
                raise _explained(error, suite_task.task, server.last) from error
    for name, task in tasks.items():
        require_task(name, task, suite_task.metrics)
        served = server.served(task)
        task.set_config("num_fewshot", _shots(task.get_config("num_fewshot"), suite_task.num_fewshot))
        task.set_fewshot_seed(FEWSHOT_SEED)
        make_repeatable(task, FEWSHOT_SEED, functools.partial(_explained_row, task, name, served))
        _try_fewshot(name, task, served)
        yield name, task, served


def _try_fewshot(name: str, task: Any, served: Served | None) -> None:
    """Write the first document's prompt: what is wrong with the examples shows here, not an hour later."""
    if not (num_fewshot := task.get_config("num_fewshot")):
        return
    try:
        task.fewshot_context(task.eval_docs[0], num_fewshot=num_fewshot)
    except Exception as error:
        raise _explained(error, name, served) from error


def _prepared(
    name: str, task: Any, entry: TaskEntry, group: str, served: Served | None, limit: int | None
) -> PreparedTask:
    from mambabench.tasks.serving import made_record
    from mambabench.tasks.task_config import config_sha256

    docs = task.eval_docs
    n_docs_total = len(docs)
    data = served.records() if served is not None else (made_record(task, docs),)
    record = TaskRecord(
        task=name,
        group=group,
        version=str(task.VERSION),
        config_sha256=config_sha256(task),
        output_type=str(task.OUTPUT_TYPE),
        n_fewshot=task.get_config("num_fewshot") or 0,
        n_docs=n_docs_total if limit is None else min(limit, n_docs_total),
        n_docs_total=n_docs_total,
        requests_sha256="",
        data=data,
    )
    return PreparedTask(task, name, entry, data, n_docs_total, group, record)


def _explained(error: Exception, name: str, served: Served | None, *, where: str = "") -> MambabenchError:
    """Turn what went wrong inside lm-eval into one line about the task and its files."""
    name = served.task_name if served is not None else name
    if isinstance(error, ImportError):
        if error.name is None:
            return ExtraMissingError(f"task '{name}' needs a package that is missing: {_reason(error)}")
        return ExtraMissingError(
            f"task '{name}' needs the package '{error.name}'", hint=f"Install it: pip install {error.name}."
        )
    if served is None or not served.records():
        reason = (str(error).splitlines() or [""])[0]
        return UsageError(f"task '{name}' cannot be built ({type(error).__name__}: {reason})")
    files = ", ".join(record.name for record in served.records())
    columns = ", ".join(served.columns())
    return UsageError(
        f"task '{name}' cannot read the rows of {files}: {where}{_reason(error)}; the columns are {columns}",
        hint=f"They must be those of the Hub's data set {served.dataset_path}.",
    )


def _explained_row(task: Any, name: str, served: Served | None, error: Exception) -> MambabenchError:
    """Say which document's prompt could not be written, looking for it only now that one could not."""
    for number, doc in enumerate(task.eval_docs, 1):
        try:
            task.doc_to_text(doc)
            task.doc_to_target(doc)
            if task.get_config("doc_to_choice") is not None:
                task.doc_to_choice(doc)
        except Exception as here:
            return _explained(here, name, served, where=f"document {number}: ")
    return _explained(error, name, served)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no column {error}"
    return (str(error).splitlines() or [type(error).__name__])[0]
