"""Many log-likelihood requests as arrays: a suite's requests as Python integers would fill the memory.

>>> asked = [LoglikelihoodRequest((1, 2), (3,)), LoglikelihoodRequest((1, 2), (4, 5))]
>>> questions = Questions.of(asked)
>>> questions.ids.tolist(), questions.n_continuation.tolist()
([1, 2, 3, 1, 2, 4, 5], [1, 2])
>>> questions.sequences(max_length=2).ids.tolist()
[1, 2, 2, 4]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mambabench.scoring.requests import LoglikelihoodRequest
from mambabench.scoring.trie_inputs import Int32s, Int64s, Sequences, expand, offsets_of


@dataclass(frozen=True)
class Questions:
    """Log-likelihood requests end to end."""

    ids: Int32s
    """[total] context and continuation of each request."""
    offsets: Int64s
    """[n + 1] where each request begins in `ids`; the last entry is the total."""
    n_continuation: Int32s
    """[n] tokens of each continuation."""
    keys: tuple[str, ...]
    """[n] under which the answers are kept."""

    @classmethod
    def of(cls, requests: Sequence[LoglikelihoodRequest]) -> Self:
        """Build from requests.

        Raises:
            ValueError: a context or a continuation is empty.
        """
        if not all(r.context and r.continuation for r in requests):
            raise ValueError("a context or a continuation without tokens cannot be scored")
        offsets = offsets_of(np.array([len(r.context) + len(r.continuation) for r in requests], np.int64))
        ids = np.empty(int(offsets[-1]), np.int32)
        for request, begin in zip(requests, offsets, strict=False):
            middle = begin + len(request.context)
            ids[begin:middle] = request.context
            ids[middle : middle + len(request.continuation)] = request.continuation
        n_continuation = np.array([len(r.continuation) for r in requests], np.int32)
        return cls(ids, offsets, n_continuation, tuple(r.key for r in requests))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return the requests of several tables after one another."""
        lengths = [np.diff(part.offsets) for part in parts]
        return cls(
            np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)]),
            offsets_of(np.concatenate([np.empty(0, np.int64), *lengths])),
            np.concatenate([np.empty(0, np.int32), *(part.n_continuation for part in parts)]),
            tuple(key for part in parts for key in part.keys),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def distinct(self) -> Self:
        """Return each request once, in the order of first appearance."""
        first = {key: i for i, key in reversed(list(enumerate(self.keys)))}
        kept = np.array(sorted(first.values()), np.int64)
        if len(kept) == len(self):
            return self
        lengths = np.diff(self.offsets)[kept]
        ids = self.ids[expand(self.offsets[:-1][kept], lengths)]
        keys = tuple(self.keys[i] for i in kept)
        return type(self)(ids, offsets_of(lengths), self.n_continuation[kept], keys)

    def sequences(self, max_length: int) -> Sequences:
        """Return what is to be forwarded: all ids but the last, cut on the left to the window.

        Args:
            max_length: the model's window in tokens.

        Raises:
            ValueError: a continuation is longer than the window.
        """
        if len(self) and int(self.n_continuation.max()) > max_length:
            raise ValueError(
                f"a continuation of {int(self.n_continuation.max())} tokens is longer than the model's "
                f"window of {max_length}"
            )
        lengths = np.minimum(np.diff(self.offsets) - 1, max_length)
        begins = self.offsets[1:] - 1 - lengths
        return Sequences(self.ids[expand(begins, lengths)], offsets_of(lengths), self.n_continuation)

    def targets(self, questions: Int32s, positions: Int32s, max_length: int) -> Int32s:
        """Return the ids that follow the given positions of the forwarded sequences.

        Args:
            questions: [q] which request.
            positions: [q] position in its sequence, as `sequences` cuts it.
            max_length: the model's window in tokens.
        """
        lengths = np.minimum(np.diff(self.offsets) - 1, max_length)[questions]
        found: Int32s = self.ids[self.offsets[1:][questions] - lengths + positions]
        return found
