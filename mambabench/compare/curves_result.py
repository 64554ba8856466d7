"""What a comparison of many checkpoints says, as plain data: figures over training steps, and the best step.

Values are in the units that are shown, as in `mambabench.compare.result`.

>>> BestStep(500, 61.0, (500,), (400, 500), True, 60.2, 0.8).first_contender
400
"""

from __future__ import annotations

from dataclasses import dataclass

OVERALL = "overall"
"""Task of the curve of mean accuracies."""


@dataclass(frozen=True)
class CurvePoint:
    """One metric at one step."""

    step: int
    side: str
    """Label of the checkpoint."""
    value: float
    low: float | None
    high: float | None
    """Ends of its own 95% interval; None where the items determine none."""
    n: int
    """Items."""
    p_value: float | None = None
    """Against the best step, two-sided, not adjusted; None for the best one, and where nothing is tested."""
    contender: bool | None = None
    """Whether it may be the best; None where that could not be tested."""
    share_best: float | None = None
    """Of the resamples of the items in which it is the best; None without items."""


@dataclass(frozen=True)
class BestStep:
    """The step with the best value, and how far that can be believed."""

    step: int
    """The earliest of equals."""
    value: float
    ties: tuple[int, ...]
    """All steps of the same value, itself included."""
    contenders: tuple[int, ...]
    """Steps that may truly be the best, itself included: with 1 - alpha confidence the truly best one is
    among them. Empty where nothing could be tested."""
    paired: bool
    """Whether steps were compared item by item."""
    expected: float | None
    """What the step that is picked for being the best is worth on other items; None where that is unknown."""
    luck: float | None
    """How much of its value comes from having been picked, positive, in the unit of differences. Estimated
    over resamples with items; without them the most that it can be on average."""

    @property
    def first_contender(self) -> int | None:
        """The earliest step that may be the best: after it no gain is shown."""
        return self.contenders[0] if self.contenders else None


@dataclass(frozen=True)
class StepChange:
    """What changed from one step to another, both chosen beforehand."""

    first_step: int
    last_step: int
    difference: float
    """Last minus first, in the unit of differences."""
    low: float | None
    high: float | None
    """95% interval; None where undetermined."""
    p_value: float
    test: str


@dataclass(frozen=True)
class Curve:
    """One metric of one task over the steps of one run of training."""

    series: str
    task: str
    """lm-eval's name of the task or group, or `OVERALL`."""
    label: str
    metric: str
    headline: bool
    """Whether it is the task's first metric."""
    unit: str
    """"%", "ppl", "bits/byte" or ""."""
    effect_unit: str
    """Of differences: "pt", "%", "bits/byte" or ""."""
    higher_is_better: bool
    chance: float | None
    """What guessing gives, where that is known."""
    n: int
    """Items that every step has."""
    n_total: int
    """Items that the task has; 0 where that is not known."""
    paired: bool
    points: tuple[CurvePoint, ...]
    """By step, at least two."""
    best: BestStep
    change: StepChange | None
    """From the first step to the last one; None where nothing could be tested."""
    n_tasks: int = 1
    """That it is the mean of."""

    def at(self, step: int) -> CurvePoint:
        """Return the point of a step.

        Raises:
            KeyError: there is none.
        """
        for point in self.points:
            if point.step == step:
                return point
        raise KeyError(step)


@dataclass(frozen=True)
class Curves:
    """Checkpoints of one or several runs of training on the same tasks."""

    series: tuple[str, ...]
    curves: tuple[Curve, ...]
    """By series, then task, then metric; the mean over tasks comes first in a series that has one."""
    alpha: float
    replicates: int
    """Resamples behind what is said of luck."""
    remarks: tuple[str, ...] = ()
    """Sentences that limit what is shown."""

    @property
    def panels(self) -> tuple[tuple[str, str], ...]:
        """(task, metric) in order, over all series."""
        return tuple(dict.fromkeys((curve.task, curve.metric) for curve in self.curves))

    def of(self, task: str, metric: str) -> list[Curve]:
        """Return the curves of one task and metric, one a series at most."""
        return [c for c in self.curves if (c.task, c.metric) == (task, metric)]

    def steps_of(self, series: str) -> tuple[int, ...]:
        """Return all steps of a series, ascending."""
        return tuple(sorted({p.step for c in self.curves if c.series == series for p in c.points}))
