"""The compiled loops over end-to-end sequences against float64 loops, one row and one step at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from mambabench.kernels import _vector
from mambabench.kernels.packed import CpuKernels, kernels_for
from mambabench.kernels.reference import selective_scan_reference
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

LOG2_E = 1.4426950408889634
KERNELS = CpuKernels()

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=4)
widths = st.sampled_from([1, 3, 16, 127, 255, 256, 257, 520])
few = settings(max_examples=30, deadline=None)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scan_inputs(rows: list[int], d: int, n: int, seed: int, dt_scale: float) -> dict[str, Any]:
    total = sum(rows)
    return {
        "u": normal(seed, total, d),
        "dt": normal(seed + 1, total, d) * dt_scale,
        "dt_bias": normal(seed + 2, d) * dt_scale,
        "A": -(normal(seed + 3, n, d).abs() + 0.01) * 4,
        "proj": normal(seed + 4, total, 5 + 2 * n),
        "D": normal(seed + 5, d),
        "xz": normal(seed + 6, total, 2 * d),
        "state": normal(seed + 7, len(rows), n, d),
    }


def places(rows: list[int], *shape: int) -> Rows:
    return Rows.places(None, torch.empty(0), shape, len(rows))


def run_scan(
    v: dict[str, Any], rows: list[int], before: Rows | None = None, after: Rows | None = None
) -> torch.Tensor:
    return KERNELS.scan(
        v["u"], v["dt"], v["dt_bias"], (v["A"].double() * LOG2_E).float(), v["proj"], 5, v["D"], v["xz"],
        v["u"].shape[1], row_starts(rows), Rows.apart(v["state"]) if before is None else before, after,
    )  # fmt: skip


@few
@given(lengths, widths, st.integers(1, 17), st.integers(0, 99), st.sampled_from([1e-6, 1e-2, 1.0, 50.0]))
@example([4096], 3, 16, 0, 1.0)
@example([1, 2500], 16, 4, 1, 1e-2)
def test_scan_agrees_with_the_float64_reference(
    rows: list[int], d: int, n: int, seed: int, dt_scale: float
) -> None:
    v = scan_inputs(rows, d, n, seed, dt_scale)
    before, after = Rows.apart(v["state"]), places(rows, n, d)
    y = run_scan(v, rows, before, after)
    assert torch.equal(before.stacked(), v["state"])
    last = after.stacked()
    begin = 0
    for row, length in enumerate(rows):
        part = slice(begin, begin + length)
        begin += length
        want, want_last = selective_scan_reference(
            *(x[None].double().numpy() for x in (v["u"][part], v["dt"][part])),
            v["A"].T.double().numpy(),
            v["proj"][None, part, 5 : 5 + n].double().numpy(),
            v["proj"][None, part, 5 + n :].double().numpy(),
            v["D"].double().numpy(),
            z=v["xz"][None, part, d:].double().numpy(),
            delta_bias=v["dt_bias"].double().numpy(),
            delta_softplus=True,
            initial_state=v["state"][row : row + 1].transpose(1, 2).double().numpy(),
        )
        # Sums over states cancel, so errors are held against the size of the whole output.
        assert np.abs(y[part].numpy() - want[0]).max() <= 2e-6 * n * max(1.0, np.abs(want).max())
        assert np.abs(last[row].T.numpy() - want_last[0]).max() <= 5e-6 * max(1.0, np.abs(want_last).max())


@pytest.mark.parametrize("d", [3, 256, 700, 2100])
def test_threads_share_the_channels_without_changing_a_bit(d: int) -> None:
    v = scan_inputs([5, 1, 8], d, 6, 0, 1.0)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            after = places([5, 1, 8], 6, d)
            found.append((run_scan(v, [5, 1, 8], after=after), after.stacked()))
    finally:
        torch.set_num_threads(before)
    for y, last in found[1:]:
        assert torch.equal(y, found[0][0])
        assert torch.equal(last, found[0][1])


@few
@given(st.integers(1, 9), st.integers(0, 99))
def test_a_row_in_pieces_is_the_row(cut: int, seed: int) -> None:
    v = scan_inputs([10], 20, 5, seed, 1.0)
    whole, state = places([10], 5, 20), places([10], 5, 20)
    y = run_scan(v, [10], None, whole)
    parts = []
    for part, start in ((slice(0, cut), None), (slice(cut, 10), state)):
        piece = v | {name: v[name][part].contiguous() for name in ("u", "dt", "proj", "xz")}
        parts.append(run_scan(piece, [len(piece["u"])], start, state))
    # Two tokens are taken at once, so that an odd cut pairs others; each is still computed alike.
    assert torch.equal(torch.cat(parts), y)
    assert torch.equal(state.stacked(), whole.stacked())


def test_a_state_may_be_advanced_where_it_lies() -> None:
    v = scan_inputs([3, 2], 20, 4, 0, 1.0)
    after, state = places([3, 2], 4, 20), Rows.apart(v["state"])
    y = run_scan(v, [3, 2], None, after)
    assert torch.equal(run_scan(v, [3, 2], state, state), y)
    assert torch.equal(state.stacked(), after.stacked())


def test_rows_share_a_state_and_only_some_are_kept() -> None:
    v = scan_inputs([3, 2, 4, 1], 20, 4, 0, 1.0)
    shared, after = Rows.apart(v["state"][:1]), places([0] * 4, 4, 20)
    state = Rows([shared.tensors[0], None, shared.tensors[0], None], (4, 20))
    some = Rows([None, after.tensors[1], after.tensors[2], None], (4, 20))
    y = run_scan(v, [3, 2, 4, 1], state, some)
    want = places([0] * 4, 4, 20)
    assert torch.equal(run_scan(v, [3, 2, 4, 1], Rows.apart(state.stacked()), want), y)
    assert torch.equal(some.stacked()[1:3], want.stacked()[1:3])
    assert torch.equal(shared.stacked(), v["state"][:1])


@few
@given(lengths, widths, st.integers(1, 5), st.integers(0, 9), st.integers(0, 99), st.booleans())
def test_convolution_agrees_with_torch(
    rows: list[int], d: int, taps: int, column: int, seed: int, fresh: bool
) -> None:
    total = sum(rows)
    x, weight, bias = normal(seed, total, d + column + 1), normal(seed + 1, taps, d), normal(seed + 2, d)
    window = torch.zeros(len(rows), taps - 1, d) if fresh else normal(seed + 3, len(rows), taps - 1, d)
    # Every other row of a state may have seen nothing.
    window[1::2] = 0
    before = [None if row % 2 else window[row].clone() for row in range(len(rows))]
    state = None if fresh else Rows(before, (taps - 1, d))
    after = places(rows, taps - 1, d)
    y = KERNELS.conv_silu(x, column, weight, bias, row_starts(rows), state, after)
    begin = 0
    for row, length in enumerate(rows):
        part = x[begin : begin + length, column : column + d].double()
        seen = torch.cat([window[row].double(), part])
        want = torch.nn.functional.conv1d(seen.T[None], weight.T[:, None].double(), bias.double(), groups=d)
        want = torch.nn.functional.silu(want[0].T)
        assert torch.allclose(y[begin : begin + length].double(), want, atol=1e-5)
        assert torch.equal(after.stacked()[row].double(), seen[seen.shape[0] - taps + 1 :])
        begin += length


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_a_window_may_be_advanced_where_it_lies(length: int) -> None:
    x, weight, bias, window = normal(0, length, 7), normal(1, 4, 7), normal(2, 7), normal(3, 1, 3, 7)
    after, state = places([0], 3, 7), Rows.apart(window)
    y = KERNELS.conv_silu(x, 0, weight, bias, row_starts([length]), Rows.apart(window), after)
    assert torch.equal(KERNELS.conv_silu(x, 0, weight, bias, row_starts([length]), state, state), y)
    assert torch.equal(state.stacked(), after.stacked())
    assert torch.equal(after.stacked()[0], torch.cat([window[0], x])[-3:])


@few
@given(st.integers(1, 9), st.sampled_from([1, 15, 16, 17, 64, 100]), st.integers(0, 99), st.booleans())
def test_normalisation_agrees_with_torch(tokens: int, size: int, seed: int, add: bool) -> None:
    residual, x, weight = normal(seed, tokens, size), normal(seed + 1, tokens, size), normal(seed + 2, size)
    summed = residual + x if add else residual.clone()
    y = KERNELS.add_norm(residual, x if add else None, weight, 1e-5)
    assert torch.equal(residual, summed)
    want = torch.nn.functional.rms_norm(summed.double(), (size,), weight.double(), 1e-5)
    assert torch.allclose(y.double(), want, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "exact", "low", "high"),
    [
        (_vector.exp2, np.exp2, -125.0, 0.0),
        (_vector.softplus, lambda x: np.logaddexp(0, x), -20.0, 60.0),
        (_vector.silu, lambda x: x / (1 + np.exp(-x)), -20.0, 60.0),
    ],
)
def test_vector_functions_are_exact_to_float32(ours: Any, exact: Any, low: float, high: float) -> None:
    @njit
    def each(x: Any, y: Any) -> None:
        for i in range(x.size):
            y[i] = ours(x[i])

    x = np.linspace(low, high, 100_001).astype(np.float32)
    y = np.empty_like(x)
    each(x, y)
    want = exact(x.astype(np.float64))
    # Far below zero the argument's own rounding to float32 shows: |x| * log2(e) half ulps of it.
    error = np.abs(y - want) / np.maximum(np.abs(want), 1e-30)
    assert error.max() <= 1e-7 + (0 if ours is _vector.exp2 else 2e-6)
    each(np.full(1, np.nan, np.float32), y)
    assert np.isnan(y[0])


@pytest.mark.parametrize("name", ["u", "dt", "dt_bias", "D", "xz", "state", "proj"])
def test_a_wrong_shape_never_reaches_the_loops(name: str) -> None:
    v = scan_inputs([3], 8, 4, 0, 1.0)
    v[name] = v[name][..., :-1].contiguous()
    with pytest.raises(ValueError, match="needed"):
        run_scan(v, [3])


def test_other_dtypes_and_layouts_are_refused() -> None:
    v = scan_inputs([3], 8, 4, 0, 1.0)
    with pytest.raises(ValueError, match="contiguous float32"):
        run_scan(v | {"dt": v["dt"].double()}, [3])
    with pytest.raises(ValueError, match="contiguous float32"):
        run_scan(v | {"dt": v["dt"].T.contiguous().T}, [3])


def test_a_device_without_kernels_says_so() -> None:
    assert kernels_for("cpu").name == CpuKernels.name
    with pytest.raises(Exception, match="no scan kernels for meta"):
        kernels_for("meta")
