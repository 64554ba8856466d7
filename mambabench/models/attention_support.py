"""Whether a model of transformers can run with packed attention, or must run as shipped.

    reason = supports(module)        # null, or for example "its rotary positions depend on the longest row"

What is known to be different is looked for by name; then a few tokens go through both forwards, which finds
what nobody thought of. A model about which there is doubt is run as shipped.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mambabench.errors import MambabenchError
from mambabench.models.step_attention import AttentionSteps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LAYERS = frozenset({"full_attention", "sliding_attention", "attention"})
_NEIGHBOURLY_ROPE = ("dynamic", "longrope")
"""Rotary positions whose frequencies depend on the longest row of the batch."""
_LOGIT_CHANGES = ("final_logit_softcapping", "attn_logit_softcapping", "logit_scale", "logits_scaling")
_ROWS, _TOKENS = 2, 8
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference from the shipped logits in standard deviations of theirs. In 16 bits two right forwards
differ too; how much is allowed there is for the check of each run to say, this one finds other arithmetic."""


def supports(module: PreTrainedModel) -> str | None:
    """Say why a model cannot run as `AttentionSteps`.

    Args:
        module: on its device, in the dtype of the run, not training.

    Returns:
        The reason in words; null when it can. Costs four forwards of at most sixteen tokens.
    """
    untyped: Any = module
    return _missing(untyped) or _odd_configuration(untyped.config) or _odd_parts(untyped) or _tried(untyped)


def _missing(module: Any) -> str | None:
    """Say which interface of transformers the class does not offer."""
    if module.config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    if not (module._supports_attention_backend and module._can_set_attn_implementation()):
        return "its attention cannot be replaced"
    if not module._supports_sdpa:
        return "its attention has no sdpa form"
    if module.base_model is module:
        return "it has no base model"
    if "position_ids" not in inspect.signature(module.base_model.forward).parameters:
        return "its forward takes no positions"
    if type(module.get_output_embeddings()) is not nn.Linear:
        return "its head is not a plain linear layer"
    if len({parameter.device for parameter in module.parameters()}) > 1:
        return "its weights lie on several devices"
    return None


def _odd_configuration(config: Any) -> str | None:
    if config.get_text_config() is not config:
        return "it is more than a text model"
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    if odd := sorted(set(kinds) - _LAYERS):
        return f"it has layers of type {odd[0]}"
    for name in _LOGIT_CHANGES:
        if getattr(config, name, None) not in (None, 1, 1.0, False):
            return f"it changes its logits ({name})"
    if _rope_types(getattr(config, "rope_parameters", None)) & set(_NEIGHBOURLY_ROPE):
        return "its rotary positions depend on the longest row"
    return None


def _rope_types(parameters: Any) -> set[str]:
    """Return the kinds of rotary positions, of which a configuration may hold one for each layer type."""
    if not isinstance(parameters, Mapping):
        return set()
    found = {str(parameters["rope_type"])} if "rope_type" in parameters else set()
    return found.union(*(_rope_types(value) for value in parameters.values()))


def _odd_parts(module: Any) -> str | None:
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("A_log", "dt_bias"):
            return "it has recurrent layers"
        if name.rpartition(".")[2] == "sinks":
            return "its attention has sinks"
        if parameter.dtype not in _TOLERANCE:
            return f"its weights are {str(parameter.dtype).removeprefix('torch.')}"
    if any(isinstance(part, nn.Conv1d) for part in module.modules()):
        return "it has convolutions"
    return None


def _tried(module: Any) -> str | None:
    """Compare the two forwards, the packed one in pieces."""
    try:
        return _compared(module)
    except MambabenchError as error:
        return error.message
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        # Whatever a class does that nothing above knows of, the model can still run as shipped.
        detail = (str(error) or type(error).__name__).strip().splitlines()[0]
        return f"its forward fails when packed: {detail}"


def _compared(module: Any) -> str | None:
    config = module.config
    vocab_size = module.get_output_embeddings().weight.shape[0]
    steps = AttentionSteps(module, vocab_size=vocab_size)
    if len(steps.windows) != config.num_hidden_layers:
        return f"{len(steps.windows)} of its {config.num_hidden_layers} layers are attention"
    if steps.windows != _windows(config):
        return "its sliding windows do not reach its attention"
    # Ids spread over the vocabulary, each once.
    ids = (torch.arange(_ROWS * _TOKENS, device=steps.device) * 7919 + 11) % vocab_size
    ids = ids.view(_ROWS, _TOKENS)
    with torch.inference_mode():
        shipped = module(input_ids=ids, use_cache=False).logits.float()
    head, tail = ids[:, : _TOKENS - 3], ids[:, _TOKENS - 3 :]
    # The first row's end goes in with the whole second row.
    first = steps.step(head[0], [_TOKENS - 3])
    second = steps.step(head[1], [_TOKENS - 3])
    assert first.state is not None
    assert second.state is not None
    states = type(first.state).concat([second.state, first.state])
    ends = steps.step(tail.flip(0).reshape(-1), [3, 3], states, keep=[])
    hidden = torch.cat([first.hidden, ends.hidden[3:], second.hidden, ends.hidden[:3]])
    packed = steps.logits(hidden).float()
    difference = (packed - shipped.flatten(0, 1)).abs().max() / shipped.std()
    limit = _TOLERANCE[steps.dtype]
    # Not a number fails too.
    if not difference <= limit:
        return f"its packed forward differs from its own by {float(difference):.1e} standard deviations"
    return None


def _windows(config: Any) -> tuple[int | None, ...]:
    """Return the window of each layer that the configuration promises."""
    window = getattr(config, "sliding_window", None) or None
    if not getattr(config, "use_sliding_window", True):
        window = None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
