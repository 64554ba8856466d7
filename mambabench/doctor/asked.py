"""What a process of the doctor finds out about PyTorch, NVIDIA's driver and the Hub, as plain data.

>>> facts = torch_facts()
>>> sorted(facts)[:3]
['cpu_capability', 'cuda', 'cuda_home']
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_HUB_TIMEOUT_S = 3.0


def torch_facts() -> dict[str, Any]:
    """Import torch and return its versions, its build, the devices that it sees, and what it warned of."""
    import torch

    facts: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "cxx11_abi": bool(torch.compiled_with_cxx11_abi()),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda_home": None,
        "devices": [],
        "arch_list": [],
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        facts["available"] = bool(torch.cuda.is_available())
        if facts["available"]:
            facts["arch_list"] = list(torch.cuda.get_arch_list())
            for index in range(torch.cuda.device_count()):
                card = torch.cuda.get_device_properties(index)
                facts["devices"].append(
                    {
                        "name": card.name,
                        "capability": f"{card.major}.{card.minor}",
                        "memory_bytes": int(card.total_memory),
                    }
                )
    facts["warnings"] = [str(one.message).strip() for one in caught]
    if facts["cuda"] is not None:
        with suppress(Exception):
            # It looks for compilers, and says on stderr what it does not find.
            from torch.utils.cpp_extension import CUDA_HOME

            facts["cuda_home"] = CUDA_HOME
    return facts


def cuda_facts() -> dict[str, Any]:
    """Compute a little on each device; "errors" holds what went wrong, by its index."""
    import torch

    errors: dict[str, str] = {}
    for index in range(torch.cuda.device_count()):
        try:
            total = float(
                (torch.ones(64, 64, device=f"cuda:{index}") @ torch.ones(64, 1, device=f"cuda:{index}")).sum()
            )
            if total != 64.0 * 64.0:
                errors[str(index)] = f"64 x 64 ones add up to {total:g}"
        except Exception as error:
            errors[str(index)] = f"{type(error).__name__}: {str(error).strip()[:600]}"
    return {"n_devices": torch.cuda.device_count(), "errors": errors}


def nvml_facts() -> dict[str, Any]:
    """Ask NVIDIA's management library for the driver and all cards.

    "error" is the class of what it raised, or "", "detail" its text.
    """
    try:
        import pynvml
    except ImportError as error:
        return {"error": "ImportError", "detail": str(error)}
    try:
        pynvml.nvmlInit()
        facts: dict[str, Any] = {
            "error": "",
            "detail": "",
            "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
            "cuda_driver": int(pynvml.nvmlSystemGetCudaDriverVersion()),
            "gpus": [_card(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())],
        }
    except pynvml.NVMLError as error:
        return {"error": type(error).__name__, "detail": str(error)}
    with suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()
    return facts


def _card(pynvml: Any, index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    card: dict[str, Any] = {
        "name": _text(pynvml.nvmlDeviceGetName(handle)),
        "memory_bytes": int(memory.total),
        "used_bytes": int(memory.used),
        "capability": None,
        "mig": False,
        "mig_instances": 0,
    }
    with suppress(pynvml.NVMLError):
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        card["capability"] = f"{major}.{minor}"
    # Cards that cannot be divided refuse the question.
    with suppress(pynvml.NVMLError):
        card["mig"] = bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    if card["mig"]:
        for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with suppress(pynvml.NVMLError):
                pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
                card["mig_instances"] += 1
    return card


def hub_facts(ask: bool, tell: Callable[..., None]) -> None:
    """Tell the size of the Hub's cache, and then whether the Hub answers.

    Args:
        ask: whether it may be asked.
        tell: called with "cache" (folder, size_bytes, n_repositories) and, if asked, "hub" (endpoint,
            error, "" where it answered).
    """
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    folder = str(constants.HF_HUB_CACHE)
    try:
        info = scan_cache_dir(folder)
        tell("cache", folder=folder, size_bytes=info.size_on_disk, n_repositories=len(info.repos))
    except (CacheNotFound, OSError, ValueError):
        tell("cache", folder=folder, size_bytes=0, n_repositories=0)
    if not ask:
        return
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
    tell("asking", endpoint=endpoint)
    tell("hub", endpoint=endpoint, error=_reach(endpoint))


def _reach(endpoint: str) -> str:
    import urllib.error
    import urllib.request

    if not endpoint.startswith(("http://", "https://")):
        return "is no http address"
    try:
        # By hand: the Hub's own client asks five times.
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        # Whatever it says, it is there.
        return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return str(reason).strip() or type(error).__name__
    return ""


def _text(value: str | bytes) -> str:
    # Older versions of the library return bytes.
    return value.decode() if isinstance(value, bytes) else value
