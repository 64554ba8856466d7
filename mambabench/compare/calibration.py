"""Accuracy against confidence for tasks with choices.

Confidence is the probability of the likeliest choice among the choices: the softmax over their
log-likelihoods. Answers are counted by that choice, as lm-eval's `acc` does, whatever the headline: scores
divided by a length are no probabilities.

    calibrations(task, ["base", "tuned"])[0].error
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.compare.result import Calibration, CalibrationBin
from mambabench.stats.calibration import reliability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mambabench.compare.items import AlignedTask, Choices, Floats


def calibrations(task: AlignedTask, labels: Sequence[str]) -> list[Calibration]:
    """Return each side's calibration; none for a task without choices.

    Items are taken as independent in the interval of the error.

    Args:
        task: aligned items.
        labels: of the sides, in the order of `task.sides`.
    """
    found = []
    for label, side in zip(labels, task.sides, strict=True):
        if side.choices is None:
            continue
        confidences, right = confidence_of(side.choices)
        # A model can give all choices no probability at all.
        known = confidences > 0
        if not known.any():
            continue
        one = reliability(confidences[known], right[known])
        found.append(
            Calibration(
                side=label,
                task=task.task,
                label=task.label,
                n=one.n,
                accuracy=one.accuracy,
                mean_confidence=one.mean_confidence,
                error=one.error,
                low=one.low,
                high=one.high,
                bins=tuple(
                    CalibrationBin(b.low, b.high, b.n, b.mean_confidence, b.accuracy) for b in one.bins
                ),
            )
        )
    return found


def confidence_of(choices: Choices) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the probability of the likeliest choice, [n], and whether it is right; 0 where there is none."""
    import numpy as np

    scores = np.where(np.isnan(choices.log_likelihoods), -np.inf, choices.log_likelihoods)
    best = scores.max(axis=1)
    known = np.isfinite(best)
    above = np.where(known[:, None], scores - np.where(known, best, 0.0)[:, None], -np.inf)
    total = np.exp(above).sum(axis=1)
    confidences = np.divide(1.0, total, out=np.zeros(len(total)), where=known)
    return confidences, scores.argmax(axis=1) == choices.right
