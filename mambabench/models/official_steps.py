"""mamba_ssm's own model as a function of a state, and what its rounding is measured against.

Its forward goes on from a state by one token at a time only, so the steps are our own, over its weights.
A certificate compares both with a forward in 64 bits. mamba_ssm's kernels have none; transformers' code for
the same architecture has, and takes the same weights. Where transformers has no such architecture, as for
hybrids, there is a forward in plain torch.

    steps = steps_over(module, config, vocab_size=50277, dtype=torch.bfloat16)
    reference = reference_for(module, config, MambaConfig(...))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mambabench.errors import CheckpointError
from mambabench.kernels.packed import obstacle
from mambabench.models import architecture, convert, hybrid_shapes
from mambabench.models.kernel_paths import keep_cpu_on_torch
from mambabench.models.plain_model import PlainModel
from mambabench.models.step_hybrid import HybridSteps

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def steps_over(
    module: torch.nn.Module,
    config: dict[str, Any],
    *,
    device: torch.device,
    vocab_size: int,
    dtype: torch.dtype,
) -> HybridSteps | None:
    """Return a model that goes on from states over the weights of a `MambaLMHeadModel`.

    Args:
        module: on the device where it runs.
        config: mamba_ssm's configuration of it.
        device: that device.
        vocab_size: ids that may be predicted.
        dtype: of the matrix products.

    Returns:
        Null where there is no code for it, or no kernels for the device: it then runs as it is shipped.
    """
    if obstacle(device) or hybrid_shapes.obstacle(config):
        return None
    return HybridSteps(config, module.state_dict(), vocab_size=vocab_size, dtype=dtype)


def reference_for(
    module: torch.nn.Module, config: dict[str, Any], shape: PretrainedConfig | None
) -> PreTrainedModel | PlainModel:
    """Return a model over the very weights of a `MambaLMHeadModel` that can be run in 64 bits.

    Args:
        module: which `steps_over` has steps for.
        config: mamba_ssm's configuration of it.
        shape: transformers' configuration of it; null where transformers has no such architecture.

    Raises:
        CheckpointError: the two do not have the same parameters.
    """
    return PlainModel(config, module.state_dict()) if shape is None else twin(module, config, shape)


def twin(module: torch.nn.Module, config: dict[str, Any], shape: PretrainedConfig) -> PreTrainedModel:
    """Return transformers' model over the very weights of a `MambaLMHeadModel`; nothing is copied.

    Args:
        module: of a Mamba or a Mamba-2.
        config: mamba_ssm's configuration of it.
        shape: transformers' configuration of it.

    Raises:
        CheckpointError: the two do not have the same parameters.
    """
    kind: Any = architecture.model_class(shape)
    with torch.device("meta"):
        made: Any = kind(shape)
    state = convert.to_transformers_state(dict(module.state_dict()), config)
    try:
        made.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights do not fit config.json: {str(error).splitlines()[-1].strip()}"
        ) from error
    made.tie_weights()
    left = [name for name, tensor in (*made.named_parameters(), *made.named_buffers()) if tensor.is_meta]
    if left:
        raise CheckpointError(f"the weights do not fit config.json: the checkpoint lacks {left[0]}")
    keep_cpu_on_torch(made)
    found: PreTrainedModel = made.eval()
    return found
