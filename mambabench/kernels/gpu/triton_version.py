"""Which Triton our kernels may be compiled with, asked without importing it.

    too_old("3.2.0")          # words, with the way out after the semicolon
    too_old("3.3.1")          # null

Triton 3.2 compiles `_triton_ssd.tiles` without a word into a kernel that gives wrong numbers: for operands
of 16 bits it lays out a transposed one wrongly (compute capability 8.0), and a running sum of 16 numbers in
a warp of 32 is wrong. The machine code of 3.3.1, 3.4.0, 3.5.1, 3.6.0 and 3.9.0, run in an emulator, agrees
with float64.
"""

from __future__ import annotations

from importlib import metadata

_OLDEST = "3.3"
_NAMES = ("triton", "pytorch-triton", "triton-windows")


def installed() -> str | None:
    """Return the version of whichever package brought Triton; null where none says so."""
    for name in _NAMES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def too_old(version: str | None) -> str | None:
    """Return why a version cannot be used, in words, or null, which an unknown one gets, too."""
    from packaging.version import Version

    if version is None or Version(version) >= Version(_OLDEST):
        return None
    return f"triton {version} computes Mamba-2's scan wrongly; install torch 2.7 or later"
