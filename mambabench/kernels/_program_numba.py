"""A few rows of one token each through all layers of a model, in one compiled call a thread.

A token alone leaves each operation a few microseconds of work, less than it takes to call it from Python. So
the operations are written down once, as rows of numbers, and `run` follows them; `program` writes them and is
the only caller. Every thread goes through the whole list and does its share of each operation. Where one
needs what other threads have made, the list has a meeting; what is small each thread makes for itself.

A matrix in the list is three numbers: the address of its first row, the floats from one row to the next, and
the bytes from one thread's copy to the next thread's, 0 where all share one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.extending import register_jitable

from mambabench.kernels import _products
from mambabench.kernels._address import copy, floats_at, integer_at
from mambabench.kernels._barrier import LONGEST, meet
from mambabench.kernels._products import STATE_LANES, ask_for, step_states
from mambabench.kernels._vector import FASTMATH, exp2, silu, softplus

MEET, PRODUCT, NORM, CONV, SCAN, SSD, GATE = range(7)
FIELDS = 24
"""Numbers of an operation."""

_CHUNK = 12
"""Rows of weights that all rows of activations meet before the next ones: they stay in a core's cache."""
_LANES = 256
"""Channels that are worked on at once: what they need stays in the fastest memory."""
_ALIGN = 16
"""Shares are whole lines of the caches, so that no two threads write to one."""
_ROWS, _MANY = _products.ROWS, _products.ROWS_WEIGHTS
_FEW, _FEW_WEIGHTS, _ONE_WEIGHTS = _products.FEW, _products.FEW_WEIGHTS, _products.ONE_WEIGHTS
_SUMS = _ROWS * max(_MANY, _FEW_WEIGHTS, _ONE_WEIGHTS)
_ZERO = np.float32(0.0)

_Array = npt.NDArray[Any]

_part = register_jitable(fastmath=FASTMATH, error_model="numpy")


@_part  # type: ignore[untyped-decorator]
def _share(size: int, thread: int, threads: int) -> Any:
    """Return where a thread's share begins and ends."""
    blocks = (size + _ALIGN - 1) // _ALIGN
    first, last = blocks * thread // threads, blocks * (thread + 1) // threads
    return first * _ALIGN, min(last * _ALIGN, size)


@_part  # type: ignore[untyped-decorator]
def _at(op: _Array, field: int, row: int, thread: int) -> int:
    """Return the address of a matrix's row."""
    return op[field] + row * op[field + 1] * 4 + thread * op[field + 2]  # type: ignore[no-any-return]


@_part  # type: ignore[untyped-decorator]
def _float_at(address: int) -> Any:
    return floats_at(address, 1)[0]


def _product_of(kind: int, number_at: Any) -> Any:
    """Return the product with weights of one kind."""
    one = _products.products(kind, 1, _ONE_WEIGHTS)
    few = _products.products(kind, _FEW, _FEW_WEIGHTS)
    many = few if (_ROWS, _MANY) == (_FEW, _FEW_WEIGHTS) else _products.products(kind, _ROWS, _MANY)
    item = _products.ITEM_BYTES[kind]
    lanes = _products.LANES

    @_part  # type: ignore[untyped-decorator]
    def product(op: _Array, rows: int, thread: int, first: int, last: int, sums: _Array) -> None:
        weight, size, bias = op[7], op[9], op[11]
        vectors = size // lanes
        x_step, weight_step, sums_at = op[2] * 4, size * item, sums.ctypes.data
        for low in range(first, last, _CHUNK):
            high = min(low + _CHUNK, last)
            for row in range(0, rows, _ROWS):
                now = min(_ROWS, rows - row)
                x = _at(op, 1, row, thread)
                at_once, beside = _MANY, _ROWS
                if now == 1:
                    at_once, beside = _ONE_WEIGHTS, 1
                elif now <= _FEW:
                    at_once, beside = _FEW_WEIGHTS, _FEW
                for i in range(low, high, at_once):
                    n = min(at_once, high - i)
                    here = weight + i * weight_step
                    if now == 1:
                        one(x, x_step, now, here, weight_step, n, vectors, sums_at)
                    elif now <= _FEW:
                        few(x, x_step, now, here, weight_step, n, vectors, sums_at)
                    else:
                        many(x, x_step, now, here, weight_step, n, vectors, sums_at)
                    for r in range(now):
                        y = floats_at(_at(op, 4, row + r, thread), op[10])
                        for j in range(n):
                            total = sums[j * beside + r]
                            for c in range(vectors * lanes, size):
                                value = number_at(here + j * weight_step + c * item)
                                total += value * _float_at(x + r * x_step + c * 4)
                            y[i + j] = total if bias == 0 else total + _float_at(bias + (i + j) * 4)

    return product


_product_float32 = _product_of(_products.FLOAT32, _float_at)
_product_bfloat16 = _product_of(_products.BFLOAT16, _products.bfloat_at)
# Without the instruction LLVM would call a function that may not be there, so nothing asks for this product.
_product_float16 = (
    _product_of(_products.FLOAT16, _products.half_at) if _products.HAS_FLOAT16 else _product_bfloat16
)


@_part  # type: ignore[untyped-decorator]
def _mean_square(x: _Array, partial: _Array) -> float:
    # Sixteen partial sums let the loop use vectors without reordering, and lose less to rounding.
    size = x.shape[0]
    whole = size - size % 16
    partial[:] = _ZERO
    for c in range(0, whole, 16):
        for k in range(16):
            partial[k] += x[c + k] * x[c + k]
    total = 0.0
    for k in range(16):
        total += partial[k]
    for c in range(whole, size):
        total += x[c] * x[c]
    return total / size  # type: ignore[no-any-return]


@_part  # type: ignore[untyped-decorator]
def _norm(op: _Array, eps: float, rows: int, thread: int, partial: _Array) -> None:
    size, weight = op[13], op[14]
    if op[15] != 0 and thread != 0:
        return
    for row in range(rows):
        x, y = floats_at(_at(op, 1, row, thread), size), floats_at(_at(op, 10, row, thread), size)
        if op[4] != 0:
            added, total = floats_at(_at(op, 4, row, thread), size), floats_at(_at(op, 7, row, thread), size)
            if op[1] != op[7]:
                copy(x, total)
            for c in range(size):
                total[c] += added[c]
            x = total
        scale = np.float32(1.0 / np.sqrt(_mean_square(x, partial) + eps))
        if weight == 0:
            for c in range(size):
                y[c] = x[c] * scale
        else:
            w = floats_at(weight, size)
            for c in range(size):
                y[c] = x[c] * scale * w[c]


@_part  # type: ignore[untyped-decorator]
def _state_at(before: int, after: int, first: int, size: int, unread: _Array) -> Any:
    """Return a part of a row's state, where the next one goes, with what is in it before the step.

    Loops then read and write one array; with two that may be the same they would go one lane at a time.
    """
    state = unread[:size]
    if after != 0:
        state = floats_at(after + first * 4, size)
    if before == 0:
        state[:] = _ZERO
    elif before != after:
        copy(floats_at(before + first * 4, size), state)
    return state


@_part  # type: ignore[untyped-decorator]
def _conv(op: _Array, rows: int, thread: int, first: int, last: int, work: _Array) -> None:
    channels, past = op[7], op[8] - 1
    weight, bias = floats_at(op[9], (past + 1) * channels), floats_at(op[10], channels)
    for row in range(rows):
        x, y = floats_at(_at(op, 1, row, thread), channels), floats_at(_at(op, 4, row, thread), channels)
        before, after = integer_at(op[11] + row * 8), integer_at(op[12] + row * 8)
        for low in range(first, last, _LANES):
            high = min(low + _LANES, last)
            width = high - low
            total, x_now = work[:width], x[low:high]
            copy(bias[low:high], total)
            if before != 0:
                window = floats_at(before, past * channels)
                for k in range(past):
                    w_k = weight[k * channels + low : k * channels + high]
                    x_k = window[k * channels + low : k * channels + high]
                    for c in range(width):
                        total[c] += w_k[c] * x_k[c]
            w_k = weight[past * channels + low : past * channels + high]
            y_now = y[low:high]
            for c in range(width):
                y_now[c] = silu(total[c] + w_k[c] * x_now[c])
            for k in range(past if after != 0 else 0):
                # Upwards, since the new window may lie where the old one does.
                new = floats_at(after + (k * channels + low) * 4, width)
                if k == past - 1:
                    copy(x_now, new)
                elif before != 0:
                    copy(floats_at(before + ((k + 1) * channels + low) * 4, width), new)
                else:
                    new[:] = _ZERO


@_part  # type: ignore[untyped-decorator]
def _scan(op: _Array, rows: int, thread: int, first: int, last: int, work: _Array) -> None:
    channels, n_states = op[16], op[17]
    dt_bias, skip = floats_at(op[18], channels), floats_at(op[20], channels)
    a = floats_at(op[19], n_states * channels)
    step, drive, total, unread = (
        work[:_LANES],
        work[_LANES : 2 * _LANES],
        work[2 * _LANES : 3 * _LANES],
        work[3 * _LANES :],
    )
    for row in range(rows):
        u, dt = floats_at(_at(op, 1, row, thread), channels), floats_at(_at(op, 4, row, thread), channels)
        b = floats_at(_at(op, 7, row, thread), 2 * n_states)
        z, y = floats_at(_at(op, 10, row, thread), channels), floats_at(_at(op, 13, row, thread), channels)
        before, after = integer_at(op[21] + row * 8), integer_at(op[22] + row * 8)
        for low in range(first, last, _LANES):
            high = min(low + _LANES, last)
            width = high - low
            soon = before + high * 4 if high < last else 0
            if high == last and row + 1 < rows:
                soon = integer_at(op[21] + row * 8 + 8) + first * 4
            u_now, dt_now, z_now, y_now = u[low:high], dt[low:high], z[low:high], y[low:high]
            bias_now, skip_now = dt_bias[low:high], skip[low:high]
            for c in range(width):
                s = softplus(dt_now[c] + bias_now[c])
                step[c] = s
                drive[c] = s * u_now[c]
                total[c] = skip_now[c] * u_now[c]
            for n in range(n_states):
                place = n * channels
                state = _state_at(before, after, place + low, width, unread)
                a_n, b_n, c_n = a[place + low : place + high], b[n], b[n_states + n]
                if soon != 0:
                    for line in range(0, width * 4, 64):
                        ask_for(soon + place * 4 + line)
                for c in range(width):
                    h = exp2(step[c] * a_n[c]) * state[c] + drive[c] * b_n
                    total[c] += h * c_n
                    state[c] = h
            for c in range(width):
                y_now[c] = total[c] * silu(z_now[c])


@_part  # type: ignore[untyped-decorator]
def _ssd(op: _Array, numbers: _Array, rows: int, thread: int, first: int, last: int, work: _Array) -> None:
    heads, n_states, width, groups = op[10], op[11], op[12], op[13]
    channels = heads * width
    low, high = np.float32(numbers[0]), np.float32(numbers[1])
    dt_bias, a, skip = floats_at(op[14], heads), floats_at(op[15], heads), floats_at(op[16], channels)
    unread, is_whole = work[2 * _LANES :], width % STATE_LANES == 0
    for row in range(rows):
        xbc = floats_at(_at(op, 1, row, thread), channels + 2 * groups * n_states)
        dt, y = floats_at(_at(op, 4, row, thread), heads), floats_at(_at(op, 7, row, thread), channels)
        before, after = integer_at(op[17] + row * 8), integer_at(op[18] + row * 8)
        for head in range(first, last):
            s = softplus(dt[head] + dt_bias[head])
            s = low if s < low else s
            s = high if s > high else s
            decay = exp2(s * a[head])
            b = channels + head // (heads // groups) * n_states
            c = b + groups * n_states
            for left in range(0, width, _LANES):
                now = min(_LANES, width - left)
                begin = head * width + left
                x, total = xbc[begin : begin + now], work[:now]
                drive, skip_now, y_now = work[_LANES : _LANES + now], skip[begin:], y[begin:]
                for i in range(now):
                    drive[i] = x[i] * s
                    total[i] = skip_now[i] * x[i]
                if is_whole and after != 0:
                    place = head * n_states * width
                    if left == 0:
                        _state_at(before, after, place, n_states * width, unread)
                    for i in range(0, now, STATE_LANES):
                        step_states(
                            after + (place + left + i) * 4,
                            width * 4,
                            n_states,
                            decay,
                            drive.ctypes.data + i * 4,
                            _at(op, 1, row, thread) + b * 4,
                            _at(op, 1, row, thread) + c * 4,
                            total.ctypes.data + i * 4,
                        )
                else:
                    for n in range(n_states):
                        place = (head * n_states + n) * width + left
                        state = _state_at(before, after, place, now, unread)
                        b_n, c_n = xbc[b + n], xbc[c + n]
                        for i in range(now):
                            h = decay * state[i] + drive[i] * b_n
                            total[i] += h * c_n
                            state[i] = h
                for i in range(now):
                    y_now[i] = total[i]


@_part  # type: ignore[untyped-decorator]
def _gate(op: _Array, eps: float, rows: int, thread: int, partial: _Array) -> None:
    groups, weight = op[11], op[12]
    norm, gate_first = weight != 0, op[13] != 0
    size = op[10] // groups
    for row in range(rows):
        for group in range(groups):
            begin = group * size * 4
            y = floats_at(_at(op, 1, row, thread) + begin, size)
            z = floats_at(_at(op, 4, row, thread) + begin, size)
            out = floats_at(_at(op, 7, row, thread) + begin, size)
            for c in range(size):
                out[c] = y[c] * silu(z[c]) if gate_first else y[c]
            if norm:
                w = floats_at(weight + begin, size)
                scale = np.float32(1.0 / np.sqrt(_mean_square(out, partial) + eps))
                for c in range(size):
                    out[c] = out[c] * scale * w[c]
            if not gate_first:
                for c in range(size):
                    out[c] *= silu(z[c])


def _run(ops: _Array, numbers: _Array, rows: int, arrived: int, thread: int, threads: int) -> None:
    work = np.empty(4 * _LANES, np.float32)
    meetings, looks = 0, LONGEST
    for i in range(ops.shape[0]):
        op, code = ops[i], ops[i, 0]
        if code == MEET:
            meetings += threads
            looks = meet(arrived, meetings, looks)
        elif code == PRODUCT:
            first, last = _share(op[10], thread, threads)
            kind = op[8]
            if kind == _products.FLOAT32:
                _product_float32(op, rows, thread, first, last, work)
            elif kind == _products.BFLOAT16:
                _product_bfloat16(op, rows, thread, first, last, work)
            else:
                _product_float16(op, rows, thread, first, last, work)
        elif code == NORM:
            _norm(op, numbers[i, 0], rows, thread, work[:16])
        elif code == CONV:
            first, last = _share(op[7], thread, threads)
            _conv(op, rows, thread, first, last, work)
        elif code == SCAN:
            first, last = _share(op[16], thread, threads)
            _scan(op, rows, thread, first, last, work)
        elif code == SSD:
            first, last = op[10] * thread // threads, op[10] * (thread + 1) // threads
            _ssd(op, numbers[i], rows, thread, first, last, work)
        else:
            _gate(op, numbers[i, 0], rows, thread, work[:16])


run: Callable[..., None] = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")(_run)
"""run(ops [n, FIELDS] int64, numbers [n, 2] float64, rows, arrived, thread, threads): follows the operations,
as `thread` of `threads`; `arrived` is the address of what `_barrier.meeting` made for this call."""
