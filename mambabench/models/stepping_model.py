"""A model without a shipped module on this machine, behind the protocol of `mambabench.models.base`.

mamba_ssm's hybrids have code for a CUDA GPU alone. On a CPU their forward over states is the only one there
is, so the plain forward and generation are made of its steps.

    model = SteppingModel(HybridSteps(config, weights, vocab_size=n, dtype=torch.float32), tokenizer, record)
    model.logits(torch.tensor([[1, 2, 3]]), keep=1).shape      # [1, 1, vocab_size]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from mambabench.models.decoding import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mambabench.models.base import SamplingOptions
    from mambabench.models.stateful import State, StatefulModel
    from mambabench.schema import CheckpointRecord


class SteppingModel:
    """A model that has steps only; see `mambabench.models.base.LoadedModel` for the methods' contract.

    There is no `module`: nothing that the steps could be compared with. Logits are those of the steps,
    float32 whatever the weights' dtype.

    Args:
        stateful: the model as a function of a state.
        tokenizer: its tokenizer.
        record: what was loaded.
    """

    def __init__(
        self, stateful: StatefulModel, tokenizer: PreTrainedTokenizerBase, record: CheckpointRecord
    ) -> None:
        self._steps = stateful
        self.stateful: StatefulModel | None = stateful
        self.tokenizer = tokenizer
        self.record = record
        self.device = stateful.device
        self.vocab_size = stateful.vocab_size
        self.max_length = record.max_length_tokens

    def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
        """Forward a right-padded batch [B, L]; return the last `keep` positions' logits [B, keep, V]."""
        rows, length = input_ids.shape
        if not 1 <= keep <= length:
            raise ValueError(f"keep is {keep}, the batch is {length} tokens long")
        read = self._last_positions(rows, length, keep)
        hidden = self._steps.step(input_ids.flatten(), [length] * rows, read=read, keep=[]).hidden
        return self._steps.logits(hidden).view(rows, keep, -1)

    def generate(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        stop: Callable[[int, Sequence[int]], bool],
        eos_ids: Sequence[int],
    ) -> list[list[int]]:
        """Continue equally long prompts [B, L]; see the protocol for `stop` and `eos_ids`."""
        state: State | None = None

        def step(ids: torch.Tensor) -> torch.Tensor:
            nonlocal state
            rows, length = ids.shape
            read = self._last_positions(rows, length, 1)
            done = self._steps.step(ids.flatten(), [length] * rows, state, read=read, consume=True)
            state = done.state
            return self._steps.logits(done.hidden)

        return decode(
            step, input_ids, max_new_tokens=max_new_tokens, options=options, stop=stop, eos_ids=eos_ids
        )

    def _last_positions(self, rows: int, length: int, keep: int) -> torch.Tensor:
        """Return where the last `keep` tokens of each row stand when the rows lie end to end."""
        return torch.arange(rows * length, device=self.device).view(rows, length)[:, -keep:].flatten()
