"""The selective scan on a CPU: compiled loops over time, vector code over channels, with gradients.

transformers' own CPU path is a Python loop with three tensor operations a step; this one is a single
compiled loop, takes a state to start from, and returns the state it ends with, so that a text may be
fed in pieces. The recurrence is algorithm 2 of Gu & Dao 2023 (arXiv:2312.00752, section 3).

    >>> import torch
    >>> ones = torch.ones(1, 3, 1)
    >>> y, state = selective_scan(ones, ones, -torch.ones(1, 1), ones, ones)
    >>> y2, _ = selective_scan(ones, ones, -torch.ones(1, 1), ones, ones, initial_state=state)
    >>> [round(v, 4) for v in [*y[0, :, 0].tolist(), *y2[0, :, 0].tolist()]]
    [1.0, 1.3679, 1.5032, 1.553, 1.5713, 1.5781]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mambabench.kernels import _scan_numba as loops
from mambabench.kernels.threads import split


class _Scan(torch.autograd.Function):
    """y_t = C_t h_t with h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
    ) -> tuple[Tensor, Tensor]:
        u, delta, B, C = (v.contiguous() for v in (u, delta, B, C))
        a = A.t().contiguous()
        state = initial_state.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        batch, length, channels = u.shape
        n_chunks = -(-length // loops.CHUNK_STEPS) if any(ctx.needs_input_grad) else 0
        kept = u.new_empty(batch, n_chunks, a.shape[0], channels)
        y = torch.empty_like(u)
        _run(loops.forward, batch * _blocks(channels), u, delta, a, B, C, state, y, kept)
        ctx.save_for_backward(u, delta, a, B, C, kept)
        return y, state.transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
        u, delta, a, B, C, kept = ctx.saved_tensors
        batch, _, channels = u.shape
        du, ddelta = torch.empty_like(u), torch.empty_like(u)
        da = u.new_zeros(batch, *a.shape)
        db, dc = (u.new_empty(_blocks(channels), *v.shape) for v in (B, C))
        dstate = dlast.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        tensors = (u, delta, a, B, C, kept, dy.contiguous(), dstate, du, ddelta, da, db, dc)
        _run(loops.backward, batch * _blocks(channels), *tensors)
        return du, ddelta, da.sum(0).t(), db.sum(0), dc.sum(0), dstate.transpose(1, 2)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the scan on CPU tensors; gradients flow to every tensor argument.

    float64 is computed in float64, every other dtype in float32; the number of threads is torch's.

    Args:
        u: input, [B, L, d].
        delta: step sizes before bias and softplus, [B, L, d].
        A: state matrix, one diagonal a channel, [d, N]; negative in a trained model.
        B: input projection, [B, L, N].
        C: output projection, [B, L, N].
        D: skip weights, [d].
        z: gate, [B, L, d]; the output is multiplied by z * sigmoid(z).
        delta_bias: added to delta first, [d].
        delta_softplus: whether delta then goes through log(1 + exp(delta)).
        initial_state: state before the first step, [B, d, N]; zero when absent.

    Returns:
        The output [B, L, d] in u's dtype and the state after the last step [B, d, N] in the dtype of
        the computation (float32 or float64).

    Raises:
        ValueError: shapes do not fit together, or a tensor is not on the CPU.
    """
    _check(u, delta, A, B, C, D, z, delta_bias, initial_state)
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, step, a, b, c = (v.to(dtype) for v in (u, delta, A, B, C))
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)
    if delta_softplus:
        step = functional.softplus(step)
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], *a.shape)
    y, last = _Scan.apply(x, step, a, b, c, initial_state.to(dtype))  # type: ignore[no-untyped-call]
    if D is not None:
        y = y + x * D.to(dtype)
    if z is not None:
        y = y * functional.silu(z.to(dtype))
    return y.to(u.dtype), last


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> None:
    # The compiled loops read past the end of an array that is too short, so no wrong shape may reach them.
    if u.dim() != 3 or A.dim() != 2:
        raise ValueError(f"u must be [B, L, d] and A [d, N], not {tuple(u.shape)} and {tuple(A.shape)}")
    batch, length, channels = u.shape
    n_states = A.shape[1]
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "u": (u, (batch, length, channels)),
        "delta": (delta, (batch, length, channels)),
        "A": (A, (channels, n_states)),
        "B": (B, (batch, length, n_states)),
        "C": (C, (batch, length, n_states)),
        "D": (D, (channels,)),
        "z": (z, (batch, length, channels)),
        "delta_bias": (delta_bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, n_states)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, not {tuple(tensor.shape)}")
        if tensor.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, not on {tensor.device}")


def _blocks(channels: int) -> int:
    return -(-channels // loops.BLOCK_CHANNELS)


def _run(loop: Callable[..., None], n_units: int, *tensors: Tensor) -> None:
    """Do all units of work; their results do not overlap."""
    arrays = [tensor.detach().numpy() for tensor in tensors]
    split(n_units, lambda first, last: loop(*arrays, loops.CHUNK_STEPS, first, last))
