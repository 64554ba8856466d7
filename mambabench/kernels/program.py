"""Operations on a few rows of one token each, written down once and followed in one call; for a CPU.

A step of decoding reads every weight for little work, so what decides is how fast they come from memory, and
what is between two reads. A program keeps the threads together through all layers: they wait for each other
for less than a microsecond, where a call a layer from Python would cost a hundred.

    program = Program(rows=1, threads=2)
    x, y = program.shared(768), program.shared(3072)
    program.product(x, weight, y)                   # y = x weight^T
    x[:] = 1.0
    program.run([], [])

Products are of float32 activations with weights of any dtype in `DTYPES`, summed in float32; a row's result
does not depend on the other rows, nor on the threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mambabench.kernels import _products
from mambabench.kernels import _program_numba as loops
from mambabench.kernels._barrier import meeting
from mambabench.kernels.threads import together

DTYPES = {torch.float32: _products.FLOAT32, torch.bfloat16: _products.BFLOAT16} | (
    {torch.float16: _products.FLOAT16} if _products.HAS_FLOAT16 else {}
)
"""Weights that products are made for."""
_MOST_THREADS = 32
"""More would wait for each other longer than for memory."""
_LEFT = 2**62

_Addresses = npt.NDArray[np.int64]


def usual_threads() -> int:
    """Return how many threads a program gets: as many as torch uses, if there are cores for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), cores, _MOST_THREADS))


class Program:
    """A list of operations, and the matrices between them.

    A matrix [rows, width] is shared by the threads, one [threads, rows, width] has a copy for each. An
    operation may name a part of its columns by their first one. Each thread has the same share of the
    columns in every operation, whole multiples of 16; where a thread needs what others have made, `meet`
    must stand before.

    Args:
        rows: tokens, one of each sequence.
        threads: that follow it.
    """

    def __init__(self, rows: int, threads: int) -> None:
        self.rows, self.threads = rows, threads
        self._ops: list[list[int]] = []
        self._numbers: list[tuple[float, float]] = []
        self._states: list[_Addresses] = []
        self._kept: list[Any] = []
        self._table = np.zeros((0, loops.FIELDS), np.int64)
        self._limits = np.zeros((0, 2))

    def shared(self, width: int) -> Tensor:
        """Return a new matrix that all threads share, [rows, width]."""
        return torch.zeros(self.rows, width)

    def private(self, width: int) -> Tensor:
        """Return a new matrix of which every thread has its own, [threads, rows, width]."""
        return torch.zeros(self.threads, self.rows, width)

    def meet(self) -> None:
        """Let the threads wait for each other."""
        self._add(loops.MEET)

    def product(
        self,
        x: Tensor,
        weight: Tensor,
        y: Tensor,
        *,
        bias: Tensor | None = None,
        x_column: int = 0,
        y_column: int = 0,
    ) -> None:
        """Write weight x + bias to columns of y; each thread makes its share of them.

        Args:
            x: [.., n] or wider.
            weight: contiguous [m, n], of a dtype in `DTYPES`.
            y: [.., m] or wider.
            bias: float32 [m].
            x_column: first of the inputs.
            y_column: first of the outputs.
        """
        outputs, inputs = weight.shape
        if weight.dtype not in DTYPES or not weight.is_cpu or not weight.is_contiguous():
            raise ValueError(f"no products with {weight.dtype} on {weight.device}, or not contiguous")
        self._kept.append(weight)
        matrices = self._matrix(x, x_column, inputs) + self._matrix(y, y_column, outputs)
        at = weight.data_ptr(), DTYPES[weight.dtype], inputs, outputs, self._vector(bias, outputs)
        self._add(loops.PRODUCT, *matrices, *at)

    def norm(
        self,
        x: Tensor,
        y: Tensor,
        *,
        weight: Tensor | None,
        eps: float,
        added: Tensor | None = None,
        total: Tensor | None = None,
        x_column: int = 0,
        y_column: int = 0,
        size: int | None = None,
        alone: bool = False,
    ) -> None:
        """Write the root-mean-square normalisation of x, or of x + added, to y; each thread makes all of it.

        Args:
            x: [.., size] or wider.
            y: [.., size] or wider.
            weight: float32 [size]; there is none when absent.
            eps: added to the mean square.
            added: [.., size].
            total: where x + added goes, [.., size]; this may be x.
            x_column: first column of x.
            y_column: first column of y.
            size: columns; all of x when absent.
            alone: whether one thread does it for all, since y is shared.
        """
        width = x.shape[-1] if size is None else size
        nothing = [0, 0, 0]
        sums = nothing * 2
        if added is not None and total is not None:
            sums = self._matrix(added, 0, width) + self._matrix(total, 0, width)
        ends = self._matrix(y, y_column, width)
        rest = width, self._vector(weight, width), int(alone)
        self._add(loops.NORM, *self._matrix(x, x_column, width), *sums, *ends, *rest, numbers=(eps, 0.0))

    def conv_silu(self, x: Tensor, column: int, weight: Tensor, bias: Tensor, y: Tensor) -> None:
        """Write silu of the causal convolution of columns of x to y; see `PackedKernels.conv_silu`.

        Each thread makes its share of the channels. The windows before and after are the next state of `run`.
        """
        taps, channels = weight.shape
        self._add(
            loops.CONV,
            *self._matrix(x, column, channels),
            *self._matrix(y, 0, channels),
            channels,
            taps,
            self._vector(weight, taps * channels),
            self._vector(bias, channels),
            *self._state(),
        )

    def scan(
        self,
        u: Tensor,
        dt: Tensor,
        dt_bias: Tensor,
        A_log2: Tensor,
        proj: Tensor,
        column: int,
        D: Tensor,
        xz: Tensor,
        z_column: int,
        y: Tensor,
    ) -> None:
        """Write a step of Mamba-1's scan with its gate to y; see `PackedKernels.scan`.

        Each thread makes its share of the channels. The states before and after are the next of `run`.
        """
        n_states, channels = A_log2.shape
        self._add(
            loops.SCAN,
            *self._matrix(u, 0, channels),
            *self._matrix(dt, 0, channels),
            *self._matrix(proj, column, 2 * n_states),
            *self._matrix(xz, z_column, channels),
            *self._matrix(y, 0, channels),
            channels,
            n_states,
            self._vector(dt_bias, channels),
            self._vector(A_log2, n_states * channels),
            self._vector(D, channels),
            *self._state(),
        )

    def ssd(
        self,
        xbc: Tensor,
        zxbcdt: Tensor,
        dt_column: int,
        dt_bias: Tensor,
        A_log2: Tensor,
        D: Tensor,
        n_groups: int,
        y: Tensor,
        *,
        dt_limit: tuple[float, float],
    ) -> None:
        """Write a step of Mamba-2's scan to y; see `PackedKernels.ssd`.

        Each thread makes its share of the heads. The states before and after are the next of `run`.
        """
        heads, width = D.shape
        n_states = (xbc.shape[-1] - heads * width) // (2 * n_groups)
        self._add(
            loops.SSD,
            *self._matrix(xbc, 0, heads * width + 2 * n_groups * n_states),
            *self._matrix(zxbcdt, dt_column, heads),
            *self._matrix(y, 0, heads * width),
            heads,
            n_states,
            width,
            n_groups,
            self._vector(dt_bias, heads),
            self._vector(A_log2, heads),
            self._vector(D, heads * width),
            *self._state(),
            numbers=dt_limit,
        )

    def gate_norm(
        self,
        y: Tensor,
        zxbcdt: Tensor,
        z_column: int,
        weight: Tensor | None,
        eps: float,
        n_groups: int,
        out: Tensor,
        *,
        gate_first: bool,
    ) -> None:
        """Write y times silu(z), normalised by groups, to `out`; see `PackedKernels.gate_norm`.

        Each thread makes all of it.
        """
        channels = y.shape[-1]
        matrices = *self._matrix(y, 0, channels), *self._matrix(zxbcdt, z_column, channels)
        ends = self._matrix(out, 0, channels)
        rest = channels, n_groups, self._vector(weight, channels), int(gate_first)
        self._add(loops.GATE, *matrices, *ends, *rest, numbers=(eps, 0.0))

    def run(self, before: Sequence[_Addresses | None], after: Sequence[_Addresses | None]) -> None:
        """Follow the operations on all threads.

        Args:
            before: for each operation with a state, in their order, the address of each row's, 0 for zeros;
                null for zeros in all rows.
            after: the same for where the next one goes, 0 for nowhere.
        """
        if len(self._table) != len(self._ops):
            self._table = np.array(self._ops, np.int64).reshape(-1, loops.FIELDS)
            self._limits = np.array(self._numbers)
        for places, old, new in zip(self._states, before, after, strict=True):
            places[0], places[1] = 0 if old is None else old, 0 if new is None else new
        arrived = meeting()
        common = self._table, self._limits, self.rows, arrived.ctypes.data

        def follow(thread: int) -> None:
            loops.run(*common, thread, self.threads)

        def leave() -> None:
            arrived[0] = _LEFT

        together(follow, self.threads, leave=leave)

    def _add(self, code: int, *fields: int, numbers: tuple[float, float] = (0.0, 0.0)) -> None:
        self._ops.append([code, *fields] + [0] * (loops.FIELDS - 1 - len(fields)))
        self._numbers.append(numbers)

    def _matrix(self, tensor: Tensor, column: int, width: int) -> list[int]:
        """Return the three numbers of a matrix's columns."""
        each = tensor.shape[0] == self.threads and tensor.dim() == 3
        if not each and tensor.dim() != 2:
            raise ValueError(f"a matrix of shape {tuple(tensor.shape)} for {self.threads} threads")
        if tensor.shape[-2] != self.rows or column < 0 or tensor.shape[-1] < column + width:
            raise ValueError(f"a matrix of shape {tuple(tensor.shape)} for {self.rows} rows, {width} columns")
        self._keep(tensor)
        whole = tensor.shape[-1]
        return [tensor.data_ptr() + 4 * column, whole, self.rows * whole * 4 if each else 0]

    def _vector(self, tensor: Tensor | None, size: int) -> int:
        if tensor is None:
            return 0
        if tensor.numel() != size:
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} where {size} numbers are needed")
        self._keep(tensor)
        return tensor.data_ptr()

    def _keep(self, tensor: Tensor) -> None:
        if tensor.dtype != torch.float32 or not tensor.is_cpu or not tensor.is_contiguous():
            raise ValueError(
                f"contiguous float32 on the CPU is needed, not {tensor.dtype} on {tensor.device}"
            )
        self._kept.append(tensor)

    def _state(self) -> tuple[int, int]:
        places = np.zeros((2, self.rows), np.int64)
        self._states.append(places)
        return places[0].ctypes.data, places[1].ctypes.data
