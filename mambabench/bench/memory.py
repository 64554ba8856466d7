"""How much memory the process that measures takes, at most, between two moments.

>>> memory = FakeMemory(baseline_bytes=100)
>>> memory.baseline()
100
>>> memory.allocate(50); memory.free(20); memory.reset(); memory.allocate(5)
>>> memory.peak().peak_bytes, memory.peak().process_bytes
(35, 135)
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mambabench.bench.nvml import handle_of, open_nvml
from mambabench.errors import UsageError

_RESET_HIGH_WATER = "5"
_MIB = 1 << 20


@dataclass(frozen=True)
class Peak:
    """The most that was taken since the last reset."""

    peak_bytes: int
    """Weights, state and all transient: by CUDA's allocator, or resident memory above the baseline."""
    reserved_bytes: int | None
    """What CUDA's allocator had taken from the driver; None on a CPU."""
    process_bytes: int
    """Of the whole process, its baseline included."""
    baseline_bytes: int
    """Of the process before it loaded a model."""
    source: str
    """Where the figures come from, for people."""
    estimated: bool
    """Whether `process_bytes` is put together from other figures, or may be of before the reset."""


class MemoryMeter(Protocol):
    """Measures the memory of its own process."""

    def baseline(self) -> int:
        """Note what the process takes now, before a model is loaded, in bytes, and return it."""
        ...

    def reset(self) -> None:
        """Forget the largest figures so far."""
        ...

    def peak(self) -> Peak:
        """Return the largest figures since the last reset."""
        ...


class CpuMemory:
    """Resident memory: Linux's high-water mark, which a process may reset; elsewhere the largest of its life.

    Files that are mapped count as soon as they are read, such as weights and libraries.

    Args:
        proc: directory of this process in Linux's /proc.
        lifetime_bytes: largest resident memory of the process's life, for systems without that directory.
        resident_bytes: resident memory now, likewise.
    """

    def __init__(
        self,
        proc: Path = Path("/proc/self"),
        lifetime_bytes: Callable[[], int] | None = None,
        resident_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._proc = proc
        self._lifetime_bytes = lifetime_bytes or _ru_maxrss
        self._resident_bytes = resident_bytes or _psutil_rss
        self._baseline_bytes = 0
        self._from_proc = self._field("VmHWM") is not None
        self._was_reset = self._try_reset()
        self.source = self._source()
        """Where the figures come from."""

    def baseline(self) -> int:
        """Note the resident memory, in bytes."""
        self._baseline_bytes = self._now()
        return self._baseline_bytes

    def reset(self) -> None:
        """Set the high-water mark to what is resident now, where the system lets us."""
        self._was_reset = self._try_reset()
        self.source = self._source()

    def peak(self) -> Peak:
        """Return the high-water mark, above the baseline and as a whole."""
        high = self._field("VmHWM") if self._from_proc else None
        process_bytes = max(high if high is not None else self._lifetime_bytes(), self._baseline_bytes)
        return Peak(
            peak_bytes=process_bytes - self._baseline_bytes,
            reserved_bytes=None,
            process_bytes=process_bytes,
            baseline_bytes=self._baseline_bytes,
            source=self.source,
            estimated=not self._was_reset,
        )

    def _source(self) -> str:
        if self._was_reset:
            return "VmHWM since its reset"
        return ("VmHWM" if self._from_proc else "ru_maxrss") + " of the process's whole life"

    def _now(self) -> int:
        resident = self._field("VmRSS") if self._from_proc else None
        return self._resident_bytes() if resident is None else resident

    def _try_reset(self) -> bool:
        try:
            (self._proc / "clear_refs").write_text(_RESET_HIGH_WATER)
        except OSError:
            return False
        return self._from_proc

    def _field(self, name: str) -> int | None:
        """Return a field of `status` in bytes, or None without it."""
        try:
            status = (self._proc / "status").read_text()
        except OSError:
            return None
        found = re.search(rf"^{name}:\s*(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else None


class CudaMemory:
    """What CUDA's allocator hands out, what it has reserved, and what the whole process has on the card.

    In many containers NVML does not tell processes apart. The process's bytes are then the largest reserved
    ones and what the context took, and are flagged as an estimate.

    Args:
        device: for example "cuda:0".
        cuda: stands in for `torch.cuda`.
        nvml: stands in for `pynvml`, initialised; None to look for it.
        pid: of this process, as NVML knows it.
    """

    def __init__(self, device: str, *, cuda: Any = None, nvml: Any = None, pid: int | None = None) -> None:
        self._cuda = _torch_cuda() if cuda is None else cuda
        self._device = device
        self._pid = os.getpid() if pid is None else pid
        self._nvml: Any = open_nvml() if nvml is None else nvml
        self._handle: Any = None
        if self._nvml is not None:
            self._handle = handle_of(self._nvml, self._cuda.get_device_properties(device))
        self.context_bytes = 0
        """On the card beside what the allocator reserves: the context and loaded kernels, at the baseline."""
        self.source = ""
        """Where the process's bytes come from; empty before the baseline."""
        self._baseline_bytes = 0
        self._by_pid = False
        # Other work may make the context before the baseline is taken.
        self._at_first = self._on_card()

    def baseline(self) -> int:
        """Make the context and note what the process has on the card, in bytes."""
        before = self._at_first
        self._cuda.init()
        # The first work makes the context.
        self._cuda.synchronize(self._device)
        reserved = int(self._cuda.memory_reserved(self._device))
        mine, after = self._of_process(), self._on_card()
        self._by_pid = mine is not None
        if mine is not None:
            self.context_bytes = max(mine - reserved, 0)
            self.source = "NVML, by process"
        elif before is not None and after is not None and after - before >= _MIB:
            self.context_bytes = max(after - before - reserved, 0)
            self.source = "reserved and the context, which NVML saw coming"
        else:
            free, total = self._cuda.mem_get_info(self._device)
            self.context_bytes = max(int(total) - int(free) - reserved, 0)
            self.source = "reserved and all that was on the card at the baseline, by whomever"
        self._baseline_bytes = self.context_bytes + reserved
        return self._baseline_bytes

    def reset(self) -> None:
        """Forget the allocator's largest figures."""
        self._cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> Peak:
        """Return the allocator's largest figures and the process's bytes.

        NVML shows the present only, but the allocator keeps what it has reserved until it is told otherwise.
        """
        reserved = int(self._cuda.max_memory_reserved(self._device))
        estimate = reserved + self.context_bytes
        mine = self._of_process() if self._by_pid else None
        return Peak(
            peak_bytes=int(self._cuda.max_memory_allocated(self._device)),
            reserved_bytes=reserved,
            process_bytes=estimate if mine is None else max(mine, estimate),
            baseline_bytes=self._baseline_bytes,
            source=self.source,
            estimated=mine is None,
        )

    def _of_process(self) -> int | None:
        """Bytes of this process on the card, or None where NVML cannot tell."""
        if self._handle is None:
            return None
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        used = [p.usedGpuMemory for p in running if p.pid == self._pid]
        return int(used[0]) if used and used[0] else None

    def _on_card(self) -> int | None:
        """Bytes in use on the card by all processes, or None without NVML."""
        if self._handle is None:
            return None
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._nvml.NVMLError:
            return None


class FakeMemory:
    """A meter that is told of allocations.

    Args:
        baseline_bytes: what the process takes before any.
        budget_bytes: more than this cannot be allocated, the baseline apart; None for no bound.
    """

    def __init__(self, *, baseline_bytes: int = 0, budget_bytes: int | None = None) -> None:
        self._baseline_bytes = baseline_bytes
        self._budget_bytes = budget_bytes
        self.allocated_bytes = 0
        """In use now, the baseline apart."""
        self._peak_bytes = 0

    def allocate(self, n_bytes: int) -> None:
        """Take so many bytes.

        Raises:
            MemoryError: when the budget would be exceeded.
        """
        if self._budget_bytes is not None and self.allocated_bytes + n_bytes > self._budget_bytes:
            raise MemoryError(f"Unable to allocate {n_bytes} bytes")
        self.allocated_bytes += n_bytes
        self._peak_bytes = max(self._peak_bytes, self.allocated_bytes)

    def free(self, n_bytes: int) -> None:
        """Give so many bytes back."""
        self.allocated_bytes -= n_bytes

    def baseline(self) -> int:
        """Return the baseline's bytes."""
        return self._baseline_bytes

    def reset(self) -> None:
        """Forget the largest sum so far."""
        self._peak_bytes = self.allocated_bytes

    def peak(self) -> Peak:
        """Return the largest sum since the last reset."""
        return Peak(
            peak_bytes=self._peak_bytes,
            reserved_bytes=None,
            process_bytes=self._baseline_bytes + self._peak_bytes,
            baseline_bytes=self._baseline_bytes,
            source="told",
            estimated=False,
        )


def meter_for(device: str) -> MemoryMeter:
    """Return the meter of "cpu" or of a device like "cuda:0"."""
    return CudaMemory(device) if device.startswith("cuda") else CpuMemory()


def emulate_budget(device: str, budget_bytes: int, *, context_bytes: int, cuda: Any = None) -> float:
    """Let CUDA's allocator take no more of the card than the budget leaves beside the context.

    Only the allocator is bounded: what libraries take past it is not.

    Args:
        device: for example "cuda:0".
        budget_bytes: for the whole process.
        context_bytes: of `CudaMemory`, after its baseline.
        cuda: stands in for `torch.cuda`.

    Returns:
        The share of the card's memory that was set.

    Raises:
        UsageError: the context alone takes more than the budget, or the card has less than it.
    """
    cuda = _torch_cuda() if cuda is None else cuda
    total_bytes = int(cuda.get_device_properties(device).total_memory)
    if budget_bytes <= context_bytes:
        raise UsageError(
            f"a memory budget of {_mib(budget_bytes)} is not above a GPU context's {_mib(context_bytes)}",
            hint="Give a larger budget.",
        )
    if budget_bytes > total_bytes:
        raise UsageError(
            f"a memory budget of {_mib(budget_bytes)} is more than the {_mib(total_bytes)} of {device}",
            hint="Leave it out to use all of the card.",
        )
    share = (budget_bytes - context_bytes) / total_bytes
    cuda.set_per_process_memory_fraction(share, device)
    return share


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / _MIB:,.0f} MiB"


def _torch_cuda() -> Any:
    import torch

    return torch.cuda


def _ru_maxrss() -> int:
    # Kibibytes everywhere but on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _psutil_rss() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
