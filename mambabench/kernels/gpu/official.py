"""mamba_ssm's own scans from states, over rows of different lengths; for long rows on an NVIDIA GPU.

Its scan of Mamba-1 starts from zeros only: a state is put into it as tokens (see `_triton_pad`), which costs
a few dozen of them a row. The other way, the scan from zeros plus C exp(A times the sum of the steps) times
the state, would be a second pass as dear as the scan. Its scan of Mamba-2 takes states. Its convolution would
need every row's window gathered and each row padded, for an operation that only waits for memory: ours stays.

    scans = OfficialScans(functions())
    scans.scan(y, operands, LongRows.of(calls(starts, rows, most_tokens=4096), n_rows, device), before, after)

A call is kept so small that no place in any of its tensors passes 2**31: the kernels count in 32 bits.
Mamba-2's kernels choose their tiles by trying them out when they first run, so that its last bits may differ
between two processes, as they do in mamba_ssm's own model.

It has not run on a GPU yet: written against the sources of mamba_ssm 2.3.1 and 2.3.2.post1. Tested without
one are the layout and the states, in Triton's interpreter, with plain functions in place of the compiled.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mambabench.kernels.gpu.official_calls import Carried, LongRows, Places
from mambabench.kernels.gpu.triton_kernels import current, power_of_two

if TYPE_CHECKING:
    from mambabench.kernels.gpu.triton_kernels import ScanOperands, SsdOperands
    from mambabench.kernels.rows import Rows

MOST_ELEMENTS = 1 << 24
"""Of a call's largest tensor; it bounds what a call takes beside a forward, and is far below 2**31. Chosen
without a measurement: thousands of tokens of large models, in a few hundred MiB."""
MOST_STATES = 256
"""Of a channel, in mamba_ssm's scan of Mamba-1."""
TERMS = {torch.float32: 1, torch.bfloat16: 3}
"""Tokens for one state. float16 is too narrow for states of any size: with them it is scanned as float32."""
ROUNDED_TO = 16
"""Of Mamba-1's padded rows, so that each begins a sector of memory; chosen without a measurement."""
CHUNK_TOKENS = 256
"""Of Mamba-2's scan, as its models are shipped."""
_NO_STEP = -1e4
_LOG2_E = 1.4426950408889634
_PAD_BLOCK = 64


class Functions(NamedTuple):
    """What mamba_ssm offers."""

    selective_scan: Callable[..., Any]
    """`selective_scan_fn` of `mamba_ssm.ops.selective_scan_interface`."""
    chunk_scan: Callable[..., Any]
    """`mamba_chunk_scan_combined` of `mamba_ssm.ops.triton.ssd_combined`."""


def functions() -> Functions | None:
    """Return mamba_ssm's functions, or null where it or its extension is not here or does not load."""
    if importlib.util.find_spec("mamba_ssm") is None:
        return None
    try:
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        combined = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
        return Functions(interface.selective_scan_fn, combined.mamba_chunk_scan_combined)
    except Exception:
        # Built for another torch, or of another version, it may raise anything; the doctor says what.
        return None


def scan_token_bytes(dtype: torch.dtype, channels: int, n_states: int, least_tokens: int) -> int:
    """Return the memory of a call of Mamba-1's scan per token, padding being tokens, too.

    Args:
        dtype: of the activations.
        channels: of a layer.
        n_states: of a channel.
        least_tokens: of a row.
    """
    size = 4 if dtype == torch.float16 else dtype.itemsize
    # Its three inputs and two outputs, B and C, and two numbers a state for every 2048 tokens of a row.
    return size * (5 * channels + 2 * n_states) + -(-8 * channels * n_states // least_tokens)


def ssd_token_bytes(heads: int, width: int, n_states: int, n_groups: int) -> int:
    """Return the memory of a call of Mamba-2's scan per token, for rows of at least a chunk.

    Args:
        heads: of a layer.
        width: channels of a head.
        n_states: of a channel.
        n_groups: of heads that share B and C.
    """
    channels = heads * width
    # Gathered inputs, the output twice, and where the tokens are.
    by_token = 2 * (channels + 2 * n_groups * n_states + heads) + 4 * channels + 40
    # Step sizes, their sums, products of B and C, and states before and after they are passed on.
    by_chunk = 8 * heads * CHUNK_TOKENS + 4 * n_groups * CHUNK_TOKENS**2 + 6 * channels * n_states
    states = 8 * channels * n_states
    # A row of a little more than a chunk has two of them.
    return by_token + -(-(2 * by_chunk + states) // CHUNK_TOKENS)


class OfficialScans:
    """mamba_ssm's scans over the rows of calls, each on from its state.

    Args:
        functions: of mamba_ssm, or stand-ins.
    """

    def __init__(self, functions: Functions) -> None:
        # Triton takes a while to import.
        from mambabench.kernels.gpu import _triton_pad

        self._functions = functions
        self._pad: Any = _triton_pad

    def scan(
        self,
        y: Tensor,
        operands: ScanOperands,
        long: LongRows,
        before: Rows | None,
        after: Rows | None,
    ) -> None:
        """Run the scan of Mamba-1 over the rows of some calls; see `PackedKernels.scan`.

        Args:
            y: for the outputs of all tokens, [T, d]; others than those rows' are left as they are.
            operands: all of one dtype, but for the parameters.
            long: the rows' calls.
            before: the states of all rows.
            after: places for those of all rows.
        """
        u, dt, dt_bias, A_log2, proj, column, D, xz, z_column = operands
        n_states, channels = A_log2.shape
        A = A_log2.t() / _LOG2_E
        carried = Carried(before, after, (n_states, channels), long, u.device)
        for call in long.calls:
            old, new = carried.old(call), carried.new(call)
            dtype = torch.float32 if u.dtype == torch.float16 and old is not None else u.dtype
            terms = TERMS.get(dtype, 1)
            ahead = 0 if old is None else terms * n_states
            padded = -(-(ahead + call.longest) // ROUNDED_TO) * ROUNDED_TO
            inputs = u.new_empty(3, call.rows, channels, padded, dtype=dtype)
            both = u.new_empty(call.rows, 2 * n_states, padded, dtype=dtype)
            blocks = -(-padded // _PAD_BLOCK), -(-channels // _PAD_BLOCK), call.rows
            square = {"block_tokens": _PAD_BLOCK, "block_channels": _PAD_BLOCK}
            sizes = channels, padded, ahead
            with current(u):
                self._pad.lay_inputs[blocks](
                    u, dt, xz, xz.shape[1], z_column, dt_bias, call.begins, call.lengths,
                    *((None, None) if old is None else old), *inputs, *sizes, terms=terms,
                    remembers=old is not None, **square,
                )  # fmt: skip
                self._pad.lay_projections[(blocks[0], call.rows)](
                    proj, proj.shape[1], column, call.begins, call.lengths, both, n_states, padded, ahead,
                    terms=terms, block_tokens=_PAD_BLOCK, block_columns=power_of_two(2 * n_states),
                )  # fmt: skip
            found, last = self._functions.selective_scan(
                inputs[0], inputs[1], A, both[:, :n_states], both[:, n_states:], D, z=inputs[2],
                delta_bias=dt_bias, delta_softplus=True, return_last_state=True,
            )  # fmt: skip
            with current(u):
                self._pad.put_back[blocks](found, call.begins, call.lengths, y, *sizes, **square)
            if new is not None:
                self._move(last[:, None], new, is_kept=True)

    def ssd(
        self,
        y: Tensor,
        operands: SsdOperands,
        long: LongRows,
        before: Rows | None,
        after: Rows | None,
    ) -> None:
        """Run the scan of Mamba-2 over the rows of some calls; see `PackedKernels.ssd`.

        Args:
            y: for the outputs of all tokens, [T, H * P]; others than those rows' are left as they are.
            operands: of 16 bits, but for the parameters.
            long: the rows' calls; with a smallest step size, none may need padding.
            before: the states of all rows.
            after: places for those of all rows.
        """
        xbc, zxbcdt, dt_column, dt_bias, A_log2, D, n_groups, dt_limit = operands
        heads, width = D.shape
        n_states = (xbc.shape[-1] - heads * width) // (2 * n_groups)
        A = A_log2 / _LOG2_E
        carried = Carried(before, after, (heads, n_states, width), long, xbc.device)
        for call in long.calls:
            old, new = carried.old(call), carried.new(call)
            start = None if old is None else A.new_empty(call.rows, heads, width, n_states)
            if old is not None and start is not None:
                self._move(start, old, is_kept=False)
            both = [heads * width, n_groups * n_states, n_groups * n_states]
            x, b, c = torch.split(call.gather(xbc), both, dim=-1)
            found, last = self._functions.chunk_scan(
                x.view(call.rows, call.longest, heads, width),
                call.gather(zxbcdt[:, dt_column : dt_column + heads], fill=_NO_STEP),
                A, *(v.view(call.rows, call.longest, n_groups, n_states) for v in (b, c)),
                CHUNK_TOKENS, D=D, dt_bias=dt_bias, initial_states=start, dt_softplus=True,
                dt_limit=dt_limit, return_final_states=True,
            )  # fmt: skip
            call.scatter(found.flatten(2), y)
            if new is not None:
                self._move(last, new, is_kept=True)

    def _move(self, batch: Tensor, places: Places, *, is_kept: bool) -> None:
        """Move states between [rows, heads, P, N] and the rows' own memory."""
        rows, heads, width, n_states = batch.shape
        addresses, row_of = places
        block = min(_PAD_BLOCK, power_of_two(width))
        with current(batch):
            self._pad.move_states[(rows, heads, -(-width // block))](
                batch, *batch.stride(), addresses, row_of, width, n_states, is_kept=is_kept,
                block_states=power_of_two(n_states), block_width=block,
            )  # fmt: skip
