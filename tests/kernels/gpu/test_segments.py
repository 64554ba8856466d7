"""Which rows are computed together: every token once, in order, within the bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.kernels.gpu.segments import Call, calls

plans = given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.integers(1, 80),
    st.integers(0, 20),
    st.sampled_from([0.0, 0.25, 1.0]),
)


def starts_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@settings(max_examples=200, deadline=None)
@plans
def test_each_token_is_computed_once_and_a_rows_tokens_in_order(
    lengths: list[int], wanted: list[bool], room: int, ahead: int, most_padding: float
) -> None:
    starts = starts_of(lengths)
    rows = [row for row in range(len(lengths)) if wanted[row]]
    found = calls(starts, rows, most_tokens=room + ahead, ahead=ahead, most_padding=most_padding)
    done = starts[:-1].copy()
    for call in found:
        assert (np.diff(call.rows) > 0).all()
        assert (call.lengths > 0).all()
        # Where the row's last call stopped; the first and the last call of a row say that they are.
        assert np.array_equal(call.begins, done[call.rows])
        assert (call.is_first == (call.begins == starts[call.rows])).all()
        done[call.rows] += call.lengths
        assert (call.is_last == (done[call.rows] == starts[call.rows + 1])).all()
        assert len(call.rows) * (call.longest + ahead) <= room + ahead
        padding = len(call.rows) * call.longest - call.lengths.sum()
        assert padding <= most_padding * call.lengths.sum()
    ends = np.where(np.isin(np.arange(len(lengths)), rows), starts[1:], starts[:-1])
    assert np.array_equal(done, ends)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.randoms())
def test_the_order_in_which_rows_are_named_is_of_no_consequence(lengths: list[int], random: object) -> None:
    rows = list(range(len(lengths)))
    starts = starts_of(lengths)
    want = calls(starts, rows, most_tokens=90)
    random.shuffle(rows)  # type: ignore[attr-defined]
    found = calls(starts, rows, most_tokens=90)
    assert [call.rows.tolist() for call in found] == [call.rows.tolist() for call in want]


def test_rows_of_about_a_length_go_together() -> None:
    found = calls(starts_of([100, 10, 95, 11]), [0, 1, 2, 3], most_tokens=1000)
    assert [(call.rows.tolist(), call.longest) for call in found] == [([0, 2], 100), ([1, 3], 11)]
    # As many as there is room for, with what comes before each.
    found = calls(starts_of([10] * 5), range(5), most_tokens=40, ahead=5)
    assert [call.rows.tolist() for call in found] == [[0, 1], [2, 3], [4]]


def test_a_block_is_rows_of_one_length_beside_each_other() -> None:
    def is_block(begins: list[int], lengths: list[int]) -> bool:
        rows = np.arange(len(begins))
        return Call(rows, np.array(begins), np.array(lengths)).is_block

    assert is_block([7], [3])
    assert is_block([7, 10], [3, 3])
    assert not is_block([7, 10], [3, 2])
    assert not is_block([7, 11], [3, 3])


def test_what_comes_before_a_row_must_leave_room() -> None:
    with pytest.raises(ValueError, match="no room behind 40"):
        calls(starts_of([5]), [0], most_tokens=40, ahead=40)
