"""The compiled loops of a Mamba-1 layer over sequences that lie end to end; `packed` is their only caller.

Arrays are C-contiguous and columns are named by their first index, because a slice with a stride would
be read one lane at a time. A unit of work is a token, or one row's part of the channels; units `first` to
`last` are done. Everything is float32. Nothing of size [T, d, N] exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.extending import register_jitable

from mambabench.kernels._address import copy, floats_at
from mambabench.kernels._vector import FASTMATH, exp2, silu, softplus

LANES = 256
"""Channels that are scanned at once: what four states of them take fits into the fastest memory."""
MOST_CHANNELS = 2_048
"""Widest part of the channels: its states, 16 a channel, and A for them take 256 KiB."""
_PASS_STATES, _PASS_TOKENS = 4, 2
_STATES = _PASS_STATES * LANES
# Of each token its step sizes, inputs and outputs, `LANES` of each.
_STEP, _DRIVE, _TOTAL, _TOKEN = 0, LANES, 2 * LANES, 3 * LANES
_ZERO = np.float32(0.0)
_CONV_CHANNELS = 256
"""Channels that are convolved at once: their sums stay in the fastest memory."""

_Array = npt.NDArray[Any]


def _conv_silu(
    x: _Array,
    column: int,
    weight: _Array,
    bias: _Array,
    starts: _Array,
    before: _Array,
    y: _Array,
    first: int,
    last: int,
) -> None:
    taps, channels = weight.shape
    row = np.searchsorted(starts, first, side="right") - 1
    total = np.empty(_CONV_CHANNELS, np.float32)
    for t in range(first, last):
        while t >= starts[row + 1]:
            row += 1
        begin = starts[row]
        for low in range(0, channels, _CONV_CHANNELS):
            high = min(low + _CONV_CHANNELS, channels)
            width = high - low
            offset = bias[low:high]
            for c in range(width):
                total[c] = offset[c]
            for k in range(taps):
                at = t - (taps - 1) + k
                # The inputs before the row's first token come from its window.
                if at >= begin:
                    x_k = x[at, column + low : column + high]
                elif before[row] != 0:
                    window = floats_at(before[row], (taps - 1) * channels)
                    place = (at - begin + taps - 1) * channels
                    x_k = window[place + low : place + high]
                else:
                    continue
                w_k = weight[k, low:high]
                for c in range(width):
                    total[c] += w_k[c] * x_k[c]
            y_t = y[t, low:high]
            for c in range(width):
                y_t[c] = silu(total[c])


def _windows(
    x: _Array, column: int, channels: int, past: int, starts: _Array, before: _Array, after: _Array
) -> None:
    for row in range(after.shape[0]):
        if after[row] == 0:
            continue
        window = floats_at(after[row], past * channels)
        # Upwards, since the new window may lie where the old one does.
        for k in range(past):
            at = starts[row + 1] - past + k
            window_k = window[k * channels : (k + 1) * channels]
            if at >= starts[row]:
                copy(x[at, column : column + channels], window_k)
            elif before[row] != 0:
                place = (at - starts[row] + past) * channels
                copy(floats_at(before[row], past * channels)[place : place + channels], window_k)
            else:
                window_k[:] = np.float32(0.0)


@register_jitable  # type: ignore[untyped-decorator]
def _spread(source: _Array, n_states: int, left: int, right: int, work: _Array) -> None:
    """Copy [N, d] numbers of the channels from `left` to `right` so that each pass finds its own together."""
    channels = source.shape[0] // n_states
    size = (n_states + _PASS_STATES - 1) // _PASS_STATES * _STATES
    for low in range(left, right, LANES):
        width = min(LANES, right - low)
        for n in range(n_states):
            at = (low - left) // LANES * size + n * LANES
            copy(source[n * channels + low : n * channels + low + width], work[at : at + width])


@register_jitable  # type: ignore[untyped-decorator]
def _collect(work: _Array, n_states: int, left: int, right: int, target: _Array) -> None:
    """Copy back what `_spread` copied."""
    channels = target.shape[0] // n_states
    size = (n_states + _PASS_STATES - 1) // _PASS_STATES * _STATES
    for low in range(left, right, LANES):
        width = min(LANES, right - low)
        for n in range(n_states):
            at = (low - left) // LANES * size + n * LANES
            copy(work[at : at + width], target[n * channels + low : n * channels + low + width])


@register_jitable(fastmath=FASTMATH, error_model="numpy")  # type: ignore[untyped-decorator]
def _pass(h: _Array, a: _Array, tokens: _Array, b: _Array, c: _Array, n: int) -> None:
    """Take four states of `LANES` channels over two tokens, without storing them in between."""
    b00, b10, b20, b30 = b[0, n], b[0, n + 1], b[0, n + 2], b[0, n + 3]
    b01, b11, b21, b31 = b[1, n], b[1, n + 1], b[1, n + 2], b[1, n + 3]
    c00, c10, c20, c30 = c[0, n], c[0, n + 1], c[0, n + 2], c[0, n + 3]
    c01, c11, c21, c31 = c[1, n], c[1, n + 1], c[1, n + 2], c[1, n + 3]
    for i in range(LANES):
        step_0, drive_0, total_0 = tokens[i + _STEP], tokens[i + _DRIVE], tokens[i + _TOTAL]
        step_1, drive_1, total_1 = (
            tokens[i + _TOKEN + _STEP],
            tokens[i + _TOKEN + _DRIVE],
            tokens[i + _TOKEN + _TOTAL],
        )
        a_n = a[i]
        h_n = exp2(step_0 * a_n) * h[i] + drive_0 * b00
        total_0 += h_n * c00
        h_n = exp2(step_1 * a_n) * h_n + drive_1 * b01
        total_1 += h_n * c01
        h[i] = h_n
        a_n = a[i + LANES]
        h_n = exp2(step_0 * a_n) * h[i + LANES] + drive_0 * b10
        total_0 += h_n * c10
        h_n = exp2(step_1 * a_n) * h_n + drive_1 * b11
        total_1 += h_n * c11
        h[i + LANES] = h_n
        a_n = a[i + 2 * LANES]
        h_n = exp2(step_0 * a_n) * h[i + 2 * LANES] + drive_0 * b20
        total_0 += h_n * c20
        h_n = exp2(step_1 * a_n) * h_n + drive_1 * b21
        total_1 += h_n * c21
        h[i + 2 * LANES] = h_n
        a_n = a[i + 3 * LANES]
        h_n = exp2(step_0 * a_n) * h[i + 3 * LANES] + drive_0 * b30
        total_0 += h_n * c30
        h_n = exp2(step_1 * a_n) * h_n + drive_1 * b31
        total_1 += h_n * c31
        h[i + 3 * LANES] = h_n
        tokens[i + _TOTAL] = total_0
        tokens[i + _TOKEN + _TOTAL] = total_1


def _scan(
    u: _Array,
    dt: _Array,
    dt_bias: _Array,
    A: _Array,
    proj: _Array,
    column: int,
    D: _Array,
    xz: _Array,
    z_column: int,
    starts: _Array,
    before: _Array,
    after: _Array,
    part: int,
    y: _Array,
    first: int,
    last: int,
) -> None:
    n_states, channels = A.shape
    rows = starts.shape[0] - 1
    n_passes = (n_states + _PASS_STATES - 1) // _PASS_STATES
    blocks = (part + LANES - 1) // LANES
    # Lanes beyond the last channel hold numbers that nobody reads, and states beyond the last stay zero.
    a_work = np.zeros(blocks * n_passes * _STATES, np.float32)
    h_work = np.zeros(blocks * n_passes * _STATES, np.float32)
    tokens = np.zeros(_PASS_TOKENS * _TOKEN, np.float32)
    b = np.zeros((_PASS_TOKENS, n_passes * _PASS_STATES), np.float32)
    c = np.zeros((_PASS_TOKENS, n_passes * _PASS_STATES), np.float32)
    spread = -1
    for unit in range(first, last):
        # Neighbouring units are the rows of one part.
        row, left = unit % rows, unit // rows * part
        right = min(left + part, channels)
        if spread != left:
            spread = left
            a_work[:] = _ZERO
            _spread(A.reshape(n_states * channels), n_states, left, right, a_work)
        h_work[:] = _ZERO
        if before[row] != 0:
            _spread(floats_at(before[row], n_states * channels), n_states, left, right, h_work)
        for t in range(starts[row], starts[row + 1], _PASS_TOKENS):
            now = min(_PASS_TOKENS, starts[row + 1] - t)
            for k in range(now):
                for n in range(n_states):
                    b[k, n] = proj[t + k, column + n]
                    c[k, n] = proj[t + k, column + n_states + n]
            if now < _PASS_TOKENS:
                # A step of size zero without input leaves the state as it is.
                tokens[_TOKEN:] = _ZERO
                b[1] = _ZERO
                c[1] = _ZERO
            for low in range(left, right, LANES):
                high = min(low + LANES, right)
                width = high - low
                skip, offset = D[low:high], dt_bias[low:high]
                for k in range(now):
                    u_t, dt_t = u[t + k, low:high], dt[t + k, low:high]
                    token = tokens[k * _TOKEN : (k + 1) * _TOKEN]
                    step, drive, total = token[:LANES], token[LANES : 2 * LANES], token[2 * LANES :]
                    for i in range(width):
                        s = softplus(dt_t[i] + offset[i])
                        step[i] = s
                        drive[i] = s * u_t[i]
                        total[i] = skip[i] * u_t[i]
                place = (low - left) // LANES * n_passes * _STATES
                for p in range(n_passes):
                    mine = place + p * _STATES
                    _pass(
                        h_work[mine : mine + _STATES],
                        a_work[mine : mine + _STATES],
                        tokens,
                        b,
                        c,
                        p * _PASS_STATES,
                    )
                for k in range(now):
                    z_t, y_t = xz[t + k, z_column + low : z_column + high], y[t + k, low:high]
                    total = tokens[k * _TOKEN + _TOTAL : (k + 1) * _TOKEN]
                    for i in range(width):
                        y_t[i] = total[i] * silu(z_t[i])
        if after[row] != 0:
            _collect(h_work, n_states, left, right, floats_at(after[row], n_states * channels))


def _add_norm(
    residual: _Array, x: _Array, weight: _Array, eps: float, add: bool, y: _Array, first: int, last: int
) -> None:
    size = weight.shape[0]
    for t in range(first, last):
        r_t, x_t, y_t = residual[t], x[t], y[t]
        if add:
            for c in range(size):
                r_t[c] += x_t[c]
        # Eight partial sums let the loop use vectors without reordering, and lose less to rounding.
        partial = np.zeros(16, np.float32)
        whole = size - size % 16
        for c in range(0, whole, 16):
            for k in range(16):
                partial[k] += r_t[c + k] * r_t[c + k]
        total = 0.0
        for k in range(16):
            total += partial[k]
        for c in range(whole, size):
            total += r_t[c] * r_t[c]
        scale = np.float32(1.0 / np.sqrt(total / size + eps))
        for c in range(size):
            y_t[c] = r_t[c] * scale * weight[c]


_compile = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")

conv_silu: Callable[..., None] = _compile(_conv_silu)
"""conv_silu(x [T, W], column, weight [k, d], bias [d], starts [B + 1], before [B], y [T, d], first, last):
silu of the causal convolution of d columns of x, from `column` on. `before` has the address of each row's
window, 0 for one of zeros. Its units are tokens, because reading a few columns of every token would wait for
memory at each."""

windows: Callable[..., None] = _compile(_windows)
"""windows(x [T, W], column, d, k - 1, starts [B + 1], before [B], after [B]): writes each row's next window
to its address in `after`, unless that is 0. This may be the one in `before`, so `conv_silu` must be done."""

scan: Callable[..., None] = _compile(_scan)
"""scan(u [T, d], dt [T, d], dt_bias [d], A [N, d], proj [T, P], column, D [d], xz [T, W], z_column,
starts [B + 1], before [B], after [B], part, y [T, d], first, last): fills y. `before` has the address of each
row's state, 0 for one of zeros; the new one goes to its address in `after`, which may be the same, unless
that is 0. A is multiplied by log2(e); B and C are N columns each of proj, from `column` on; the gate is d
columns of xz. Its units are parts of `part` channels, times rows: each token is read in as long pieces as the
threads allow, since short ones wait for memory, and a part's states stay in a core's own."""

add_norm: Callable[..., None] = _compile(_add_norm)
"""add_norm(residual [T, d], x [T, d], weight [d], eps, add, y [T, d], first, last): residual += x if `add`;
y is its root-mean-square normalisation. Its units are tokens."""
