"""Tiny checkpoints with random weights, in every format, for tests.

Each builder writes a directory that the loader takes as it takes a published checkpoint, tokenizer included,
in well under a second; nothing is downloaded. Weights depend on `seed` alone.

    directory = tiny_mamba(tmp_path / "m")
    ref = resolve(str(directory))
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

EOS = "<|endoftext|>"
N_TOKENS = 300
"""Tokens of the test tokenizer: 256 bytes, one special token and 43 merges."""
N_ROWS = 304
"""Embedding rows of the test models: N_TOKENS padded to a multiple of eight, as published Mambas are."""

_SPREAD = 0.2
"""Standard deviation of the weights: about one over the root of the width, so that logits differ visibly."""

_TEXT = (
    "The quick brown fox jumps over the lazy dog. In the morning the old man went to the river and "
    "there he found another boat, which had no owner. Then they sailed against the stream together. "
)


@cache
def _tokenizer_json(n_tokens: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT * 4], trainer)
    if tokenizer.get_vocab_size() != n_tokens:
        raise ValueError(f"the text gives {tokenizer.get_vocab_size()} tokens, not {n_tokens}")
    return tokenizer.to_str()


def tokenizer(n_tokens: int = N_TOKENS) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with `n_tokens` ids that can encode any text; id 0 ends a text."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json(n_tokens)), eos_token=EOS, bos_token=EOS
    )


def build_tokenizer(directory: Path, n_tokens: int = N_TOKENS) -> Path:
    """Save `tokenizer(n_tokens)` into `directory`, which is made when it does not exist."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer(n_tokens).save_pretrained(directory)
    return directory


def _seeded(build: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = build()
    return model.eval()


def _save(model: PreTrainedModel, directory: Path, options: dict[str, Any]) -> Path:
    with_tokenizer = options.pop("with_tokenizer", True)
    n_tokens = options.pop("n_tokens", N_TOKENS)
    as_bin = options.pop("as_bin", False)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, **options)
    if as_bin:
        for shard in directory.glob("*.safetensors"):
            shard.unlink()
        torch.save(model.state_dict(), directory / "pytorch_model.bin")
    if with_tokenizer:
        build_tokenizer(directory, n_tokens)
    return directory


def mamba_config(**changes: Any) -> MambaConfig:
    """Return the configuration of `tiny_mamba`."""
    return MambaConfig(
        **{
            "vocab_size": N_ROWS,
            "initializer_range": _SPREAD,
            "hidden_size": 32,
            "state_size": 8,
            "num_hidden_layers": 2,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **changes,
        }
    )


def mamba2_config(**changes: Any) -> Mamba2Config:
    """Return the configuration of `tiny_mamba2`."""
    return Mamba2Config(
        **{
            "vocab_size": N_ROWS,
            "initializer_range": _SPREAD,
            "hidden_size": 32,
            "state_size": 16,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 32,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **changes,
        }
    )


def neox_config(**changes: Any) -> GPTNeoXConfig:
    """Return the configuration of `tiny_neox`."""
    return GPTNeoXConfig(
        **{
            "vocab_size": N_ROWS,
            "initializer_range": _SPREAD,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **changes,
        }
    )


def llama_config(**changes: Any) -> LlamaConfig:
    """Return the configuration of `tiny_llama` (two key-value heads for four query heads)."""
    return LlamaConfig(
        **{
            "vocab_size": N_ROWS,
            "initializer_range": _SPREAD,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            **changes,
        }
    )


def tiny_mamba(directory: Path, *, seed: int = 0, config: dict[str, Any] | None = None, **save: Any) -> Path:
    """Write a Mamba-1 in transformers' format.

    Args:
        directory: made when it does not exist.
        seed: of the weights.
        config: changes to `mamba_config()`.
        save: `with_tokenizer` (True), `n_tokens`, `as_bin` (False: safetensors), and what
            `save_pretrained` takes, for example `max_shard_size="20KB"` for a sharded checkpoint.
    """
    return _save(_seeded(lambda: MambaForCausalLM(mamba_config(**config or {})), seed), directory, save)


def tiny_falcon_mamba(directory: Path, *, seed: int = 0, **save: Any) -> Path:
    """Write a FalconMamba in transformers' format; arguments as `tiny_mamba`."""
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": _SPREAD}
    shape = FalconMambaConfig(vocab_size=N_ROWS, hidden_size=32, state_size=8, num_hidden_layers=2, **ends)
    return _save(_seeded(lambda: FalconMambaForCausalLM(shape), seed), directory, save)


def tiny_mamba2(directory: Path, *, seed: int = 0, config: dict[str, Any] | None = None, **save: Any) -> Path:
    """Write a Mamba-2 in transformers' format; arguments as `tiny_mamba`."""
    return _save(_seeded(lambda: Mamba2ForCausalLM(mamba2_config(**config or {})), seed), directory, save)


def tiny_neox(directory: Path, *, seed: int = 0, config: dict[str, Any] | None = None, **save: Any) -> Path:
    """Write a GPT-NeoX (Pythia's architecture); arguments as `tiny_mamba`."""
    return _save(_seeded(lambda: GPTNeoXForCausalLM(neox_config(**config or {})), seed), directory, save)


def tiny_llama(directory: Path, *, seed: int = 0, config: dict[str, Any] | None = None, **save: Any) -> Path:
    """Write a Llama (TinyLlama's architecture); arguments as `tiny_mamba`."""
    return _save(_seeded(lambda: LlamaForCausalLM(llama_config(**config or {})), seed), directory, save)


def mamba_ssm_config(**changes: Any) -> dict[str, Any]:
    """Return a `config.json` as the mamba_ssm package writes it; the vocabulary is padded to N_ROWS rows."""
    return {
        "d_model": 32,
        "n_layer": 2,
        "vocab_size": N_TOKENS,
        "ssm_cfg": {"d_state": 8},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
        **changes,
    }


def tiny_mamba_ssm(
    directory: Path,
    *,
    seed: int = 0,
    layer: str = "Mamba1",
    with_tokenizer: bool = False,
    n_tokens: int = N_TOKENS,
) -> Path:
    """Write a Mamba-1 or Mamba-2 as state-spaces publish theirs: config.json and pytorch_model.bin.

    Args:
        directory: made when it does not exist.
        seed: of the weights, which equal those of `tiny_mamba`/`tiny_mamba2` of the same seed.
        layer: "Mamba1" or "Mamba2".
        with_tokenizer: published ones carry none; True puts one beside the weights.
        n_tokens: of that tokenizer.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if layer == "Mamba1":
        model = _seeded(lambda: MambaForCausalLM(mamba_config()), seed)
        config = mamba_ssm_config()
    else:
        model = _seeded(lambda: Mamba2ForCausalLM(mamba2_config()), seed)
        ssm = {"layer": "Mamba2", "d_state": 16, "headdim": 8, "chunk_size": 32}
        config = mamba_ssm_config(ssm_cfg=ssm)
    state = {
        name.replace("backbone.embeddings.", "backbone.embedding."): tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    (directory / "config.json").write_text(json.dumps(config))
    torch.save(state, directory / "pytorch_model.bin")
    if with_tokenizer:
        build_tokenizer(directory, n_tokens)
    return directory


_PLAIN_HEADS = {"causal": True, "num_heads": 4, "qkv_proj_bias": False, "out_proj_bias": False}


def hybrid_config(**changes: Any) -> dict[str, Any]:
    """Return mamba_ssm's `config.json` of a small hybrid, made as mamba2attn-2.7b is."""
    return mamba_ssm_config(
        **{
            "n_layer": 3,
            "ssm_cfg": {"layer": "Mamba2", "d_state": 16, "headdim": 8},
            "attn_layer_idx": [1],
            "attn_cfg": {**_PLAIN_HEADS, "d_conv": 4, "head_dim": 16, "rotary_emb_dim": 8},
            **changes,
        }
    )


def hybrid1_config() -> dict[str, Any]:
    """Return the configuration of a hybrid with Mamba-1 layers and MLPs."""
    attention = {**_PLAIN_HEADS, "rotary_emb_dim": 4}
    return mamba_ssm_config(
        ssm_cfg={"d_state": 8}, attn_layer_idx=[0], d_intermediate=100, attn_cfg=attention
    )


def spread_weights(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a state dict for a mamba_ssm configuration under which logits differ visibly."""
    from mambabench.models.hybrid_shapes import parameter_shapes

    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in parameter_shapes(config).items():
        size = 0.3 if "norm" in name or len(shape) < 2 else shape[-1] ** -0.5
        made[name] = size * torch.randn(shape, generator=generator) + ("norm" in name)
    made["backbone.embedding.weight"] *= 3
    return made


def tiny_hybrid(
    directory: Path, config: dict[str, Any] | None = None, state: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write a model in mamba_ssm's format with a tokenizer beside it.

    Args:
        directory: made when it does not exist.
        config: by default `hybrid_config()`.
        state: by default `spread_weights(config)`.
    """
    config = hybrid_config() if config is None else config
    build_tokenizer(directory)
    (directory / "config.json").write_text(json.dumps(config))
    torch.save(spread_weights(config) if state is None else state, directory / "pytorch_model.bin")
    return directory


def lora_adapter(directory: Path, base: Path, *, base_name: str | None = None, seed: int = 0) -> Path:
    """Write a LoRA adapter over a transformers-format checkpoint, with weights that change its logits.

    Args:
        directory: made when it does not exist.
        base: the checkpoint that the adapter is made over.
        base_name: what the adapter's configuration calls its base; by default the path of `base`.
        seed: of the adapter's weights.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft reads an attribute that this transformers announces the end of.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        targets = {"mamba": ["in_proj"], "mamba2": ["in_proj"], "gpt_neox": ["query_key_value"]}
        chosen = targets.get(model.config.model_type, ["q_proj", "v_proj"])
        lora = LoraConfig(r=4, target_modules=chosen, init_lora_weights=False, task_type="CAUSAL_LM")
        adapted = get_peft_model(model, lora)
    adapted.save_pretrained(directory)
    path = directory / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": base_name or str(base)}
    path.write_text(json.dumps(config))
    return directory
