"""Tables of sweeps that were never run, small to large, for tests of figures and for looking at them.

table = usual()
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from speed_records import MAMBA, PYTHIA, Speeds, ceilings, failed, point, replicate, sizes_by_name

from mambabench.sizes import ModelSizes, layout_for
from mambabench.speed_schema import PointRecord, ReplicateRecord, Status
from mambabench.tables.speed.table import SpeedRow, SpeedTable, build_speed_table


def sizes(name: str) -> ModelSizes:
    return sizes_by_name(name)[name]


def _sized(base: Speeds, name: str, prefill_s_per_token: float, token_s: float) -> Speeds:
    """Return a model of given speed whose state is what its sizes say."""
    layout = layout_for("mambabench", "float32")
    return replace(
        base,
        name=name,
        prefill_s_per_token=prefill_s_per_token,
        token_s=token_s,
        weights_bytes=sizes(name).weights_bytes("float32"),
        state_bytes=sizes(name).state_bytes(layout),
        kv_bytes_per_token=sizes(name).kv_bytes_per_token(layout),
        training_length_tokens=sizes(name).training_length_tokens,
    )


TRAINED_MAMBA = _sized(MAMBA, "mamba-130m", 0.0010, 0.030)
SIX = (
    TRAINED_MAMBA,
    _sized(PYTHIA, "pythia-160m", 0.0006, 0.035),
    _sized(MAMBA, "mamba-1.4b", 0.008, 0.32),
    _sized(PYTHIA, "pythia-1.4b", 0.006, 0.31),
    _sized(MAMBA, "mamba2-1.3b", 0.005, 0.30),
    _sized(PYTHIA, "tinyllama-1.1b", 0.004, 0.26),
)


def table_of(
    replicates: list[ReplicateRecord],
    kind: Any = "latency",
    *,
    expected: tuple[PointRecord, ...] = (),
    **more: Any,
) -> SpeedTable:
    names = dict.fromkeys(r.point.model for r in replicates)
    return build_speed_table(
        kind, "a sweep", replicates, [ceilings(**more)], {n: sizes(n) for n in names}, expected=expected
    )  # fmt: skip


def small() -> SpeedTable:
    """One model, one length, one process."""
    return table_of([replicate(MAMBA, point(MAMBA, 128))])


def one_length() -> SpeedTable:
    """Six models at one long prompt, of which one failed and one has no room for eager attention."""
    found = [
        replicate(speeds, point(speeds, 10_000, gen_len=100), number, process_noise=0.05)
        for number in range(3)
        for speeds in SIX[:5]
    ]
    eager = point(SIX[5], 10_000, gen_len=100, attention="eager")
    found += [replicate(SIX[5], point(SIX[5], 10_000, gen_len=100), number) for number in range(3)]
    return table_of([*found, failed(eager)], sheet_bytes_per_s=60e9)


def usual(processes: int = 3) -> SpeedTable:
    """Two models, six lengths."""
    return table_of(
        [
            replicate(speeds, point(speeds, length), number, process_noise=0.04)
            for number in range(processes)
            for length in (128, 256, 512, 1024, 2048, 4096)
            for speeds in (TRAINED_MAMBA, PYTHIA)
        ],
        sheet_bytes_per_s=60e9,
    )


def throughput() -> SpeedTable:
    """Two models, eight batch sizes, one prompt; the largest batches fail."""
    found = []
    for batch_size in (1, 2, 4, 8, 16, 32, 64, 128):
        for speeds in (TRAINED_MAMBA, PYTHIA):
            at = point(speeds, 2048, batch_size=batch_size, gen_len=128)
            if speeds is PYTHIA and batch_size >= 64:
                status: Status = "oom" if batch_size == 64 else "skipped_after_oom"
                found.append(failed(at, status=status, kind="throughput"))
            else:
                found += [replicate(speeds, at, n, kind="throughput", process_noise=0.03) for n in range(6)]
    return table_of(found, "throughput", sheet_bytes_per_s=60e9)


def grid() -> SpeedTable:
    """Two models, three batch sizes, five lengths."""
    return table_of(
        [
            replicate(speeds, point(speeds, length, batch_size=batch_size), number, process_noise=0.04)
            for number in range(3)
            for batch_size in (1, 8, 64)
            for length in (128, 512, 2048, 8192, 32768)
            for speeds in (TRAINED_MAMBA, PYTHIA)
        ]
    )


def large() -> SpeedTable:
    """Six models, ten lengths, two arms, some out of memory, late or without a path; a budget."""
    found = []
    for speeds in SIX:
        for arm in ("eager", "graph"):
            for length in (2**i for i in range(7, 17)):
                at = point(speeds, length, arm=arm, device="cuda:0")
                if status := _large_failure(speeds, arm, length):
                    found.append(failed(at, status=status))
                    continue
                for number in range(3):
                    record = replicate(speeds, at, number, process_noise=0.05)
                    assert record.memory is not None
                    memory = record.memory.model_copy(update={"budget_bytes": 24_000_000_000})
                    found.append(record.model_copy(update={"memory": memory}))
    return table_of(found, device="cuda:0", sheet_bytes_per_s=60e9)


def _large_failure(speeds: Speeds, arm: str, length: int) -> Status | None:
    if speeds.name == "pythia-1.4b" and length >= 2**14:
        return "oom" if length == 2**14 else "skipped_after_oom"
    if speeds.name == "tinyllama-1.1b" and arm == "graph":
        return "unsupported"
    if speeds.name == "mamba-1.4b" and arm == "eager" and length >= 2**15:
        return "timeout"
    if speeds.name == "mamba2-1.3b" and length == 2**10 and arm == "graph":
        return "killed"
    return None


def dense() -> SpeedTable:
    """One model at lengths too near each other for all of their labels."""
    return table_of([replicate(TRAINED_MAMBA, point(MAMBA, n)) for n in range(500, 20_000, 500)])


CASES = {f.__name__: f for f in (small, one_length, usual, throughput, grid, large, dense)}


def lines(axes: Any, label: str) -> list[Any]:
    """Return what is drawn under a label."""
    return [line for line in [*axes.lines, *axes.artists] if line.get_label() == label]


def line(axes: Any, label: str) -> Any:
    (found,) = lines(axes, label)
    return found


def rows_of(table: SpeedTable, model: str) -> list[SpeedRow]:
    return [r for r in table.rows if r.point.model == model]
