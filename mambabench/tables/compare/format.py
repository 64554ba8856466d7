"""Figures of a comparison as people read them, and texts of items made harmless for a terminal.

>>> p_value(0.0004), signed(-3.04, "pt", 4.0), harmless("a\\n\\x1b[31mb")
('<0.001', '-3.0', 'a \\\\x1b[31mb')
"""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mambabench.compare.result import Contrast

_T = TypeVar("_T")
_VALUE = {"%": "{:.1f}%", "ppl": "{:.2f}", "bits/byte": "{:.4f}", "nats": "{:.3f}"}
_DECIMALS = {"pt": 1, "%": 1, "bits/byte": 4, "nats": 3}
_FINE = 0.5
"""Half a width of an interval, in points or percent, below which a second decimal says something."""
_LARGEST_WRITTEN_OUT = 1e5
_NOTHING = 1e-9
"""Share of an interval's width that is taken for rounding."""
_SPACE = re.compile(r"\s+")
_UNITS = {"pt": ("point", "points"), "nats": ("nat", "nats")}


def harmless(value: _T) -> _T:
    """Return a text, or plain data with all its texts, on one line and without what a terminal obeys.

    Control characters, invisible ones and halves of surrogate pairs are written as Python writes them.
    """
    return _harmless(value)  # type: ignore[no-any-return]


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        line = _SPACE.sub(" ", value)
        return line if line.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in line)
    if isinstance(value, tuple):
        return tuple(_harmless(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _harmless(getattr(value, f.name)) for f in fields(value) if f.init})
    return value


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shortened(text: str, letters: int, *, keep_end: bool = False) -> str:
    """Return a text that is at most so long; what is left out shows as an ellipsis."""
    if len(text) <= letters:
        return text
    return f"…{text[len(text) - letters + 1 :].lstrip()}" if keep_end else f"{text[: letters - 1].rstrip()}…"


def value(number: float | None, unit: str) -> str:
    """Return a value of one side with its unit where that is short."""
    if number is None or not math.isfinite(number):
        return "-"
    if unit == "ppl" and abs(number) >= _LARGEST_WRITTEN_OUT:
        return f"{number:.2e}"
    return _VALUE.get(unit, "{:.3f}").format(number)


def signed(number: float | None, unit: str, width: float | None = None) -> str:
    """Return a difference with its sign and without its unit.

    Args:
        number: in `unit`.
        unit: of the effect: "pt", "%", "bits/byte", "nats" or "".
        width: of its interval; narrow ones get one more decimal.
    """
    if number is None or math.isnan(number):
        return "-"
    if math.isinf(number):
        return "+inf" if number > 0 else "-inf"
    if abs(number) >= _LARGEST_WRITTEN_OUT:
        return f"{number:+.1e}"
    decimals = _DECIMALS.get(unit, 3)
    if unit in ("pt", "%") and width is not None and width < 2 * _FINE:
        decimals += 1
    text = f"{number:+.{decimals}f}"
    # Neither side is ahead by a difference that is not shown.
    return text[1:] if not text.strip("+-0.") else text


def interval(low: float | None, high: float | None, unit: str) -> str:
    """Return the ends of an interval; empty where the items determine none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{_end(low, unit, high - low)} to {_end(high, unit, high - low)}"


def _end(number: float, unit: str, width: float) -> str:
    text = signed(number, unit, width)
    if text.strip("0.") or abs(number) <= _NOTHING * width:
        return text
    # Which side of 0 an end is on must show, however near it is.
    return f"{number:+.1g}"


def p_value(number: float | None) -> str:
    """Return a p-value with two digits, down to a thousandth."""
    if number is None or math.isnan(number):
        return "-"
    if number < 0.001:
        return "<0.001"
    return f"{number:.3f}" if number < 0.0995 else f"{number:.2f}"


def p_words(number: float) -> str:
    """Return a p-value for sentences."""
    text = p_value(number)
    return f"p {text[0]} {text[1:]}" if text.startswith("<") else f"p = {text}"


def amount(number: float, unit: str) -> str:
    """Return a size without sign, with its unit in words.

    >>> amount(1.0, "pt"), amount(2.5, "pt"), amount(3.0, "%")
    ('1 point', '2.5 points', '3%')
    """
    digits = f"{number:.{_DECIMALS.get(unit, 3)}f}"
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    if not digits.strip("0."):
        digits = f"{number:.1g}"
    if unit == "%":
        return f"{digits}%"
    one, many = _UNITS.get(unit, (unit, unit))
    return f"{digits} {one if digits == '1' else many}".rstrip()


def effect(contrast: Contrast) -> str:
    """Return a contrast's difference with its unit in words and its interval."""
    low, high, unit = contrast.low, contrast.high, contrast.effect_unit
    ends = interval(low, high, unit)
    width = None if low is None or high is None else high - low
    number = signed(contrast.difference, unit, width)
    many = "%" if unit == "%" else f" {_UNITS.get(unit, (unit, unit))[1]}".rstrip()
    return f"{number}{many} (95% {ends})" if ends else f"{number}{many}"
