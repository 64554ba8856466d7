"""The parameters of any model of mamba_ssm by its configuration, and what of it runs without mamba_ssm.

obstacle(config)                      # empty: it does
parameter_shapes(config)["backbone.layers.0.mixer.in_proj.weight"]
"""

from __future__ import annotations

import math
from typing import Any

from mambabench.models.convert import MAMBA1_DEFAULTS, MAMBA2_DEFAULTS, MLP_MULTIPLE, stored_rows

_ATTENTION_KEYS = frozenset(
    {
        "num_heads", "num_heads_kv", "head_dim", "mlp_dim", "qkv_proj_bias", "out_proj_bias", "softmax_scale",
        "causal", "d_conv", "rotary_emb_dim", "rotary_emb_base", "rotary_emb_interleaved",
    }
)  # fmt: skip
_PARALLEL_MLP_MULTIPLE = 256
"""mamba_ssm rounds the width of an MLP beside attention up to a multiple of this."""
Shapes = dict[str, tuple[int, ...]]


def obstacle(config: dict[str, Any]) -> str:
    """Say why a mamba_ssm configuration cannot be run by `HybridSteps`; empty when it can."""
    ssm = dict(config.get("ssm_cfg") or {})
    layer = ssm.pop("layer", "Mamba1")
    if layer not in ("Mamba1", "Mamba2"):
        return f"its layers are {layer}"
    attention = set(config.get("attn_layer_idx") or [])
    if len(attention) < int(config["n_layer"]):
        known = MAMBA2_DEFAULTS if layer == "Mamba2" else MAMBA1_DEFAULTS
        if unknown := sorted(set(ssm) - set(known)):
            return f"its ssm_cfg has {', '.join(unknown)}"
    if attention:
        attn_cfg = config.get("attn_cfg") or {}
        if unknown := sorted(set(attn_cfg) - _ATTENTION_KEYS):
            return f"its attn_cfg has {', '.join(unknown)}"
        if "num_heads" not in attn_cfg:
            return "its attn_cfg has no num_heads"
        if not attn_cfg.get("causal", False):
            return "its attention sees later tokens"
    return ""


def mixer_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the Mamba layers, mamba_ssm's own where the configuration is silent."""
    ssm = config.get("ssm_cfg") or {}
    defaults = MAMBA2_DEFAULTS if ssm.get("layer") == "Mamba2" else MAMBA1_DEFAULTS
    return {"layer": "Mamba1", **defaults, **ssm}


def parameter_shapes(config: dict[str, Any]) -> Shapes:
    """Return the shape of every parameter by name; a tied head is not among them."""
    width, rows = int(config["d_model"]), stored_rows(config)
    rms = bool(config.get("rms_norm", True))
    shapes: Shapes = {"backbone.embedding.weight": (rows, width)}
    attention = set(config.get("attn_layer_idx") or [])
    mlp = int(config.get("d_intermediate") or 0)
    for index in range(int(config["n_layer"])):
        prefix = f"backbone.layers.{index}."
        if index in attention:
            mixer = _attention(config.get("attn_cfg") or {}, width)
        else:
            settings = mixer_settings(config)
            mixer = (_mamba2 if settings["layer"] == "Mamba2" else _mamba1)(settings, width)
        block = {f"mixer.{name}": shape for name, shape in mixer.items()} | _norm("norm", width, rms)
        if mlp:
            hidden = -(-mlp // MLP_MULTIPLE) * MLP_MULTIPLE
            block |= {"mlp.fc1.weight": (2 * hidden, width), "mlp.fc2.weight": (width, hidden)}
            block |= _norm("norm2", width, rms)
        shapes |= {prefix + name: shape for name, shape in block.items()}
    shapes |= _norm("backbone.norm_f", width, rms)
    if not config.get("tie_embeddings", True):
        shapes["lm_head.weight"] = (rows, width)
    return shapes


def _norm(name: str, width: int, rms: bool) -> Shapes:
    parameters = ("weight",) if rms else ("weight", "bias")
    return {f"{name}.{parameter}": (width,) for parameter in parameters}


def _linear(name: str, rows: int, columns: int, bias: bool) -> Shapes:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def _mamba1(settings: dict[str, Any], width: int) -> Shapes:
    inner, state = int(settings["expand"] * width), int(settings["d_state"])
    rank = math.ceil(width / 16) if settings["dt_rank"] == "auto" else int(settings["dt_rank"])
    return {
        **_linear("in_proj", 2 * inner, width, settings["bias"]),
        **_convolution(inner, settings["d_conv"], settings["conv_bias"]),
        "x_proj.weight": (rank + 2 * state, inner),
        **_linear("dt_proj", inner, rank, True),
        "A_log": (inner, state),
        "D": (inner,),
        **_linear("out_proj", width, inner, settings["bias"]),
    }


def _mamba2(settings: dict[str, Any], width: int) -> Shapes:
    inner = int(settings["expand"] * width)
    d_ssm = inner if settings["d_ssm"] is None else int(settings["d_ssm"])
    heads = d_ssm // int(settings["headdim"])
    shared = 2 * int(settings["ngroups"]) * int(settings["d_state"])
    shapes = {
        **_linear("in_proj", 2 * inner + shared + heads, width, settings["bias"]),
        **_convolution(d_ssm + shared, settings["d_conv"], settings["conv_bias"]),
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (d_ssm,) if settings["D_has_hdim"] else (heads,),
        **_linear("out_proj", width, inner, settings["bias"]),
    }
    return shapes | ({"norm.weight": (d_ssm,)} if settings["rmsnorm"] else {})


def _attention(attn_cfg: dict[str, Any], width: int) -> Shapes:
    heads = int(attn_cfg["num_heads"])
    kv_heads = int(attn_cfg.get("num_heads_kv") or heads)
    head_dim = int(attn_cfg.get("head_dim") or width // heads)
    qkv = head_dim * (heads + 2 * kv_heads)
    mlp = -(-int(attn_cfg.get("mlp_dim") or 0) // _PARALLEL_MLP_MULTIPLE) * _PARALLEL_MLP_MULTIPLE
    convolution = _convolution(qkv, attn_cfg["d_conv"], True) if attn_cfg.get("d_conv") else {}
    return {
        **_linear("in_proj", qkv + mlp, width, attn_cfg.get("qkv_proj_bias", True)),
        **convolution,
        **_linear("out_proj", width, head_dim * heads + mlp // 2, attn_cfg.get("out_proj_bias", True)),
    }


def _convolution(channels: int, taps: int, bias: bool) -> Shapes:
    return {"conv1d.weight": (channels, 1, int(taps))} | ({"conv1d.bias": (channels,)} if bias else {})
