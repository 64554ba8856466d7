"""Sizes as people write them."""

from __future__ import annotations

import pytest

from mambabench.units import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MB", 256_000_000), ("2GiB", 1 << 31), ("1.5 kb", 1_500), ("24g", 24 * 10**9), ("7", 7),
        (" 1TiB ", 1 << 40), ("12B", 12), (".5MiB", 1 << 19),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "12 bytes", "-3MB", "1,5GB", "0x10", "3XB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_bytes(text)
