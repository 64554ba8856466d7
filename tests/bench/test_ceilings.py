"""Ceilings: the formulas by hand, the data sheets' names, and a measurement against a clock that is known."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mambabench.bench import ceilings
from mambabench.bench.ceilings import Limits, measure, sheet
from mambabench.bench.sizes import fake_sizes
from mambabench.sizes import ModelSizes, StateLayout, decode_ceiling_tokens_per_s, prefill_ceiling_s

SMALL = Limits(least_repeats=3, least_time_s=0.0, least_buffer_bytes=2**20, matmul_size=64)
HALF = StateLayout(0, 2, 2, 2)
PLAIN = ModelSizes(
    name="m", family="hybrid", n_layers=3, d_model=10, vocab_rows=100, n_parameters=5000,
    n_read_parameters=4000, n_fp32_parameters=50, n_matmul_parameters=3000, ssm_elements=64,
    conv_elements_per_column=8, d_conv=4, kv_elements_per_token=20, attention_width=12, n_attention_layers=2,
    training_length_tokens=None, learned_positions=None,
)  # fmt: skip


def test_decoding_is_bound_by_what_it_moves() -> None:
    # Weights 3950 * 2 + 50 * 4; of each of 3 sequences twice (64 + 8 * 4) * 2, and 20 * 2 a token for 7 + 1.
    moved = 8100 + 3 * (2 * 192 + 8 * 40)
    found = decode_ceiling_tokens_per_s(PLAIN, HALF, "float16", batch_size=3, depth_tokens=7, bytes_per_s=1e6)
    assert found == pytest.approx(3e6 / moved, rel=1e-12)


def test_a_prefill_is_bound_by_its_products() -> None:
    # 2 P L, 2 V d for one position, and 2 layers d_attn L^2.
    flops = 2 * 3000 * 50 + 2 * 100 * 10 + 2 * 2 * 12 * 50**2
    assert prefill_ceiling_s(PLAIN, 50, 4, 1e6) == pytest.approx(4 * flops / 1e6, rel=1e-12)


def test_a_model_that_moves_nothing_has_no_ceiling() -> None:
    sizes = fake_sizes("fake:token_ms=2")
    assert decode_ceiling_tokens_per_s(
        sizes, HALF, "float32", batch_size=1, depth_tokens=1, bytes_per_s=1.0
    ) == float("inf")
    assert prefill_ceiling_s(sizes, 10, 1, 1.0) == 0


@given(st.integers(1, 512), st.integers(0, 10**6), st.floats(1e6, 1e13))
def test_more_bandwidth_is_as_much_faster_and_depth_never(batch: int, depth: int, speed: float) -> None:
    def at(sizes: ModelSizes, depth: int, speed: float) -> float:
        return decode_ceiling_tokens_per_s(
            sizes, HALF, "float16", batch_size=batch, depth_tokens=depth, bytes_per_s=speed
        )

    assert at(PLAIN, depth, 2 * speed) == pytest.approx(2 * at(PLAIN, depth, speed))
    assert at(PLAIN, depth + 1, speed) < at(PLAIN, depth, speed)
    without = replace(PLAIN, kv_elements_per_token=0)
    assert at(without, depth + 1, speed) == at(without, 0, speed)


@pytest.mark.parametrize(
    ("name", "gb_per_s", "half", "single"),
    [
        ("NVIDIA H100 80GB HBM3", 3350, 989.4, 66.9),
        ("NVIDIA H100 PCIe", 2039, 756, 51.2),
        ("NVIDIA H100 NVL", 3938, 835.5, 60),
        ("NVIDIA H200", 4800, 989.4, 66.9),
        ("NVIDIA A100-SXM4-40GB", 1555, 312, 19.5),
        ("NVIDIA A100-SXM4-80GB", 2039, 312, 19.5),
        ("NVIDIA A100-PCIE-40GB", 1555, 312, 19.5),
        ("NVIDIA A100 80GB PCIe", 1935, 312, 19.5),
        ("NVIDIA L4", 300, 121, 30.3),
        ("NVIDIA L40S", 864, 362.05, 91.6),
        ("NVIDIA A10", 600, 125, 31.2),
        ("NVIDIA RTX A6000", 768, 154.8, 38.7),
        ("NVIDIA GeForce RTX 3090", 936, 71, 35.6),
        ("NVIDIA GeForce RTX 4090", 1008, 165.2, 82.6),
        ("NVIDIA GeForce RTX 5090", 1792, 209.5, 104.8),
        ("Tesla V100-SXM2-16GB", 900, 125, 15.7),
        ("Tesla T4", 320, 65, 8.1),
        ("NVIDIA B200", 7700, 2250, 75),
    ],
)
def test_cards_by_the_name_of_the_driver(name: str, gb_per_s: float, half: float, single: float) -> None:
    assert sheet(name, "float16") == pytest.approx((gb_per_s * 1e9, half * 1e12))
    assert sheet(name, "float32") == pytest.approx((gb_per_s * 1e9, single * 1e12))
    old = "V100" in name or "T4" in name
    assert sheet(name, "bfloat16")[1] == (None if old else sheet(name, "float16")[1])


@pytest.mark.parametrize(
    "name",
    [
        "", "Intel(R) Xeon(R) Processor", "NVIDIA A10G", "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA L40G", "AMD Instinct MI300X",
    ],
)  # fmt: skip
def test_other_cards_are_not_guessed(name: str) -> None:
    assert sheet(name, "float16") == (None, None)


@given(st.integers(0, 2**45), st.integers(1, 2**40))
def test_buffers_leave_most_memory_alone(free: int, wanted: int) -> None:
    size = ceilings._copy_buffer_bytes(free, wanted)
    assert size % 4096 == 0
    assert size >= 4096
    assert size == 4096 or size <= min(wanted, free / 8)
    assert size > min(wanted, free / 8) - 4096


def test_a_measurement_of_this_machine() -> None:
    record = measure("cpu", "float32", weights_bytes_hint=3 * 2**20, round=2, limits=SMALL)
    assert record.copy_buffer_bytes == 3 * 2**20
    assert record.matmul_shape == (64, 64, 64)
    assert (record.device, record.dtype, record.round) == ("cpu", "float32", 2)
    assert len(record.copy_bytes_per_s) == len(record.matmul_flops_per_s) == 3
    assert record.sheet_bytes_per_s is None
    # The same by hand, in numpy: far apart only if bytes are miscounted, whatever else the machine does.
    source = np.ones(64 * 2**20 // 4, np.float32)
    target = source.copy()
    best = 1e9
    for _ in range(5):
        begun = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - begun)
    wide = measure("cpu", "float32", weights_bytes_hint=source.nbytes, limits=SMALL)
    assert 1 / 20 < max(wide.copy_bytes_per_s) / (2 * source.nbytes / best) < 20


def test_figures_are_work_over_time_until_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(work: Callable[[], object], place: torch.device, times: int) -> float:
        work()
        return 0.01 * times

    monkeypatch.setattr(ceilings, "_timed", timed)
    limits = Limits(least_buffer_bytes=2**20, matmul_size=64)
    record = measure("cpu", "float32", limits=limits)
    # A timing is of two pieces of work, 0.02 s; of those a second needs fifty.
    assert 50 <= len(record.copy_bytes_per_s) <= 51
    assert list(record.copy_bytes_per_s) == pytest.approx([2 * 2**20 / 0.01] * len(record.copy_bytes_per_s))
    assert list(record.matmul_flops_per_s) == pytest.approx(
        [2 * 64**3 / 0.01] * len(record.matmul_flops_per_s)
    )
    monkeypatch.setattr(ceilings, "_timed", lambda work, place, times: 0.3 * times)
    assert len(measure("cpu", "float32", limits=limits).copy_bytes_per_s) == 7


def test_a_slow_product_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[int] = []
    multiply = torch.mm

    def mm(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        shapes.append(a.shape[0])
        return multiply(a, b, out=out)

    def timed(work: Callable[[], object], place: torch.device, times: int) -> float:
        work()
        return (2.0 if shapes and shapes[-1] > 300 else 0.1) * times

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(ceilings, "_timed", timed)
    record = measure("cpu", "bfloat16", limits=Limits(least_buffer_bytes=2**20, matmul_size=1200))
    assert record.matmul_shape == (300, 300, 300)
    assert list(record.matmul_flops_per_s) == pytest.approx(
        [2 * 300**3 / 0.1] * len(record.matmul_flops_per_s)
    )
    assert min(shapes) == 300


def test_planning_loads_no_model_library() -> None:
    code = (
        "import sys; from mambabench.bench import axes, ceilings, sizes;"
        "from mambabench.models.locate import locate; from mambabench.registry import resolve;"
        "ref = resolve('pythia-70m'); sizes.sizes_of(ref, locate(ref, 'random')).weights_bytes('float32');"
        "print(sorted({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
