"""Memory meters: real allocations of this process, and stand-ins for a card and its library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mambabench.bench.memory import CpuMemory, CudaMemory, FakeMemory, MemoryMeter, emulate_budget, meter_for
from mambabench.errors import UsageError

MIB = 1 << 20
GIB = 1 << 30


def _touch(n_bytes: int) -> Any:
    return np.ones(n_bytes // 8)


def test_the_high_water_mark_of_a_real_process() -> None:
    meter = CpuMemory()
    if "since its reset" not in meter.source:
        pytest.skip("this system does not let a process reset its high-water mark")
    meter.baseline()
    first = _touch(96 * MIB)
    del first
    high = meter.peak()
    meter.reset()
    second = _touch(32 * MIB)
    low = meter.peak()
    del second
    # Interpreter and counters of the kernel move by a few MiB.
    assert 88 * MIB < high.peak_bytes < 116 * MIB
    assert 24 * MIB < low.peak_bytes < 52 * MIB
    assert high.process_bytes == high.baseline_bytes + high.peak_bytes
    assert not high.estimated
    assert high.reserved_bytes is None


def _proc(directory: Path, status: str, *, resettable: bool) -> Path:
    (directory / "status").write_text(status)
    if resettable:
        (directory / "clear_refs").write_text("")
    else:
        (directory / "clear_refs").mkdir()
    return directory


def test_fields_are_kibibytes_and_the_mark_is_reset_by_a_five(tmp_path: Path) -> None:
    proc = _proc(tmp_path, "Name:\tpython\nVmHWM:\t    900 kB\nVmRSS:\t    300 kB\n", resettable=True)
    meter = CpuMemory(proc)
    assert meter.baseline() == 300 * 1024
    (tmp_path / "clear_refs").write_text("")
    meter.reset()
    assert (tmp_path / "clear_refs").read_text() == "5"
    peak = meter.peak()
    assert (peak.peak_bytes, peak.process_bytes) == (600 * 1024, 900 * 1024)
    assert not peak.estimated


def test_a_refused_reset_is_said(tmp_path: Path) -> None:
    proc = _proc(tmp_path, "VmHWM:\t900 kB\nVmRSS:\t300 kB\n", resettable=False)
    meter = CpuMemory(proc)
    meter.baseline()
    meter.reset()
    peak = meter.peak()
    assert peak.source == "VmHWM of the process's whole life"
    assert peak.estimated
    assert peak.peak_bytes == 600 * 1024


def test_without_proc_the_largest_of_the_life_counts(tmp_path: Path) -> None:
    meter = CpuMemory(tmp_path / "none", lambda: 700, lambda: 200)
    assert meter.baseline() == 200
    meter.reset()
    peak = meter.peak()
    assert (peak.peak_bytes, peak.process_bytes, peak.baseline_bytes) == (500, 700, 200)
    assert peak.source == "ru_maxrss of the process's whole life"
    assert peak.estimated


def test_the_fallback_s_units_are_bytes(tmp_path: Path) -> None:
    meter = CpuMemory(tmp_path / "none")
    baseline = meter.baseline()
    assert CpuMemory().baseline() == pytest.approx(baseline, rel=0.1)
    assert baseline <= meter.peak().process_bytes < 100 * baseline


class _NoNvml(Exception):
    """As raised by the library."""


class _Nvml:
    """Stands in for pynvml.

    Args:
        card: what the card has in use.
        by_pid: bytes of each process; None where they are not told.
    """

    NVMLError = _NoNvml

    def __init__(self, card: _Card, by_pid: bool = True) -> None:
        self._card = card
        self._by_pid = by_pid

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-1234abcd-00":
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        assert handle == "GPU-1234abcd-00"
        mine = self._card.context + self._card.reserved
        return [
            SimpleNamespace(pid=1, usedGpuMemory=5 * GIB),
            SimpleNamespace(pid=77, usedGpuMemory=mine if self._by_pid else None),
        ]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        assert handle == "GPU-1234abcd-00"
        return SimpleNamespace(used=self._card.used())


class _Card:
    """Stands in for torch.cuda, with a card of 24 GiB of which others use 2."""

    def __init__(self, *, uuid: str = "1234abcd-00", warm: bool = False) -> None:
        self._uuid = uuid
        self.context = 400 * MIB if warm else 0
        self.reserved = 0
        self.allocated = 0
        self._max_reserved = 0
        self._max_allocated = 0
        self.fraction: tuple[float, str] | None = None

    def used(self) -> int:
        return 2 * GIB + self.context + self.reserved

    def get_device_properties(self, device: str) -> Any:
        return SimpleNamespace(uuid=self._uuid, total_memory=24 * GIB)

    def init(self) -> None:
        pass

    def synchronize(self, device: str) -> None:
        self.context = 400 * MIB

    def memory_reserved(self, device: str) -> int:
        return self.reserved

    def max_memory_reserved(self, device: str) -> int:
        return self._max_reserved

    def max_memory_allocated(self, device: str) -> int:
        return self._max_allocated

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return 24 * GIB - self.used(), 24 * GIB

    def reset_peak_memory_stats(self, device: str) -> None:
        self._max_reserved, self._max_allocated = self.reserved, self.allocated

    def set_per_process_memory_fraction(self, fraction: float, device: str) -> None:
        self.fraction = fraction, device

    def take(self, n_bytes: int) -> None:
        self.allocated += n_bytes
        self.reserved = max(self.reserved, self.allocated + 10 * MIB)
        self._max_allocated = max(self._max_allocated, self.allocated)
        self._max_reserved = max(self._max_reserved, self.reserved)


def _measured(card: _Card, nvml: Any) -> tuple[CudaMemory, Any]:
    meter = CudaMemory("cuda:0", cuda=card, nvml=nvml, pid=77)
    assert meter.baseline() == meter.context_bytes
    card.take(3 * GIB)
    card.take(-GIB)
    meter.reset()
    card.take(GIB // 2)
    card.take(-GIB // 2)
    return meter, meter.peak()


def test_a_card_s_process_is_found_by_its_pid() -> None:
    card = _Card()
    meter, peak = _measured(card, _Nvml(card))
    assert meter.context_bytes == peak.baseline_bytes == 400 * MIB
    assert peak.peak_bytes == 5 * GIB // 2
    assert peak.reserved_bytes == 3 * GIB + 10 * MIB
    assert peak.process_bytes == 3 * GIB + 410 * MIB
    assert (peak.estimated, peak.source) == (False, "NVML, by process")


def test_where_processes_are_not_told_apart_the_context_is_seen_coming() -> None:
    card = _Card()
    _, peak = _measured(card, _Nvml(card, by_pid=False))
    assert peak.process_bytes == 3 * GIB + 410 * MIB
    assert peak.estimated


def test_a_context_that_was_there_before_is_not_separated_from_others() -> None:
    card = _Card(warm=True)
    meter, peak = _measured(card, _Nvml(card, by_pid=False))
    assert meter.context_bytes == 2 * GIB + 400 * MIB
    assert peak.estimated
    assert "by whomever" in peak.source


def test_a_card_that_nvml_does_not_know() -> None:
    card = _Card(uuid="another")
    meter, peak = _measured(card, _Nvml(card))
    assert meter.context_bytes == 2 * GIB + 400 * MIB
    assert peak.estimated


def test_a_budget_leaves_room_for_the_context() -> None:
    card = _Card()
    share = emulate_budget("cuda:0", 8 * GIB, context_bytes=2 * GIB, cuda=card)
    assert share == 0.25
    assert card.fraction == (0.25, "cuda:0")


@pytest.mark.parametrize(
    ("budget", "words"),
    [(400 * MIB, "not above a GPU context's 400 MiB"), (25 * GIB, "more than the 24,576 MiB")],
)
def test_budgets_that_cannot_be(budget: int, words: str) -> None:
    card = _Card()
    with pytest.raises(UsageError, match=words):
        emulate_budget("cuda:0", budget, context_bytes=400 * MIB, cuda=card)
    assert card.fraction is None


def test_the_fake_meter_is_exact_and_bounded() -> None:
    meter = FakeMemory(baseline_bytes=7, budget_bytes=100)
    assert meter.baseline() == 7
    meter.allocate(100)
    meter.free(60)
    assert meter.peak().peak_bytes == 100
    meter.reset()
    assert meter.peak().peak_bytes == 40
    meter.allocate(10)
    assert (meter.peak().peak_bytes, meter.peak().process_bytes) == (50, 57)
    with pytest.raises(MemoryError, match="51 bytes"):
        meter.allocate(51)
    assert meter.allocated_bytes == 50


def test_a_device_by_its_name() -> None:
    meter: MemoryMeter = meter_for("cpu")
    assert isinstance(meter, CpuMemory)


def test_neither_clock_nor_meter_imports_torch() -> None:
    program = """
import sys
from mambabench.bench.clock import clock_for
from mambabench.bench.memory import meter_for
clock_for("cpu").mark()
meter_for("cpu").baseline()
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
