"""Requests that share prefixes, planned so that each prefix is forwarded once.

The sequences of a suite form a trie: few-shot examples, a question, its choices. A model's state after
a shared prefix is kept once and handed to everything that continues it, where that is cheaper than
forwarding the prefix again. The plan says which pieces (segments) are forwarded, from which state,
in which batches, when a state can be dropped, and which rows answer which sequence.

    >>> sequences = Sequences.of([[1, 2, 3, 4, 5], [1, 2, 3, 6, 7], [1, 2]], n_read=[2, 2, 1])
    >>> costs = Costs(split_tokens=1, state_bytes=100, state_bytes_per_token=0,
    ...               budget_bytes=100, batch_tokens=64)
    >>> made = plan(sequences, costs)
    >>> made.n_tokens_unshared, made.n_tokens, made.n_batches
    (12, 7, 2)
    >>> made.work(1).ids.tolist(), made.work(1).parents.tolist()
    ([4, 5, 6, 7], [0, 0])

A plan is a function of its input and nothing else: a run that is taken up again forwards the same
batches. It is made in numpy with single passes of Python over the leaves: a million sequences of a hundred
tokens take seconds. `trie_inputs` sorts, `trie_splits` chooses the states to keep, `trie_batches` orders
the work, `trie_plan` holds the result.
"""

from __future__ import annotations

import numpy as np

from mambabench.scoring.trie_batches import assign_batches
from mambabench.scoring.trie_inputs import (
    Costs,
    Int32s,
    Int64s,
    Sequences,
    offsets_of,
    shared_with_previous,
    sorted_order,
)
from mambabench.scoring.trie_plan import Batch, Plan, by_batch, levels, release_batches
from mambabench.scoring.trie_splits import choose_splits

__all__ = ["Batch", "Costs", "Plan", "Sequences", "plan"]


def plan(sequences: Sequences, costs: Costs) -> Plan:
    """Plan how to forward the sequences.

    Forwards at most the tokens of the sequences forwarded one by one (padding aside), and exactly the nodes
    of the trie when splits are free and the budget is ample. Live states never exceed the budget.

    Args:
        sequences: what is to be forwarded and read; may be empty.
        costs: the price of a split, and the limits of memory and batches.
    """
    order = sorted_order(sequences)
    shared = shared_with_previous(sequences, order)
    lengths = sequences.lengths[order]
    # What begins the next one in sorted order is read where that is forwarded; the others are leaves.
    is_leaf = np.append(shared[1:] < lengths[:-1], True)[: len(order)]
    leaves = np.flatnonzero(is_leaf)
    leaf_of = np.cumsum(is_leaf) - is_leaf
    # The sequences between two leaves begin the second one, so that all share as much with the first.
    leaf_shared = shared[np.append(0, leaves[:-1] + 1)[: len(leaves)]]
    parent, begin, end, first_leaf, leaf_segment = _segments(lengths[leaves], leaf_shared, costs)

    last = np.empty(len(sequences), dtype=np.int32)
    last[order] = _ends(leaf_segment[leaf_of], lengths, parent, begin)
    keeps_state = np.zeros(len(parent), dtype=np.bool_)
    keeps_state[parent[parent >= 0]] = True
    batch_of = assign_batches(parent, end - begin, keeps_state, costs)
    n_batches = int(batch_of.max(initial=-1)) + 1
    in_order = np.lexsort((parent, batch_of))
    released_offsets, released_segments = by_batch(release_batches(parent, batch_of, costs), n_batches)
    read_offsets, read_sequence, read_begin, read_end = _reads(sequences, last, parent, begin)
    return Plan(
        sequences=sequences,
        costs=costs,
        parent=parent,
        begin=begin,
        end=end,
        source=order[leaves[first_leaf]].astype(np.int32),
        owner=_owners(last, parent),
        last=last,
        batch_of=batch_of,
        batch_offsets=offsets_of(np.bincount(batch_of, minlength=n_batches)),
        batch_segments=in_order.astype(np.int32),
        keeps_state=keeps_state,
        released_offsets=released_offsets,
        released_segments=released_segments,
        read_offsets=read_offsets,
        read_sequence=read_sequence,
        read_begin=read_begin,
        read_end=read_end,
        n_tokens_minimum=int(lengths[leaves].sum() - leaf_shared.sum()),
    )


def _segments(lengths: Int64s, shared: Int64s, costs: Costs) -> tuple[Int32s, Int32s, Int32s, Int64s, Int32s]:
    """Return parent, begin, end and first leaf of the segments, and the segment of each leaf.

    A segment stands before all below it, and what it holds side by side behind it.
    """
    if not len(lengths):
        none = np.empty(0, dtype=np.int32)
        return none, none, none, none.astype(np.int64), none
    splits = choose_splits(lengths, shared, costs)
    nodes = np.flatnonzero(splits.kept)
    first = np.concatenate([splits.first[nodes], np.arange(len(lengths))])
    end = np.concatenate([splits.depth[nodes], lengths])
    near = np.concatenate([splits.near[nodes], splits.leaf_near])
    order = np.lexsort((end, first))
    number = np.empty(len(order), dtype=np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    segment_of = np.full(len(splits.kept), -1, dtype=np.int32)
    segment_of[nodes] = number[: len(nodes)]
    return (
        segment_of[near][order],
        splits.depth[near][order].astype(np.int32),
        end[order].astype(np.int32),
        first[order],
        number[len(nodes) :],
    )


def _ends(segment: Int32s, lengths: Int64s, parent: Int32s, begin: Int32s) -> Int32s:
    """Go up from a leaf through each sequence to the segment that holds the sequence's last position."""
    segment = segment.copy()
    above = np.flatnonzero(begin[segment] >= lengths)
    while len(above):
        segment[above] = parent[segment[above]]
        above = above[begin[segment[above]] >= lengths[above]]
    return segment


def _reads(
    sequences: Sequences, last: Int32s, parent: Int32s, begin: Int32s
) -> tuple[Int64s, Int32s, Int32s, Int32s]:
    """Cut what each sequence reads at the segments' edges; ordered by segment, then by sequence."""
    reader = np.arange(len(sequences), dtype=np.int32)
    segment, high = last, sequences.lengths.astype(np.int32)
    low = high - sequences.n_read
    parts = []
    while len(reader):
        start = np.maximum(low, begin[segment])
        parts.append((segment, reader, start, high))
        up = start > low
        reader, low, high, segment = reader[up], low[up], start[up], parent[segment[up]]
    if not parts:
        none = np.empty(0, dtype=np.int32)
        return np.zeros(1, dtype=np.int64), none, none, none
    segments, readers, starts, highs = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((readers, segments))
    offsets = offsets_of(np.bincount(segments, minlength=len(parent)))
    return offsets, readers[order], starts[order], highs[order]


def _owners(last: Int32s, parent: Int32s) -> Int32s:
    """Return the first sequence [segments] that ends in each segment or below it."""
    owner = np.full(len(parent), np.iinfo(np.int32).max, dtype=np.int32)
    np.minimum.at(owner, last, np.arange(len(last), dtype=np.int32))
    for level in reversed(levels(parent)[1:]):
        np.minimum.at(owner, parent[level], owner[level])
    return owner
