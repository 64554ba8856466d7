"""The compiled loops of a Mamba-1 layer over sequences that lie end to end; `packed` is their only caller.

Arrays are C-contiguous and columns are named by their first index, because a slice with a stride would
be read one lane at a time. A unit of work is a token, or one row's block of channels; units `first` to
`last` are done. Everything is float32. Nothing of size [T, d, N] exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from mambabench.kernels._address import floats_at
from mambabench.kernels._vector import FASTMATH, exp2, silu, softplus

BLOCK_CHANNELS = 128
"""Channels of one unit: with 16 states each they take 8 KiB, beside as much for A."""
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
                window_k[:] = x[at, column : column + channels]
            elif before[row] != 0:
                place = (at - starts[row] + past) * channels
                window_k[:] = floats_at(before[row], past * channels)[place : place + channels]
            else:
                window_k[:] = np.float32(0.0)


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
    y: _Array,
    first: int,
    last: int,
) -> None:
    n_states, channels = A.shape
    n_blocks = (channels + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    for unit in range(first, last):
        row = unit // n_blocks
        low = (unit % n_blocks) * BLOCK_CHANNELS
        high = min(low + BLOCK_CHANNELS, channels)
        width = high - low
        a_block = A[:, low:high].copy()
        h_block = np.zeros((n_states, width), np.float32)
        if before[row] != 0:
            state = floats_at(before[row], n_states * channels)
            for n in range(n_states):
                h_block[n] = state[n * channels + low : n * channels + high]
        skip, offset = D[low:high], dt_bias[low:high]
        step = np.empty(width, np.float32)
        drive = np.empty(width, np.float32)
        total = np.empty(width, np.float32)
        for t in range(starts[row], starts[row + 1]):
            u_t, dt_t = u[t, low:high], dt[t, low:high]
            z_t, y_t = xz[t, z_column + low : z_column + high], y[t, low:high]
            for c in range(width):
                s = softplus(dt_t[c] + offset[c])
                step[c] = s
                drive[c] = s * u_t[c]
                total[c] = skip[c] * u_t[c]
            for n in range(n_states):
                b = proj[t, column + n]
                c_out = proj[t, column + n_states + n]
                h, a = h_block[n], a_block[n]
                for c in range(width):
                    new = exp2(step[c] * a[c]) * h[c] + drive[c] * b
                    h[c] = new
                    total[c] += new * c_out
            for c in range(width):
                y_t[c] = total[c] * silu(z_t[c])
        if after[row] != 0:
            state = floats_at(after[row], n_states * channels)
            for n in range(n_states):
                state[n * channels + low : n * channels + high] = h_block[n]


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
starts [B + 1], before [B], after [B], y [T, d], first, last): fills y. `before` has the address of each
row's state, 0 for one of zeros; the new one goes to its address in `after`, which may be the same, unless
that is 0. A is multiplied by log2(e); B and C are N columns each of proj, from `column` on; the gate is d
columns of xz."""

add_norm: Callable[..., None] = _compile(_add_norm)
"""add_norm(residual [T, d], x [T, d], weight [d], eps, add, y [T, d], first, last): residual += x if `add`;
y is its root-mean-square normalisation. Its units are tokens."""
