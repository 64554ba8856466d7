"""Figures of a long-context table: recall by depth and by length, loss by context, all of it beside its cost.

They look as the sweeps' figures do: a model has one colour and marker in all of them, points past its
training length are hollow, and each figure carries its text for readers who do not see it.

    drawn = figures(table)
    drawn["recall_grid"].description      # for an image's alt text
    save_figures(table, Path("out"))      # out/recall_grid.png, out/recall_grid.svg, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.plots import save_all
from mambabench.plots.longcontext.context import draw_context
from mambabench.plots.longcontext.curves import draw_curves
from mambabench.plots.longcontext.grid import draw_grid
from mambabench.plots.longcontext.joined import draw_joined
from mambabench.plots.speed.sheet import sheet_style

if TYPE_CHECKING:
    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.longcontext.table import LongTable

DRAW = {
    "recall_grid": draw_grid,
    "recall_by_length": draw_curves,
    "loss_by_context": draw_context,
    "quality_and_cost": draw_joined,
}
KEYS = tuple(DRAW)
"""Names of all figures, in the order of a report."""


def figures(table: LongTable) -> dict[str, DescribedFigure]:
    """Draw all figures that a table has data for.

    Returns:
        By name, in the order of `KEYS`. Each has a `description`: its title, then what it shows in sentences.
    """
    with sheet_style():
        found = {key: draw(table) for key, draw in DRAW.items()}
    return {key: figure for key, figure in found.items() if figure is not None}


def save_figures(table: LongTable, directory: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write all figures that a table has data for; equal tables give equal files.

    Args:
        table: of one run.
        directory: exists.
        formats: of "png", "svg" and "pdf".

    Returns:
        Paths of the files, figure by figure.

    Raises:
        UsageError: for another format, or a directory that cannot be written to.
    """
    return save_all(lambda: figures(table), directory, formats)
