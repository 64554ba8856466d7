"""A model as a function of a state: forward some tokens, get hidden rows where asked and the new state.

Everything fast is written once on this: scoring with shared prefixes, generation, evaluation in pieces.
Sequences of one call lie end to end without padding, each going on from a state of its own.

    step = model.step(ids, [40])                        # a context of 40 tokens
    fork = step.state.select([0, 0])                    # two continuations share it
    ends = model.step(more_ids, [3, 5], fork).hidden    # [8, d_model]
    model.logits(ends)                                  # [8, vocab_size]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from mambabench.models.recurrent_state import Gathering, once
from mambabench.models.recurrent_state import RecurrentState as RecurrentState

if TYPE_CHECKING:
    import torch

    from mambabench.kernels.rows import Memory


class LayerState(Protocol):
    """What one layer remembers of each of several rows."""

    kind: ClassVar[str]
    """Name under which the class is found again when a state is read from disk."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    def select(self, rows: Sequence[int]) -> Self:
        """Return the given rows, each as often as it is named."""
        ...

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of several states after one another."""
        ...

    @classmethod
    def gather(cls, picks: Sequence[tuple[Self, int]]) -> Self:
        """Return one row for each (state, row), copying nothing twice."""
        ...

    def map(self, change: TensorChange) -> Self:
        """Return the state with every tensor replaced by `change(tensor)`."""
        ...

    def storages(self) -> Mapping[int, int]:
        """Return the bytes in use of each piece of memory by its address: what is shared counts once."""
        ...

    def allocations(self) -> Mapping[int, int]:
        """Return the bytes of each whole piece of memory by its address, spare room included."""
        ...

    def reserve(self, tokens: int) -> Self:
        """Return the state of rows that are going to see so many tokens; see `State.reserve`."""
        ...

    def reclaim(self) -> None:
        """Give up whatever went on from this state; see `State.reclaim`."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state as named tensors, for the disk."""
        ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Build the state from what `tensors` returned."""
        ...


class TensorChange(Protocol):
    """A function from tensor to tensor."""

    def __call__(self, tensor: torch.Tensor, /) -> torch.Tensor:
        """Return the changed tensor."""
        ...


@dataclass(frozen=True)
class State:
    """What a model remembers of each row's tokens so far, layer by layer.

    A state is a value: `step` leaves the one it is given as it was, unless the caller gives it up with
    `consume=True`. What `select`, `gather` and `concat` return shares memory with where it came from, which
    stays as it was even if the former is given up.
    """

    lengths: tuple[int, ...]
    """Tokens that each row has seen."""
    layers: tuple[LayerState, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes in use; memory that rows share is counted once."""
        return bytes_of([self])

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the memory that is held, with the room for tokens to come that `nbytes` leaves out."""
        found: dict[int, int] = {}
        for layer in self._each_memory_once():
            found |= layer.allocations()
        return sum(found.values())

    def reserve(self, tokens: int) -> State:
        """Return the state of rows that are going to see so many tokens each, what they saw included.

        What grows with them is then written where there is room for all, and not moved on the way. Only
        rows that have seen nothing begin there at once; the hint ends with `select`, `gather` and `concat`.
        """
        return State(self.lengths, tuple(layer.reserve(tokens) for layer in self.layers))

    def reclaim(self) -> None:
        """Give up every state that went on from this one, so that its rows' room is free again.

        Nothing of this state changes. States that went on from it must not be used any more.
        """
        for layer in self.layers:
            layer.reclaim()

    def select(self, rows: Sequence[int]) -> State:
        """Return the given rows in the given order, each as often as it is named."""
        selected = once(lambda memory: memory.select(rows))
        return State(
            tuple(self.lengths[r] for r in rows),
            tuple(
                layer.over(selected) if isinstance(layer, RecurrentState) else layer.select(rows)
                for layer in self.layers
            ),
        )

    def repeat(self, times: int) -> State:
        """Return every row `times` times, copies of a row beside each other."""
        return self.select([row for row in range(self.rows) for _ in range(times)])

    @classmethod
    def concat(cls, parts: Sequence[State]) -> State:
        """Return the rows of several states of one model after one another."""
        picks = [(n, row) for n, part in enumerate(parts) for row in range(part.rows)]
        return cls._joined(parts, picks, lambda same: type(same[0]).concat(same))

    @classmethod
    def gather(cls, picks: Sequence[tuple[State, int]]) -> State:
        """Return one row for each (state, row); the states are of one model."""
        states = list({id(state): state for state, _ in picks}.values())
        numbers = {id(state): n for n, state in enumerate(states)}
        numbered = [(numbers[id(state)], row) for state, row in picks]
        return cls._joined(
            states, numbered, lambda same: type(same[0]).gather([(same[n], row) for n, row in numbered])
        )

    @classmethod
    def _joined(
        cls,
        states: Sequence[State],
        picks: Sequence[tuple[int, int]],
        others: Callable[[Sequence[Any]], LayerState],
    ) -> State:
        gathering = Gathering(picks)
        return cls(
            tuple(states[n].lengths[row] for n, row in picks),
            tuple(
                RecurrentState.joined(same, gathering)
                if isinstance(same[0], RecurrentState)
                else others(same)
                for same in zip(*(state.layers for state in states), strict=True)
            ),
        )

    def snapshot(self) -> State:
        """Return a copy that shares no memory with this one."""
        return self._mapped(_clone)

    def to(self, device: torch.device | str) -> State:
        """Return the state on another device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def _mapped(self, change: TensorChange) -> State:
        mapped = once(lambda memory: memory.map(change))
        return State(
            self.lengths,
            tuple(
                layer.over(mapped) if isinstance(layer, RecurrentState) else layer.map(change)
                for layer in self.layers
            ),
        )

    def _each_memory_once(self) -> Iterator[LayerState]:
        """Yield the layers, but none whose memory those before it have parts of, too."""
        known: set[Memory] = set()
        for layer in self.layers:
            if isinstance(layer, RecurrentState):
                memories = layer.memories()
                if known.issuperset(memories):
                    continue
                known.update(memories)
            yield layer


def bytes_of(states: Iterable[State]) -> int:
    """Return the bytes that several states take together; memory that they share counts once."""
    found: dict[int, int] = {}
    whole: set[int] = set()
    piece_of: dict[int, int] = {}
    for state in states:
        for layer in state._each_memory_once():
            storages = layer.storages()
            for address, size in storages.items():
                found[address] = max(size, found.get(address, 0))
            if isinstance(layer, RecurrentState):
                pieces = layer.pieces()
                piece_of |= pieces
                whole |= storages.keys() - pieces.keys()
    # A row's memory that is there as a whole has its pieces' bytes already; the first has its very address.
    return sum(size for a, size in found.items() if a in whole or piece_of.get(a) not in whole)


def _clone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone()


@dataclass(frozen=True)
class Step:
    """What a forward gives."""

    hidden: torch.Tensor
    """Hidden rows after the last normalisation, in the order in which they were asked for, [n, d_model]."""
    state: State | None
    """State after each kept row's last token; null when none was to be kept."""


@dataclass(frozen=True)
class StateSize:
    """How large a row's state is after n tokens: `fixed_bytes + n * bytes_per_token`."""

    fixed_bytes: int
    bytes_per_token: int


class StatefulModel(Protocol):
    """A model whose forward goes on from a state."""

    vocab_size: int
    """Ids that may be predicted: 0 to vocab_size - 1; padded rows of the vocabulary are left out."""
    device: torch.device
    dtype: torch.dtype
    """Of the matrix products; a recurrence's state is never narrower than float32."""
    kernel_path: str
    """What computes the scan or the attention, for the record."""
    state_size: StateSize
    activation_bytes_per_token: int
    """Memory of a forward besides weights and states, per token of the call, at its peak."""
    workspace_bytes: int
    """Most that a forward takes besides, however many its tokens."""

    def start(self, rows: int) -> State:
        """Return the state of rows that have seen nothing."""
        ...

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
        """Forward rows of tokens, each on from its state.

        Args:
            input_ids: int64 [T], the rows' tokens end to end.
            lengths: tokens of each row, each at least 1; their sum is T.
            state: one row for each of `lengths`; null for rows that begin here.
            read: positions in `input_ids` whose hidden rows are wanted, int64 [n]; null for all.
            keep: rows whose states are wanted, in this order; null for all, empty for none.
            consume: whether the given state may be overwritten; the caller must not use it again.

        Raises:
            ValueError: `lengths` does not fit `input_ids` or `state`.
        """
        ...

    def logits(self, hidden: torch.Tensor, *, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Return the logits [n, last - first] of hidden rows [n, d_model] for ids from `first` to `last`."""
        ...


def check_step(input_ids: torch.Tensor, lengths: Sequence[int], state: State | None) -> None:
    """Check the arguments of `StatefulModel.step`.

    Raises:
        ValueError: they do not fit together.
    """
    if input_ids.dim() != 1 or sum(lengths) != input_ids.shape[0]:
        raise ValueError(f"rows of {sum(lengths)} tokens in all, but ids of shape {tuple(input_ids.shape)}")
    if not lengths or min(lengths) < 1:
        raise ValueError("every row needs at least one token")
    if state is not None and state.rows != len(lengths):
        raise ValueError(f"{len(lengths)} rows of tokens, but a state of {state.rows}")
