"""lm-eval before 0.4, as EleutherAI's published Pythia results have it: one JSON file, no samples, to cells.

    found = read_old_lm_eval(detect([Path("pythia-160m/zero-shot")]).files, ReadOptions())
    found.cells[0].model       # "pythia-160m@step0"

Tasks keep their names. `hendrycksTest-*` is not today's `mmlu_*`: it asked for the text of an answer,
`mmlu_*` asks for its letter after a sentence on the subject.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mambabench.errors import UsageError
from mambabench.fingerprint import digest
from mambabench.importers.detect import ResultsFile, only_tasks
from mambabench.importers.found import FoundCell
from mambabench.importers.lm_eval import Found, ReadOptions, finite, not_finite
from mambabench.importers.models import Loaded, arguments_of, named
from mambabench.importers.totals import n_behind, total
from mambabench.references import n_items
from mambabench.schema import TaskRecord

_ERROR: Final = "_stderr"
_TODAY: Final = {"ppl": "perplexity"}
"""Today's names of metrics that were only renamed."""
_SIZE: Final = r"(?<![\d.])\d[\d.]*[mb](?:-deduped)?"
_IN_NAME: Final = re.compile(rf"(?:(?P<size>{_SIZE})[_-])?step(?P<step>\d+)")
_STEP: Final = re.compile(r"step[_-]?(\d+)")


@dataclass(frozen=True)
class _Entry:
    """One task in one file, its metrics as (value, standard error)."""

    file: ResultsFile
    model: str
    checkpoint: str
    task: str
    metrics: Mapping[str, tuple[float, float | None]]

    @property
    def config(self) -> Mapping[str, Any]:
        return _config(self.file)

    @property
    def limit(self) -> Any:
        return self.config.get("limit")


def read_old_lm_eval(files: Sequence[ResultsFile], options: ReadOptions) -> Found:
    """Read files of one or many models and steps.

    Raises:
        UsageError: a file is damaged, its name and content contradict each other, or two hold the same.
        UnknownNameError: a task is asked for that no file has.
    """
    if options.time:
        raise UsageError(
            "--time picks among results files that carry a time, and these do not",
            hint="Name the files to import.",
        )
    wanted = only_tasks((t for f in files for t in f.content["results"]), options.tasks)
    folders = list(dict.fromkeys(file.path.parent for file in files))
    files = sorted(files, key=lambda f: (folders.index(f.path.parent), _natural(f.path.name)))
    models = [_loaded(file) for file in files]
    entries = [
        _Entry(file, name, model.key, task, _metrics(file, task, entry))
        for file, model, name in zip(files, models, named(models), strict=True)
        for task, entry in file.content["results"].items()
        if task in wanted
    ]
    _check_twice(entries)
    known = _known(entries)
    cells: list[FoundCell] = []
    remarks: list[str] = []
    for entry in entries:
        cell = _cell(entry, known)
        cells.append(cell)
        remarks += cell.warnings
    limits = {_whole(entry.limit) for entry in entries}
    return Found(tuple(cells), limits.pop() if len(limits) == 1 else None, "", tuple(dict.fromkeys(remarks)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts step 2 before step 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _config(file: ResultsFile) -> Mapping[str, Any]:
    config = file.content.get("config")
    return config if isinstance(config, dict) else {}


def _loaded(file: ResultsFile) -> Loaded:
    """Return a file's model, held against what the file's name says of its size and step.

    Raises:
        UsageError: they contradict each other.
    """
    config = _config(file)
    arguments = arguments_of(config.get("model_args"))
    match = _IN_NAME.search(file.path.stem)
    told = Loaded(str(config.get("model") or ""), arguments, fallback=file.path.stem).short
    if match is None:
        return Loaded(str(config.get("model") or ""), arguments, fallback=file.path.stem)
    sizes = re.findall(rf"{_SIZE}(?![a-z0-9])", told.partition("@")[0])
    steps = _STEP.findall(" ".join(arguments.values()))
    size, step = match["size"], match["step"]
    if (steps and step not in steps) or (size and sizes and size not in sizes):
        raise UsageError(
            f"{file.path} is by its name {file.path.stem}, by its content {told}",
            hint="Give the file its right name, or leave it out.",
        )
    return Loaded(
        str(config.get("model") or ""),
        arguments,
        step="" if steps else f"step{step}",
        fallback=file.path.stem,
    )


def _metrics(file: ResultsFile, task: str, entry: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    found = {}
    for name, value in entry.items():
        if name.endswith(_ERROR):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(
                f"{file.path}: {name} of {task} is no number ({value!r:.40})",
                hint="Copy the file once more, or name the other tasks with `--task`.",
            )
        if not math.isfinite(value):
            raise not_finite(file.path, task, name, value)
        found[name] = (float(value), finite(entry.get(name + _ERROR)))
    if not found:
        raise UsageError(f"{file.path}: {task} has no value", hint="Name the other tasks with `--task`.")
    return found


def _check_twice(entries: Sequence[_Entry]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for entry in entries:
        before = seen.setdefault((entry.model, entry.task), entry.file.path)
        if before != entry.file.path:
            raise UsageError(
                f"{before} and {entry.file.path} both hold {entry.model} on {entry.task}",
                hint="Import one of them.",
            )


def _own_n(entry: _Entry) -> int | None:
    """Return the number of items that a file's own errors betray; None where they disagree or are silent."""
    behind = {n for value, error in entry.metrics.values() if (n := n_behind(value, error)) is not None}
    return behind.pop() if len(behind) == 1 else None


def _known(entries: Sequence[_Entry]) -> dict[tuple[str, str], int]:
    """Return the numbers of items of tasks on which all files agree, by task and limit."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for entry in entries:
        if (n := _own_n(entry)) is not None:
            found[entry.task, repr(entry.limit)].add(n)
    return {key: numbers.pop() for key, numbers in found.items() if len(numbers) == 1}


def _cell(entry: _Entry, known: Mapping[tuple[str, str], int]) -> FoundCell:
    whole = entry.limit is None
    published = n_items(entry.task)
    n, warnings = _own_n(entry), []
    if n is None:
        n = known.get((entry.task, repr(entry.limit)), published if whole else None)
        if n is not None:
            warnings.append(f"{entry.task}: {n:,} items by other files or published figures of the same task")
        else:
            warnings.append(f"{entry.task}: the number of items follows from no standard error")
    if whole and None not in (n, published) and n != published:
        warnings.append(f"{entry.task}: over {n:,} items, published figures are over {published:,}")
    task = TaskRecord(
        task=entry.task,
        version=str(entry.file.content["versions"].get(entry.task, "")),
        config_sha256=digest({"description_dict": entry.config.get("description_dict") or {}}),
        output_type="",
        n_fewshot=_whole(entry.config.get("num_fewshot")) or 0,
        n_docs=n or 0,
        n_docs_total=(n or 0) if whole else max(n or 0, published or 0),
        requests_sha256="",
        data=(),
    )
    return FoundCell(
        model=entry.model,
        checkpoint_fingerprint=entry.checkpoint,
        task=task,
        metrics=tuple(
            total(_TODAY.get(name, name), "none", value, error, n, better=None)
            for name, (value, error) in entry.metrics.items()
        ),
        partial=not whole,
        n_requests=0,
        source=entry.file.record,
        samples=None,
        warnings=tuple(warnings),
    )


def _whole(value: Any) -> int | None:
    number = finite(value)
    return int(number) if number is not None and number >= 1 else None
