"""What a figure against length or batch size shows: a quantity of the rows, and lines it is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mambabench.plots.palette import TEXT
from mambabench.plots.speed.scales import Unit, spans_decades
from mambabench.plots.speed.series import Axis, Series, at

if TYPE_CHECKING:
    from mambabench.plots.speed.looks import Looks
    from mambabench.stats.replicates import Estimate
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

_FAR = 2.5
"""A line that lies so many times above all figures is named instead of drawn on an axis from 0."""


@dataclass(frozen=True)
class Reference:
    """A line that figures are held against."""

    name: str
    """For the legend."""
    rows: tuple[tuple[int, float], ...]
    """(place on the axis, value), in order."""
    model: str | None
    """Whose line it is; None for a level that bounds all."""
    line_style: Any
    width: float = 1.0
    opacity: float = 1.0
    optional: bool = False
    """Whether it is left out where it would press the figures together."""

    @property
    def top(self) -> float:
        """Its largest value."""
        return max(value for _, value in self.rows)

    def style(self, looks: Looks | None) -> dict[str, Any]:
        """Return matplotlib's settings: in black, or in the model's colour where looks are given."""
        colour = TEXT if self.model is None or looks is None else looks.colour(self.model)
        return {
            "color": colour,
            "linestyle": self.line_style,
            "linewidth": self.width,
            "alpha": self.opacity,
            "label": f"_{self.name}",
        }


@dataclass(frozen=True)
class Quantity:
    """One figure of a row, and how to draw it."""

    title: str
    words: str
    """Label of its axis."""
    unit: Unit
    of: Callable[[SpeedRow], Estimate | None]
    preferred: Axis = "prompt_len_tokens"
    depth: bool = False
    """Whether the prompt's length is the depth at which tokens were generated."""
    references: Callable[[SpeedTable, Axis, Series], Sequence[Reference]] = lambda *_: ()
    """Lines beside one series."""

    def heights(self, series: Sequence[Series]) -> list[float]:
        """Return the values of lines and the ends of their bands."""
        found = [e for s in series for r in s.rows if (e := self.of(r)) is not None]
        return [v for e in found for v in (e.low, e.value, e.high)]

    def curve(self, series: Series, x: Axis) -> tuple[list[int], list[float]]:
        """Return places and values of a line; a failure between two points breaks it with a NaN."""
        points = [(at(r, x), self.of(r)) for r in series.rows]
        while points and points[-1][1] is None:
            points.pop()
        while points and points[0][1] is None:
            points.pop(0)
        return [p for p, _ in points], [math.nan if e is None else e.value for _, e in points]


def within_reach(
    references: Sequence[Reference], heights: Sequence[float]
) -> tuple[list[Reference], bool, list[str]]:
    """Leave out lines that would press the figures together.

    Args:
        references: all of a figure, in any order and number.
        heights: what was measured.

    Returns:
        The lines to draw, once each; whether the axis is logarithmic; what to say of those left out.
    """
    firm = [*heights, *(v for r in references if not r.optional for _, v in r.rows)]
    log = spans_decades(firm)
    found = list(dict.fromkeys(references))
    far = [r for r in found if r.optional and not log and r.top > _FAR * max(firm)]
    notes = [f"{name} is above the axis" for name in dict.fromkeys(r.name for r in far)]
    return [r for r in found if r not in far], log, notes
