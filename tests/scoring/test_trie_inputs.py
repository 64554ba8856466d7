"""Sorted order and common prefixes against plain Python; mistakes in the input are named."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trie_cases import AMPLE, Ids, requests

from mambabench.scoring import trie_inputs
from mambabench.scoring.trie import Sequences


@given(requests(), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_blocks_do_not_show_in_order_and_common_prefixes(
    given_requests: tuple[list[Ids], list[int]], block: int
) -> None:
    ids, n_read = given_requests
    sequences = Sequences.of(ids, n_read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trie_inputs, "_SORT_BLOCK", block)
        patch.setattr(trie_inputs, "_COMPARE_TOKENS", block)
        order = trie_inputs.sorted_order(sequences)
        shared = trie_inputs.shared_with_previous(sequences, order)
    # The ids are small, so that the order of bytes is that of numbers.
    in_order = sorted(range(len(ids)), key=lambda i: ids[i])
    assert order.tolist() == in_order
    assert shared.tolist() == [0] + [
        sum(ids[a][:k] == ids[b][:k] for k in range(1, min(len(ids[a]), len(ids[b])) + 1))
        for a, b in itertools.pairwise(in_order)
    ]


@pytest.mark.parametrize(
    ("ids", "n_read", "message"),
    [
        ([[1], []], [1, 1], "sequence 1 has no ids"),
        ([[1, 2]], [0], "sequence 0 of 2 ids cannot be read at 0 positions"),
        ([[1], [1, 2]], [1, 3], "sequence 1 of 2 ids cannot be read at 3 positions"),
        ([[1]], [1, 1], "1 sequences, but n_read has 2 entries"),
        ([[2**31]], [1], "32 bits"),
    ],
)
def test_impossible_sequences_are_refused(ids: list[list[int]], n_read: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sequences.of(ids, n_read)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": np.arange(3)}, "ids must be a one-dimensional array of int32"),
        ({"offsets": np.array([0, 3], dtype=np.int32)}, "offsets must be a one-dimensional array of int64"),
        ({"offsets": np.array([0, 2])}, "end with the number of ids"),
        ({"offsets": np.array([0, 1, 3])}, "1 sequences need 2 offsets, not 3"),
    ],
)
def test_malformed_arrays_are_refused(change: dict[str, npt.NDArray[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Sequences.of([[1, 2, 3]], [1]), **change)


@pytest.mark.parametrize(
    "change",
    [
        {"split_tokens": -1},
        {"split_tokens": float("nan")},
        {"split_tokens": float("inf")},
        {"state_bytes": -1},
        {"state_bytes_per_token": -1},
        {"budget_bytes": -1},
        {"batch_tokens": 0},
        {"batch_rows": 0},
    ],
)
def test_impossible_costs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must (be|have)"):
        replace(AMPLE, **change)
