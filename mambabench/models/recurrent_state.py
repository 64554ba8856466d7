"""What recurrent layers remember of several rows, and where: for each row one piece of memory for all layers.

The host then deals with every row once a forward. With a piece for each layer, a forward of 256 short rows
would spend more time on the pieces than a GPU on their tokens.

    layers = RecurrentLayers([mixer.shapes for mixer in mixers])
    after, kept = layers.places(before, weight, n_rows, keep=[0], consume=True)
    ...                                                 # layer i writes to after[i]
    State(lengths, kept)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mambabench.kernels.rows import Memory, Partition, Rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mambabench.kernels.rows import Addresses
    from mambabench.models.stateful import LayerState, TensorChange

MemoryChange = Callable[[Memory], Memory]


def once(change: MemoryChange) -> MemoryChange:
    """Return the function that changes each memory once; layers share theirs."""
    changed: dict[Memory, Memory] = {}

    def once(memory: Memory) -> Memory:
        if memory not in changed:
            changed[memory] = change(memory)
        return changed[memory]

    return once


class Gathering:
    """Picks rows from states; what their layers share is gathered once.

    Args:
        picks: for each row the number of its state, and its row there.
    """

    def __init__(self, picks: Sequence[tuple[int, int]]) -> None:
        self._picks = picks
        self._made: dict[tuple[Memory, ...], Memory | None] = {}

    def __call__(self, same: Sequence[Rows]) -> Rows:
        """Return the picked rows of what is the same part of the states."""
        sources = tuple([rows.memory for rows in same])
        if sources not in self._made:
            alike = len({memory.partition for memory in sources}) == 1
            self._made[sources] = Memory.gather(sources, self._picks) if alike else None
        memory = self._made[sources]
        if memory is None or len({rows.number for rows in same}) > 1:
            # As between a state from a file, whose tensors lie apart, and one of a forward.
            return Rows.gather([(same[n], row) for n, row in self._picks], same[0].shape)
        return Rows.part(memory, same[0].number)


@dataclass(frozen=True)
class RecurrentState:
    """Tensors of a fixed size for each row, such as a convolution's window and a scan's state.

    Rows are references: those of several states stand side by side without a copy. Layers of one model have
    parts of the same memory; a row's is freed with the last state that names the row.
    """

    kind: ClassVar[str] = "recurrent"

    named: dict[str, Rows]
    """By what they are, for example "conv" and "ssm"; all have the same number of rows."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.named.values())))

    @classmethod
    def start(cls, shapes: Mapping[str, Sequence[int]], rows: int) -> RecurrentState:
        """Return rows that have seen nothing, whose tensors have these shapes; they take no memory."""
        return cls({name: Rows((None,) * rows, shape) for name, shape in shapes.items()})

    def over(self, change: MemoryChange) -> RecurrentState:
        """Return the same parts of other memory."""
        return RecurrentState(
            {name: Rows.part(change(rows.memory), rows.number) for name, rows in self.named.items()}
        )

    def select(self, rows: Sequence[int]) -> RecurrentState:
        """Return the given rows; they share their memory with this state's."""
        return self.over(once(lambda memory: memory.select(rows)))

    @classmethod
    def concat(cls, parts: Sequence[RecurrentState]) -> RecurrentState:
        """Return the rows of several states after one another, without copying them."""
        return cls.gather([(part, row) for part in parts for row in range(part.rows)])

    @classmethod
    def gather(cls, picks: Sequence[tuple[RecurrentState, int]]) -> RecurrentState:
        """Return one row for each (state, row), without copying them."""
        states = list({id(state): state for state, _ in picks}.values())
        numbers = {id(state): n for n, state in enumerate(states)}
        return cls.joined(states, Gathering([(numbers[id(state)], row) for state, row in picks]))

    @classmethod
    def joined(cls, states: Sequence[RecurrentState], gathered: Gathering) -> RecurrentState:
        """Return the rows that a gathering picks from several states of one layer."""
        return cls({name: gathered([state.named[name] for state in states]) for name in states[0].named})

    def map(self, change: TensorChange) -> RecurrentState:
        """Return the state with every tensor changed; rows that shared memory share the changed one."""
        return RecurrentState({name: tensors.map(change) for name, tensors in self.named.items()})

    def memories(self) -> tuple[Memory, ...]:
        """Return the memory that the tensors are parts of, each once, in their order."""
        return tuple(dict.fromkeys(rows.memory for rows in self.named.values()))

    def storages(self) -> dict[int, int]:
        """Return the bytes of each row's memory by its address, parts of other layers included."""
        return {
            tensor.data_ptr(): memory.partition.n_bytes
            for memory in self.memories()
            for tensor in memory.distinct()
        }

    def pieces(self) -> dict[int, int]:
        """Return for each address of `storages` that is only a part of a row's memory that of the memory.

        Only rows that stand beside others whose parts lie apart have such.
        """
        alone = [memory for memory in self.memories() if len(memory.partition.shapes) == 1]
        tensors = [tensor for memory in alone for tensor in memory.distinct()]
        storages = [(tensor, tensor.untyped_storage()) for tensor in tensors]
        return {t.data_ptr(): held.data_ptr() for t, held in storages if held.nbytes() > t.nbytes}

    def allocations(self) -> dict[int, int]:
        """Return the bytes of the memory that holds the rows' tensors by its address."""
        storages = [t.untyped_storage() for memory in self.memories() for t in memory.distinct()]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}

    def reserve(self, tokens: int) -> RecurrentState:
        """Return the state: it does not grow."""
        return self

    def reclaim(self) -> None:
        """Do nothing: what goes on from this state has tensors of its own."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return copies of all rows by name, each [rows, ...]."""
        return {name: tensors.stacked() for name, tensors in self.named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> RecurrentState:
        """Build the state from what `tensors` returned."""
        return cls({name: Rows.apart(tensor) for name, tensor in tensors.items()})


States = tuple[RecurrentState, ...]


class RecurrentLayers:
    """The recurrent layers of a model.

    Args:
        shapes: of each layer the tensors of a row's state, by what they are.
    """

    def __init__(self, shapes: Sequence[Mapping[str, Sequence[int]]]) -> None:
        self._partition = Partition([shape for layer in shapes for shape in layer.values()])
        number = iter(range(len(self._partition.shapes)))
        self._numbers = [{name: next(number) for name in layer} for layer in shapes]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's states in all layers."""
        return self._partition.n_bytes

    def start(self, rows: int) -> States:
        """Return the states of rows that have seen nothing; they take no memory."""
        return self._parts(Memory((None,) * rows, self._partition))

    def places(
        self,
        before: Sequence[LayerState] | None,
        like: Tensor,
        rows: int,
        *,
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> tuple[States | None, States]:
        """Return where a forward writes, and the layers' states after it.

        Args:
            before: the layers' states now; null for rows that begin here.
            like: float32, on the device of the states.
            rows: their number.
            keep: rows whose states are wanted, in this order; null for all.
            consume: whether `before` may be overwritten. If no other rows may need it, and all rows are kept,
                the very same states are returned.

        Returns:
            For each layer places for all rows, with a null for a row that is not kept, or null where none is;
            and the kept rows, which are those places.
        """
        if keep is not None:
            if not len(keep):
                return None, ()
            if len(keep) == rows and list(keep) == list(range(rows)):
                keep = None
        old = self._memory(before) if consume and before is not None else None
        memory = Memory.places(old, like, self._partition, rows, keep=keep, consume=consume)
        if memory is old and before is not None:
            same = tuple(state for state in before if isinstance(state, RecurrentState))
            return same, same
        after = self._parts(memory)
        return after, after if keep is None else self._parts(memory.kept(keep))

    def addresses(self, states: Sequence[LayerState] | None, rows: int) -> Sequence[Addresses | None]:
        """Return where each row's parts lie on the CPU, layer by layer, each int64 [rows]; null for null.

        Raises:
            ValueError: they are not so many rows of the layers' shapes.
        """
        import torch

        if states is None:
            return [None] * len(self._partition.shapes)
        memory = self._memory(states)
        if memory is not None and len(memory) == rows:
            return list(memory.addresses(torch.float32, "cpu"))
        return [
            state.named[name].addresses(rows, self._partition.shapes[number], torch.float32)
            for state, numbers in zip(states, self._numbers, strict=True)
            for name, number in numbers.items()
            if isinstance(state, RecurrentState)
        ]

    def _parts(self, memory: Memory) -> States:
        return tuple(
            [
                RecurrentState({name: Rows.part(memory, number) for name, number in layer.items()})
                for layer in self._numbers
            ]
        )

    def _memory(self, states: Sequence[LayerState]) -> Memory | None:
        """Return the memory that all layers have their parts of, as `_parts` deals them out, if there is one.

        Others lie apart: states from a file, for example.
        """
        found: Memory | None = None
        for state, numbers in zip(states, self._numbers, strict=True):
            if not isinstance(state, RecurrentState):
                return None
            for name, number in numbers.items():
                rows = state.named[name]
                found = rows.memory if found is None else found
                if rows.memory is not found or rows.number != number:
                    return None
        return found if found is not None and found.partition == self._partition else None
