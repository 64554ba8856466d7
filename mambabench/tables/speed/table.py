"""From what processes measured to one row for each point, with everything a reader must know about it.

Three levels are kept apart: repeats in a process give its median, processes give the estimate and interval
or range, points are compared pair by pair. Points that failed, or were not measured yet, are rows too.

    table = build_speed_table("latency", "my sweep", replicates, ceilings, sizes, expected=points)
    table.rows[0].tpot_s.value
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from mambabench import medians
from mambabench.medians import Figure, by_replicate
from mambabench.speed_schema import (
    CeilingsRecord,
    MemoryRecord,
    PointRecord,
    ReplicateRecord,
    Status,
    SweepKind,
)
from mambabench.stats.replicates import Estimate, centre, centre_of_differences
from mambabench.tables.speed.flags import flags_of

if TYPE_CHECKING:
    from mambabench.sizes import ModelSizes

RowStatus = Status | Literal["missing"]
"""What became of a point; "missing" for one that the sweep has not come to."""

_WORST_FIRST: tuple[Status, ...] = (
    "failed", "illegal_access", "killed", "oom", "timeout", "unsupported", "skipped_after_oom", "ok",
)  # fmt: skip
_UNSTEADY = 1.10


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
    """Of all processes that ended well together."""
    flags: tuple[str, ...]
    """What limits the figures; keys of `speed_flags.ADVICE`."""
    requested_bytes: int | None = None
    """The allocation that failed, of the first process that ran out of memory."""
    allocated_bytes: int | None = None
    """What that process held then."""
    ttft_s: Estimate | None = None
    tpot_s: Estimate | None = None
    e2e_s: Estimate | None = None
    decode_tokens_per_s: Estimate | None = None
    prefill_tokens_per_s: Estimate | None = None
    e2e_tokens_per_s: Estimate | None = None
    bytes_per_token: float | None = None
    """Of the text that prompts were made of; None for random ids."""
    prefill_bytes_per_s: Estimate | None = None
    decode_bytes_per_s: Estimate | None = None
    """Tokens a second times bytes a token: comparable between tokenizers."""
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
    host_wait_share: float | None = None
    """(host - device) / host of decoding, or of the prefill where nothing was decoded; None on a CPU. The
    device's time is from its first event to its last, with its pauses between launches."""
    load_s: Estimate | None = None
    first_call_s: Estimate | None = None
    """The first prefill and step, in which libraries compile and tune."""
    capture_s: Estimate | None = None
    """Recording the CUDA graph."""
    gross_j_per_token: Estimate | None = None
    """Energy of a token, all sequences together, by a process apart from those that timed."""
    net_j_per_token: Estimate | None = None
    """Energy of a token without what the idle card takes; below 0 where that was more. Arithmetic mean."""
    implementation: str = ""
    """What ran the forward, and what computed the scan or the attention; several where processes differ."""
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

    def as_json(self) -> dict[str, Any]:
        """Return rows with their estimates, and ceilings, as JSON values; raw repeats are elsewhere."""
        return {
            "kind": self.kind,
            "title": self.title,
            "partial": self.partial,
            "models": list(self.models),
            "rows": [_row_as_json(row) for row in self.rows],
            "ceilings": [c.model_dump(mode="json") for c in self.ceilings],
        }

    def of(self, point: PointRecord) -> tuple[ReplicateRecord, ...]:
        """Return the processes that measured a point."""
        return tuple(r for r in self.replicates if r.point == point)


@dataclass(frozen=True)
class _Lines:
    """What the machine reaches at best: another program can only slow a copy or a product down."""

    bytes_per_s: float | None
    flops_per_s: float | None
    unsteady: bool
    """Whether the bests of two rounds are more than 10% apart."""


def build_speed_table(
    kind: SweepKind,
    title: str,
    replicates: Sequence[ReplicateRecord],
    ceilings: Sequence[CeilingsRecord],
    sizes: Mapping[str, ModelSizes],
    *,
    expected: Sequence[PointRecord],
    n_processes: int | None = None,
    n_cores: int | None = None,
) -> SpeedTable:
    """Aggregate a sweep's records.

    Args:
        kind: of the sweep.
        title: for headings.
        replicates: of all processes, whatever became of them.
        ceilings: measured during the sweep; of all their repeats the best is taken.
        sizes: of the models, by name; shares of ceilings are left out for others.
        expected: all points in the order of the table; others that were measured follow.
        n_processes: that each point is to be measured with; null where that is not known.
        n_cores: of the machine, to judge its load; null for no judgement.
    """
    points = list(dict.fromkeys([*expected, *(r.point for r in replicates)]))
    found: dict[PointRecord, list[ReplicateRecord]] = {point: [] for point in points}
    for record in sorted(replicates, key=lambda r: r.replicate):
        found[record.point].append(record)
    rows = tuple(
        _row(
            point,
            records,
            sizes.get(point.model),
            _lines(ceilings, point),
            n_cores=n_cores,
            n_processes=n_processes,
        )
        for point, records in found.items()
    )
    return SpeedTable(
        kind=kind,
        title=title,
        rows=rows,
        models=tuple(dict.fromkeys(point.model for point in points)),
        ceilings=tuple(ceilings),
        sizes=dict(sizes),
        replicates=tuple(replicates),
        partial=any(len(records) < (n_processes or 1) for records in found.values()),
    )


def estimate(records: Iterable[ReplicateRecord], figure: Figure) -> Estimate | None:
    """Return the estimate of a figure over processes, None where none of them has it."""
    values = list(by_replicate(records, figure).values())
    return centre(values) if values else None


def _row(
    point: PointRecord,
    records: Sequence[ReplicateRecord],
    sizes: ModelSizes | None,
    lines: _Lines,
    *,
    n_cores: int | None,
    n_processes: int | None,
) -> SpeedRow:
    # What a process had measured before it came to a bad end, or with a wrong state, is in no figure.
    measured = [r for r in records if r.status == "ok"]
    n_sequences = point.batch_size
    ttft_s, tpot_s = estimate(measured, medians.ttft_s), estimate(measured, medians.tpot_s)
    e2e_s = estimate(measured, medians.e2e_s)
    decode_share, prefill_share = _shares(point, measured, sizes, lines, ttft_s, tpot_s)
    shares = [share.low for share in (decode_share, prefill_share) if share is not None]
    waits = [o for r in measured if (o := medians.host_wait_share(r)) is not None]
    nets = [j for r in measured if (j := medians.net_j_per_token(r)) is not None]
    status, detail = _status(records)
    decode_tokens_per_s = tpot_s and tpot_s.inverse(n_sequences)
    prefill_tokens_per_s = ttft_s and ttft_s.inverse(n_sequences * point.prompt_len_tokens)
    bytes_per_token = next((r.bytes_per_token for r in records if r.bytes_per_token is not None), None)
    return SpeedRow(
        point=point,
        status=status,
        detail=detail,
        n_processes=len(records),
        n_repeats=sum(len(r.repeats) for r in measured),
        flags=flags_of(
            point,
            records,
            above_ceiling=any(share > 1 for share in shares),
            ceilings_unsteady=bool(shares) and lines.unsteady,
            n_cores=n_cores,
            n_processes=n_processes,
        ),
        requested_bytes=next((r.requested_bytes for r in records if r.status == "oom"), None),
        allocated_bytes=next((r.allocated_bytes for r in records if r.status == "oom"), None),
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        e2e_s=e2e_s,
        decode_tokens_per_s=decode_tokens_per_s,
        prefill_tokens_per_s=prefill_tokens_per_s,
        e2e_tokens_per_s=e2e_s and e2e_s.inverse(n_sequences * point.gen_len_tokens),
        bytes_per_token=bytes_per_token,
        prefill_bytes_per_s=_times(prefill_tokens_per_s, bytes_per_token),
        decode_bytes_per_s=_times(decode_tokens_per_s, bytes_per_token),
        itl_p50_s=estimate(measured, medians.itl_percentile_s(50)),
        itl_p90_s=estimate(measured, medians.itl_percentile_s(90)),
        itl_p99_s=estimate(measured, medians.itl_percentile_s(99)),
        itl_s_by_position=medians.itl_by_position_s(measured),
        memory=max((r.memory for r in measured if r.memory), key=lambda m: m.peak_bytes, default=None),
        peak_bytes=estimate(measured, medians.peak_bytes),
        decode_ceiling_share=decode_share,
        prefill_ceiling_share=prefill_share,
        host_wait_share=statistics.median(waits) if waits else None,
        load_s=estimate(measured, lambda r: r.load_s),
        first_call_s=estimate(measured, lambda r: r.first_call_s),
        capture_s=estimate(measured, lambda r: r.capture_s),
        gross_j_per_token=estimate(measured, medians.gross_j_per_token),
        net_j_per_token=centre_of_differences(nets) if nets else None,
        implementation=" / ".join(dict.fromkeys(r.implementation for r in records if r.implementation)),
        kernel_path=" / ".join(dict.fromkeys(r.kernel_path for r in records if r.kernel_path)),
        training_length_tokens=None if sizes is None else sizes.training_length_tokens,
    )


def _times(figure: Estimate | None, factor: float | None) -> Estimate | None:
    return None if figure is None or factor is None else figure.times(factor)


def _status(records: Sequence[ReplicateRecord]) -> tuple[RowStatus, str]:
    if not records:
        return "missing", ""
    statuses = [r.status for r in records]
    worst = min(statuses, key=_WORST_FIRST.index)
    if worst == "ok":
        return worst, ""
    said = next((r.detail for r in records if r.status == worst and r.detail), "")
    counts = {status: statuses.count(status) for status in _WORST_FIRST if status in statuses}
    if len(counts) == 1:
        return worst, said
    counted = ", ".join(f"{n} of {len(records)} {status}" for status, n in counts.items())
    return worst, f"{counted}: {said}" if said else counted


def _lines(ceilings: Sequence[CeilingsRecord], point: PointRecord) -> _Lines:
    here = [c for c in ceilings if c.device == point.device]
    copies = bests((c.round, c.copy_bytes_per_s) for c in here)
    products = bests((c.round, c.matmul_flops_per_s) for c in here if c.dtype == point.dtype)
    return _Lines(
        max(copies.values(), default=None),
        max(products.values(), default=None),
        unsteady=any(max(b.values()) > _UNSTEADY * min(b.values()) for b in (copies, products) if b),
    )


def bests(figures: Iterable[tuple[int, Sequence[float]]]) -> dict[int, float]:
    """Return the best figure of each round in order, from rounds and their repeats."""
    found: dict[int, float] = {}
    for number, repeats in figures:
        if repeats:
            found[number] = max([*repeats, found.get(number, 0.0)])
    return dict(sorted(found.items()))


def _shares(
    point: PointRecord,
    measured: Sequence[ReplicateRecord],
    sizes: ModelSizes | None,
    lines: _Lines,
    ttft_s: Estimate | None,
    tpot_s: Estimate | None,
) -> tuple[Estimate | None, Estimate | None]:
    """Return the achieved shares of the measured ceilings of decoding and of the prefill."""
    if sizes is None or not measured:
        return None, None
    from mambabench.sizes import decode_ceiling_tokens_per_s, layout_for, prefill_ceiling_s

    decode = prefill = None
    # A fake model has no weights to read or to multiply with, and then there is no ceiling.
    if tpot_s is not None and lines.bytes_per_s is not None and sizes.n_read_parameters:
        ceiling = decode_ceiling_tokens_per_s(
            sizes,
            layout_for(library_of(measured[0].implementation), point.dtype, sizes),
            point.dtype,
            batch_size=point.batch_size,
            # Steps are averaged, and so is their depth.
            depth_tokens=point.prompt_len_tokens + point.gen_len_tokens // 2,
            bytes_per_s=lines.bytes_per_s,
        )
        decode = tpot_s.inverse(point.batch_size / ceiling)
    if ttft_s is not None and lines.flops_per_s is not None and sizes.n_matmul_parameters:
        least_s = prefill_ceiling_s(sizes, point.prompt_len_tokens, point.batch_size, lines.flops_per_s)
        prefill = ttft_s.inverse(least_s)
    return decode, prefill


def library_of(implementation: str) -> str:
    """Return whose state layout an implementation has: "mambabench", "transformers" or "mamba_ssm"."""
    first = implementation.partition(" ")[0]
    return first if first in ("transformers", "mamba_ssm") else "mambabench"


def _row_as_json(row: SpeedRow) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        if field.name in ("point", "memory"):
            written[field.name] = None if value is None else value.model_dump(mode="json")
        elif isinstance(value, Estimate):
            written[field.name] = {name.name: getattr(value, name.name) for name in fields(value)}
        else:
            written[field.name] = list(value) if isinstance(value, tuple) else value
    if row.memory is not None:
        written["memory"]["transient_bytes"] = row.memory.transient_bytes
    return written
