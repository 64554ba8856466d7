"""The compiled loops of the CPU scan; `mambabench.kernels.cpu` is their only caller.

Channels stand last in memory, so that the innermost loop runs over neighbouring channels and becomes
vector code, and a block of channels with all its states stays in the first-level cache. Nothing of
size [B, L, d, N] exists: the backward keeps one state every `chunk` steps and recomputes the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.extending import overload

BLOCK_CHANNELS = 64
"""Channels of one unit of parallel work: 64 x 16 states in float32 are 4 KiB."""

CHUNK_STEPS = 32
"""Steps between two states kept for the backward."""

_Array = npt.NDArray[Any]

# Vectors are summed across lanes only in the backward, so only it may reorder sums.
_KEEP_ORDER = {"contract", "nsz"}
_REORDER = {"contract", "nsz", "reassoc"}


def _exp(x: float) -> float:
    return math.exp(x)


def _overload_exp(x: Any) -> Callable[[Any], Any]:
    def exp_float64(x: Any) -> Any:
        return math.exp(x)

    if x != types.float32:
        return exp_float64

    # LLVM leaves a call of expf alone, one lane at a time, and it would take most of the scan's time.
    # Cody & Waite's argument reduction and the Cephes polynomial for expf: within 1e-7 relative.
    f = np.float32
    log2e, ln2_high, ln2_low, half, one = (
        f(1.4426950408889634),
        f(0.693359375),
        f(-2.12194440e-4),
        f(0.5),
        f(1),
    )
    c6, c5, c4 = f(1.9875691500e-4), f(1.3981999507e-3), f(8.3334519073e-3)
    c3, c2 = f(4.1665795894e-2), f(1.6666665459e-1)
    smallest, largest, zero = f(-87.3), f(89.0), f(0)
    bias, mantissa_bits = np.int32(127), np.int32(23)

    def exp_float32(x: Any) -> Any:
        # Comparisons are false for NaN, which therefore reaches the result.
        clipped = smallest if x < smallest else x
        clipped = largest if clipped > largest else clipped
        k = f(math.floor(clipped * log2e + half))
        r = clipped - k * ln2_high - k * ln2_low
        p = ((((c6 * r + c5) * r + c4) * r + c3) * r + c2) * r + half
        scale = f(np.int32((np.int32(k) + bias) << mantissa_bits).view(f))
        value = (p * r * r + r + one) * scale
        return zero if x < smallest else value

    return exp_float32


overload(_exp, jit_options={"fastmath": _KEEP_ORDER, "error_model": "numpy"})(_overload_exp)


def _forward(
    u: _Array,
    delta: _Array,
    A: _Array,
    B: _Array,
    C: _Array,
    state: _Array,
    y: _Array,
    kept: _Array,
    chunk: int,
    first: int,
    last: int,
) -> None:
    length, channels = u.shape[1:]
    n_states = A.shape[0]
    n_blocks = (channels + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    keep = kept.shape[1] > 0
    for task in range(first, last):
        row = task // n_blocks
        low = (task % n_blocks) * BLOCK_CHANNELS
        high = min(low + BLOCK_CHANNELS, channels)
        width = high - low
        a_block = A[:, low:high].copy()
        h_block = state[row, :, low:high].copy()
        drive = np.empty(width, u.dtype)
        total = np.empty(width, u.dtype)
        step = np.empty(width, u.dtype)
        for t in range(length):
            if keep and t % chunk == 0:
                kept[row, t // chunk, :, low:high] = h_block
            u_t = u[row, t, low:high]
            delta_t = delta[row, t, low:high]
            for c in range(width):
                step[c] = delta_t[c]
                drive[c] = delta_t[c] * u_t[c]
                total[c] = 0
            for n in range(n_states):
                b = B[row, t, n]
                c_out = C[row, t, n]
                h = h_block[n]
                a = a_block[n]
                for c in range(width):
                    new = _exp(step[c] * a[c]) * h[c] + drive[c] * b
                    h[c] = new
                    total[c] += new * c_out
            y[row, t, low:high] = total
        state[row, :, low:high] = h_block


def _backward(
    u: _Array,
    delta: _Array,
    A: _Array,
    B: _Array,
    C: _Array,
    kept: _Array,
    dy: _Array,
    dstate: _Array,
    du: _Array,
    ddelta: _Array,
    dA: _Array,
    dB: _Array,
    dC: _Array,
    chunk: int,
    first: int,
    last: int,
) -> None:
    length, channels = u.shape[1:]
    n_states = A.shape[0]
    n_blocks = (channels + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    n_chunks = (length + chunk - 1) // chunk
    for task in range(first, last):
        row = task // n_blocks
        block = task % n_blocks
        low = block * BLOCK_CHANNELS
        high = min(low + BLOCK_CHANNELS, channels)
        width = high - low
        a_block = A[:, low:high].copy()
        da_block = np.zeros((n_states, width), u.dtype)
        carry = dstate[row, :, low:high].copy()
        states = np.empty((chunk + 1, n_states, width), u.dtype)
        decays = np.empty((chunk, n_states, width), u.dtype)
        drive = np.empty(width, u.dtype)
        step = np.empty(width, u.dtype)
        x = np.empty(width, u.dtype)
        dout = np.empty(width, u.dtype)
        ddrive = np.empty(width, u.dtype)
        dstep = np.empty(width, u.dtype)
        for k in range(n_chunks - 1, -1, -1):
            start = k * chunk
            steps = min(chunk, length - start)
            states[0] = kept[row, k, :, low:high]
            for i in range(steps):
                u_t = u[row, start + i, low:high]
                delta_t = delta[row, start + i, low:high]
                for c in range(width):
                    step[c] = delta_t[c]
                    drive[c] = delta_t[c] * u_t[c]
                for n in range(n_states):
                    b = B[row, start + i, n]
                    before, after = states[i, n], states[i + 1, n]
                    decay, a = decays[i, n], a_block[n]
                    for c in range(width):
                        e = _exp(step[c] * a[c])
                        decay[c] = e
                        after[c] = e * before[c] + drive[c] * b
            for i in range(steps - 1, -1, -1):
                t = start + i
                u_t = u[row, t, low:high]
                delta_t = delta[row, t, low:high]
                dy_t = dy[row, t, low:high]
                for c in range(width):
                    x[c] = u_t[c]
                    step[c] = delta_t[c]
                    drive[c] = delta_t[c] * u_t[c]
                    dout[c] = dy_t[c]
                    ddrive[c] = 0
                    dstep[c] = 0
                for n in range(n_states):
                    b = B[row, t, n]
                    c_out = C[row, t, n]
                    before, after = states[i, n], states[i + 1, n]
                    decay, a, da, g = decays[i, n], a_block[n], da_block[n], carry[n]
                    sum_b = u.dtype.type(0)
                    sum_c = u.dtype.type(0)
                    for c in range(width):
                        dh = g[c] + dout[c] * c_out
                        sum_c += dout[c] * after[c]
                        sum_b += dh * drive[c]
                        ddrive[c] += dh * b
                        back = dh * decay[c]
                        g[c] = back
                        dexponent = back * before[c]
                        da[c] += dexponent * step[c]
                        dstep[c] += dexponent * a[c]
                    dB[block, row, t, n] = sum_b
                    dC[block, row, t, n] = sum_c
                du_t = du[row, t, low:high]
                ddelta_t = ddelta[row, t, low:high]
                for c in range(width):
                    du_t[c] = ddrive[c] * step[c]
                    ddelta_t[c] = ddrive[c] * x[c] + dstep[c]
        dA[row, :, low:high] = da_block
        dstate[row, :, low:high] = carry


forward: Callable[..., None] = njit(nogil=True, cache=True, fastmath=_KEEP_ORDER, error_model="numpy")(
    _forward
)
"""forward(u, delta, A [N, d], B, C, state [B, N, d], y, kept [B, chunks or 0, N, d], chunk, first, last).

Fills y and kept, and advances the state. A unit of work is a row's block of channels, row by row;
units from `first` up to `last` are done.
"""

backward: Callable[..., None] = njit(nogil=True, cache=True, fastmath=_REORDER, error_model="numpy")(
    _backward
)
"""backward(u, delta, A, B, C, kept, dy, dstate, du, ddelta, dA [B, N, d], dB, dC, chunk, first, last).

dB and dC are [blocks, B, L, N], to be summed over blocks;
dstate comes in as the gradient of the last state and leaves as that of the first.
"""
