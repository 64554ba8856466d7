"""A model that takes the time and the memory of its name: to try a sweep, and to check what it reports.

    >>> spec = FakeSpec.parse("fake:prefill_ms=20,token_ms=2,state_mb=1")
    >>> spec.step_s(depth_tokens=1000)
    0.002

It sleeps until times reckoned from the beginning of a repeat, so that what it takes is known on a busy
machine, too; only the last fraction of a millisecond is spun.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from mambabench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

PREFIX = "fake:"
_EXAMPLE = "fake:prefill_ms=20,token_ms=2,weights_mb=64,state_mb=1,kv_kb=8,transient_mb=32"
_SPUN_S = 0.0003
_FIRST_ID = 1


@dataclass(frozen=True)
class FakeSpec:
    """What a fake model takes; sizes are powers of 1000."""

    text: str
    """As typed."""
    prefill_ms: float = 10.0
    """Of every prefill, whatever its length."""
    prefill_us_per_token: float = 0.0
    """More for each prompt token of a sequence."""
    token_ms: float = 1.0
    """Of every decoding step."""
    token_us_per_depth: float = 0.0
    """More for each token that a sequence is long already."""
    weights_mb: float = 0.0
    state_mb: float = 0.0
    """Of a sequence, whatever its length."""
    kv_kb: float = 0.0
    """Of a sequence, for each token that it is long."""
    transient_mb: float = 0.0
    """During a prefill only."""

    @classmethod
    def parse(cls, text: str) -> FakeSpec:
        """Read a name such as `fake:prefill_ms=20,token_ms=2`.

        Raises:
            UsageError: it is malformed, names an unknown quantity, or one is negative.
        """
        known = [f.name for f in fields(cls) if f.name != "text"]
        given: dict[str, float] = {}
        for part in filter(None, text.removeprefix(PREFIX).split(",")):
            name, _, number = part.partition("=")
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if name not in known or not 0 <= value < float("inf"):
                raise UsageError(
                    f"'{part}' in '{text}' is no quantity of a fake model",
                    hint=f"It has {', '.join(known)}; for example {_EXAMPLE}.",
                )
            given[name] = value
        return cls(text, **given)

    def prefill_s(self, *, prompt_len_tokens: int) -> float:
        """Return the time to the first id."""
        return self.prefill_ms / 1e3 + self.prefill_us_per_token * prompt_len_tokens / 1e6

    def step_s(self, *, depth_tokens: int) -> float:
        """Return the time of a step at a depth."""
        return self.token_ms / 1e3 + self.token_us_per_depth * depth_tokens / 1e6

    @property
    def weights_bytes(self) -> int:
        """Bytes that are held from loading on."""
        return round(self.weights_mb * 1e6)

    def state_bytes(self, *, length_tokens: int) -> int:
        """Return the bytes of one sequence's state."""
        return round(self.state_mb * 1e6) + round(self.kv_kb * 1e3) * length_tokens


class FakeDecoder:
    """A fake model as a `mambabench.bench.decoders.Decoder`.

    Args:
        spec: what it takes.
        now: seconds, replaced in tests together with `sleep`.
        sleep: waits for so many seconds.
        spun_s: the last part of a wait, which is spun because a sleep ends late.
    """

    implementation = "mambabench FakeDecoder"
    kernel_path = "sleep"
    vocab_size = 256

    def __init__(
        self,
        spec: FakeSpec,
        *,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        spun_s: float = _SPUN_S,
    ) -> None:
        import torch

        self._spec = spec
        self._now, self._sleep, self._spun_s = now, sleep, spun_s
        self.device = torch.device("cpu")
        self.weights_bytes = spec.weights_bytes
        self.logits = torch.zeros(1, self.vocab_size)
        self._weights = _touched(spec.weights_bytes)
        self._state: list[npt.NDArray[np.uint8]] = []
        self._rows = self._length = self._prompt_len = 0
        self._until = 0.0

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Do nothing: there is nothing to allocate beforehand."""

    def prefill(self, prompts: torch.Tensor) -> torch.Tensor:
        """Take the time and the memory of a prefill."""
        self._until = self._now()
        self._rows, self._prompt_len = prompts.shape
        self._state = []
        transient = _touched(round(self._spec.transient_mb * 1e6))
        self._grow(self._prompt_len)
        self._wait(self._spec.prefill_s(prompt_len_tokens=self._prompt_len))
        del transient
        return prompts.new_full((self._rows,), _FIRST_ID)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Take the time and the memory of a step."""
        depth = self._length
        self._grow(depth + 1)
        self._wait(self._spec.step_s(depth_tokens=depth))
        return ids

    def keep(self) -> None:
        """Do nothing: the state after the prompt is known by its length."""

    def rewind(self) -> torch.Tensor:
        """Go back to the end of the prompt."""
        import torch

        self._state, self._length = [], 0
        self._grow(self._prompt_len)
        self._until = self._now()
        return torch.full((self._rows,), _FIRST_ID)

    def state_bytes(self) -> int:
        """Return the bytes that the sequences hold."""
        return sum(part.nbytes for part in self._state)

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence so far."""
        return self._length

    def _grow(self, length: int) -> None:
        """Hold the state of sequences of this length."""
        wanted = self._rows * self._spec.state_bytes(length_tokens=length)
        missing = wanted - self.state_bytes()
        if missing > 0:
            self._state.append(_touched(missing))
        self._length = length

    def _wait(self, seconds: float) -> None:
        self._until += seconds
        rest = self._until - self._now() - self._spun_s
        if rest > 0:
            self._sleep(rest)
        while self._spun_s and self._now() < self._until:
            pass


def _touched(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Return memory that is in use: pages of zeros would not count until they are written."""
    import numpy as np

    return np.full(size_bytes, 1, np.uint8)
