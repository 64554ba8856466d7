"""One CUDA graph a token: a step's launches are recorded once and replayed as a whole.

The steps are those of `mambabench.bench.shipped` or `mambabench.bench.own_graphs`, over a state that stays
at its addresses, for Mamba and Transformers alike. What is recorded reads the ids where it puts the next
ones, so that a replay needs nothing from the host. A graph is of one shape: preparing another frees it and
its state first.

    decoder = GraphDecoder(stepped, cuda_recorder(device))
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from mambabench.bench.failures import UnsupportedError

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function launches and returns a function that launches it again."""

WARM_CALLS = 2
"""A recorder calls what it records at most so often before."""
_LONGEST_TRIAL_TOKENS = 16


class Recordable(Protocol):
    """What a graph repeats: a model's steps over a state that stays where it is, and its prefill as it is."""

    device: torch.device
    vocab_size: int
    weights_bytes: int
    implementation: str
    kernel_path: str
    logits: Tensor
    """Of the last position, [B, V], as the last forward left them."""

    def make_static(self) -> None:
        """Keep the state at its addresses from now on.

        Raises:
            UnsupportedError: a step depends on what a graph does not repeat.
        """
        ...

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Let go of what belongs to the last shape, then allocate for this one."""
        ...

    def prefill(self, prompts: Tensor) -> Tensor:
        """Forget what was before, forward prompts [B, L] and return the first ids [B]."""
        ...

    def step_in_place(self, ids: Tensor) -> None:
        """Forward one id of each sequence and put the next ones in its place."""
        ...

    def keep(self) -> None:
        """Remember the state after a prefill."""
        ...

    def rewind(self) -> Tensor:
        """Go back to the state that was kept and return the first ids [B]."""
        ...

    def state_bytes(self) -> int:
        """Return the bytes of the state, with the room for tokens to come."""
        ...

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence that the state has room for."""
        ...


def cuda_recorder(device: torch.device, cuda: Any = None) -> Recorder:
    """Return a recorder of CUDA graphs.

    Args:
        device: whose work is recorded.
        cuda: stands in for `torch.cuda`.
    """
    cuda = torch.cuda if cuda is None else cuda
    stream: Any = None

    def record(work: Callable[[], None]) -> Callable[[], None]:
        nonlocal stream
        # One for all calls and recordings: libraries keep a workspace for each stream that they have seen.
        stream = cuda.Stream(device) if stream is None else stream
        # Libraries allocate and tune in their first calls, which must not be recorded.
        stream.wait_stream(cuda.current_stream(device))
        with cuda.stream(stream):
            for _ in range(WARM_CALLS):
                work()
        cuda.current_stream(device).wait_stream(stream)
        graph = cuda.CUDAGraph()
        try:
            with cuda.device(device), cuda.graph(graph, stream=stream):
                work()
        except RuntimeError as error:
            if "captur" not in str(error):
                raise
            why = str(error).strip().splitlines()[0]
            raise UnsupportedError(f"a step cannot be recorded as a CUDA graph: {why}") from error
        replay: Callable[[], None] = graph.replay
        return replay

    return record


class GraphDecoder:
    """A stepped decoder whose steps are replayed; see `mambabench.bench.decoders.Decoder`.

    Args:
        inner: its prefill runs as it is, its step is recorded.
        record: makes a replay of a function.

    Raises:
        UnsupportedError: the inner one's steps cannot be recorded.
    """

    def __init__(self, inner: Recordable, record: Recorder) -> None:
        inner.make_static()
        self._inner, self._record = inner, record
        self.device, self.vocab_size = inner.device, inner.vocab_size
        self.weights_bytes = inner.weights_bytes
        self.implementation = inner.implementation
        self.capture_s = 0.0
        """What recording took."""
        self.logits = self._recorded = torch.empty(0)
        self._ids = torch.empty(0)
        self._replay: Callable[[], None] = _nothing

    @property
    def kernel_path(self) -> str:
        """What computes the scan or the attention."""
        return f"{self._inner.kernel_path}, CUDA graph"

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Allocate the state and record a step, if there will be any."""
        # The last graph holds memory of its own, and the state that it writes to is of another shape.
        self._replay = _nothing
        self.logits = self._recorded = self._ids = torch.empty(0)
        self._inner.prepare(
            batch_size=batch_size, prompt_len_tokens=prompt_len_tokens, gen_len_tokens=gen_len_tokens
        )
        # The trial's steps must not write past the end of keys and values.
        room = max(prompt_len_tokens + gen_len_tokens - WARM_CALLS, 1)
        length = min(prompt_len_tokens, _LONGEST_TRIAL_TOKENS, room)
        trial = torch.ones(batch_size, length, dtype=torch.int64, device=self.device)
        self._ids = self._inner.prefill(trial).clone()
        if gen_len_tokens == 1:
            return
        began_s = time.perf_counter()
        with torch.inference_mode():
            self._replay = self._record(self._step_in_place)
        self.capture_s = time.perf_counter() - began_s

    def prefill(self, prompts: Tensor) -> Tensor:
        """Forward prompts [B, L] from nothing."""
        with torch.inference_mode():
            self._ids.copy_(self._inner.prefill(prompts))
        self.logits = self._inner.logits
        return self._ids

    def step(self, ids: Tensor) -> Tensor:
        """Replay a step; the returned ids are overwritten by the next one."""
        if ids is not self._ids:
            self._ids.copy_(ids)
        self._replay()
        self.logits = self._recorded
        return self._ids

    def keep(self) -> None:
        """Copy the state."""
        self._inner.keep()

    def rewind(self) -> Tensor:
        """Go back to the copy."""
        with torch.inference_mode():
            self._ids.copy_(self._inner.rewind())
        return self._ids

    def state_bytes(self) -> int:
        """Walk the state's tensors, spare room included."""
        return self._inner.state_bytes()

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence that the state has room for."""
        return self._inner.state_tokens

    def _step_in_place(self) -> None:
        self._inner.step_in_place(self._ids)
        # Where a replay will put them.
        self._recorded = self._inner.logits


def _nothing() -> None:
    """Stand for a step before one is recorded."""
