"""The scan of Mamba-1 in Triton, over pieces of rows; `cuda` is its only caller.

A program takes one piece of a row and a block of its channels through time, with their states in
registers. Rows that are short are one piece, and nothing but the result is written. A long row is cut into
pieces that run side by side: first each from zeros, for the state it would end with (`scan` without
outputs), then these are put together in order (`join`), and then each runs again from the state that it
starts with, the first from a copy: the last may overwrite the row's own. The recurrence is algorithm 2 of
Gu & Dao 2023 (arXiv:2312.00752, section 3), and it is linear in the state: a piece multiplies what it starts
with by exp(A times the sum of its step sizes).
"""

from __future__ import annotations

import triton
import triton.language as tl

from mambabench.kernels.gpu._triton_math import floats, silu, softplus


@triton.jit  # type: ignore[untyped-decorator]
def _token(
    t: tl.tensor,
    end: tl.tensor,
    u: tl.tensor,
    dt: tl.tensor,
    bias: tl.tensor,
    proj: tl.tensor,
    proj_stride: tl.tensor,
    c: tl.tensor,
    n: tl.tensor,
    channels: tl.tensor,
    n_states: tl.tensor,
) -> tl.tensor:
    """Load a token's input and step size [channels], and its B and C [N]; past the end a step of zero."""
    here = c < tl.where(t < end, channels, 0)
    at = t * channels + c
    x = tl.load(u + at, mask=here, other=0.0).to(tl.float32)
    step = softplus(tl.load(dt + at, mask=here, other=0.0).to(tl.float32) + bias)
    step = tl.where(here, step, 0.0)
    known = n < tl.where(t < end, n_states, 0)
    b = tl.load(proj + t * proj_stride + n, mask=known, other=0.0).to(tl.float32)
    out = tl.load(proj + t * proj_stride + n_states + n, mask=known, other=0.0).to(tl.float32)
    return x, step, b, out


@triton.jit  # type: ignore[untyped-decorator]
def _gate(
    t: tl.tensor, end: tl.tensor, xz: tl.tensor, xz_stride: tl.tensor, c: tl.tensor, channels: tl.tensor
) -> tl.tensor:
    """Return silu of a token's gate [channels]."""
    z = tl.load(xz + t * xz_stride + c, mask=c < tl.where(t < end, channels, 0), other=0.0)
    return silu(z.to(tl.float32))


@triton.jit  # type: ignore[untyped-decorator]
def _write(
    y: tl.tensor, t: tl.tensor, end: tl.tensor, value: tl.tensor, c: tl.tensor, channels: tl.tensor
) -> None:
    """Store a token's outputs [channels], unless it is past the end."""
    here = c < tl.where(t < end, channels, 0)
    tl.store(y + t * channels + c, value.to(y.dtype.element_ty), mask=here)


@triton.jit  # type: ignore[untyped-decorator]
def _advance(
    h: tl.tensor, a: tl.tensor, x: tl.tensor, step: tl.tensor, b: tl.tensor, out: tl.tensor
) -> tl.tensor:
    """Return the state after a token and C h; states lie along the first axis."""
    h = tl.exp2(step[None, :] * a) * h + (step * x)[None, :] * b[:, None]
    return h, tl.sum(h * out[:, None], axis=0)


@triton.jit  # type: ignore[untyped-decorator]
def scan(
    u: tl.tensor,
    dt: tl.tensor,
    dt_bias: tl.tensor,
    a: tl.tensor,
    proj: tl.tensor,
    proj_stride: tl.tensor,
    proj_column: tl.tensor,
    skip: tl.tensor,
    xz: tl.tensor,
    xz_stride: tl.tensor,
    z_column: tl.tensor,
    begins: tl.tensor,
    stops: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    steps: tl.tensor,
    y: tl.tensor,
    channels: tl.tensor,
    n_states: tl.tensor,
    remembers: tl.constexpr,
    is_kept: tl.constexpr,
    is_read: tl.constexpr,
    block_states: tl.constexpr,
    block_channels: tl.constexpr,
) -> None:
    """Take one piece through time; its outputs are written, or else the sum of its step sizes."""
    piece = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(begins + piece), tl.load(stops + piece)
    n = tl.arange(0, block_states)
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    is_state, is_channel = n < n_states, c < channels
    place = n[:, None] * channels + c[None, :]
    is_place = is_state[:, None] & is_channel[None, :]
    decay = tl.load(a + place, mask=is_place, other=0.0)
    bias = tl.load(dt_bias + c, mask=is_channel, other=0.0)
    d = tl.load(skip + c, mask=is_channel, other=0.0)
    h = tl.zeros([block_states, block_channels], tl.float32)
    if remembers:
        source = tl.load(before + piece)
        if source != 0:
            h += tl.load(floats(source) + place, mask=is_place, other=0.0)
    total = tl.zeros([block_channels], tl.float32)
    proj += proj_column
    xz += z_column
    for t in range(begin, end, 4):
        # Four tokens are asked for at once: a token's arithmetic alone is shorter than its way from memory.
        x0, step0, b0, out0 = _token(t, end, u, dt, bias, proj, proj_stride, c, n, channels, n_states)
        x1, step1, b1, out1 = _token(t + 1, end, u, dt, bias, proj, proj_stride, c, n, channels, n_states)
        x2, step2, b2, out2 = _token(t + 2, end, u, dt, bias, proj, proj_stride, c, n, channels, n_states)
        x3, step3, b3, out3 = _token(t + 3, end, u, dt, bias, proj, proj_stride, c, n, channels, n_states)
        if is_read:
            gate0 = _gate(t, end, xz, xz_stride, c, channels)
            gate1 = _gate(t + 1, end, xz, xz_stride, c, channels)
            gate2 = _gate(t + 2, end, xz, xz_stride, c, channels)
            gate3 = _gate(t + 3, end, xz, xz_stride, c, channels)
            h, y0 = _advance(h, decay, x0, step0, b0, out0)
            h, y1 = _advance(h, decay, x1, step1, b1, out1)
            h, y2 = _advance(h, decay, x2, step2, b2, out2)
            h, y3 = _advance(h, decay, x3, step3, b3, out3)
            _write(y, t, end, (y0 + d * x0) * gate0, c, channels)
            _write(y, t + 1, end, (y1 + d * x1) * gate1, c, channels)
            _write(y, t + 2, end, (y2 + d * x2) * gate2, c, channels)
            _write(y, t + 3, end, (y3 + d * x3) * gate3, c, channels)
        else:
            h, _ = _advance(h, decay, x0, step0, b0, out0)
            h, _ = _advance(h, decay, x1, step1, b1, out1)
            h, _ = _advance(h, decay, x2, step2, b2, out2)
            h, _ = _advance(h, decay, x3, step3, b3, out3)
            total += (step0 + step1) + (step2 + step3)
    if is_kept:
        target = tl.load(after + piece)
        if target != 0:
            tl.store(floats(target) + place, h, mask=is_place)
    if not is_read:
        tl.store(steps + piece * channels + c, total, mask=is_channel)


@triton.jit  # type: ignore[untyped-decorator]
def join(
    a: tl.tensor,
    steps: tl.tensor,
    ends: tl.tensor,
    pieces: tl.tensor,
    before: tl.tensor,
    channels: tl.tensor,
    n_states: tl.tensor,
    remembers: tl.constexpr,
    block_states: tl.constexpr,
    block_channels: tl.constexpr,
) -> None:
    """Turn the states that one row's pieces reach from zeros into those that they reach in the row.

    `ends` has the former [pieces, N, channels] and gets the latter; a cut row has `pieces[row]` to
    `pieces[row + 1]` of them: one without tokens, which ends as the row begins, and all but its last.
    """
    row = tl.program_id(0)
    n = tl.arange(0, block_states)
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    is_channel = c < channels
    place = n[:, None] * channels + c[None, :]
    is_place = (n < n_states)[:, None] & is_channel[None, :]
    decay = tl.load(a + place, mask=is_place, other=0.0)
    h = tl.zeros([block_states, block_channels], tl.float32)
    if remembers:
        source = tl.load(before + row)
        if source != 0:
            h += tl.load(floats(source) + place, mask=is_place, other=0.0)
    for piece in range(tl.load(pieces + row), tl.load(pieces + row + 1)):
        at = ends + piece * n_states * channels + place
        step = tl.load(steps + piece * channels + c, mask=is_channel, other=0.0)
        h = tl.exp2(step[None, :] * decay) * h + tl.load(at, mask=is_place, other=0.0)
        tl.store(at, h, mask=is_place)
