"""Conversions compared with forwards written out by hand in float64, straight from the papers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    N_ROWS,
    N_TOKENS,
    build_tokenizer,
    hybrid_config,
    mamba2_config,
    mamba_config,
    mamba_ssm_config,
    tiny_mamba_ssm,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import silu, softplus

from mambabench.errors import CheckpointError, ExtraMissingError
from mambabench.models import convert
from mambabench.models.load import check, load
from mambabench.registry import resolve

IDS = torch.tensor([[5, 99, 14, 203, 7, 7, 61, 3, 250, 11]])


def _rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * weight


def _mamba1_float64(
    state: dict[str, torch.Tensor], config: dict[str, Any], ids: torch.Tensor
) -> torch.Tensor:
    """Mamba-1's forward, one position and one state update at a time (arXiv:2312.00752, algorithm 2)."""
    w = {name: tensor.double() for name, tensor in state.items()}
    n_state = config["ssm_cfg"]["d_state"]
    x = w["backbone.embedding.weight"][ids]
    for layer in range(config["n_layer"]):
        p = f"backbone.layers.{layer}."
        xz = _rms_norm(x, w[p + "norm.weight"]) @ w[p + "mixer.in_proj.weight"].T
        u, z = xz.chunk(2, dim=-1)
        kernel, bias = w[p + "mixer.conv1d.weight"][:, 0], w[p + "mixer.conv1d.bias"]
        width = kernel.shape[1]
        A = -torch.exp(w[p + "mixer.A_log"])
        rank = w[p + "mixer.dt_proj.weight"].shape[1]
        batch, length, inner = u.shape
        h = torch.zeros(batch, inner, n_state, dtype=torch.float64)
        outputs = []
        for t in range(length):
            convolved = bias.expand(batch, inner).clone()
            for lag in range(width):
                if t - lag >= 0:
                    convolved = convolved + kernel[:, width - 1 - lag] * u[:, t - lag]
            s = silu(convolved)
            dt_low, B, C = (s @ w[p + "mixer.x_proj.weight"].T).split([rank, n_state, n_state], dim=-1)
            dt = softplus(dt_low @ w[p + "mixer.dt_proj.weight"].T + w[p + "mixer.dt_proj.bias"])
            h = torch.exp(dt[..., None] * A) * h + (dt * s)[..., None] * B[:, None]
            y = (h * C[:, None]).sum(-1) + w[p + "mixer.D"] * s
            outputs.append(y * silu(z[:, t]))
        x = x + torch.stack(outputs, dim=1) @ w[p + "mixer.out_proj.weight"].T
    return _rms_norm(x, w["backbone.norm_f.weight"]) @ w["lm_head.weight"].T


def _mamba2_float64(
    state: dict[str, torch.Tensor], config: dict[str, Any], ids: torch.Tensor
) -> torch.Tensor:
    """Mamba-2's forward as a recurrence over scalars per head (arXiv:2405.21060, section 7), one group."""
    w = {name: tensor.double() for name, tensor in state.items()}
    ssm = config["ssm_cfg"]
    n_state, head = ssm["d_state"], ssm["headdim"]
    x = w["backbone.embedding.weight"][ids]
    for layer in range(config["n_layer"]):
        p = f"backbone.layers.{layer}."
        inner = w[p + "mixer.out_proj.weight"].shape[1]
        heads = inner // head
        projected = _rms_norm(x, w[p + "norm.weight"]) @ w[p + "mixer.in_proj.weight"].T
        z, xbc, dt = projected.split([inner, inner + 2 * n_state, heads], dim=-1)
        kernel, bias = w[p + "mixer.conv1d.weight"][:, 0], w[p + "mixer.conv1d.bias"]
        dt = softplus(dt + w[p + "mixer.dt_bias"])
        A = -torch.exp(w[p + "mixer.A_log"])
        batch, length, _ = xbc.shape
        h = torch.zeros(batch, heads, head, n_state, dtype=torch.float64)
        outputs = []
        for t in range(length):
            taps = [kernel[:, -1 - lag] * xbc[:, t - lag] for lag in range(kernel.shape[1]) if t >= lag]
            u, B, C = silu(bias + sum(taps)).split([inner, n_state, n_state], dim=-1)
            u = u.view(batch, heads, head)
            decay = torch.exp(dt[:, t] * A)[..., None, None]
            h = decay * h + (dt[:, t, :, None] * u)[..., None] * B[:, None, None]
            y = (h * C[:, None, None]).sum(-1) + w[p + "mixer.D"][:, None] * u
            outputs.append(y.reshape(batch, inner))
        gated = torch.stack(outputs, dim=1) * silu(z)
        x = x + _rms_norm(gated, w[p + "mixer.norm.weight"]) @ w[p + "mixer.out_proj.weight"].T
    return _rms_norm(x, w["backbone.norm_f.weight"]) @ w["lm_head.weight"].T


@pytest.mark.parametrize(("layer", "reference"), [("Mamba1", _mamba1_float64), ("Mamba2", _mamba2_float64)])
def test_a_converted_mamba_computes_the_papers_recurrence(tmp_path: Path, layer: str, reference: Any) -> None:
    directory = tiny_mamba_ssm(tmp_path / "m", layer=layer, with_tokenizer=True)
    state = torch.load(directory / "pytorch_model.bin", weights_only=True)
    config = json.loads((directory / "config.json").read_text())
    model = load(check(resolve(str(directory)), device="cpu"))
    expected = reference(state, config, IDS)[..., :N_TOKENS]
    assert torch.allclose(model.logits(IDS, 10).double(), expected, atol=2e-5)
    assert expected.std() > 0.1


# --- Transformer++ --------------------------------------------------------------------------------------

ATTENTION = {
    "causal": True,
    "num_heads": 4,
    "num_heads_kv": 2,
    "head_dim": 16,
    "qkv_proj_bias": False,
    "out_proj_bias": False,
    "rotary_emb_dim": 8,
}


def _transformer_config(**changes: Any) -> dict[str, Any]:
    return mamba_ssm_config(
        ssm_cfg={}, d_intermediate=100, attn_layer_idx=[0, 1], attn_cfg={**ATTENTION, **changes}
    )


def _transformer_state(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    width, attention = config["d_model"], config["attn_cfg"]
    heads, kv, dim = attention["num_heads"], attention["num_heads_kv"], attention["head_dim"]
    state = {"backbone.embedding.weight": normal(N_ROWS, width) * 3}
    for layer in range(config["n_layer"]):
        p = f"backbone.layers.{layer}."
        state |= {
            p + "norm.weight": 1 + normal(width),
            p + "norm2.weight": 1 + normal(width),
            p + "mixer.in_proj.weight": normal((heads + 2 * kv) * dim, width),
            p + "mixer.out_proj.weight": normal(width, heads * dim),
            p + "mixer.rotary_emb.inv_freq": torch.zeros(4),
            # d_intermediate of 100 is rounded up to 128.
            p + "mlp.fc1.weight": normal(256, width),
            p + "mlp.fc2.weight": normal(width, 128),
        }
    state["backbone.norm_f.weight"] = 1 + normal(width)
    state["lm_head.weight"] = state["backbone.embedding.weight"]
    return state


def _rotate(x: torch.Tensor, n_rotary: int) -> torch.Tensor:
    """Rotate the first `n_rotary` of each head's dimensions, the halves as pairs; x is [B, L, H, D]."""
    half = n_rotary // 2
    angles = torch.arange(x.shape[1])[:, None] * 10000.0 ** (-torch.arange(half).double() / half)
    cos, sin = torch.cos(angles)[:, None], torch.sin(angles)[:, None]
    first, second, rest = x[..., :half], x[..., half:n_rotary], x[..., n_rotary:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def _transformer_float64(state: dict[str, torch.Tensor], config: dict[str, Any]) -> torch.Tensor:
    w = {name: tensor.double() for name, tensor in state.items()}
    a = config["attn_cfg"]
    heads, kv, dim = a["num_heads"], a["num_heads_kv"], a["head_dim"]
    x = w["backbone.embedding.weight"][IDS]
    batch, length, _ = x.shape
    mask = torch.full((length, length), -math.inf).triu(1).double()
    for layer in range(config["n_layer"]):
        p = f"backbone.layers.{layer}."
        qkv = _rms_norm(x, w[p + "norm.weight"]) @ w[p + "mixer.in_proj.weight"].T
        q, k, v = qkv.split([heads * dim, kv * dim, kv * dim], dim=-1)
        q = _rotate(q.view(batch, length, heads, dim), a["rotary_emb_dim"])
        k = _rotate(k.view(batch, length, kv, dim), a["rotary_emb_dim"]).repeat_interleave(heads // kv, 2)
        v = v.view(batch, length, kv, dim).repeat_interleave(heads // kv, 2)
        scores = torch.einsum("blhd,bmhd->bhlm", q, k) / math.sqrt(dim) + mask
        mixed = torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), v).reshape(batch, length, heads * dim)
        x = x + mixed @ w[p + "mixer.out_proj.weight"].T
        value, gate = (_rms_norm(x, w[p + "norm2.weight"]) @ w[p + "mlp.fc1.weight"].T).chunk(2, dim=-1)
        x = x + (value * silu(gate)) @ w[p + "mlp.fc2.weight"].T
    return _rms_norm(x, w["backbone.norm_f.weight"]) @ w["lm_head.weight"].T


@pytest.mark.parametrize("rotary", [8, 16])
def test_transformerpp_converts_to_phi3(tmp_path: Path, rotary: int) -> None:
    config = _transformer_config(rotary_emb_dim=rotary)
    state = _transformer_state(config)
    build_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(state, tmp_path / "pytorch_model.bin")
    model = load(check(resolve(str(tmp_path)), device="cpu"))
    assert model.record.implementation == "mambabench AttentionSteps"
    assert model.record.family == "transformer"
    expected = _transformer_float64(state, config)[..., :N_TOKENS]
    assert torch.allclose(model.logits(IDS, 10).double(), expected, atol=1e-4)
    assert model.stateful is not None
    stepped = model.stateful.logits(model.stateful.step(IDS[0], [10]).hidden)
    assert torch.allclose(stepped.double(), expected[0], atol=1e-4)
    shipped = load(check(resolve(str(tmp_path)), device="cpu", engine="as-shipped"))
    assert shipped.record.implementation == "transformers Phi3ForCausalLM"
    assert torch.equal(shipped.logits(IDS, 10), model.logits(IDS, 10))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"d_conv": 4}, "convolves"),
        ({"qkv_proj_bias": True}, "biases"),
        ({"rotary_emb_dim": 0}, "rotary"),
        ({"rotary_emb_interleaved": True}, "rotary"),
        ({"causal": False}, "causal"),
        ({"softmax_scale": 0.1}, "causal"),
        ({"mlp_dim": 64}, "parallel MLP"),
    ],
)
def test_attention_that_phi3_cannot_express(changes: dict[str, Any], reason: str) -> None:
    config = _transformer_config(**changes)
    assert reason in convert.needs_official(config)
    with pytest.raises(ExtraMissingError, match=reason):
        convert.to_transformers_config(config)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (mamba_ssm_config(rms_norm=False), "LayerNorm"),
        (mamba_ssm_config(ssm_cfg={"d_sate": 3}), "d_sate"),
        (mamba_ssm_config(ssm_cfg={"layer": "Mamba2", "norm_before_gate": True}), "norm_before_gate"),
        (mamba_ssm_config(attn_layer_idx=[0], attn_cfg=ATTENTION), "mixes attention"),
        (mamba_ssm_config(d_intermediate=64), "mixes attention"),
        (mamba_ssm_config(attn_layer_idx=[0, 1], attn_cfg=ATTENTION), "no MLP"),
    ],
)
def test_what_only_mamba_ssm_can_run(config: dict[str, Any], reason: str) -> None:
    assert reason in convert.needs_official(config)


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(CheckpointError, match="layer 'Mamba9'"):
        convert.family_of(mamba_ssm_config(ssm_cfg={"layer": "Mamba9"}))


# --- there and back -------------------------------------------------------------------------------------


@given(
    layer=st.sampled_from(["Mamba1", "Mamba2"]),
    d_model=st.sampled_from([32, 64, 96]),
    n_layer=st.integers(1, 4),
    vocab=st.integers(17, 900),
    multiple=st.sampled_from([1, 8, 16]),
    d_state=st.integers(1, 64),
    tied=st.booleans(),
    bias=st.booleans(),
)
def test_configurations_survive_there_and_back(
    layer: str, d_model: int, n_layer: int, vocab: int, multiple: int, d_state: int, tied: bool, bias: bool
) -> None:
    ssm: dict[str, Any] = {"layer": layer, "d_state": d_state, "bias": bias}
    if layer == "Mamba2":
        ssm |= {"headdim": 16, "chunk_size": 64}
    native = mamba_ssm_config(
        d_model=d_model,
        n_layer=n_layer,
        vocab_size=vocab,
        pad_vocab_size_multiple=multiple,
        ssm_cfg=ssm,
        tie_embeddings=tied,
    )
    there = convert.to_transformers_config(native)
    back = convert.to_mamba_ssm_config(there.to_dict())
    assert back is not None
    assert back["vocab_size"] == convert.stored_rows(native) == there.vocab_size
    assert back["vocab_size"] % multiple == 0
    assert 0 <= back["vocab_size"] - vocab < multiple
    assert {k: back[k] for k in ("d_model", "n_layer", "tie_embeddings")} == {
        "d_model": d_model,
        "n_layer": n_layer,
        "tie_embeddings": tied,
    }
    assert ssm.items() <= back["ssm_cfg"].items()
    assert convert.to_transformers_config(back).to_dict() == there.to_dict()


def test_what_mamba_ssm_cannot_express_stays_in_transformers() -> None:
    assert convert.to_mamba_ssm_config(mamba_config(layer_norm_epsilon=1e-6).to_dict()) is None
    assert convert.to_mamba_ssm_config(mamba_config(hidden_act="relu").to_dict()) is None
    assert convert.to_mamba_ssm_config({"model_type": "llama"}) is None
    assert convert.to_mamba_ssm_config(mamba2_config().to_dict()) is not None


@pytest.mark.parametrize(
    ("form", "config", "runs", "right"),
    [
        ("transformers", {"model_type": "mamba", "hidden_size": 16, "intermediate_size": 32}, True, True),
        ("transformers", {"model_type": "mamba", "hidden_size": 16, "intermediate_size": 48}, False, True),
        ("transformers", {"model_type": "mamba2", "time_step_limit": [0.0, math.inf]}, True, True),
        ("transformers", {"model_type": "mamba2", "time_step_limit": [0.0, 0.1]}, True, False),
        ("transformers", {"model_type": "falcon_mamba"}, False, True),
        ("gguf", {}, False, True),
        ("mamba_ssm", mamba_ssm_config(), True, True),
        ("mamba_ssm", mamba_ssm_config(ssm_cfg={"layer": "Mamba2", "D_has_hdim": True}), True, False),
        ("mamba_ssm", mamba_ssm_config(ssm_cfg={"layer": "Mamba2", "dt_limit": [0.1, 1.0]}), True, False),
        ("mamba_ssm", mamba_ssm_config(rms_norm=False), True, True),
        ("mamba_ssm", hybrid_config(), True, False),
    ],
)
def test_whose_code_runs_a_model_and_steps_it(
    form: str, config: dict[str, Any], runs: bool, right: bool
) -> None:
    assert convert.runs_in_mamba_ssm(form, config) is runs
    assert convert.has_right_steps(form, config) is right


def test_parameter_names_survive_there_and_back() -> None:
    config = mamba_ssm_config()
    state = {"backbone.embedding.weight": torch.zeros(1), "backbone.layers.0.norm.weight": torch.ones(1)}
    there = convert.to_transformers_state(state, config)
    assert set(there) == {"backbone.embeddings.weight", "backbone.layers.0.norm.weight"}
    assert set(convert.to_mamba_ssm_state(there)) == set(state)
