"""What the models of one kind of recurrent layer share: all but which layers they are.

    steps = RecurrentSteps(module, kernels, layers, vocab_size=50277)
    steps.step(ids, [7, 3])

`mambabench.models.step_mamba` and `mambabench.models.step_mamba2` make the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mambabench.models.layers import linear, row_starts, widened
from mambabench.models.one_token import OneToken, stepped
from mambabench.models.recurrent_state import RecurrentLayers
from mambabench.models.stateful import State, StateSize, Step, check_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mambabench.kernels.packed import PackedKernels


class RecurrentSteps:
    """A recurrent language model; see `mambabench.models.stateful.StatefulModel` for the methods' contract.

    Args:
        module: transformers' causal language model; its weights are shared.
        kernels: of the device that the weights are on.
        layers: its mixers, `mambabench.models.step_mamba.MambaLayer` or the like, all of one shape.
        vocab_size: ids that may be predicted.
    """

    def __init__(
        self, module: PreTrainedModel, kernels: PackedKernels, layers: Sequence[Any], *, vocab_size: int
    ) -> None:
        causal: Any = module
        backbone = causal.backbone
        self._embedding: Tensor = backbone.embeddings.weight.detach()
        self._head: Tensor = causal.get_output_embeddings().weight.detach()
        self.vocab_size = vocab_size
        self.device, self.dtype = self._embedding.device, self._embedding.dtype
        self._kernels, self._layers = kernels, layers
        self.kernel_path, self.workspace_bytes = layers[0].way
        self._norms = [widened(block.norm.weight) for block in backbone.layers]
        self._last_norm = widened(backbone.norm_f.weight)
        self._eps = float(causal.config.layer_norm_epsilon)
        self._recurrent = RecurrentLayers([layer.shapes for layer in layers])
        self._one_token = OneToken(layers, self._norms, self._last_norm, self._eps, self._recurrent)
        self.state_size = StateSize(self._recurrent.row_bytes, 0)
        # The residual stream, its normalised copy and the mixer's output beside what the mixer holds.
        width, size = self._embedding.shape[1], kernels.dtype.itemsize
        self.activation_bytes_per_token = layers[0].token_bytes + (4 + 2 * size) * width

    def start(self, rows: int) -> State:
        """Return the state of rows that have seen nothing."""
        return State((0,) * rows, self._recurrent.start(rows))

    def step(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        state: State | None = None,
        *,
        read: Tensor | None = None,
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> Step:
        """Forward rows of tokens end to end, each on from its state."""
        check_step(input_ids, lengths, state)
        starts = row_starts(lengths)
        before: Any = None if state is None else state.layers
        with torch.inference_mode():
            after, kept = self._recurrent.places(
                before, self._last_norm, len(lengths), keep=keep, consume=consume
            )
            residual = torch.nn.functional.embedding(input_ids, self._embedding).float()
            if self._one_token.takes(lengths):
                hidden = self._one_token(residual, before, after)
                return stepped(hidden if read is None else hidden[read], lengths, state, keep, kept)
            mixed: Tensor | None = None
            for i, (layer, norm) in enumerate(zip(self._layers, self._norms, strict=True)):
                mixed = layer.step(
                    self._kernels.add_norm(residual, mixed, norm, self._eps),
                    starts,
                    None if before is None else before[i],
                    None if after is None else after[i],
                    read=read if i == len(self._layers) - 1 else None,
                )
            if read is not None:
                residual = residual[read]
            hidden = self._kernels.add_norm(residual, mixed, self._last_norm, self._eps)
        return stepped(hidden, lengths, state, keep, kept)

    def logits(self, hidden: Tensor, *, first: int = 0, last: int | None = None) -> Tensor:
        """Return the logits of hidden rows for ids from `first` to `last`."""
        with torch.inference_mode():
            return linear(hidden, self._head[first : self.vocab_size if last is None else last])
