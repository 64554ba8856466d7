"""A figure that carries its own text."""

from __future__ import annotations

from matplotlib.figure import Figure


class DescribedFigure(Figure):
    """A figure with words for readers who do not see it."""

    description: str = ""
    """Title, then what is measured how, then one sentence a line; lines are separated by newlines."""
