"""From what processes measured to one row for each point, with everything a reader must know about it.

Three levels are kept apart: repeats in a process give its median, processes give the estimate and interval
or range, points are compared pair by pair. Points that failed, or were not measured yet, are rows too.

    table = build_speed_table("latency", "my sweep", replicates, ceilings, sizes, expected=points)
    table.rows[0].tpot_s.value
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mambabench.speed_schema import (
    CeilingsRecord,
    MemoryRecord,
    PointRecord,
    ReplicateRecord,
    Status,
    SweepKind,
)
from mambabench.stats.replicates import Estimate

if TYPE_CHECKING:
    from mambabench.bench.sizes import ModelSizes

RowStatus = Status | Literal["missing"]
"""What became of a point; "missing" for one that the sweep has not come to."""


@dataclass(frozen=True)
class SpeedRow:
    """One point over all its processes. A figure is None where nothing was measured that gives it."""

    point: PointRecord
    status: RowStatus
    """The worst of its processes."""
    detail: str
    """How many processes ended otherwise than ok, and what the first of them said; else empty."""
    n_processes: int
    """That left a record, whatever became of them."""
    n_repeats: int
    """Of all processes together."""
    flags: tuple[str, ...]
    """What limits the figures; keys of `speed_flags.ADVICE`."""
    ttft_s: Estimate | None = None
    tpot_s: Estimate | None = None
    e2e_s: Estimate | None = None
    decode_tokens_per_s: Estimate | None = None
    prefill_tokens_per_s: Estimate | None = None
    e2e_tokens_per_s: Estimate | None = None
    itl_p50_s: Estimate | None = None
    itl_p90_s: Estimate | None = None
    itl_p99_s: Estimate | None = None
    """Percentiles of the steps of all repeats of a process; the 99th from 100 steps on."""
    itl_s_by_position: tuple[float, ...] = ()
    """[gen_len - 1], median over repeats, then over processes, step by step."""
    memory: MemoryRecord | None = None
    """Of the process with the largest peak."""
    peak_bytes: Estimate | None = None
    decode_ceiling_share: Estimate | None = None
    """Tokens a second over what the measured copy allows, 1 at the ceiling."""
    prefill_ceiling_share: Estimate | None = None
    """The least time that the measured matrix product allows over `ttft_s`."""
    host_overhead_share: float | None = None
    """(host - device) / host of decoding, or of the prefill where nothing was decoded; None on a CPU."""
    load_s: Estimate | None = None
    first_call_s: Estimate | None = None
    """The first prefill and step, in which libraries compile and tune."""
    capture_s: Estimate | None = None
    """Recording the CUDA graph."""
    net_j_per_token: Estimate | None = None
    """Energy of a token without what the idle card takes."""
    kernel_path: str = ""
    training_length_tokens: int | None = None


@dataclass(frozen=True)
class SpeedTable:
    """A sweep in rows, with all that they were computed from."""

    kind: SweepKind
    title: str
    rows: tuple[SpeedRow, ...]
    """In the order of the points that were asked for."""
    models: tuple[str, ...]
    """In the order of their first row."""
    ceilings: tuple[CeilingsRecord, ...]
    sizes: dict[str, ModelSizes]
    """By the name of the model; those without known sizes are absent."""
    replicates: tuple[ReplicateRecord, ...]
    partial: bool
    """Whether some point, or some process of one, is still to be measured."""
