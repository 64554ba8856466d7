"""What rows remember, a tensor for each, by reference: naming a row a second time copies nothing.

Every row of a batch has memory of its own, which is freed with the last reference to it. The states of all
layers lie in it behind each other, so that the host deals with a row once, not once a layer. The compiled
loops and a GPU's kernels read and write rows by their addresses.

    memory = Memory.places(None, x, Partition([(3, 1536), (16, 1536)]), 2)      # room for two rows' states
    windows, states = Rows.part(memory, 0), Rows.part(memory, 1)
    y = kernels.conv_silu(x, 0, weight, bias, starts, None, windows)
    siblings = memory.select([0, 0, 1])                                         # nothing is copied

Rows may also have memory for a single state: `Rows.places`, `Rows.apart`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import Tensor

    Addresses = npt.NDArray[np.int64]
    Device = torch.device | Literal["cpu"]

_ALIGNED_FLOATS = 16
"""Every part of a row's memory begins at a multiple of these: a whole line of a processor's cache."""
_FLOAT_BYTES = 4


class Partition:
    """Where several parts lie in a row's memory.

    Args:
        shapes: of the parts.
    """

    __slots__ = ("_begins", "n_bytes", "shape", "shapes")

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        self.shapes = tuple(map(tuple, shapes))
        sizes = [math.prod(shape) for shape in self.shapes]
        bounds = [0, *accumulate(-(-size // _ALIGNED_FLOATS) * _ALIGNED_FLOATS for size in sizes)]
        self._begins = np.array(bounds[:-1], np.int64)
        self.n_bytes = _FLOAT_BYTES * sum(sizes)
        """Of all parts, the gaps between them apart."""
        self.shape: tuple[int, ...] = self.shapes[0] if len(sizes) == 1 else (bounds[-1],)
        """Of a row's tensor: a single part's own, else flat."""

    def __eq__(self, other: object) -> bool:
        """Compare the parts' shapes."""
        return self is other or (isinstance(other, Partition) and self.shapes == other.shapes)

    def __hash__(self) -> int:
        """Return the shapes' hash."""
        return hash(self.shapes)

    def offsets(self, item_bytes: int) -> Addresses:
        """Return where the parts begin, in bytes, int64 [parts]."""
        return self._begins * item_bytes

    def view(self, tensor: Tensor, part: int) -> Tensor:
        """Return a part of a row's tensor; it shares the memory."""
        if len(self.shapes) == 1:
            return tensor
        begin, shape = int(self._begins[part]), self.shapes[part]
        return tensor[begin : begin + math.prod(shape)].view(shape)


class Memory:
    """One tensor for each of several rows, for all parts of a partition.

    Args:
        tensors: null stands for zeros: a row that has seen nothing.
        partition: of each tensor.
    """

    __slots__ = (
        "_asked", "_is_ours", "_made", "_pointers", "_table", "companion", "partition", "tensors",
    )  # fmt: skip

    def __init__(self, tensors: Sequence[Tensor | None], partition: Partition) -> None:
        self.tensors = tuple(tensors)
        self.partition = partition
        # Whether each tensor is one row's, and no other object refers to it: only then may it be overwritten.
        self._is_ours = False
        # Dtype and device for which the tensors are known to fit, since they were made here.
        self._made: tuple[torch.dtype, str] | None = None
        self._asked: tuple[torch.dtype, Device] | None = None
        self._table: Addresses | None = None
        self._pointers: Sequence[Tensor] | None = None
        self.companion: Any = None
        """What a device's kernels keep as long as these rows: a recorded step reads it where it lies."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tensors)

    def lend(self) -> None:
        """Let other objects refer to the tensors: no forward writes over them from now on."""
        self._is_ours = False

    @classmethod
    def places(
        cls,
        before: Memory | None,
        like: Tensor,
        partition: Partition,
        n_rows: int,
        *,
        keep: Collection[int] | None = None,
        consume: bool = False,
    ) -> Memory:
        """Return where the rows' next states go; their contents are whatever was there.

        Args:
            before: the rows' states now; null when they have none.
            like: of the dtype and on the device of new ones.
            partition: of a row's memory.
            n_rows: their number.
            keep: rows whose states are wanted, the others have null; all when absent.
            consume: whether `before` may be overwritten: then a row's next state takes its place, unless
                other rows may still need it.
        """
        in_place = before is not None and consume and before._is_ours and before.partition == partition
        if before is not None and in_place and keep is None:
            return before
        wanted = range(n_rows) if keep is None else frozenset(keep)
        old = before.tensors if before is not None and in_place else (None,) * n_rows
        shape = partition.shape
        found = cls(
            [
                None if row not in wanted else like.new_empty(shape) if old[row] is None else old[row]
                for row in range(n_rows)
            ],
            partition,
        )
        found._is_ours = keep is None
        made = like.dtype, str(like.device)
        if before is None or not in_place or before._made == made:
            found._made = made
        return found

    def kept(self, keep: Sequence[int]) -> Memory:
        """Return some rows in this order; this object must not be used after it."""
        found = Memory([self.tensors[row] for row in keep], self.partition)
        found._is_ours = len(set(keep)) == len(keep)
        found._made = self._made
        return found

    def select(self, rows: Sequence[int]) -> Memory:
        """Return the given rows in the given order, each as often as it is named."""
        self.lend()
        found = Memory([self.tensors[row] for row in rows], self.partition)
        found._made = self._made
        return found

    @staticmethod
    def gather(sources: Sequence[Memory], picks: Sequence[tuple[int, int]]) -> Memory:
        """Return one row for each (number of the source, row); the sources have one partition."""
        for memory in sources:
            memory.lend()
        tensors = [memory.tensors for memory in sources]
        found = Memory([tensors[n][row] for n, row in picks], sources[0].partition)
        made = {memory._made for memory in sources}
        found._made = made.pop() if len(made) == 1 else None
        return found

    def map(self, change: Callable[[Tensor], Tensor]) -> Memory:
        """Return the rows with each tensor replaced by `change(tensor)`; what they share stays shared."""
        # The change may return the same tensor.
        self.lend()
        changed = {id(tensor): change(tensor) for tensor in self.distinct()}
        return Memory([None if t is None else changed[id(t)] for t in self.tensors], self.partition)

    def distinct(self) -> list[Tensor]:
        """Return each tensor once."""
        return list({id(tensor): tensor for tensor in self.tensors if tensor is not None}.values())

    def addresses(self, dtype: torch.dtype, device: Device) -> Addresses:
        """Return where each part of each row lies in its device's memory, 0 for null, int64 [parts, rows].

        Raises:
            ValueError: the tensors are not contiguous ones of the partition and this dtype on the device.
        """
        asked = dtype, device
        if self._table is None or self._asked != asked:
            if self._made != (dtype, str(device)):
                self._require(dtype, device)
            found = [0 if tensor is None else tensor.data_ptr() for tensor in self.tensors]
            bases = np.array(found, np.int64)
            self._table = (bases != 0) * (bases + self.partition.offsets(dtype.itemsize)[:, None])
            self._asked = asked
        return self._table

    def pointers(
        self, dtype: torch.dtype, device: torch.device, sent: Callable[[Addresses, torch.device], Tensor]
    ) -> Sequence[Tensor]:
        """Return `addresses` as tensors on the device, int64 [rows] for each part, which are made once.

        Args:
            dtype: as in `addresses`.
            device: that the rows are on.
            sent: moves an array there.

        Raises:
            ValueError: as from `addresses`.
        """
        if self._pointers is None:
            self.take(sent(self.addresses(dtype, device), device))
        assert self._pointers is not None
        return self._pointers

    @property
    def is_sent(self) -> bool:
        """Whether `pointers` need not send anything."""
        return self._pointers is not None

    def take(self, table: Tensor) -> None:
        """Keep `addresses` as they are on the device."""
        self._pointers = table.unbind(0)

    def _require(self, dtype: torch.dtype, device: Device) -> None:
        for tensor in self.distinct():
            if tensor.shape != self.partition.shape:
                wanted = self.partition.shape
                raise ValueError(f"a tensor of shape {tuple(tensor.shape)} where {wanted} is needed")
            is_there = tensor.is_cpu if device == "cpu" else tensor.device == device
            if tensor.dtype != dtype or not is_there or not tensor.is_contiguous():
                raise ValueError(
                    f"contiguous {dtype} on {device} is needed, not {tensor.dtype} on {tensor.device}"
                )


class Rows:
    """One part of several rows' memory: tensors of one shape.

    Args:
        tensors: memory for this part alone; null stands for zeros: a row that has seen nothing.
        shape: of each tensor.
    """

    __slots__ = ("memory", "number", "shape")

    def __init__(self, tensors: Sequence[Tensor | None], shape: Sequence[int]) -> None:
        self.memory = Memory(tensors, Partition([shape]))
        self.number = 0
        self.shape = self.memory.partition.shape

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.memory.tensors)

    @classmethod
    def part(cls, memory: Memory, number: int) -> Rows:
        """Return a part of some memory by its number in the partition."""
        found = cls.__new__(cls)
        found.memory, found.number, found.shape = memory, number, memory.partition.shapes[number]
        return found

    @classmethod
    def places(
        cls,
        before: Rows | None,
        like: Tensor,
        shape: Sequence[int],
        n_rows: int,
        *,
        keep: Collection[int] | None = None,
        consume: bool = False,
    ) -> Rows:
        """Return where the rows' next states go, in memory for these alone; see `Memory.places`."""
        old = None if before is None else before.memory
        memory = Memory.places(old, like, Partition([shape]), n_rows, keep=keep, consume=consume)
        return before if before is not None and memory is old else cls.part(memory, 0)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Each row's tensor; they are views where the memory has other parts, too."""
        view = self.memory.partition.view
        return tuple(None if t is None else view(t, self.number) for t in self.memory.tensors)

    def select(self, rows: Sequence[int]) -> Rows:
        """Return the given rows in the given order, each as often as it is named."""
        return Rows.part(self.memory.select(rows), self.number)

    @staticmethod
    def gather(picks: Sequence[tuple[Rows, int]], shape: Sequence[int]) -> Rows:
        """Return one row for each (rows, row); they share their memory, however that is divided."""
        tensors = {id(rows): rows.tensors for rows, _ in picks}
        for rows, _ in picks:
            rows.memory.lend()
        return Rows([tensors[id(rows)][row] for rows, row in picks], shape)

    def map(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """Return the rows with each tensor replaced by `change(tensor)`; what they share stays shared."""
        # The change may return the same tensor.
        self.memory.lend()
        view = self.memory.partition.view
        changed = {id(t): change(view(t, self.number)) for t in self.memory.distinct()}
        return Rows([None if t is None else changed[id(t)] for t in self.memory.tensors], self.shape)

    def distinct(self) -> list[Tensor]:
        """Return each tensor once."""
        return [self.memory.partition.view(tensor, self.number) for tensor in self.memory.distinct()]

    def stacked(self) -> Tensor:
        """Return a copy of all rows in one tensor, [rows, ...]."""
        import torch

        tensors = self.tensors
        if not tensors:
            return torch.zeros(0, *self.shape)
        known = next((tensor for tensor in tensors if tensor is not None), None)
        zeros = torch.zeros(self.shape) if known is None else known.new_zeros(self.shape)
        return torch.stack([zeros if tensor is None else tensor for tensor in tensors])

    @classmethod
    def apart(cls, tensor: Tensor) -> Rows:
        """Return copies of a tensor's rows [rows, ...]; views would keep all of it in memory."""
        return cls([row.clone() for row in tensor], tensor.shape[1:])

    def addresses(
        self, n_rows: int, shape: Sequence[int], dtype: torch.dtype, device: Device = "cpu"
    ) -> Addresses:
        """Return where each row's tensor lies in the memory of its device, 0 for null, int64 [rows].

        Raises:
            ValueError: there are not `n_rows` contiguous tensors of this shape and dtype on the device.
        """
        self._require(n_rows, shape)
        found: Addresses = self.memory.addresses(dtype, device)[self.number]
        return found

    def pointers(
        self,
        n_rows: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        sent: Callable[[Addresses, torch.device], Tensor],
    ) -> Tensor:
        """Return `addresses` as a tensor on the device, which is made once: decoding asks again and again.

        Args:
            n_rows: as in `addresses`.
            shape: as in `addresses`.
            dtype: as in `addresses`.
            device: that the rows are on.
            sent: moves an array there.

        Raises:
            ValueError: as from `addresses`.
        """
        self._require(n_rows, shape)
        return self.memory.pointers(dtype, device, sent)[self.number]

    def _require(self, n_rows: int, shape: Sequence[int]) -> None:
        if len(self) != n_rows or self.shape != tuple(shape):
            wanted = f"{n_rows} of {tuple(shape)}"
            raise ValueError(f"{len(self)} rows of shape {self.shape} where {wanted} are needed")
