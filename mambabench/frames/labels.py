"""Names that tell models of several runs apart.

A model keeps its name. Where two runs hold the same figure of a name, such as the same task or the same point
of a sweep, each gets its run's as well, for a table must not show two values under one: the digits that a
run's name ends in as long as no other's does, else all of it. So does a name that stands for different
weights: what was measured of the one must not stand beside what was measured of the other.

    labels_of(runs)["zeroshot-smoke-mamba-tiny-75c8b06c"]["mamba-tiny"]     # "mamba-tiny (75c8b06c)"
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mambabench.frames.loaded import ambiguous

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun

_DIGITS: Final = re.compile(r"-([0-9a-f]{8})")
"""What a run's directory is named by at its end: the beginning of its identity."""


def labels_of(runs: Sequence[LoadedRun]) -> dict[str, dict[str, str]]:
    """Return each model's label by the run's name, then by the model's name in it.

    Args:
        runs: with names that are unique.
    """
    figures = {run.name: _figures(run) for run in runs}
    holders = Counter(
        (model, figure) for mine in figures.values() for model in mine for figure in mine[model]
    )
    taken = {model for mine in figures.values() for model in mine}
    several = ambiguous(runs)
    short = _short([run.name for run in runs])
    labels: dict[str, dict[str, str]] = {}
    for run, mine in figures.items():
        labels[run] = {}
        for model, held in mine.items():
            label = model
            if model in several or any(holders[model, figure] > 1 for figure in held):
                number, label = 1, f"{model} ({short[run]})"
                while label in taken:
                    number += 1
                    label = f"{model} ({short[run]}~{number})"
                taken.add(label)
            labels[run][model] = label
    return labels


def _short(names: Sequence[str]) -> dict[str, str]:
    """Return what tells each run from the others, by its name."""
    digits = {name: m[1] for name in names if (m := _DIGITS.fullmatch(name[-9:]))}
    counted = Counter(digits.values())
    return {name: digits[name] if counted[digits.get(name, "")] == 1 else name for name in names}


def _figures(run: LoadedRun) -> dict[str, set[Hashable]]:
    """Return what a run holds figures of, by model."""
    models = [] if run.manifest is None else list(run.manifest.models)
    found: dict[str, set[Hashable]] = {model: set() for model in models}
    for model, figure in _held(run):
        found.setdefault(model, set()).add(figure)
    return found


def _held(run: LoadedRun) -> Iterator[tuple[str, Hashable]]:
    for cell in run.cells:
        yield cell.model, ("task", cell.task.group or cell.task.task)
    if run.zeroshot is not None:
        # Those that were not computed yet have a row, too.
        for row in run.zeroshot.rows:
            yield row.model, ("task", row.task)
    if run.speed is not None:
        for speed in run.speed.rows:
            yield speed.point.model, ("point", run.speed.kind, speed.point)
    if run.long is not None:
        for at in run.long.rows:
            for task in at.recall:
                yield at.model, ("recall", task, at.length_tokens)
            if at.loss is not None:
                yield at.model, ("loss", at.loss.corpus.sha256, at.length_tokens)
    if run.perplexity is not None:
        for text in run.perplexity.rows:
            yield text.model, ("text", run.perplexity.title)
