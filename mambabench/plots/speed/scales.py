"""Axes that people read: which are logarithmic, where their ticks are and what they say.

>>> tokens_text(8192), tokens_text(10000), quantity(0.0123, "s"), quantity(1.5e9, "bytes")
('8k', '10,000', '12.3 ms', '1.5 GB')
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Unit = Literal["s", "bytes", "tokens/s", "J"]

_DECADE = 10.0
_PREFIXED: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")),
    "bytes": ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")),
    "tokens/s": ((1.0, ""),),
    "J": ((1e-6, "µJ"), (1e-3, "mJ"), (1.0, "J"), (1e3, "kJ")),
}
_KI = 1024
_LETTER_INCHES = 0.085
_TICK_INCHES = 0.62
_MOST_TICKS = 12
_FINE = 300
"""Largest over smallest value up to which there are ticks between powers of ten."""


def tokens_text(n: int) -> str:
    """Return a count of tokens: multiples of 1024 as 1k, of 1024 * 1024 as 1M, all others in full."""
    if n and n % _KI**2 == 0:
        return f"{n // _KI**2:,}M"
    return f"{n // _KI:,}k" if n and n % _KI == 0 else f"{n:,}"


def quantity(value: float, unit: Unit) -> str:
    """Return a figure with its unit, three digits of it; bytes in powers of 1000."""
    size, name = unit_of(value, unit)
    return f"{_digits(value / size)} {name}".rstrip()


def unit_of(value: float, unit: Unit) -> tuple[float, str]:
    """Return size and name of the prefixed unit in which a value is at least 1."""
    found = _PREFIXED[unit][0]
    for candidate in _PREFIXED[unit]:
        # A hair below, so that 0.001 s is 1 ms whatever its last bit.
        if abs(value) >= candidate[0] * (1 - 1e-9):
            found = candidate
    return found


def spans_decades(values: Sequence[float]) -> bool:
    """Say whether positive values are spread over more than a factor of ten."""
    found = [v for v in values if v > 0 and math.isfinite(v)]
    return bool(found) and max(found) > _DECADE * min(found)


def scale_values(
    axes: Axes,
    values: Sequence[float],
    unit: Unit,
    label: str,
    *,
    log: bool,
    vertical: bool = True,
    width_inches: float = math.inf,
) -> None:
    """Set up the axis of the figures so that all values are inside: from 0, or logarithmic.

    Args:
        axes: to set up.
        values: that must be inside.
        unit: theirs.
        label: of the axis.
        log: whether steps are of equal factors.
        vertical: whether it is the vertical axis.
        width_inches: of a horizontal axis, whose ticks must not touch.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axis = axes.yaxis if vertical else axes.xaxis
    set_limits = axes.set_ylim if vertical else axes.set_xlim
    found = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
    low, high = min(found), max(found)
    fit = max(2, int(min(_MOST_TICKS, width_inches / _TICK_INCHES)))
    if log:
        room = (high / low) ** 0.06
        (axes.set_yscale if vertical else axes.set_xscale)("log")
        set_limits(low / room, high * room)
        decades = math.log10(high / low)
        fine = ((1.0, 2.0, 5.0), (1.0, 3.0)) if high < low * _FINE else ()
        subs = next((found for found in fine if len(found) * decades < fit + 1), (1.0,))
        axis.set_major_locator(LogLocator(subs=subs, numticks=_MOST_TICKS))
        axis.set_major_formatter(FuncFormatter(lambda v, _: quantity(v, unit)))
        axis.set_minor_formatter(NullFormatter())
        named = ""
    else:
        size, named = unit_of(high, unit)
        set_limits(0.0, high * 1.06)
        axis.set_major_locator(MaxNLocator(min(6, fit), steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda v, _: _digits(v / size)))
    text = f"{label} ({named})" if named else label
    (axes.set_ylabel if vertical else axes.set_xlabel)(text)


def scale_counts(
    axes: Axes,
    values: Sequence[int],
    label: str,
    *,
    width_inches: float,
    ends: tuple[int, int] | None = None,
    log: bool | None = None,
) -> None:
    """Set up the horizontal axis for lengths or batch sizes, with ticks at those that were measured.

    Args:
        axes: to set up.
        values: in order, from 1; at least two different ones.
        label: of the axis.
        width_inches: of the axis: labels that would touch are left out.
        ends: of the axis, where it shows more than the values.
        log: whether steps are of equal factors; when omitted, where values are spread that far.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

    low, high = ends or (values[0], values[-1])
    if spans_decades((low, high)) if log is None else log:
        axes.set_xscale("log", base=2)
        room = (high / low) ** 0.035
        axes.set_xlim(low / room, high * room)
        places = [math.log(v / low) / math.log(high / low) for v in values]
    else:
        room = (high - low) * 0.035
        axes.set_xlim(low - room, high + room)
        places = [(v - low) / (high - low) for v in values]
    texts = [tokens_text(v) for v in values]
    kept = _apart([p * width_inches * 0.93 for p in places], [len(t) * _LETTER_INCHES for t in texts])
    axes.xaxis.set_major_locator(FixedLocator([values[i] for i in kept]))
    axes.xaxis.set_major_formatter(FixedFormatter([texts[i] for i in kept]))
    # Unlabelled ticks stay at the values left out.
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(FixedLocator(list(values)) if len(kept) < len(values) else NullLocator())
    axes.set_xlabel(label)


def _apart(places_inches: Sequence[float], widths_inches: Sequence[float]) -> list[int]:
    """Return which labels to keep so that none touch.

    Every so many counted from the last, which looks best; where places are uneven and that leaves too few,
    both ends and whatever fits between them.
    """

    def clear(a: int, b: int) -> bool:
        between = places_inches[b] - places_inches[a] - (widths_inches[a] + widths_inches[b]) / 2
        return between > _LETTER_INCHES

    n = len(places_inches)
    strides = (list(range(n - 1, -1, -stride))[::-1] for stride in range(1, n + 1))
    even = next(kept for kept in strides if all(clear(a, b) for a, b in itertools.pairwise(kept)))
    uneven = [0]
    for i in range(1, n - 1):
        if clear(uneven[-1], i) and clear(i, n - 1):
            uneven.append(i)
    uneven += [n - 1] if clear(uneven[-1], n - 1) else []
    return even if len(even) >= len(uneven) - 1 else uneven


def _digits(value: float) -> str:
    """Return three digits of a number, without an exponent or trailing zeros."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
