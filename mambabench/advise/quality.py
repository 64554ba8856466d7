"""Which recall and which scores belong to a model that was timed, and its average accuracy with an interval.

A label is a model's in all runs, unless two runs hold the same figure of a name: each then has a label of its
own. What was timed under a name belongs to what was evaluated under it if the runs loaded equal weights;
where they did not, or where nobody knows, nothing is known of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mambabench.advise.recall import Recalled
from mambabench.advise.result import Check, Figure, Place, judged
from mambabench.advise.wish import Wish
from mambabench.frames.loaded import can_be_of
from mambabench.stats.square_and_add import mean_ends

Values = Mapping[str, Any]
_ACCURACY: Final = "accuracy"
_FRAMES: Final = ("recall_means", "averages")


@dataclass(frozen=True)
class Average:
    """One average accuracy of a model."""

    run: str
    suite: str
    figure: Figure
    tasks: tuple[str, ...]
    """Tasks with their metrics: averages over others mean something else."""
    doubts: tuple[str, ...]


class Quality:
    """Recall and averages of all models, found by label or by name.

    Args:
        frames: rows of frames `recall`, `recall_means`, `averages`, `scores` and `checkpoints`, as plain
            values.
    """

    def __init__(self, frames: Mapping[str, Sequence[Values]]) -> None:
        self._frames = frames
        self._loaded = {(row["run"], row["label"]): row for row in frames["checkpoints"]}

    def recall(self, label: str, model: str, dtype: str = "", weights_bytes: int | None = None) -> Recalled:
        """Return what is known of a model's recall.

        Args:
            label: of the model that was timed.
            model: its name in its run.
            dtype: that it was timed in; empty for any.
            weights_bytes: of its parameters when it was timed; None for any.
        """
        means, why = self._of_size("recall_means", label, model, dtype, weights_bytes)
        tasks, _ = self._of_size("recall", label, model, dtype, weights_bytes)
        if not means and not tasks:
            return Recalled(why=why)
        rows = [row for row in tasks if row["metric"] == _ACCURACY or row["status"] not in (None, "ok")]
        doubts = self._dtypes([*means, *tasks], dtype, "recall")
        return Recalled(tuple(means), tuple(rows), doubts)

    def average(
        self, label: str, model: str, dtype: str = "", weights_bytes: int | None = None
    ) -> tuple[Average | None, str]:
        """Return a model's lowest average accuracy over the most tasks, or why there is none."""
        rows, why = self._of_size("averages", label, model, dtype, weights_bytes)
        rows = [row for row in rows if row["value"] is not None]
        if not rows:
            return None, why
        row = max(rows, key=lambda row: (row["n_tasks"] or 0, -row["value"], row["run"], row["suite"]))
        scores = self._parts(row)
        low, high = mean_interval(scores, row["value"])
        figure = Figure(
            row["value"], low, high, "measured", "%", "", sum(s["n_items"] or 0 for s in scores),
            (Place(row["run"], 0, value=row["value"], low=low, high=high),),
        )  # fmt: skip
        doubts = list(self._dtypes([row], dtype, "accuracy"))
        if low is None:
            doubts.append("average without an interval")
        if any((s["n_items"] or 0) < (s["n_items_total"] or 0) for s in scores):
            doubts.append("not all items of the tasks were scored")
        tasks = tuple(sorted(f"{s['task']} {s['metric']}" for s in scores))
        return Average(row["run"], row["suite"] or "", figure, tasks, tuple(doubts)), ""

    def _parts(self, average: Values) -> list[Values]:
        """Return the accuracies that an average is over."""
        return [
            score
            for score in self._frames["scores"]
            if score["in_average"] and (score["run"], score["label"]) == (average["run"], average["label"])
        ]

    def mixed(self, label: str, model: str) -> tuple[str, ...]:
        """Return a doubt where recall and accuracy under a name are those of different weights."""
        found = [self._weights(self._of(frame, label, model)[0]) - {None} for frame in _FRAMES]
        return (
            ("recall and average accuracy are of different weights",) if len(set().union(*found)) > 1 else ()
        )

    def _of(self, frame: str, label: str, model: str) -> tuple[list[Values], str]:
        """Return the usable rows of a model, or why there are none."""
        rows = [row for row in self._frames[frame] if row["label"] == label]
        rows = rows or [row for row in self._frames[frame] if row["model"] == model]
        weights = self._weights(rows)
        # Runs under one label hold nothing twice, and are taken for the same model unless they are not.
        unknown = None in weights and len({row["label"] for row in rows}) > 1
        if unknown or len(weights - {None}) > 1:
            which = "weights that are not known" if unknown else "different weights"
            return [], f"{len({row['run'] for row in rows})} runs have results of {model}, with {which}"
        usable = [row for row in rows if not self._is_set_aside(row)]
        if rows and not usable:
            return [], "only of random weights, or of a forward whose certificate failed"
        return usable, "" if usable else "never measured"

    def _of_size(
        self, frame: str, label: str, model: str, dtype: str, weights_bytes: int | None
    ) -> tuple[list[Values], str]:
        """Return the rows that may be of the weights that were timed, by their size."""
        found, why = self._of(frame, label, model)
        loaded = [self._loaded.get((row["run"], row["label"])) for row in found]
        numbers = {one["n_parameters"] for one in loaded if one is not None} - {None}
        if weights_bytes is None or all(can_be_of(n, weights_bytes, dtype) for n in numbers):
            return found, why
        return [], f"results of {model} are of weights of another size than those that were timed"

    def _weights(self, rows: Sequence[Values]) -> set[str | None]:
        found = set()
        for row in rows:
            loaded = self._loaded.get((row["run"], row["label"]))
            found.add(None if loaded is None else loaded["weights_sha256"] or None)
        return found

    def _is_set_aside(self, row: Values) -> bool:
        loaded = self._loaded.get((row["run"], row["label"]))
        if loaded is None:
            return False
        passed = loaded["certificate_passed"]
        return loaded["weights"] == "random" or (passed is not None and not passed)

    def _dtypes(self, rows: Sequence[Values], dtype: str, what: str) -> tuple[str, ...]:
        loaded = (self._loaded.get((row["run"], row["label"])) for row in rows)
        used = sorted({one["dtype"] for one in loaded if one is not None and one["dtype"]})
        others = [name for name in used if dtype and name != dtype]
        return (f"{what} was measured in {', '.join(others)}, times in {dtype}",) if others else ()


def quality_check(average: Average | None, why: str, wish: Wish) -> Check | None:
    """Hold an average accuracy against what is needed; without a need, look at it all the same.

    Returns:
        The check; None where none is needed and nothing is known.
    """
    need = wish.quality_percent
    if average is None:
        return None if need is None else Check("quality", need, "unknown", why=why)
    of = f"average of {len(average.tasks)} accuracies" if average.tasks else "average accuracy"
    why = f"{of}, {average.suite}" if average.suite else of
    if need is None:
        return Check("quality", None, "kept", average.figure, why=why)
    check = Check("quality", need, "unknown", average.figure, why=why, doubts=average.doubts)
    return judged(check, at_most=False)


def mean_interval(scores: Sequence[Values], mean: float) -> tuple[float | None, float | None]:
    """Return the 95% interval of a mean of independent accuracies from their own intervals.

    Args:
        scores: rows with `value`, `interval_low` and `interval_high`.
        mean: that they should have; another mean is over something else, and has no interval here.
    """
    n = len(scores)
    if n == 0 or any(s["interval_low"] is None or s["interval_high"] is None for s in scores):
        return None, None
    if not math.isclose(math.fsum(s["value"] for s in scores) / n, mean, rel_tol=1e-9, abs_tol=1e-9):
        return None, None
    return mean_ends([(s["value"], s["interval_low"], s["interval_high"]) for s in scores])
