"""Stand-ins for mamba_ssm's compiled scans, in plain torch: what they compute, and what they demand.

Between inputs and outputs of 16 bits they compute in float32, as the kernels do. They refuse what the kernels
would: other dtypes, and layouts that these would have to copy or would read wrongly.

    y, last = selective_scan(u, delta, A, B, C, D, z=z, delta_bias=bias, delta_softplus=True,
                             return_last_state=True)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor,
    delta_softplus: bool, return_last_state: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Do what `selective_scan_fn` does, from zeros."""
    assert delta_softplus
    assert return_last_state
    batch, channels, length = u.shape
    n_states = A.shape[1]
    for tensor in (u, delta, z):
        assert tensor.shape == u.shape
    for tensor in (B, C):
        assert tensor.shape == (batch, n_states, length)
    for tensor in (u, delta, B, C, z):
        assert tensor.dtype == u.dtype
        assert tensor.stride(-1) == 1
    for tensor in (A, D, delta_bias):
        assert tensor.dtype == torch.float32
    assert n_states <= 256
    step = F.softplus(delta.float() + delta_bias[:, None])
    state, ys = u.new_zeros(batch, channels, n_states, dtype=torch.float32), []
    for t in range(length):
        drive = (step[..., t] * u[..., t].float())[..., None] * B[:, None, :, t].float()
        state = torch.exp(step[..., t, None] * A) * state + drive
        ys.append((state * C[:, None, :, t].float()).sum(-1))
    y = (torch.stack(ys, -1) + u.float() * D[:, None]) * F.silu(z.float())
    # The kernel's last state is every other number of what it wrote down.
    both = torch.stack([torch.ones_like(state), state], -1).flatten(2)
    return y.to(u.dtype), both[..., 1::2]


def chunk_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, *, D: Tensor, dt_bias: Tensor,
    dt_softplus: bool, initial_states: Tensor | None, return_final_states: bool,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Do what `mamba_chunk_scan_combined` does, token by token."""
    assert dt_softplus
    assert return_final_states
    assert chunk_size & (chunk_size - 1) == 0
    batch, length, heads, width = x.shape
    groups, n_states = B.shape[2:]
    assert dt.shape == (batch, length, heads)
    assert B.shape == C.shape == (batch, length, groups, n_states)
    assert D.shape in {(heads, width), (heads,)}
    for tensor in (x, B, C):
        assert tensor.dtype == x.dtype
        assert tensor.stride(-1) == 1
    state = x.new_zeros(batch, heads, width, n_states, dtype=torch.float32)
    if initial_states is not None:
        assert initial_states.shape == state.shape
        state = initial_states.float()
    skip = D if D.dim() == 2 else D[:, None]
    step, ys = F.softplus(dt.float() + dt_bias).clamp(*dt_limit), []
    b, c = (v.float().repeat_interleave(heads // groups, dim=2) for v in (B, C))
    for t in range(length):
        drive = (step[:, t, :, None] * x[:, t].float())[..., None] * b[:, t, :, None]
        state = torch.exp(step[:, t] * A)[..., None, None] * state + drive
        ys.append((state * c[:, t, :, None]).sum(-1) + skip * x[:, t].float())
    return torch.stack(ys, 1).to(x.dtype), state
