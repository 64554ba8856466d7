"""Random Mamba checkpoints as state-spaces publish theirs, with a tokenizer beside the weights.

    python -c "from make_checkpoint import write_large; write_large(Path('ckpt'), 'mamba-1.4b', Path('neox'))"

Speed does not depend on what the weights are, and agreement of two programs can be asked of any.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

SCALED = ("in_proj.weight", "x_proj.weight", "out_proj.weight")
"""As transformers draws them, so many layers magnify a rounding until two programs differ by more than a
mistake would make them; half as large they do not."""
SCALE = 0.5
WIDE = ("A_log", "mixer.D")
"""Parameters of the recurrence stay in float32, as mamba_ssm holds them."""


def write_large(directory: Path, name: str, tokenizer: Path) -> Path:
    """Write random weights of a registered Mamba-1's sizes in bfloat16, drawn on the GPU if there is one.

    Args:
        directory: made when it does not exist; one that is complete is kept.
        name: in mambabench's registry.
        tokenizer: directory whose files are copied.

    Raises:
        SystemExit: the tokenizer's directory has no `tokenizer.json`, or the model is no such Mamba.
    """
    if (directory / "config.json").exists():
        return directory
    import torch
    from transformers import MambaConfig, MambaForCausalLM

    from mambabench.registry import load_registry

    if not (tokenizer / "tokenizer.json").is_file():
        raise SystemExit(f"{tokenizer} holds no tokenizer.json: give --tokenizer DIR")
    spec = load_registry()[name]
    if spec.format != "mamba_ssm" or spec.family != "mamba":
        raise SystemExit(f"{name} is no Mamba-1 that state-spaces publish")
    # Of published configurations only sizes are given; the rest is mamba_ssm's defaults.
    sizes: dict[str, Any] = {"rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True}
    sizes |= {**spec.config, "ssm_cfg": {}}
    multiple = sizes["pad_vocab_size_multiple"]
    config = MambaConfig(
        vocab_size=-(-sizes["vocab_size"] // multiple) * multiple,
        hidden_size=sizes["d_model"],
        num_hidden_layers=sizes["n_layer"],
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = MambaForCausalLM(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith(SCALED):
                parameter.mul_(SCALE)
    state = {
        key: (value if key.endswith(WIDE) else value.to(torch.bfloat16)).cpu()
        for key, value in native_names(model.state_dict()).items()
    }
    # One tensor under two names, as in published files.
    state["lm_head.weight"] = state["backbone.embedding.weight"]
    directory.mkdir(parents=True, exist_ok=True)
    for file in sorted(tokenizer.iterdir()):
        if file.suffix in (".json", ".txt") and file.name != "config.json":
            shutil.copyfile(file, directory / file.name)
    _save(state, directory, sizes)
    return directory


def write_small(directory: Path, *, hidden_size: int = 256, n_layers: int = 4) -> Path:
    """Write a small random Mamba-1 with the tests' tokenizer, and beside it the same for transformers.

    Its vocabulary is not padded: lm-eval takes rows of padding for tokens, a fair part of so few.
    """
    if (directory / "config.json").exists():
        return directory
    import torch
    from builders import N_ROWS, build_tokenizer, mamba_config, mamba_ssm_config
    from transformers import MambaForCausalLM

    torch.manual_seed(0)
    # The published initialisation: with wider weights rounding alone would move log-probabilities.
    shape = {"hidden_size": hidden_size, "state_size": 16, "num_hidden_layers": n_layers}
    model = MambaForCausalLM(mamba_config(**shape, initializer_range=0.02))
    beside = transformers_twin(directory)
    model.save_pretrained(beside)
    build_tokenizer(beside, N_ROWS)
    directory.mkdir(parents=True, exist_ok=True)
    build_tokenizer(directory, N_ROWS)
    config = mamba_ssm_config(
        d_model=hidden_size, n_layer=n_layers, vocab_size=N_ROWS, ssm_cfg={"d_state": 16}
    )
    _save(native_names(model.state_dict()), directory, config)
    return directory


def transformers_twin(directory: Path) -> Path:
    """Return where `write_small` puts the same weights for transformers."""
    return directory.with_name(f"{directory.name}-hf")


def native_names(state: Any) -> dict[str, Any]:
    """Return a state dict under mamba_ssm's names; memory of its own, which files need."""
    return {
        name.replace("backbone.embeddings.", "backbone.embedding."): tensor.clone()
        for name, tensor in state.items()
    }


def _save(state: dict[str, Any], directory: Path, config: dict[str, Any]) -> None:
    import torch

    torch.save(state, directory / "pytorch_model.bin")
    # Last: a directory with a config.json is complete.
    (directory / "config.json").write_text(json.dumps(config))
