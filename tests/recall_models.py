"""Models that follow a rule: the next id is certain, or every id is as likely as every other.

`Ruled(rule)` scores by the plain forward, `Ruled(rule, on_states=True)` by shared states, whose content is
all that was heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

from mambabench.models.stateful import LayerState, State, StateSize, Step, TensorChange, check_step

NextId = Callable[[tuple[int, ...]], int | None]
"""From all ids so far to the next one; None for no idea."""
_CERTAIN = 40.0


def no_idea(prefix: tuple[int, ...]) -> int | None:
    return None


def saying(answers: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> NextId:
    """Return what follows each of some contexts by its answer, token for token, and has no other idea."""
    known: dict[tuple[int, ...], int] = {}
    for prefix, answer in answers:
        for token in answer:
            assert known.setdefault(prefix, token) == token
            prefix += (token,)
    return known.get


@dataclass(frozen=True)
class Heard:
    """All ids that each row has seen."""

    kind: ClassVar[str] = "heard"

    ids: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> Heard:
        return Heard(tuple(self.ids[row] for row in rows))

    @classmethod
    def concat(cls, parts: Sequence[Heard]) -> Heard:
        return cls(tuple(row for part in parts for row in part.ids))

    @classmethod
    def gather(cls, picks: Sequence[tuple[Heard, int]]) -> Heard:
        return cls(tuple(state.ids[row] for state, row in picks))

    def map(self, change: TensorChange) -> Heard:
        return self

    def storages(self) -> dict[int, int]:
        return {}

    def allocations(self) -> dict[int, int]:
        return {}

    def reserve(self, tokens: int) -> Heard:
        return self

    def reclaim(self) -> None:
        return

    def tensors(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Heard:
        raise NotImplementedError


class _OnStates:
    """A `StatefulModel` whose hidden rows are the next id, or -1."""

    device = torch.device("cpu")
    dtype = torch.float32
    kernel_path = "none"
    state_size = StateSize(fixed_bytes=64, bytes_per_token=0)
    activation_bytes_per_token = 64
    workspace_bytes = 0

    def __init__(self, rule: NextId, vocab_size: int) -> None:
        self.rule, self.vocab_size = rule, vocab_size

    def start(self, rows: int) -> State:
        layer: LayerState = Heard(((),) * rows)
        return State((0,) * rows, (layer,))

    def step(
        self,
        input_ids: torch.Tensor,
        lengths: Sequence[int],
        state: State | None = None,
        *,
        read: torch.Tensor | None = None,
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> Step:
        check_step(input_ids, lengths, state)
        state = self.start(len(lengths)) if state is None else state
        [before] = state.layers
        assert isinstance(before, Heard)
        wanted = set(range(len(input_ids)) if read is None else read.tolist())
        found: dict[int, int | None] = {}
        heard, begin = [], 0
        for n, past in zip(lengths, before.ids, strict=True):
            whole = past + tuple(input_ids[begin : begin + n].tolist())
            found |= {
                begin + i: self.rule(whole[: len(past) + i + 1]) for i in range(n) if begin + i in wanted
            }
            heard.append(whole)
            begin += n
        order = range(len(input_ids)) if read is None else read.tolist()
        hidden = torch.tensor([-1 if found[i] is None else found[i] for i in order]).float()[:, None]
        after = State(tuple(map(len, heard)), (Heard(tuple(heard)),))
        return Step(hidden, after if keep is None else after.select(keep) if keep else None)

    def logits(self, hidden: torch.Tensor, *, first: int = 0, last: int | None = None) -> torch.Tensor:
        columns = torch.arange(first, self.vocab_size if last is None else last)
        return _CERTAIN * (hidden == columns).float()


class Ruled:
    """What scoring needs of a `LoadedModel`.

    Args:
        rule: gives the next id.
        vocab_size: ids that may be predicted.
        on_states: whether it goes on from states.
        max_length: longest window in tokens.
    """

    device = torch.device("cpu")

    def __init__(
        self, rule: NextId, vocab_size: int, *, on_states: bool = False, max_length: int = 2048
    ) -> None:
        self.rule, self.vocab_size, self.max_length = rule, vocab_size, max_length
        self.stateful = _OnStates(rule, vocab_size) if on_states else None
        self.record: Any = SimpleNamespace(name="ruled", n_parameters=10**9)

    def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
        assert self.stateful is None, "the plain forward was used"
        logits = torch.zeros(*input_ids.shape, self.vocab_size)[:, -keep:]
        first = input_ids.shape[1] - keep
        for row, ids in enumerate(input_ids.tolist()):
            for position in range(keep):
                following = self.rule(tuple(ids[: first + position + 1]))
                if following is not None:
                    logits[row, position, following] = _CERTAIN
        return logits
