"""Every colour of every figure: those of data, and the greys of words, lines and surfaces around them.

A page in dark colours may exchange those in `ON_DARK` and no others: an SVG names its colours as they are
written here. Numbers upon cells of a map are as light or dark as their cell needs, on any page, and so have
colours of their own.

>>> ON_DARK[TEXT], ON_DARK[darkened(COLOURS[0])]
('#e4e4e4', '#66aad1')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Of models: those of Okabe and Ito (2008), told apart by people with any colour vision."""

TEXT: Final = "#222222"
"""Words, and lines that bound all models alike."""
MUTED: Final = "#666666"
"""Words and marks of less weight: the line below the title, marks in legends."""
RULE: Final = "#888888"
"""Axes, chance, the end of a training length, zero."""
FAINT: Final = "#d4d4d4"
"""Lines of models that are there to compare with."""
GRID: Final = "#e4e4e4"
BAND: Final = "#ececec"
"""Surfaces behind data: a margin, what is unsupported."""
PAPER: Final = "#ffffff"
"""The ground; hollow markers are filled with it."""
ON_CELL_LIGHT: Final = "#fefefe"
ON_CELL_DARK: Final = "#010101"
"""Numbers and lines upon the cells of a map."""


_DARKEST: Final = 11


def tint(colour: str, share: float) -> str:
    """Return a colour mixed with white: 0 leaves it, 1 is white.

    >>> tint("#000000", 0.5)
    '#808080'
    """
    return _of_parts(p + (255 - p) * share for p in _parts(colour))


def darkened(colour: str) -> str:
    """Return a colour of data as words have it: darker, since letters are thin.

    Never black itself, which an SVG leaves out as what words are anyway.

    >>> darkened("#d55e00"), darkened("#000000")
    ('#91400b', '#0b0b0b')
    """
    return _of_parts(max(_DARKEST, p * 0.68) for p in _parts(colour))


def _parts(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _of_parts(parts: Iterable[float]) -> str:
    return "#" + "".join(f"{round(p):02x}" for p in parts)


ON_DARK: Final[Mapping[str, str]] = {
    TEXT: "#e4e4e4",
    MUTED: "#a8a8a8",
    RULE: "#8c8c8c",
    FAINT: "#4a4a4a",
    GRID: "#343434",
    BAND: "#2b2b2b",
    PAPER: "#171717",
    COLOURS[-1]: "#f5f5f5",
    **{darkened(colour): tint(colour, 0.4) for colour in COLOURS[:-1]},
    darkened(COLOURS[-1]): "#f5f5f5",
    # The two blues stay apart where the darker one has to be lighter.
    COLOURS[0]: "#2a86c8",
    COLOURS[5]: "#8fd0f5",
}
"""By the colour of a figure on white: what to put in its place on a dark ground."""
