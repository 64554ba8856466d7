"""Models that mix attention with a recurrence: the recurrence keeps fp32 whatever the class is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import N_ROWS, build_tokenizer
from transformers import BambaConfig, BambaForCausalLM, JambaConfig, JambaForCausalLM

from mambabench.models.load import check, load
from mambabench.registry import resolve

IDS = torch.tensor([[5, 99, 14, 203, 7, 7, 61, 3], [250, 1, 2, 3, 4, 5, 6, 299]])
_COMMON: dict[str, Any] = {
    "vocab_size": N_ROWS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_JAMBA = JambaConfig(
    **_COMMON, use_mamba_kernels=False, mamba_d_state=8, mamba_dt_rank=4, num_experts=2,
    num_experts_per_tok=1, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
    expert_layer_offset=1,
)  # fmt: skip
_BAMBA = BambaConfig(
    **_COMMON, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=16, mamba_n_groups=1, mamba_chunk_size=16,
    attn_layer_indices=[1, 3],
)  # fmt: skip
CASES = {
    "jamba": (JambaForCausalLM, _JAMBA, "A_log D"),
    "bamba": (BambaForCausalLM, _BAMBA, "A_log D dt_bias"),
}


def _load(path: Path, **options: Any) -> Any:
    return load(check(resolve(str(path)), device="cpu", **options))


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize("name", CASES)
def test_a_hybrid_in_bf16_keeps_its_recurrence_in_fp32(tmp_path: Path, name: str, weights: str) -> None:
    kind, config, recurrence = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = kind(config)
        for parameter in module.parameters():
            # Numbers that bf16 cannot hold, so that a detour over it would show.
            parameter.data += 1e-4 * torch.randn(parameter.shape)
        module.save_pretrained(tmp_path)
    build_tokenizer(tmp_path)
    wide = _load(tmp_path, weights=weights)
    narrow = _load(tmp_path, weights=weights, dtype="bf16")
    dtypes = narrow.record.dtypes
    assert {group for group, dtype in dtypes.items() if dtype == "float32"} == set(recurrence.split())
    assert dtypes["matmul"] == dtypes["embedding"] == "bfloat16"
    exact = dict(wide.module.named_parameters())
    for key, parameter in narrow.module.named_parameters():
        assert torch.equal(parameter, exact[key].to(parameter.dtype)), key
    expected = wide.logits(IDS, 8)
    difference = narrow.logits(IDS, 8).float() - expected
    assert 0 < difference.std() < 0.05 * expected.std()
