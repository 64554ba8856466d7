"""The operations of a recurrent layer over sequences that lie end to end, each on from a state of its own.

One class a device; `kernels_for` picks it. Layers ask for nothing else, so a new device is a new class.

    kernels = kernels_for("cpu")
    after = Rows.places(None, u, (n_states, d_inner), n_rows)
    y = kernels.scan(u, dt, dt_bias, A, proj, dt_rank, D, xz, d_inner, starts, None, after)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mambabench.kernels.threads import split
from mambabench.kernels.ways import OneWay, Ways

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from mambabench.kernels.rows import Rows


class PackedKernels(Ways, Protocol):
    """What a device must offer. T tokens in all, B rows, d channels, N states a channel; float32.

    Where rows go on from a state, `before` has it, null or a null for a row standing for zeros. `after` says
    where the new one is wanted, with a null for a row whose state is not, or is null for none; a row's place
    may be the one that it has in `before`, but not another row's.
    """

    dtype: torch.dtype
    """Of the activations that matrix products take between the operations; states are float32 always."""

    def conv_silu(
        self,
        x: Tensor,
        column: int,
        weight: Tensor,
        bias: Tensor,
        starts: npt.NDArray[np.int64],
        before: Rows | None,
        after: Rows | None,
    ) -> Tensor:
        """Run a causal depthwise convolution and SiLU on d columns of `x`.

        Args:
            x: [T, W] of which the columns from `column` to `column + d` are convolved.
            column: first of them.
            weight: taps, oldest input first, [k, d].
            bias: [d].
            starts: where each row begins, and T, [B + 1].
            before: the k - 1 inputs before each row, [k - 1, d].
            after: places for the last k - 1 inputs.

        Returns:
            The activations [T, d].
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
        before: Rows | None,
        after: Rows | None,
    ) -> Tensor:
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
            before: the state before each row's first token, [N, d].
            after: places for the state after the last.

        Returns:
            silu(z) * (C h + D u) [T, d].
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
        before: Rows | None,
        after: Rows | None,
        *,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
    ) -> Tensor:
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
            before: the state before each row's first token, [H, N, P].
            after: places for the state after the last.
            dt_limit: smallest and largest step size after softplus.

        Returns:
            C h + D u [T, H * P].
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


class CpuKernels(OneWay):
    """Compiled loops on threads of our own; see `PackedKernels` for the methods' contract."""

    name = "mambabench compiled scan"

    def __init__(self) -> None:
        import torch

        # numba takes half a second to import, and the loops seconds to compile the first time.
        from mambabench.kernels import _packed_numba, _ssd_numba

        self.dtype = torch.float32

        self._loops = _packed_numba
        self._ssd = _ssd_numba

    def conv_silu(
        self,
        x: Tensor,
        column: int,
        weight: Tensor,
        bias: Tensor,
        starts: npt.NDArray[np.int64],
        before: Rows | None,
        after: Rows | None,
    ) -> Tensor:
        """Run a causal depthwise convolution and SiLU on d columns of `x`."""
        taps, channels = weight.shape
        _require(x, (starts[-1], None), column + channels)
        _require(weight, (taps, channels))
        _require(bias, (channels,))
        old, new = (_addresses(rows, starts, (taps - 1, channels)) for rows in (before, after))
        y = x.new_empty(x.shape[0], channels)
        arrays = x.numpy(), column, weight.numpy(), bias.numpy(), starts, old, y.numpy()
        split(x.shape[0], lambda first, last: self._loops.conv_silu(*arrays, first, last))
        if after is not None:
            self._loops.windows(x.numpy(), column, channels, taps - 1, starts, old, new)
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
        starts: npt.NDArray[np.int64],
        before: Rows | None,
        after: Rows | None,
    ) -> Tensor:
        """Run the selective scan of Mamba-1 with its gate."""
        n_states, channels = A_log2.shape
        length = starts[-1]
        _require(u, (length, channels))
        _require(dt, (length, channels))
        _require(dt_bias, (channels,))
        _require(proj, (length, None), column + 2 * n_states)
        _require(D, (channels,))
        _require(xz, (length, None), z_column + channels)
        y = u.new_empty(u.shape)
        part = self._part(channels)
        arrays = (
            *(v.numpy() for v in (u, dt, dt_bias, A_log2, proj)),
            column,
            D.numpy(),
            xz.numpy(),
            z_column,
            starts,
            *(_addresses(rows, starts, (n_states, channels)) for rows in (before, after)),
            part,
            y.numpy(),
        )
        units = (len(starts) - 1) * -(-channels // part)
        split(units, lambda first, last: self._loops.scan(*arrays, first, last))
        return y

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
        before: Rows | None,
        after: Rows | None,
        *,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
    ) -> Tensor:
        """Run the scan of Mamba-2 with H heads of P channels."""
        heads, width = D.shape
        length = int(starts[-1])
        n_states = (xbc.shape[-1] - heads * width) // (2 * n_groups)
        if n_states < 1 or heads % n_groups:
            raise ValueError(f"{n_groups} groups do not fit {heads} heads and {xbc.shape[-1]} columns")
        _require(xbc, (length, heads * width + 2 * n_groups * n_states))
        _require(zxbcdt, (length, None), dt_column + heads)
        for vector in (dt_bias, A_log2):
            _require(vector, (heads,))
        _require(D, (heads, width))
        old, new = (_addresses(rows, starts, (heads, n_states, width)) for rows in (before, after))
        y = xbc.new_empty(length, heads * width)
        self._ssd.run(
            xbc.numpy(),
            zxbcdt.numpy(),
            dt_column,
            (dt_bias.numpy(), A_log2.numpy(), D.numpy()),
            n_groups,
            starts,
            (n_states, old, new),
            (float(dt_limit[0]), float(dt_limit[1])),
            y.numpy(),
        )
        return y

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

    def _part(self, channels: int) -> int:
        """Return how many channels of every token a thread scans: whole tokens come fastest from memory."""
        import torch

        lanes = self._loops.LANES
        parts = max(torch.get_num_threads(), -(-channels // self._loops.MOST_CHANNELS))
        return -(-channels // (parts * lanes)) * lanes


def kernels_for(device: torch.device | str, dtype: torch.dtype | None = None) -> PackedKernels:
    """Return the kernels of a device; on a GPU with mamba_ssm its scans do the long rows.

    Args:
        device: that the tensors are on.
        dtype: of the matrix products, which a GPU's kernels give their results in; float32 when absent.

    Raises:
        ExtraMissingError: there are none for it, or they cannot run.
    """
    import torch

    kind = torch.device(device).type
    if kind == "cpu":
        return CpuKernels()
    if kind == "cuda":
        from mambabench.kernels.gpu.choice import cuda_kernels

        return cuda_kernels(torch.float32 if dtype is None else dtype)
    from mambabench.errors import ExtraMissingError

    raise ExtraMissingError(
        f"there are no scan kernels for {kind} that start from a state",
        hint="Use `--engine as-shipped`, or `--device cpu`.",
    )


def obstacle(device: torch.device | str) -> str | None:
    """Return why `kernels_for` has nothing for a device, in words, or null.

    >>> obstacle("cpu") is None, obstacle("mps")
    (True, 'there are no scan kernels for mps')
    """
    import torch

    kind = torch.device(device).type
    if kind == "cpu":
        return None
    if kind != "cuda":
        return f"there are no scan kernels for {kind}"
    from mambabench.kernels.gpu import triton_kernels

    return triton_kernels.obstacle()


def _addresses(
    rows: Rows | None, starts: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    import numpy as np
    import torch

    n_rows = len(starts) - 1
    return np.zeros(n_rows, np.int64) if rows is None else rows.addresses(n_rows, shape, torch.float32)


def _require(tensor: Tensor, shape: tuple[int | None, ...], columns: int = 0) -> None:
    # The compiled loops read past the end of an array that is too short, so no wrong shape may reach them.
    fits = tensor.dim() == len(shape) and all(
        want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits or tensor.shape[-1] < columns:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} where {shape} is needed")
    if str(tensor.dtype) != "torch.float32" or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(f"contiguous float32 on the CPU is needed, not {tensor.dtype} on {tensor.device}")
