"""What a column of a frame is, and short ways of writing one down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ColumnType = Literal["text", "number", "integer", "flag"]


@dataclass(frozen=True)
class Column:
    """One column of a frame."""

    name: str
    type: ColumnType
    text: str
    """What it says, as a phrase or sentences."""
    unit: str = ""
    """Empty where there is none, where the name says it, or where another column does."""


def text(name: str, what: str) -> Column:
    """Return a column of texts."""
    return Column(name, "text", what)


def number(name: str, what: str, unit: str = "") -> Column:
    """Return a column of numbers."""
    return Column(name, "number", what, unit)


def integer(name: str, what: str, unit: str = "") -> Column:
    """Return a column of whole numbers."""
    return Column(name, "integer", what, unit)


def flag(name: str, what: str) -> Column:
    """Return a column of yes and no."""
    return Column(name, "flag", what)


WHO: Final = (
    text("run", "name of its directory; unique, by a number at the end where two have the same"),
    text("label", "the model's name in tables; with the run's where two runs hold the same figure of it"),
    text("model", "the model's name as its run has it"),
)


def interval(what: str = "the value") -> tuple[Column, ...]:
    """Return the two columns of a 95% interval."""
    return (
        number("interval_low", f"lower end of the 95% interval of {what}; missing where undetermined"),
        number("interval_high", "upper end"),
    )
