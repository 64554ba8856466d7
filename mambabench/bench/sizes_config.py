"""From a configuration to the parameters and the kinds of state of an architecture, without a model library.

mamba_ssm's models and transformers' Mambas share one table of parameters; the Transformers that transformers
runs have theirs here, with what their classes assume when a configuration is silent.

    >>> pythia = {"model_type": "gpt_neox", "hidden_size": 512, "num_hidden_layers": 6, "vocab_size": 50304,
    ...           "num_attention_heads": 8, "intermediate_size": 2048}
    >>> drawn = blueprint("transformers", pythia)
    >>> drawn.kv_elements_per_token, drawn.parameters["embed.weight"]
    (6144, (50304, 512))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mambabench.models import convert
from mambabench.models.hybrid_shapes import Shapes, mixer_settings, obstacle, parameter_shapes

_MAMBA_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50280, "hidden_size": 768, "num_hidden_layers": 32, "state_size": 16, "expand": 2,
    "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": "auto",
    "tie_word_embeddings": True,
}  # fmt: skip
_MAMBA2_DEFAULTS: dict[str, Any] = {
    **_MAMBA_DEFAULTS, "vocab_size": 32768, "hidden_size": 4096, "num_hidden_layers": 64, "state_size": 128,
    "num_heads": 128, "head_dim": 64, "n_groups": 8, "tie_word_embeddings": False,
}  # fmt: skip
_LLAMA_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "max_position_embeddings": 2048,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
}  # fmt: skip
# What transformers' configuration classes (5.23) assume when config.json is silent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "mamba": _MAMBA_DEFAULTS,
    "falcon_mamba": _MAMBA_DEFAULTS,
    "mamba2": _MAMBA2_DEFAULTS,
    "gpt_neox": {
        "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
        "intermediate_size": 24576, "max_position_embeddings": 2048, "attention_bias": True,
        "tie_word_embeddings": False,
    },
    "llama": _LLAMA_DEFAULTS,
    "mistral": {
        **_LLAMA_DEFAULTS, "intermediate_size": 14336, "num_key_value_heads": 8, "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
    "qwen2": {
        **_LLAMA_DEFAULTS, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
    "phi3": {
        **_LLAMA_DEFAULTS, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
        "max_position_embeddings": 4096, "sliding_window": None,
    },
    "gpt2": {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
        "tie_word_embeddings": True,
    },
    "opt": {
        "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072,
        "max_position_embeddings": 2048, "num_attention_heads": 12, "word_embed_proj_dim": None,
        "do_layer_norm_before": True, "enable_bias": True, "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
_OPT_OFFSET = 2
"""OPT's table of positions has so many rows before the first."""


@dataclass(frozen=True)
class Blueprint:
    """What a configuration says of a model's parameters and state; counts of state are of one sequence."""

    family: str
    """As transformers calls it; "transformer" and "hybrid" are mamba_ssm's own."""
    n_layers: int
    d_model: int
    vocab_rows: int
    tied: bool
    """Whether the head is the embedding."""
    parameters: Shapes
    """Every parameter by name; "embed.weight" and "head.weight" are the first and the last matrix, and
    "positions.weight" is a learned table of positions."""
    activation_width: int
    """Numbers that the widest block holds at once for each token that it forwards."""
    ssm_elements: int = 0
    convolution: tuple[int, int] = (0, 0)
    """Channels of all Mamba layers' convolutions together, and taps of each."""
    attention_convolution: tuple[int, int] = (0, 0)
    """The same of mamba_ssm's attention layers."""
    kv_elements_per_token: int = 0
    attention_width: int = 0
    """Columns of the queries of one layer."""
    n_attention_heads: int = 0
    n_attention_layers: int = 0
    positions: int | None = None
    """Positions that the configuration names, learned or not."""
    kv_in_fp32: bool = False
    """Whether our own forward keeps keys and values in fp32 whatever the dtype."""

    @property
    def learned_positions(self) -> int | None:
        """Positions of a learned table; null without one."""
        return self.positions if "positions.weight" in self.parameters else None


def blueprint(form: str, config: dict[str, Any]) -> Blueprint | None:
    """Return what a configuration says, or None where this module has no arithmetic for it.

    Args:
        form: "mamba_ssm", "transformers" or "gguf", whose sizes stand in no configuration.
        config: `config.json`; what it leaves out has the library's default.
    """
    try:
        if form == "mamba_ssm":
            return None if obstacle(config) else _mamba_ssm(config)
        if form != "transformers" or (family := config.get("model_type")) not in _DEFAULTS:
            return None
        draw = _DRAW.get(family, _llama)
        return draw({**_DEFAULTS[family], **config})
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        # A configuration that makes no sense is refused with words where the model is loaded.
        return None


def _mamba_ssm(config: dict[str, Any]) -> Blueprint:
    width, n_layers = int(config["d_model"]), int(config["n_layer"])
    attention = {i for i in config.get("attn_layer_idx") or [] if 0 <= i < n_layers}
    names = {"backbone.embedding.weight": "embed.weight", "lm_head.weight": "head.weight"}
    shapes = {names.get(name, name): shape for name, shape in parameter_shapes(config).items()}
    mixers = _with_mamba(config, n_layers - len(attention), shapes)
    drawn = Blueprint(
        family=convert.family_of(config),
        n_layers=n_layers,
        d_model=width,
        vocab_rows=convert.stored_rows(config),
        tied=bool(config.get("tie_embeddings", True)),
        parameters=shapes,
        kv_in_fp32=bool(convert.needs_official(config)),
        **mixers,
    )
    if attention:
        drawn = _with_attention(drawn, config.get("attn_cfg") or {}, len(attention))
    if mlp := max((s[0] for n, s in shapes.items() if n.endswith("mlp.fc1.weight")), default=0):
        drawn = replace(drawn, activation_width=max(drawn.activation_width, 3 * width + 2 * mlp))
    return drawn


def _with_mamba(config: dict[str, Any], n_layers: int, shapes: Shapes) -> dict[str, Any]:
    """Return the fields of a blueprint that Mamba layers decide."""
    width = int(config["d_model"])
    settings = mixer_settings(config)
    state, taps, inner = int(settings["d_state"]), int(settings["d_conv"]), int(settings["expand"] * width)
    if n_layers == 0:
        return {"activation_width": 3 * width}
    if settings["layer"] == "Mamba1":
        # The residual stream, its sum and normalised copy; xz, u, dt, y and the small projection.
        used, channels, activations = inner, inner, 3 * width + 6 * inner
    else:
        used = inner if settings["d_ssm"] is None else int(settings["d_ssm"])
        channels = used + 2 * int(settings["ngroups"]) * state
        columns = max(s[0] for n, s in shapes.items() if n.endswith("mixer.in_proj.weight"))
        activations = 3 * width + columns + channels + 2 * used
    return {
        "ssm_elements": n_layers * used * state,
        "convolution": (n_layers * channels, taps),
        "activation_width": activations,
    }


def _with_attention(drawn: Blueprint, attn_cfg: dict[str, Any], n_layers: int) -> Blueprint:
    """Add mamba_ssm's attention layers."""
    heads = int(attn_cfg["num_heads"])
    kv_heads = int(attn_cfg.get("num_heads_kv") or heads)
    head_dim = int(attn_cfg.get("head_dim") or drawn.d_model // heads)
    taps, columns = int(attn_cfg.get("d_conv") or 0), head_dim * (heads + 2 * kv_heads)
    return replace(
        drawn,
        attention_convolution=(n_layers * columns, taps) if taps else (0, 0),
        kv_elements_per_token=2 * n_layers * kv_heads * head_dim,
        attention_width=heads * head_dim,
        n_attention_heads=heads,
        n_attention_layers=n_layers,
        activation_width=max(drawn.activation_width, 3 * drawn.d_model + 2 * columns + 2 * heads * head_dim),
    )


def _mamba(config: dict[str, Any]) -> Blueprint:
    """Draw a Mamba of either kind in transformers' words, by way of mamba_ssm's."""
    ssm = {
        "d_state": config["state_size"], "d_conv": config["conv_kernel"], "expand": config["expand"],
        "bias": config["use_bias"], "conv_bias": config["use_conv_bias"],
    }  # fmt: skip
    if config["model_type"] == "mamba2":
        ssm |= {"layer": "Mamba2", "headdim": config["head_dim"], "ngroups": config["n_groups"]}
    else:
        ssm |= {"layer": "Mamba1", "dt_rank": config["time_step_rank"]}
    drawn = _mamba_ssm(
        {
            "d_model": config["hidden_size"],
            "n_layer": config["num_hidden_layers"],
            "vocab_size": config["vocab_size"],
            "pad_vocab_size_multiple": 1,
            "tie_embeddings": config["tie_word_embeddings"],
            "ssm_cfg": ssm,
        }
    )
    return replace(drawn, family=config["model_type"])


def _neox(config: dict[str, Any]) -> Blueprint:
    width, mlp = int(config["hidden_size"]), int(config["intermediate_size"])
    bias = bool(config["attention_bias"])
    layer = (
        _linear("qkv", 3 * width, width, bias)
        | _linear("dense", width, width, bias)
        | _linear("up", mlp, width, True)
        | _linear("down", width, mlp, True)
        | _norm("norm1", width)
        | _norm("norm2", width)
    )
    heads = int(config["num_attention_heads"])
    return _transformer(
        config,
        layer,
        _norm("last", width),
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        wide=2 * mlp,
    )


def _llama(config: dict[str, Any]) -> Blueprint | None:
    """Draw Llama and what differs from it in biases only."""
    family = config["model_type"]
    if family in ("mistral", "phi3") and config["sliding_window"] is not None:
        return None
    if config.get("use_sliding_window") or set(config.get("layer_types") or []) - {"full_attention"}:
        return None
    width, mlp = int(config["hidden_size"]), int(config["intermediate_size"])
    heads = int(config["num_attention_heads"])
    kv_heads, head_dim = (
        int(config["num_key_value_heads"] or heads),
        int(config["head_dim"] or width // heads),
    )
    in_bias = family == "qwen2" or (family == "llama" and bool(config["attention_bias"]))
    out_bias = family == "llama" and bool(config["attention_bias"])
    mlp_bias = family == "llama" and bool(config["mlp_bias"])
    layer = (
        _linear("qkv", (heads + 2 * kv_heads) * head_dim, width, in_bias)
        | _linear("out", width, heads * head_dim, out_bias)
        | _linear("gate_up", 2 * mlp, width, mlp_bias)
        | _linear("down", width, mlp, mlp_bias)
        | _norm("norm1", width, bias=False)
        | _norm("norm2", width, bias=False)
    )
    last = _norm("last", width, bias=False)
    return _transformer(config, layer, last, heads=heads, kv_heads=kv_heads, head_dim=head_dim, wide=3 * mlp)


def _gpt2(config: dict[str, Any]) -> Blueprint | None:
    if config.get("add_cross_attention"):
        return None
    width, heads = int(config["n_embd"]), int(config["n_head"])
    mlp = int(config["n_inner"] or 4 * width)
    layer = (
        _linear("qkv", 3 * width, width, True)
        | _linear("out", width, width, True)
        | _linear("up", mlp, width, True)
        | _linear("down", width, mlp, True)
        | _norm("norm1", width)
        | _norm("norm2", width)
    )
    positions = int(config.get("max_position_embeddings", config["n_positions"]))
    renamed = {
        **config, "hidden_size": width, "num_hidden_layers": config["n_layer"],
        "max_position_embeddings": positions,
    }  # fmt: skip
    rest = _norm("last", width) | {"positions.weight": (positions, width)}
    return _transformer(
        renamed, layer, rest, heads=heads, kv_heads=heads, head_dim=width // heads, wide=2 * mlp
    )


def _opt(config: dict[str, Any]) -> Blueprint | None:
    width, heads, mlp = int(config["hidden_size"]), int(config["num_attention_heads"]), int(config["ffn_dim"])
    bias, affine = bool(config["enable_bias"]), bool(config["layer_norm_elementwise_affine"])
    if config["word_embed_proj_dim"] not in (None, width):
        return None
    norms = _norm("norm1", width) | _norm("norm2", width) if affine else {}
    layer = (
        _linear("qkv", 3 * width, width, bias)
        | _linear("out", width, width, bias)
        | _linear("up", mlp, width, bias)
        | _linear("down", width, mlp, bias)
        | norms
    )
    before = bool(config["do_layer_norm_before"]) and not config.get("_remove_final_layer_norm")
    rest = _norm("last", width) if before and affine else {}
    rest |= {"positions.weight": (int(config["max_position_embeddings"]) + _OPT_OFFSET, width)}
    return _transformer(
        config, layer, rest, heads=heads, kv_heads=heads, head_dim=width // heads, wide=2 * mlp
    )


_DRAW: dict[str, Callable[[dict[str, Any]], Blueprint | None]] = {
    "mamba": _mamba, "falcon_mamba": _mamba, "mamba2": _mamba, "gpt_neox": _neox, "gpt2": _gpt2, "opt": _opt,
}  # fmt: skip


def _transformer(
    config: dict[str, Any],
    layer: Shapes,
    rest: Shapes,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    wide: int,
) -> Blueprint:
    """Draw equal layers of attention and MLP; `wide` is what the MLP holds of a token at once."""
    width, n_layers, rows = (int(config[k]) for k in ("hidden_size", "num_hidden_layers", "vocab_size"))
    tied = bool(config["tie_word_embeddings"])
    shapes: Shapes = {"embed.weight": (rows, width), **rest}
    shapes |= {f"layers.{i}.{name}": shape for i in range(n_layers) for name, shape in layer.items()}
    if not tied:
        shapes["head.weight"] = (rows, width)
    # Queries, keys and values, those of shared heads once for each head, and the output.
    attended = (4 * heads + 2 * kv_heads) * head_dim
    return Blueprint(
        family=str(config["model_type"]),
        n_layers=n_layers,
        d_model=width,
        vocab_rows=rows,
        tied=tied,
        parameters=shapes,
        activation_width=3 * width + max(attended, wide),
        kv_elements_per_token=2 * n_layers * kv_heads * head_dim,
        attention_width=heads * head_dim,
        n_attention_heads=heads,
        n_attention_layers=n_layers,
        positions=int(config["max_position_embeddings"]),
    )


def _linear(name: str, rows: int, columns: int, bias: bool) -> Shapes:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def _norm(name: str, width: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.{part}": (width,) for part in (("weight", "bias") if bias else ("weight",))}
