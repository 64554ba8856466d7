"""A comparison of more models than a figure can hold, cut down to those that say most.

>>> furthest({"a": 1.0, "b": -3.0, "c": 0.5}, 2)
['a', 'b']
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mambabench.plots import shortened
from mambabench.plots.checkpoints import last_steps

if TYPE_CHECKING:
    from mambabench.compare.result import Comparison

_LONGEST_TITLE: Final = 150


def fewer(comparison: Comparison, most: int) -> tuple[Comparison, str]:
    """Leave out candidates until so many are left.

    Earlier steps of a run of training go first, then those whose accuracies differ least from the baseline's.

    Returns:
        The comparison as it is to be drawn, and what to say of those left out; empty where there are none.
    """
    labels = [side.label for side in comparison.candidates]
    if len(labels) <= most:
        return comparison, ""
    by_label: dict[str, list[float]] = {label: [] for label in last_steps(labels)}
    for contrast in comparison.contrasts:
        if (
            contrast.effect_unit == "pt"
            and contrast.difference is not None
            and contrast.candidate in by_label
        ):
            by_label[contrast.candidate].append(contrast.difference)
    means = {label: statistics.fmean(found) if found else 0.0 for label, found in by_label.items()}
    kept = set(furthest(means, most))
    cut = replace(
        comparison,
        candidates=tuple(side for side in comparison.candidates if side.label in kept),
        contrasts=tuple(c for c in comparison.contrasts if c.candidate in kept),
        overall=tuple(o for o in comparison.overall if o.candidate in kept),
        calibrations=tuple(
            c for c in comparison.calibrations if c.side in kept or c.side == comparison.baseline.label
        ),
    )
    return cut, f"{len(kept)} of {len(labels)} models: last steps, furthest from the baseline"


def furthest(means: Mapping[str, float], most: int) -> list[str]:
    """Return the labels of the largest differences either way, in their order."""
    chosen = sorted(means, key=lambda label: -abs(means[label]))[:most]
    return [label for label in means if label in chosen]


def short_title(comparison: Comparison) -> str:
    """Return a comparison's title, and of many long names their number."""
    if len(comparison.title) <= _LONGEST_TITLE:
        return comparison.title
    return f"{len(comparison.candidates)} models against {shortened(comparison.baseline.label)}"
