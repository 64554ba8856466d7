"""Our own steps as a CUDA graph repeats them, where no library's can be recorded.

Mamba, Mamba-2 and FalconMamba on a GPU without mamba_ssm, its hybrids without it, and those of its models
whose steps of one token differ from their forward (`mambabench.models.official.steps_differ`). What steps
change stays at its address, see `mambabench.models.static_steps`; prompts go through the forward that every
other arm of ours has.

    steps = InPlaceDecoder(model, implementation="mambabench MambaSteps", weights_bytes=n)
    decoder = GraphDecoder(steps, cuda_recorder(model.device))

A prompt's windows and recurrent states are copied to where steps want them, so that they are there twice
for a moment; keys and values are written to their places at once. It has not run on a GPU yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mambabench.bench import shipped
from mambabench.bench.decoders import greedy, prefilled
from mambabench.bench.failures import UnsupportedError
from mambabench.models.static_steps import StaticSteps, obstacle

if TYPE_CHECKING:
    from mambabench.bench.shipped import SteppedDecoder
    from mambabench.models.base import LoadedModel
    from mambabench.models.stateful import State, StatefulModel


class InPlaceDecoder:
    """A model of ours with its state in place; `mambabench.bench.graphs.GraphDecoder` says what it asks for.

    Args:
        model: the state-carrying forward.
        implementation: for the record.
        weights_bytes: of the parameters.
        prefill_chunk_tokens: of each sequence at once; null for all.
    """

    def __init__(
        self,
        model: StatefulModel,
        *,
        implementation: str,
        weights_bytes: int,
        prefill_chunk_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.device, self.vocab_size = model.device, model.vocab_size
        self.implementation, self.kernel_path = implementation, model.kernel_path
        if model.state_size.bytes_per_token:
            self.kernel_path += ", in steps over a static cache"
        self.weights_bytes = weights_bytes
        self.logits = torch.empty(0)
        self._chunk = prefill_chunk_tokens
        self._steps: StaticSteps | None = None
        self._first: Tensor | None = None
        self._kept: tuple[list[Tensor], Tensor] | None = None
        self._room_tokens = 0

    def make_static(self) -> None:
        """Do nothing: the state is in place always.

        Raises:
            UnsupportedError: the model's cannot be.
        """
        if why := obstacle(self.model):
            raise UnsupportedError(why)

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Forget the last shape's state, and note the room that keys and values need."""
        # First what is held, so that both are never there together.
        self._steps = self._first = self._kept = None
        self.logits = torch.empty(0)
        self._room_tokens = prompt_len_tokens + gen_len_tokens

    def prefill(self, prompts: Tensor) -> Tensor:
        """Forward prompts [B, L] from nothing."""
        self._kept = None
        steps, begun = self._steps, self._begun(len(prompts))
        done = prefilled(self.model, prompts, begun, self._chunk)
        assert done.state is not None
        if steps is None:
            self._steps = StaticSteps(self.model, done.state)
        else:
            steps.load(done.state)
        self.logits = self.model.logits(done.hidden)
        self._first = greedy(self.logits)
        return self._first

    def step_in_place(self, ids: Tensor) -> None:
        """Forward one id of each sequence and put the next ones in its place."""
        assert self._steps is not None
        self.logits = self.model.logits(self._steps.step(ids))
        ids.copy_(greedy(self.logits))

    def keep(self) -> None:
        """Copy what steps change."""
        assert self._steps is not None
        assert self._first is not None
        self._kept = self._steps.saved(), self._first.clone()

    def rewind(self) -> Tensor:
        """Go back to the copy, which stays whole."""
        assert self._steps is not None
        assert self._kept is not None
        saved, ids = self._kept
        self._steps.restore(saved)
        return ids.clone()

    def state_bytes(self) -> int:
        """Walk the state's tensors, spare room included."""
        return 0 if self._steps is None else self._steps.nbytes

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence that there is room for."""
        return self._room_tokens

    def state_tensors(self) -> list[Tensor]:
        """Return the state's memory."""
        return [] if self._steps is None else self._steps.tensors()

    def _begun(self, rows: int) -> State | None:
        if self._steps is not None:
            return self._steps.emptied()
        if not self.model.state_size.bytes_per_token:
            return None
        return self.model.start(rows).reserve(self._room_tokens)


def recordable(
    model: LoadedModel, weights_bytes: int, attention: str, chunk_tokens: int | None
) -> InPlaceDecoder | SteppedDecoder:
    """Return the steps that a graph repeats: those of the model's own library where they can be, else ours.

    transformers' code for a recurrent model stands in for mamba_ssm's; there it is ours, as in other arms.

    Raises:
        UnsupportedError: neither can be recorded, or forwards prompts so.
    """
    own = model.stateful if attention in ("sdpa", "none") else None
    if own is not None and obstacle(own):
        own = None
    if own is None or _is_official(model) or getattr(model, "module", None) is None:
        try:
            return _library_steps(model, weights_bytes, attention, chunk_tokens)
        except UnsupportedError:
            if own is None:
                raise
    return InPlaceDecoder(
        own,
        implementation=model.record.implementation,
        weights_bytes=weights_bytes,
        prefill_chunk_tokens=chunk_tokens,
    )


def _library_steps(
    model: Any, weights_bytes: int, attention: str, chunk_tokens: int | None
) -> SteppedDecoder:
    module = getattr(model, "module", None)
    if module is None:
        raise UnsupportedError(f"{model.record.name} has no shipped code that runs on {model.device.type}")
    found = shipped.stepped(module, model, weights_bytes, attention, chunk_tokens)
    found.make_static()
    return found


def _is_official(model: Any) -> bool:
    return type(getattr(model, "module", None)).__module__.startswith("mamba_ssm")
