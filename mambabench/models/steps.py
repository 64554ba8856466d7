"""Which code runs a loaded model as a function of a state; a new family is one more line here.

steps = steps_for(module, vocab_size=50277)      # null: it runs as it is shipped
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mambabench.kernels import ahead
from mambabench.kernels.packed import obstacle
from mambabench.models import attention_support, step_attention, step_mamba, step_mamba2

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mambabench.models.stateful import StatefulModel


def steps_for(module: PreTrainedModel, *, vocab_size: int) -> StatefulModel | None:
    """Return a model that goes on from states over the module's weights, or null if there is no code for it.

    Args:
        module: a causal language model of transformers, on the device where it runs.
        vocab_size: ids that may be predicted.
    """
    family = str(module.config.model_type)
    if family in step_mamba.FAMILIES | step_mamba2.FAMILIES:
        # Without kernels that start from a state it runs as it is shipped; its record says so.
        if obstacle(module.device) or getattr(module.config, "hidden_act", "") != "silu":
            return None
        if module.device.type == "cpu":
            ahead.wait_for("mamba2" if family in step_mamba2.FAMILIES else "mamba")
        if family in step_mamba.FAMILIES:
            return step_mamba.MambaSteps(module, vocab_size=vocab_size)
        return step_mamba2.Mamba2Steps(module, vocab_size=vocab_size)
    if attention_support.supports(module) is not None:
        return None
    return step_attention.AttentionSteps(module, vocab_size=vocab_size)
