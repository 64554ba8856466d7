"""Functions and small kernels that the Triton code of both families shares; `cuda` is their only caller.

Everything is computed in float32, whatever the tensors' dtype. Places in memory are int64: a batch of
tokens times columns passes 2**31 elements easily, and a 32-bit offset would wrap round without a word.
A state is given by its address, as int64, 0 for a row without one. Arrays have contiguous rows, and
columns are named by their first.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def silu(x: tl.tensor) -> tl.tensor:
    """x / (1 + exp(-x))."""
    return x / (1.0 + tl.exp(-x))


@triton.jit  # type: ignore[untyped-decorator]
def softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + exp(x)), with small results exact to float32, too.

    A GPU's own logarithm is off by 2**-22 next to 1, which is a large part of a small step size. This is
    2 artanh(e / (2 + e)) for e = exp(-|x|), as a series whose argument is at most 1/3.
    """
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    series = 1.0 / 13.0 + q * (1.0 / 15.0)
    series = 1.0 / 9.0 + q * (1.0 / 11.0 + q * series)
    series = 1.0 / 5.0 + q * (1.0 / 7.0 + q * series)
    series = 1.0 + q * (1.0 / 3.0 + q * series)
    return tl.where(x > 0.0, x, 0.0) + 2.0 * s * series


@triton.jit  # type: ignore[untyped-decorator]
def floats(address: tl.tensor) -> tl.tensor:
    """Return an address as a pointer to float32; nothing checks that they are there."""
    return address.to(tl.pointer_type(tl.float32))


@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def conv_silu(
    x: tl.tensor,
    x_stride: tl.tensor,
    column: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    starts: tl.tensor,
    row_of: tl.tensor,
    before: tl.tensor,
    y: tl.tensor,
    tokens: tl.tensor,
    channels: tl.tensor,
    taps: tl.constexpr,
    remembers: tl.constexpr,
    block_tokens: tl.constexpr,
    block_channels: tl.constexpr,
) -> None:
    """Convolve a block of tokens and channels."""
    t = tl.program_id(0).to(tl.int64) * block_tokens + tl.arange(0, block_tokens)
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    is_token, is_channel = t < tokens, c < channels
    row = tl.load(row_of + t, mask=is_token, other=0)
    begin = tl.load(starts + row, mask=is_token, other=0)
    total = tl.zeros([block_tokens, block_channels], tl.float32)
    total += tl.load(bias + c, mask=is_channel, other=0.0)[None, :]
    for k in tl.static_range(taps):
        at = t - (taps - 1) + k
        seen = (is_token & (at >= begin))[:, None] & is_channel[None, :]
        value = tl.load(x + at[:, None] * x_stride + column + c[None, :], mask=seen, other=0.0).to(tl.float32)
        if remembers:
            # The inputs before the row's first token come from its window.
            window = tl.load(before + row, mask=is_token & (at < begin), other=0)
            place = (at - begin + taps - 1)[:, None] * channels + c[None, :]
            known = (window != 0)[:, None] & is_channel[None, :]
            value += tl.load(floats(window)[:, None] + place, mask=known, other=0.0)
        total += value * tl.load(weight + k * channels + c, mask=is_channel, other=0.0)[None, :]
    place = t[:, None] * channels + c[None, :]
    tl.store(y + place, silu(total).to(y.dtype.element_ty), mask=is_token[:, None] & is_channel[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def windows(
    x: tl.tensor,
    x_stride: tl.tensor,
    column: tl.tensor,
    starts: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    channels: tl.tensor,
    past: tl.constexpr,
    remembers: tl.constexpr,
    block_past: tl.constexpr,
    block_channels: tl.constexpr,
) -> None:
    """Write one row's last `past` inputs, of a block of channels."""
    row = tl.program_id(0)
    target = tl.load(after + row)
    if target == 0:
        return
    begin, end = tl.load(starts + row), tl.load(starts + row + 1)
    k = tl.arange(0, block_past)
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    is_place = (k < past)[:, None] & (c < channels)[None, :]
    at = end - past + k
    seen = is_place & (at >= begin)[:, None]
    value = tl.load(x + at[:, None] * x_stride + column + c[None, :], mask=seen, other=0.0).to(tl.float32)
    if remembers:
        window = tl.load(before + row)
        if window != 0:
            known = is_place & (at < begin)[:, None]
            old = (at - begin + past)[:, None] * channels + c[None, :]
            value += tl.load(floats(window) + old, mask=known, other=0.0)
    # The new window may lie where the old one does: all of that is read first.
    tl.debug_barrier()
    place = k[:, None] * channels + c[None, :]
    tl.store(floats(target) + place, value, mask=is_place)


@triton.jit  # type: ignore[untyped-decorator]
def add_norm(
    residual: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    y: tl.tensor,
    size: tl.tensor,
    eps: tl.tensor,
    adds: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Add one token's `x` to its residual stream and normalise the sum."""
    token = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, block)
    is_channel = c < size
    place = token * size + c
    total = tl.load(residual + place, mask=is_channel, other=0.0)
    if adds:
        total += tl.load(x + place, mask=is_channel, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(total * total, axis=0) / size + eps)
    if adds:
        # Only now: where threads hold copies of each other's numbers, a late one would read the sum.
        tl.store(residual + place, total, mask=is_channel)
    w = tl.load(weight + c, mask=is_channel, other=0.0)
    tl.store(y + place, (total * scale * w).to(y.dtype.element_ty), mask=is_channel)


@triton.jit  # type: ignore[untyped-decorator]
def gate_norm(
    y: tl.tensor,
    z: tl.tensor,
    z_stride: tl.tensor,
    z_column: tl.tensor,
    weight: tl.tensor,
    size: tl.tensor,
    groups: tl.tensor,
    eps: tl.tensor,
    norms: tl.constexpr,
    gate_first: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Gate and normalise one group of channels of one token, in place."""
    token, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.arange(0, block)
    is_channel = c < size
    column = group * size + c
    place = y + token * groups * size + column
    value = tl.load(place, mask=is_channel, other=0.0).to(tl.float32)
    gate = tl.load(z + token * z_stride + z_column + column, mask=is_channel, other=0.0).to(tl.float32)
    if gate_first:
        value *= silu(gate)
    if norms:
        scale = 1.0 / tl.sqrt(tl.sum(value * value, axis=0) / size + eps)
        value *= scale * tl.load(weight + column, mask=is_channel, other=0.0)
    if not gate_first:
        value *= silu(gate)
    tl.store(place, value.to(y.dtype.element_ty), mask=is_channel)
