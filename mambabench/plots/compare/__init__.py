"""Figures of a comparison: differences with their intervals and the margin, and calibration.

A side has one colour and marker in all of them, and each figure carries its text for readers who do not see
it.

    drawn = figures(comparison)
    drawn["differences"].description       # for an image's alt text
    save_figures(comparison, Path("out"))  # out/differences.png, out/differences.svg, ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.plots import save_all
from mambabench.plots.compare.calibration import draw_calibration
from mambabench.plots.compare.differences import draw_differences
from mambabench.plots.speed.sheet import sheet_style

if TYPE_CHECKING:
    from mambabench.compare.result import Comparison
    from mambabench.plots.speed.described import DescribedFigure

DRAW: dict[str, Callable[[Comparison], DescribedFigure | None]] = {
    "differences": partial(draw_differences, unit="pt"),
    "perplexities": partial(draw_differences, unit="%"),
    "bits_per_byte": partial(draw_differences, unit="bits/byte"),
    "log_likelihoods": partial(draw_differences, unit="nats"),
    "calibration": draw_calibration,
}
KEYS = tuple(DRAW)
"""Names of all figures, in the order of a report."""


def figures(comparison: Comparison) -> dict[str, DescribedFigure]:
    """Draw all figures that a comparison has data for.

    Returns:
        By name, in the order of `KEYS`. Each has a `description`: its title, then what it shows in sentences.
    """
    with sheet_style():
        found = {key: draw(comparison) for key, draw in DRAW.items()}
    return {key: figure for key, figure in found.items() if figure is not None}


def save_figures(
    comparison: Comparison, directory: Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write all figures that a comparison has data for; equal comparisons give equal files.

    Args:
        comparison: of one baseline.
        directory: exists.
        formats: of "png", "svg" and "pdf".

    Returns:
        Paths of the files, figure by figure.

    Raises:
        UsageError: for another format, or a directory that cannot be written to.
    """
    return save_all(lambda: figures(comparison), directory, formats)
