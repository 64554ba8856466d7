"""A finished plan: segments, batches, and what is read where.

A plan holds a few numbers of 32 bits for each segment and read, so that a million requests fit.
`Plan.work` turns one batch into the arrays that a forward pass needs; its user derives nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mambabench.scoring.trie_batches import state_sizes
from mambabench.scoring.trie_inputs import Bools, Costs, Int32s, Int64s, Sequences, expand, offsets_of


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch: the segments' ids end to end, where they start from, and what is read of them."""

    segments: Int32s
    """[b] the batch's segments, siblings together."""
    parents: Int32s
    """[b] the segment from whose end state each starts; -1 for an empty state."""
    lengths: Int32s
    """[b] tokens of each segment."""
    begins: Int32s
    """[b] position of each segment's first token in its sequences."""
    ids: Int32s
    """[t] the ids of all segments end to end, without padding."""
    keeps_state: Bools
    """[b] whether the state at the segment's end is needed by a later batch."""
    released: Int32s
    """Segments whose state can be dropped after this batch."""
    rows: Int64s
    """[r] indices into `ids` at which the next-token distribution is read; increasing, distinct."""
    read_row: Int64s
    """[q] index into `rows` of each read."""
    read_sequence: Int32s
    """[q] the sequence that reads it."""
    read_position: Int32s
    """[q] the position in that sequence: the distribution read is that of the token at the next one."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Segments in an order where parents stand before their children, in batches.

    The tokens of a segment are `ids[offsets[source] + begin : offsets[source] + end]` of the sequences,
    `begin` and `end` being positions in every sequence that runs through it.
    """

    sequences: Sequences
    costs: Costs
    parent: Int32s
    """[s] the segment whose end state each starts from; -1 for none."""
    begin: Int32s
    """[s] first position."""
    end: Int32s
    """[s] last position + 1."""
    source: Int32s
    """[s] a sequence that holds the whole segment."""
    owner: Int32s
    """[s] the smallest index of the sequences that end in the segment or below it."""
    last: Int32s
    """[n] the segment that holds each sequence's last position. It may go on behind it: a sequence that
    begins another is read where the longer one is forwarded."""
    batch_of: Int32s
    """[s] the batch in which each segment is forwarded."""
    batch_offsets: Int64s
    batch_segments: Int32s
    """Batch i holds `batch_segments[batch_offsets[i] : batch_offsets[i + 1]]`; see `batch`."""
    keeps_state: Bools
    """[s] whether the state at the segment's end is needed."""
    released_offsets: Int64s
    released_segments: Int32s
    """The states to drop after each batch, laid out like the batches; see `released`."""
    read_offsets: Int64s
    read_sequence: Int32s
    read_begin: Int32s
    read_end: Int32s
    """Segment s is read by `read_sequence[read_offsets[s] : read_offsets[s + 1]]`, each of them at the
    positions `read_begin .. read_end - 1`."""
    n_tokens_minimum: int
    """Nodes of the trie: no plan can forward fewer tokens."""

    @property
    def n_segments(self) -> int:
        """Segments, each forwarded once."""
        return len(self.parent)

    @property
    def n_batches(self) -> int:
        """Batches."""
        return len(self.batch_offsets) - 1

    @property
    def n_tokens(self) -> int:
        """Tokens forwarded; padding is counted when batches are rectangles."""
        lengths = self.end.astype(np.int64) - self.begin
        if not self.costs.padded or not self.n_segments:
            return int(lengths.sum())
        longest = np.maximum.reduceat(lengths[self.batch_segments], self.batch_offsets[:-1])
        return int((longest * np.diff(self.batch_offsets)).sum())

    @property
    def n_tokens_unshared(self) -> int:
        """Tokens forwarded when every sequence is forwarded by itself, without padding."""
        return len(self.sequences.ids)

    @property
    def cost(self) -> float:
        """What the splits were chosen by: tokens without padding, and the price of every split."""
        tokens = int((self.end.astype(np.int64) - self.begin).sum())
        return tokens + self.costs.split_tokens * int((self.parent >= 0).sum())

    @property
    def peak_state_bytes(self) -> int:
        """Most bytes of states alive at any moment, when the batches are done in order."""
        sizes = state_sizes(self.end - self.begin, self.costs) * self.keeps_state
        made = np.append(0, np.cumsum(sizes[self.batch_segments]))[self.batch_offsets]
        freed = np.append(0, np.cumsum(sizes[self.released_segments]))[self.released_offsets]
        return int((made[1:] - freed[:-1]).max(initial=0))

    def batch(self, index: int) -> Int32s:
        """Return the segments of a batch."""
        return self.batch_segments[self.batch_offsets[index] : self.batch_offsets[index + 1]]

    def released(self, index: int) -> Int32s:
        """Return the segments whose state can be dropped after a batch."""
        return self.released_segments[self.released_offsets[index] : self.released_offsets[index + 1]]

    def work(self, index: int) -> Batch:
        """Return the arrays for forwarding a batch."""
        segments = self.batch(index)
        begins, lengths = self.begin[segments], self.end[segments] - self.begin[segments]
        ids = self.sequences.ids[expand(self.sequences.offsets[self.source[segments]] + begins, lengths)]
        n_reads = self.read_offsets[segments + 1] - self.read_offsets[segments]
        reads = expand(self.read_offsets[segments], n_reads)
        sizes = self.read_end[reads] - self.read_begin[reads]
        positions = expand(self.read_begin[reads], sizes)
        shift = np.repeat(np.cumsum(lengths, dtype=np.int64) - lengths - begins, n_reads)
        rows, read_row = np.unique(positions + np.repeat(shift, sizes), return_inverse=True)
        return Batch(
            segments=segments,
            parents=self.parent[segments],
            lengths=lengths,
            begins=begins,
            ids=ids,
            keeps_state=self.keeps_state[segments],
            released=self.released(index),
            rows=rows,
            read_row=read_row,
            read_sequence=np.repeat(self.read_sequence[reads], sizes),
            read_position=positions.astype(np.int32),
        )

    def batches_for(self, sequences: Bools) -> Bools:
        """Return the batches [batches] to forward so that the given sequences are answered.

        A batch is always forwarded whole, as results may depend on a batch's shape in the last bits;
        so every state that one of its segments starts from is needed too, and the batch that makes it.

        Args:
            sequences: [n] which of them are wanted.
        """
        needed = np.zeros(self.n_batches, dtype=np.bool_)
        read_by = np.repeat(np.arange(self.n_segments), np.diff(self.read_offsets))
        needed[self.batch_of[read_by[sequences[self.read_sequence]]]] = True
        below = np.flatnonzero(self.parent >= 0)
        links = np.unique(np.stack([self.batch_of[below], self.batch_of[self.parent[below]]], axis=1), axis=0)
        begins = np.searchsorted(links[:, 0], np.arange(self.n_batches + 1))
        for i in range(self.n_batches - 1, -1, -1):
            if needed[i]:
                needed[links[begins[i] : begins[i + 1], 1]] = True
        return needed

    def only(self, batches: Bools) -> Self:
        """Return the plan for forwarding some of its batches: states that the others need are not kept.

        Batches keep their numbers and contents; those not wanted must not be forwarded.

        Args:
            batches: [batches] which to forward, as given by `batches_for`.
        """
        release = release_batches(self.parent, self.batch_of, self.costs, batches)
        offsets, segments = by_batch(release, self.n_batches)
        return replace(self, keeps_state=release >= 0, released_offsets=offsets, released_segments=segments)


def release_batches(parent: Int32s, batch_of: Int32s, costs: Costs, batches: Bools | None = None) -> Int32s:
    """Return after which batch each segment's state is needed no longer [segments]; -1 for not at all.

    A state that holds a part of the states below it, as a KV cache does, is needed as long as they are.

    Args:
        parent: [segments] -1 for none.
        batch_of: [segments] the batch of each.
        costs: says whether states share memory.
        batches: [batches] those that are forwarded; all by default.
    """
    release = np.full(len(parent), -1, dtype=np.int32)
    wanted = parent >= 0 if batches is None else (parent >= 0) & batches[batch_of]
    np.maximum.at(release, parent[wanted], batch_of[wanted])
    if costs.state_bytes_per_token:
        for level in reversed(levels(parent)[1:]):
            np.maximum.at(release, parent[level], release[level])
    return release


def by_batch(batch_of: Int32s, n_batches: int) -> tuple[Int64s, Int32s]:
    """Return offsets [batches + 1] and the segments of each batch; negative batches are left out."""
    segments = np.flatnonzero(batch_of >= 0)
    counts = np.bincount(batch_of[segments], minlength=n_batches)
    order = segments[np.argsort(batch_of[segments], kind="stable")]
    return offsets_of(counts), order.astype(np.int32)


def levels(parent: Int32s) -> list[Int64s]:
    """Return the segments without a parent, then their children, and so on, level by level."""
    children = np.argsort(parent, kind="stable")
    offsets = offsets_of(np.bincount(parent + 1, minlength=len(parent) + 1))
    found = []
    level = children[: offsets[1]]
    while len(level):
        found.append(level)
        level = children[expand(offsets[level + 1], offsets[level + 2] - offsets[level + 1])]
    return found
