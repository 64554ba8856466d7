"""The compiled loops of Mamba-2 against float64 loops, one row and one step at a time."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit, types
from numba.core import config

from mambabench.kernels._tile import multiply
from mambabench.kernels.packed import CpuKernels
from mambabench.kernels.reference import ssd_reference
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

LOG2_E = 1.4426950408889634
KERNELS = CpuKernels()
few = settings(max_examples=30, deadline=None)
# (heads, width of a head, groups, states)
SIZES = [(1, 1, 1, 1), (2, 64, 1, 128), (4, 8, 2, 16), (3, 65, 3, 5), (2, 130, 1, 67), (6, 17, 2, 3)]


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(rows: list[int], sizes: tuple[int, int, int, int], seed: int, dt_scale: float) -> dict[str, Any]:
    heads, width, groups, n = sizes
    total = sum(rows)
    return {
        "xbc": normal(seed, total, heads * width + 2 * groups * n),
        "zxbcdt": normal(seed + 1, total, 3 + heads) * dt_scale,
        "dt_bias": normal(seed + 2, heads) * dt_scale,
        "A": -(normal(seed + 3, heads).abs() + 0.01) * 4,
        "D": normal(seed + 4, heads, width),
        "groups": groups,
        "state": normal(seed + 5, len(rows), heads, n, width),
    }


def run(v: dict[str, Any], rows: list[int], **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs and all rows' states."""
    after = Rows.places(None, v["D"], state_shape(v), len(rows))
    before = None if v["state"] is None else Rows.apart(v["state"])
    y = go_on(v, rows, before, after, **options)
    return y, after.stacked()


def state_shape(v: dict[str, Any]) -> tuple[int, int, int]:
    heads, width = v["D"].shape
    return heads, (v["xbc"].shape[1] - heads * width) // (2 * v["groups"]), width


def go_on(
    v: dict[str, Any], rows: list[int], before: Rows | None, after: Rows | None, **options: Any
) -> torch.Tensor:
    return KERNELS.ssd(
        v["xbc"], v["zxbcdt"], 3, v["dt_bias"], (v["A"].double() * LOG2_E).float(), v["D"], v["groups"],
        row_starts(rows), before, after, **options,
    )  # fmt: skip


def row_of(v: dict[str, Any], rows: list[int], row: int) -> dict[str, Any]:
    """Return the inputs of one row alone."""
    part = slice(sum(rows[:row]), sum(rows[: row + 1]))
    state = v["state"]
    return v | {
        "xbc": v["xbc"][part].contiguous(),
        "zxbcdt": v["zxbcdt"][part].contiguous(),
        "state": None if state is None else state[row : row + 1].clone(),
    }


def exact(v: dict[str, Any], dt_limit: tuple[float, float]) -> tuple[Any, Any]:
    """Run one row in float64."""
    heads, width = v["D"].shape
    groups, length = v["groups"], v["xbc"].shape[0]
    x, b, c = np.split(
        v["xbc"].double().numpy(),
        [heads * width, (v["xbc"].shape[1] + heads * width) // 2],
        axis=1,
    )
    y, last = ssd_reference(
        x.reshape(length, heads, width),
        v["zxbcdt"][:, 3:].numpy(),
        v["A"].numpy(),
        b.reshape(length, groups, -1),
        c.reshape(length, groups, -1),
        v["D"].numpy(),
        dt_bias=v["dt_bias"].numpy(),
        dt_limit=dt_limit,
        initial_state=None if v["state"] is None else v["state"][0].numpy(),
    )
    return y.reshape(length, heads * width), last


@few
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.sampled_from(SIZES),
    st.integers(0, 99),
    st.sampled_from([1e-6, 1e-2, 1.0, 50.0]),
    st.booleans(),
    st.sampled_from([(0.0, float("inf")), (0.3, 0.9)]),
)
@example([4096], (2, 3, 1, 16), 0, 1.0, False, (0.0, float("inf")))
@example([1, 2500, 128, 129], (2, 16, 2, 4), 1, 1e-2, True, (0.0, float("inf")))
def test_scan_agrees_with_the_float64_reference(
    rows: list[int],
    sizes: tuple[int, int, int, int],
    seed: int,
    dt_scale: float,
    fresh: bool,
    dt_limit: tuple[float, float],
) -> None:
    v = inputs(rows, sizes, seed, dt_scale)
    if fresh:
        v["state"] = None
    y, last = run(v, rows, dt_limit=dt_limit)
    begin = 0
    for row, length in enumerate(rows):
        want, want_last = exact(row_of(v, rows, row), dt_limit)
        # Sums over states and steps cancel, so errors are held against the size of the whole output.
        error = np.abs(y[begin : begin + length].numpy() - want).max()
        assert error <= 1e-5 * max(1.0, np.abs(want).max())
        assert np.abs(last[row].numpy() - want_last).max() <= 1e-5 * max(1.0, np.abs(want_last).max())
        begin += length


def test_decays_that_reach_zero_do_not_hide_later_ones() -> None:
    # A step size of 50 wipes the state out, and the steps after it are tiny: differences of running sums
    # in float32 would lose those.
    v = inputs([200], (2, 8, 1, 16), 0, 1e-3)
    v["zxbcdt"][:, 3:] -= 8
    v["zxbcdt"][20::40, 3:] = 50
    y, last = run(v, [200])
    want, want_last = exact(row_of(v, [200], 0), (0.0, float("inf")))
    assert np.abs(y.numpy() - want).max() <= 2e-6 * np.abs(want).max()
    assert np.abs(last[0].numpy() - want_last).max() <= 2e-6 * np.abs(want_last).max()


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = [5, 200, 1, 64]
    v = inputs(rows, (4, 8, 2, 16), 3, 1.0)
    y, last = run(v, rows)
    for row in range(len(rows)):
        alone, alone_last = run(row_of(v, rows, row), rows[row : row + 1])
        assert torch.equal(alone, y[sum(rows[:row]) : sum(rows[: row + 1])])
        assert torch.equal(alone_last[0], last[row])


def test_a_state_of_zeros_is_no_state() -> None:
    rows = [70, 3]
    v = inputs(rows, (2, 8, 1, 16), 4, 1.0)
    v["state"][0] = 0
    y, last = run(v, rows)
    fresh, fresh_last = run(row_of(v, rows, 0) | {"state": None}, rows[:1])
    assert torch.equal(y[:70], fresh)
    assert torch.equal(last[:1], fresh_last)
    want, _ = exact(row_of(v, rows, 1), (0.0, float("inf")))
    assert np.abs(y[70:].numpy() - want).max() <= 1e-5 * np.abs(want).max()


def test_only_kept_rows_get_a_state() -> None:
    rows = [3, 140, 7]
    v = inputs(rows, (2, 8, 1, 16), 4, 1.0)
    y, last = run(v, rows)
    after = Rows.places(None, y, (2, 16, 8), 3, keep=[1, 2])
    assert torch.equal(go_on(v, rows, Rows.apart(v["state"]), after), y)
    assert after.tensors[0] is None
    assert torch.equal(after.stacked()[1:], last[1:])
    assert torch.equal(go_on(v, rows, Rows.apart(v["state"]), None), y)


def test_rows_share_a_state_beside_rows_that_have_none() -> None:
    rows = [3, 140, 7]
    v = inputs(rows, (2, 8, 1, 16), 4, 1.0)
    (first,) = Rows.apart(v["state"][:1]).tensors
    state = Rows([first, None, first], (2, 16, 8))
    after = Rows.places(None, v["D"], (2, 16, 8), 3)
    y = go_on(v, rows, state, after)
    want, last = run(v | {"state": state.stacked()}, rows)
    assert torch.equal(y, want)
    assert torch.equal(after.stacked(), last)
    assert first is not None
    assert torch.equal(first, v["state"][0])


def test_a_state_may_be_advanced_where_it_lies() -> None:
    v = inputs([3, 2], (2, 8, 1, 16), 0, 1.0)
    y, last = run(v, [3, 2])
    state = Rows.apart(v["state"])
    assert torch.equal(go_on(v, [3, 2], state, state), y)
    assert torch.equal(state.stacked(), last)


def test_a_nan_reaches_the_rest_of_its_row_and_no_other() -> None:
    v = inputs([10, 10], (2, 8, 1, 16), 0, 1.0)
    v["zxbcdt"][4, 3] = float("nan")
    y, last = run(v, [10, 10])
    assert torch.equal(y.isnan().any(dim=1), torch.tensor([False] * 4 + [True] * 6 + [False] * 10))
    assert last[0, 0].isnan().all()
    assert not last[1].isnan().any()


@few
@given(
    st.integers(1, 5),
    st.sampled_from([(1, 1), (1, 40), (2, 16), (3, 17)]),
    st.integers(0, 99),
    st.booleans(),
    st.booleans(),
)
def test_gate_and_normalisation_agree_with_torch(
    tokens: int, groups_and_size: tuple[int, int], seed: int, norm: bool, gate_first: bool
) -> None:
    groups, size = groups_and_size
    y, zxbcdt, weight = (
        normal(seed + i, *shape)
        for i, shape in enumerate([(tokens, groups * size), (tokens, groups * size + 5), (groups * size,)])
    )
    want = y.double()
    gate = torch.nn.functional.silu(zxbcdt[:, 5:].double())
    if gate_first:
        want = want * gate
    if norm:
        grouped = want.view(tokens, groups, size)
        want = (grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + 1e-5)).view_as(want) * weight
    if not gate_first:
        want = want * gate
    KERNELS.gate_norm(y, zxbcdt, 5, weight if norm else None, 1e-5, groups, gate_first=gate_first)
    assert torch.allclose(y.double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif("avx512" not in str(config.CPU_FEATURES), reason="the processor has no 512-bit vectors")
def test_the_products_are_vector_code() -> None:
    vector = types.float32[::1]

    @njit(types.void(vector, vector, vector, types.int64))  # type: ignore[untyped-decorator]
    def product(total: Any, factor: Any, right: Any, depth: int) -> None:
        multiply(total, factor, right, depth)

    (code,) = product.inspect_asm().values()
    assert len(re.findall(r"vfmadd\w+ps.*zmm", code)) >= 16
    assert "gather" not in code
    assert "scatter" not in code


@pytest.mark.parametrize("name", ["xbc", "zxbcdt", "dt_bias", "A", "D", "state"])
def test_a_wrong_shape_never_reaches_the_loops(name: str) -> None:
    v = inputs([3], (4, 8, 2, 16), 0, 1.0)
    v[name] = v[name][..., :-1].contiguous()
    with pytest.raises(ValueError, match=r"needed|fit"):
        run(v, [3])


def test_groups_that_do_not_divide_are_refused() -> None:
    v = inputs([3], (4, 8, 2, 16), 0, 1.0)
    with pytest.raises(ValueError, match="3 groups do not fit"):
        run(v | {"groups": 3}, [3])
    y = torch.zeros(3, 8)
    with pytest.raises(ValueError, match="do not divide"):
        KERNELS.gate_norm(y, y, 0, None, 1e-5, 3)
    with pytest.raises(ValueError, match="is needed"):
        KERNELS.gate_norm(y, y[:, :7].contiguous(), 0, None, 1e-5, 1)
