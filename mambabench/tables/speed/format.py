"""Times, sizes and estimates as people read them, for tables and sentences.

>>> seconds(0.01234), size(6.7e9), number(71234.0), percent(0.0512)
('12.3 ms', '6.7 GB', '71,200', '5.1%')
"""

from __future__ import annotations

from collections.abc import Callable

from mambabench.stats.replicates import Estimate
from mambabench.units import number as number
from mambabench.units import size as size

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_FLOPS = ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"))

Write = Callable[[float], str]


def seconds(value: float) -> str:
    """Return a time with its unit."""
    return _in_units(value, _TIMES)


def flops(value: float) -> str:
    """Return operations a second with their unit."""
    return _in_units(value, _FLOPS)


def percent(share: float, *, signed: bool = False) -> str:
    """Return a share of 1 with one decimal below 100%."""
    value = 100 * share
    decimals = 1 if abs(value) < 99.95 else 0
    text = f"{value:{'+' if signed else ''}.{decimals}f}%"
    return "0.0%" if text in ("+0.0%", "-0.0%") else text


def times(ratio: float) -> str:
    """Return a ratio: two decimals where it is small."""
    return f"{ratio:.2f}" if 0.1 <= ratio < 99.5 else number(ratio)


def with_interval(estimate: Estimate, write: Write, unit: str = "") -> str:
    """Return a figure with its interval, or with its range under that name; `unit` follows the figure only.

    >>> with_interval(Estimate(0.5, 0.4, 0.6, 3, "range"), seconds)
    '500 ms (range 400 ms to 600 ms of 3 processes)'
    """
    value, ends = f"{write(estimate.value)}{unit}", f"{write(estimate.low)} to {write(estimate.high)}"
    if estimate.method == "t on log":
        return f"{value} (95% interval {ends})"
    if estimate.method == "range":
        return f"{value} (range {ends} of {estimate.n} processes)"
    return f"{value} (one process)"


def plural(n: int, one: str, many: str = "") -> str:
    """Return a count with its noun.

    >>> plural(1, "process", "processes"), plural(2000, "point")
    ('1 process', '2,000 points')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: list[str]) -> str:
    """Return words joined as in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _in_units(value: float, units: tuple[tuple[float, str], ...]) -> str:
    factor, unit = next((u for u in units if abs(value) >= 0.9995 * u[0]), units[-1])
    return f"{number(value / factor)} {unit}"
