"""What `drive.py` finds out with torch, one step a call; figures go to a JSON file as soon as they are known.

python tests/gpu/checks.py official --found figures.json --work DIR
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from check_kernels import load
from make_checkpoint import write_small as write_checkpoint

__all__ = ["CHECKS", "Figures", "load", "write_checkpoint"]


class Figures:
    """What was found so far; rewritten on every addition, so that a timeout loses nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, Any] = {}

    def add(self, **values: Any) -> None:
        """Add figures and write all of them."""
        self._values |= values
        self._path.write_text(json.dumps(self._values, indent=1))
        print(json.dumps(values), flush=True)


def environment(figures: Figures, options: argparse.Namespace) -> None:
    """Describe the machine, and say in words what would break the build."""
    import torch

    figures.add(
        python=sys.version.split()[0],
        platform=platform.platform(),
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        cores=len(os.sched_getaffinity(0)),
        packages=_packages(),
    )
    if options.rehearse:
        figures.add(card="none: rehearsed on a CPU", driver="none")
        return
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")
    card = torch.cuda.get_device_properties(0)
    figures.add(
        card=card.name,
        capability=f"{card.major}.{card.minor}",
        memory_bytes=card.total_memory,
        driver=_driver(),
    )
    from torch.utils.cpp_extension import CUDA_HOME

    nvcc = Path(CUDA_HOME) / "bin" / "nvcc" if CUDA_HOME else None
    if nvcc is None or not nvcc.is_file():
        sys.exit("torch finds no nvcc: install the CUDA toolkit or set CUDA_HOME")
    words = subprocess.run([nvcc, "-V"], capture_output=True, text=True, check=True).stdout.split()
    release = words[words.index("release") + 1].rstrip(",")
    figures.add(nvcc=str(nvcc), nvcc_release=release)
    if release.split(".")[0] != str(torch.version.cuda).split(".")[0]:
        sys.exit(f"nvcc is of CUDA {release}, torch of CUDA {torch.version.cuda}: majors must agree")


def _packages() -> dict[str, str]:
    """Return the versions of what the measurements depend on, as far as it is installed already."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "triton", "transformers", "lm_eval", "mamba_ssm", "causal_conv1d", "flash_attn"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return result.stdout.strip() or "unknown"


def versions(figures: Figures, options: argparse.Namespace) -> None:
    """Say which versions are installed once everything is."""
    figures.add(packages=_packages())


CHECKS = {
    "environment": "checks",
    "versions": "checks",
    "kernels": "check_kernels",
    "official": "check_kernels",
    "parity": "check_parity",
    "parity_data": "check_parity",
    "make_checkpoint": "check_engines",
    "engine_vs_lm_eval": "check_engines",
    "mmlu_vs_lm_eval": "check_engines",
    "decode_vs_official": "check_decode",
    "official_generate": "check_decode",
}
"""Where each is. Imported when it is asked for: the first runs where nothing but torch is installed."""


@contextlib.contextmanager
def _errors_last() -> Iterator[None]:
    """Print an exception's own words as the last line, where `drive.py` looks."""
    try:
        yield
    except Exception as error:
        import traceback

        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def main() -> None:
    """Do one check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=list(CHECKS))
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path())
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    with _errors_last():
        do = getattr(importlib.import_module(CHECKS[options.check]), options.check)
        do(Figures(options.found), options)


if __name__ == "__main__":
    main()
