"""Clocks that one decoding loop can use on a CPU, on a GPU and in tests.

A loop takes a mark after each step and reads all marks when it is done. On a GPU a mark is an event put into
the stream, which does not wait for the work before it.

    >>> clock = HostClock()
    >>> marks = [clock.mark() for _ in range(3)]
    >>> len(clock.elapsed(marks).host_s)
    2

A mark of `HostClock` costs well below a microsecond: `python -m timeit -s "from mambabench.bench.clock import
HostClock; mark = HostClock().mark" "mark()"`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

Mark: TypeAlias = tuple[float, Any]
"""A moment: the host's time, and what finds the device's. Only the clock that made it can read it."""

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Marks:
    """Times between successive marks: entry i is from mark i to mark i + 1."""

    host_s: list[float]
    """By the host's clock. On a GPU a step's mark is set when the step is queued, not when it is done."""
    device_s: list[float] | None
    """Between the GPU's events; None on a CPU."""

    @property
    def step_s(self) -> list[float]:
        """From the end of one step's work to that of the next: the device's times where there are any."""
        return self.host_s if self.device_s is None else self.device_s


class Clock(Protocol):
    """Tells the time on the host, and on a device that works by itself."""

    def prepare(self, n_marks: int) -> None:
        """Make ahead what so many marks need. Earlier marks can no longer be read."""
        ...

    def now(self) -> float:
        """Seconds on the host, from an arbitrary moment."""
        ...

    def mark(self) -> Mark:
        """Note this moment in the device's work, without waiting for it."""
        ...

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given."""
        ...

    def elapsed(self, marks: Sequence[Mark]) -> Marks:
        """Wait for the device, then read the times between successive marks."""
        ...


class HostClock:
    """The clock of a CPU, where work is done when its call returns."""

    def prepare(self, n_marks: int) -> None:
        """Do nothing."""

    def now(self) -> float:
        """Seconds of `time.perf_counter`."""
        return time.perf_counter()

    def mark(self) -> Mark:
        """Note the time."""
        return time.perf_counter(), None

    def synchronise(self) -> None:
        """Do nothing."""

    def elapsed(self, marks: Sequence[Mark]) -> Marks:
        """Subtract each mark from the next."""
        return Marks(_host_s(marks), None)


class CudaClock:
    """Host time and events in a GPU's current stream.

    An event has a resolution of about half a microsecond.

    Args:
        device: for example "cuda:0".
        cuda: stands in for `torch.cuda`.
    """

    def __init__(self, device: str, cuda: Any = None) -> None:
        if cuda is None:
            import torch

            cuda = torch.cuda
        self._cuda = cuda
        self._device = device
        self._events: list[Any] = []
        self._n_used = 0

    def prepare(self, n_marks: int) -> None:
        """Make events ahead. Earlier marks can no longer be read."""
        while len(self._events) < n_marks:
            event = self._cuda.Event(enable_timing=True)
            # The driver makes an event when it is first recorded.
            event.record(self._cuda.current_stream(self._device))
            self._events.append(event)
        self._n_used = 0
        self.synchronise()

    def now(self) -> float:
        """Seconds of `time.perf_counter`."""
        return time.perf_counter()

    def mark(self) -> Mark:
        """Put an event into the current stream and note the host's time."""
        if self._n_used == len(self._events):
            self._events.append(self._cuda.Event(enable_timing=True))
        event = self._events[self._n_used]
        self._n_used += 1
        event.record(self._cuda.current_stream(self._device))
        return time.perf_counter(), event

    def synchronise(self) -> None:
        """Wait for all streams of the device."""
        self._cuda.synchronize(self._device)

    def elapsed(self, marks: Sequence[Mark]) -> Marks:
        """Wait for the device once, then read the times between successive marks."""
        self.synchronise()
        # From each to the next, since the driver's milliseconds in 32 bits grow coarse over a long run.
        device_s = [a.elapsed_time(b) / 1000 for (_, a), (_, b) in pairwise(marks)]
        return Marks(_host_s(marks), device_s)


class FakeClock:
    """A clock that stands still until it is told how long something took. It counts whole nanoseconds.

        >>> clock = FakeClock(device=True)
        >>> first = clock.mark()
        >>> clock.launch(0.25)
        >>> clock.advance(0.001)
        >>> clock.elapsed([first, clock.mark()])
        Marks(host_s=[0.001], device_s=[0.25])

    Args:
        device: whether there is a device that works by itself.
    """

    def __init__(self, *, device: bool = False) -> None:
        self._device = device
        self._host_ns = 0
        self._device_ns = 0
        self.n_synchronised = 0
        """How often the host waited for the device."""

    def advance(self, seconds: float) -> None:
        """Let the host work for so long."""
        self._host_ns += round(seconds * _NS_PER_S)

    def launch(self, seconds: float) -> None:
        """Give the device work for so long, which it begins when it is done with what it has.

        Without a device the host does the work.
        """
        if self._device:
            self._device_ns = max(self._device_ns, self._host_ns) + round(seconds * _NS_PER_S)
        else:
            self.advance(seconds)

    def prepare(self, n_marks: int) -> None:
        """Do nothing."""

    def now(self) -> float:
        """Seconds that have been told."""
        return self._host_ns / _NS_PER_S

    def mark(self) -> Mark:
        """Note this moment, and when the device will be done with what it has."""
        return self._host_ns, max(self._device_ns, self._host_ns)

    def synchronise(self) -> None:
        """Let the host wait until the device is done."""
        self.n_synchronised += 1
        self._host_ns = max(self._host_ns, self._device_ns)

    def elapsed(self, marks: Sequence[Mark]) -> Marks:
        """Wait for the device, then subtract each mark from the next, exactly."""
        self.synchronise()
        host_s = [(b - a) / _NS_PER_S for (a, _), (b, _) in pairwise(marks)]
        device_s = [(b - a) / _NS_PER_S for (_, a), (_, b) in pairwise(marks)]
        return Marks(host_s, device_s if self._device else None)


def clock_for(device: str) -> Clock:
    """Return the clock of "cpu" or of a device like "cuda:0"."""
    return CudaClock(device) if device.startswith("cuda") else HostClock()


def _host_s(marks: Sequence[Mark]) -> list[float]:
    return [b - a for (a, _), (b, _) in pairwise(marks)]
