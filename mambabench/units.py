"""Sizes as people write them.

>>> parse_bytes("256MB"), parse_bytes("2 GiB")
(256000000, 2147483648)
>>> format_bytes(2_745_000_000), format_bytes(900)
('2.75 GB', '900 B')
"""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", 1)
    for suffix, base in (("b", 1000), ("ib", 1024), ("", 1000))
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Return the bytes of a size such as "256MB" (10^6) or "2GiB" (2^30).

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"'{text}' is not a size")
    return int(float(match[1]) * unit)


def format_bytes(size_bytes: float) -> str:
    """Return a size with three digits in powers of 1000."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(size_bytes) >= 0.9995 * factor:
            scaled = size_bytes / factor
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:,.{digits}f} {unit}"
    return f"{size_bytes:.0f} B"
