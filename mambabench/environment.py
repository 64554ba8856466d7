"""What figures depend on beside the model: package versions, processor, GPU, driver, system, git commit.

Collected without importing any of the packages, in some milliseconds, so that every run can record it.

    >>> sorted(describe_environment())[:3]
    ['git', 'gpus', 'nvidia_driver']
"""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import mambabench

PACKAGES = (
    "mambabench", "torch", "transformers", "tokenizers", "safetensors", "accelerate", "peft", "gguf",
    "lm-eval", "datasets", "huggingface-hub", "numpy", "numba", "pandas", "pyarrow", "scipy", "mamba-ssm",
    "causal-conv1d", "flash-attn", "triton", "kernels", "mambapy",
)  # fmt: skip
"""Packages whose version can change a result or its speed."""
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
_GIT_TIMEOUT_S = 2.0


def describe_environment() -> dict[str, Any]:
    """Return the environment as JSON values.

    Keys: packages (name to version; absent ones are left out), python, system, processor (name, physical
    and logical cores), memory_bytes, gpus (name, memory_bytes each), nvidia_driver (or null), git (commit
    and whether the tree differs from it, or null outside a checkout), variables (those that are set).
    No host or user name is among them.
    """
    gpus, driver = _gpus()
    return {
        "packages": package_versions(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "memory_bytes": _memory_bytes(),
        "gpus": gpus,
        "nvidia_driver": driver,
        "git": _git(Path(mambabench.__file__).resolve().parent),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def package_versions() -> dict[str, str]:
    """Return the installed ones of `PACKAGES` with their versions."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def processor_name() -> str:
    """Return the processor's product name, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def nvidia_gpus() -> list[dict[str, Any]]:
    """Return name, memory_bytes and compute_capability of each GPU of NVIDIA's, in the driver's order."""
    return _gpus()[0]


def nvidia_driver() -> str | None:
    """Return the version of NVIDIA's driver, or None without one."""
    return _gpus()[1]


def _processor() -> dict[str, Any]:
    import psutil

    return {
        "name": processor_name(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(logical=True),
    }


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _gpus() -> tuple[list[dict[str, Any]], str | None]:
    """Ask NVIDIA's management library; a machine without it has no GPU of theirs."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return [], None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        gpus = [
            {
                "name": _text(pynvml.nvmlDeviceGetName(handle)),
                "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                "compute_capability": list(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
            }
            for handle in handles
        ]
        return gpus, _text(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return [], None
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    # Older versions of the library return bytes.
    return value.decode() if isinstance(value, bytes) else value


def _git(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout that the package runs from; None when it is installed elsewhere."""
    if not (folder.parent / ".git").exists():
        return None
    commit = _git_output(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git_output(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "modified": None if changed is None else bool(changed)}


def _git_output(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
