"""Run mamba_ssm's own Python code for hybrids on a CPU and compare it with `HybridSteps`.

Not a test by itself: `test_step_hybrid.py` starts it in a process of its own, because stand-ins for the CUDA
functions must be in place before `mamba_ssm` is imported. Reads a JSON object of configurations from its
standard input, and prints for each the largest difference in logits.

    python hybrids_on_cpu.py < configurations.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

import official_on_cpu
import torch
import torch.nn.functional as F
from torch import nn


class Rotary(nn.Module):
    """Stand in for flash_attn's class: pairs of columns as complex numbers, turned by the position."""

    def __init__(self, dim: int, base: float, interleaved: bool, device: Any = None) -> None:
        super().__init__()
        self.dim, self.base, self.interleaved = dim, base, interleaved

    def turn(self, x: Any) -> Any:
        """Turn the first columns of each head of [B, L, heads, head_dim]."""
        half = self.dim // 2
        angle = torch.arange(x.shape[1]).double()[:, None] * self.base ** (
            -torch.arange(half).double() / half
        )
        columns = torch.arange(self.dim)
        columns = columns.view(half, 2) if self.interleaved else columns.view(2, half).T
        pairs = torch.view_as_complex(x[..., columns].double().contiguous())
        turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)[None, :, None])
        x = x.clone()
        x[..., columns] = turned.to(x.dtype)
        return x

    def forward(self, q: Any, kv: Any, **_: Any) -> Any:
        """Turn queries and keys."""
        return self.turn(q), torch.stack([self.turn(kv[:, :, 0]), kv[:, :, 1]], dim=2)


def chunk_scan(
    x: Any, dt: Any, A: Any, B: Any, C: Any, *, D: Any, z: Any, dt_bias: Any,
    dt_limit: Any = (0.0, float("inf")), return_final_states: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """Stand in for `mamba_chunk_scan_combined`, position by position."""
    # Products of two dtypes are refused by the compiled one.
    assert {t.dtype for t in (B, C)} == {x.dtype}
    dtype = x.dtype
    x, B, C = x.float(), B.float(), C.float()
    dt = F.softplus(dt + dt_bias).clamp(*dt_limit)
    B, C = (v.repeat_interleave(x.shape[2] // v.shape[2], dim=2) for v in (B, C))
    state = torch.zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[3])
    y = torch.empty_like(x)
    for t in range(x.shape[1]):
        drive = torch.einsum("bhp,bhn->bhpn", x[:, t] * dt[:, t, :, None], B[:, t])
        state = torch.exp(dt[:, t] * A)[..., None, None] * state + drive
        y[:, t] = torch.einsum("bhpn,bhn->bhp", state, C[:, t])
    y = y + x * (D if D.dim() == 2 else D[:, None])
    y = (y if z is None else y * F.silu(z.float())).to(dtype)
    return (y, state) if return_final_states else y


def norm(x: Any, weight: Any, bias: Any, is_rms_norm: bool = False, **options: Any) -> Any:
    """Stand in for `layer_norm_fn` of either kind."""
    if is_rms_norm:
        return official_on_cpu.norm_forward(x, weight, bias, **options)
    if options.get("residual") is not None:
        x = x + options["residual"]
    out = F.layer_norm(x, weight.shape, weight, bias, options["eps"])
    return (out, x) if options.get("prenorm") else out


def install() -> None:
    """Put the stand-ins in place."""
    official_on_cpu.install()
    from mamba_ssm.models import mixer_seq_simple
    from mamba_ssm.modules import block, mamba2, mha
    from mamba_ssm.ops.triton import layernorm_gated

    mixer_seq_simple.layer_norm_fn = block.layer_norm_fn = norm
    mha.RotaryEmbedding = Rotary
    mamba2.mamba_chunk_scan_combined = chunk_scan
    layernorm_gated.rmsnorm_fn = layernorm_gated.rms_norm_ref


def difference(config: dict[str, Any]) -> float:
    """Return the largest difference in logits, whole and in pieces."""
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    from mambabench.models.step_hybrid import HybridSteps

    torch.manual_seed(0)
    # The fused path is CUDA alone; what it computes is the same.
    plain = {"use_mem_eff_path" if "Mamba2" in str(config["ssm_cfg"]) else "use_fast_path": False}
    module = MambaLMHeadModel(MambaConfig(**{**config, "ssm_cfg": {**config["ssm_cfg"], **plain}}))
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    rows = config["vocab_size"]
    steps = HybridSteps(config, module.state_dict(), vocab_size=rows, dtype=torch.float32)
    ids = torch.randint(0, rows, (3, 17))
    with torch.inference_mode():
        want = module(ids).logits[..., :rows]
    whole = steps.logits(steps.step(ids.flatten(), [17] * 3).hidden).view_as(want)
    head = steps.step(ids[:, :5].flatten(), [5] * 3)
    tail = steps.step(ids[:, 5:].flatten(), [12] * 3, head.state)
    pieces = torch.cat([steps.logits(s.hidden).view(3, -1, rows) for s in (head, tail)], dim=1)
    return float(max((whole - want).abs().max(), (pieces - want).abs().max()) / want.abs().max())


if __name__ == "__main__":
    install()
    print(json.dumps({name: difference(config) for name, config in json.load(sys.stdin).items()}))
