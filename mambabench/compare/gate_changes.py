"""A contrast's change in the unit of a gate: points, percent of the baseline, or the measure's own.

change = task_change(parse_gate("hellaswag < -1pt"), contrast)
change.value, change.low, change.high
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mambabench.compare.gate_grammar import Gate
from mambabench.compare.result import Contrast, Overall
from mambabench.compare.speed_result import SpeedContrast

PLAIN_POINTS: Final = "a number without a unit could mean points or percent: write pt or %"
_BASELINE_AS_IS: Final = "relative to the baseline's value as it is"


@dataclass(frozen=True)
class Change:
    """A change in the gate's unit; None where there is none, and `why` says the reason."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    why: str = ""

    def scaled(self, unit: str, scale: Callable[[float], float]) -> Change:
        """Return the change in another unit, by a rising function."""
        value, low, high = (None if end is None else scale(end) for end in (self.value, self.low, self.high))
        return Change(value, low, high, unit, self.why)


def misfit(gate: Gate, contrast: Contrast) -> str:
    """Say why a measure has no change in the gate's unit; empty where it has one."""
    if gate.unit == "pt" and contrast.effect_unit != "pt":
        return "is no share: it has no percentage points"
    if gate.unit == "%" and contrast.unit == "nats":
        return "is a logarithm: a change in percent says nothing"
    if not gate.unit and contrast.effect_unit == "pt":
        return f"is a share, and {PLAIN_POINTS}"
    return ""


def task_change(gate: Gate, contrast: Contrast) -> Change:
    """Return a task's change in the gate's unit, which its measure has (`misfit`)."""
    unpaired = "" if contrast.paired else "unpaired: only totals were compared"
    if contrast.difference is None:
        return Change(why="; ".join(contrast.remarks) or "there is no value")
    change = Change(contrast.difference, contrast.low, contrast.high, contrast.effect_unit, unpaired)
    as_is = Change(change.value, change.low, change.high, why=_joined(_BASELINE_AS_IS, unpaired))
    base = contrast.baseline_value
    if gate.unit in ("pt", "%") and contrast.effect_unit == gate.unit:
        return change
    if gate.unit == "%":
        if base is None or base <= 0:
            return Change(unit="%", why="the baseline's value is not above 0")
        return as_is.scaled("%", lambda v: 100 * v / base)
    if contrast.effect_unit == "%":
        if base is None:
            return Change(why="the baseline has no value")
        return as_is.scaled(contrast.unit, lambda v: base * v / 100)
    return change


def overall_change(gate: Gate, overall: Overall) -> Change:
    """Return the overall change in points or in percent."""
    unpaired = "" if overall.paired else "not all tasks were compared item by item"
    ends = (overall.difference, overall.low, overall.high)
    if gate.unit == "pt":
        return Change(*ends, "pt", unpaired)
    if overall.baseline_value <= 0:
        return Change(unit="%", why="the baseline's value is not above 0")
    relative = Change(*ends, why=_joined(_BASELINE_AS_IS, unpaired))
    return relative.scaled("%", lambda v: 100 * v / overall.baseline_value)


def speed_change(gate: Gate, contrast: SpeedContrast, said: str = "") -> Change:
    """Return the change of a figure of speed, in percent or in its own unit.

    Args:
        gate: without percentage points.
        contrast: a figure at a place.
        said: what else is to be known of the place.
    """
    why = said
    ends: tuple[float | None, float | None] = (contrast.low, contrast.high)
    if not contrast.has_interval:
        ends = (None, None)
        least = min(contrast.n_candidate, contrast.n_baseline)
        why = _joined(f"{least} process{'es' if least > 1 else ''} a side: no interval", said)
    if gate.unit == "%":
        return Change(contrast.ratio, *ends, why=why).scaled("%", lambda r: 100 * (r - 1))
    ratio = Change(contrast.ratio, *ends, why=_joined(_BASELINE_AS_IS, why))
    return ratio.scaled(contrast.unit, lambda r: contrast.baseline_value * (r - 1))


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
