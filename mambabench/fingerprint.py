"""Canonical JSON and sha256: two results are the same if what they depend on hashes the same.

>>> digest({"b": 1, "a": [1.5, None]}) == digest({"a": [1.5, None], "b": 1})
True
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_CHUNK_BYTES = 1 << 22


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys and no spaces; equal values give equal text.

    Args:
        value: JSON types, tuples, paths and pydantic records. NaN and infinities are refused.

    Raises:
        ValueError: on NaN or an infinity.
        TypeError: on anything that JSON does not know.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def digest(value: Any) -> str:
    """Return the sha256 of `canonical_json(value)` in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal, read in blocks of 4 MiB."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()
