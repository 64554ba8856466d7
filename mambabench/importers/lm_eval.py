"""lm-eval 0.4: results files with or without samples beside them, to cells.

    found = read_lm_eval(detect([Path("output")]).files, ReadOptions())
    found.cells[0].metrics

Of several results of one model on one task the latest is taken. Groups' own values are not taken: their tasks
are, and those of a group that is pooled by the number of items carry its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mambabench.errors import UsageError
from mambabench.fingerprint import digest
from mambabench.importers.columns import Columns, Stated, aggregations_of, metric_records, read_columns
from mambabench.importers.detect import ResultsFile, only_tasks
from mambabench.importers.found import FoundCell
from mambabench.importers.groups import groups_of
from mambabench.importers.models import Loaded, arguments_of, named
from mambabench.importers.samples import SamplesFile
from mambabench.importers.totals import n_behind
from mambabench.progress import Progress, progress
from mambabench.references import n_items
from mambabench.schema import TaskRecord

_ERROR: Final = "_stderr"
_MEGABYTE: Final = 1_000_000
_NOT_ASKED: Final = {"task_alias", "tag", "group", "metadata"}
"""Keys of a task's configuration that change neither what is asked nor how it is scored."""


@dataclass(frozen=True)
class ReadOptions:
    """What of the files is imported."""

    tasks: tuple[str, ...] = ()
    """All if empty."""
    time: str = ""
    """Only results files whose time begins so."""
    samples: bool = True


@dataclass(frozen=True)
class Found:
    """What all files hold."""

    cells: tuple[FoundCell, ...]
    limit: int | None
    version: str
    """Of lm-eval; several stand behind each other."""
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """One task in one results file."""

    file: ResultsFile
    task: str
    model: str
    checkpoint: str
    group: str
    samples: Path | None

    @property
    def config(self) -> Mapping[str, Any]:
        found = self.file.content.get("configs", {}).get(self.task)
        return found if isinstance(found, dict) else {}

    def of_task(self, key: str) -> Any:
        """Return what a table of tasks in the results file says of this one."""
        table = self.file.content.get(key)
        return table.get(self.task) if isinstance(table, dict) else None


def read_lm_eval(files: Sequence[ResultsFile], options: ReadOptions) -> Found:
    """Read results files, oldest first, and check their samples.

    Raises:
        UsageError: a file is damaged or two do not belong together; before any cell is returned.
        UnknownNameError: a task is asked for that no file has.
    """
    files = _of_time(files, options.time)
    wanted = only_tasks((t for f in files for t in _tasks(f)), options.tasks)
    entries, remarks = _latest(_entries(files, wanted, options))
    cells = []
    with progress(_megabytes(entries), "reading samples", unit="MB") as bar:
        advance = _in_megabytes(bar)
        for entry in entries:
            bar.stage(f"{entry.model}  {entry.task}")
            cell, said = _cell(entry, advance)
            cells.append(cell)
            remarks += said
    limits = {_limit(e.file) for e in entries}
    versions = dict.fromkeys(str(f.content.get("lm_eval_version") or "") for f in files)
    return Found(
        tuple(cells),
        limits.pop() if len(limits) == 1 else None,
        ", ".join(v for v in versions if v),
        tuple(dict.fromkeys(remarks)),
    )


def _megabytes(entries: Sequence[_Entry]) -> int:
    """Return the size of all samples; a file that is gone meets its error when it is read."""
    sizes = [e.samples.stat().st_size for e in entries if e.samples is not None and e.samples.is_file()]
    return sum(sizes) // _MEGABYTE + 1


def _in_megabytes(bar: Progress) -> Callable[[int], None]:
    read = 0

    def advance(n_bytes: int) -> None:
        nonlocal read
        before, read = read // _MEGABYTE, read + n_bytes
        if (whole := read // _MEGABYTE - before) > 0:
            bar.advance(whole)

    return advance


def _of_time(files: Sequence[ResultsFile], time: str) -> list[ResultsFile]:
    found = [f for f in files if f.time.startswith(time)]
    if not found:
        times = sorted({f.time for f in files})
        raise UsageError(
            f"no results file is of the time {time}",
            hint=f"There are {', '.join(t or 'none' for t in times)}.",
        )
    return found


def _tasks(file: ResultsFile) -> list[str]:
    """Return a file's tasks that have a value; groups are none."""
    configs = file.content.get("configs") or {}
    subtasks = file.content.get("group_subtasks") or {}
    names = []
    for name, entry in file.content["results"].items():
        is_group = name not in configs if configs else bool(subtasks.get(name))
        if not is_group and any("," in key for key in entry):
            names.append(name)
    if not names:
        raise UsageError(
            f"{file.path} holds no task with a value", hint="Leave it out, or evaluate the tasks again."
        )
    return names


def _entries(files: Sequence[ResultsFile], wanted: set[str], options: ReadOptions) -> Iterator[_Entry]:
    models = [_loaded(file) for file in files]
    for file, model, name in zip(files, models, named(models), strict=True):
        tasks = _tasks(file)
        beside = _samples_beside(file, tasks) if options.samples else {}
        groups = groups_of(file.content, tasks)
        for task in tasks:
            if task in wanted:
                yield _Entry(file, task, name, model.key, groups.get(task, ""), beside.get(task))


def _loaded(file: ResultsFile) -> Loaded:
    config = file.content.get("config")
    config = config if isinstance(config, dict) else {}
    return Loaded(
        source=str(config.get("model") or file.content.get("model_source") or ""),
        arguments=arguments_of(config.get("model_args")),
        fingerprint=str(config.get("model_fingerprint") or ""),
        fallback=str(file.content.get("model_name") or ""),
    )


def _samples_beside(file: ResultsFile, tasks: Sequence[str]) -> dict[str, Path]:
    """Return the samples files that were written with a results file.

    Raises:
        UsageError: one of them is of a task that the results do not have.
    """
    folder = file.path.parent
    found: dict[str, Path] = {}
    if file.stamp:
        for path in sorted(folder.glob(f"samples_*_{file.stamp}.json*")):
            task = path.stem.removeprefix("samples_").removesuffix(f"_{file.stamp}")
            if task not in tasks:
                raise UsageError(
                    f"{path} holds samples of {task}, which {file.path.name} does not have",
                    hint="Take the file away, or copy the results file that was written with it.",
                )
            found[task] = path
        return found
    config = file.content.get("config")
    told = config.get("model_args") if isinstance(config, dict) else ""
    before = re.sub("/|=", "__", told) if isinstance(told, str) else ""
    for task in tasks:
        for path in (folder / f"{before}_{task}.jsonl", folder / f"samples_{task}.jsonl"):
            if path.is_file():
                found.setdefault(task, path)
    return found


def _latest(entries: Iterator[_Entry]) -> tuple[list[_Entry], list[str]]:
    """Return the latest entry of each model and task, in the order in which tasks first appear."""
    kept: dict[tuple[str, str], _Entry] = {}
    older: dict[str, list[_Entry]] = {}
    for entry in entries:
        before = kept.get((entry.model, entry.task))
        if before is not None:
            if entry.file.time == before.file.time:
                raise UsageError(
                    f"{before.file.path} and {entry.file.path} both hold {entry.model} on {entry.task}, and "
                    "neither is the later",
                    hint="Import one of them.",
                )
            older.setdefault(str(before.file.path), []).append(before)
        kept[entry.model, entry.task] = entry
    remarks = [
        f"{path} holds older results of {gone[0].model} on {_listed([e.task for e in gone])}, left out "
        "(`--time` takes others)"
        for path, gone in older.items()
    ]
    return list(kept.values()), remarks


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _cell(entry: _Entry, advance: Callable[[int], None]) -> tuple[FoundCell, list[str]]:
    stated, said = _stated(entry)
    output_type = str(entry.config.get("output_type") or "")
    filters = list(dict.fromkeys(one.filter for one in stated))
    samples: SamplesFile | None = None
    columns: Columns | None = None
    if entry.samples is not None:
        names = tuple(dict.fromkeys(one.metric for one in stated))
        samples = SamplesFile(entry.samples, entry.task, filters, names, output_type)
        columns = read_columns(samples, advance)
        _check_count(entry, columns)
    n = columns.n_docs if columns is not None else _n_without_samples(entry, stated)
    version = entry.of_task("versions")
    original, limit = _counts(entry)[0], _limited(entry.file)
    published = n_items(entry.task) if limit else None
    n_total = original or max(n or 0, published or 0)
    where = f"{entry.file.path}" + (f" with {entry.samples.name}" if entry.samples else "")
    metrics, more = metric_records(entry.task, stated, columns, n, where=where)
    if columns is not None:
        _check_digest(entry, columns)
    task = TaskRecord(
        task=entry.task,
        group=entry.group,
        version="" if version is None else str(version),
        config_sha256=_config_sha256(entry.config),
        output_type=output_type,
        n_fewshot=_whole(entry.of_task("n-shot")) or _whole(entry.config.get("num_fewshot")) or 0,
        n_docs=n or 0,
        n_docs_total=n_total,
        requests_sha256=columns.requests_sha256 if columns is not None else "",
        data=(),
    )
    cell = FoundCell(
        model=entry.model,
        checkpoint_fingerprint=entry.checkpoint,
        task=task,
        metrics=metrics,
        partial=(n or 0) < n_total if original else limit,
        n_requests=columns.n_requests if columns is not None else 0,
        source=entry.file.record,
        samples=samples,
        warnings=tuple(said + more),
    )
    return cell, [f"{entry.model}: {line}" for line in said + more]


def _stated(entry: _Entry) -> tuple[list[Stated], list[str]]:
    """Return a task's metrics as the file has them, and which have no number.

    Raises:
        UsageError: a value is no finite number, or no metric has one.
    """
    aggregations = aggregations_of(entry.config)
    better = entry.of_task("higher_is_better")
    better = better if isinstance(better, dict) else {}
    table = entry.file.content["results"][entry.task]
    found, said = [], []
    for key, value in table.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith(_ERROR):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            said.append(f"{entry.task}: {metric} is no number ({value!r:.40}) and left out")
            continue
        if not math.isfinite(value):
            raise not_finite(entry.file.path, entry.task, metric, value)
        error = table.get(f"{metric}{_ERROR},{filter_name}")
        found.append(
            Stated(
                metric=metric,
                filter=filter_name,
                value=float(value),
                error=finite(error),
                aggregation=aggregations.get(metric, ""),
                better=better.get(metric) if isinstance(better.get(metric), bool) else None,
            )
        )
    if not found:
        raise UsageError(
            f"{entry.file.path}: no value of {entry.task} is a number",
            hint="Evaluate it again, or name the other tasks with `--task`.",
        )
    return found, said


def not_finite(path: Path, task: str, metric: str, value: float) -> UsageError:
    """Return the error of a value that is not a number or infinite."""
    return UsageError(
        f"{path}: {metric} of {task} is {value}",
        hint="The model gave no numbers there: evaluate it again, or name the other tasks with `--task`.",
    )


def finite(value: Any) -> float | None:
    """Return a number, or None for anything else, such as "N/A"."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _counts(entry: _Entry) -> tuple[int | None, int | None]:
    """Return how many documents a task has and how many were scored, where the file says so."""
    counts = entry.of_task("n-samples")
    counts = counts if isinstance(counts, dict) else {}
    return _whole(counts.get("original")), _whole(counts.get("effective"))


def _n_without_samples(entry: _Entry, stated: Sequence[Stated]) -> int | None:
    if (effective := _counts(entry)[1]) is not None:
        return effective
    behind = {n for one in stated if (n := n_behind(one.value, one.error)) is not None}
    return behind.pop() if len(behind) == 1 else None


def _check_count(entry: _Entry, columns: Columns) -> None:
    effective = _counts(entry)[1]
    if effective is not None and effective != columns.n_docs:
        raise UsageError(
            f"{entry.samples} holds {columns.n_docs:,} documents, {entry.file.path.name} says {effective:,}",
            hint="One was cut short: copy it once more, or import the values alone with `--without-samples`.",
        )


def _check_digest(entry: _Entry, columns: Columns) -> None:
    expected = entry.of_task("task_hashes")
    if isinstance(expected, str) and expected and expected != columns.task_hash:
        raise UsageError(
            f"{entry.samples} holds other documents or prompts than {entry.file.path.name} was computed from",
            hint="Copy both once more, or import the values alone with `--without-samples`.",
        )


def _limited(file: ResultsFile) -> bool:
    config = file.content.get("config")
    return isinstance(config, dict) and config.get("limit") is not None


def _limit(file: ResultsFile) -> int | None:
    """Return the documents that were taken of each task; None for all, and for a share of them."""
    if not _limited(file):
        return None
    limit = finite(file.content["config"]["limit"])
    return int(limit) if limit is not None and limit >= 1 else None


def _config_sha256(config: Mapping[str, Any]) -> str:
    return digest({k: v for k, v in config.items() if k not in _NOT_ASKED}) if config else ""
