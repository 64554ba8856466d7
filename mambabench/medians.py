"""The figures of one process: medians over its repeats, none of them left out.

tpot_s(record), by_replicate(records, tpot_s)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from mambabench.speed_schema import MemoryRecord, PointRecord, RepeatRecord, ReplicateRecord

Figure = Callable[[ReplicateRecord], float | None]
"""A process's figure, None where it did not measure one."""

N_FOR_P99 = 100
"""Samples from which there is a 99th percentile."""


def ttft_s(record: ReplicateRecord) -> float | None:
    """Return the median time to the first id."""
    return _median(r.ttft_s for r in record.repeats)


def tpot_s(record: ReplicateRecord) -> float | None:
    """Return the median over repeats of the mean time of a step."""
    return _median(r.tpot_s for r in record.repeats if r.itl_s)


def e2e_s(record: ReplicateRecord) -> float | None:
    """Return the median time from the ids on the device to the last generated id."""
    return _median(r.e2e_s for r in record.repeats)


def peak_bytes(record: ReplicateRecord) -> float | None:
    """Return the process's peak memory as measured."""
    return float(record.memory.peak_bytes) if record.memory is not None else None


def covered_tokens(point: PointRecord, memory: MemoryRecord) -> int:
    """Return the tokens of each sequence that a walked state covers, or has room for."""
    if memory.state_tokens is not None:
        return memory.state_tokens
    # The last generated id is never forwarded.
    return point.prompt_len_tokens + point.gen_len_tokens - 1


def budget_bytes(record: ReplicateRecord) -> int | None:
    """Return the emulated memory that a process had; None for all of the device's."""
    if record.budget_bytes is None and record.memory is not None:
        return record.memory.budget_bytes
    return record.budget_bytes


def gross_j_per_token(record: ReplicateRecord) -> float | None:
    """Return the energy of a token."""
    return record.power.gross_j_per_token if record.power is not None else None


def net_j_per_token(record: ReplicateRecord) -> float | None:
    """Return the energy of a token without what the idle card takes."""
    return record.power.net_j_per_token if record.power is not None else None


def host_wait_share(record: ReplicateRecord) -> float | None:
    """Return the median share of the host's time outside the device's events; None on a CPU.

    Between its events a device may lie idle until the next launch: launch overhead is not in the share.
    """
    return _median(_wait(r) for r in record.repeats)


def itl_percentile_s(percent: int) -> Figure:
    """Return the figure of a percentile (1 to 99) over the steps of all repeats."""

    def figure(record: ReplicateRecord) -> float | None:
        steps = sorted(itl for r in record.repeats for itl in r.itl_s)
        if not steps or (percent >= 99 and len(steps) < N_FOR_P99):
            return None
        # Linear between the two nearest, as numpy's default.
        at = (len(steps) - 1) * percent / 100
        below = int(at)
        above = min(below + 1, len(steps) - 1)
        return steps[below] + (at - below) * (steps[above] - steps[below])

    return figure


def itl_by_position_s(records: Sequence[ReplicateRecord]) -> tuple[float, ...]:
    """Return each step's median over the repeats of a process, then over the processes."""
    processes = []
    for record in records:
        repeats = [r.itl_s for r in record.repeats if r.itl_s]
        if repeats:
            processes.append([statistics.median(step) for step in zip(*repeats, strict=False)])
    return tuple(statistics.median(step) for step in zip(*processes, strict=False))


def by_replicate(records: Iterable[ReplicateRecord], figure: Figure) -> dict[int, float]:
    """Return the figures above 0 by the replicate's number; others have no logarithm, and are flagged."""
    found = ((record.replicate, figure(record)) for record in records)
    return {number: value for number, value in found if value is not None and value > 0}


def is_positive(record: ReplicateRecord) -> bool:
    """Return whether all figures that a process has are above 0, as times and sizes are but for noise."""
    figures = (ttft_s, tpot_s, e2e_s, peak_bytes, gross_j_per_token, net_j_per_token)
    return all(value > 0 for figure in figures if (value := figure(record)) is not None)


def spread_within(values: Sequence[float]) -> float | None:
    """Return the interquartile range over the median; None for fewer than 4 values."""
    if len(values) < 4:
        return None
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle > 0 else None


def has_outlier(values: Sequence[float]) -> bool:
    """Return whether a value is off the median by 10 median absolute deviations and by 5%."""
    if len(values) < 4:
        return False
    middle = statistics.median(values)
    deviations = [abs(v - middle) for v in values]
    return max(deviations) > max(10 * statistics.median(deviations), 0.05 * middle)


def _wait(repeat: RepeatRecord) -> float | None:
    if repeat.itl_s and repeat.decode_host_s is not None:
        device_s = sum(repeat.itl_s) if repeat.decode_device_s is None else repeat.decode_device_s
        return (repeat.decode_host_s - device_s) / repeat.decode_host_s
    if repeat.ttft_s and repeat.ttft_device_s is not None:
        return (repeat.ttft_s - repeat.ttft_device_s) / repeat.ttft_s
    return None


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
