"""The scan of Mamba-2 in Triton; `cuda` is its only caller.

A program takes one row and a part of one head's channels through time with their state [N, P] in
registers: by tiles of tokens, as products of matrices (Dao & Gu 2024, arXiv:2405.21060, section 6), or,
for rows of very few tokens, token by token. Decays between two tokens are sums of the steps between them,
not differences of running sums, which lose small steps after large ones.

`tiles` holds its state turned, [P, N], so that every product has P rows for the warps to share; with N along
the first axis all warps held the whole state for C h. This was chosen by the instructions that it takes in an
emulator (411 a token and head where it was 522) and by registers spilled (132 bytes, 528), for compute
capability 8.0, Triton 3.9 and bfloat16; it is not timed. A NaN in an input may reach all tokens of its row
that share a tile with it, and no other row.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mambabench.kernels.gpu._triton_math import floats, softplus


@triton.jit  # type: ignore[untyped-decorator]
def tiles(
    xbc: tl.tensor,
    xbc_stride: tl.tensor,
    b_column: tl.tensor,
    zxbcdt: tl.tensor,
    z_stride: tl.tensor,
    dt_column: tl.tensor,
    dt_bias: tl.tensor,
    a: tl.tensor,
    skip: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    begins: tl.tensor,
    stops: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    y: tl.tensor,
    heads_a_group: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    n_states: tl.tensor,
    remembers: tl.constexpr,
    is_kept: tl.constexpr,
    precision: tl.constexpr,
    block_tokens: tl.constexpr,
    block_states: tl.constexpr,
    block_width: tl.constexpr,
) -> None:
    """Take one row and a part of a head through time, `block_tokens` at once."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin, end = tl.load(begins + row), tl.load(stops + row)
    i, n = tl.arange(0, block_tokens), tl.arange(0, block_states)
    p = tl.program_id(2) * block_width + tl.arange(0, block_width)
    is_state, is_channel = n < n_states, p < width
    channel = head * width + p
    b_place = b_column + head // heads_a_group * n_states + n
    place = (head * n_states + n)[None, :] * width + p[:, None]
    is_place = is_state[None, :] & is_channel[:, None]
    decay, bias = tl.load(a + head), tl.load(dt_bias + head)
    d = tl.load(skip + channel, mask=is_channel, other=0.0)
    h = tl.zeros([block_width, block_states], tl.float32)
    if remembers:
        source = tl.load(before + row)
        if source != 0:
            h += tl.load(floats(source) + place, mask=is_place, other=0.0)
    for first in range(begin, end, block_tokens):
        t = first + i
        here = t < end
        base = xbc + t[:, None] * xbc_stride
        known = here[:, None] & is_state[None, :]
        is_output = here[None, :] & is_channel[:, None]
        x = tl.load(xbc + t[None, :] * xbc_stride + channel[:, None], mask=is_output, other=0.0)
        b = tl.load(base + b_place[None, :], mask=known, other=0.0).to(tl.float32)
        c = tl.load(base + groups * n_states + b_place[None, :], mask=known, other=0.0).to(tl.float32)
        x = x.to(tl.float32)
        raw = tl.load(zxbcdt + t * z_stride + dt_column + head, mask=here, other=0.0).to(tl.float32)
        step = softplus(raw + bias)
        step = tl.where(step < low, low, tl.where(step > high, high, step))
        step = tl.where(here, step, 0.0)
        fall = step * decay
        # between[r, s] is the sum over the tokens after r up to s.
        between = tl.cumsum(tl.where(i[None, :] > i[:, None], fall[None, :], 0.0), axis=1)
        scores = tl.dot(b, tl.trans(c), input_precision=precision)
        scores *= tl.exp2(between) * step[:, None]
        scores = tl.where(i[None, :] >= i[:, None], scores, 0.0)
        since = tl.exp2(tl.sum(tl.where(i[:, None] >= i[None, :], fall[None, :], 0.0), axis=1))
        total = tl.dot(h, tl.trans(c), input_precision=precision) * since[None, :]
        total += tl.dot(x, scores, input_precision=precision)
        total += d[:, None] * x
        at = t[None, :] * (groups * heads_a_group * width) + channel[:, None]
        tl.store(y + at, total.to(y.dtype.element_ty), mask=is_output)
        left = tl.sum(tl.where(i[None, :] == block_tokens - 1, between, 0.0), axis=1)
        b *= (step * tl.exp2(left))[:, None]
        h = tl.exp2(tl.sum(fall, axis=0)) * h + tl.dot(x, b, input_precision=precision)
    if is_kept:
        target = tl.load(after + row)
        if target != 0:
            tl.store(floats(target) + place, h, mask=is_place)


@triton.jit  # type: ignore[untyped-decorator]
def tokens(
    xbc: tl.tensor,
    xbc_stride: tl.tensor,
    b_column: tl.tensor,
    zxbcdt: tl.tensor,
    z_stride: tl.tensor,
    dt_column: tl.tensor,
    dt_bias: tl.tensor,
    a: tl.tensor,
    skip: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    begins: tl.tensor,
    stops: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    y: tl.tensor,
    heads_a_group: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    n_states: tl.tensor,
    remembers: tl.constexpr,
    is_kept: tl.constexpr,
    block_states: tl.constexpr,
    block_width: tl.constexpr,
) -> None:
    """Take one row and a part of a head through time, one token after another."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin, end = tl.load(begins + row), tl.load(stops + row)
    n = tl.arange(0, block_states)
    p = tl.program_id(2) * block_width + tl.arange(0, block_width)
    is_state, is_channel = n < n_states, p < width
    channel = head * width + p
    b_place = b_column + head // heads_a_group * n_states + n
    place = (head * n_states + n)[:, None] * width + p[None, :]
    is_place = is_state[:, None] & is_channel[None, :]
    decay, bias = tl.load(a + head), tl.load(dt_bias + head)
    d = tl.load(skip + channel, mask=is_channel, other=0.0)
    h = tl.zeros([block_states, block_width], tl.float32)
    if remembers:
        source = tl.load(before + row)
        if source != 0:
            h += tl.load(floats(source) + place, mask=is_place, other=0.0)
    for t in range(begin, end):
        base = xbc + t * xbc_stride
        x = tl.load(base + channel, mask=is_channel, other=0.0).to(tl.float32)
        b = tl.load(base + b_place, mask=is_state, other=0.0).to(tl.float32)
        c = tl.load(base + groups * n_states + b_place, mask=is_state, other=0.0).to(tl.float32)
        step = softplus(tl.load(zxbcdt + t * z_stride + dt_column + head).to(tl.float32) + bias)
        step = tl.where(step < low, low, tl.where(step > high, high, step))
        h = tl.exp2(step * decay) * h + b[:, None] * (step * x)[None, :]
        total = tl.sum(h * c[:, None], axis=0) + d * x
        at = t * (groups * heads_a_group * width) + channel
        tl.store(y + at, total.to(y.dtype.element_ty), mask=is_channel)
    if is_kept:
        target = tl.load(after + row)
        if target != 0:
            tl.store(floats(target) + place, h, mask=is_place)
