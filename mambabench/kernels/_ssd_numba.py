"""The compiled loops of a Mamba-2 layer over sequences that lie end to end; `packed` is their only caller.

A row is cut into chunks. Inside one the scan is a masked matrix product, and between chunks a state is
carried (Dao & Gu 2024, arXiv:2405.21060, section 6): a third of the work of the plain recurrence for long
rows, and far less for short ones that begin without a state or need none afterwards. `prepare` makes what
all heads of a group share, `scan` does the rest head by head.

All products go through tiles of 4 x 64 numbers. What they read is stored in blocks of [4, 64] or
[n, 64], flat, because then every distance within a tile is known when the loops are compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from mambabench.kernels._address import floats_at
from mambabench.kernels._tile import COLUMNS as LANES
from mambabench.kernels._tile import ROWS as TILE_ROWS
from mambabench.kernels._tile import multiply
from mambabench.kernels._vector import FASTMATH, exp2, silu, softplus
from mambabench.kernels.threads import split

CHUNK = 128
"""Longest chunk in tokens, a multiple of `LANES`."""
TILE = TILE_ROWS * LANES

_SQUARE = LANES * LANES
_CHUNK_BLOCKS = CHUNK // LANES
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
# Products of decays below this become zero; as denormal numbers they would take a hundred times as long.
_NOTHING = np.float32(2.0**-100)

_Array = npt.NDArray[Any]


def plan(starts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut rows into chunks.

    Args:
        starts: where each row begins, and T, [B + 1].

    Returns:
        For each chunk its first token, its length, its first tile and its first block of `LANES` tokens
        [n, 4], with the totals in one row more; and each row's first chunk, with the total, [B + 1].
    """
    lengths = np.diff(starts)
    per_row = -(-lengths // CHUNK)
    row_chunks = np.zeros(len(starts), np.int64)
    np.cumsum(per_row, out=row_chunks[1:])
    row = np.repeat(np.arange(len(lengths)), per_row)
    offset = (np.arange(row_chunks[-1]) - row_chunks[row]) * CHUNK
    chunks = np.zeros((row_chunks[-1] + 1, 4), np.int64)
    chunks[:-1, 0] = starts[row] + offset
    chunks[:-1, 1] = np.minimum(lengths[row] - offset, CHUNK)
    np.cumsum(-(-chunks[:-1, 1] // TILE_ROWS), out=chunks[1:, 2])
    np.cumsum(-(-chunks[:-1, 1] // LANES), out=chunks[1:, 3])
    return chunks, row_chunks


def _prepare(
    xbc: _Array,
    column: int,
    n_states: int,
    zxbcdt: _Array,
    dt_column: int,
    dt_bias: _Array,
    A: _Array,
    low: float,
    high: float,
    chunks: _Array,
    step: _Array,
    decay: _Array,
    c_tiles: _Array,
    b_blocks: _Array,
    scores: _Array,
    first: int,
    last: int,
) -> None:
    n_groups, heads = c_tiles.shape[0], A.shape[0]
    depth = (n_states + 3) // 4 * 4
    low_f, high_f = np.float32(low), np.float32(high)
    for unit in range(first, last):
        token, length, tile, block = chunks[unit]
        n_tiles, n_blocks = chunks[unit + 1, 2] - tile, chunks[unit + 1, 3] - block
        for t in range(token, token + length):
            dt_t, step_t, decay_t = zxbcdt[t, dt_column : dt_column + heads], step[t], decay[t]
            for h in range(heads):
                s = softplus(dt_t[h] + dt_bias[h])
                s = low_f if s < low_f else s
                s = high_f if s > high_f else s
                step_t[h] = s
                decay_t[h] = exp2(s * A[h])
        for g in range(n_groups):
            b_column = column + g * n_states
            c_column = column + (n_groups + g) * n_states
            for j in range(n_blocks):
                transposed = b_blocks[g, block + j]
                transposed[:] = _ZERO
                begin = token + j * LANES
                for s in range(min(LANES, length - j * LANES)):
                    b = xbc[begin + s, b_column : b_column + n_states]
                    for n in range(n_states):
                        transposed[n * LANES + s] = b[n]
            for i in range(n_tiles):
                rows = c_tiles[g, tile + i]
                rows[:] = _ZERO
                for k in range(min(TILE_ROWS, length - i * TILE_ROWS)):
                    c = xbc[token + i * TILE_ROWS + k, c_column : c_column + n_states]
                    for begin in range(0, n_states, LANES):
                        part = rows[begin * TILE_ROWS + k * LANES : begin * TILE_ROWS + (k + 1) * LANES]
                        for n in range(min(LANES, n_states - begin)):
                            part[n] = c[begin + n]
                for j in range(i * TILE_ROWS // LANES + 1):
                    product = scores[g, tile + i, j * TILE : (j + 1) * TILE]
                    product[:] = _ZERO
                    right = b_blocks[g, block + j]
                    for begin in range(0, depth, LANES):
                        multiply(
                            product,
                            rows[begin * TILE_ROWS : begin * TILE_ROWS + TILE],
                            right[begin * LANES :],
                            min(LANES, depth - begin),
                        )


def _scan(
    xbc: _Array,
    D: _Array,
    n_states: int,
    starts: _Array,
    chunks: _Array,
    row_chunks: _Array,
    step: _Array,
    decay: _Array,
    c_tiles: _Array,
    b_blocks: _Array,
    scores: _Array,
    before: _Array,
    after: _Array,
    y: _Array,
    first: int,
    last: int,
) -> None:
    heads, width = D.shape
    rows = starts.shape[0] - 1
    parts = (width + LANES - 1) // LANES
    depth = (n_states + 3) // 4 * 4
    per_group = heads // c_tiles.shape[0]
    h = np.empty(depth * LANES, np.float32)
    x = np.empty(CHUNK * LANES, np.float32)
    total = np.empty(TILE, np.float32)
    weights = np.empty(_CHUNK_BLOCKS * TILE, np.float32)
    # What is left at the current token of the input at each token of the chunk.
    left = np.empty(CHUNK, np.float32)
    carried = np.empty(TILE_ROWS, np.float32)
    for unit in range(first, last):
        # Rows differ in length, heads do not: neighbouring units are the rows of one head.
        row, part = unit % rows, unit // rows
        head, lane = part // parts, part % parts * LANES
        n_lanes = min(LANES, width - lane)
        group, channel = head // per_group, head * width + lane
        skip = D[head, lane : lane + n_lanes]
        h[:] = _ZERO
        x[:] = _ZERO
        place = head * n_states * width + lane
        remembers = before[row] != 0
        if remembers:
            state = floats_at(before[row], heads * n_states * width)
            for n in range(n_states):
                h_n = h[n * LANES : (n + 1) * LANES]
                state_n = state[place + n * width : place + n * width + n_lanes]
                for c in range(n_lanes):
                    h_n[c] = state_n[c]
        for chunk in range(row_chunks[row], row_chunks[row + 1]):
            token, length, tile, block = chunks[chunk]
            n_tiles, n_blocks = chunks[chunk + 1, 2] - tile, chunks[chunk + 1, 3] - block
            for s in range(length):
                u, x_s, size = (
                    xbc[token + s, channel : channel + n_lanes],
                    x[s * LANES :],
                    step[token + s, head],
                )
                for c in range(n_lanes):
                    x_s[c] = u[c] * size
            x[length * LANES : n_tiles * TILE] = _ZERO
            left[:] = _ZERO
            since = _ONE
            for i in range(n_tiles):
                n_rows = min(TILE_ROWS, length - i * TILE_ROWS)
                seen = i * TILE_ROWS // LANES + 1
                total[:] = _ZERO
                weights[:] = _ZERO
                for k in range(n_rows):
                    t = i * TILE_ROWS + k
                    a = decay[token + t, head]
                    since *= a
                    since = _ZERO if since < _NOTHING else since
                    carried[k] = since
                    for j in range(seen):
                        left_j = left[j * LANES : (j + 1) * LANES]
                        for c in range(64):
                            value = left_j[c] * a
                            left_j[c] = _ZERO if value < _NOTHING else value
                    left[t] = _ONE
                    for j in range(seen):
                        left_j = left[j * LANES : (j + 1) * LANES]
                        score = scores[group, tile + i, j * TILE + k * LANES : j * TILE + (k + 1) * LANES]
                        weight = weights[j * TILE + k * LANES : j * TILE + (k + 1) * LANES]
                        for c in range(64):
                            weight[c] = left_j[c] * score[c]
                if remembers:
                    c_rows = c_tiles[group, tile + i]
                    for begin in range(0, depth, LANES):
                        multiply(
                            total,
                            c_rows[begin * TILE_ROWS : begin * TILE_ROWS + TILE],
                            h[begin * LANES :],
                            min(LANES, depth - begin),
                        )
                    for k in range(n_rows):
                        total_k, scale = total[k * LANES : (k + 1) * LANES], carried[k]
                        for c in range(64):
                            total_k[c] *= scale
                for j in range(seen):
                    multiply(
                        total,
                        weights[j * TILE : (j + 1) * TILE],
                        x[j * _SQUARE :],
                        min(LANES, (i + 1) * TILE_ROWS - j * LANES),
                    )
                for k in range(n_rows):
                    t = token + i * TILE_ROWS + k
                    u, y_t = xbc[t, channel : channel + n_lanes], y[t, channel : channel + n_lanes]
                    total_k = total[k * LANES : (k + 1) * LANES]
                    for c in range(n_lanes):
                        y_t[c] = total_k[c] + skip[c] * u[c]
            if chunk + 1 == row_chunks[row + 1] and after[row] == 0:
                continue
            for s in range(length):
                x_s, scale = x[s * LANES : (s + 1) * LANES], left[s]
                for c in range(64):
                    x_s[c] *= scale
            for n in range(0, depth, TILE_ROWS):
                h_n = h[n * LANES : n * LANES + TILE]
                for c in range(256):
                    h_n[c] *= since
                for j in range(n_blocks):
                    multiply(
                        h_n,
                        b_blocks[group, block + j, n * LANES : n * LANES + TILE],
                        x[j * _SQUARE :],
                        min(LANES, n_tiles * TILE_ROWS - j * LANES),
                    )
            remembers = True
        if after[row] != 0:
            state = floats_at(after[row], heads * n_states * width)
            for n in range(n_states):
                h_n, state_n = h[n * LANES :], state[place + n * width : place + n * width + n_lanes]
                for c in range(n_lanes):
                    state_n[c] = h_n[c]


def _gate_norm(
    y: _Array,
    zxbcdt: _Array,
    column: int,
    weight: _Array,
    eps: float,
    n_groups: int,
    norm: bool,
    gate_first: bool,
    first: int,
    last: int,
) -> None:
    size = y.shape[1] // n_groups
    whole = size - size % 16
    # Sixteen partial sums let the loop use vectors without reordering.
    partial = np.empty(16, np.float32)
    for t in range(first, last):
        for g in range(n_groups):
            y_t, w = y[t, g * size : (g + 1) * size], weight[g * size : (g + 1) * size]
            z_t = zxbcdt[t, column + g * size : column + (g + 1) * size]
            if gate_first:
                for c in range(size):
                    y_t[c] *= silu(z_t[c])
            if norm:
                partial[:] = _ZERO
                for c in range(0, whole, 16):
                    for k in range(16):
                        partial[k] += y_t[c + k] * y_t[c + k]
                total = 0.0
                for k in range(16):
                    total += partial[k]
                for c in range(whole, size):
                    total += y_t[c] * y_t[c]
                scale = np.float32(1.0 / np.sqrt(total / size + eps))
                for c in range(size):
                    y_t[c] = y_t[c] * scale * w[c]
            if not gate_first:
                for c in range(size):
                    y_t[c] *= silu(z_t[c])


_compile = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")

prepare: Callable[..., None] = _compile(_prepare)
"""prepare(xbc [T, d], column of B, N, zxbcdt [T, W], dt_column, dt_bias [H], A [H], low, high, chunks, step
[T, H], decay [T, H], c_tiles, b_blocks, scores, first, last): fills the last five before its range. Its units
are chunks."""

scan: Callable[..., None] = _compile(_scan)
"""scan(xbc, D [H, P], N, starts, chunks, row_chunks, step, decay, c_tiles, b_blocks, scores, before [B],
after [B], y [T, H * P], first, last): `before` has the address of each row's state, 0 for one of zeros; the
new one goes to its address in `after`, which may be the same, unless that is 0. Its units are parts of at
most `LANES` channels of each head, times rows."""

gate_norm: Callable[..., None] = _compile(_gate_norm)
"""gate_norm(y [T, d], zxbcdt [T, W], column, weight [d], eps, n_groups, norm, gate_first, first, last): see
`PackedKernels.gate_norm`. Its units are tokens."""


def run(
    xbc: _Array,
    zxbcdt: _Array,
    dt_column: int,
    per_head: tuple[_Array, _Array, _Array],
    n_groups: int,
    starts: npt.NDArray[np.int64],
    states: tuple[int, _Array, _Array],
    dt_limit: tuple[float, float],
    y: _Array,
) -> None:
    """Scan on all threads; see `PackedKernels.ssd`.

    Args:
        xbc: [T, d].
        zxbcdt: [T, W].
        dt_column: of the step sizes.
        per_head: their bias [H], log2(e) A [H], and D [H, P].
        n_groups: of heads.
        starts: [B + 1].
        states: numbers a channel, and the addresses of the rows' states before and after, [B] each.
        dt_limit: smallest and largest step size.
        y: filled, [T, H * P].
    """
    dt_bias, a_log2, skip = per_head
    n_states, before, after = states
    heads, width = skip.shape
    chunks, row_chunks = plan(starts)
    n_tiles, n_blocks = int(chunks[-1, 2]), int(chunks[-1, 3])
    step, decay = (np.empty((xbc.shape[0], heads), np.float32) for _ in range(2))
    c_tiles = np.empty((n_groups, n_tiles, -(-n_states // LANES) * TILE), np.float32)
    b_blocks = np.empty((n_groups, n_blocks, -(-n_states // 4) * 4 * LANES), np.float32)
    scores = np.empty((n_groups, n_tiles, _CHUNK_BLOCKS * TILE), np.float32)
    made = step, decay, c_tiles, b_blocks, scores
    source = xbc, heads * width, n_states, zxbcdt, dt_column, dt_bias, a_log2, *dt_limit
    split(len(chunks) - 1, lambda first, last: prepare(*source, chunks, *made, first, last))
    rest = before, after, y
    units = heads * -(-width // LANES) * len(before)
    split(
        units,
        lambda first, last: scan(xbc, skip, n_states, starts, chunks, row_chunks, *made, *rest, first, last),
    )
