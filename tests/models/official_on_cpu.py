"""Run mamba_ssm's own Python code on a CPU and compare it with what mambabench makes of a checkpoint.

Not a test by itself: `test_official.py` starts it in a process of its own, because stand-ins for the CUDA
functions must be in place before `mamba_ssm` and transformers are imported. Prints a JSON object for each
directory, in one list.

    python official_on_cpu.py CHECKPOINT_DIRECTORY...
"""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import torch
import torch.nn.functional as F


def scan_forward(
    u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any, delta_softplus: bool
) -> list[Any]:
    """Stand in for `selective_scan_cuda.fwd`: the same outputs, position by position."""
    B, C = B.squeeze(1), C.squeeze(1)
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
    return [out, x] if z is None else [out, x, out * F.silu(z)]


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


def compare(directory: str) -> dict[str, Any]:
    """Compare logits and greedy continuations of both sides."""
    from mambabench.models import official, official_steps
    from mambabench.models.base import SamplingOptions
    from mambabench.models.certificate import measure
    from mambabench.models.load import check, load
    from mambabench.models.weights import read_state
    from mambabench.registry import resolve

    plan = check(resolve(directory), device="cpu")
    ours: Any = load(plan)
    if plan.format == "mamba_ssm":
        assert plan.source is not None
        config, state = plan.config, read_state(plan.source.weights)
    else:
        from mambabench.models import convert

        translated = convert.to_mamba_ssm_config(plan.config)
        assert translated is not None
        config, state = translated, convert.to_mamba_ssm_state(ours.module.state_dict())
    module = official.build(config, state, device=torch.device("cpu"), dtype=torch.float32)
    assert plan.architecture is not None
    steps = official_steps.steps_over(
        module, config, device=ours.device, vocab_size=plan.vocab_size, dtype=torch.float32
    )
    reference = official_steps.twin(module, config, plan.architecture)
    theirs = official.OfficialModel(module, plan.tokenizer, ours.record, stateful=steps, reference=reference)
    ids = torch.randint(0, plan.vocab_size, (3, 17), generator=torch.Generator().manual_seed(0))

    def stop(row: int, new_ids: Any) -> bool:
        return row == 2 and len(new_ids) == 4

    def generate(model: Any) -> list[list[int]]:
        found: list[list[int]] = model.generate(
            ids, max_new_tokens=9, options=SamplingOptions(), stop=stop, eos_ids=[]
        )
        return found

    return {
        "difference": float((ours.logits(ids, 17) - theirs.logits(ids, 17)).abs().max()),
        "shape": list(theirs.logits(ids, 5).shape),
        "last": float((ours.logits(ids, 5) - theirs.logits(ids, 5)).abs().max()),
        "ours": generate(ours),
        "theirs": generate(theirs),
        "tied": module.lm_head.weight is module.backbone.embedding.weight,
        "kernel_path": ours.record.kernel_path,
        "certificate": measure(theirs).model_dump(mode="json"),
    }


if __name__ == "__main__":
    install()
    print(json.dumps([compare(directory) for directory in sys.argv[1:]]))
