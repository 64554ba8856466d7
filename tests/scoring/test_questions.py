"""Requests as arrays: nothing is lost, windows are cut as the plain definition cuts them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.scoring.questions import Questions
from mambabench.scoring.requests import LoglikelihoodRequest

ids = st.lists(st.integers(0, 60_000), min_size=1, max_size=12).map(tuple)
requests = st.lists(st.builds(LoglikelihoodRequest, ids, ids), max_size=8)


@given(requests, st.integers(12, 30))
def test_sequences_and_targets_are_those_of_the_definition(
    asked: list[LoglikelihoodRequest], max_length: int
) -> None:
    questions = Questions.of(asked)
    sequences = questions.sequences(max_length)
    assert questions.keys == tuple(r.key for r in asked)
    for i, request in enumerate(asked):
        window = (request.context + request.continuation)[-(max_length + 1) :]
        begin, end = sequences.offsets[i : i + 2]
        assert tuple(sequences.ids[begin:end]) == window[:-1]
        n = len(request.continuation)
        assert sequences.n_read[i] == n
        positions = np.arange(len(window) - 1 - n, len(window) - 1, dtype=np.int32)
        targets = questions.targets(np.full(n, i, np.int32), positions, max_length)
        assert tuple(targets) == request.continuation


@given(requests, requests)
def test_tables_are_joined_and_repeats_dropped(
    one: list[LoglikelihoodRequest], two: list[LoglikelihoodRequest]
) -> None:
    joined = Questions.concat([Questions.of(one), Questions.of(two)])
    whole = Questions.of([*one, *two])
    assert joined.keys == whole.keys
    assert joined.ids.tolist() == whole.ids.tolist()
    distinct = joined.distinct()
    wanted = Questions.of(list({r.key: r for r in [*one, *two]}.values()))
    assert distinct.keys == wanted.keys
    assert distinct.ids.tolist() == wanted.ids.tolist()
    assert distinct.offsets.tolist() == wanted.offsets.tolist()
    assert distinct.n_continuation.tolist() == wanted.n_continuation.tolist()


def test_no_tables_are_no_questions() -> None:
    assert len(Questions.concat([])) == 0
    assert len(Questions.concat([]).sequences(8)) == 0


@pytest.mark.parametrize(("context", "continuation"), [((), (1,)), ((1,), ())])
def test_empty_parts_are_refused(context: tuple[int, ...], continuation: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="without tokens"):
        Questions.of([LoglikelihoodRequest(context, continuation)])
