"""Where in the trie a state is kept: the cheapest choice, then what the memory allows.

Keeping the state after a shared prefix saves forwarding the prefix again, and costs a restored state
for every segment that starts from it. Let g(v, x) be the least cost of everything from node v down
when the nearest kept state above lies at depth x, and s the price of a split. A leaf of depth d costs
d - x + s. Where there is no state above, x = s gives the right cost, which is d. For a branching node

    g(v, x) = min( sum over children c of g(c, x),                          not kept
                   d(v) - x + s + sum over children c of g(c, d(v)) )       kept

The first line falls with x at least twice as fast as the second, so there is one threshold t(v) below
d(v): the state is kept exactly when the nearest one above lies at x < t(v). At x = d(v) keeping loses
by s; going left from there, each token wins one less than the number of segments that would start at x.
That number is piecewise constant in x and changes at the thresholds of the nodes below. Everything left of
its own threshold is one segment, so a node hands upwards only the marks between t(v) and d(v), and of
these at most s lie below its parent's depth. The choice is exact and its time bounded by nodes times s.

    >>> costs = Costs(split_tokens=8, state_bytes=1, state_bytes_per_token=0, budget_bytes=9, batch_tokens=99)
    >>> splits = choose_splits(np.array([50, 60, 55]), np.array([0, 40, 12]), costs)
    >>> splits.depth[splits.kept].tolist(), splits.leaf_near.tolist()
    ([40], [2, 2, 0])

The bytes of a path of kept states are checked afterwards. Where they exceed the budget, levels are given
up one at a time, the cheapest of the path first. That part is a heuristic; each step can only raise
the cost, and giving up all levels is the plan without splits, so the cost never exceeds that plan's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mambabench.scoring.trie_inputs import Bools, Costs, Int64s

_MERGE_CHOICES = 64
"""Levels at the end of a path among which the cheapest to give up is looked for."""


@dataclass(frozen=True)
class Splits:
    """The branching nodes, in an order where each stands before all below it; node 0 is the root."""

    depth: Int64s
    """[nodes] tokens from the root."""
    first: Int64s
    """[nodes] the first leaf below."""
    kept: Bools
    """[nodes] whether the state is kept; never at the root, where there is none."""
    near: Int64s
    """[nodes] the nearest kept node above; 0 for none."""
    leaf_near: Int64s
    """[leaves] the nearest kept node above; 0 for none."""


@dataclass(frozen=True)
class _Nodes:
    """As in `Splits`, with the last leaf below, the parents and the thresholds."""

    depth: list[int]
    first: list[int]
    last: list[int]
    parent: list[int]
    threshold: list[float]
    leaf_parent: Int64s


def choose_splits(lengths: Int64s, shared: Int64s, costs: Costs) -> Splits:
    """Choose the nodes whose state is kept.

    Args:
        lengths: [leaves] at least one, in sorted order, no leaf a prefix of another.
        shared: [leaves] leading ids shared with the leaf before; 0 for the first.
        costs: the price of a split, the sizes of states and their budget.
    """
    nodes = _nodes(lengths.tolist(), shared.tolist(), costs)
    kept = _cheapest(nodes, costs.split_tokens)
    below = _nearest(nodes, kept)
    if costs.state_bytes and any(kept):
        kept = _within_budget(nodes, kept, below, costs)
        below = _nearest(nodes, kept)
    nearest = np.array(below, dtype=np.int64)
    return Splits(
        depth=np.array(nodes.depth, dtype=np.int64),
        first=np.array(nodes.first, dtype=np.int64),
        kept=np.array(kept, dtype=np.bool_),
        near=nearest[np.array(nodes.parent)],
        leaf_near=nearest[nodes.leaf_parent],
    )


def _deepest_state(costs: Costs) -> float:
    """Return the depth beyond which not even a single path of one state fits; below 0 for nowhere."""
    room = costs.budget_bytes - costs.state_bytes
    if costs.budget_bytes == 0 or room < 0:
        return -1
    return room // costs.state_bytes_per_token if costs.state_bytes_per_token else np.inf


def _nodes(lengths: list[int], shared: list[int], costs: Costs) -> _Nodes:
    """Find the branching nodes and their thresholds in one pass over the leaves."""
    price, deepest = float(costs.split_tokens), _deepest_state(costs)
    depth, first, last, parent, threshold = [0], [0], [len(lengths) - 1], [0], [-np.inf]
    leaf_parent = [0] * len(lengths)
    # The open nodes, from the root to the present leaf: depth, number, segments that start above
    # the node's subtree, and the marks: (-x, by how many the segments become fewer left of x).
    open_depth, open_node, open_starts = [0], [0], [0]
    open_marks: list[list[tuple[float, int]]] = [[]]
    shared_next = [*shared[1:], 0]
    for leaf, height in enumerate(shared_next):
        node, starts = -1, 1
        marks: list[tuple[float, int]] = []
        while True:
            if open_depth[-1] < height:
                open_depth.append(height)
                open_node.append(len(depth))
                open_starts.append(0)
                open_marks.append([])
                depth.append(height)
                first.append(leaf if node < 0 else first[node])
                last.append(leaf)
                parent.append(0)
                threshold.append(-np.inf)
            if node < 0:
                leaf_parent[leaf] = open_node[-1]
            else:
                parent[node] = open_node[-1]
            open_starts[-1] += starts
            if marks:
                open_marks[-1] += marks
            if open_depth[-1] <= height:
                break
            here, node, starts, marks = open_depth.pop(), open_node.pop(), open_starts.pop(), open_marks.pop()
            last[node] = leaf
            if here <= deepest:
                if marks:
                    starts, marks = _threshold(here, starts, marks, price)
                    threshold[node] = -marks[-1][0]
                else:
                    threshold[node] = here - price / (starts - 1)
                    marks = [(-threshold[node], starts - 1)]
    order = np.lexsort((np.array(depth), np.array(first)))
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return _Nodes(
        depth=[depth[v] for v in order],
        first=[first[v] for v in order],
        last=[last[v] for v in order],
        parent=number[np.array(parent)[order]].tolist(),
        threshold=[threshold[v] for v in order],
        leaf_parent=number[np.array(leaf_parent)],
    )


def _threshold(
    depth: int, starts: int, marks: list[tuple[float, int]], price: float
) -> tuple[int, list[tuple[float, int]]]:
    """Return the segments that start just left of a node, and its marks; the last is its threshold."""
    marks.sort()
    begin = 0
    while begin < len(marks) and -marks[begin][0] >= depth:
        starts -= marks[begin][1]
        begin += 1
    at, now, loss = float(depth), starts, price
    end = begin
    while end < len(marks):
        x = -marks[end][0]
        if (now - 1) * (at - x) >= loss:
            break
        loss -= (now - 1) * (at - x)
        at = x
        now -= marks[end][1]
        end += 1
    return starts, [*marks[begin:end], (loss / (now - 1) - at, now - 1)]


def _cheapest(nodes: _Nodes, price: float) -> list[bool]:
    """Go down the trie and keep a state wherever the nearest one lies left of the threshold."""
    nearest = [price] * len(nodes.depth)
    kept = [False] * len(nodes.depth)
    for v in range(1, len(kept)):
        above = nearest[nodes.parent[v]]
        kept[v] = above < nodes.threshold[v]
        nearest[v] = nodes.depth[v] if kept[v] else above
    return kept


def _nearest(nodes: _Nodes, kept: list[bool]) -> list[int]:
    """Return for each node the kept node, itself included, from which its children start."""
    below = [0] * len(kept)
    for v in range(1, len(kept)):
        below[v] = v if kept[v] else below[nodes.parent[v]]
    return below


def _within_budget(nodes: _Nodes, kept: list[bool], below: list[int], costs: Costs) -> list[bool]:
    """Give up levels until the states of every path from the root fit in the budget together."""
    nearest = np.array(below)
    starts = np.bincount(nearest[nodes.leaf_parent], minlength=len(kept))
    at = np.flatnonzero(kept)
    starts += np.bincount(nearest[np.array(nodes.parent)[at]], minlength=len(kept))
    segments = starts.tolist()
    kept = list(kept)
    path: list[int] = []
    for v in at.tolist():
        while path and nodes.last[path[-1]] < nodes.first[v]:
            path.pop()
        path.append(v)
        # What grows with tokens adds up to the depth, whatever lies between.
        most = (costs.budget_bytes - costs.state_bytes_per_token * nodes.depth[v]) // costs.state_bytes
        while len(path) > most and kept[v]:
            losses = [
                (
                    (segments[path[j]] - 1)
                    * (nodes.depth[path[j]] - (nodes.depth[path[j - 1]] if j else costs.split_tokens)),
                    -j,
                )
                for j in range(max(0, len(path) - _MERGE_CHOICES), len(path))
            ]
            j = -min(losses)[1]
            given_up = path.pop(j)
            kept[given_up] = False
            if j:
                segments[path[j - 1]] += segments[given_up] - 1
    return kept
