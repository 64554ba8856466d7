"""The devices of this machine as a process sees them that must not import torch: the parent of a sweep.

>>> seen_device("cpu")
'cpu'
>>> capacity_bytes("cpu") > 1 << 28
True
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from mambabench.environment import nvidia_gpus
from mambabench.errors import DeviceError
from mambabench.models.device import parse_device

_CUDA_BUILD = re.compile(r"^cuda\b[^=]*=\s*['\"]", re.MULTILINE)


def seen_device(text: str) -> str:
    """Return "cpu" or "cuda:i" for "auto", "cpu", "cuda" or "cuda:i".

    Raises:
        UsageError: another word.
        DeviceError: a GPU that is not there, or that the installed PyTorch cannot use.
    """
    kind, index = parse_device(text)
    if kind == "cpu":
        return "cpu"
    gpus = visible_gpus() if _torch_has_cuda() else []
    if kind == "auto":
        return "cuda:0" if gpus else "cpu"
    if not gpus:
        why = "no GPU is visible" if _torch_has_cuda() else "this PyTorch is built without CUDA"
        raise DeviceError(f"'{text}' cannot be used: {why}", hint="`--device cpu` works everywhere.")
    if index >= len(gpus):
        raise DeviceError(
            f"'{text}' cannot be used: this machine has {len(gpus)} GPUs, counted from 0",
            hint=f"The last one is cuda:{len(gpus) - 1}.",
        )
    return f"cuda:{index}"


def visible_gpus() -> list[dict[str, Any]]:
    """Return `nvidia_gpus` of each GPU that CUDA_VISIBLE_DEVICES leaves, in its order."""
    gpus = nvidia_gpus()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return gpus
    seen = []
    for word in filter(None, (part.strip() for part in chosen.split(","))):
        if word.isdigit() and int(word) < len(gpus):
            seen.append(gpus[int(word)])
        elif word.startswith(("GPU-", "MIG-")) and gpus:
            # By its serial; which of several it is does not show here.
            seen.append(gpus[min(len(seen), len(gpus) - 1)])
        else:
            # CUDA itself ignores what follows a device that is not there.
            break
    return seen


def seen_name(device: str) -> str:
    """Return the product name of the processor or the GPU."""
    if device == "cpu":
        from mambabench.environment import processor_name

        return processor_name()
    return str(visible_gpus()[int(device.partition(":")[2])]["name"])


def seen_capability(device: str) -> tuple[int, int] | None:
    """Return a GPU's compute capability, (8, 9) for 8.9; null where it is not known, and for a processor."""
    gpus, number = visible_gpus(), device.partition(":")[2]
    if not number or int(number) >= len(gpus) or "compute_capability" not in gpus[int(number)]:
        return None
    major, minor = gpus[int(number)]["compute_capability"]
    return int(major), int(minor)


def capacity_bytes(device: str) -> int:
    """Return the whole memory of a device; in a container with a limit, the limit."""
    if device != "cpu":
        return int(visible_gpus()[int(device.partition(":")[2])]["memory_bytes"])
    import psutil

    total = int(psutil.virtual_memory().total)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int((Path("/sys/fs/cgroup") / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            # No such file, or the word "max".
            continue
    return total


def free_bytes() -> int:
    """Return the memory that a new process can take before this machine begins to swap."""
    import psutil

    return min(int(psutil.virtual_memory().available), capacity_bytes("cpu"))


def _torch_has_cuda() -> bool:
    """Tell from PyTorch's own notes whether it is built for CUDA; importing it would take seconds."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    return _CUDA_BUILD.search(text) is not None
