"""The kernels of a GPU as they are compiled for one, executed on the CPU: their results, and that none races.

The interpreter runs a kernel's operations one at a time; here are all threads, as the compiler divides the
work among them. See `ptx.program` for what this cannot show. Some small kernels are in the default run; all
of them, in each dtype, have the marker `tools`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official_functions import chunk_scan, selective_scan
from ptx.launches import Launches
from triton_oracle import Shape, check_add_norm, check_conv, check_gate_norm, check_scan, check_ssd

from mambabench.kernels.gpu import choice, triton_kernels
from mambabench.kernels.gpu.choice import ChosenKernels
from mambabench.kernels.gpu.official import Functions
from mambabench.kernels.gpu.triton_kernels import TritonKernels
from mambabench.kernels.gpu.triton_version import installed, too_old
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None or too_old(installed()) is not None,
        reason="Triton is not here, or one that is not used",
    ),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here"),
    pytest.mark.skipif(
        torch.cuda.is_available(), reason="what is compiled for no GPU would be kept for the real one"
    ),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
in_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
Check = Callable[[TritonKernels, torch.dtype], float]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Launches:
    return Launches(monkeypatch, cache)


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "PIECE_TOKENS", 8)


def hold(launches: Launches, check: Check, dtype: torch.dtype, names: set[str]) -> None:
    """Hold kernels to float64, with the first program first and with the last one."""
    for launches.is_reversed in (False, True):
        assert check(TritonKernels(dtype), dtype) <= 1
    assert launches.kernels == names
    assert launches.races == set()


def add_norm(size: int, *, adds: bool = True) -> Check:
    return lambda kernels, dtype: check_add_norm(kernels, Shape([3], dtype, 1), size=size, adds=adds)


def gate_norm(groups: int, size: int, *, norms: bool, gate_first: bool = True) -> Check:
    return lambda kernels, dtype: check_gate_norm(
        kernels, Shape([3], dtype, 1), groups=groups, size=size, norms=norms, gate_first=gate_first
    )


def convolution(channels: int, taps: int, column: int, rows: list[int]) -> Check:
    return lambda kernels, dtype: check_conv(
        kernels, Shape(rows, dtype, 1), channels=channels, taps=taps, column=column
    )


def scan(channels: int, n_states: int, rows: list[int]) -> Check:
    return lambda kernels, dtype: check_scan(
        kernels, Shape(rows, dtype, 1), channels=channels, n_states=n_states
    )


def ssd(sizes: tuple[int, int, int, int], rows: list[int]) -> Check:
    return lambda kernels, dtype: check_ssd(
        kernels, Shape(rows, dtype, 1), sizes=sizes, uses_matrix_units=max(rows) > triton_kernels.FEW_TOKENS
    )


@pytest.mark.parametrize(
    ("check", "names"),
    [
        (add_norm(48), {"add_norm"}),
        (gate_norm(2, 40, norms=True), {"gate_norm"}),
        (convolution(70, 4, 3, [6, 1, 0, 3]), {"conv_silu", "windows"}),
        (ssd((4, 8, 2, 16), [4, 3]), {"tokens"}),
    ],
    ids=["add_norm", "gate_norm", "convolution", "tokens"],
)
def test_small_kernels(launches: Launches, check: Check, names: set[str]) -> None:
    hold(launches, check, torch.float32, names)


@pytest.mark.tools
@in_dtypes
@pytest.mark.parametrize(
    ("check", "names"),
    [
        # Fewer numbers than threads, no power of two, and what models have.
        *((add_norm(size, adds=adds), {"add_norm"}) for size in (33, 100, 768) for adds in (True, False)),
        *(
            (gate_norm(*size, norms=norms, gate_first=gate_first), {"gate_norm"})
            for size in ((2, 40), (1, 1536))
            for norms in (True, False)
            for gate_first in (True, False)
        ),
        (convolution(256, 4, 3, [6, 1, 0, 3]), {"conv_silu", "windows"}),
        (convolution(33, 2, 0, [6, 1, 2]), {"conv_silu", "windows"}),
    ],
)
def test_norms_and_convolutions(
    launches: Launches, check: Check, names: set[str], dtype: torch.dtype
) -> None:
    hold(launches, check, dtype, names)


@pytest.mark.tools
@in_dtypes
@pytest.mark.parametrize("check", [scan(64, 16, [6, 1, 0, 3]), scan(33, 5, [6, 1])])
def test_scans_of_mamba_1(launches: Launches, check: Check, dtype: torch.dtype) -> None:
    hold(launches, check, dtype, {"scan"})


@pytest.mark.tools
@in_dtypes
@pytest.mark.usefixtures("short_pieces")
def test_scans_of_rows_in_pieces(launches: Launches, dtype: torch.dtype) -> None:
    hold(launches, scan(40, 16, [20, 3, 9]), dtype, {"scan", "join"})


@pytest.mark.tools
@in_dtypes
@pytest.mark.parametrize(
    ("check", "name"),
    [
        (ssd((2, 64, 1, 128), [50, 3]), "tiles"),
        (ssd((2, 64, 1, 128), [16, 0, 7]), "tiles"),
        (ssd((4, 8, 2, 16), [40, 3]), "tiles"),
        (ssd((3, 65, 3, 5), [20]), "tiles"),
        (ssd((2, 64, 1, 128), [1, 4, 0]), "tokens"),
        (ssd((3, 65, 3, 5), [2]), "tokens"),
    ],
)
def test_scans_of_mamba_2(launches: Launches, check: Check, name: str, dtype: torch.dtype) -> None:
    hold(launches, check, dtype, {name})


@pytest.mark.tools
@in_dtypes
def test_what_lays_out_long_rows(
    launches: Launches, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    # mamba_ssm's own scans are plain functions here; what puts rows into them, and back, is compiled.
    for name in ("LONG_TOKENS", "LONG_SSD_TOKENS"):
        monkeypatch.setattr(choice, name, 6)
    monkeypatch.setattr(choice, "_SHARE_AHEAD", 0)
    kernels, case = ChosenKernels(dtype, Functions(selective_scan, chunk_scan)), Shape([17, 2, 9], dtype, 1)
    for launches.is_reversed in (False, True):
        assert check_scan(kernels, case, channels=45, n_states=5) <= 1
        assert check_ssd(kernels, case, sizes=(4, 8, 2, 16), uses_matrix_units=True) <= 1
    assert launches.kernels >= {"lay_inputs", "lay_projections", "put_back", "move_states"}
    assert launches.races == set()


@pytest.mark.tools
@in_dtypes
@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("rows", [[1, 1], [5, 17]], ids=str)
def test_states_are_advanced_where_they_lie(launches: Launches, dtype: torch.dtype, rows: list[int]) -> None:
    case, kernels, starts = Shape(rows, dtype, 3), TritonKernels(dtype), row_starts(rows)
    n, d, heads, width, states = case.tokens, 64, 2, 64, 128
    u, dt, proj = case.normal(0, n, d), case.normal(1, n, d), case.normal(2, n, 32)
    a, vector, taps = -case.parameter(3, 16, d).abs(), case.parameter(4, d), case.parameter(5, 4, d)
    xbc, zxbcdt = case.normal(6, n, heads * width + 2 * states), case.normal(7, n, heads)
    each, skip = -case.parameter(8, heads).abs(), case.parameter(9, heads, width)

    def scanned(before: Rows, after: Rows) -> torch.Tensor:
        return kernels.scan(u, dt, vector, a, proj, 0, vector, u, 0, starts, before, after)

    def convolved(before: Rows, after: Rows) -> torch.Tensor:
        return kernels.conv_silu(u, 0, taps, vector, starts, before, after)

    def with_heads(before: Rows, after: Rows) -> torch.Tensor:
        return kernels.ssd(xbc, zxbcdt, 0, each, each, skip, 1, starts, before, after)

    cases: list[tuple[Any, tuple[int, ...]]] = [
        (scanned, (16, d)), (convolved, (3, d)), (with_heads, (heads, states, width)),
    ]  # fmt: skip
    for launches.is_reversed in (False, True):
        for run, shape in cases:
            drawn = case.parameter(10, len(rows), *shape)
            before, after = Rows.apart(drawn), Rows.places(None, vector, shape, len(rows))
            y = run(before, after)
            assert torch.equal(before.stacked(), drawn)
            assert torch.equal(run(before, before), y)
            assert torch.equal(before.stacked(), after.stacked())
    assert launches.races == set()
    assert launches.kernels >= {"scan", "conv_silu", "windows"}


@pytest.mark.parametrize("kernel", ["add_norm", "gate_norm"])
def test_copies_that_read_what_lies_in_place_are_found(
    launches: Launches, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    # With more warps than numbers there are for them, some read what others have written over.
    monkeypatch.setattr(triton_kernels, "warps", lambda numbers: 4)
    check = add_norm(20) if kernel == "add_norm" else gate_norm(2, 20, norms=False)
    check(TritonKernels(), torch.float32)
    assert launches.races == {f"{kernel}: a warp writes global memory that another one reads or writes"}


@pytest.mark.tools
@in_dtypes
def test_tiles_need_their_barriers(launches: Launches, dtype: torch.dtype) -> None:
    launches.keeps_barriers = False
    ssd((1, 64, 1, 128), [20])(TritonKernels(dtype), dtype)
    assert any("shared memory" in race for race in launches.races)
