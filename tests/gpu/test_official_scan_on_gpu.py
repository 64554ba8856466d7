"""mamba_ssm's scans from states on a GPU, against float64 and the CPU. Not run on hardware yet.

`scan_crossover.py` beside this measures from which length on they are worth it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models.triton_models import MODELS
from triton_oracle import Shape, check_scan, check_ssd

from mambabench.kernels.gpu import choice
from mambabench.kernels.gpu.choice import ChosenKernels
from mambabench.kernels.gpu.official import MOST_ELEMENTS, functions
from mambabench.kernels.packed import kernels_for
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

DEVICE = "cuda:0"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NAME = "mamba_ssm scan from a state (long)"
FAST = 10
"""Errors of the scan, which is compiled with fast exponentials, in units of float32's."""
PRODUCTS = 15
"""Errors of Mamba-2's scan, which rounds factors to bfloat16, in units of TF32's."""
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# Of one length, of many, with short ones between, and longer than a block of mamba_ssm's scan.
every_rows = pytest.mark.parametrize(
    "rows", [[300] * 5, [700, 1, 260, 33, 610], [2500, 2049, 0], [256]], ids=str
)


def kernels(dtype: torch.dtype, most_elements: int = MOST_ELEMENTS) -> ChosenKernels:
    pytest.importorskip("mamba_ssm", reason="needs the official kernels", exc_type=ImportError)
    found = functions()
    assert found is not None
    return ChosenKernels(dtype, found, most_elements=most_elements)


@every_dtype
@every_rows
# As in mamba-130m and mamba-2.8b, and odd ones.
@pytest.mark.parametrize("sizes", [(1536, 16), (5120, 16), (70, 5)], ids=str)
def test_scan(rows: list[int], dtype: torch.dtype, sizes: tuple[int, int]) -> None:
    channels, n_states = sizes
    case = Shape(rows, dtype, 1, DEVICE)
    assert check_scan(kernels(dtype), case, channels=channels, n_states=n_states) <= FAST


@every_dtype
def test_scan_of_many_states(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # 384 tokens ahead of the row in bfloat16.
    monkeypatch.setattr(choice, "_SHARE_AHEAD", 0)
    assert check_scan(kernels(dtype), Shape([900, 700], dtype, 1, DEVICE), channels=40, n_states=128) <= FAST


@every_dtype
@pytest.mark.parametrize("dt_scale", [1e-6, 1e-2, 50.0])
def test_small_and_large_steps(dtype: torch.dtype, dt_scale: float) -> None:
    case = Shape([700, 400], dtype, 1, DEVICE)
    error = check_scan(kernels(dtype), case, channels=100, n_states=16, dt_scale=dt_scale)
    assert error <= FAST


@every_dtype
def test_rows_cut_through_time(dtype: torch.dtype) -> None:
    ours = kernels(dtype, 40_000)
    case = Shape([2500, 10, 900], dtype, 1, DEVICE)
    assert check_scan(ours, case, channels=64, n_states=16) <= FAST
    assert check_ssd(ours, case, sizes=(2, 64, 1, 64), uses_matrix_units=True) <= PRODUCTS


@every_rows
# Heads, their width, groups and states: as in mamba2-130m, with groups, and small.
@pytest.mark.parametrize("sizes", [(24, 64, 1, 128), (32, 64, 8, 128), (4, 32, 2, 16)], ids=str)
def test_ssd(rows: list[int], sizes: tuple[int, int, int, int]) -> None:
    case = Shape(rows, torch.bfloat16, 1, DEVICE)
    assert check_ssd(kernels(case.dtype), case, sizes=sizes, uses_matrix_units=True) <= PRODUCTS


@every_rows
def test_a_smallest_step(rows: list[int]) -> None:
    case, sizes = Shape(rows, torch.bfloat16, 1, DEVICE), (4, 64, 2, 64)
    error = check_ssd(kernels(case.dtype), case, sizes=sizes, dt_limit=(0.3, 0.9), uses_matrix_units=True)
    assert error <= PRODUCTS


@every_dtype
def test_nothing_of_a_state_decays_while_it_is_put_in(dtype: torch.dtype) -> None:
    # After the first token, with steps of exp(-20): the state is what it was, for decays up to 10,000.
    channels, n, tokens = 200, 16, 256
    generator = torch.Generator(DEVICE).manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=DEVICE)

    a = -torch.logspace(-1, 4, n, device=DEVICE)[:, None].expand(n, channels).contiguous()
    state = drawn(1, n, channels) * torch.logspace(-6, 4, n, device=DEVICE)[:, None]
    before, after = Rows.apart(state), Rows.places(None, a, (n, channels), 1)
    zeros = torch.zeros(tokens, channels, device=DEVICE, dtype=dtype)
    bias, proj = drawn(channels) - 4, drawn(tokens, 2 * n).to(dtype)
    # The smallest steps that there are: none.
    dt = torch.full_like(zeros, -1000.0)
    starts, skip = row_starts([tokens]), torch.ones(channels, device=DEVICE)
    kernels(dtype).scan(zeros, dt, bias, a, proj, 0, skip, zeros, 0, starts, before, after)
    error = (after.stacked().double() - state.double()).square().mean((0, 2)).sqrt()
    assert (error <= 1e-5 * state.double().square().mean((0, 2)).sqrt()).all()


@every_dtype
@pytest.mark.parametrize("kind", ["scan", "ssd"])
def test_states_may_be_advanced_where_they_lie(dtype: torch.dtype, kind: str) -> None:
    rows = [700, 3, 300, 0]
    case, ours, starts = Shape(rows, dtype, 1, DEVICE), kernels(dtype), row_starts(rows)
    given: tuple[Any, ...]
    if kind == "scan":
        u, dt, proj = (case.normal(i, case.tokens, n) for i, n in enumerate((500, 500, 32)))
        a, vector = -case.parameter(4, 16, 500).abs(), case.parameter(5, 500)
        given, shape = (u, dt, vector, a, proj, 0, vector, u, 0), (16, 500)
    else:
        xbc, dt = case.normal(1, case.tokens, 4 * 64 + 128), case.normal(2, case.tokens, 4)
        vector, skip = case.parameter(3, 4), case.parameter(4, 4, 64)
        given, shape = (xbc, dt, 0, vector, -vector.abs(), skip, 1), (4, 64, 64)
    drawn = case.parameter(10, len(rows), *shape)
    for _ in range(10):
        before, after = Rows.apart(drawn), Rows.places(None, vector, shape, len(rows))
        y = getattr(ours, kind)(*given, starts, before, after)
        assert torch.equal(before.stacked(), drawn)
        assert torch.equal(getattr(ours, kind)(*given, starts, before, before), y)
        assert torch.equal(before.stacked(), after.stacked())


def test_a_gpu_with_mamba_ssm_takes_its_scans() -> None:
    kernels(torch.bfloat16)
    assert kernels_for(DEVICE, torch.bfloat16).scan_way(1536, 16).name.startswith(NAME)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_models_with_long_rows_equal_those_of_the_cpu(name: str, dtype: torch.dtype) -> None:
    kernels(dtype)
    ids = torch.randint(1, 300, (1600,), generator=torch.Generator().manual_seed(0))

    def hidden(kind: torch.dtype, device: str) -> torch.Tensor:
        model = MODELS[name]()(kind, device)
        # Long from the start, then long and short ones from shared states.
        first = model.step(ids[:700].to(device), [400, 300])
        assert first.state is not None
        fork = first.state.select([0, 0, 1])
        second = model.step(ids[700:].to(device), [500, 30, 370], fork)
        return torch.cat([model.logits(step.hidden).float().cpu() for step in (first, second)])

    want, narrow, got = hidden(torch.float32, "cpu"), hidden(dtype, "cpu"), hidden(dtype, DEVICE)
    if dtype == torch.float32:
        assert (got - want).abs().max() <= 1e-4 * want.abs().max()
    else:
        assert (got - want).square().mean() <= 2.5**2 * (narrow - want).square().mean()


def test_the_same_rows_give_the_same_numbers() -> None:
    case, ours = Shape([600, 5, 400], torch.bfloat16, 1, DEVICE), kernels(torch.bfloat16)
    u, dt, proj = (case.normal(i, case.tokens, n) for i, n in enumerate((1536, 1536, 32)))
    a, vector = -case.parameter(4, 16, 1536).abs(), case.parameter(5, 1536)
    given = u, dt, vector, a, proj, 0, vector, u, 0, row_starts(case.rows), case.states(16, 1536), None
    first = ours.scan(*given)
    assert all(torch.equal(ours.scan(*given), first) for _ in range(5))
