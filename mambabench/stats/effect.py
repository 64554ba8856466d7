"""What every comparison of two sides gives: a difference, its interval and a test of no difference.

>>> Effect(0.5, 0.1, 0.9, "t", "paired t", 0.02, 0.2, 30).excludes(0.0)
True
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """A difference, candidate minus baseline, in the unit of the figures or on their logarithms."""

    difference: float
    low: float
    high: float
    """Ends of the interval; infinite, or the ends of the scale, where the items determine none."""
    interval_method: str
    test: str
    """Of the hypothesis that there is no difference; two-sided."""
    p_value: float
    """1 where the items determine nothing."""
    standard_error: float
    """NaN where the items determine none."""
    n: int
    """Items."""
    n_clusters: int | None = None
    """Groups of items that are not independent; None where each stands for itself."""
    determined: bool = True
    """Whether the items determine the interval."""
    degrees_of_freedom: float | None = None
    """Of the standard error, for Student's quantiles; None where it is taken as normal."""

    def excludes(self, value: float) -> bool:
        """Return whether the interval leaves a value out."""
        return not self.low <= value <= self.high
