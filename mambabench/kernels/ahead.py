"""The compiled loops made ready while the other libraries are still being imported.

numba compiles a loop when it is first called, which takes seconds the first time on a machine; later
processes find the result on disk. A second process does that at the beginning of a command, on a core
that the imports leave idle.

    compile_ahead()                 # at once, before torch is imported
    wait_for("mamba")               # when the first model needs its loops
"""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mambabench.cache import cache_dir
from mambabench.fingerprint import digest

PARTS = ("mamba", "mamba2", "program")
_POLL_S = 0.02

_children: list[subprocess.Popen[bytes]] = []


def compile_ahead() -> None:
    """Start compiling in other processes, unless this machine has done so before."""
    if _children:
        return
    nowhere = subprocess.DEVNULL
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for parts in (("mamba", "mamba2"), ("program",)):
        # Two at once, since who waits for the loops of a family soon waits for the program, too.
        if is_compiled(parts):
            continue
        program = f"from mambabench.kernels.ahead import compile_now; compile_now({parts})"
        command = [sys.executable, "-c", program]
        with suppress(OSError):
            _children.append(
                subprocess.Popen(command, env=environment, stdin=nowhere, stdout=nowhere, stderr=nowhere)
            )
    if _children:
        atexit.register(_stop)


def wait_for(part: str, *, time_limit_s: float = float("inf")) -> None:
    """Wait until the other process has compiled some of the loops; if it fails, they are compiled here.

    Args:
        part: "mamba" or "mamba2" for the loops of a family, "program" for those of a few rows.
        time_limit_s: not longer than this.
    """
    until_s = time.monotonic() + time_limit_s
    while not _marker(part).exists() and any(child.poll() is None for child in _children):
        if time.monotonic() >= until_s:
            return
        time.sleep(_POLL_S)


def is_compiled(parts: Sequence[str] = PARTS) -> bool:
    """Tell whether loops lie compiled on this machine, for this code, numba and processor.

    Args:
        parts: of `PARTS`.
    """
    return all(_marker(part).exists() for part in parts)


def compile_now(parts: Sequence[str] = PARTS) -> None:
    """Compile loops by running each once on a few numbers.

    Args:
        parts: of `PARTS`.
    """
    if "mamba" in parts or "mamba2" in parts:
        _compile_families()
    if "program" in parts:
        _compile_program()


def _compile_families() -> None:
    import numpy as np
    import torch

    from mambabench.kernels.packed import CpuKernels
    from mambabench.kernels.rows import Rows

    kernels, starts = CpuKernels(), np.array([0, 2], np.int64)
    x, row, taps = torch.zeros(2, 16), torch.zeros(4), torch.zeros(2, 4)
    before = Rows.places(None, x, (1, 4), 1)
    kernels.conv_silu(x, 0, taps, row, starts, before, before)
    kernels.add_norm(torch.zeros(2, 4), None, row, 1e-5)
    state = Rows.places(None, x, (2, 4), 1)
    u = torch.zeros(2, 4)
    kernels.scan(u, u, row, torch.zeros(2, 4), x, 0, row, x, 4, starts, state, state)
    _mark("mamba")
    state = Rows.places(None, x, (1, 2, 4), 1)
    one = torch.zeros(1)
    kernels.ssd(torch.zeros(2, 8), x, 8, one, one, torch.zeros(1, 4), 1, starts, state, state)
    kernels.gate_norm(torch.zeros(2, 4), x, 4, row, 1e-5, 1)
    _mark("mamba2")


def _compile_program() -> None:
    import torch

    from mambabench.kernels.program import Program

    program = Program(1, 1)
    program.product(program.shared(1), torch.zeros(1, 1), program.shared(1))
    program.run([], [])
    _mark("program")


def _stop() -> None:
    for child in _children:
        child.kill()
        child.wait()


def _mark(part: str) -> None:
    marker = _marker(part)
    with suppress(OSError):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


def _marker(part: str) -> Path:
    """Return the file that says that a part of the loops is compiled: for this code, numba and processor."""
    here = Path(__file__).parent
    sources = {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(here.glob("*.py"))}
    made_by = {
        "where": str(here),
        "sources": sources,
        "python": sys.version,
        "numba": importlib.metadata.version("numba"),
        "machine": [platform.node(), platform.machine()],
        "cache": os.environ.get("NUMBA_CACHE_DIR", ""),
    }
    return cache_dir() / "kernels" / f"{digest(made_by)[:16]}-{part}"
