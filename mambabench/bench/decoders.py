"""The arms of a sweep: how a loaded model prefills and steps a batch of equally long prompts.

All are driven by one loop (`mambabench.bench.measure`) that never waits for the device between steps, so
that what differs between two figures is the model and the arm. Ids are greedy unless the arm draws them;
an id that ends a text ends nothing.

    decoder = build_decoder(model, arm="eager")
    ids = decoder.prefill(prompts)          # [B, L] -> [B]
    ids = decoder.step(ids)                 # [B] -> [B]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from mambabench.bench.failures import UnsupportedError
from mambabench.models.base import SamplingOptions

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel
    from mambabench.models.stateful import State, StatefulModel, Step
    from mambabench.speed_schema import Arm

SAMPLING = SamplingOptions(do_sample=True, temperature=0.8, top_k=50, top_p=0.95)
"""How the "sampled" arm draws: all of the usual filters, so that none of their costs is left out."""

Choose = Callable[[Tensor], Tensor]
"""Next ids [B] from the last position's logits [B, V]."""


class Decoder(Protocol):
    """A loaded model in one arm."""

    device: torch.device
    vocab_size: int
    """Ids that prompts may hold."""
    implementation: str
    """Class that runs the forward, for the record."""
    weights_bytes: int
    """Of the parameters as loaded, tied ones once."""

    @property
    def logits(self) -> Tensor:
        """Of the last position, [B, V], as the last forward left them."""
        ...

    @property
    def kernel_path(self) -> str:
        """What computes the scan or the attention, for the record."""
        ...

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Allocate what is fixed for a shape; the caller times it apart."""
        ...

    def prefill(self, prompts: Tensor) -> Tensor:
        """Forget what was before, forward prompts [B, L] and return the first ids [B], on the device."""
        ...

    def step(self, ids: Tensor) -> Tensor:
        """Forward one id of each sequence and return the next ones [B], on the device."""
        ...

    def keep(self) -> None:
        """Remember the state after a prefill, for `rewind`; called right after it."""
        ...

    def rewind(self) -> Tensor:
        """Go back to the state that was kept and return the first ids [B]."""
        ...

    def state_bytes(self) -> int:
        """Return the bytes of the live state or cache, all sequences together."""
        ...

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence that the state or cache covers; with a static cache, has room for."""
        ...


def greedy(logits: Tensor) -> Tensor:
    """Return the ids of the largest logits [B], without waiting for the device."""
    return logits.argmax(dim=-1)


def drawn(batch_size: int, seed: int = 0) -> Choose:
    """Return a function that draws ids as the generator's engine does."""
    from dataclasses import replace

    from mambabench.models.sampling import RowSamplers

    rows = list(range(batch_size))
    samplers = RowSamplers([replace(SAMPLING, seed=seed + row) for row in rows])

    def choose(logits: Tensor) -> Tensor:
        ids = samplers.choose(logits, rows, lambda row: ())
        return torch.tensor(ids, device=logits.device)

    return choose


def parameter_bytes(parameters: Any) -> int:
    """Return the bytes of some tensors, those that share memory once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in parameters}.values())


def prefilled(model: StatefulModel, prompts: Tensor, state: State | None, chunk_tokens: int | None) -> Step:
    """Forward prompts [B, L], all at once or in pieces; the hidden rows [B, d_model] are of the last tokens.

    Args:
        model: the state-carrying forward.
        prompts: ids.
        state: that the rows go on from, which is given up; null for nothing.
        chunk_tokens: of each sequence at once; null for all.
    """
    rows, length = prompts.shape
    chunk = min(chunk_tokens or length, length)
    for begin in range(0, length, chunk):
        part = prompts[:, begin : begin + chunk]
        width = part.shape[1]
        ends = torch.arange(1, rows + 1, device=prompts.device) * width - 1
        read = ends if begin + chunk >= length else ends[:0]
        step = model.step(part.reshape(-1), [width] * rows, state, read=read, consume=True)
        state = step.state
    return step


class StatefulDecoder:
    """A model that goes on from states; prompts may be forwarded in pieces, which is exact.

    Args:
        model: the state-carrying forward.
        implementation: for the record.
        weights_bytes: of the parameters.
        sampled: whether ids are drawn.
        prefill_chunk_tokens: of each sequence at once; null for all.
    """

    def __init__(
        self,
        model: StatefulModel,
        *,
        implementation: str,
        weights_bytes: int,
        sampled: bool = False,
        prefill_chunk_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.device, self.vocab_size = model.device, model.vocab_size
        self.implementation, self.kernel_path = implementation, model.kernel_path
        self.weights_bytes = weights_bytes
        self._sampled = sampled
        self._chunk = prefill_chunk_tokens
        self._choose: Choose = greedy
        self.logits = torch.empty(0)
        self._state: State | None = None
        self._kept: tuple[State, Tensor] | None = None
        self._first: Tensor | None = None
        self._lengths: list[int] = []
        self._may_overwrite = True
        self._room_tokens = 0

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Set the samplers up, and note the room that keys and values will need."""
        self._lengths = [1] * batch_size
        # The last id is not forwarded.
        self._room_tokens = prompt_len_tokens + gen_len_tokens - 1
        if self._sampled:
            self._choose = drawn(batch_size)

    def prefill(self, prompts: Tensor) -> Tensor:
        """Forward prompts [B, L] from nothing."""
        self._state = self._kept = None
        begun = None
        if self.model.state_size.bytes_per_token:
            begun = self.model.start(len(prompts)).reserve(self._room_tokens)
        step = prefilled(self.model, prompts, begun, self._chunk)
        self._state = step.state
        self._may_overwrite = True
        self.logits = self.model.logits(step.hidden)
        self._first = self._choose(self.logits)
        return self._first

    def step(self, ids: Tensor) -> Tensor:
        """Forward one id of each sequence."""
        step = self.model.step(ids, self._lengths, self._state, consume=self._may_overwrite)
        self._state = step.state
        self._may_overwrite = True
        self.logits = self.model.logits(step.hidden)
        return self._choose(self.logits)

    def keep(self) -> None:
        """Remember the state, which is a value; it is only not given up."""
        assert self._state is not None
        assert self._first is not None
        self._kept = self._state, self._first
        self._may_overwrite = False

    def rewind(self) -> Tensor:
        """Go back to the state that was kept."""
        assert self._kept is not None
        self._state, ids = self._kept
        self._state.reclaim()
        self._may_overwrite = False
        return ids

    def state_bytes(self) -> int:
        """Walk the state's tensors."""
        return 0 if self._state is None else self._state.nbytes

    def allocated_bytes(self) -> int:
        """Return the bytes of the memory that the state stands in, spare room included."""
        return 0 if self._state is None else self._state.allocated_bytes

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence so far."""
        return 0 if self._state is None else self._state.lengths[0]


def build_decoder(
    model: LoadedModel, *, arm: Arm, attention: str = "sdpa", prefill_chunk_tokens: int | None = None
) -> Decoder:
    """Return the decoder of an arm.

    Args:
        model: loaded.
        arm: which way of executing it.
        attention: "sdpa", "flash" or "eager"; "none" for a model without attention.
        prefill_chunk_tokens: prompts are forwarded in pieces of so many tokens; null for all at once.

    Raises:
        UnsupportedError: the model cannot be executed so.
    """
    from mambabench.bench import graphs, own_graphs, shipped

    untyped: Any = model
    module = getattr(untyped, "module", None)
    if module is not None:
        weights_bytes = parameter_bytes(module.parameters())
    else:
        weights_bytes = untyped.stateful.weights_bytes
    packed = model.stateful if attention in ("sdpa", "none") else None
    if arm in ("eager", "sampled") and packed is not None:
        return StatefulDecoder(
            packed,
            implementation=model.record.implementation,
            weights_bytes=weights_bytes,
            sampled=arm == "sampled",
            prefill_chunk_tokens=prefill_chunk_tokens,
        )
    if arm == "graph":
        if model.device.type != "cuda":
            raise UnsupportedError("CUDA graphs need a CUDA GPU")
        steps = own_graphs.recordable(model, weights_bytes, attention, prefill_chunk_tokens)
        return graphs.GraphDecoder(steps, graphs.cuda_recorder(model.device))
    if module is None:
        raise UnsupportedError(f"{model.record.name} has no shipped code that runs on {model.device.type}")
    stepped = shipped.stepped(module, model, weights_bytes, attention, prefill_chunk_tokens)
    if arm == "sampled":
        stepped.sampled = True
    return stepped
