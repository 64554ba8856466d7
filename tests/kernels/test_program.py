"""Programs of operations on a few rows, against float64 and the loops that do one operation at a time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mambabench.kernels.packed import CpuKernels
from mambabench.kernels.program import DTYPES, Program, usual_threads
from mambabench.kernels.reference import selective_scan_reference, ssd_reference
from mambabench.kernels.rows import Rows
from mambabench.kernels.threads import together
from mambabench.models.layers import row_starts

LOG2_E = 1.4426950408889634
KERNELS = CpuKernels()
UNIT = 2.0**-24

few = settings(max_examples=40, deadline=None)
rows_and_threads = st.tuples(st.integers(1, 19), st.integers(1, 3))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None, threads: int) -> Tensor:
    program = Program(x.shape[0], threads)
    y = program.shared(weight.shape[0])
    program.product(x, weight, y, bias=bias)
    program.run([], [])
    return y


def states(shape: tuple[int, ...], rows: int, seed: int) -> Rows:
    """Return rows' states, the second one of which has seen nothing."""
    return Rows(
        [None if row == 1 else tensor for row, tensor in enumerate(normal(seed, rows, *shape))], shape
    )


def addresses(rows: Rows) -> list[np.ndarray[tuple[int], np.dtype[np.int64]] | None]:
    return [rows.addresses(len(rows), rows.shape, torch.float32)]


@few
@given(
    rows_and_threads,
    st.integers(1, 130),
    st.integers(1, 100),
    st.sampled_from(list(DTYPES)),
    st.booleans(),
    st.integers(0, 99),
)
@example((8, 2), 3072, 768, torch.float32, True, 0)
@example((1, 2), 80, 1536, torch.bfloat16, False, 1)
def test_products_lose_no_more_than_their_sums_must(
    shape: tuple[int, int], m: int, n: int, dtype: torch.dtype, has_bias: bool, seed: int
) -> None:
    rows, threads = shape
    x, weight = normal(seed, rows, n), normal(seed + 1, m, n).to(dtype)
    bias = normal(seed + 2, m) if has_bias else None
    got = multiplied(x, weight, bias, threads)
    offset = torch.zeros(m) if bias is None else bias
    want = x.double() @ weight.double().t() + offset
    # A lane's sum, the lanes' sums, the inputs beyond whole vectors and the bias: so many roundings at most.
    roundings = n // 16 + 4 + n % 16 + 2
    size = x.double().abs() @ weight.double().abs().t() + offset.abs()
    assert ((got - want).abs() <= roundings * UNIT * size + 1e-30).all()


@few
@given(st.integers(1, 19), st.integers(1, 70), st.integers(1, 70), st.sampled_from(list(DTYPES)))
def test_a_row_depends_neither_on_its_neighbours_nor_on_the_threads(
    rows: int, m: int, n: int, dtype: torch.dtype
) -> None:
    x, weight = normal(1, rows, n), normal(2, m, n).to(dtype)
    together_ = multiplied(x, weight, None, 3)
    alone = torch.cat([multiplied(row[None], weight, None, 1) for row in x])
    assert torch.equal(together_, alone)


def test_a_product_reads_and_writes_its_columns_only() -> None:
    program = Program(2, 2)
    x, y = program.private(40), program.shared(60)
    x[:], y[:] = normal(0, 2, 40), 7.0
    weight = normal(1, 20, 30)
    program.product(x, weight, y, x_column=5, y_column=33)
    program.run([], [])
    assert torch.allclose(y[:, 33:53], x[0, :, 5:35] @ weight.t(), atol=1e-5)
    assert (y[:, :33] == 7.0).all()
    assert (y[:, 53:] == 7.0).all()


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_see_what_the_others_made_before_a_meeting(threads: int) -> None:
    """More threads than cores: some sleep at every meeting."""

    def last(threads: int) -> Tensor:
        program = Program(1, threads)
        x, y = program.shared(96), program.shared(96)
        x[:] = normal(0, 1, 96)
        # An orthogonal matrix keeps the numbers' size.
        weight = torch.linalg.qr(normal(1, 96, 96)).Q.contiguous()
        for _ in range(200):
            program.product(x, weight, y)
            program.meet()
            program.product(y, weight, x)
            program.meet()
        for _ in range(3):
            program.run([], [])
        return x

    assert torch.equal(last(threads), last(1))


def test_an_interrupted_call_leaves_no_thread_behind() -> None:
    left, ended = threading.Event(), threading.Event()

    def work(thread: int) -> None:
        if thread == 0:
            raise KeyboardInterrupt
        assert left.wait(10)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        together(work, 2, leave=left.set)
    assert ended.is_set()
    together(lambda thread: None, 2, leave=left.set)


@few
@given(rows_and_threads, st.integers(1, 90), st.booleans(), st.booleans())
def test_a_normalisation_is_torchs(shape: tuple[int, int], width: int, has_weight: bool, adds: bool) -> None:
    program = Program(*shape)
    x, added, total, y = (program.shared(width) for _ in range(4))
    x[:], added[:] = normal(0, *x.shape), normal(1, *x.shape)
    weight = normal(2, width) if has_weight else None
    sums: dict[str, Any] = {"added": added, "total": total} if adds else {}
    program.norm(x, y, weight=weight, eps=1e-3, alone=True, **sums)
    program.run([], [])
    summed = x + added if adds else x
    want = torch.nn.functional.rms_norm(summed, (width,), weight, 1e-3)
    assert torch.allclose(y, want, atol=1e-5)
    assert torch.equal(total, summed if adds else torch.zeros_like(total))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(("taps", "channels", "threads"), [(4, 300, 2), (1, 17, 2), (2, 16, 1)])
def test_a_convolution_goes_on_from_its_window(
    taps: int, channels: int, threads: int, in_place: bool
) -> None:
    rows = 3
    before = states((taps - 1, channels), rows, 0)
    kept = before.stacked()
    if in_place:
        before = Rows.apart(kept)
    x, weight, bias = normal(1, rows, channels + 9), normal(2, taps, channels), normal(3, channels)
    want_after = Rows.places(None, x, before.shape, rows)
    want = KERNELS.conv_silu(x, 5, weight, bias, row_starts([1] * rows), before, want_after)
    program = Program(rows, threads)
    y = program.shared(channels)
    program.conv_silu(x, 5, weight, bias, y)
    after = before if in_place else Rows.places(None, x, before.shape, rows)
    program.run(addresses(before), addresses(after))
    assert torch.allclose(y, want, atol=1e-6)
    assert torch.equal(after.stacked(), want_after.stacked())
    assert in_place or torch.equal(before.stacked(), kept)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(("channels", "n_states", "threads"), [(600, 16, 2), (33, 3, 2), (16, 1, 1)])
def test_a_step_of_the_scan_is_the_reference(
    channels: int, n_states: int, threads: int, in_place: bool
) -> None:
    rows = 3
    before = states((n_states, channels), rows, 0)
    kept = before.stacked()
    if in_place:
        before = Rows.apart(kept)
    u, dt, z = (normal(seed, rows, channels) for seed in (1, 2, 3))
    a, proj = -normal(4, n_states, channels).abs(), normal(5, rows, 4 + 2 * n_states)
    dt_bias, skip = normal(6, channels), normal(7, channels)
    program = Program(rows, threads)
    y = program.shared(channels)
    program.scan(u, dt, dt_bias, a * LOG2_E, proj, 4, skip, z, 0, y)
    after = before if in_place else Rows.places(None, u, before.shape, rows)
    program.run(addresses(before), addresses(after))
    b, c = proj[:, None, 4 : 4 + n_states], proj[:, None, 4 + n_states :]
    want, last = selective_scan_reference(
        u[:, None].numpy(), dt[:, None].numpy(), a.t().numpy(), b.numpy(), c.numpy(), skip.numpy(),
        z=z[:, None].numpy(), delta_bias=dt_bias.numpy(), delta_softplus=True,
        initial_state=kept.transpose(1, 2).numpy(),
    )  # fmt: skip
    assert torch.allclose(y.double(), torch.from_numpy(want)[:, 0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(
        after.stacked().double(), torch.from_numpy(last).transpose(1, 2), rtol=1e-5, atol=1e-5
    )
    assert in_place or torch.equal(before.stacked(), kept)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    ("heads", "width", "n_states", "groups"),
    [(4, 64, 16, 2), (3, 128, 5, 1), (2, 320, 4, 1), (4, 300, 3, 2), (1, 7, 2, 1)],
)
def test_a_step_of_mamba_2s_scan_is_the_reference(
    heads: int, width: int, n_states: int, groups: int, in_place: bool
) -> None:
    rows, limit = 3, (0.1, 0.9)
    before = states((heads, n_states, width), rows, 0)
    kept = before.stacked()
    if in_place:
        before = Rows.apart(kept)
    xbc, dt = normal(1, rows, heads * width + 2 * groups * n_states), normal(2, rows, 3 + heads)
    a, dt_bias, skip = -normal(3, heads).abs(), normal(4, heads), normal(5, heads, width)
    program = Program(rows, 2)
    y = program.shared(heads * width)
    program.ssd(xbc, dt, 3, dt_bias, a * LOG2_E, skip, groups, y, dt_limit=limit)
    after = before if in_place else Rows.places(None, xbc, before.shape, rows)
    program.run(addresses(before), addresses(after))
    x, b, c = torch.split(xbc, [heads * width, groups * n_states, groups * n_states], dim=1)
    for row in range(rows):
        b_row, c_row = (v[row].reshape(1, groups, n_states).numpy() for v in (b, c))
        want, last = ssd_reference(
            x[row].reshape(1, heads, width).numpy(), dt[row : row + 1, 3:].numpy(), a.numpy(),
            b_row, c_row, skip.numpy(),
            dt_bias=dt_bias.numpy(), dt_limit=limit, initial_state=kept[row].numpy(),
        )  # fmt: skip
        assert torch.allclose(y[row].double(), torch.from_numpy(want).flatten(), rtol=1e-5, atol=1e-5)
        assert torch.allclose(after.stacked()[row].double(), torch.from_numpy(last), rtol=1e-5, atol=1e-5)
    assert in_place or torch.equal(before.stacked(), kept)


def test_a_state_that_nobody_wants_is_not_written() -> None:
    before = Rows.apart(normal(0, 2, 2, 3, 64))
    kept = before.stacked()
    xbc, dt = normal(1, 2, 2 * 64 + 6), normal(2, 2, 2)
    vectors = normal(3, 2), -normal(4, 2).abs(), normal(5, 2, 64)
    program = Program(2, 2)
    y = program.shared(128)
    program.ssd(xbc, dt, 0, *vectors, 1, y, dt_limit=(0.0, 9.0))
    after = Rows.places(before, xbc, before.shape, 2, keep=[1])
    program.run(addresses(before), addresses(after))
    want = KERNELS.ssd(xbc, dt, 0, *vectors, 1, row_starts([1, 1]), before, None, dt_limit=(0.0, 9.0))
    assert torch.allclose(y, want, atol=1e-5)
    assert torch.equal(before.stacked(), kept)


@pytest.mark.parametrize("gate_first", [True, False])
@pytest.mark.parametrize("has_weight", [True, False])
def test_a_gate_is_that_of_the_packed_loops(has_weight: bool, gate_first: bool) -> None:
    y, z, weight = normal(0, 3, 84), normal(1, 3, 90), normal(2, 84) if has_weight else None
    program = Program(3, 2)
    out = program.private(84)
    program.gate_norm(y, z, 6, weight, 1e-3, 2, out, gate_first=gate_first)
    program.run([], [])
    KERNELS.gate_norm(y, z, 6, weight, 1e-3, 2, gate_first=gate_first)
    for thread in range(2):
        assert torch.allclose(out[thread], y, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    program = Program(2, 2)
    x, y = program.shared(8), program.shared(4)
    with pytest.raises(ValueError, match="2 rows, 9 columns"):
        program.product(x, torch.zeros(4, 9), y)
    with pytest.raises(ValueError, match="2 rows, 5 columns"):
        program.product(x, torch.zeros(5, 8), y)
    with pytest.raises(ValueError, match=r"no products with torch\.float64"):
        program.product(x, torch.zeros(4, 8).double(), y)
    with pytest.raises(ValueError, match="not contiguous"):
        program.product(x, torch.zeros(8, 4).t(), y)
    with pytest.raises(ValueError, match="4 numbers"):
        program.product(x, torch.zeros(4, 8), y, bias=torch.zeros(3))
    with pytest.raises(ValueError, match="float32"):
        program.product(x.double(), torch.zeros(4, 8), y)
    with pytest.raises(ValueError, match="for 2 threads"):
        program.product(torch.zeros(3, 2, 8), torch.zeros(4, 8), y)
    with pytest.raises(ValueError, match="2 rows"):
        program.product(torch.zeros(3, 8), torch.zeros(4, 8), y)


def test_there_are_never_more_threads_than_torch_uses() -> None:
    assert 1 <= usual_threads() <= torch.get_num_threads()
