"""What a user names to compare, and what it stands for: a model of a stored run, or one to evaluate first.

    [LABEL=]RUN           a run's directory, or its name under the directory of runs; all of its models
    [LABEL=]RUN#MODEL     one model of it
    [LABEL=]MODEL         anything else: a registered name, a Hub id, a directory with a checkpoint

>>> parse_given("tuned=./out/checkpoint-500").label
'tuned'
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench.compare.result import Side
from mambabench.errors import StoreError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from mambabench.schema import CellRecord
    from mambabench.store import StoredRun

_MANIFEST: Final = "manifest.json"
_LABEL: Final = re.compile(r"([\w.+~-]+)=(.*)", re.DOTALL)
_SCORED: Final = ("zeroshot", "imported")
_SWEEPS: Final = ("latency", "throughput", "memory", "conversation")
_FORMAT: Final = "Give [LABEL=]RUN, [LABEL=]RUN#MODEL or [LABEL=]MODEL."


@dataclass(frozen=True)
class Given:
    """One argument, taken apart."""

    text: str
    """As typed."""
    label: str | None
    path: Path | None
    """The run's directory; None for a model that must be evaluated."""
    model: str | None
    """Of the run, None for all of them; or the model to evaluate."""


def parse_given(text: str, out: Path = Path("results")) -> Given:
    """Take an argument apart; reads nothing but what lies at the path.

    Args:
        text: the argument.
        out: directory of runs in which a run may be named without its path.

    Raises:
        UsageError: it is empty, or names something that cannot be compared: a folder of runs, or another
            program's results that were not imported.
    """
    label, rest = None, text
    if (match := _LABEL.fullmatch(text)) and not Path(text).exists():
        label, rest = match.groups()
    if not rest.strip():
        raise UsageError(f"'{text}' names nothing to compare", hint=_FORMAT)
    if (path := _run_at(rest, out)) is not None:
        return Given(text, label, path, None)
    before, mark, model = rest.rpartition("#")
    if mark and (path := _run_at(before, out)) is not None:
        if not model:
            raise UsageError(f"'{text}' names no model after '#'", hint=_FORMAT)
        return Given(text, label, path, model)
    _must_not_be_results(rest)
    if label is None:
        _check_label(text, out)
    return Given(text, label, None, rest)


def _check_label(text: str, out: Path) -> None:
    """Refuse what would be a side if its label were one; paths may hold '=' as well."""
    label, equals, rest = text.partition("=")
    if not equals or not label or Path(text).exists():
        return
    path = Path(rest.rpartition("#")[0] or rest)
    if rest and ("/" not in label or path.exists() or _run_at(str(path), out)):
        raise UsageError(f"{label!r} is no label", hint="A label is made of letters, digits and . _ - + ~.")


def _run_at(text: str, out: Path) -> Path | None:
    if not text:
        return None
    path = Path(text)
    if path.name == _MANIFEST and path.is_file():
        return path.parent
    if (path / _MANIFEST).is_file():
        return path
    if len(path.parts) == 1 and not path.exists() and (out / path / _MANIFEST).is_file():
        return out / path
    return None


def _must_not_be_results(text: str) -> None:
    path = Path(text)
    if path.suffix in (".json", ".jsonl") and path.is_file():
        raise UsageError(
            f"{path} is no run of ours",
            hint=f"`mambabench import {path}` makes one of another program's results.",
        )
    if not path.is_dir():
        return
    if any(path.glob(f"*/{_MANIFEST}")):
        raise UsageError(
            f"{path} holds runs and is none itself", hint="Name one of them, or several: `DIR/*` if all."
        )
    if (path / "cells").is_dir() or (path / "replicates").is_dir():
        raise StoreError(
            f"{path} is a run without its {_MANIFEST}", hint="Without it nobody can tell what was asked."
        )
    if any(path.glob("results*.json")):
        raise UsageError(
            f"{path} holds another program's results",
            hint=f"`mambabench import {path}` makes a run of them.",
        )


def sides_of(given: Sequence[Given]) -> list[Side]:
    """Return the models of runs that arguments stand for, in their order.

    A run of several models stands for all of them unless one is picked; a label given to it then stands
    before each model's name. Labels are made unique by a number at the end.

    Args:
        given: runs only.

    Raises:
        StoreError: a run's manifest or a record is damaged.
        UsageError: a run that holds no results, kinds of runs that cannot be compared with each other.
        UnknownNameError: a model that a run does not have.
        ValueError: an argument is no run.
    """
    from mambabench.store import StoredRun

    sides: list[Side] = []
    for one in given:
        if one.path is None:
            raise ValueError(f"{one.text} is no run")
        sides += _sides_of_run(StoredRun(one.path), one)
    _check_kinds(sides)
    _check_twice(sides)
    return _uniquely_labelled(sides)


def _sides_of_run(run: StoredRun, given: Given) -> list[Side]:
    kind = run.manifest.kind
    if kind not in (*_SCORED, *_SWEEPS):
        raise UsageError(
            f"{given.text} is a {kind} run, which cannot be compared",
            hint="Runs of zeroshot, latency, throughput, memory and conversation can, and imported results.",
        )
    scored = run.cells() if kind in _SCORED else []
    models = _models_with_results(run, scored)
    if not models:
        failed = next((cell for cell in scored if cell.error), None)
        why = "It was interrupted before anything ended"
        if failed is not None:
            reason = failed.error.splitlines()[0]
            why = f"All of it failed, first {failed.model} on {failed.task.task} ({reason})"
        hint = f"{why}: run its command again, `{_command(run)}`."
        raise UsageError(f"{given.text} holds no results", hint=hint)
    if given.model is not None:
        if given.model not in models:
            raise UnknownNameError.for_name(
                "model", given.model, models, where=f"{run.path} has {', '.join(models)}."
            )
        models = [given.model]
    sides = []
    for model in models:
        label = given.label or model
        if given.label and len(models) > 1:
            label = f"{given.label}:{model}"
        sides.append(
            Side(
                label=label,
                model=model,
                run=run.path,
                kind=kind,
                has_samples=_has_samples(run, scored, model),
                partial=run.manifest.partial,
                origin=given.text,
            )
        )
    return sides


def _models_with_results(run: StoredRun, scored: Sequence[CellRecord]) -> list[str]:
    """Return a run's models that have a result, in the manifest's order."""
    if run.manifest.kind in _SWEEPS:
        found = [record.point.model for record in run.replicates()]
    else:
        found = [cell.model for cell in scored if cell.status == "ok"]
    known = set(found)
    in_order = [model for model in run.manifest.models if model in known]
    return in_order + [model for model in dict.fromkeys(found) if model not in in_order]


def _has_samples(run: StoredRun, scored: Sequence[CellRecord], model: str) -> bool:
    return any(
        cell.model == model and cell.status == "ok" and has_rows(run.samples_path_of(cell)) for cell in scored
    )


def has_rows(path: Path) -> bool:
    """Return whether a Parquet file of samples holds any.

    Raises:
        StoreError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bool(pq.read_metadata(path).num_rows > 0)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not path.exists():
            reason = "it is not there"
        raise StoreError(
            f"cannot read the samples in {path}: {reason}",
            hint="Delete the file and the record of the same name in `cells/`, and run the command again.",
        ) from error


def _command(run: StoredRun) -> str:
    return " ".join(run.manifest.command) or f"mambabench {run.manifest.kind}"


def _check_kinds(sides: Sequence[Side]) -> None:
    scored = [s for s in sides if s.kind in _SCORED]
    sweeps = [s for s in sides if s.kind not in _SCORED]
    if scored and sweeps:
        raise UsageError(
            f"{scored[0].origin} holds scores and {sweeps[0].origin} a {sweeps[0].kind} sweep",
            hint="Compare either with its like.",
        )
    kinds = dict.fromkeys(s.kind for s in sweeps)
    if len(kinds) > 1:
        raise UsageError(
            f"sweeps of {' and '.join(kinds)} have no figures in common", hint="Compare one kind."
        )


def _check_twice(sides: Sequence[Side]) -> None:
    seen: dict[tuple[Path, str], Side] = {}
    for side in sides:
        key = (side.run.resolve(), side.model)
        if key in seen:
            raise UsageError(
                f"{side.origin} and {seen[key].origin} are the same model of the same run",
                hint="A run compared with itself shows nothing; leave one out.",
            )
        seen[key] = side


def _uniquely_labelled(sides: Sequence[Side]) -> list[Side]:
    counts: Counter[str] = Counter()
    taken = {side.label for side in sides}
    unique = []
    for side in sides:
        counts[side.label] += 1
        label = side.label
        if counts[side.label] > 1:
            number = counts[side.label]
            while (label := f"{side.label}~{number}") in taken:
                number += 1
            taken.add(label)
        unique.append(replace(side, label=label))
    return unique


def require_baseline(sides: Sequence[Side], baseline: str | None) -> tuple[Side, list[Side]]:
    """Return the baseline and all others in their order.

    Args:
        sides: at least two.
        baseline: a label, or what was typed for a side; None for the first one.

    Raises:
        UsageError: fewer than two sides, or the baseline is not among them.
    """
    if len(sides) < 2:
        only = sides[0].label if sides else "nothing"
        raise UsageError(
            f"only {only} is there to be compared", hint="Name at least two: a baseline and a candidate."
        )
    if baseline is None:
        return sides[0], list(sides[1:])
    found = [s for s in sides if s.label == baseline] or [s for s in sides if s.origin == baseline]
    if not found:
        labels = [s.label for s in sides]
        raise UnknownNameError.for_name("baseline", baseline, labels, where=f"There are {', '.join(labels)}.")
    if len(found) > 1:
        raise UsageError(
            f"'{baseline}' stands for {len(found)} models",
            hint=f"Name one of {', '.join(s.label for s in found)}.",
        )
    return found[0], [s for s in sides if s is not found[0]]
