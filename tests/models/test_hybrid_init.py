"""Random weights of mamba_ssm's hybrids: the seed's alone, and spread as published.

`test_hybrid_loading.py` compares the spread with that of mamba_ssm's own constructors, where these are here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import build_tokenizer, hybrid_config, mamba_ssm_config, tiny_hybrid
from torch.nn.functional import softplus

from mambabench.models.hybrid_init import random_state
from mambabench.models.hybrid_shapes import parameter_shapes
from mambabench.models.load import check, load
from mambabench.registry import resolve

HYBRID = hybrid_config()
_MAMBA2 = HYBRID["ssm_cfg"]
IDS = torch.tensor([[5, 99, 14, 203, 7, 7, 61, 3], [250, 1, 2, 3, 4, 5, 6, 299]])


def test_a_registered_hybrid_needs_no_download_for_random_weights(tmp_path: Path) -> None:
    plan = check(
        resolve("mamba2attn-2.7b"), weights="random", device="cpu", tokenizer=str(build_tokenizer(tmp_path))
    )
    assert (plan.implementation, plan.family, plan.seed) == ("mambabench", "hybrid", 0)
    assert plan.rows_stored == 50288


def test_random_weights_follow_the_seed_only(tmp_path: Path) -> None:
    directory = tiny_hybrid(tmp_path)
    (directory / "pytorch_model.bin").unlink()

    def random(seed: int, **how: Any) -> Any:
        ref = resolve(str(directory), need_weights=False)
        return load(check(ref, weights="random", device="cpu", seed=seed, **how))

    first = random(1)
    before = torch.random.get_rng_state()
    assert torch.equal(random(1).logits(IDS, 8), first.logits(IDS, 8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.allclose(random(2).logits(IDS, 8), first.logits(IDS, 8))
    assert (first.record.seed, first.record.files) == (1, ())
    assert random(1, dtype="bf16").record.dtypes["matmul"] == "bfloat16"
    wide, narrow = (random_state(HYBRID, seed=1, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    for name, tensor in narrow.items():
        assert torch.equal(tensor, wide[name].to(tensor.dtype)), name
    assert narrow["backbone.layers.0.mixer.A_log"].dtype == torch.float32


def test_random_weights_are_spread_as_published() -> None:
    config = {**HYBRID, "d_model": 64, "n_layer": 9, "attn_layer_idx": [1, 4], "tie_embeddings": False}
    found = random_state(config, seed=0, dtype=torch.float32)
    assert {name: tuple(t.shape) for name, t in found.items()} == parameter_shapes(config)
    mamba, attention = "backbone.layers.0.mixer.", "backbone.layers.1.mixer."
    assert found["backbone.embedding.weight"].std() == pytest.approx(0.02, rel=0.05)
    dt = softplus(torch.cat([t for name, t in found.items() if name.endswith("dt_bias")]))
    assert 0.001 <= dt.min() < 0.003
    assert 0.03 < dt.max() <= 0.1001
    a = torch.cat([t for name, t in found.items() if name.endswith("A_log")]).exp()
    assert 1 <= a.min() < 2
    assert 15 < a.max() <= 16
    assert torch.equal(found[mamba + "D"], torch.ones(16))
    # What each uniform parameter is bounded by.
    for name, bound in (
        (mamba + "in_proj.weight", 64**-0.5),
        (mamba + "out_proj.weight", 128**-0.5 / 3),
        (attention + "out_proj.weight", 64**-0.5 / 3),
        (mamba + "conv1d.weight", 0.5),
        (attention + "conv1d.bias", 0.5),
        ("lm_head.weight", 64**-0.5),
    ):
        assert 0.97 * bound < found[name].abs().max() <= bound, name
    first = random_state(mamba_ssm_config(rms_norm=False), seed=0, dtype=torch.float32)
    assert torch.allclose(first["backbone.layers.1.mixer.A_log"].exp(), torch.arange(1.0, 9.0).expand(64, 8))
    assert torch.equal(first["backbone.norm_f.bias"], torch.zeros(32))
    wide = random_state(
        {**config, "ssm_cfg": {**_MAMBA2, "conv_init": 2.0, "bias": True}}, seed=0, dtype=torch.float32
    )
    assert 1.9 < wide[mamba + "conv1d.weight"].abs().max() <= 2
    assert torch.equal(wide[mamba + "in_proj.bias"], torch.zeros_like(wide[mamba + "in_proj.bias"]))
    assert wide[attention + "conv1d.weight"].abs().max() <= 0.5
