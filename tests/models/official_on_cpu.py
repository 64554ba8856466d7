"""Stand-ins for mamba_ssm's compiled functions, so that its own Python code runs on a CPU.

They must be in place before `mamba_ssm` and transformers are imported, so that what uses them is a script
that a test starts in a process of its own. They ask of their arguments what the compiled functions ask.

    install()
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
"""

from __future__ import annotations

import sys
import types
from typing import Any

import torch
import torch.nn.functional as F


def scan_forward(
    u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any, delta_softplus: bool
) -> list[Any]:
    """Stand in for `selective_scan_cuda.fwd`: the same outputs, position by position."""
    # The compiled one refuses anything else.
    assert {t.dtype for t in (A, D, delta_bias)} == {torch.float32}
    assert {t.dtype for t in (delta, B, C, z) if t is not None} == {u.dtype}
    dtype = u.dtype
    u, delta, B, C = (t.float() for t in (u, delta, B.squeeze(1), C.squeeze(1)))
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    state = torch.zeros(u.shape[0], u.shape[1], A.shape[1])
    columns = []
    for t in range(u.shape[2]):
        state = (
            torch.exp(delta[:, :, t, None] * A) * state
            + (delta[:, :, t] * u[:, :, t])[..., None] * B[:, None, :, t]
        )
        columns.append((state * C[:, None, :, t]).sum(-1))
    out = torch.stack(columns, dim=-1)
    if D is not None:
        out = out + u * D[:, None]
    # The last state stands in the odd entries of the last column.
    x = torch.zeros(u.shape[0], u.shape[1], 1, 2 * A.shape[1])
    x[:, :, -1, 1::2] = state
    outputs = [out] if z is None else [out, out * F.silu(z.float())]
    first, *rest = (t.to(dtype) for t in outputs)
    return [first, x, *rest]


def norm_forward(
    x: Any, weight: Any, bias: Any, residual: Any = None, eps: float = 1e-6, prenorm: bool = False,
    residual_in_fp32: bool = False, is_rms_norm: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """Stand in for `layer_norm_fn`: add, then normalise."""
    if residual is not None:
        x = x + residual
    wide = x.float()
    out = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(weight.dtype)
    return (out, wide if residual_in_fp32 else x) if prenorm else out


def install() -> None:
    """Put the stand-ins in place."""
    stub: Any = types.ModuleType("selective_scan_cuda")
    stub.fwd = scan_forward
    sys.modules["selective_scan_cuda"] = stub
    from mamba_ssm.models import mixer_seq_simple
    from mamba_ssm.modules import block, mamba_simple

    mixer_seq_simple.layer_norm_fn = block.layer_norm_fn = norm_forward
    mamba_simple.selective_state_update = None
