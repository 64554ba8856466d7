"""Energy of decoding on a GPU, with the clocks it ran at and what held them back.

Only NVML is asked, so nothing here runs on a CPU. A card's energy counter moves every 20 to 100 ms; reading
it takes its time too, which is why power is measured apart from latency.

meter = PowerMeter("cuda:0")
meter.measure(lambda: decode_some_tokens()).net_j_per_token
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mambabench.bench.failures import UnsupportedError
from mambabench.bench.nvml import handle_of, open_nvml
from mambabench.errors import DeviceError
from mambabench.speed_schema import PowerRecord

if TYPE_CHECKING:
    from torch import Tensor

    from mambabench.bench.clock import Clock
    from mambabench.bench.decoders import Decoder

_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}
"""NVML's bits. All others are "other"."""

THROTTLE_REASONS = (*_REASONS.values(), "other")
"""Every word that `throttle_words` gives."""

_LEAVE_OUT = "Leave `--power` out."
_SAMPLE_EVERY_S = 0.2
_POLL_S = 0.002
_LONGEST_UPDATE_S = 0.5


def throttle_words(mask: int) -> tuple[str, ...]:
    """Return what NVML's mask of reasons for lower clocks says; nothing for 0.

    >>> throttle_words(0x4 | 0x40)
    ('software power cap', 'hardware thermal slowdown')
    """
    known = sum(_REASONS)
    words = tuple(word for bit, word in _REASONS.items() if mask & bit)
    return (*words, "other") if mask & ~known else words


@dataclass(frozen=True)
class _Sample:
    at_s: float
    power_w: float | None
    sm_clock_mhz: int | None
    reasons: tuple[str, ...]


class PowerMeter:
    """Energy, clocks and throttle reasons of one card, all processes on it together.

    Args:
        device: for example "cuda:0".
        cuda: stands in for `torch.cuda`.
        nvml: stands in for `pynvml`, initialised.
        now: seconds, monotonic.
        sleep: waits for seconds.

    Raises:
        DeviceError: the device is no GPU, or NVML is not there, does not know it, or tells nothing of its
            power.
    """

    def __init__(
        self,
        device: str,
        *,
        cuda: Any = None,
        nvml: Any = None,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not device.startswith("cuda"):
            raise DeviceError(
                f"power is measured on NVIDIA's GPUs, and the device is {device}", hint=_LEAVE_OUT
            )
        if cuda is None:
            import torch

            cuda = torch.cuda
        self._nvml: Any = open_nvml() if nvml is None else nvml
        if self._nvml is None:
            raise DeviceError("power cannot be measured without NVML", hint="It comes with NVIDIA's driver.")
        self._handle = handle_of(self._nvml, cuda.get_device_properties(device))
        if self._handle is None:
            raise DeviceError(f"power cannot be measured: NVML does not know {device}")
        self._now = now
        self._sleep = sleep
        self._has_counter = self._energy_j() is not None
        if not self._has_counter and self._power_w() is None:
            raise DeviceError(f"power cannot be measured: NVML tells neither energy nor power of {device}")

    def measure(
        self, loop: Callable[[], int], *, at_least_s: float = 5.0, idle_s: float = 2.0
    ) -> PowerRecord:
        """Measure the idle card, then the card while `loop` is repeated.

        Args:
            loop: generates tokens, returns when the device is done, and says how many they were.
            at_least_s: how long it is repeated. The counter's steps are 2% of 5 seconds at most.
            idle_s: how long the idle card is measured.
        """
        idle_w = self._idle_w(idle_s)
        before_j = self._at_next_step() if self._has_counter else None
        n_tokens = 0
        with _Sampler(self._sample) as sampler:
            began_s = self._now()
            while True:
                n_tokens += loop()
                ended_s = self._now()
                if ended_s - began_s >= at_least_s:
                    break
        after_j = self._at_next_step() if self._has_counter else None
        if before_j is not None and after_j is not None:
            # The counter is behind by up to a step, and the card idles until it moves.
            energy_j = after_j - before_j - idle_w * (self._now() - ended_s)
        else:
            energy_j = _integral_j(sampler.samples)
        return PowerRecord(
            energy_j=energy_j,
            energy_from="counter" if self._has_counter else "samples",
            duration_s=ended_s - began_s,
            n_tokens=n_tokens,
            idle_w=idle_w,
            sm_clock_mhz=tuple(s.sm_clock_mhz for s in sampler.samples if s.sm_clock_mhz is not None),
            throttle_reasons=tuple(
                word for word in THROTTLE_REASONS if any(word in s.reasons for s in sampler.samples)
            ),
        )

    def _idle_w(self, seconds: float) -> float:
        if self._has_counter:
            first_j = self._at_next_step()
            first_s = self._now()
            self._sleep(seconds)
            last_j = self._at_next_step()
            return (last_j - first_j) / (self._now() - first_s)
        samples = [self._sample()]
        while len(samples) < 2 or samples[-1].at_s - samples[0].at_s < seconds:
            self._sleep(_SAMPLE_EVERY_S)
            samples.append(self._sample())
        return _integral_j(samples) / (samples[-1].at_s - samples[0].at_s)

    def _at_next_step(self) -> float:
        """Wait until the counter moves, and return it in joules."""
        first = last = self._energy_j() or 0.0
        until_s = self._now() + _LONGEST_UPDATE_S
        while last == first and self._now() < until_s:
            self._sleep(_POLL_S)
            last = self._energy_j() or first
        return last

    def _sample(self) -> _Sample:
        return _Sample(self._now(), self._power_w(), self._sm_clock_mhz(), throttle_words(self._mask()))

    def _energy_j(self) -> float | None:
        found = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else found / 1000

    def _power_w(self) -> float | None:
        found = self._ask("nvmlDeviceGetPowerUsage")
        return None if found is None else found / 1000

    def _sm_clock_mhz(self) -> int | None:
        return self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)

    def _mask(self) -> int:
        # Drivers know one of the names or both.
        found = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if found is None:
            found = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return found or 0

    def _ask(self, name: str, *arguments: Any) -> int | None:
        try:
            return int(getattr(self._nvml, name)(self._handle, *arguments))
        except (AttributeError, self._nvml.NVMLError):
            return None


def power_of_decoding(
    decoder: Decoder,
    prompts: Tensor,
    *,
    gen_len_tokens: int,
    power: PowerMeter,
    clock: Clock,
    at_least_s: float = 5.0,
) -> PowerRecord:
    """Measure the energy of decoding after prompts, again and again from the state after them.

    Prefill, recording and the first round, in which libraries tune, are outside. Going back to the state
    after the prompt is inside: it is a copy of the state a round.

    Args:
        decoder: of a loaded model.
        prompts: ids [B, L] on its device.
        gen_len_tokens: of each sequence, the first id included, which is the prefill's and not counted.
        power: of the decoder's device, before anything else works there.
        clock: of the decoder's device.
        at_least_s: how long decoding is repeated.

    Raises:
        UnsupportedError: there is no step after the first id.
    """
    if gen_len_tokens < 2:
        raise UnsupportedError("power is measured of steps, and one generated token takes none")
    rows, length = prompts.shape
    decoder.prepare(batch_size=rows, prompt_len_tokens=length, gen_len_tokens=gen_len_tokens)
    decoder.prefill(prompts)
    decoder.keep()

    def decode() -> int:
        ids = decoder.rewind()
        for _ in range(gen_len_tokens - 1):
            ids = decoder.step(ids)
        clock.synchronise()
        return rows * (gen_len_tokens - 1)

    decode()
    return power.measure(decode, at_least_s=at_least_s)


class _Sampler:
    """Samples at the beginning, at the end, and five times a second between.

    Args:
        sample: takes one.
    """

    def __init__(self, sample: Callable[[], _Sample]) -> None:
        self.samples: list[_Sample] = []
        self._sample = sample
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)

    def __enter__(self) -> _Sampler:
        self.samples.append(self._sample())
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self.samples.append(self._sample())

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_EVERY_S):
            self.samples.append(self._sample())


def _integral_j(samples: list[_Sample]) -> float:
    """Join powers by straight lines."""
    known = [(s.at_s, s.power_w) for s in samples if s.power_w is not None]
    return sum((v + w) / 2 * (t - s) for (s, v), (t, w) in pairwise(known))
