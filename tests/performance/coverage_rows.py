"""A row and a section of the coverage tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The extremes of a share over cases."""

    n: int
    """Items."""
    cases: str
    value: str
    """How it was found: "sum", or "simulation" with its standard error."""
    least: float
    largest: float

    def cells(self) -> list[str]:
        """Return the row's cells, shares in percent."""
        return [f"{self.n:,}", self.cases, self.value, f"{self.least:.2%}", f"{self.largest:.2%}"]


@dataclass(frozen=True)
class Section:
    """One table."""

    title: str
    value: str
    """What the shares are of, for the column that says how they were found."""
    rows: Callable[[], Iterator[Row]]
