"""Frame `contrasts`: every model that shares tasks with the baseline, held against it.

    compared, why_none = compare_runs(runs.runs, None)

It is what `mambabench compare` says of the same sides. A comparison is over tasks that all of its sides have,
so a side that would leave next to none of them is left out, and said to be. Of a run of training with many
checkpoints the last one takes part: the others are laid out over their steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.result import CompareOptions
from mambabench.errors import MambabenchError, MismatchError, StoreError
from mambabench.frames.sides import choose, scored_sides, tasks_of
from mambabench.frames.steps import series_of

if TYPE_CHECKING:
    from pathlib import Path

    from mambabench.compare.result import Contrast, Overall, Side
    from mambabench.compare.run import Compared
    from mambabench.frames.api import Runs
    from mambabench.frames.load import LoadedRun
    from mambabench.frames.sides import OpenRun

OPTIONS: Final = CompareOptions(n_examples=1)
"""How runs are compared: as the command does by default."""
MOST_DRAWS: Final = 1_000_000_000
"""Items that bootstraps of log-likelihoods may draw, in some seconds; of more they are not compared."""
OVERALL: Final = "overall"
"""Task of the mean over tasks."""
MOST_STEPS: Final = 5
"""Checkpoints of one run of training that are held against each other like any models."""
_FEWEST: Final = 2
_MOST_NAMED: Final = 4


def compare_runs(runs: Sequence[LoadedRun], baseline: str | None) -> tuple[Compared | None, str]:
    """Compare the models of scored runs with one of them.

    Args:
        runs: of any kind.
        baseline: label; None for the first model that has a task in common with another.

    Returns:
        The comparison, None where there is none; and why, empty where there is one and where fewer than two
        models have scores.
    """
    everything, opened = scored_sides(runs)
    if len(everything) < _FEWEST:
        return None, ""
    sides, of_steps = _without_steps(everything, runs, baseline)
    asked = {side: tasks_of(side, opened) for side in sides}
    first = _baseline(sides, baseline, asked)
    if first is None:
        return None, f"{baseline} has no scores" if baseline else "no two models have a task in common"
    chosen = choose(sides, first, asked)
    if len(chosen) < _FEWEST:
        return None, f"no other model has a task of {first.label}"
    left_out = [side.label for side in sides if side not in chosen]
    remarks = [remark for last, remark in of_steps.items() if last in chosen]
    if left_out:
        remarks.append(f"not compared, since they have few tasks or none in common: {_some(left_out)}")
    try:
        found, said = _compared(chosen, first, opened)
    except MambabenchError as error:
        return None, str(error)
    comparison = replace(found.comparison, remarks=(*found.comparison.remarks, *remarks, *said))
    return replace(found, comparison=comparison), ""


def _without_steps(
    sides: Sequence[Side], runs: Sequence[LoadedRun], baseline: str | None
) -> tuple[list[Side], dict[Side, str]]:
    """Leave out all but the last checkpoint of long runs of training, unless the baseline is one of them.

    Returns:
        The other sides; and a remark by the last checkpoint, which holds if that is compared.
    """
    earlier: set[Side] = set()
    remarks: dict[Side, str] = {}
    for series, members in series_of(sides, runs).items():
        ordered = [members[step] for step in sorted(members)]
        if len(ordered) > MOST_STEPS and baseline not in [side.label for side in ordered]:
            earlier.update(ordered[:-1])
            remarks[ordered[-1]] = (
                f"of {series or 'the checkpoints'} only the last of {len(ordered)} steps is compared"
            )
    return [side for side in sides if side not in earlier], remarks


def _baseline(sides: Sequence[Side], label: str | None, asked: Mapping[Side, frozenset[str]]) -> Side | None:
    """Return the side of a label, or the first one, that has a task in common with another, if any has."""
    counts = Counter(task for tasks in asked.values() for task in tasks)
    named = [side for side in sides if label in (None, side.label)]
    found = next((side for side in named if any(counts[task] > 1 for task in asked[side])), None)
    return found or (named[0] if label and named else None)


def _compared(
    sides: Sequence[Side], first: Side, opened: Mapping[Path, OpenRun]
) -> tuple[Compared, list[str]]:
    """Compare; what turns out to be damaged, or was asked otherwise, is left out.

    Raises:
        MambabenchError: nothing is left.
    """
    from mambabench.compare.run import compare_sides

    said: list[str] = []
    left = list(sides)
    options = replace(OPTIONS, log_likelihoods=_n_draws(sides, first, opened) <= MOST_DRAWS)
    if not options.log_likelihoods:
        said.append("log-likelihoods are not compared, since there are many: `mambabench compare` does it")
    while True:
        try:
            return compare_sides(left, first, options, opened), said
        except StoreError as error:
            if not any(run.leave_out(error.message) for run in opened.values()):
                raise
            said.append(f"left out: {error.message}")
        except MismatchError as error:
            fitting = [side for side in left if side is first or not _mismatch(side, first, opened)]
            if len(fitting) in (1, len(left)):
                raise
            without = [side.label for side in left if side not in fitting]
            said.append(f"not compared, since they were asked otherwise: {_some(without)}: {error.message}")
            left = fitting


def _n_draws(sides: Sequence[Side], first: Side, opened: Mapping[Path, OpenRun]) -> int:
    cells = [cell for cell in opened[first.run].cells() if cell.model == first.model]
    return sum(cell.task.n_docs for cell in cells) * OPTIONS.replicates * (len(sides) - 1)


def _mismatch(side: Side, first: Side, opened: Mapping[Path, OpenRun]) -> str:
    """Return why a side cannot be laid beside the baseline; empty if it can."""
    from mambabench.compare.align import aligned_tasks

    try:
        aligned_tasks([first, side], OPTIONS, opened)
    except MismatchError as error:
        return error.message
    return ""


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(labels[:_MOST_NAMED]) + more


def rows_of_contrasts(runs: Runs) -> list[dict[str, Any]]:
    """Return the rows of frame `contrasts`, the means over tasks first."""
    comparison = runs.comparison
    if comparison is None:
        return []
    baseline = comparison.baseline.label
    overall = [_overall(baseline, one, comparison.options) for one in comparison.overall]
    return overall + [_contrast(baseline, one) for one in comparison.contrasts]


def _contrast(baseline: str, one: Contrast) -> dict[str, Any]:
    return {
        "baseline": baseline,
        "candidate": one.candidate,
        "task": one.task,
        "task_label": one.label,
        "measure": one.measure,
        "headline": one.headline,
        "family": one.family,
        "unit": one.unit,
        "effect_unit": one.effect_unit,
        "baseline_value": one.baseline_value,
        "candidate_value": one.candidate_value,
        "difference": one.difference,
        "interval_low": one.low,
        "interval_high": one.high,
        "test": one.test,
        "p_value": one.p_value,
        "p_adjusted": one.p_adjusted,
        "p_equivalence": one.p_equivalence_adjusted,
        "n_items": one.n,
        "n_won": one.n_won,
        "n_lost": one.n_lost,
        "paired": one.paired,
        "margin": one.margin,
        "detectable": one.detectable,
        "verdict": one.verdict,
    }


def _overall(baseline: str, one: Overall, options: CompareOptions) -> dict[str, Any]:
    return {
        "baseline": baseline,
        "candidate": one.candidate,
        "task": OVERALL,
        "task_label": "Average",
        "measure": "mean of accuracies",
        "headline": True,
        "family": OVERALL,
        "unit": "%",
        "effect_unit": "pt",
        "baseline_value": one.baseline_value,
        "candidate_value": one.candidate_value,
        "difference": one.difference,
        "interval_low": one.low,
        "interval_high": one.high,
        "test": one.method,
        "p_value": one.p_value,
        "p_adjusted": one.p_adjusted,
        "p_equivalence": one.p_equivalence_adjusted,
        "n_items": None,
        "n_won": None,
        "n_lost": None,
        "paired": one.paired,
        "margin": options.margin_points,
        "detectable": one.detectable,
        "verdict": one.verdict,
    }
