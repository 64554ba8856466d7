"""The operations of a recurrent layer over sequences that lie end to end, each on from a state of its own.

One class a device; `kernels_for` picks it. Layers ask for nothing else, so a new device is a new class.

    kernels = kernels_for("cpu")
    u, window = kernels.conv_silu(xz, 0, weight, bias, starts, None)
    y, state = kernels.scan(u, dt, dt_bias, A, proj, dt_rank, D, xz, d_inner, starts, None)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mambabench.kernels.threads import split

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor


class PackedKernels(Protocol):
    """What a device must offer. T tokens in all, B rows, d channels, N states a channel; float32."""

    name: str
    """For the record of a run."""

    def conv_silu(
        self,
        x: Tensor,
        column: int,
        weight: Tensor,
        bias: Tensor,
        starts: npt.NDArray[np.int64],
        window: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run a causal depthwise convolution and SiLU on d columns of `x`.

        Args:
            x: [T, W] of which the columns from `column` to `column + d` are convolved.
            column: first of them.
            weight: taps, oldest input first, [k, d].
            bias: [d].
            starts: where each row begins, and T, [B + 1].
            window: the k - 1 inputs before each row, [B, k - 1, d]; zero when absent.

        Returns:
            The activations [T, d], and the windows after each row's last token.
        """
        ...

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
        starts: npt.NDArray[np.int64],
        state: Tensor | None,
        *,
        consume: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run the selective scan of Mamba-1 with its gate.

        Args:
            u: input, [T, d].
            dt: step sizes before bias and softplus, [T, d].
            dt_bias: [d].
            A_log2: log2(e) times the state matrix, which is negative, [N, d].
            proj: [T, P], whose columns from `column` on are B [T, N] and then C [T, N].
            column: first of them.
            D: skip weights, [d].
            xz: [T, W], whose columns from `z_column` on are the gate [T, d].
            z_column: first of them.
            starts: where each row begins, and T, [B + 1].
            state: before each row's first token, [B, N, d]; zero when absent.
            consume: whether `state` may be overwritten.

        Returns:
            silu(z) * (C h + D u) [T, d], and the state after each row's last token [B, N, d].
        """
        ...

    def add_norm(self, residual: Tensor, x: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add `x` to `residual` in place, if there is one, and return its root-mean-square normalisation.

        Args:
            residual: [T, d].
            x: [T, d].
            weight: [d].
            eps: added to the mean square.
        """
        ...

    def ssd(
        self,
        xbc: Tensor,
        zxbcdt: Tensor,
        dt_column: int,
        dt_bias: Tensor,
        A_log2: Tensor,
        D: Tensor,
        n_groups: int,
        starts: npt.NDArray[np.int64],
        state: Tensor | None,
        *,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run the scan of Mamba-2 with H heads of P channels, whose B and C are shared by groups of heads.

        Args:
            xbc: input, B and C, [T, H * P + 2 * n_groups * N].
            zxbcdt: [T, W], whose H columns from `dt_column` on are step sizes before bias and softplus.
            dt_column: first of them.
            dt_bias: [H].
            A_log2: log2(e) times the state matrix, which is negative, [H].
            D: skip weights, [H, P].
            n_groups: a divisor of H.
            starts: where each row begins, and T, [B + 1].
            state: before each row's first token, [B, H, N, P]; zero when absent.
            dt_limit: smallest and largest step size after softplus.
            keep: different rows whose states are wanted, in this order; all when absent.
            consume: whether `state` may be overwritten.

        Returns:
            C h + D u [T, H * P], and the state after each kept row's last token [n, H, N, P].
        """
        ...

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
        """Multiply `y` by silu(z) and normalise it by groups, in place, as Mamba-2 does after its scan.

        Args:
            y: [T, d].
            zxbcdt: [T, W], whose columns from `z_column` on are the gate [T, d].
            z_column: first of them.
            weight: of the root-mean-square normalisation, [d]; there is none when absent.
            eps: added to the mean square.
            n_groups: a divisor of d; each group has its own mean square.
            gate_first: whether the gate comes before the normalisation.
        """
        ...


class CpuKernels:
    """Compiled loops on threads of our own; see `PackedKernels` for the methods' contract."""

    name = "mambabench compiled scan"

    def __init__(self) -> None:
        # numba takes half a second to import, and the loops seconds to compile the first time.
        from mambabench.kernels import _packed_numba, _ssd_numba

        self._loops = _packed_numba
        self._ssd = _ssd_numba

    def conv_silu(
        self,
        x: Tensor,
        column: int,
        weight: Tensor,
        bias: Tensor,
        starts: npt.NDArray[np.int64],
        window: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run a causal depthwise convolution and SiLU on d columns of `x`."""
        taps, channels = weight.shape
        rows = len(starts) - 1
        if window is None:
            window = x.new_zeros(rows, taps - 1, channels)
        _require(x, (starts[-1], None), column + channels)
        _require(bias, (channels,))
        _require(window, (rows, taps - 1, channels))
        y, after = x.new_empty(x.shape[0], channels), x.new_empty(rows, taps - 1, channels)
        arrays = x.numpy(), column, weight.numpy(), bias.numpy(), starts, window.numpy(), y.numpy()
        ends = after.numpy()
        split(x.shape[0], lambda first, last: self._loops.conv_silu(*arrays, ends, first, last))
        return y, after

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
        starts: npt.NDArray[np.int64],
        state: Tensor | None,
        *,
        consume: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run the selective scan of Mamba-1 with its gate."""
        n_states, channels = A_log2.shape
        rows, length = len(starts) - 1, starts[-1]
        if state is None:
            state = u.new_zeros(rows, n_states, channels)
        elif not consume:
            state = state.clone()
        _require(u, (length, channels))
        _require(dt, (length, channels))
        _require(dt_bias, (channels,))
        _require(proj, (length, None), column + 2 * n_states)
        _require(D, (channels,))
        _require(xz, (length, None), z_column + channels)
        _require(state, (rows, n_states, channels))
        y = u.new_empty(u.shape)
        arrays = (
            *(v.numpy() for v in (u, dt, dt_bias, A_log2, proj)),
            column,
            D.numpy(),
            xz.numpy(),
            z_column,
            starts,
            state.numpy(),
            y.numpy(),
        )
        split(rows * self._blocks(channels), lambda first, last: self._loops.scan(*arrays, first, last))
        return y, state

    def add_norm(self, residual: Tensor, x: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add `x` to `residual` in place, if there is one, and return its normalisation."""
        _require(residual, (None, weight.shape[0]))
        added = residual if x is None else x
        _require(added, tuple(residual.shape))
        y = residual.new_empty(residual.shape)
        arrays = residual.numpy(), added.numpy(), weight.numpy(), eps, x is not None, y.numpy()
        split(residual.shape[0], lambda first, last: self._loops.add_norm(*arrays, first, last))
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
        starts: npt.NDArray[np.int64],
        state: Tensor | None,
        *,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run the scan of Mamba-2 with H heads of P channels."""
        heads, width = D.shape
        rows, length = len(starts) - 1, int(starts[-1])
        n_states = (xbc.shape[-1] - heads * width) // (2 * n_groups)
        if n_states < 1 or heads % n_groups:
            raise ValueError(f"{n_groups} groups do not fit {heads} heads and {xbc.shape[-1]} columns")
        _require(xbc, (length, heads * width + 2 * n_groups * n_states))
        _require(zxbcdt, (length, None), dt_column + heads)
        for vector in (dt_bias, A_log2):
            _require(vector, (heads,))
        _require(D, (heads, width))
        if state is not None:
            _require(state, (rows, heads, n_states, width))
        kept = range(rows) if keep is None else keep
        if state is not None and consume and list(kept) == list(range(rows)):
            after = state
        else:
            after = xbc.new_empty(len(kept), heads, n_states, width)
        # Never read when there is no state, but the loops are compiled for an array.
        before = after if state is None else state
        y = xbc.new_empty(length, heads * width)
        self._ssd.run(
            xbc.numpy(),
            zxbcdt.numpy(),
            dt_column,
            (dt_bias.numpy(), A_log2.numpy(), D.numpy()),
            n_groups,
            starts,
            (before.numpy(), state is None, kept, after.numpy()),
            (float(dt_limit[0]), float(dt_limit[1])),
            y.numpy(),
        )
        return y, after

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
        _require(y, (None, channels))
        _require(zxbcdt, (tokens, None), z_column + channels)
        scale = y.new_empty(channels) if weight is None else weight
        _require(scale, (channels,))
        if channels % n_groups:
            raise ValueError(f"{channels} channels do not divide into {n_groups} groups")
        arrays = y.numpy(), zxbcdt.numpy(), z_column, scale.numpy(), eps, n_groups
        how = weight is not None, gate_first
        split(tokens, lambda first, last: self._ssd.gate_norm(*arrays, *how, first, last))

    def _blocks(self, channels: int) -> int:
        return -(-channels // self._loops.BLOCK_CHANNELS)


def kernels_for(device: torch.device | str) -> PackedKernels:
    """Return the kernels of a device.

    Raises:
        ExtraMissingError: there are none for it.
    """
    import torch

    kind = torch.device(device).type
    if kind == "cpu":
        return CpuKernels()
    from mambabench.errors import ExtraMissingError

    raise ExtraMissingError(
        f"there are no scan kernels for {kind} that start from a state",
        hint="Use `--engine as-shipped`, or `--device cpu`.",
    )


def _require(tensor: Tensor, shape: tuple[int | None, ...], columns: int = 0) -> None:
    # The compiled loops read past the end of an array that is too short, so no wrong shape may reach them.
    fits = tensor.dim() == len(shape) and all(
        want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits or tensor.shape[-1] < columns:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} where {shape} is needed")
    if str(tensor.dtype) != "torch.float32" or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(f"contiguous float32 on the CPU is needed, not {tensor.dtype} on {tensor.device}")
