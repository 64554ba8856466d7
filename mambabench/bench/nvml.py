"""NVML, NVIDIA's management library, where there is one, and the card that is a given CUDA device there.

CUDA numbers the devices that a process may see, NVML all of a machine.
"""

from __future__ import annotations

from typing import Any


def open_nvml() -> Any | None:
    """Return the initialised module `pynvml`, or None without a driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def handle_of(nvml: Any, properties: Any) -> Any | None:
    """Return NVML's handle of a CUDA device, or None when NVML does not know it.

    Args:
        nvml: `pynvml`, initialised.
        properties: of `torch.cuda.get_device_properties`.
    """
    uuid = str(properties.uuid)
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid if "-" in uuid[:4] else f"GPU-{uuid}")
    except nvml.NVMLError:
        return None
