"""In which order segments are forwarded: full batches, while the live states stay in their budget.

A batch takes, as long as it has room: leaves of live states, whose end frees memory; segments below
live states that make a state themselves; first segments that make a state; and leaves without a state
above, which fit anywhere. Of live states the latest comes first, which goes down the trie before it
goes on.

A state is made only if the states that live and the longest path of states below it fit in the budget
together. Live states therefore always form a pile in which each has room for all below it on top of
the older ones: the latest can always go on, and no order of events leads to a standstill.

    >>> costs = Costs(split_tokens=0, state_bytes=1, state_bytes_per_token=0, budget_bytes=1, batch_tokens=6)
    >>> parent, length = np.array([-1, 0, 0, -1]), np.array([4, 1, 1, 2])
    >>> assign_batches(parent, length, np.array([True, False, False, False]), costs).tolist()
    [0, 1, 1, 0]
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mambabench.scoring.trie_inputs import Bools, Costs, Int32s, Int64s

_RECTANGLE_WINDOW = 32
"""Batches' worth of segments that are sorted by length together when batches are rectangles."""
_PADDING_SHARE = 1 / 16
"""Padding in a rectangle above which it is closed, ..."""
_SMALL_SHARE = 1 / 32
"""... unless it holds less than this share of the tokens that it may."""

_Integers = npt.NDArray[np.integer]


def assign_batches(parent: _Integers, length: _Integers, keeps_state: Bools, costs: Costs) -> Int32s:
    """Return the batch [segments] in which each segment is forwarded; batches are numbered from 0.

    Args:
        parent: [segments] -1 for none; every segment stands after its parent.
        length: [segments] tokens.
        keeps_state: [segments] whether there are children.
        costs: sizes of states and the limits. Every path of states must fit in the budget.
    """
    if not costs.padded:
        return _Packer(parent, length, keeps_state, costs).run()
    rows = None if costs.batch_rows is None else costs.batch_rows * _RECTANGLE_WINDOW
    window = replace(costs, batch_tokens=costs.batch_tokens * _RECTANGLE_WINDOW, batch_rows=rows)
    return _rectangles(_Packer(parent, length, keeps_state, window).run(), length, costs)


def state_sizes(length: _Integers, costs: Costs) -> Int64s:
    """Return the bytes [segments] of the state at the end of each segment."""
    return costs.state_bytes + costs.state_bytes_per_token * length.astype(np.int64)


class _Packer:
    """Fills batches end to end. A group is the children of one segment; group 0 has no parent."""

    def __init__(self, parent: _Integers, length: _Integers, keeps_state: Bools, costs: Costs) -> None:
        n = len(parent)
        self._costs = costs
        self._most_rows = n if costs.batch_rows is None else costs.batch_rows
        self._shares_memory = costs.state_bytes_per_token > 0
        self._parent: list[int] = parent.tolist()
        self._length: list[int] = length.tolist()
        sizes = state_sizes(length, costs)
        self._bytes: list[int] = sizes.tolist()
        self._waiting: list[int] = np.bincount(parent + 1, minlength=n + 1).tolist()
        self._leaves, self._next_leaf, self._end_leaf = _grouped(parent, ~keeps_state)
        self._inner, self._next_inner, self._end_inner = _grouped(parent, keeps_state)
        self._inner_list: list[int] = self._inner.tolist()
        tokens = np.zeros(len(self._leaves) + 1, dtype=np.int64)
        np.cumsum(length[self._leaves], out=tokens[1:])
        self._leaf_tokens: list[int] = tokens.tolist()
        self._path_bytes = self._longest_paths(np.flatnonzero(keeps_state).tolist())
        self._batch_of = np.empty(n, dtype=np.int32)
        self._leaf_batch = np.empty(len(self._leaves), dtype=np.int32)
        self._with_leaves: list[int] = []
        self._with_inner: list[int] = []
        self._made: list[int] = []
        self._finished: list[int] = []
        self._live_bytes = 0
        self._batch = self._room = self._rows = 0
        self._empty = True

    def run(self) -> Int32s:
        while self._with_leaves or self._with_inner or self._group_left(0):
            self._fill()
            self._end_batch()
            self._batch += 1
        self._batch_of[self._leaves] = self._leaf_batch
        return self._batch_of

    def _longest_paths(self, inner: list[int]) -> list[int]:
        """Return for each segment the most bytes of states on a path down from it, its own included."""
        below = [0] * (len(self._parent) + 1)
        for s in reversed(inner):
            below[s + 1] += self._bytes[s]
            group = self._parent[s] + 1
            if below[s + 1] > below[group]:
                below[group] = below[s + 1]
        return below[1:]

    def _group_left(self, group: int) -> bool:
        return (
            self._next_leaf[group] < self._end_leaf[group] or self._next_inner[group] < self._end_inner[group]
        )

    def _fill(self) -> None:
        self._room, self._rows, self._empty = self._costs.batch_tokens, self._most_rows, True
        while self._with_leaves and self._take_leaves(self._with_leaves[-1]):
            self._with_leaves.pop()
        while self._with_inner and self._take_inner(self._with_inner[-1]):
            self._with_inner.pop()
        if not self._with_inner:
            self._take_inner(0)
        self._take_leaves(0)

    def _take_leaves(self, group: int) -> bool:
        """Take as many leaves of a group as fit; return whether none is left."""
        start, end = self._next_leaf[group], self._end_leaf[group]
        if start == end:
            return True
        tokens = self._leaf_tokens
        most = min(end, start + self._rows)
        stop = bisect_right(tokens, tokens[start] + self._room, start + 1, most + 1) - 1
        if stop == start:
            if not self._empty:
                return False
            stop = start + 1
        self._room -= tokens[stop] - tokens[start]
        self._rows -= stop - start
        self._empty = False
        self._leaf_batch[start:stop] = self._batch
        self._next_leaf[group] = stop
        self._done(group, stop - start)
        return stop == end

    def _take_inner(self, group: int) -> bool:
        """Take as many segments that make a state as fit; return whether none is left."""
        start, end = self._next_inner[group], self._end_inner[group]
        at = start
        while at < end:
            s = self._inner_list[at]
            fits = self._empty or (self._length[s] <= self._room and self._rows > 0)
            if not fits or self._live_bytes + self._path_bytes[s] > self._costs.budget_bytes:
                break
            self._room -= self._length[s]
            self._rows -= 1
            self._empty = False
            self._live_bytes += self._bytes[s]
            self._batch_of[s] = self._batch
            self._made.append(s)
            at += 1
        self._next_inner[group] = at
        if not self._shares_memory:
            self._done(group, at - start)
        return at == end

    def _done(self, group: int, count: int) -> None:
        """Note that so many segments of a group hold on to their parent's state no longer."""
        self._waiting[group] -= count
        if group and count and not self._waiting[group]:
            self._finished.append(group)

    def _end_batch(self) -> None:
        """Free what is no longer needed and open the groups whose state was made."""
        for group in self._finished:
            self._live_bytes -= self._bytes[group - 1]
            if self._shares_memory:
                # Grows the list that is being walked: a state may end with the last one below it.
                self._done(self._parent[group - 1] + 1, 1)
        self._finished.clear()
        for s in self._made:
            if self._next_leaf[s + 1] < self._end_leaf[s + 1]:
                self._with_leaves.append(s + 1)
            if self._next_inner[s + 1] < self._end_inner[s + 1]:
                self._with_inner.append(s + 1)
        self._made.clear()


def _grouped(parent: _Integers, chosen: Bools) -> tuple[Int64s, list[int], list[int]]:
    """Return the chosen segments by parent, and where each group begins and ends among them."""
    segments = np.flatnonzero(chosen)
    groups = parent[segments] + 1
    ends = np.cumsum(np.bincount(groups, minlength=len(parent) + 1))
    begins = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
    return segments[np.argsort(groups, kind="stable")], begins.tolist(), ends.tolist()


def _rectangles(window_of: Int32s, length: _Integers, costs: Costs) -> Int32s:
    """Cut windows of independent segments into rectangles of similar lengths, the longest first.

    The states that live during a window fit in the budget all together, so every order inside it does.
    """
    order = np.lexsort((-length, window_of))
    lengths: list[int] = length[order].tolist()
    windows: list[int] = window_of[order].tolist()
    batches = []
    batch, window, longest, rows, tokens = -1, -1, 0, 0, 0
    most_rows = len(lengths) if costs.batch_rows is None else costs.batch_rows
    small = costs.batch_tokens * _SMALL_SHARE
    for size, of in zip(lengths, windows, strict=True):
        area = (rows + 1) * longest
        too_large = rows == most_rows or area > costs.batch_tokens
        wasteful = tokens >= small and area - tokens - size > area * _PADDING_SHARE
        if of != window or too_large or wasteful:
            batch += 1
            window, longest, rows, tokens = of, size, 0, 0
        rows += 1
        tokens += size
        batches.append(batch)
    batch_of = np.empty(len(length), dtype=np.int32)
    batch_of[order] = batches
    return batch_of
