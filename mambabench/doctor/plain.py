"""The kernels' computations in plain torch operations, one step of the recurrence at a time.

In the kernel's own dtype they say how much of an error rounding alone makes; in float64 they are the
reference for what `mambabench.kernels.reference` does not have. The sixteen-bit ones compute in float32
between 16-bit inputs and outputs, as the kernels do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mambabench.kernels.reference import selective_scan_reference, ssd_reference

Outputs = dict[str, Tensor]


def normal(seed: int, *shape: int) -> Tensor:
    """Return random float32 numbers on the CPU, the same for a seed on every machine of one torch version."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decays(*shape: int) -> Tensor:
    """Return a state matrix as Mamba's initialisation makes it, -1 to -N along the last axis, float32."""
    return -torch.arange(1.0, shape[-1] + 1).expand(*shape).clone()


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that a kernel computes in between inputs and outputs of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def scan(inputs: Sequence[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the selective scan with softplus and gate.

    Args:
        inputs: u [B, L, d], whose dtype is the output's; delta before bias and softplus [B, L, d]; A [d, N];
            B [B, L, N]; C [B, L, N]; D [d]; the gate z [B, L, d]; the bias [d].
        state: before the first step, [B, d, N]; zero when absent.

    Returns:
        The output [B, L, d] and the last state [B, d, N] in the dtype of the computation.
    """
    dtype = wide(inputs[0].dtype)
    x, step, a, b, c, skip, gate, bias = (v.to(dtype) for v in inputs)
    step = functional.softplus(step + bias)
    h = x.new_zeros(x.shape[0], *a.shape) if state is None else state.to(dtype)
    ys = []
    for t in range(x.shape[1]):
        h = torch.exp(step[:, t, :, None] * a) * h + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
        ys.append((h * c[:, t, None]).sum(-1))
    y = (torch.stack(ys, 1) + x * skip) * functional.silu(gate)
    return y.to(inputs[0].dtype), h


def exact_scan(inputs: Sequence[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what `scan` should, by the float64 loop of `mambabench.kernels.reference`."""
    *arrays, z, bias = (v.double().cpu().numpy() for v in inputs)
    y, last = selective_scan_reference(
        *arrays,
        z=z,
        delta_bias=bias,
        delta_softplus=True,
        initial_state=None if state is None else state.double().cpu().numpy(),
    )
    return torch.from_numpy(y), torch.from_numpy(last)


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run Mamba-2's scan over one sequence; shapes are those of `ssd_reference`.

    Returns:
        The output [L, H, P] in x's dtype and the last state [H, N, P] in the dtype of the computation.
    """
    dtype = wide(x.dtype)
    u, step, a, b, c, skip = (v.to(dtype) for v in (x, dt, A, B, C, D))
    step = functional.softplus(step + bias.to(dtype))
    heads, width = u.shape[1:]
    b, c = (v.repeat_interleave(heads // v.shape[1], dim=1) for v in (b, c))
    h = u.new_zeros(heads, b.shape[-1], width) if state is None else state.to(dtype)
    ys = []
    for t in range(u.shape[0]):
        h = torch.exp(step[t] * a)[:, None, None] * h + b[t][:, :, None] * (step[t][:, None] * u[t])[:, None]
        ys.append(torch.einsum("hn,hnp->hp", c[t], h) + skip * u[t])
    return torch.stack(ys).to(x.dtype), h


def exact_ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what `ssd` should, by the float64 loop of `mambabench.kernels.reference`."""
    arrays = (v.double().cpu().numpy() for v in (x, dt, A, B, C, D))
    y, last = ssd_reference(
        *arrays,
        dt_bias=bias.double().cpu().numpy(),
        initial_state=None if state is None else state.double().cpu().numpy(),
    )
    return torch.from_numpy(y), torch.from_numpy(last)


def conv(x: Tensor, weight: Tensor, bias: Tensor, window: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a causal convolution and SiLU over one sequence, as a sum over its taps.

    Args:
        x: [L, d]; its dtype is the output's.
        weight: oldest input first, [k, d].
        bias: [d].
        window: the inputs before, [k - 1, d]; zero when absent.

    Returns:
        The output [L, d] and the last k - 1 inputs, [k - 1, d].
    """
    dtype = wide(x.dtype)
    taps, channels = weight.shape
    before = x.new_zeros(taps - 1, channels) if window is None else window.to(x.dtype)
    seen = torch.cat([before, x])
    total = bias.to(dtype).expand(x.shape[0], channels)
    for tap in range(taps):
        total = total + seen[tap : tap + x.shape[0]].to(dtype) * weight[tap].to(dtype)
    return functional.silu(total).to(x.dtype), seen[seen.shape[0] - taps + 1 :]


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the root-mean-square normalisation of the last axis."""
    mean = x.square().mean(-1, keepdim=True)
    return x * torch.rsqrt(mean + eps) * weight
