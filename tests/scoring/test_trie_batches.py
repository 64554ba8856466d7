"""The order of a plan: full batches, freed memory, rectangles, parts of a run, the same plan each time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trie_cases import AMPLE, Ids, all_costs, answers, live_peak, made_of, requests, wanted_answers

from mambabench.scoring.trie import Costs, Plan


def test_memory_is_freed_going_down_before_going_on() -> None:
    """Ten questions in each of ten subjects go through with three states, in one pass."""
    ids = [
        (*[subject] * 9, *[question] * 5, choice)
        for subject in range(10)
        for question in range(10, 20)
        for choice in range(20, 24)
    ]
    p = made_of(ids, replace(AMPLE, budget_bytes=3, batch_tokens=64))
    assert p.n_tokens == p.n_tokens_minimum
    assert live_peak(p) <= 3
    ample = made_of(ids, replace(AMPLE, batch_tokens=64))
    # All full but those between which nothing is left except the way down the last questions.
    assert ample.n_batches <= ample.n_tokens // 64 + 3


@pytest.mark.timeout(20)
def test_a_path_that_has_to_wait_blocks_no_other() -> None:
    """Paths of four states and of three start together; only the shorter one has room to go on."""
    ids = [
        (start, *path)
        for start, depth in ((1, 4), (2, 3))
        for path in [*((0,) * k + (9,) for k in range(depth)), (0,) * depth]
    ]
    p = made_of(ids, replace(AMPLE, budget_bytes=4))
    assert p.n_tokens == p.n_tokens_minimum
    assert p.work(0).keeps_state.tolist() == [True, True]
    assert live_peak(p) <= 4


def test_single_texts_fill_batches_that_wait_for_memory() -> None:
    shared = [(*[q] * 6, choice) for q in range(8) for choice in (50, 51)]
    single = [(100 + k, *range(9)) for k in range(8)]
    p = made_of(shared + single, replace(AMPLE, budget_bytes=1, batch_tokens=16))
    assert p.n_tokens == p.n_tokens_minimum
    # One state at a time: its 6 tokens, then its two children, each with a text of 10 while there are any.
    assert [len(p.work(i).ids) for i in range(p.n_batches)] == [16, 12] * 4 + [6, 2] * 4


def test_rectangles_hold_similar_lengths() -> None:
    rng = np.random.default_rng(0)
    ids = [(i, *range(n)) for i, n in enumerate(rng.integers(10, 120, 3000).tolist())]
    p = made_of(ids, replace(AMPLE, padded=True, batch_tokens=4096))
    assert p.n_tokens <= 1.03 * p.n_tokens_minimum
    assert p.n_batches <= 1.35 * p.n_tokens / 4096
    end_to_end = made_of(ids, replace(AMPLE, batch_tokens=4096))
    lengths = (end_to_end.end - end_to_end.begin)[end_to_end.batch_segments]
    longest = np.maximum.reduceat(lengths, end_to_end.batch_offsets[:-1])
    assert (longest * np.diff(end_to_end.batch_offsets)).sum() > 1.5 * p.n_tokens_minimum


def test_a_few_short_segments_are_not_torn_apart() -> None:
    ids = [(i, *range(n - 1)) for i, n in enumerate([1, 2, 4, 8, 16, 32, 64])]
    assert made_of(ids, replace(AMPLE, padded=True, batch_tokens=4096)).n_batches == 1


@given(requests(), all_costs(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_part_is_answered_by_the_same_batches(
    given_requests: tuple[list[Ids], list[int]], costs: Costs, data: st.DataObject
) -> None:
    ids, n_read = given_requests
    wanted = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    p = made_of(ids, costs, n_read)
    needed = p.batches_for(np.array(wanted))
    part = p.only(needed)
    seen = answers(part, needed)
    expected = wanted_answers(ids, n_read, wanted)
    assert {key: seen[key] for key in expected} == expected
    assert part.peak_state_bytes <= costs.budget_bytes
    for i in np.flatnonzero(needed).tolist():
        assert part.work(i).ids.tolist() == p.work(i).ids.tolist()
        holds = any(wanted[j] for j in p.work(i).read_sequence.tolist())
        later = {b for s in p.batch(i).tolist() for b in p.batch_of[p.parent == s].tolist()}
        assert holds or needed[list(later)].any(), "nothing is forwarded in vain"
    if not any(wanted):
        assert not needed.any()


def test_a_part_leaves_out_what_it_does_not_need() -> None:
    ids = [(*[q] * 20, choice) for q in range(4) for choice in (50, 51)]
    p = made_of(ids, replace(AMPLE, budget_bytes=1, batch_tokens=20))
    assert p.n_batches == 8
    wanted = np.arange(8) == 5
    assert p.batches_for(wanted).tolist() == [False] * 4 + [True] * 2 + [False] * 2


def arrays(p: Plan) -> dict[str, Any]:
    return {f.name: getattr(p, f.name) for f in fields(p) if isinstance(getattr(p, f.name), np.ndarray)}


@given(requests(), all_costs())
@settings(max_examples=50, deadline=None)
def test_the_same_input_gives_the_same_plan(
    given_requests: tuple[list[Ids], list[int]], costs: Costs
) -> None:
    ids, n_read = given_requests
    once, again = arrays(made_of(ids, costs, n_read)), arrays(made_of(ids, costs, n_read))
    assert len(once) == 16
    for name, array in once.items():
        assert array.tobytes() == again[name].tobytes(), name


def test_another_process_makes_the_same_plan() -> None:
    code = """
import hashlib, numpy as np
from mambabench.scoring import trie_inputs
from mambabench.scoring.trie import Costs, Sequences, plan
ids = [[q % 7, q % 5, q % 3, *range(q % 11)] for q in range(300)]
p = plan(Sequences.of(ids, [1] * 300), Costs(0.5, 10, 1, 120, 32))
print(hashlib.sha256(p.batch_segments.tobytes() + p.batch_offsets.tobytes() + p.source.tobytes()).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert digests != {""}


def test_the_planner_loads_numpy_only() -> None:
    code = (
        "import sys, mambabench.scoring.trie; "
        "print([m for m in ('torch', 'numba', 'pandas', 'transformers', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
