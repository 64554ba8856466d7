"""A GPU's memories on a CPU, with a look at who touches what between two barriers.

Shared memory is one program's, and begins as all ones, NaN where it is read as numbers. Global memory is this
process's own, by its addresses: a kernel that reads past a tensor reads what lies there, or ends the process.

    memory = GlobalMemory()
    memory.load(addresses, size=4, warps=warps, program=0, epoch=0)
    memory.races()  # words on each kind of race, none where there is no race

A race is a place that one warp writes and another one reads or writes with no barrier of the program between
them, or that one program writes and another one touches at all, since programs run in no order. Warps that
write the same numbers to shared memory, as copies of a number do, are none. What the lanes of one warp do to
each other is not looked at: copies of a sum there may differ in its last bits, and any may be the one kept.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_FIRST = 4096
"""Address that the view of this process's memory begins at: a null pointer is of no array."""
_ADDRESSES = 1 << 47


def _own_memory(size: int, kind: Any) -> Array:
    return np.ctypeslib.as_array((kind * (_ADDRESSES // size - _FIRST)).from_address(_FIRST))


_OWN = {
    size: _own_memory(size, kind)
    for size, kind in ((1, ctypes.c_uint8), (2, ctypes.c_uint16), (4, ctypes.c_uint32), (8, ctypes.c_uint64))
}


class SharedMemory:
    """Shared memory of one program."""

    def __init__(self, n_bytes: int) -> None:
        self._bytes = np.full(n_bytes, 0xFF, np.uint8)
        # For each byte a bit for each warp that touched it since the last barrier.
        self._readers, self._writers = np.zeros((2, n_bytes), np.uint32)
        self.races: set[str] = set()

    def barrier(self) -> None:
        """Let all that was done before be seen by all."""
        self._readers[:] = 0
        self._writers[:] = 0

    def load(self, addresses: Array, size: int, warps: Array) -> Array:
        """Return numbers of `size` bytes, as unsigned ones."""
        places, own = self._places(addresses, size, warps)
        if (self._writers[places] & ~own).any():
            self.races.add("a warp reads shared memory that another one writes")
        np.bitwise_or.at(self._readers, places, own)
        found: Array = self._bytes[places].view(UNSIGNED[size])[:, 0]
        return found

    def store(self, addresses: Array, values: Array, size: int, warps: Array) -> None:
        """Write numbers of `size` bytes; several warps may write the same ones."""
        places, own = self._places(addresses, size, warps)
        new = np.ascontiguousarray(values.astype(UNSIGNED[size])).view(np.uint8).reshape(-1, size)
        differs = self._bytes[places] != new
        if ((self._writers[places] & ~own)[differs]).any():
            self.races.add("a warp writes shared memory that another one writes")
        if ((self._readers[places] & ~own)[differs]).any():
            self.races.add("a warp writes shared memory that another one reads")
        self._bytes[places] = new
        np.bitwise_or.at(self._writers, places, own)
        # Several warps at once: all but one find other numbers than theirs.
        lost = self._bytes[places] != new
        if ((self._writers[places] & ~own)[lost]).any():
            self.races.add("a warp writes shared memory that another one writes")

    def _places(self, addresses: Array, size: int, warps: Array) -> tuple[Array, Array]:
        """Return the numbers of the bytes, [accesses, size], and each access's bit."""
        if addresses.size and (addresses.min() < 0 or addresses.max() + size > len(self._bytes)):
            raise ValueError("outside of shared memory")
        own = np.uint32(1) << warps.astype(np.uint32)
        places = addresses[:, None] + np.arange(size)
        return places, np.broadcast_to(own[:, None], places.shape)


class GlobalMemory:
    """This process's memory, as the programs of one launch touch it."""

    def __init__(self) -> None:
        self._log: list[tuple[Array, Array, int, bool, int, int]] = []

    def load(self, addresses: Array, size: int, *, warps: Array, program: int, epoch: int) -> Array:
        """Return numbers of `size` bytes, as unsigned ones; `epoch` counts the program's barriers."""
        self._log.append((addresses, warps, epoch, False, size, program))
        found: Array = _OWN[size][(addresses - _FIRST) // size]
        return found

    def store(
        self, addresses: Array, values: Array, size: int, *, warps: Array, program: int, epoch: int
    ) -> None:
        """Write numbers of `size` bytes."""
        self._log.append((addresses, warps, epoch, True, size, program))
        _OWN[size][(addresses - _FIRST) // size] = values

    def races(self) -> set[str]:
        """Return which races there were."""
        if not any(is_write for _, _, _, is_write, _, _ in self._log):
            return set()
        # Places of the smallest size that is used, so that accesses of different sizes meet.
        grain = min(size for *_, size, _ in self._log)
        places, warps, epochs, writes, programs = (
            np.concatenate(parts)
            for parts in zip(*(self._spread(*access, grain) for access in self._log), strict=True)
        )
        known = np.isin(places, np.unique(places[writes]))
        places, warps, epochs, writes, programs = (
            column[known] for column in (places, warps, epochs, writes, programs)
        )
        found = set()
        if _is_shared_and_written([places], programs, writes):
            found.add("a program writes global memory that another one reads or writes")
        if _is_shared_and_written([places, programs, epochs], warps, writes):
            found.add("a warp writes global memory that another one reads or writes")
        return found

    @staticmethod
    def _spread(
        addresses: Array, warps: Array, epoch: int, is_write: bool, size: int, program: int, grain: int
    ) -> tuple[Array, ...]:
        places = (addresses[:, None] // grain + np.arange(size // grain)).reshape(-1)
        columns = (np.full(len(places), value) for value in (epoch, is_write, program))
        epochs, writes, programs = columns
        return places, np.repeat(warps, size // grain), epochs, writes, programs


def _is_shared_and_written(groups: list[Array], actors: Array, writes: Array) -> bool:
    """Return whether in any group, of equal numbers, several actors are and one of them writes."""
    order = np.lexsort((actors, *groups))
    ordered = [column[order] for column in groups]
    is_first = np.ones(len(order), bool)
    is_first[1:] = np.any([column[1:] != column[:-1] for column in ordered], axis=0)
    firsts = np.flatnonzero(is_first)
    actors = actors[order]
    several = np.minimum.reduceat(actors, firsts) != np.maximum.reduceat(actors, firsts)
    return bool((several & np.logical_or.reduceat(writes[order], firsts)).any())
