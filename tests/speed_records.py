"""Records of sweeps that were never run, from known times and sizes, for tests of tables, words and plots.

    replicates = sweep("latency", [MAMBA, PYTHIA], prompt_lens=(128, 1024), processes=6)
    figures = ceilings()

A process is slower than the model's time by a factor of its own, a repeat by another one; both are lognormal
and depend on the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mambabench.bench.sizes import sizes_of
from mambabench.models.locate import locate
from mambabench.registry import resolve
from mambabench.sizes import ModelSizes
from mambabench.speed_schema import (
    Arm,
    Attention,
    CeilingsRecord,
    MemoryRecord,
    PointRecord,
    RepeatRecord,
    ReplicateRecord,
    Status,
    SweepKind,
    WarmupRecord,
)


@dataclass(frozen=True)
class Speeds:
    """What a model takes: prefill of a sequence and one decoding step of a batch of them."""

    name: str
    prefill_s: float
    prefill_s_per_token: float
    token_s: float
    token_s_per_depth: float
    weights_bytes: int
    state_bytes: int
    kv_bytes_per_token: int
    attention: Attention
    training_length_tokens: int | None
    arm_factors: tuple[tuple[str, float], ...] = (("shipped", 1.6), ("graph", 0.5), ("sampled", 1.05))
    token_s_per_sequence: float = 0.001


@cache
def sizes_by_name(*names: str) -> dict[str, ModelSizes]:
    """Return the sizes of registered models."""
    found = {}
    for name in names or ("mamba-130m", "pythia-160m"):
        ref = resolve(name)
        known = sizes_of(ref, locate(ref, "random"))
        assert known is not None
        found[name] = known
    return found


MAMBA = Speeds("mamba-130m", 0.010, 0.0010, 0.030, 0.0, 516_000_000, 2_800_000, 0, "none", None)
PYTHIA = Speeds("pythia-160m", 0.010, 0.0006, 0.025, 8e-6, 650_000_000, 0, 73_728, "sdpa", 2048)


def point(
    speeds: Speeds = MAMBA, prompt_len: int = 128, *, batch_size: int = 1, gen_len: int = 64,
    arm: Arm = "eager", device: str = "cpu", attention: Attention | None = None,
) -> PointRecord:  # fmt: skip
    return PointRecord(
        model=speeds.name,
        batch_size=batch_size,
        prompt_len_tokens=prompt_len,
        gen_len_tokens=gen_len,
        arm=arm,
        attention=attention or speeds.attention,
        dtype="float32",
        device=device,
    )


def failed(
    at: PointRecord, number: int = 0, status: Status = "oom", kind: SweepKind = "latency", **more: Any
) -> ReplicateRecord:
    """Return the record of a process that measured nothing."""
    if status == "oom":
        more = {
            "detail": "CUDA out of memory",
            "requested_bytes": 6_700_000_000,
            "allocated_bytes": 17 * 10**9,
            **more,
        }
    return ReplicateRecord(
        fingerprint=f"{at}{number}", kind=kind, point=at, replicate=number, order=0, status=status, **more
    )  # fmt: skip


def replicate(
    speeds: Speeds, at: PointRecord, number: int = 0, *, kind: SweepKind = "latency", repeats: int = 10,
    process_noise: float = 0.01, repeat_noise: float = 0.01, seed: int = 0, **more: Any,
) -> ReplicateRecord:  # fmt: skip
    """Return a record of `at` whose times are the model's, times noise."""
    key = [
        seed,
        number,
        at.prompt_len_tokens,
        at.gen_len_tokens,
        at.batch_size,
        *at.arm.encode(),
        *at.model.encode(),
    ]
    rng = np.random.default_rng(key)
    slower = dict(speeds.arm_factors).get(at.arm, 1.0) * float(np.exp(process_noise * rng.standard_normal()))
    ttft_s = (speeds.prefill_s + at.batch_size * at.prompt_len_tokens * speeds.prefill_s_per_token) * slower
    depths = at.prompt_len_tokens + np.arange(1, at.gen_len_tokens)
    steps_s = speeds.token_s + (at.batch_size - 1) * speeds.token_s_per_sequence
    steps_s = (steps_s + depths * speeds.token_s_per_depth) * slower
    on_gpu = at.device != "cpu"
    made = []
    for _ in range(repeats):
        a, b = np.exp(repeat_noise * rng.standard_normal(2))
        itl_s = tuple((steps_s * b).tolist())
        made.append(
            RepeatRecord(
                ttft_s=ttft_s * a,
                itl_s=itl_s,
                decode_host_s=sum(itl_s) * 1.25 if on_gpu else None,
                decode_device_s=sum(itl_s) if on_gpu else None,
            )
        )
    length = at.prompt_len_tokens + at.gen_len_tokens
    # The last generated id is never forwarded.
    state = at.batch_size * (speeds.state_bytes + (length - 1) * speeds.kv_bytes_per_token)
    peak = speeds.weights_bytes + state + at.batch_size * at.prompt_len_tokens * 20_000
    fields: dict[str, Any] = {
        "past_training_length": length > (speeds.training_length_tokens or length),
        "implementation": "mambabench StatefulModel",
        "kernel_path": "numba" if speeds.attention == "none" else "torch",
        "repeats": tuple(made),
        "warmup": WarmupRecord(prefill_s=(ttft_s,) * 3, decode_step_s=(speeds.token_s,) * 3, steady=True),
        "load_s": 1.5,
        "first_call_s": 2.5,
        "memory": MemoryRecord(
            weights_bytes=speeds.weights_bytes,
            state_bytes=state,
            state_bytes_spec=state,
            baseline_bytes=300_000_000,
            peak_bytes=peak,
            peak_process_bytes=peak + 300_000_000,
        ),
        "load_average": 1.2,
        "started_utc": "2025-01-01T00:00:00Z",
        "wall_s": 30.0,
    }  # fmt: skip
    return ReplicateRecord(
        fingerprint=f"{at}{number}",
        kind=kind,
        point=at,
        replicate=number,
        order=number,
        status="ok",
        **{**fields, **more},
    )


def sweep(
    kind: SweepKind = "latency", models: Sequence[Speeds] = (MAMBA, PYTHIA), *,
    prompt_lens: Sequence[int] = (128, 512, 2048), batch_sizes: Sequence[int] = (1,),
    arms: Sequence[Arm] = ("eager",), gen_len: int = 64, processes: int = 6, **more: Any,
) -> list[ReplicateRecord]:  # fmt: skip
    """Return the records of every combination, `processes` of each; `more` goes to `replicate`."""
    device = more.pop("device", "cpu")
    return [
        replicate(speeds, at, number, kind=kind, **more)
        for number in range(processes)
        for prompt_len in prompt_lens
        for batch_size in batch_sizes
        for arm in arms
        for speeds in models
        for at in [point(speeds, prompt_len, batch_size=batch_size, gen_len=gen_len, arm=arm, device=device)]
    ]


def ceilings(round_: int = 0, device: str = "cpu", **more: Any) -> CeilingsRecord:
    """Return what a machine of 20 GB/s and 0.5 TFLOP/s measures."""
    fields: dict[str, Any] = {
        "device": device,
        "device_name": "a processor",
        "dtype": "float32",
        "round": round_,
        "copy_bytes_per_s": (19e9, 20e9, 21e9),
        "copy_buffer_bytes": 2**28,
        "matmul_flops_per_s": (0.49e12, 0.5e12, 0.51e12),
        "matmul_shape": (2048, 2048, 2048),
        "made_utc": "2025-01-01T00:00:00Z",
    }
    return CeilingsRecord(**{**fields, **more})
