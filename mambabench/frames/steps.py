"""Frame `steps`: checkpoints of runs of training, laid out over their steps.

    found = curves_of(runs.runs)
    found.curves[0].best.step

Which training and which step a model is of stands in its name, such as pythia-160m@step1000, or in the path
by which a command named it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.result import CompareOptions
from mambabench.compare.steps import Stepped, stepped
from mambabench.errors import MambabenchError
from mambabench.frames.sides import choose, scored_sides, tasks_of

if TYPE_CHECKING:
    from pathlib import Path

    from mambabench.compare.curves_result import Curve, Curves
    from mambabench.compare.result import Side
    from mambabench.frames.api import Runs
    from mambabench.frames.load import LoadedRun
    from mambabench.frames.sides import OpenRun

_FEWEST: Final = 2
_MOST_NAMED: Final = 4


def series_of(sides: Sequence[Side], runs: Iterable[LoadedRun]) -> dict[str, dict[int, Side]]:
    """Return the sides that are checkpoints, by run of training and step, where there are two steps of one.

    A step that several runs evaluated is in as many series, whose names have numbers at the end.
    """
    commands = {run.path: run.manifest.command for run in runs if run.manifest is not None}
    seen: Counter[Stepped] = Counter()
    found: dict[str, dict[int, Side]] = {}
    for side in sides:
        place = _place_of(side, commands[side.run])
        if place is None:
            continue
        seen[place] += 1
        series = place.series if seen[place] == 1 else f"{place.series}~{seen[place]}"
        found.setdefault(series, {})[place.step] = side
    return {series: members for series, members in found.items() if len(members) >= _FEWEST}


def _place_of(side: Side, command: Sequence[str]) -> Stepped | None:
    place = stepped(side.model)
    if place is not None and place.series:
        return place
    named = [word for word in command if PurePath(word).name == side.model]
    return next((found for word in named if (found := stepped(word)) is not None), place)


def curves_of(runs: Sequence[LoadedRun]) -> Curves | None:
    """Return the training curves of the scored runs, None where there are none.

    A series that cannot be laid out is named among the remarks.
    """
    from mambabench.compare.curves import curves
    from mambabench.compare.curves_result import Curves

    sides, opened = scored_sides(runs)
    options = CompareOptions()
    laid_out: list[Curves] = []
    remarks: list[str] = []
    for series, members in series_of(sides, runs).items():
        known = {side.label: Stepped(series, step) for step, side in members.items()}
        kept = _with_tasks_in_common(list(members.values()), opened)
        if not kept:
            remarks.append(f"{series}: its steps have no task in common")
            continue
        if without := [side.label for side in members.values() if side not in kept]:
            remarks.append(
                f"{series}: left out, since they have few tasks or none in common: {_some(without)}"
            )
        try:
            laid_out.append(curves(kept, options, known=known, opened=opened))
        except MambabenchError as error:
            remarks.append(f"{series}: {error.message}")
    if not laid_out:
        return None
    return Curves(
        series=tuple(name for one in laid_out for name in one.series),
        curves=tuple(curve for one in laid_out for curve in one.curves),
        alpha=options.alpha,
        replicates=laid_out[0].replicates,
        remarks=tuple(dict.fromkeys([*(remark for one in laid_out for remark in one.remarks), *remarks])),
    )


def _with_tasks_in_common(sides: Sequence[Side], opened: Mapping[Path, OpenRun]) -> list[Side]:
    asked = {side: tasks_of(side, opened) for side in sides}
    return choose(sides, max(sides, key=lambda side: len(asked[side])), asked)


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(labels[:_MOST_NAMED]) + more


def rows_of_steps(runs: Runs) -> list[dict[str, Any]]:
    """Return the rows of frame `steps`."""
    found = runs.curves
    return [] if found is None else [row for curve in found.curves for row in _rows(curve)]


def _rows(curve: Curve) -> list[dict[str, Any]]:
    return [
        {
            "series": curve.series,
            "step": point.step,
            "label": point.side,
            "task": curve.task,
            "task_label": curve.label,
            "metric": curve.metric,
            "headline": curve.headline,
            "value": point.value,
            "unit": curve.unit,
            "interval_low": point.low,
            "interval_high": point.high,
            "n_items": curve.n,
            "chance": curve.chance,
            "best": point.step == curve.best.step,
            "contender": point.contender,
        }
        for point in curve.points
    ]
