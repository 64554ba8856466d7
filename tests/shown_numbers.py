"""Whether what a report's tables show is what their frames hold, rounded."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from decimal import Decimal

import pandas as pd

from mambabench.report.document import Cell, Table

_TOKEN = re.compile(r"[+-]?(?:\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|inf)")
_UNIT = re.compile(r" ?([A-Za-zµ%][A-Za-z/]*)")
_FACTORS = {
    "s": [1.0], "ms": [1e-3], "µs": [1e-6], "ns": [1e-9], "TB": [1e12], "GB": [1e9], "MB": [1e6], "kB": [1e3],
    # Of bytes, and of billions of parameters.
    "B": [1.0, 1e9], "M": [1e6], "K": [1e3], "%": [1.0, 0.01], "TFLOP/s": [1e12], "GFLOP/s": [1e9],
    "MFLOP/s": [1e6],
}  # fmt: skip


def check_tables(tables: Iterable[Table], frame: Callable[[str], pd.DataFrame]) -> int:
    """Check every cell and return how many figures there were.

    Raises:
        AssertionError: a figure is not in the frame that its table or cell names, or is shown as another.
    """
    held: dict[str, set[float]] = {}
    n = 0
    for table in tables:
        for row in table.rows:
            for cell in row:
                name = cell.frame or table.frame
                if cell.numbers and name not in held:
                    held[name] = _values(frame(name))
                for number in cell.numbers:
                    assert float(number) in held[name], (table.key, name, cell)
                if cell.numbers:
                    check_text(cell)
                n += len(cell.numbers)
    return n


def _values(frame: pd.DataFrame) -> set[float]:
    numeric = frame.select_dtypes(["number"])
    return {float(x) for column in numeric for x in numeric[column].dropna().tolist()}


def check_text(cell: Cell) -> None:
    """Check that a cell's text shows its figures in their order, each rounded."""
    tokens = list(_TOKEN.finditer(cell.text))
    assert len(tokens) >= len(cell.numbers), cell
    unit = ""
    for token, number in zip(tokens, cell.numbers, strict=False):
        if cell.text.startswith("<"):
            assert number < float(token[0]), cell
            continue
        after = _UNIT.match(cell.text, token.end())
        unit = after[1] if after and after[1] in _FACTORS else unit
        factors = _FACTORS.get(unit, [1.0])
        assert any(_is_rounded(token[0].replace(",", ""), factor, float(number)) for factor in factors), cell


def _is_rounded(token: str, factor: float, number: float) -> bool:
    if "inf" in token or math.isinf(number):
        return float(token) == number
    step = 10.0 ** int(Decimal(token).as_tuple().exponent) * factor
    slack = step / 2
    if "." not in token and "e" not in token:
        # Three digits, without an exponent.
        slack = max(slack, 0.00501 * abs(number))
    return abs(float(token) * factor - number) <= slack * (1 + 1e-9)
