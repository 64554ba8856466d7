"""What the planner is given: token ids, the costs to plan for, and the sorted view of the ids.

Sorting is what makes a trie cheap: in sorted order all sequences that share a prefix stand side by
side, and the lengths that neighbours share (the LCP array) describe the whole trie.

    >>> sequences = Sequences.of([[5, 6, 7], [5, 6]], n_read=[1, 2])
    >>> order = sorted_order(sequences)
    >>> order.tolist(), shared_with_previous(sequences, order).tolist()
    ([1, 0], [0, 2])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_SORT_BLOCK = 8_192
"""Sequences turned into sortable keys at once."""
_COMPARE_TOKENS = 1 << 20
"""Tokens of neighbours compared at once; bounds the memory of the comparison."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Token ids to forward, end to end, and how many rows at the end of each are read.

    Raises:
        ValueError: an array has another type or shape than said here, or a sequence reads nothing
            or more than it has.
    """

    ids: Int32s
    """[total] the forwarded ids of all sequences."""
    offsets: Int64s
    """[n + 1] where each sequence begins in `ids`; the last entry is the total."""
    n_read: Int32s
    """[n] trailing positions whose next-token distribution is wanted, 1 to the sequence's length."""

    def __post_init__(self) -> None:
        for name, kind in (("ids", np.int32), ("offsets", np.int64), ("n_read", np.int32)):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != kind or array.ndim != 1:
                raise ValueError(f"{name} must be a one-dimensional array of {kind.__name__}")
        if len(self.offsets) != len(self.n_read) + 1:
            raise ValueError(
                f"{len(self.n_read)} sequences need {len(self.n_read) + 1} offsets, not {len(self.offsets)}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.ids):
            raise ValueError("offsets must begin with 0 and end with the number of ids")
        lengths = self.lengths
        if (lengths < 1).any():
            raise ValueError(f"sequence {int(np.argmax(lengths < 1))} has no ids")
        wrong = (self.n_read < 1) | (self.n_read > lengths)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ValueError(f"sequence {i} of {lengths[i]} ids cannot be read at {self.n_read[i]} positions")

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], n_read: Sequence[int]) -> Self:
        """Build from one sequence of ids each.

        Raises:
            ValueError: as the class does, or an id does not fit 32 bits.
        """
        if len(sequences) != len(n_read):
            raise ValueError(f"{len(sequences)} sequences, but n_read has {len(n_read)} entries")
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum([len(s) for s in sequences], out=offsets[1:])
        ids = np.empty(int(offsets[-1]), dtype=np.int32)
        try:
            for i, s in enumerate(sequences):
                ids[offsets[i] : offsets[i + 1]] = s
            reads = np.array(n_read, dtype=np.int32)
        except OverflowError as error:
            raise ValueError("token ids and n_read must fit 32 bits") from error
        return cls(ids, offsets, reads)

    def __len__(self) -> int:
        return len(self.n_read)

    @property
    def lengths(self) -> Int64s:
        """[n] ids in each sequence."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Costs:
    """What the machine and the model charge for sharing, and what they allow.

    Raises:
        ValueError: a negative or infinite figure, or a batch without room.
    """

    split_tokens: float
    """Cost of starting a segment from a kept state, in forwarded tokens."""
    state_bytes: int
    """Size of a kept state that does not grow: the recurrent part."""
    state_bytes_per_token: int
    """Growth of a kept state per token of its own segment: the KV cache. What the tokens before it
    take belongs to the states above it, which then stay alive as long as it does."""
    budget_bytes: int
    """Most bytes of states alive at any moment; 0 keeps no state at all."""
    batch_tokens: int
    """Most tokens in a batch; a longer segment has a batch of its own."""
    batch_rows: int | None = None
    """Most segments in a batch."""
    padded: bool = False
    """Whether a batch is forwarded as a rectangle, each segment padded to the longest one."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.split_tokens) and self.split_tokens >= 0):
            raise ValueError(f"split_tokens must be a number of at least 0, not {self.split_tokens}")
        for name in ("state_bytes", "state_bytes_per_token", "budget_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.batch_tokens < 1 or (self.batch_rows is not None and self.batch_rows < 1):
            raise ValueError("a batch must have room for a token and a row")


def sorted_order(sequences: Sequences) -> Int64s:
    """Return the sequences' indices [n] so that those with a common prefix stand together.

    A sequence stands right before those it is a prefix of; equal ones keep their order. Ids are compared
    as little-endian bytes: not the order of numbers, but one in which equal prefixes are neighbours, and
    Python compares bytes with a single `memcmp`.
    """
    n = len(sequences)
    keys: list[bytes] = []
    ids = sequences.ids.astype("<i4", copy=False)
    for start in range(0, n, _SORT_BLOCK):
        bounds = sequences.offsets[start : min(start + _SORT_BLOCK, n) + 1]
        blob = ids[bounds[0] : bounds[-1]].tobytes()
        cuts = ((bounds - bounds[0]) * 4).tolist()
        keys += [blob[a:b] for a, b in pairwise(cuts)]
    return np.array(sorted(range(n), key=keys.__getitem__), dtype=np.int64)


def shared_with_previous(sequences: Sequences, order: Int64s) -> Int64s:
    """Return how many leading ids each sequence in sorted order shares with the one before it [n].

    The first entry is 0. Works in blocks, so that little memory is needed beside the result.
    """
    n = len(order)
    shared = np.zeros(n, dtype=np.int64)
    if n < 2:
        return shared
    start = sequences.offsets[order]
    length = sequences.lengths[order]
    bound = np.minimum(length[1:], length[:-1])
    total = np.cumsum(bound)
    low = 0
    while low < n - 1:
        done = int(total[low - 1]) if low else 0
        high = max(int(np.searchsorted(total, done + _COMPARE_TOKENS, side="right")), low + 1)
        sizes = bound[low:high]
        first = total[low:high] - sizes - done
        steps = np.arange(int(sizes.sum()))
        before = sequences.ids[np.repeat(start[low:high] - first, sizes) + steps]
        after = sequences.ids[np.repeat(start[low + 1 : high + 1] - first, sizes) + steps]
        differs = np.append(np.flatnonzero(before != after), len(steps))
        next_difference = differs[np.searchsorted(differs, first)]
        shared[low + 1 : high + 1] = np.minimum(next_difference - first, sizes)
        low = high
    return shared


def expand(starts: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> Int64s:
    """Return the ranges `start .. start + size - 1` end to end.

    >>> expand(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.asarray(starts, dtype=np.int64) - (ends - sizes)
    return np.arange(total, dtype=np.int64) + np.repeat(shift, sizes)


def offsets_of(counts: npt.NDArray[np.integer]) -> Int64s:
    """Return [len(counts) + 1] offsets of groups of these sizes."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
