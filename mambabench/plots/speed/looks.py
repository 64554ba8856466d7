"""How lines look: colour and marker by model, line style by variant; the same in every figure of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mambabench.plots import COLOURS, MARKERS, shortened

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

LINE_STYLES: tuple[Any, ...] = ("solid", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 1.2)), (0, (1.2, 1.2)))
GREY = "#666666"
FAINT = "#d4d4d4"
_MARKER_POINTS = 5.0


@dataclass(frozen=True)
class Looks:
    """The looks of a table's lines."""

    models: Sequence[str]
    variants: Sequence[str] = ()

    def colour(self, model: str) -> str:
        """Return the colour of a model; the eighth has the first one's again."""
        return COLOURS[self.models.index(model) % len(COLOURS)]

    def text_colour(self, model: str) -> str:
        """Return the colour of words about a model: darker, since letters are thin."""
        return "#" + "".join(f"{round(int(self.colour(model)[i : i + 2], 16) * 0.68):02x}" for i in (1, 3, 5))

    def marker(self, model: str) -> str:
        """Return the marker of a model; models of one colour have different ones."""
        place = self.models.index(model)
        return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]

    def line_style(self, variant: str) -> Any:
        """Return the line style of a variant; a line without a named one is solid."""
        place = self.variants.index(variant) if variant in self.variants else 0
        return LINE_STYLES[place % len(LINE_STYLES)]

    def marker_style(self, model: str, *, hollow: bool = False) -> dict[str, Any]:
        """Return matplotlib's settings of a marker: hollow ones lie past the training length."""
        colour = self.colour(model)
        return {
            "color": colour,
            "marker": self.marker(model),
            "markersize": _MARKER_POINTS,
            "markerfacecolor": "white" if hollow else colour,
            "markeredgecolor": colour,
            "markeredgewidth": 1.3,
        }

    def handles(self, models: Sequence[str], *, lines: bool = True) -> list[Line2D]:
        """Return what the legend says of models, then of variants."""
        from matplotlib.lines import Line2D

        found = [
            Line2D([], [], label=shortened(m), linestyle="solid" if lines else "none", **self.marker_style(m))
            for m in models
        ]
        if lines and len(self.variants) > 1:
            found += [
                Line2D([], [], color=GREY, linewidth=1.6, linestyle=self.line_style(v), label=v)
                for v in self.variants
            ]
        return found

    @staticmethod
    def extra(label: str, **settings: Any) -> Line2D:
        """Return one further entry of the legend, in grey unless told otherwise."""
        from matplotlib.lines import Line2D

        return Line2D([], [], **{"color": GREY, "linestyle": "none", "label": label, **settings})


def tint(colour: str, share: float) -> str:
    """Return a colour mixed with white: 0 leaves it, 1 is white.

    >>> tint("#000000", 0.5)
    '#808080'
    """
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(p + (255 - p) * share):02x}" for p in parts)
