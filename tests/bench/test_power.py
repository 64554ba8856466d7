"""Energy of a loop, on a card whose power is known and whose counter moves in steps."""

from __future__ import annotations

import math
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mambabench.bench import child
from mambabench.bench import power as power_module
from mambabench.bench.clock import FakeClock
from mambabench.bench.failures import UnsupportedError
from mambabench.bench.jobs import PowerJob
from mambabench.bench.power import THROTTLE_REASONS, PowerMeter, power_of_decoding, throttle_words
from mambabench.errors import DeviceError
from mambabench.speed_schema import PointRecord, PowerRecord

IDLE_W = 60.0
BUSY_W = 300.0


class _Error(Exception):
    """As raised by the library."""


class _Nvml:
    """Stands in for pynvml and its card. Time passes when `sleep` or `work` is called.

    Args:
        step_s: between two movements of the energy counter.
        without: functions that the card does not have.
        mask: reasons for lower clocks while the card works.
    """

    NVMLError = _Error
    NVML_CLOCK_SM = 1

    def __init__(self, *, step_s: float = 0.1, without: tuple[str, ...] = (), mask: int = 0) -> None:
        self._step_s = step_s
        self._mask = mask
        self._at_s = 0.037
        self._power_w = IDLE_W
        self._history = [(0.0, 0.0, IDLE_W)]
        """Moments, the energy until then in joules, and the power from then on."""
        for name in without:
            setattr(self, name, self._refused)

    def now(self) -> float:
        return self._at_s

    def sleep(self, seconds: float) -> None:
        self._at_s += seconds

    def work(self) -> int:
        """Ten tokens in 0.7 s."""
        self.busy(0.7)
        return 10

    def busy(self, seconds: float) -> None:
        """Work for so long."""
        self._set_power(BUSY_W)
        self._at_s += seconds
        self._set_power(IDLE_W)

    def _set_power(self, watts: float) -> None:
        self._history.append((self._at_s, self._energy_j(self._at_s), watts))
        self._power_w = watts

    def _energy_j(self, at_s: float) -> float:
        began_s, energy_j, watts = next(h for h in reversed(self._history) if h[0] <= at_s)
        return energy_j + watts * (at_s - began_s)

    def _refused(self, *_: Any) -> int:
        raise self.NVMLError

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-12":
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        stepped_s = math.floor(self._at_s / self._step_s + 1e-9) * self._step_s
        return round(1000 * self._energy_j(stepped_s))

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return round(1000 * self._power_w)

    def nvmlDeviceGetClockInfo(self, handle: str, which: int) -> int:
        assert which == self.NVML_CLOCK_SM
        return 1400

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return self._mask

    nvmlDeviceGetCurrentClocksThrottleReasons = nvmlDeviceGetCurrentClocksEventReasons


class _Cuda:
    """Stands in for torch.cuda."""

    def __init__(self, uuid: str = "12") -> None:
        self._uuid = uuid

    def get_device_properties(self, device: str) -> Any:
        return SimpleNamespace(uuid=self._uuid)


def _meter(nvml: _Nvml) -> PowerMeter:
    return PowerMeter("cuda:0", cuda=_Cuda(), nvml=nvml, now=nvml.now, sleep=nvml.sleep)


@pytest.mark.parametrize("step_s", [0.02, 0.1])
def test_the_energy_of_a_loop(step_s: float) -> None:
    nvml = _Nvml(step_s=step_s, mask=0x4)
    record = _meter(nvml).measure(nvml.work)
    # Eight loops of 0.7 s are the first that last 5 s.
    assert record.n_tokens == 80
    assert record.duration_s == pytest.approx(5.6)
    assert record.idle_w == pytest.approx(IDLE_W, rel=0.01)
    # A poll of the counter is 2 ms: at both ends that is 1.2 J at most, of 1,680.
    assert record.energy_j == pytest.approx(5.6 * BUSY_W, abs=1.3)
    assert record.net_j_per_token == pytest.approx(5.6 * (BUSY_W - IDLE_W) / 80, rel=0.002)
    assert record.energy_from == "counter"
    assert set(record.sm_clock_mhz) == {1400}
    assert record.throttle_reasons == ("software power cap",)


def test_a_longer_loop_is_repeated_only_as_long_as_asked() -> None:
    nvml = _Nvml()
    assert _meter(nvml).measure(nvml.work, at_least_s=0.6).n_tokens == 10


def test_an_error_in_the_loop_leaves_no_thread() -> None:
    nvml, before = _Nvml(), threading.active_count()

    def broken() -> int:
        raise ValueError

    with pytest.raises(ValueError):
        _meter(nvml).measure(broken)
    assert threading.active_count() == before


class _Working(_Nvml):
    """Works in real time."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def work(self) -> int:
        self._power_w = BUSY_W
        time.sleep(0.3)
        self._power_w = IDLE_W
        time.sleep(0.3)
        return 4


def test_without_a_counter_samples_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_module, "_SAMPLE_EVERY_S", 0.01)
    nvml = _Working(without=("nvmlDeviceGetTotalEnergyConsumption",))
    record = _meter(nvml).measure(nvml.work, at_least_s=0.1, idle_s=0.1)
    assert record.energy_from == "samples"
    assert record.idle_w == pytest.approx(IDLE_W)
    # Half of the time at each; a switch lies between two samples.
    assert record.energy_j / record.duration_s == pytest.approx((BUSY_W + IDLE_W) / 2, rel=0.2)
    assert len(record.sm_clock_mhz) > 5


def test_at_most_five_samples_a_second() -> None:
    nvml = _Working(without=("nvmlDeviceGetTotalEnergyConsumption",))
    record = _meter(nvml).measure(nvml.work, at_least_s=0.1, idle_s=0.1)
    assert 3 <= len(record.sm_clock_mhz) <= 2 + 5 * record.duration_s


def test_a_driver_of_the_older_name() -> None:
    nvml = _Nvml(without=("nvmlDeviceGetCurrentClocksEventReasons",), mask=0x40)
    assert _meter(nvml).measure(nvml.work).throttle_reasons == ("hardware thermal slowdown",)


def test_what_a_card_does_not_tell_is_left_empty() -> None:
    names = ("nvmlDeviceGetClockInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetCurrentClocksEventReasons")
    nvml = _Nvml(without=(*names, "nvmlDeviceGetCurrentClocksThrottleReasons"))
    record = _meter(nvml).measure(nvml.work)
    assert (record.sm_clock_mhz, record.throttle_reasons) == ((), ())
    assert record.energy_j > 0


def test_cards_whose_power_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = _Nvml(without=("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"))
    with pytest.raises(DeviceError, match="neither energy nor power"):
        _meter(silent)
    with pytest.raises(DeviceError, match="the device is cpu"):
        PowerMeter("cpu", nvml=_Nvml())
    with pytest.raises(DeviceError, match="does not know cuda:3"):
        PowerMeter("cuda:3", cuda=_Cuda("another"), nvml=_Nvml())
    monkeypatch.setattr(power_module, "open_nvml", lambda: None)
    with pytest.raises(DeviceError, match="without NVML"):
        PowerMeter("cuda:0", cuda=_Cuda())


class _Decoder:
    """A decoder whose every step takes 10 ms at full power; anything else takes 1 s of it."""

    def __init__(self, nvml: _Nvml) -> None:
        self._nvml = nvml
        self.calls: list[str] = []

    def _work(self, name: str, seconds: float) -> torch.Tensor:
        self.calls.append(name)
        self._nvml.busy(seconds)
        return torch.zeros(3, dtype=torch.int64)

    def prepare(self, **shape: int) -> None:
        self._work(f"prepare {shape}", 1.0)

    def prefill(self, prompts: torch.Tensor) -> torch.Tensor:
        return self._work("prefill", 1.0)

    def keep(self) -> None:
        self.calls.append("keep")

    def rewind(self) -> torch.Tensor:
        self.calls.append("rewind")
        return torch.zeros(3, dtype=torch.int64)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        return self._work("step", 0.01)


def test_the_energy_of_decoding_is_that_of_its_steps() -> None:
    nvml, clock = _Nvml(), FakeClock()
    decoder: Any = _Decoder(nvml)
    prompts = torch.zeros(3, 50, dtype=torch.int64)
    record = power_of_decoding(decoder, prompts, gen_len_tokens=11, power=_meter(nvml), clock=clock)
    # Rounds of ten steps, 0.1 s each, until 5 s are over: the first round is not measured.
    assert record.n_tokens == pytest.approx(50 * 10 * 3, abs=30)
    assert record.duration_s == pytest.approx(5.0, abs=0.11)
    assert record.gross_j_per_token == pytest.approx(0.01 * BUSY_W / 3, rel=0.002)
    assert record.net_j_per_token == pytest.approx(0.01 * (BUSY_W - IDLE_W) / 3, rel=0.002)
    shape = {"batch_size": 3, "prompt_len_tokens": 50, "gen_len_tokens": 11}
    first = [f"prepare {shape}", "prefill", "keep"]
    n_rounds = record.n_tokens // 30 + 1
    assert decoder.calls == [*first, *["rewind", *["step"] * 10] * n_rounds]
    assert clock.n_synchronised == n_rounds


def test_without_steps_there_is_nothing_to_measure() -> None:
    nvml = _Nvml()
    decoder: Any = _Decoder(nvml)
    with pytest.raises(UnsupportedError, match="takes none"):
        power_of_decoding(
            decoder,
            torch.zeros(1, 5, dtype=torch.int64),
            gen_len_tokens=1,
            power=_meter(nvml),
            clock=FakeClock(),
        )
    assert decoder.calls == []


@given(st.integers(0, (1 << 64) - 1))
def test_every_mask_has_words_of_the_closed_set(mask: int) -> None:
    words = throttle_words(mask)
    assert set(words) <= set(THROTTLE_REASONS)
    assert len(set(words)) == len(words)
    assert (mask == 0) == (words == ())


def test_the_bits_are_the_library_s() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name, word in {
        "SwPowerCap": "software power cap",
        "HwSlowdown": "hardware slowdown",
        "SwThermalSlowdown": "software thermal slowdown",
        "HwThermalSlowdown": "hardware thermal slowdown",
        "HwPowerBrakeSlowdown": "power brake",
        "SyncBoost": "sync boost",
        "GpuIdle": "idle",
        "ApplicationsClocksSetting": "application clocks",
        "DisplayClockSetting": "display clocks",
        "BoardLimit": "board limit",
        "Reliability": "reliability",
    }.items():
        assert throttle_words(int(getattr(pynvml, f"nvmlClocksThrottleReason{name}"))) == (word,)
    assert throttle_words(1 << 20) == ("other",)


class _Counting(_Working):
    """Takes the same power always, counted without steps."""

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return round(1000 * BUSY_W * time.perf_counter())


def test_a_process_sends_the_energy_of_its_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_module, "PowerMeter", lambda device: _meter(_Counting()))
    name = "fake:token_ms=5"
    point = PointRecord(
        model=name, batch_size=2, prompt_len_tokens=10, gen_len_tokens=8, arm="eager", attention="none",
        dtype="float32", device="cpu",
    )  # fmt: skip
    job = PowerJob(
        model=name, name=name, weights="random", seed=0, dtype="float32", device="cpu", point=point,
        at_least_s=0.3,
    )  # fmt: skip
    events: list[tuple[str, dict[str, Any]]] = []
    child._power(job, lambda event, **held: events.append((event, held)))
    assert [event for event, _ in events] == ["baseline", "power"]
    record = PowerRecord.model_validate(events[-1][1]["power"])
    assert record.duration_s >= 0.3
    assert record.n_tokens % (2 * 7) == 0
    assert record.energy_j / record.duration_s == pytest.approx(BUSY_W, rel=0.2)
