"""Figures of a speed table: for print, for readers of any colour vision, and in words for those who see none.

A model has one colour and marker in all of them, an arm or attention one line style. Bands are what the
estimates say: 95% intervals, or ranges where processes were few. Failures stand above the frame with their
word, points past a model's training length are hollow.

    drawn = figures(table)
    drawn["ttft"].description           # for an image's alt text
    save_figures(table, Path("out"))    # out/ttft.png, out/ttft.svg, ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.plots import save_all
from mambabench.plots.speed.catalogue import QUANTITIES
from mambabench.plots.speed.lines import draw_quantity
from mambabench.plots.speed.positions import draw_positions
from mambabench.plots.speed.sheet import sheet_style
from mambabench.plots.speed.states import draw_states

if TYPE_CHECKING:
    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.speed.table import SpeedTable

DRAW: dict[str, Callable[[SpeedTable], DescribedFigure | None]] = {
    "ttft": partial(draw_quantity, what=QUANTITIES["ttft"]),
    "itl_depth": partial(draw_quantity, what=QUANTITIES["itl_depth"]),
    "itl_position": draw_positions,
    "decode_tokens_per_s": partial(draw_quantity, what=QUANTITIES["decode_tokens_per_s"]),
    "peak_memory": partial(draw_quantity, what=QUANTITIES["peak_memory"]),
    "state_bytes": draw_states,
}
KEYS = tuple(DRAW)
"""Names of all figures, in the order of a report."""


def figures(table: SpeedTable) -> dict[str, DescribedFigure]:
    """Draw all figures that a table has data for.

    Args:
        table: of one sweep. Rows that nothing was measured for are left out, those that failed are marked.

    Returns:
        By name, in the order of `KEYS`. Each has a `description`: its title, then what it shows in sentences.
    """
    with sheet_style():
        found = {key: draw(table) for key, draw in DRAW.items()}
    return {key: figure for key, figure in found.items() if figure is not None}


def save_figures(table: SpeedTable, directory: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write all figures that a table has data for; equal tables give equal files.

    Args:
        table: of one sweep.
        directory: exists.
        formats: of "png", "svg" and "pdf".

    Returns:
        Paths of the files, figure by figure.

    Raises:
        UsageError: for another format, or a directory that cannot be written to.
    """
    return save_all(lambda: figures(table), directory, formats)
