"""Rows of frames, and cells of tables made of them: figures as people read them, with the exact ones kept.

Texts of runs are untrusted: they are passed on as they are, but on one line and without control characters.

    >>> figure(52.264, "%").text, figure(52.264, "%", 50.1, 54.44).text
    ('52.3', '52.3 [50.1, 54.4]')
    >>> measured(0.01234, seconds, 0.0121, 0.0125).text
    '12.3 ms [12.1, 12.5]'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mambabench.report.document import EMPTY, Cell, Tone
from mambabench.tables.compare.format import harmless, shortened
from mambabench.tables.speed.format import Write, listed, number, percent, plural, seconds, size, times

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EMPTY",
    "Frames",
    "Row",
    "Rows",
    "figure",
    "harmless",
    "integer",
    "listed",
    "measured",
    "number",
    "percent",
    "plural",
    "rounded",
    "seconds",
    "shortened",
    "size",
    "some",
    "times",
    "unique",
    "whole",
]

Row = Mapping[str, Any]
"""One row of a frame: by column, None where nothing is."""

_DIGITS = {"%": 1, "pt": 1, "ppl": 2, "bits/byte": 4}
_LARGEST_WRITTEN_OUT = 1e5
_MOST_NAMED = 4


class Frames(Protocol):
    """What has frames by name, as `mambabench.load_runs` returns it."""

    def frame(self, name: str) -> pd.DataFrame:
        """Return a frame of the catalogue."""
        ...


class Rows:
    """Frames as rows of plain values, each read once.

    Args:
        frames: that have them.
    """

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._read: dict[str, list[Row]] = {}

    def __call__(self, name: str) -> list[Row]:
        """Return a frame's rows; texts are harmless, and what is missing or not a number is None."""
        if name not in self._read:
            frame = self._frames.frame(name)
            columns = [[_plain(value) for value in frame[column].tolist()] for column in frame.columns]
            names = list(frame.columns)
            self._read[name] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return self._read[name]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return harmless(value)
    # pandas' own mark of what is missing has no truth value.
    if value is None or type(value).__name__ == "NAType":
        return None
    return None if isinstance(value, float) and math.isnan(value) else value


def rounded(value: float, unit: str = "") -> str:
    """Return as many digits as a paper prints; an untrained model's perplexity needs an exponent."""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if abs(value) >= _LARGEST_WRITTEN_OUT:
        return f"{value:.2e}"
    return f"{value:.{_DIGITS.get(unit, 3)}f}"


def figure(
    value: float | None,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    *,
    tone: Tone = "",
    note: str = "",
    frame: str = "",
) -> Cell:
    """Return the cell of a score, with its interval where it has one; the unit stands elsewhere."""
    if value is None:
        return EMPTY
    if low is None or high is None:
        return Cell(rounded(value, unit), (value,), tone, note, frame)
    text = f"{rounded(value, unit)} [{rounded(low, unit)}, {rounded(high, unit)}]"
    return Cell(text, (value, low, high), tone, note, frame)


def measured(
    value: float | None,
    write: Write,
    low: float | None = None,
    high: float | None = None,
    *,
    tone: Tone = "",
    note: str = "",
    frame: str = "",
) -> Cell:
    """Return the cell of a time, a size or a rate with its unit, and its interval where ends differ."""
    if value is None:
        return EMPTY
    text = _written(value, write)
    if low is None or high is None or low == high:
        return Cell(text, (value,), tone, note, frame)
    ends = [_written(low, write), _written(high, write)]
    unit = text.partition(" ")[2]
    if unit and all(end.partition(" ")[2] == unit for end in ends):
        ends = [end.partition(" ")[0] for end in ends]
    return Cell(f"{text} [{ends[0]}, {ends[1]}]", (value, low, high), tone, note, frame)


def _written(value: float, write: Write) -> str:
    return write(value) if math.isfinite(value) else rounded(value)


def whole(value: float) -> str:
    """Return a whole number with commas."""
    return f"{value:,.0f}"


def integer(value: int | None, *, tone: Tone = "", note: str = "", frame: str = "") -> Cell:
    """Return the cell of a count or a length."""
    return EMPTY if value is None else Cell(whole(value), (value,), tone, note, frame)


def unique(values: Iterable[Any]) -> list[Any]:
    """Return what is there, each once, in order."""
    return list(dict.fromkeys(value for value in values if value is not None))


def some(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """Return names as in a sentence; of many the first ones and how many more.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    # Names may have commas of their own.
    return "; ".join(names) if any("," in name for name in names) else listed(list(names))
