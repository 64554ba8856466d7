"""The device and the dtype that a user's words mean on this machine.

>>> pick_device("cpu")
'cpu'
"""

from __future__ import annotations

import re

from mambabench.errors import DeviceError, UsageError

_DTYPES = {
    "float32": "float32", "fp32": "float32", "float": "float32",
    "float16": "float16", "fp16": "float16", "half": "float16",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
}  # fmt: skip
_FIRST_WITH_BFLOAT16 = (8, 0)
"""Compute capability; below it no matrix unit takes bfloat16."""


def parse_device(text: str) -> tuple[str, int]:
    """Return ("auto" | "cpu" | "cuda", index) without looking at the machine.

    Raises:
        UsageError: another word.
    """
    wanted = text.strip().lower()
    match = re.fullmatch(r"cuda(?::(\d+))?", wanted)
    if match is not None:
        return "cuda", int(match.group(1) or 0)
    if wanted not in ("auto", "cpu"):
        raise UsageError(f"unknown device '{text}'", hint="Use auto, cpu, cuda or cuda:1.")
    return wanted, 0


def pick_device(text: str) -> str:
    """Return "cpu" or "cuda:i" for "auto", "cpu", "cuda" or "cuda:i".

    Raises:
        UsageError: another word.
        DeviceError: a GPU that is not there.
    """
    kind, index = parse_device(text)
    if kind == "cpu":
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return "cuda:0" if count else "cpu"
    if count == 0:
        why = "this PyTorch is built without CUDA" if torch.version.cuda is None else "no GPU is visible"
        raise DeviceError(f"'{text}' cannot be used: {why}", hint="`--device cpu` works everywhere.")
    if index >= count:
        raise DeviceError(
            f"'{text}' cannot be used: this machine has {count} GPUs, counted from 0",
            hint=f"The last one is cuda:{count - 1}.",
        )
    return f"cuda:{index}"


def capability_of(device: str) -> tuple[int, int] | None:
    """Return the compute capability of what `pick_device` returns; null for a CPU."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else None


def pick_dtype(text: str, *, device: str, stored: str, capability: tuple[int, int] | None = None) -> str:
    """Return "float32", "float16" or "bfloat16".

    Args:
        text: one of these, a usual abbreviation, or "auto": fp32 on a CPU; on a GPU fp16 for a checkpoint
            stored so and bf16 for all others, and fp16 for all where the GPU has no units for bf16.
        device: as `pick_device` returns it.
        stored: the checkpoint's dtype as safetensors writes it, for example "F16"; may be empty.
        capability: of the GPU; null where it is not known.

    Raises:
        UsageError: another word.
    """
    wanted = text.strip().lower()
    if wanted == "auto":
        if device == "cpu":
            return "float32"
        is_old = capability is not None and capability < _FIRST_WITH_BFLOAT16
        return "float16" if stored == "F16" or is_old else "bfloat16"
    if wanted not in _DTYPES:
        raise UsageError(f"unknown dtype '{text}'", hint="Use auto, float32, bfloat16 or float16.")
    return _DTYPES[wanted]


def device_name(device: str) -> str:
    """Return the product name of the processor or the GPU."""
    if device == "cpu":
        from mambabench.environment import processor_name

        return processor_name()
    import torch

    return str(torch.cuda.get_device_name(device))
