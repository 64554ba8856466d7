"""A Mamba-1 on a CPU over the compiled scan of `mambabench.kernels.cpu`, with a transformers model's weights.

transformers' own CPU path is a Python loop over time, ten times slower and more. The weights are
shared with the transformers model, which stays at hand as `module`: what is loaded is loaded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mambabench.models.decoding import decode
from mambabench.models.mamba import MambaLM, MambaShape, MambaState
from mambabench.models.transformers_model import TransformersModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from mambabench.models.base import SamplingOptions
    from mambabench.schema import CheckpointRecord

KERNEL_PATH = "mambabench compiled scan"


def can_run(config: PreTrainedConfig, *, device: str, dtype: str) -> bool:
    """Whether this implementation runs a configuration: Mamba-1 with SiLU, on a CPU, in 32-bit floats.

    In 16 bits transformers rounds between operations in its own places, which is not repeated here.
    """
    plain_mamba = config.model_type == "mamba" and getattr(config, "hidden_act", "") == "silu"
    return plain_mamba and device == "cpu" and dtype == "float32"


class ScanModel(TransformersModel):
    """A Mamba-1 in 32-bit floats; see `mambabench.models.base.LoadedModel` for the methods' contract."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: CheckpointRecord
    ) -> None:
        super().__init__(module, tokenizer, record)
        config: Any = module.config
        with torch.device("meta"):
            self._model = MambaLM(MambaShape.from_transformers(config))
        self._model.load_state_dict(module.state_dict(), assign=True)
        self._model.eval()

    def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
        """Forward a right-padded batch [B, L]; return the last `keep` positions' logits [B, keep, V]."""
        if not 1 <= keep <= input_ids.shape[1]:
            raise ValueError(f"keep is {keep}, the batch is {input_ids.shape[1]} tokens long")
        with torch.inference_mode():
            output, _ = self._model(input_ids, keep=keep)
        kept: torch.Tensor = output[..., : self.vocab_size]
        return kept

    def generate(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        stop: Callable[[int, Sequence[int]], bool],
        eos_ids: Sequence[int],
    ) -> list[list[int]]:
        """Continue equally long prompts [B, L] from a state that is carried from token to token."""
        if options.extra:
            # What only transformers' generation knows, beam search for one, is left to it.
            return super().generate(
                input_ids, max_new_tokens=max_new_tokens, options=options, stop=stop, eos_ids=eos_ids
            )
        state: MambaState | None = None

        def step(ids: torch.Tensor) -> torch.Tensor:
            nonlocal state
            output, state = self._model(ids, state, keep=1)
            last: torch.Tensor = output[:, -1, : self.vocab_size]
            return last

        with torch.inference_mode():
            return decode(
                step,
                input_ids,
                max_new_tokens=max_new_tokens,
                options=options,
                stop=stop,
                eos_ids=eos_ids,
            )
