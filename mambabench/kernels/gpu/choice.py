"""On an NVIDIA GPU with mamba_ssm: its scans for long rows, ours for the others, in one forward.

Ours read rows where they lie, which is what short ones need; mamba_ssm's take a padded batch in a layout of
their own, and work on many parts of a row at once. Which row goes where is decided by lengths, sizes and
dtype alone, so that the same requests give the same results.

    kernels = cuda_kernels(torch.bfloat16)
    kernels.scan_way(1536, 16).name                 # what computes, for the record of a run

Not run on a GPU yet. From which length on mamba_ssm's are faster is not measured: LONG_TOKENS and
LONG_SSD_TOKENS are guesses, and `tests/gpu/scan_crossover.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mambabench.kernels.gpu.layout import Layout
from mambabench.kernels.gpu.official import (
    CHUNK_TOKENS,
    MOST_ELEMENTS,
    MOST_STATES,
    ROUNDED_TO,
    TERMS,
    Functions,
    OfficialScans,
    functions,
    scan_token_bytes,
    ssd_token_bytes,
)
from mambabench.kernels.gpu.official_calls import LongRows
from mambabench.kernels.gpu.segments import MOST_PADDING, calls
from mambabench.kernels.gpu.triton_kernels import PIECE_TOKENS, TritonKernels
from mambabench.kernels.ways import Way

if TYPE_CHECKING:
    from mambabench.kernels.gpu.triton_kernels import ScanOperands, SsdOperands
    from mambabench.kernels.rows import Rows

LONG_TOKENS = 256
"""From which length on a row's scan of Mamba-1 is mamba_ssm's; chosen without a measurement."""
LONG_SSD_TOKENS = CHUNK_TOKENS
"""The same for Mamba-2; chosen without a measurement."""
ALL_LONG_TOKENS = max(PIECE_TOKENS + 1, LONG_TOKENS, LONG_SSD_TOKENS)
"""From which length on every row goes another way than short ones, through mamba_ssm or in pieces, but for
Mamba-1 with many more than the usual 16 states: a comparison needs rows as long."""
_LONG_NAME = "mamba_ssm scan from a state (long)"
_SHARE_AHEAD = 4
"""A row is long only if it has so many times the tokens that its state is put in as."""


def cuda_kernels(dtype: torch.dtype) -> TritonKernels:
    """Return the kernels of a GPU: with mamba_ssm's scans where they can be imported.

    Args:
        dtype: of the matrix products.

    Raises:
        ExtraMissingError: Triton cannot be used.
    """
    found = functions()
    return TritonKernels(dtype) if found is None else ChosenKernels(dtype, found)


@dataclass(frozen=True)
class _Limits:
    """What decides which rows are long, and how they are put together."""

    long_tokens: int
    most_tokens: int
    ahead: int
    most_padding: float


@dataclass(frozen=True)
class _Split:
    """The two kinds of rows of a forward."""

    short: Layout | None
    long: LongRows


class ChosenKernels(TritonKernels):
    """`TritonKernels` whose long rows are scanned by mamba_ssm; see `PackedKernels` for the contract.

    Mamba-2's long rows are in bfloat16 only: mamba_ssm multiplies float32 as numbers of 11 bits, and in
    float16 its states between chunks could pass the largest number.

    Args:
        dtype: of the matrix products.
        functions: of mamba_ssm, or stand-ins.
        most_elements: of a call's largest tensor.

    Raises:
        ExtraMissingError: Triton cannot be used.
    """

    def __init__(
        self, dtype: torch.dtype, functions: Functions, *, most_elements: int = MOST_ELEMENTS
    ) -> None:
        super().__init__(dtype)
        self._official = OfficialScans(functions)
        self._most_elements = most_elements
        self._splits: tuple[Layout | None, dict[_Limits, _Split]] = None, {}

    def scan_way(self, channels: int, n_states: int) -> Way:
        """Return what computes the scan of Mamba-1: mamba_ssm has no more than 256 states a channel."""
        limits = self._scan_limits(channels, n_states)
        if limits is None:
            return super().scan_way(channels, n_states)
        each = scan_token_bytes(self.dtype, channels, n_states, limits.long_tokens)
        return Way(f"{_LONG_NAME}, {self.name}", limits.most_tokens * each)

    def ssd_way(self, heads: int, width: int, n_states: int, n_groups: int) -> Way:
        """Return what computes the scan of Mamba-2: mamba_ssm's does in bfloat16 only."""
        if self.dtype != torch.bfloat16:
            return super().ssd_way(heads, width, n_states, n_groups)
        each = ssd_token_bytes(heads, width, n_states, n_groups)
        tokens = self._ssd_tokens(heads * width, n_states, n_groups)
        return Way(f"{_LONG_NAME}, {self.name}", tokens * each)

    def _scan_rows(
        self, y: Tensor, operands: ScanOperands, layout: Layout, before: Rows | None, after: Rows | None
    ) -> None:
        u, dt, _, A_log2, proj, _, _, xz, _ = operands
        n_states, channels = A_log2.shape
        limits = self._scan_limits(channels, n_states)
        is_one_dtype = all(tensor.dtype == u.dtype for tensor in (dt, proj, xz))
        if limits is None or layout.longest < limits.long_tokens or not is_one_dtype:
            super()._scan_rows(y, operands, layout, before, after)
            return
        split = self._split(layout, limits)
        if split.short is not None:
            super()._scan_rows(y, operands, split.short, before, after)
        self._official.scan(y, operands, split.long, before, after)

    def _ssd_rows(
        self, y: Tensor, operands: SsdOperands, layout: Layout, before: Rows | None, after: Rows | None
    ) -> None:
        xbc, zxbcdt, _, _, _, D, n_groups, dt_limit = operands
        is_narrow = xbc.dtype == zxbcdt.dtype == torch.bfloat16
        if layout.longest < LONG_SSD_TOKENS or not is_narrow:
            super()._ssd_rows(y, operands, layout, before, after)
            return
        n_states = (xbc.shape[-1] - D.numel()) // (2 * n_groups)
        limits = _Limits(
            LONG_SSD_TOKENS,
            self._ssd_tokens(D.numel(), n_states, n_groups),
            0,
            # With a smallest step no token leaves the state as it is.
            MOST_PADDING if dt_limit[0] <= 0 else 0.0,
        )
        split = self._split(layout, limits)
        if split.short is not None:
            super()._ssd_rows(y, operands, split.short, before, after)
        self._official.ssd(y, operands, split.long, before, after)

    def _scan_limits(self, channels: int, n_states: int) -> _Limits | None:
        """Return the limits of Mamba-1's calls; null where all rows are ours."""
        ahead = n_states * max(TERMS.values())
        limits = _Limits(
            max(LONG_TOKENS, _SHARE_AHEAD * ahead),
            self._most_elements // max(channels, 2 * n_states),
            ahead + ROUNDED_TO - 1,
            MOST_PADDING,
        )
        return limits if n_states <= MOST_STATES and limits.most_tokens > limits.ahead else None

    def _ssd_tokens(self, channels: int, n_states: int, n_groups: int) -> int:
        """Return the most tokens of a call of Mamba-2, padding included."""
        # Of a token, or of a token's share of what a chunk has: its state, and its products of B and C.
        widest = max(
            channels + 2 * n_groups * n_states, channels * n_states // CHUNK_TOKENS, n_groups * CHUNK_TOKENS
        )
        return max(1, self._most_elements // widest // CHUNK_TOKENS) * CHUNK_TOKENS

    def _split(self, layout: Layout, limits: _Limits) -> _Split:
        """Return the rows by kind; all layers of a forward give the same layout."""
        # Another thread may put its own in between; what is taken here stays this call's.
        last, known = self._splits
        if last is not layout:
            known = {}
            self._splits = layout, known
        if limits not in known:
            starts = layout.source
            lengths = np.diff(starts)
            is_long = lengths >= limits.long_tokens
            made = calls(
                starts,
                np.flatnonzero(is_long).tolist(),
                most_tokens=limits.most_tokens,
                ahead=limits.ahead,
                most_padding=limits.most_padding,
            )
            short = None
            if not is_long.all():
                short = Layout(starts, layout.device, PIECE_TOKENS, np.where(is_long, 0, lengths))
            known[limits] = _Split(short, LongRows.of(made, len(lengths), layout.device))
        return known[limits]
