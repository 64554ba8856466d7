"""The Triton kernels and models over them on a GPU, against float64 and the CPU. Not run on hardware yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_hybrid, tiny_mamba, tiny_mamba2
from models.triton_models import MODELS, forwards
from triton_oracle import (
    Shape,
    check_add_norm,
    check_conv,
    check_gate_norm,
    check_scan,
    check_ssd,
)

from mambabench.kernels.gpu.triton_kernels import TritonKernels
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

DEVICE = "cuda:0"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# From the start and from states; ragged, of one token each, empty, and longer than a piece.
every_rows = pytest.mark.parametrize("rows", [[700, 1, 33, 5], [1] * 9, [17, 0, 64], [1300]], ids=str)


def kernels(dtype: torch.dtype) -> TritonKernels:
    return TritonKernels(dtype)


def shape(rows: list[int], dtype: torch.dtype, **options: Any) -> Shape:
    return Shape(rows, dtype, seed=1, device=DEVICE, **options)


@every_dtype
@every_rows
# As in mamba-130m, mamba-2.8b, and odd ones.
@pytest.mark.parametrize("sizes", [(1536, 16), (5120, 16), (70, 64), (33, 128)], ids=str)
def test_scan(rows: list[int], dtype: torch.dtype, sizes: tuple[int, int]) -> None:
    channels, n_states = sizes
    assert check_scan(kernels(dtype), shape(rows, dtype), channels=channels, n_states=n_states) <= 1


@every_dtype
@every_rows
# Heads, their width, groups and states: as in mamba2-130m, with groups, and odd ones. Each compiles anew.
@pytest.mark.parametrize("sizes", [(24, 64, 1, 128), (32, 64, 8, 128), (3, 65, 3, 5)], ids=str)
def test_ssd(rows: list[int], dtype: torch.dtype, sizes: tuple[int, int, int, int]) -> None:
    assert check_ssd(kernels(dtype), shape(rows, dtype), sizes=sizes, uses_matrix_units=True) <= 1


@every_rows
def test_rows_that_all_begin_and_are_not_kept(rows: list[int]) -> None:
    case = shape(rows, torch.bfloat16, has_state=False, keeps=False)
    ours = kernels(torch.bfloat16)
    assert check_scan(ours, case, channels=1536, n_states=16) <= 1
    assert check_ssd(ours, case, sizes=(24, 64, 1, 128), uses_matrix_units=True) <= 1
    assert check_conv(ours, case, channels=1536, taps=4, column=0) <= 1


@every_rows
@pytest.mark.parametrize("dt_limit", [(0.0, float("inf")), (0.3, 0.9)], ids=str)
def test_small_and_large_steps(rows: list[int], dt_limit: tuple[float, float]) -> None:
    dtype = torch.float32
    for dt_scale in (1e-6, 1e-2, 50.0):
        case = shape(rows, dtype)
        assert check_scan(kernels(dtype), case, channels=100, n_states=16, dt_scale=dt_scale) <= 1
        sizes = (4, 64, 2, 64)
        error = check_ssd(
            kernels(dtype), case, sizes=sizes, dt_scale=dt_scale, dt_limit=dt_limit, uses_matrix_units=True
        )
        assert error <= 1


@every_dtype
@every_rows
def test_the_other_operations(rows: list[int], dtype: torch.dtype) -> None:
    case, ours = shape(rows, dtype), kernels(dtype)
    for channels, taps in ((1536, 4), (5121, 4), (33, 2), (33, 1)):
        assert check_conv(ours, case, channels=channels, taps=taps, column=3) <= 1
    for size in (768, 2560, 4096, 33):
        for adds in (True, False):
            assert check_add_norm(ours, case, size=size, adds=adds) <= 1
    for groups, size in ((1, 5120), (8, 256), (3, 17)):
        for norms, gate_first in ((True, True), (True, False), (False, True)):
            error = check_gate_norm(ours, case, groups=groups, size=size, norms=norms, gate_first=gate_first)
            assert error <= 1


# A last piece that is over at once would, were it to come early, overwrite what the first one reads.
@pytest.mark.parametrize("rows", [[1, 1], [5, 20], [1300], [513], [1025], [513] * 40], ids=str)
def test_states_may_be_advanced_where_they_lie(rows: list[int]) -> None:
    case, ours, starts = shape(rows, torch.float32), kernels(torch.float32), row_starts(rows)
    u, dt, proj = (case.normal(i, case.tokens, n) for i, n in enumerate((500, 500, 32)))
    a, vector, weight = -case.parameter(4, 16, 500).abs(), case.parameter(5, 500), case.parameter(6, 4, 500)

    def scan(before: Rows, after: Rows) -> torch.Tensor:
        return ours.scan(u, dt, vector, a, proj, 0, vector, u, 0, starts, before, after)

    def convolve(before: Rows, after: Rows) -> torch.Tensor:
        return ours.conv_silu(u, 0, weight, vector, starts, before, after)

    for run, size in ((scan, (16, 500)), (convolve, (3, 500))):
        drawn = case.parameter(10, len(rows), *size)
        # A race would not show every time.
        for _ in range(20):
            before, after = Rows.apart(drawn), Rows.places(None, vector, size, len(rows))
            y = run(before, after)
            assert torch.equal(before.stacked(), drawn)
            assert torch.equal(run(before, before), y)
            assert torch.equal(before.stacked(), after.stacked())


def has_memory(n_bytes: int) -> bool:
    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > n_bytes


@pytest.mark.skipif(not has_memory(40 << 30), reason="needs 40 GiB of free GPU memory")
def test_more_than_2_to_the_31_elements_mamba() -> None:
    channels, tokens, tail = 4096, 300_000, 700
    starts, ours = row_starts([tokens - tail, tail]), kernels(torch.bfloat16)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def drawn(columns: int) -> torch.Tensor:
        return torch.randn(tokens, columns, generator=generator, device=DEVICE, dtype=torch.bfloat16)

    xz, dt, proj = drawn(2 * channels), drawn(channels), drawn(32)
    assert xz.numel() > 2**31
    a = -torch.rand(16, channels, device=DEVICE) - 0.1
    weight, vector = torch.randn(4, channels, device=DEVICE), torch.randn(channels, device=DEVICE)

    def run(x: torch.Tensor, d: torch.Tensor, p: torch.Tensor, at: Any) -> torch.Tensor:
        u = ours.conv_silu(x, 0, weight, vector, at, None, None)
        return ours.scan(u, d, vector, a, p, 0, vector, x, channels, at, None, None)

    whole = run(xz, dt, proj, starts)[-tail:].clone()
    alone = run(*(t[-tail:].contiguous() for t in (xz, dt, proj)), row_starts([tail]))
    assert torch.equal(whole, alone)


@pytest.mark.skipif(not has_memory(40 << 30), reason="needs 40 GiB of free GPU memory")
def test_more_than_2_to_the_31_elements_mamba2() -> None:
    heads, width, n, tail = 80, 64, 128, 300
    channels = heads * width + 2 * n
    columns = heads * width + channels + heads
    tokens = 2**31 // channels + 1000
    starts, ours = row_starts([tokens - tail, tail]), kernels(torch.bfloat16)
    generator = torch.Generator(DEVICE).manual_seed(0)
    zxbcdt = torch.randn(tokens, columns, generator=generator, device=DEVICE, dtype=torch.bfloat16)
    weight, vector = torch.randn(4, channels, device=DEVICE), torch.randn(channels, device=DEVICE)
    a, bias = -torch.rand(heads, device=DEVICE) - 0.1, torch.zeros(heads, device=DEVICE)
    skip, norm = torch.ones(heads, width, device=DEVICE), torch.ones(heads * width, device=DEVICE)

    def run(z: torch.Tensor, at: Any) -> torch.Tensor:
        xbc = ours.conv_silu(z, heads * width, weight, vector, at, None, None)
        y = ours.ssd(xbc, z, columns - heads, bias, a, skip, 1, at, None, None)
        ours.gate_norm(y, z, 0, norm, 1e-5, 1)
        return y

    whole = run(zxbcdt, starts)[-tail:].clone()
    assert torch.equal(whole, run(zxbcdt[-tail:].contiguous(), row_starts([tail])))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA device")
def test_tensors_of_another_device_than_the_current_one() -> None:
    ours = kernels(torch.float32)
    with torch.cuda.device(0):
        case = Shape([700, 3], torch.float32, seed=1, device="cuda:1")
        assert check_scan(ours, case, channels=70, n_states=16) <= 1
        assert check_ssd(ours, case, sizes=(2, 64, 1, 128)) <= 1


@pytest.mark.parametrize("name", MODELS)
def test_models_equal_those_of_the_cpu(name: str) -> None:
    want = forwards(MODELS[name]()(torch.float32, "cpu"))
    model = MODELS[name]()(torch.float32, DEVICE)
    assert "Triton" in model.kernel_path
    for ours, theirs in zip(forwards(model), want, strict=True):
        assert (ours - theirs).abs().max() <= 5e-5 * theirs.abs().max()
    narrow = torch.cat(forwards(MODELS[name]()(torch.bfloat16, "cpu")))
    got = torch.cat(forwards(MODELS[name]()(torch.bfloat16, DEVICE)))
    rms, ours = ((x - torch.cat(want)).square().mean().sqrt() for x in (narrow, got))
    assert ours <= 2.5 * rms


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("build", [tiny_mamba, tiny_mamba2], ids=["mamba", "mamba2"])
def test_the_steps_are_certified(tmp_path: Path, build: Any, dtype: str) -> None:
    from mambabench.models.certificate import measure
    from mambabench.models.load import check, load
    from mambabench.registry import resolve

    model: Any = load(check(resolve(str(build(tmp_path / "m"))), dtype=dtype, device=DEVICE))
    assert "Triton" in model.record.kernel_path
    record = measure(model)
    assert record.passed, record


def test_a_hybrid_runs_without_mamba_ssm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mambabench.models.load import check, load
    from mambabench.registry import resolve

    monkeypatch.setattr("mambabench.models.official.is_installed", lambda: False)
    directory = str(tiny_hybrid(tmp_path / "m"))
    ids = torch.randint(1, 300, (3, 130), generator=torch.Generator().manual_seed(0))
    logits = [
        load(check(resolve(directory), dtype="float32", device=device)).logits(ids.to(device), 130).cpu()
        for device in ("cpu", DEVICE)
    ]
    assert (logits[0] - logits[1]).abs().max() <= 1e-4 * logits[0].abs().max()
