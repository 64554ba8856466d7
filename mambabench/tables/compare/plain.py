"""A comparison as JSON values: everything that it holds, and what it says in sentences.

print(json.dumps(as_json(comparison), allow_nan=False))
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.tables.compare.words import words

if TYPE_CHECKING:
    from mambabench.compare.result import Comparison

SCHEMA_VERSION: Final = 1
"""Of the document: raised when a field is renamed or given another meaning."""


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return plain JSON types; numbers are not rounded, and what is not a finite number is null."""
    written: dict[str, Any] = plain(comparison)
    return {"schema_version": SCHEMA_VERSION, "answers": words(comparison), **written}


def plain(value: Any) -> Any:
    """Return data of records, tuples, paths and numbers as JSON values.

    Halves of surrogate pairs, which no file holds, are written as Python writes them.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, Path):
        return plain(str(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    if isinstance(value, (tuple, list)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {plain(str(key)): plain(one) for key, one in value.items()}
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "item"):
        # A NumPy scalar, whose library is not needed here.
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} has no plain form")
