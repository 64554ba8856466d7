"""Results of stored runs as tidy pandas frames: the one source of every table, figure and report.

    runs = load_runs("results")
    runs.frame("scores").query("headline")[["label", "task_label", "value"]]
    runs.comparison.contrasts[0].verdict

`mambabench.frames.columns.FRAMES` says what each frame holds. A run that cannot be read is a row of `runs`
with what is wrong with it, and costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from mambabench.errors import UnknownNameError, UsageError
from mambabench.frames.columns import FRAMES, frame
from mambabench.frames.labels import labels_of
from mambabench.frames.load import LoadedRun, read_run
from mambabench.frames.places import find_runs
from mambabench.schema import RunManifest

if TYPE_CHECKING:
    import pandas as pd

    from mambabench.compare.curves_result import Curves
    from mambabench.compare.result import Comparison
    from mambabench.compare.run import Compared

_KINDS: Final[tuple[str, ...]] = get_args(RunManifest.model_fields["kind"].annotation)
_MODULES: Final = {
    "runs": "runs",
    "checkpoints": "runs",
    "scores": "zeroshot",
    "averages": "zeroshot",
    "contrasts": "contrasts",
    "steps": "steps",
    "speed": "sweeps",
    "speed_ratios": "sweeps",
    "measurements": "sweeps",
    "ceilings": "sweeps",
    "conversation": "sweeps",
    "recall": "longcontext",
    "recall_means": "longcontext",
    "recall_depths": "longcontext",
    "effective_contexts": "longcontext",
    "context_losses": "longcontext",
    "perplexities": "longcontext",
    "position_losses": "longcontext",
    "quality_cost": "joined",
    "warnings": "warnings",
    "findings": "findings",
}
"""Module of this package with `rows_of_<frame>`."""
_OF_ALL: Final = frozenset({"contrasts", "steps", "quality_cost", "warnings", "findings"})
"""Frames that are made of the runs together, comparison included."""


class Runs:
    """Runs that were read, and what follows from them.

    Args:
        runs: in order, with labels.
        baseline: label that the others are compared with; None for the first.
    """

    def __init__(self, runs: Sequence[LoadedRun], baseline: str | None = None) -> None:
        self.runs = tuple(runs)
        self.baseline = baseline
        self._frames: dict[str, pd.DataFrame] = {}

    def frame(self, name: str) -> pd.DataFrame:
        """Return a frame, built once; a copy that the caller may change.

        Raises:
            UnknownNameError: there is no such frame.
        """
        if name not in FRAMES:
            there = f"There are {', '.join(FRAMES)}; items are had by `samples()`."
            raise UnknownNameError.for_name("frame", name, FRAMES, where=there)
        if name not in self._frames:
            module = import_module(f"mambabench.frames.{_MODULES[name]}")
            rows: Callable[[Any], list[dict[str, Any]]] = getattr(module, f"rows_of_{name}")
            self._frames[name] = frame(name, rows(self if name in _OF_ALL else self.runs))
        return self._frames[name].copy()

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return every frame by name, in the order of the catalogue."""
        return {name: self.frame(name) for name in FRAMES}

    def of_kind(self, *kinds: str) -> list[LoadedRun]:
        """Return the runs of some kinds, in order."""
        return [run for run in self.runs if run.manifest is not None and run.manifest.kind in kinds]

    def samples(self, task: str | None = None, label: str | None = None) -> pd.DataFrame:
        """Return scored items, read when asked for; see `mambabench.frames.samples`.

        Args:
            task: only of this task or group.
            label: only of this model.

        Raises:
            UnknownNameError: no run has items of that task or model.
        """
        from mambabench.frames.samples import samples_frame

        return samples_frame(self.runs, task, label)

    @property
    def comparison(self) -> Comparison | None:
        """All models that share tasks against the baseline, computed once; None where there are no two."""
        return None if self.compared is None else self.compared.comparison

    @property
    def compared(self) -> Compared | None:
        """The comparison with the items that it was made of."""
        return self._compared[0]

    @property
    def comparison_problem(self) -> str:
        """Why nothing can be compared; empty where something is, or where there is only one model."""
        return self._compared[1]

    @cached_property
    def _compared(self) -> tuple[Compared | None, str]:
        from mambabench.frames.contrasts import compare_runs

        return compare_runs(self.runs, self.baseline)

    @cached_property
    def curves(self) -> Curves | None:
        """Checkpoints of runs of training over their steps, computed once; None where there are none."""
        from mambabench.frames.steps import curves_of

        return curves_of(self.runs)


def load_runs(*places: str | Path, kinds: Sequence[str] = (), baseline: str | None = None) -> Runs:
    """Read runs.

    Args:
        places: a run's directory, a directory of runs, which is searched one level deep, or the name of a run
            in `results`. Without any it is `results`.
        kinds: only runs of these kinds, such as "zeroshot"; what cannot be read is kept. All by default.
        baseline: label of the model that the others are compared with; the first one by default.

    Returns:
        The runs by the time of their making, then by name.

    Raises:
        UsageError: a place that does not exist or holds no runs, or no run of the kinds.
        UnknownNameError: a kind or a label that there is not.
    """
    # One kind typed by itself would be taken for its letters.
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    for kind in kinds:
        if kind not in _KINDS:
            raise UnknownNameError.for_name("kind", kind, _KINDS, where=f"There are {', '.join(_KINDS)}.")
    read = [read_run(path, path.resolve().name) for path in find_runs(places)]
    kept = [run for run in read if run.manifest is None or not kinds or run.manifest.kind in kinds]
    if not kept:
        raise UsageError(f"there is no run of kind {' or '.join(kinds)}", hint="Leave the kind out.")
    found = _labelled(_named(sorted(kept, key=_age)))
    if baseline is not None:
        labels = list(dict.fromkeys(label for run in found for label in run.labels.values()))
        if baseline not in labels:
            raise UnknownNameError.for_name(
                "baseline", baseline, labels, where=f"There are {', '.join(labels)}."
            )
    return Runs(found, baseline)


def _age(run: LoadedRun) -> tuple[bool, str, str, str]:
    made = "" if run.manifest is None else run.manifest.created_utc
    return run.manifest is None, made, run.name, str(run.path)


def _named(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    """Put numbers behind names of directories that several runs have."""
    taken = {run.name for run in runs}
    seen: set[str] = set()
    named = []
    for run in runs:
        name, number = run.name, 1
        while name in seen or (number > 1 and name in taken):
            number += 1
            name = f"{run.name}~{number}"
        seen.add(name)
        named.append(replace(run, name=name))
    return named


def _labelled(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    labels = labels_of(runs)
    return [replace(run, labels=labels[run.name]) for run in runs]
