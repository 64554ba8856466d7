"""Rows laid out as a padded batch, and back, in Triton; `official` is its only caller.

mamba_ssm's scan of Mamba-1 takes [rows, channels, tokens], with the tokens of a channel side by side; ours
lie token by token. Each tensor is read once and written once. Every row is followed by tokens that leave its
state as it is, up to the longest one's length.

The scan starts from zeros, so that a row's state is put into it as tokens: for each state n one whose B is a
power of two at n and zero elsewhere, whose C is zero, and whose input is the state's numbers over B times the
step. The step is so small that exp(step * A) is 1 to float32, whatever A is: nothing that was put in decays
until the row's own first token. An input of 16 bits takes three such tokens, each with what the ones before
it have left over, which is 24 bits of each number, as in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mambabench.kernels.gpu._triton_math import floats

# Where softplus is, to float32, the exponential: about 2**-50.
RAW_STEP = tl.constexpr(-34.657359027997264)
UNIT = tl.constexpr(1125899906842624.0)
# Softplus of it is 0, with any bias a model may have, and it is a number in float16, too.
NO_STEP = tl.constexpr(-10000.0)


@triton.jit  # type: ignore[untyped-decorator]
def _bounds(
    begins: tl.tensor, lengths: tl.tensor, row: tl.tensor, t: tl.tensor, ahead: tl.tensor
) -> tl.tensor:
    """Return the token among all that each place of a padded row has, and whether it has one."""
    i = t - ahead
    return tl.load(begins + row) + i, (i >= 0) & (i < tl.load(lengths + row))


@triton.jit  # type: ignore[untyped-decorator]
def lay_inputs(
    u: tl.tensor,
    dt: tl.tensor,
    xz: tl.tensor,
    xz_stride: tl.tensor,
    z_column: tl.tensor,
    dt_bias: tl.tensor,
    begins: tl.tensor,
    lengths: tl.tensor,
    before: tl.tensor,
    row_of: tl.tensor,
    u_out: tl.tensor,
    dt_out: tl.tensor,
    z_out: tl.tensor,
    channels: tl.tensor,
    padded: tl.tensor,
    ahead: tl.tensor,
    terms: tl.constexpr,
    remembers: tl.constexpr,
    block_tokens: tl.constexpr,
    block_channels: tl.constexpr,
) -> None:
    """Lay out inputs, step sizes and gates [rows, channels, padded], with states as the first tokens."""
    row = tl.program_id(2).to(tl.int64)
    first = tl.program_id(0) * block_tokens
    t, c = (
        first + tl.arange(0, block_tokens),
        tl.program_id(1) * block_channels + tl.arange(0, block_channels),
    )
    is_channel = (c < channels)[None, :]
    token, is_token = _bounds(begins, lengths, row, t, ahead)
    known = is_token[:, None] & is_channel
    kind = u_out.dtype.element_ty
    place = token[:, None] * channels + c[None, :]
    x = tl.load(u + place, mask=known, other=0.0).to(tl.float32)
    step = tl.load(dt + place, mask=known, other=NO_STEP).to(tl.float32)
    z = tl.load(xz + token[:, None] * xz_stride + z_column + c[None, :], mask=known, other=0.0)
    if remembers:
        source = tl.load(before + tl.load(row_of + row))
        # A row without a state keeps its zeros through tokens without a step.
        if (first < ahead) & (source != 0):
            bias = tl.load(dt_bias + c, mask=c < channels, other=0.0)
            raw = (-bias + RAW_STEP).to(kind).to(tl.float32)
            # By the very instruction that the scan, compiled for speed, has for its exponential.
            scale = tl.exp(raw + bias) * UNIT
            is_given = (t < ahead)[:, None] & is_channel
            state = floats(source) + (t // terms)[:, None].to(tl.int64) * channels + c[None, :]
            value = tl.load(state, mask=is_given, other=0.0) / scale[None, :]
            if terms == 3:
                high = value.to(kind).to(tl.float32)
                middle = (value - high).to(kind).to(tl.float32)
                term = (t % terms)[:, None]
                value = tl.where(term == 0, high, tl.where(term == 1, middle, value - high - middle))
            x = tl.where(is_given, value, x)
            step = tl.where(is_given, raw[None, :], step)
    at = (row * channels + c)[None, :] * padded + t[:, None]
    wanted = (t < padded)[:, None] & is_channel
    tl.store(u_out + at, x.to(kind), mask=wanted)
    tl.store(dt_out + at, step.to(kind), mask=wanted)
    tl.store(z_out + at, z.to(kind), mask=wanted)


@triton.jit  # type: ignore[untyped-decorator]
def lay_projections(
    proj: tl.tensor,
    proj_stride: tl.tensor,
    column: tl.tensor,
    begins: tl.tensor,
    lengths: tl.tensor,
    out: tl.tensor,
    n_states: tl.tensor,
    padded: tl.tensor,
    ahead: tl.tensor,
    terms: tl.constexpr,
    block_tokens: tl.constexpr,
    block_columns: tl.constexpr,
) -> None:
    """Lay out B and C [rows, 2 N, padded], with B's units as the first tokens."""
    row = tl.program_id(1).to(tl.int64)
    t, n = tl.program_id(0) * block_tokens + tl.arange(0, block_tokens), tl.arange(0, block_columns)
    is_column = (n < 2 * n_states)[None, :]
    token, is_token = _bounds(begins, lengths, row, t, ahead)
    value = tl.load(
        proj + token[:, None] * proj_stride + column + n[None, :],
        mask=is_token[:, None] & is_column,
        other=0.0,
    ).to(tl.float32)
    # Past the last state comes C, which no token before the row's first one reaches.
    is_unit = (t < ahead)[:, None] & ((t // terms)[:, None] == n[None, :])
    value = tl.where(is_unit, UNIT, value)
    at = (row * 2 * n_states + n)[None, :] * padded + t[:, None]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=(t < padded)[:, None] & is_column)


@triton.jit  # type: ignore[untyped-decorator]
def put_back(
    padded_y: tl.tensor,
    begins: tl.tensor,
    lengths: tl.tensor,
    y: tl.tensor,
    channels: tl.tensor,
    padded: tl.tensor,
    ahead: tl.tensor,
    block_tokens: tl.constexpr,
    block_channels: tl.constexpr,
) -> None:
    """Write the rows' own tokens of [rows, channels, padded] to where they belong among all tokens."""
    row = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * block_tokens + tl.arange(0, block_tokens)
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    token, is_token = _bounds(begins, lengths, row, t, ahead)
    is_channel = (c < channels)[None, :]
    # All that is there: what is masked token by token is read number by number.
    at = (row * channels + c)[None, :] * padded + t[:, None]
    value = tl.load(padded_y + at, mask=(t < padded)[:, None] & is_channel, other=0.0)
    place = token[:, None] * channels + c[None, :]
    tl.store(y + place, value.to(y.dtype.element_ty), mask=is_token[:, None] & is_channel)


@triton.jit  # type: ignore[untyped-decorator]
def move_states(
    batch: tl.tensor,
    row_stride: tl.tensor,
    head_stride: tl.tensor,
    channel_stride: tl.tensor,
    state_stride: tl.tensor,
    places: tl.tensor,
    row_of: tl.tensor,
    width: tl.tensor,
    n_states: tl.tensor,
    is_kept: tl.constexpr,
    block_states: tl.constexpr,
    block_width: tl.constexpr,
) -> None:
    """Move states between a batch [rows, heads, P, N] and the rows' own memory, [heads, N, P] each.

    With `is_kept` to the rows that have a place, else from them, and zeros from those that have none.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    n = tl.arange(0, block_states)[:, None]
    p = tl.program_id(2) * block_width + tl.arange(0, block_width)[None, :]
    inside = (n < n_states) & (p < width)
    own = (head * n_states + n) * width + p
    shared = batch + row * row_stride + head * head_stride + p * channel_stride + n * state_stride
    place = tl.load(places + tl.load(row_of + row))
    if is_kept:
        if place != 0:
            tl.store(floats(place) + own, tl.load(shared, mask=inside, other=0.0), mask=inside)
    else:
        value = tl.zeros([block_states, block_width], tl.float32)
        if place != 0:
            value += tl.load(floats(place) + own, mask=inside, other=0.0)
        tl.store(shared, value, mask=inside)
