"""mamba_ssm's configurations and parameter names to transformers' and back.

For Mamba-1 and Mamba-2 a checkpoint differs in one parameter name (`embedding` and `embeddings`) and in
how the configuration is spelled. mamba_ssm's pure Transformer (Transformer++) has the arithmetic of
transformers' Phi-3: pre-norm, RMSNorm, rotary embedding over part of the head, SwiGLU. Hybrids exist in
mamba_ssm only.

    >>> family_of({"d_model": 768, "n_layer": 24, "ssm_cfg": {"layer": "Mamba2"}})
    'mamba2'
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mambabench.errors import CheckpointError, ExtraMissingError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

NORM_EPSILON = 1e-5
"""mamba_ssm's language models always use it; no configuration key changes it."""
MLP_MULTIPLE = 128
"""mamba_ssm rounds the width of its gated MLP up to a multiple of this."""
# What each of mamba_ssm's mixers assumes when `ssm_cfg` is silent.
MAMBA1_DEFAULTS: dict[str, Any] = {
    "d_state": 16, "d_conv": 4, "expand": 2, "dt_rank": "auto", "dt_min": 0.001, "dt_max": 0.1,
    "dt_init": "random", "dt_scale": 1.0, "dt_init_floor": 1e-4, "conv_bias": True, "bias": False,
    "use_fast_path": True,
}  # fmt: skip
MAMBA2_DEFAULTS: dict[str, Any] = {
    "d_state": 128, "d_conv": 4, "conv_init": None, "expand": 2, "headdim": 64, "d_ssm": None, "ngroups": 1,
    "A_init_range": (1, 16), "D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False,
    "dt_min": 0.001, "dt_max": 0.1, "dt_init_floor": 1e-4, "dt_limit": (0.0, float("inf")), "bias": False,
    "conv_bias": True, "chunk_size": 256, "use_mem_eff_path": True,
}  # fmt: skip
# Values other than these change the arithmetic in a way that transformers' Mamba-2 does not know.
_MAMBA2_FIXED = {"d_ssm": None, "D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False}


def family_of(config: dict[str, Any]) -> str:
    """Return "mamba", "mamba2", "transformer" or "hybrid" for a mamba_ssm configuration."""
    n_attention = len(set(config.get("attn_layer_idx") or []))
    if n_attention == 0 and not config.get("d_intermediate"):
        layer = (config.get("ssm_cfg") or {}).get("layer", "Mamba1")
        families = {"Mamba1": "mamba", "Mamba2": "mamba2"}
        if layer not in families:
            raise CheckpointError(f"config.json names the layer '{layer}', which mambabench does not know")
        return families[layer]
    return "transformer" if n_attention == int(config["n_layer"]) else "hybrid"


def stored_rows(config: dict[str, Any]) -> int:
    """Return the vocabulary's rows with mamba_ssm's padding."""
    rows, multiple = int(config.get("vocab_size", 50277)), int(config.get("pad_vocab_size_multiple", 8))
    return -(-rows // multiple) * multiple


def needs_official(config: dict[str, Any]) -> str:
    """Say why transformers cannot run a mamba_ssm configuration, only mamba_ssm; empty when it can."""
    family = family_of(config)
    if family == "hybrid":
        return "it mixes attention with Mamba layers"
    if not config.get("rms_norm", True):
        return "it uses LayerNorm"
    ssm = {k: v for k, v in (config.get("ssm_cfg") or {}).items() if k != "layer"}
    known = MAMBA2_DEFAULTS if family == "mamba2" else MAMBA1_DEFAULTS
    if family != "transformer" and (unknown := sorted(set(ssm) - set(known))):
        return f"its ssm_cfg has {', '.join(unknown)}"
    if family == "mamba2":
        odd = [key for key, value in _MAMBA2_FIXED.items() if ssm.get(key, value) != value]
        return f"its ssm_cfg changes {', '.join(odd)}" if odd else ""
    if family == "transformer" and not config.get("d_intermediate"):
        return "it has no MLP"  # a block is then attention alone, which Phi-3 cannot be
    return _attention_obstacle(config.get("attn_cfg") or {}) if family == "transformer" else ""


def _attention_obstacle(attention: dict[str, Any]) -> str:
    if attention.get("d_conv", 0):
        return "its attention convolves queries, keys and values"
    if attention.get("mlp_dim", 0):
        return "its attention carries a parallel MLP"
    if attention.get("qkv_proj_bias", True) or attention.get("out_proj_bias", True):
        return "its attention has biases"
    if not attention.get("causal", False) or attention.get("softmax_scale") is not None:
        return "its attention is not plain and causal"
    if attention.get("rotary_emb_interleaved", False) or not attention.get("rotary_emb_dim", 0):
        return "its positions are not rotary in halves"
    return ""


def to_transformers_config(config: dict[str, Any]) -> PretrainedConfig:
    """Translate a mamba_ssm configuration.

    Raises:
        ExtraMissingError: only mamba_ssm itself can run it.
    """
    if reason := needs_official(config):
        raise ExtraMissingError(
            f"this checkpoint runs only in mamba-ssm on a CUDA GPU: {reason}",
            hint="Install `mambabench[cuda]` on a machine with an NVIDIA GPU and pass `--device cuda`.",
        )
    family = family_of(config)
    shared: dict[str, Any] = {
        "vocab_size": stored_rows(config),
        "hidden_size": int(config["d_model"]),
        "num_hidden_layers": int(config["n_layer"]),
        "tie_word_embeddings": bool(config.get("tie_embeddings", True)),
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    if family == "transformer":
        return _phi3_config(config, shared)
    defaults = MAMBA2_DEFAULTS if family == "mamba2" else MAMBA1_DEFAULTS
    ssm = {**defaults, **(config.get("ssm_cfg") or {})}
    shared |= {
        "state_size": ssm["d_state"],
        "conv_kernel": ssm["d_conv"],
        "expand": ssm["expand"],
        "use_bias": ssm["bias"],
        "use_conv_bias": ssm["conv_bias"],
        "residual_in_fp32": bool(config.get("residual_in_fp32", True)),
        "layer_norm_epsilon": NORM_EPSILON,
        "time_step_min": ssm["dt_min"],
        "time_step_max": ssm["dt_max"],
        "time_step_floor": ssm["dt_init_floor"],
    }
    if family == "mamba":
        from transformers import MambaConfig

        return MambaConfig(
            **shared,
            time_step_rank=ssm["dt_rank"],
            time_step_scale=ssm["dt_scale"],
            time_step_init_scheme=ssm["dt_init"],
        )
    from transformers import Mamba2Config

    return Mamba2Config(
        **shared,
        num_heads=shared["hidden_size"] * ssm["expand"] // ssm["headdim"],
        head_dim=ssm["headdim"],
        n_groups=ssm["ngroups"],
        chunk_size=ssm["chunk_size"],
        time_step_limit=tuple(float(x) for x in ssm["dt_limit"]),
    )


def _phi3_config(config: dict[str, Any], shared: dict[str, Any]) -> PretrainedConfig:
    from transformers import Phi3Config

    attention = config["attn_cfg"]
    heads = int(attention["num_heads"])
    head_dim = int(attention.get("head_dim") or shared["hidden_size"] // heads)
    width = int(config["d_intermediate"])
    make: Any = Phi3Config  # its signature leaves out head_dim, which it reads
    made: PretrainedConfig = make(
        **shared,
        intermediate_size=-(-width // MLP_MULTIPLE) * MLP_MULTIPLE,
        num_attention_heads=heads,
        num_key_value_heads=int(attention.get("num_heads_kv") or heads),
        head_dim=head_dim,
        rms_norm_eps=NORM_EPSILON,
        max_position_embeddings=2048,
        original_max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(attention.get("rotary_emb_base", 10000.0)),
            "partial_rotary_factor": int(attention["rotary_emb_dim"]) / head_dim,
        },
    )
    return made


_PHI3_NAMES = (
    (r"^backbone\.embedding\.", "model.embed_tokens."),
    (r"^backbone\.norm_f\.", "model.norm."),
    (r"^backbone\.layers\.(\d+)\.mixer\.in_proj\.", r"model.layers.\1.self_attn.qkv_proj."),
    (r"^backbone\.layers\.(\d+)\.mixer\.out_proj\.", r"model.layers.\1.self_attn.o_proj."),
    (r"^backbone\.layers\.(\d+)\.norm\.", r"model.layers.\1.input_layernorm."),
    (r"^backbone\.layers\.(\d+)\.norm2\.", r"model.layers.\1.post_attention_layernorm."),
    (r"^backbone\.layers\.(\d+)\.mlp\.fc1\.", r"model.layers.\1.mlp.gate_up_proj."),
    (r"^backbone\.layers\.(\d+)\.mlp\.fc2\.", r"model.layers.\1.mlp.down_proj."),
)


def to_transformers_state(state: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Rename (and for Transformer++ reorder) a mamba_ssm state dict; tensors are shared where they can be."""
    if family_of(config) != "transformer":
        return {_rename(name, "embedding", "embeddings"): tensor for name, tensor in state.items()}
    import torch

    renamed = {}
    for name, tensor in state.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue  # recomputed from the configuration
        new = name
        for pattern, replacement in _PHI3_NAMES:
            new = re.sub(pattern, replacement, new)
        if ".mlp.gate_up_proj." in new:
            # mamba_ssm stacks (value, gate), Phi-3 (gate, value).
            tensor = torch.cat(tensor.chunk(2, dim=0)[::-1], dim=0)
        renamed[new] = tensor
    return renamed


def runs_in_mamba_ssm(form: str, config: dict[str, Any]) -> bool:
    """Tell whether a model is run by mamba_ssm where that is installed and a GPU is there.

    >>> runs_in_mamba_ssm("transformers", {"model_type": "falcon_mamba"})
    False

    Args:
        form: "mamba_ssm", "transformers" or "gguf".
        config: the checkpoint's `config.json`; what it leaves out has the library's default.
    """
    if form == "mamba_ssm":
        return bool(needs_official(config)) or family_of(config) in ("mamba", "mamba2")
    return form == "transformers" and _is_expressible(config)


def has_right_steps(form: str, config: dict[str, Any]) -> bool:
    """Tell whether mamba_ssm's steps of one token are what its forward is.

    By the configuration, as `mambabench.models.official.steps_differ` by the built model.

    Args:
        form: "mamba_ssm" or "transformers".
        config: the checkpoint's `config.json`.
    """
    ssm, attention = config.get("ssm_cfg") or {}, config.get("attn_cfg") or {}
    limit = ssm.get("dt_limit") if form == "mamba_ssm" else config.get("time_step_limit")
    if limit is not None and tuple(map(float, limit)) != MAMBA2_DEFAULTS["dt_limit"]:
        return False
    convolves = bool(config.get("attn_layer_idx")) and bool(attention.get("d_conv", 0))
    return not (convolves or ssm.get("D_has_hdim", False))


def _is_expressible(config: dict[str, Any]) -> bool:
    if config.get("model_type") not in ("mamba", "mamba2"):
        return False
    expand, epsilon = config.get("expand", 2), config.get("layer_norm_epsilon", NORM_EPSILON)
    if config.get("hidden_act", "silu") != "silu" or float(epsilon) != NORM_EPSILON or int(expand) != expand:
        return False
    inner = config.get("intermediate_size") if config["model_type"] == "mamba" else None
    return inner is None or int(inner) == int(expand) * int(config.get("hidden_size", 768))


def to_mamba_ssm_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """Translate a transformers Mamba or Mamba-2 configuration; None when mamba_ssm cannot express it.

    Args:
        config: `PretrainedConfig.to_dict()`, defaults included.
    """
    if not _is_expressible(config):
        return None
    family, hidden, expand = config["model_type"], int(config["hidden_size"]), config["expand"]
    ssm: dict[str, Any] = {
        "d_state": config["state_size"],
        "d_conv": config["conv_kernel"],
        "expand": int(expand),
        "bias": config["use_bias"],
        "conv_bias": config["use_conv_bias"],
    }
    if family == "mamba":
        ssm |= {"layer": "Mamba1", "dt_rank": int(config["time_step_rank"])}
    else:
        limit = [float(x) for x in config["time_step_limit"]]
        ssm |= {
            "layer": "Mamba2",
            "headdim": config["head_dim"],
            "ngroups": config["n_groups"],
            "chunk_size": config["chunk_size"],
            "dt_limit": tuple(limit),
        }
    return {
        "d_model": hidden,
        "n_layer": config["num_hidden_layers"],
        "vocab_size": config["vocab_size"],
        "ssm_cfg": ssm,
        "rms_norm": True,
        "residual_in_fp32": config["residual_in_fp32"],
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": config["tie_word_embeddings"],
    }


def to_mamba_ssm_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a transformers Mamba or Mamba-2 state dict."""
    return {_rename(name, "embeddings", "embedding"): tensor for name, tensor in state.items()}


def _rename(name: str, old: str, new: str) -> str:
    return name.replace(f"backbone.{old}.", f"backbone.{new}.", 1)
