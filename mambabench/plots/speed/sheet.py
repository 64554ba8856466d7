"""The sheet a figure is drawn on: panels, title with subtitle, legend below, text for who cannot see it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mambabench.plots import STYLE, width_letters
from mambabench.plots.palette import GRID, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Transform

    from mambabench.plots.speed.described import DescribedFigure

_SINGLE_INCHES = (7.2, 3.5)
_PANEL_INCHES = (3.3, 2.2)
_LINE_INCHES = 0.165
_TITLE_INCHES = 0.27
_LETTERS_PER_INCH = 14.5
_SUBTITLE_LETTERS_PER_INCH = 15.5
_MARGIN_INCHES = 0.75
_NO_BREAK = "\u00a0"


class Sheet:
    """A figure being drawn: make it, draw on its axes, then `finish` it."""

    def __init__(
        self,
        n_panels: int = 1,
        n_columns: int = 1,
        *,
        height_inches: float | None = None,
        width_inches: float | None = None,
        lanes: int = 0,
        same_values: bool = True,
        same_places: bool = True,
    ) -> None:
        """Make empty panels.

        Args:
            n_panels: pairs of axes.
            n_columns: of them.
            height_inches: of each panel; the usual one when omitted.
            width_inches: the same.
            lanes: lines of text that go above each panel.
            same_values: whether all have the same vertical scale.
            same_places: whether all have the same horizontal scale.
        """
        from mambabench.plots.speed.described import DescribedFigure

        self._n_columns = n_columns
        n_rows = -(-n_panels // n_columns)
        width, height = _SINGLE_INCHES if n_panels == 1 else _PANEL_INCHES
        width, height = width_inches or width, height_inches or height
        self._size = [width * n_columns, (height + lanes * _LINE_INCHES) * n_rows]
        self.panel_inches = width - _MARGIN_INCHES
        """Width inside a panel's frame, about."""
        self.figure = DescribedFigure(figsize=(1, 1), layout="constrained")
        grid = self.figure.subplots(n_rows, n_columns, sharex=same_places, sharey=same_values, squeeze=False)
        self.axes: list[Axes] = list(grid.flat)[:n_panels]
        for unused in list(grid.flat)[n_panels:]:
            unused.remove()
        for place, axes in enumerate(self.axes):
            # A panel with nothing below it shows the ticks that it shares.
            labelled = not same_values or place % n_columns == 0
            lowest = not same_places or place + n_columns >= n_panels
            axes.tick_params(labelbottom=lowest, labelleft=labelled)
            axes.grid(color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)

    def label_outer(self) -> None:
        """Leave axis labels to the outermost panels."""
        for place, axes in enumerate(self.axes):
            if place // self._n_columns < (len(self.axes) - 1) // self._n_columns:
                axes.set_xlabel("")
            if place % self._n_columns:
                axes.set_ylabel("")

    def finish(
        self, title: str, subtitle: str, handles: Sequence[Line2D], sentences: Sequence[str]
    ) -> DescribedFigure:
        """Add title and legend, fit the height to them, and attach the description.

        Args:
            title: what is shown.
            subtitle: of what, how measured; wrapped as needed.
            handles: entries of the legend, which stands below the panels.
            sentences: what the drawing shows, for the description.
        """
        width = self._size[0]
        # A line ends with a dot rather than begins with one.
        parted = subtitle.replace(" · ", f"{_NO_BREAK}· ")
        wrapped = textwrap.wrap(parted, int(width * _SUBTITLE_LETTERS_PER_INCH), break_on_hyphens=False)
        lines = [line.replace(_NO_BREAK, " ") for line in wrapped]
        n_columns = _legend_columns(handles, width)
        n_legend_rows = math.ceil(len(handles) / n_columns)
        header_inches = _TITLE_INCHES + len(lines) * _LINE_INCHES + 0.05
        height = self._size[1] + header_inches + (0.1 + n_legend_rows * 0.19 if handles else 0.0)
        self.figure.set_size_inches(width, height)
        left, top = 0.08 / width, 1 - 0.06 / height
        self.figure.text(left, top, title, ha="left", va="top", fontsize=11, fontweight="bold")
        self.figure.text(
            left, 1 - _TITLE_INCHES / height, "\n".join(lines), ha="left", va="top", fontsize=8.5,
            color=MUTED, linespacing=1.3,
        )  # fmt: skip
        self.figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - header_inches / height))
        if handles:
            self.figure.legend(
                handles=_row_by_row(handles, n_columns), loc="outside lower left", ncols=n_columns,
                frameon=False, handlelength=2.6, columnspacing=1.6,
            )  # fmt: skip
        self.figure.description = "\n".join([title, f"{subtitle}.", *sentences])
        return self.figure


@contextmanager
def sheet_style() -> Iterator[None]:
    """Draw with the style of these figures."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def above(axes: Axes, points: float) -> Transform:
    """Return the transform of what stands at a value of x and so many points above a height of the frame."""
    from matplotlib.transforms import ScaledTranslation

    return axes.get_xaxis_transform() + ScaledTranslation(0, points / 72, axes.figure.dpi_scale_trans)


def _legend_columns(handles: Sequence[Line2D], width_inches: float) -> int:
    longest = max((width_letters(str(h.get_label())) for h in handles), default=1)
    fit = int((width_inches - 0.2) / (0.65 + longest / _LETTERS_PER_INCH))
    return max(1, min(fit, 5, len(handles) or 1))


def _row_by_row(handles: Sequence[Line2D], n_columns: int) -> list[Line2D]:
    """Order a legend so that it reads along its rows; matplotlib fills it down its columns."""
    return [handle for column in range(n_columns) for handle in handles[column::n_columns]]
