"""Sequences to plan for, and what a plan is held against: prefixes counted, states that remember ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mambabench.scoring.trie import Costs, Plan, Sequences, plan

Ids = tuple[int, ...]

AMPLE = Costs(
    split_tokens=0, state_bytes=1, state_bytes_per_token=0, budget_bytes=1 << 40, batch_tokens=1 << 20
)


@st.composite
def requests(draw: st.DrawFn, most: int = 14) -> tuple[list[Ids], list[int]]:
    """Sequences that share prefixes of all kinds: few symbols, each standing for a run of tokens."""
    run = draw(st.integers(1, 4))
    symbols = st.lists(st.integers(0, 2), min_size=1, max_size=7)
    texts = draw(st.lists(symbols, min_size=1, max_size=most))
    ids = [tuple(np.repeat(text, run).tolist()) for text in texts]
    # Some end inside a run, and then begin another sequence or leave an edge half way.
    cuts = draw(st.lists(st.integers(0, run - 1), min_size=len(ids), max_size=len(ids)))
    ids = [s[: len(s) - cut] for s, cut in zip(ids, cuts, strict=True)]
    return ids, [draw(st.integers(1, len(s))) for s in ids]


@st.composite
def all_costs(draw: st.DrawFn) -> Costs:
    return Costs(
        split_tokens=draw(st.sampled_from([0, 0.5, 1, 2.75, 6, 100])),
        state_bytes=draw(st.sampled_from([0, 1, 10])),
        state_bytes_per_token=draw(st.sampled_from([0, 0, 1])),
        budget_bytes=draw(st.one_of(st.integers(0, 60), st.just(10_000))),
        batch_tokens=draw(st.integers(1, 60)),
        batch_rows=draw(st.one_of(st.none(), st.integers(1, 5))),
        padded=draw(st.booleans()),
    )


def made_of(ids: list[Ids], costs: Costs, n_read: list[int] | None = None) -> Plan:
    return plan(Sequences.of(ids, n_read or [1] * len(ids)), costs)


def comb(depth: int) -> list[Ids]:
    """Return one sequence that leaves the common path at each depth."""
    return [(*range(i), 100_000 + i) for i in range(depth)]


def trie_nodes(ids: list[Ids]) -> int:
    return len({s[:k] for s in ids for k in range(1, len(s) + 1)})


def branching(ids: list[Ids]) -> list[Ids]:
    """Return the prefixes that go on in more than one way."""
    after: dict[Ids, set[int]] = {}
    for s in ids:
        for k in range(1, len(s)):
            after.setdefault(s[:k], set()).add(s[k])
    return [prefix for prefix, ways in after.items() if len(ways) > 1]


def cost_of(ids: list[Ids], kept: set[Ids], split_tokens: float) -> float:
    """Return what a choice of kept prefixes costs, by the definition."""
    leaves = {s for s in ids if not any(o != s and o[: len(s)] == s for o in ids)}
    total = 0.0
    for node in leaves | kept:
        above = max((len(k) for k in kept if len(k) < len(node) and node[: len(k)] == k), default=0)
        total += len(node) - above + (split_tokens if above else 0)
    return total


def tokens_of(p: Plan, segment: int) -> Ids:
    start = p.sequences.offsets[p.source[segment]]
    return tuple(p.sequences.ids[start + p.begin[segment] : start + p.end[segment]].tolist())


def path_of(p: Plan, segment: int) -> Ids:
    parent = int(p.parent[segment])
    assert p.begin[segment] == (p.end[parent] if parent >= 0 else 0)
    return (path_of(p, parent) if parent >= 0 else ()) + tokens_of(p, segment)


def live_peak(p: Plan) -> int:
    """Simulate by sets which states are alive, from parents and batches alone."""
    below: dict[int, set[int]] = {s: set() for s in range(p.n_segments)}
    for s in range(p.n_segments):
        above = int(p.parent[s])
        while above >= 0:
            below[above].add(s)
            # A cache is part of those of all segments below, a recurrent state only starts its children.
            above = int(p.parent[above]) if p.costs.state_bytes_per_token else -1
    done: set[int] = set()
    alive: set[int] = set()
    peak = 0
    for i in range(p.n_batches):
        made = set(p.batch(i).tolist())
        alive |= {s for s in made if below[s]}
        size = sum(
            p.costs.state_bytes + p.costs.state_bytes_per_token * int(p.end[s] - p.begin[s]) for s in alive
        )
        peak = max(peak, size)
        done |= made
        alive = {s for s in alive if not below[s] <= done}
    assert not alive
    return peak


def answers(p: Plan, batches: npt.NDArray[np.bool_] | None = None) -> dict[tuple[int, int], Ids]:
    """Run the plan with a model whose state is the ids it has seen; return what each read saw."""
    states: dict[int, Ids] = {}
    seen: dict[tuple[int, int], Ids] = {}
    for i in range(p.n_batches):
        if batches is not None and not batches[i]:
            continue
        work = p.work(i)
        starts = np.cumsum(work.lengths) - work.lengths
        assert len(work.ids) == work.lengths.sum()
        assert (np.diff(work.rows) > 0).all()
        assert set(work.read_row.tolist()) == set(range(len(work.rows)))
        rows = []
        for j, segment in enumerate(work.segments.tolist()):
            before = states[int(work.parents[j])] if work.parents[j] >= 0 else ()
            assert len(before) == work.begins[j]
            after = before + tuple(work.ids[starts[j] : starts[j] + work.lengths[j]].tolist())
            rows += [after[: len(before) + k + 1] for k in range(work.lengths[j])]
            if work.keeps_state[j]:
                states[segment] = after
        for row, sequence, position in zip(
            work.read_row.tolist(), work.read_sequence.tolist(), work.read_position.tolist(), strict=True
        ):
            assert (sequence, position) not in seen
            seen[sequence, position] = rows[work.rows[row]]
        for segment in work.released.tolist():
            del states[segment]
    assert not states
    return seen


def wanted_answers(
    ids: list[Ids], n_read: list[int], wanted: list[bool] | None = None
) -> dict[tuple[int, int], Ids]:
    return {
        (i, k): s[: k + 1]
        for i, s in enumerate(ids)
        if wanted is None or wanted[i]
        for k in range(len(s) - n_read[i], len(s))
    }
