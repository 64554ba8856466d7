"""Models that packed attention would get wrong are recognised, each for its own reason."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from builders import N_ROWS, llama_config, mamba_config, neox_config
from torch import nn
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from mambabench.models.attention_support import supports

_COMMON: dict[str, Any] = {
    "vocab_size": N_ROWS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 128}
_BAMBA = BambaConfig(
    **_COMMON, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=16, mamba_n_groups=1, attn_layer_indices=[1]
)
_T5 = T5Config(vocab_size=N_ROWS, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)


def _seeded(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        (MambaForCausalLM, mamba_config(), "attention cannot be replaced"),
        (BambaForCausalLM, _BAMBA, "attention cannot be replaced"),
        (BloomForCausalLM, BloomConfig(vocab_size=N_ROWS, hidden_size=32, n_layer=2, n_head=4), "replaced"),
        (T5ForConditionalGeneration, _T5, "encoder"),
        (Gemma2ForCausalLM, Gemma2Config(**_COMMON, head_dim=8), "sdpa|softcapping"),
        (CohereForCausalLM, CohereConfig(**_COMMON), "logit_scale"),
        (GraniteForCausalLM, GraniteConfig(**_COMMON, logits_scaling=8.0), "logits_scaling"),
        (LlamaForCausalLM, llama_config(rope_parameters=_ROPE), "longest row"),
    ],
)
def test_what_cannot_be_packed(kind: Any, config: Any, reason: str) -> None:
    found = supports(_seeded(kind, config))
    assert found is not None
    assert re.search(reason, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_can_be_packed_in_any_dtype(dtype: torch.dtype) -> None:
    assert supports(_seeded(GPTNeoXForCausalLM, neox_config()).to(dtype)) is None
    assert supports(_seeded(LlamaForCausalLM, llama_config(rope_parameters=_YARN)).to(dtype)) is None


class _Odd(LlamaForCausalLM):
    """A model that does to its logits what no field of its configuration tells."""

    def forward(self, *args: Any, **options: Any) -> Any:
        output = super().forward(*args, **options)
        output.logits = output.logits.tanh()
        return output


class _Shifted(nn.Module):
    """An MLP that mixes each token with the one before it in the batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.inner(x + x.roll(1, 1))
        return mixed


class _Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel\nand more")


def test_what_nobody_thought_of_is_found_by_trying() -> None:
    assert "differs" in str(supports(_seeded(_Odd, llama_config())))
    shifted = _seeded(LlamaForCausalLM, llama_config())
    shifted.model.layers[1].mlp = _Shifted(shifted.model.layers[1].mlp)
    assert "differs" in str(supports(shifted))
    failing = _seeded(LlamaForCausalLM, llama_config())
    failing.model.layers[1].mlp = _Failing()
    assert supports(failing) == "its forward fails when packed: no such kernel"
    assert failing.config._attn_implementation == "sdpa"


def test_a_window_that_only_the_mask_would_carry() -> None:
    module = _seeded(LlamaForCausalLM, llama_config())
    module.config.sliding_window = 16
    assert supports(module) == "its sliding windows do not reach its attention"


def test_a_model_in_training() -> None:
    module = _seeded(LlamaForCausalLM, llama_config(attention_dropout=0.5)).train()
    assert "dropout" in str(supports(module))


def test_a_layer_without_attention() -> None:
    module = _seeded(LlamaForCausalLM, llama_config())
    module.config.num_hidden_layers = 3
    assert "2 of its 3 layers" in str(supports(module))


def test_recurrent_parts_and_convolutions() -> None:
    module = _seeded(LlamaForCausalLM, llama_config())
    module.model.layers[0].mlp.A_log = nn.Parameter(torch.zeros(3))
    assert supports(module) == "it has recurrent layers"
    module = _seeded(LlamaForCausalLM, llama_config())
    module.model.layers[0].mlp.conv = nn.Conv1d(3, 3, 2)
    assert supports(module) == "it has convolutions"
