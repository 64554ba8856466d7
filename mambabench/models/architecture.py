"""transformers' configuration of a checkpoint, and what follows from it without building anything.

Example:

    shape = from_native("mamba_ssm", {"d_model": 768, "n_layer": 24})
    vocab_rows(shape)      # 50280
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambabench.errors import CheckpointError
from mambabench.models import convert
from mambabench.models.gguf_files import gguf_reading
from mambabench.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def from_native(
    form: str, config: dict[str, Any], gguf: Path | None = None, *, where: Path | str = "config.json"
) -> PretrainedConfig | None:
    """Return transformers' configuration, or None for a model that only mamba_ssm can run.

    Args:
        form: "mamba_ssm", "transformers" or "gguf".
        config: the checkpoint's `config.json`; ignored for GGUF.
        gguf: the GGUF file, whose header carries the configuration.
        where: what an error calls the configuration.

    Raises:
        CheckpointError: an unknown architecture, one that is no causal language model, or a damaged file.
    """
    if form == "mamba_ssm":
        return None if convert.needs_official(config) else convert.to_transformers_config(config)
    try:
        with quiet():
            shape = _from_gguf(gguf) if gguf is not None else _from_json(config)
    except CheckpointError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        if gguf is not None:
            raise CheckpointError(
                f"'{gguf}' is damaged or of an unknown kind: {detail}", hint="Download it again."
            ) from error
        raise CheckpointError(
            f"'{where}' cannot be read by transformers: {detail}", hint="Correct it, or download it again."
        ) from error
    _require_causal(shape, custom_code="auto_map" in config)
    return shape


def _from_gguf(gguf: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    with gguf_reading():
        shape: PretrainedConfig = AutoConfig.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, local_files_only=True
        )
    return shape


def _from_json(config: dict[str, Any]) -> PretrainedConfig:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known: Any = CONFIG_MAPPING
    kind = config["model_type"]
    if kind not in known:
        if "auto_map" in config:
            raise _own_code(kind)
        raise CheckpointError(
            f"config.json names the architecture '{kind}', which this transformers does not know",
            hint="A newer transformers may: `pip install -U transformers`.",
        )
    shape: PretrainedConfig = known[kind].from_dict(dict(config))
    return shape


def _require_causal(shape: PretrainedConfig, *, custom_code: bool) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if shape.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    if custom_code:
        raise _own_code(shape.model_type)
    raise CheckpointError(
        f"'{shape.model_type}' is no causal language model",
        hint="Only models that predict the next token can be evaluated.",
    )


def _own_code(kind: str) -> CheckpointError:
    return CheckpointError(
        f"the architecture '{kind}' comes as code inside the checkpoint, which is never run",
        hint="Only architectures that transformers or mamba_ssm know can be loaded.",
    )


def model_class(shape: PretrainedConfig) -> type[PreTrainedModel]:
    """Return transformers' causal language model class for a configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    mapping: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    found: Any = mapping[type(shape)]
    chosen: type[PreTrainedModel] = found[0] if isinstance(found, tuple) else found
    return chosen


def vocab_rows(shape: PretrainedConfig) -> int:
    """Return the rows of the vocabulary, padding included."""
    return int(text_config(shape).vocab_size)


def trained_positions(shape: PretrainedConfig | None) -> int | None:
    """Return the number of positions that the architecture was made for; None when it has no limit."""
    text = text_config(shape) if shape is not None else None
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        if isinstance(value := getattr(text, name, None), int):
            return value
    return None


def text_config(shape: PretrainedConfig) -> Any:
    """Return the part of a configuration that describes the language model."""
    return shape.get_text_config()
