"""The operations of `mambabench.kernels.packed` on an NVIDIA GPU, in Triton: no compiled extension is needed.

Activations are in the dtype of the matrix products, arithmetic and states in float32. A row's state lies
in memory of its own, as on a CPU, and kernels find it by its address, so that nothing is gathered or
copied when rows go on from states that others share.

    kernels = kernels_for("cuda", torch.bfloat16)
    y = kernels.conv_silu(xz, 0, taps, bias, starts, None, after)

No batch is split for its size: places are int64, where kernels elsewhere count in 32 bits. Nothing but the
order of a stream keeps memory that is known by its address alone: all forwards over some rows must be on one.
Mamba-2's kernel goes by the longest row of a batch, so that a row's last bits depend on what is beside it.

It has not run on a GPU yet. What is tested without one: every kernel in Triton's interpreter against
float64, whole models against the CPU's, that all of them compile as launched (compute capability 8.0), and
that the compiled PTX, executed on a CPU with all its threads, computes the same and has no races between
warps or programs. What that cannot show: how matrix units round, what `ptxas` makes of PTX, and speed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mambabench.errors import ExtraMissingError
from mambabench.kernels.gpu.layout import Int64s, Layout, layout_for, sent
from mambabench.kernels.gpu.triton_version import installed, too_old
from mambabench.kernels.ways import OneWay

if TYPE_CHECKING:
    from mambabench.kernels.rows import Rows

ScanOperands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, Tensor, Tensor, int]
"""What `scan` is given before the rows: u, dt, dt_bias, A_log2, proj, its column, D, xz, z's column."""
SsdOperands = tuple[Tensor, Tensor, int, Tensor, Tensor, Tensor, int, tuple[float, float]]
"""What `ssd` is given before the rows: xbc, zxbcdt, dt's column, dt_bias, A_log2, D, groups, dt_limit."""
PIECE_TOKENS = 512
"""Longest part of a row that one program of Mamba-1's scan takes through time."""
FEW_TOKENS = 4
"""Up to which rows of Mamba-2 go token by token: tiles of 16 tokens would be mostly empty."""
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SCAN_NUMBERS, _MOST_SCAN_CHANNELS = 512, 32
"""States that a program of Mamba-1's scan holds, 16 for each of its threads; more leave no registers."""
_MOST_WIDTH, _SSD_NUMBERS = 64, 8_192
"""Channels of a head that a program of Mamba-2's scan takes, and states that it holds."""


def obstacle() -> str | None:
    """Return what keeps Triton from running here, in words, or null; whether there is a GPU is not asked."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; PyTorch's CUDA builds for Linux bring it"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if wrong := too_old(installed()):
        return wrong
    # Triton compiles a few lines of C for the driver, once on a machine.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton finds no C compiler; install gcc or set CC"
    # Debian's own Python would name a directory for local packages.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    if not Path(sysconfig.get_paths(scheme)["include"], "Python.h").is_file():
        return "triton finds no Python.h; install Python's development files"
    return None


class TritonKernels(OneWay):
    """Triton kernels; see `mambabench.kernels.packed.PackedKernels` for the methods' contract.

    Activations may be of any of three dtypes, and of different ones in one call; parameters and states are
    float32. Results have the dtype of their input, and `add_norm`'s that of this object.

    Args:
        dtype: of the matrix products between the operations.

    Raises:
        ExtraMissingError: Triton cannot be used.
    """

    name = "mambabench Triton scan"

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        reason = obstacle()
        if reason is not None:
            what, _, way_out = reason.partition("; ")
            raise ExtraMissingError(
                f"the scan kernels for a GPU cannot run: {what}",
                hint=f"{way_out[0].upper()}{way_out[1:]}, or pass `--engine as-shipped`.",
            )
        # Triton 3.9 warns of a change to come where this is not set; both ways are exact enough here.
        os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
        # Triton looks at TRITON_INTERPRET when a kernel is defined, and takes a while to import.
        from mambabench.kernels.gpu import _triton_math, _triton_scan, _triton_ssd

        self.dtype = dtype
        self._math: Any = _triton_math
        self._scan: Any = _triton_scan
        self._ssd: Any = _triton_ssd
        self._last: tuple[Int64s, Layout] | None = None

    def conv_silu(
        self,
        x: Tensor,
        column: int,
        weight: Tensor,
        bias: Tensor,
        starts: Int64s,
        before: Rows | None,
        after: Rows | None,
    ) -> Tensor:
        """Run a causal depthwise convolution and SiLU on d columns of `x`."""
        taps, channels = weight.shape
        tokens = int(starts[-1])
        _require(x, x, (tokens, None), column + channels)
        _require(weight, x, (taps, channels), is_parameter=True)
        _require(bias, x, (channels,), is_parameter=True)
        before, after = _some(before), _some(after)
        shape = taps - 1, channels
        layout = self._layout(starts, x.device, before, after)
        old, new = (_pointers(rows, layout, shape, x.device) for rows in (before, after))
        y = x.new_empty(tokens, channels)
        source = x, x.shape[1], column
        with current(x):
            if tokens:
                self._math.conv_silu[(-(-tokens // 4), -(-channels // 256))](
                    *source, weight, bias, layout.starts, layout.row_of, old, y, tokens, channels,
                    taps=taps, remembers=old is not None, block_tokens=4, block_channels=256,
                )  # fmt: skip
            if new is not None and taps > 1 and layout.rows:
                # Only now: a row's new window may lie where its old one does.
                self._math.windows[(layout.rows, -(-channels // 256))](
                    *source, layout.starts, old, new, channels, past=taps - 1,
                    remembers=old is not None, block_past=power_of_two(taps - 1), block_channels=256,
                )  # fmt: skip
        return y

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
        starts: Int64s,
        before: Rows | None,
        after: Rows | None,
    ) -> Tensor:
        """Run the selective scan of Mamba-1 with its gate."""
        n_states, channels = A_log2.shape
        tokens = int(starts[-1])
        for tensor in (u, dt):
            _require(tensor, u, (tokens, channels))
        for vector in (dt_bias, D):
            _require(vector, u, (channels,), is_parameter=True)
        _require(A_log2, u, (n_states, channels), is_parameter=True)
        _require(proj, u, (tokens, None), column + 2 * n_states)
        _require(xz, u, (tokens, None), z_column + channels)
        before, after = _some(before), _some(after)
        y = torch.empty_like(u)
        operands = u, dt, dt_bias, A_log2, proj, column, D, xz, z_column
        self._scan_rows(y, operands, self._layout(starts, u.device, before, after), before, after)
        return y

    def _scan_rows(
        self, y: Tensor, operands: ScanOperands, layout: Layout, before: Rows | None, after: Rows | None
    ) -> None:
        """Run the scan over the tokens of a layout and write their outputs."""
        if not layout.rows:
            return
        u, dt, dt_bias, A_log2, proj, column, D, xz, z_column = operands
        shape = n_states, channels = tuple(A_log2.shape)
        block_states = power_of_two(n_states)
        block = min(_MOST_SCAN_CHANNELS, max(1, _SCAN_NUMBERS // block_states), power_of_two(channels))
        blocks = -(-channels // block)
        sizes = {"block_states": block_states, "block_channels": block, "num_warps": 1}

        def scan(begins: Tensor, stops: Tensor, old: Any, new: Any, steps: Any, out: Any) -> None:
            self._scan.scan[(len(begins), blocks)](
                u, dt, dt_bias, A_log2, proj, proj.shape[1], column, D, xz, xz.shape[1], z_column,
                begins, stops, old, new, steps, out, channels, n_states, remembers=old is not None,
                is_kept=new is not None, is_read=out is not None, **sizes,
            )  # fmt: skip

        with current(u):
            if not layout.is_cut:
                old, new = (_pointers(rows, layout, shape, u.device) for rows in (before, after))
                scan(layout.begins, layout.stops, old, new, None, y)
                return
            pieces = layout.pieces
            ends = A_log2.new_empty(len(pieces.leads), *shape)
            steps = A_log2.new_empty(len(pieces.leads), channels)
            ends_at = pieces.leads * (4 * n_states * channels) + ends.data_ptr()
            scan(pieces.lead_begins, pieces.lead_stops, None, ends_at, steps, None)
            old, new = (_pointers(rows, layout, shape, u.device) for rows in (before, after))
            self._scan.join[(layout.rows, blocks)](
                A_log2, steps, ends, pieces.lead_of, old, channels, n_states, remembers=old is not None,
                **sizes,
            )  # fmt: skip
            sources = torch.cat([pieces.nowhere[:-1] if old is None else old, ends_at])[pieces.source]
            targets = pieces.nowhere if new is None else torch.cat([new, pieces.nowhere[:1]])
            scan(pieces.begins, pieces.stops, sources, targets[pieces.target], None, y)

    def add_norm(self, residual: Tensor, x: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add `x` to `residual` in place, if there is one, and return its normalisation."""
        tokens, size = residual.shape
        _require(residual, residual, (tokens, size), is_parameter=True)
        _require(weight, residual, (size,), is_parameter=True)
        if x is not None:
            _require(x, residual, (tokens, size))
        y = residual.new_empty(tokens, size, dtype=self.dtype)
        if tokens:
            with current(residual):
                self._math.add_norm[(tokens,)](
                    residual, x, weight, y, size, eps, adds=x is not None, block=power_of_two(size),
                    num_warps=warps(power_of_two(size)),
                )  # fmt: skip
        return y

    def ssd(
        self,
        xbc: Tensor,
        zxbcdt: Tensor,
        dt_column: int,
        dt_bias: Tensor,
        A_log2: Tensor,
        D: Tensor,
        n_groups: int,
        starts: Int64s,
        before: Rows | None,
        after: Rows | None,
        *,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
    ) -> Tensor:
        """Run the scan of Mamba-2 with H heads of P channels."""
        heads, width = D.shape
        tokens = int(starts[-1])
        n_states = (xbc.shape[-1] - heads * width) // (2 * n_groups)
        if n_states < 1 or heads % n_groups:
            raise ValueError(f"{n_groups} groups do not fit {heads} heads and {xbc.shape[-1]} columns")
        _require(xbc, xbc, (tokens, heads * width + 2 * n_groups * n_states))
        _require(zxbcdt, xbc, (tokens, None), dt_column + heads)
        for vector in (dt_bias, A_log2):
            _require(vector, xbc, (heads,), is_parameter=True)
        _require(D, xbc, (heads, width), is_parameter=True)
        before, after = _some(before), _some(after)
        y = xbc.new_empty(tokens, heads * width)
        operands = xbc, zxbcdt, dt_column, dt_bias, A_log2, D, n_groups, dt_limit
        self._ssd_rows(y, operands, self._layout(starts, xbc.device, before, after), before, after)
        return y

    def _ssd_rows(
        self, y: Tensor, operands: SsdOperands, layout: Layout, before: Rows | None, after: Rows | None
    ) -> None:
        """Run Mamba-2's scan over the tokens of a layout and write their outputs."""
        if not layout.rows:
            return
        xbc, zxbcdt, dt_column, dt_bias, A_log2, D, n_groups, dt_limit = operands
        heads, width = D.shape
        n_states = (xbc.shape[-1] - heads * width) // (2 * n_groups)
        old, new = (_pointers(rows, layout, (heads, n_states, width), xbc.device) for rows in (before, after))
        by_token = layout.longest <= FEW_TOKENS
        # Products of matrices need 16 of everything.
        least = 1 if by_token else 16
        block_states = max(least, power_of_two(n_states))
        block = max(least, min(_MOST_WIDTH, _SSD_NUMBERS // block_states, power_of_two(width)))
        options: dict[str, Any] = {
            "block_states": block_states, "block_width": block, "num_warps": warps(block_states * block),
        }  # fmt: skip
        if not by_token:
            # Products of 32-bit numbers without matrix units need more registers.
            is_wide = xbc.dtype == torch.float32
            options |= {
                "precision": "ieee" if is_wide else "tf32",
                "block_tokens": 16 if is_wide or layout.longest <= 16 else 32,
                "num_warps": 8,
                "num_stages": 1,
            }
        kernel = self._ssd.tokens if by_token else self._ssd.tiles
        with current(xbc):
            kernel[(layout.rows, heads, -(-width // block))](
                xbc, xbc.shape[1], heads * width, zxbcdt, zxbcdt.shape[1], dt_column, dt_bias, A_log2, D,
                float(dt_limit[0]), float(dt_limit[1]), layout.begins, layout.stops, old, new, y,
                heads // n_groups, n_groups, width, n_states, remembers=old is not None,
                is_kept=new is not None, **options,
            )  # fmt: skip

    def gate_norm(
        self,
        y: Tensor,
        zxbcdt: Tensor,
        z_column: int,
        weight: Tensor | None,
        eps: float,
        n_groups: int,
        *,
        gate_first: bool = True,
    ) -> None:
        """Multiply `y` by silu(z) and normalise it by groups, in place."""
        tokens, channels = y.shape
        _require(y, y, (tokens, channels))
        _require(zxbcdt, y, (tokens, None), z_column + channels)
        if weight is not None:
            _require(weight, y, (channels,), is_parameter=True)
        if channels % n_groups:
            raise ValueError(f"{channels} channels do not divide into {n_groups} groups")
        size = channels // n_groups
        if tokens:
            with current(y):
                self._math.gate_norm[(tokens, n_groups)](
                    y, zxbcdt, zxbcdt.shape[1], z_column, weight, size, n_groups, eps,
                    norms=weight is not None, gate_first=gate_first, block=power_of_two(size),
                    num_warps=warps(power_of_two(size)),
                )  # fmt: skip

    def _layout(
        self, starts: Int64s, device: torch.device, before: Rows | None, after: Rows | None
    ) -> Layout:
        """Return the rows' bounds on the device; all layers of a forward give the same array."""
        # Another thread may put its own in between; what is taken here stays this call's.
        last = self._last
        memories = [rows.memory for rows in (before, after) if rows is not None]
        is_last = last is not None and last[0] is starts and last[1].device == device
        if last is not None and is_last and all(memory.companion is last[1] for memory in memories):
            return last[1]
        found = layout_for(starts, device, PIECE_TOKENS, memories, None if last is None else last[1])
        self._last = starts, found
        return found


def _some(rows: Rows | None) -> Rows | None:
    """Return rows, or null where each of them is: then nothing is sent, and a simpler kernel runs."""
    return rows if rows is not None and any(t is not None for t in rows.memory.tensors) else None


def _pointers(
    rows: Rows | None, layout: Layout, shape: tuple[int, ...], device: torch.device
) -> Tensor | None:
    """Return the addresses of the rows' states, on the device; null when none has one."""
    if rows is None:
        return None
    return rows.pointers(layout.rows, shape, torch.float32, device, sent)


def current(tensor: Tensor) -> AbstractContextManager[Any]:
    """Make a tensor's device the current one, where Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is not smaller."""
    return 1 << max(0, n - 1).bit_length()


def warps(numbers: int) -> int:
    """Return how many warps take a block of so many numbers, a power of two, so that none copies another's.

    What lies in place would be read by a copy after it was written.
    """
    return 4 if numbers >= 128 else 1


def _require(
    tensor: Tensor,
    beside: Tensor,
    shape: tuple[int | None, ...],
    columns: int = 0,
    *,
    is_parameter: bool = False,
) -> None:
    # The kernels read past the end of an array that is too short, so no wrong shape may reach them.
    size = tensor.shape
    # Most shapes are known in full: this runs a dozen times a layer.
    fits = size == shape or (
        len(size) == len(shape)
        and all(want is None or have == want for have, want in zip(size, shape, strict=True))
    )
    if not fits or size[-1] < columns:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} where {shape} is needed")
    wanted = _DTYPES[:1] if is_parameter else _DTYPES
    if tensor.dtype not in wanted or tensor.device != beside.device or not tensor.is_contiguous():
        kind = "float32" if is_parameter else "floats of 32 or 16 bits"
        raise ValueError(
            f"contiguous {kind} on {beside.device} are needed, not {tensor.dtype} on {tensor.device}"
        )
