"""Clocks: intervals are those that passed, and marks of a device are read after one wait."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.bench.clock import Clock, CudaClock, FakeClock, HostClock, clock_for

_steps = st.lists(st.integers(0, 10**10), min_size=1, max_size=30)


class _Event:
    """Happens when the device has done the work that was queued before it."""

    def __init__(self, cuda: _Cuda, *, enable_timing: bool) -> None:
        assert enable_timing
        self._cuda = cuda
        self._at_ms: float | None = None
        cuda.n_events += 1

    def record(self, stream: str) -> None:
        assert stream == "stream of cuda:1"
        self._at_ms = self._cuda.queued_ms
        self._cuda.waited = False

    def elapsed_time(self, other: _Event) -> float:
        assert self._cuda.waited, "read before the device was done"
        assert self._at_ms is not None
        assert other._at_ms is not None
        return other._at_ms - self._at_ms


class _Cuda:
    """Stands in for torch.cuda."""

    def __init__(self) -> None:
        self.queued_ms = 0.0
        self.waited = True
        self.n_events = 0
        self.n_waits = 0

    def Event(self, *, enable_timing: bool) -> _Event:
        return _Event(self, enable_timing=enable_timing)

    def current_stream(self, device: str) -> str:
        return f"stream of {device}"

    def synchronize(self, device: str) -> None:
        assert device == "cuda:1"
        self.n_waits += 1
        self.waited = True


def _decode(clock: Clock, steps: list[Any]) -> list[Any]:
    """Run a loop as measuring code does."""
    clock.prepare(len(steps) + 1)
    marks = [clock.mark()]
    for step in steps:
        step()
        marks.append(clock.mark())
    return marks


def test_the_host_clock_sees_what_passed() -> None:
    clock = HostClock()
    began_s = time.perf_counter()
    marks = _decode(clock, [lambda: time.sleep(0.02), lambda: None, lambda: time.sleep(0.01)])
    whole_s = time.perf_counter() - began_s
    read = clock.elapsed(marks)
    assert read.device_s is None
    assert len(read.host_s) == 3
    assert read.step_s is read.host_s
    assert read.host_s[0] >= 0.02
    assert read.host_s[2] >= 0.01
    assert 0 <= read.host_s[1] < read.host_s[0]
    assert sum(read.host_s) <= whole_s
    assert began_s <= clock.now()


@given(_steps)
def test_the_fake_clock_is_exact(steps_ns: list[int]) -> None:
    clock = FakeClock()
    steps_s = [n / 10**9 for n in steps_ns]
    marks = _decode(clock, [lambda s=s: clock.advance(s) for s in steps_s])
    assert clock.elapsed(marks).host_s == steps_s
    assert clock.now() == sum(steps_ns) / 10**9


@given(_steps)
def test_a_fake_device_works_while_the_host_goes_on(steps_ns: list[int]) -> None:
    clock = FakeClock(device=True)
    steps_s = [n / 10**9 for n in steps_ns]
    marks = _decode(clock, [lambda s=s: clock.launch(s) for s in steps_s])
    assert clock.now() == 0
    read = clock.elapsed(marks)
    assert read.host_s == [0.0] * len(steps_s)
    assert read.device_s == read.step_s == steps_s
    assert clock.now() == sum(steps_ns) / 10**9
    assert clock.n_synchronised == 1


def test_a_fake_device_that_waits_for_the_host_takes_the_host_s_time() -> None:
    clock = FakeClock(device=True)

    def slow_launch() -> None:
        clock.advance(0.010)
        clock.launch(0.002)

    read = clock.elapsed(_decode(clock, [slow_launch, slow_launch]))
    assert read.host_s == [0.010, 0.010]
    # The first begins after 10 ms, the second is launched 8 ms after the first is done.
    assert read.device_s == [0.012, 0.010]


def test_without_a_device_the_host_does_what_is_launched() -> None:
    clock = FakeClock()
    read = clock.elapsed(_decode(clock, [lambda: clock.launch(0.5)]))
    assert (read.host_s, read.device_s) == ([0.5], None)


def test_events_are_made_ahead_and_read_after_one_wait() -> None:
    cuda = _Cuda()
    clock = CudaClock("cuda:1", cuda)
    clock.prepare(4)
    made, waits = cuda.n_events, cuda.n_waits

    def step(milliseconds: float) -> None:
        cuda.queued_ms += milliseconds

    marks = [clock.mark()]
    for milliseconds in (20.0, 2.0, 3.0):
        step(milliseconds)
        marks.append(clock.mark())
    assert (cuda.n_events, cuda.n_waits) == (made, waits)
    read = clock.elapsed(marks)
    assert read.device_s == [0.020, 0.002, 0.003]
    assert len(read.host_s) == 3
    assert cuda.n_waits == waits + 1
    # The next repeat takes the same events.
    clock.prepare(4)
    assert clock.elapsed([clock.mark(), clock.mark()]).device_s == [0.0]
    assert cuda.n_events == made


def test_more_marks_than_prepared_are_still_right() -> None:
    cuda = _Cuda()
    clock = CudaClock("cuda:1", cuda)
    marks = [clock.mark()]
    cuda.queued_ms += 7
    marks.append(clock.mark())
    assert clock.elapsed(marks).device_s == [0.007]


def test_a_device_by_its_name() -> None:
    assert isinstance(clock_for("cpu"), HostClock)


def test_no_marks_no_intervals() -> None:
    for clock in (HostClock(), FakeClock()):
        assert clock.elapsed([]).host_s == []
        assert clock.elapsed([clock.mark()]).host_s == []


@pytest.mark.parametrize("device", [False, True])
def test_synchronising_moves_the_host_only_if_there_is_work_left(device: bool) -> None:
    clock = FakeClock(device=device)
    clock.launch(1.0)
    clock.advance(3.0)
    clock.synchronise()
    assert clock.now() == (3.0 if device else 4.0)
