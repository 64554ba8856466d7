"""The plain forward of mamba_ssm's models, in 64 bits: against another such forward, and transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import spread_weights, tiny_hybrid, tiny_mamba2, tiny_mamba_ssm
from models.test_step_hybrid import CONFIGS, N, exact, weights

from mambabench.models import convert
from mambabench.models.load import check, load
from mambabench.models.plain_model import PlainModel
from mambabench.models.wide_forward import wide_logits
from mambabench.registry import resolve

WIDE_TOLERANCE = 1e-11
"""Relative to the largest logit; a few hundred roundings of 64 bits."""
IDS = torch.randint(0, N, (3, 19), generator=torch.Generator().manual_seed(0))


def assert_close(got: torch.Tensor, want: torch.Tensor, tolerance: float = WIDE_TOLERANCE) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tolerance * want.abs().max()
    assert want.std() > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_it_equals_a_forward_of_single_rows(name: str) -> None:
    config = CONFIGS[name]
    state = weights(config)
    model = PlainModel(config, state)
    want = torch.stack([exact(config, state, row) for row in IDS])
    assert_close(wide_logits(model, IDS, keep=19, vocab_size=N), want)
    # The same in the weights' own dtype, which is not 64 bits.
    assert_close(model(IDS).logits[..., :N], want.float(), 2e-5)
    assert_close(wide_logits(model, IDS, keep=4, vocab_size=N - 3), want[:, -4:, : N - 3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_widened_and_stay_narrow(dtype: torch.dtype) -> None:
    config = CONFIGS["all_of_mamba2"]
    state = {name: tensor.to(dtype) for name, tensor in weights(config).items()}
    model = PlainModel(config, state)
    want = torch.stack([exact(config, state, row) for row in IDS])
    assert_close(wide_logits(model, IDS, keep=19, vocab_size=N), want)
    assert {tensor.dtype for tensor in state.values()} == {dtype}


@pytest.mark.parametrize("build", ["mamba", "mamba2", "grouped mamba2"])
def test_it_equals_transformers(tmp_path: Path, build: str) -> None:
    if build == "grouped mamba2":
        directory = tiny_mamba2(
            tmp_path / "m",
            config={"n_groups": 2, "tie_word_embeddings": False, "time_step_limit": (0.01, 0.5)},
        )
    else:
        layer = {"mamba": "Mamba1", "mamba2": "Mamba2"}[build]
        directory = tiny_mamba_ssm(tmp_path / "m", layer=layer, with_tokenizer=True)
    model: Any = load(check(resolve(str(directory)), device="cpu", engine="as-shipped"))
    config = convert.to_mamba_ssm_config(model.module.config.to_dict())
    assert config is not None
    plain = PlainModel(config, convert.to_mamba_ssm_state(model.module.state_dict()))
    got, want = (wide_logits(module, IDS, keep=19, vocab_size=300) for module in (plain, model.module))
    assert_close(got, want)
    assert (plain.config.chunk_size is None) == (build == "mamba")


def test_a_transformer_equals_its_phi3_twin(tmp_path: Path) -> None:
    heads = {"causal": True, "num_heads": 4, "num_heads_kv": 2, "head_dim": 16, "rotary_emb_dim": 8}
    config = {
        "d_model": 32, "n_layer": 2, "vocab_size": 300, "ssm_cfg": {}, "attn_layer_idx": [0, 1],
        "d_intermediate": 100, "attn_cfg": {**heads, "qkv_proj_bias": False, "out_proj_bias": False},
    }  # fmt: skip
    directory = tiny_hybrid(tmp_path / "m", config)
    model: Any = load(check(resolve(str(directory)), device="cpu", engine="as-shipped"))
    plain = PlainModel(config, spread_weights(config))
    want = wide_logits(model.module, IDS, keep=19, vocab_size=300)
    # transformers keeps the rotation's angles in 32 bits.
    assert_close(wide_logits(plain, IDS, keep=19, vocab_size=300), want, 1e-5)
    assert plain.config.chunk_size is None
