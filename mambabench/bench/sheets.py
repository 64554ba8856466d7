"""What NVIDIA's data sheets promise of a card, by the name under which the driver reports it.

Figures are of NVIDIA's published data sheets and architecture white papers of each product: memory bandwidth,
dense (not sparse) matrix products in fp16 and bf16 that are summed up in fp32, and fp32 without TF32, as
torch multiplies unless asked otherwise.

    >>> sheet("NVIDIA H100 80GB HBM3", "bfloat16")
    (3350000000000.0, 989400000000000.0)
    >>> sheet("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16")
    (None, None)
"""

from __future__ import annotations

import re
from typing import NamedTuple


class _Card(NamedTuple):
    """One product."""

    name: str
    """Regular expression for the whole name without the maker's words, in lower case."""
    gb_per_s: float
    half_tflops: float
    """In fp16."""
    single_tflops: float
    bf16: bool = True
    """Whether its matrix units know bf16, which are then as fast in it."""


_CARDS = (
    _Card(r"b200", 7700, 2250, 75),
    _Card(r"h200", 4800, 989.4, 66.9),
    _Card(r"h200 nvl", 4800, 835.5, 60),
    _Card(r"h100 (80gb hbm3|sxm5?( 80gb)?)", 3350, 989.4, 66.9),
    _Card(r"h100 nvl", 3938, 835.5, 60),
    _Card(r"h100 pcie", 2039, 756, 51.2),
    _Card(r"a100 sxm4? 80gb", 2039, 312, 19.5),
    _Card(r"a100 sxm4? 40gb", 1555, 312, 19.5),
    _Card(r"a100 (80gb pcie|pcie 80gb)", 1935, 312, 19.5),
    _Card(r"a100 (40gb pcie|pcie 40gb)", 1555, 312, 19.5),
    _Card(r"l4", 300, 121, 30.3),
    _Card(r"l40", 864, 181.05, 90.5),
    _Card(r"l40s", 864, 362.05, 91.6),
    _Card(r"a10", 600, 125, 31.2),
    _Card(r"a40", 696, 149.7, 37.4),
    _Card(r"(rtx )?a6000", 768, 154.8, 38.7),
    _Card(r"rtx 3090", 936, 71, 35.6),
    _Card(r"rtx 4090", 1008, 165.2, 82.6),
    _Card(r"rtx 5090", 1792, 209.5, 104.8),
    _Card(r"v100 sxm2 (16|32)gb", 900, 125, 15.7, bf16=False),
    _Card(r"v100 pcie (16|32)gb", 900, 112, 14, bf16=False),
    _Card(r"t4", 320, 65, 8.1, bf16=False),
)
_MAKER = re.compile(r"\b(nvidia|tesla|geforce|quadro)\b")


def sheet(device_name: str, dtype: str) -> tuple[float | None, float | None]:
    """Return a card's memory bandwidth in bytes a second and its matrix products in operations a second.

    Args:
        device_name: as torch or the driver gives it; a part of a card (MIG) is not the card.
        dtype: "float32", "bfloat16" or "float16".

    Returns:
        None for what is not known, and for bf16 where the card's matrix units do not have it.
    """
    words = " ".join(_MAKER.sub(" ", device_name.lower().replace("-", " ")).split())
    for card in _CARDS:
        if re.fullmatch(card.name, words):
            tflops = {"float32": card.single_tflops, "float16": card.half_tflops}
            if card.bf16:
                tflops["bfloat16"] = card.half_tflops
            flops = tflops.get(dtype)
            return card.gb_per_s * 1e9, None if flops is None else flops * 1e12
    return None, None
