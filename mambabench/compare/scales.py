"""In which unit a measure is tested, and in which one its values and differences are shown.

Means and fractions are tested as they are. A perplexity is tested as the mean log-likelihood that it is the
exponential of, and shown as a change in percent. Bits per byte are log-likelihoods a byte over -ln 2.

>>> scale = scale_of("perplexity", "log mean")
>>> round(scale.difference(0.1), 2), scale.ends(0.0, 0.1)[1]
(-9.52, 0.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from mambabench.compare.items import MeasureKind
    from mambabench.compare.result import CompareOptions
    from mambabench.schema import Unit

_PERCENT: Final = 100.0


@dataclass(frozen=True)
class Scale:
    """How a tested difference is shown.

    A *tested* number is in the unit of the statistic: fractions, nats of log-likelihood, or the score's own.
    """

    unit: str
    """Of values, as in `Contrast.unit`."""
    effect_unit: str
    """Of differences."""
    shown: Literal["linear", "percent"]
    factor: float = 1.0
    """A shown difference over the tested one where it is linear; negative where less is tested as more."""

    def value(self, value: float) -> float:
        """Return a value of lm-eval's unit as it is shown: fractions become percent."""
        return value * _PERCENT if self.unit == "%" else value

    def tested(self, value: float) -> float:
        """Return a value of lm-eval's unit in the unit that is tested.

        Raises:
            ValueError: a perplexity that is not above 0.
        """
        if self.shown == "percent":
            return -math.log(value)
        return value * self.value(1.0) / self.factor

    def difference(self, tested: float) -> float:
        """Return a tested difference as it is shown; infinite where a float cannot hold it."""
        # Adding 0 keeps a negative zero from being shown with its sign.
        if self.shown == "linear":
            return tested * self.factor + 0.0
        try:
            return _PERCENT * math.expm1(-tested) + 0.0
        except OverflowError:
            return math.inf

    def ends(self, low: float, high: float) -> tuple[float, float]:
        """Return the ends of a tested interval as they are shown, the lower one first."""
        first, second = self.difference(low), self.difference(high)
        return min(first, second), max(first, second)

    def size(self, tested: float) -> float:
        """Return the size of a tested difference above 0 as it is shown; of perplexities that of a rise."""
        return self.difference(math.copysign(tested, -1 if self.shown == "percent" else self.factor))

    def margin(self, options: CompareOptions, baseline: float) -> float:
        """Return the difference, as it is shown, within which nothing matters.

        Of bits per byte it is what the margin of a byte's perplexity comes to, which is 2 to their power:
        the same texts must not be judged twice. Of a score without a unit of its own it is so many
        percent of the baseline's value.

        Args:
            options: what the user says does not matter.
            baseline: the baseline's value as it is shown.
        """
        if self.shown == "percent":
            return options.margin_percent
        if self.effect_unit == "bits/byte":
            return math.log2(1 + options.margin_percent / _PERCENT)
        if self.effect_unit == "nats":
            return options.margin_nats
        if self.effect_unit == "pt":
            return options.margin_points
        return abs(baseline) * options.margin_percent / _PERCENT

    def tested_margin(self, margin: float) -> float:
        """Return a margin in the unit that is tested; of perplexities [1 / (1 + m), 1 + m] is meant."""
        return math.log1p(margin / _PERCENT) if self.shown == "percent" else margin / abs(self.factor)


def scale_of(unit: Unit, kind: MeasureKind) -> Scale:
    """Return the scale of a measure by its unit; the kind tells a perplexity from a mean of perplexities.

    >>> scale_of("fraction", "binary").effect_unit
    'pt'
    """
    if unit == "fraction":
        return Scale("%", "pt", "linear", _PERCENT)
    if unit == "perplexity" and kind in ("log mean", "ratio"):
        return Scale("ppl", "%", "percent")
    if unit == "perplexity":
        return Scale("ppl", "ppl", "linear")
    if unit == "bits_per_byte":
        return Scale("bits/byte", "bits/byte", "linear", -1 / math.log(2) if kind == "ratio" else 1.0)
    if unit == "nats":
        return Scale("nats", "nats", "linear")
    return Scale("", "", "linear")
