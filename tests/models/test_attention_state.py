"""Keys and values shared by reference: no row sees another's tokens, and what is shared counts once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mambabench.models.attention_state import AttentionState, Chain, joined
from mambabench.models.layers import row_starts

HEADS, K_DIM, V_DIM = 2, 3, 5
TOKEN_BYTES = 4 * HEADS * (K_DIM + V_DIM)


def _new(lengths: list[int], seed: int = 0) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    k = torch.randn(HEADS, total, K_DIM, generator=generator)
    v = torch.randn(HEADS, total, V_DIM, generator=generator)
    return k, v, row_starts(lengths).tolist()


def _grown(state: AttentionState, k: torch.Tensor, v: torch.Tensor) -> AttentionState:
    return state.grown(k, v, torch.arange(state.rows), torch.tensor(state.lengths))


def _content(chain: Chain) -> tuple[torch.Tensor, torch.Tensor]:
    k, v = joined(chain)
    return k.clone(), v.clone()


def _same(a: AttentionState, b: AttentionState) -> bool:
    return a.lengths == b.lengths and all(
        torch.equal(x, y)
        for one, other in zip(a.chains, b.chains, strict=True)
        for x, y in zip(_content(one), _content(other), strict=True)
    )


def _bytes(state: AttentionState) -> int:
    return sum(state.storages().values())


def test_rows_keep_their_own_tokens_and_nothing_else_of_the_batch() -> None:
    k, v, starts = _new([4, 2, 6])
    state = AttentionState.kept(None, k, v, starts, [2, 0])
    assert state.lengths == [6, 4]
    assert torch.equal(joined(state.chains[0])[0], k[:, 6:])
    assert torch.equal(joined(state.chains[1])[1], v[:, :4])
    assert _bytes(state) == 10 * TOKEN_BYTES
    for chain in state.chains:
        for tensor in joined(chain):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * 4
    assert AttentionState.kept(None, k, v, starts).lengths == [4, 2, 6]
    assert AttentionState.kept(None, k, v, starts, []).rows == 0


def test_what_children_share_is_in_memory_once() -> None:
    prefix = AttentionState.kept(None, *_new([70]))
    fork = prefix.select([0, 0, 0, 0])
    assert set(fork.storages()) == set(prefix.storages())
    k, v, starts = _new([5, 9, 1, 3], seed=1)
    children = AttentionState.kept(fork, k, v, starts)
    assert _bytes(children) == (70 + 18) * TOKEN_BYTES
    both = AttentionState.concat([children.select([3]), prefix])
    assert both.lengths == [73, 70]
    assert _bytes(both) == 73 * TOKEN_BYTES
    assert torch.equal(joined(both.chains[0])[0][:, 70:], k[:, 15:])
    assert _same(AttentionState.gather([(children, 3), (prefix, 0)]), both)
    assert _bytes(AttentionState.gather([(children, 3), (prefix, 0)])) == 73 * TOKEN_BYTES


def test_a_forked_row_never_sees_its_siblings_tokens() -> None:
    start = AttentionState.kept(None, *_new([6, 3]))
    first = _grown(start, *_new([1, 1], seed=1)[:2])
    before = [_content(chain) for chain in first.chains]
    k2, v2, _ = _new([1, 1], seed=2)
    k3, v3, _ = _new([1, 1], seed=3)
    second, rival = _grown(first, k2, v2), _grown(first, k3, v3)
    twins = _grown(first.select([0, 0]), k3, v3)
    assert second.chains[0][0].block is first.chains[0][0].block, "there is room: no copy"
    assert rival.chains[0][0].block is not first.chains[0][0].block
    for state, k, v in ((second, k2, v2), (rival, k3, v3)):
        for row, chain in enumerate(state.chains):
            got_k, got_v = joined(chain)
            assert torch.equal(got_k, torch.cat([before[row][0], k[:, row : row + 1]], 1))
            assert torch.equal(got_v, torch.cat([before[row][1], v[:, row : row + 1]], 1))
    for row, chain in enumerate(twins.chains):
        assert torch.equal(joined(chain)[0], torch.cat([before[0][0], k3[:, row : row + 1]], 1))
    assert all(torch.equal(a, b) for c, d in zip(map(_content, first.chains), before, strict=True)
               for a, b in zip(c, d, strict=True))  # fmt: skip


def test_growing_copies_the_rows_rarely() -> None:
    state = AttentionState.kept(None, *_new([5, 2]))
    expected = [_content(chain) for chain in state.chains]
    blocks = set()
    for i in range(200):
        k, v, _ = _new([1, 1], seed=i)
        state = _grown(state, k, v)
        blocks.add(state.chains[0][0].block)
        expected = [
            (torch.cat([a, k[:, r : r + 1]], 1), torch.cat([b, v[:, r : r + 1]], 1))
            for r, (a, b) in enumerate(expected)
        ]
    assert len(blocks) <= 7
    assert state.lengths == [205, 202]
    for chain, (want_k, want_v) in zip(state.chains, expected, strict=True):
        assert torch.equal(joined(chain)[0], want_k)
        assert torch.equal(joined(chain)[1], want_v)
    assert _bytes(state) == 407 * TOKEN_BYTES


def _reserved(lengths: list[int], tokens: int) -> AttentionState:
    k, v, starts = _new(lengths)
    empty = AttentionState(((),) * len(lengths)).reserve(tokens)
    assert empty.allocations() == {}
    return AttentionState.kept(empty, k, v, starts)


def test_rows_with_room_are_never_moved() -> None:
    state, plain = _reserved([5, 2], 40), AttentionState.kept(None, *_new([5, 2]))
    block = state.chains[0][0].block
    assert sum(state.allocations().values()) == 2 * 40 * TOKEN_BYTES
    assert _same(state, plain)
    # In pieces, as a long prompt comes, and token by token.
    k, v, starts = _new([10, 8], seed=1)
    state, plain = AttentionState.kept(state, k, v, starts), AttentionState.kept(plain, k, v, starts)
    for seed in range(25):
        assert state.has_reserved_place
        k, v, _ = _new([1, 1], seed=seed)
        state, plain = _grown(state, k, v), _grown(plain, k, v)
        assert {piece.block for chain in state.chains for piece in chain} == {block}
    assert state.lengths == [40, 35]
    assert _same(state, plain)
    assert _bytes(state) == 75 * TOKEN_BYTES
    assert sum(state.allocations().values()) == 2 * 40 * TOKEN_BYTES
    # One more than was asked for.
    assert not state.has_reserved_place
    k, v, _ = _new([1, 1], seed=99)
    assert _same(_grown(state, k, v), _grown(plain, k, v))


def test_room_is_taken_back_for_another_continuation() -> None:
    state = _reserved([5, 2], 8)
    kept = [_content(chain) for chain in state.chains]
    block = state.chains[0][0].block
    for seed in (1, 2):
        assert state.has_reserved_place
        k, v, _ = _new([1, 1], seed=seed)
        after = _grown(state, k, v)
        assert not state.has_reserved_place
        assert after.chains[1][0].block is block
        assert torch.equal(joined(after.chains[1])[0], torch.cat([kept[1][0], k[:, 1:]], 1))
        state.reclaim()
        for chain, (k, v) in zip(state.chains, kept, strict=True):
            assert torch.equal(joined(chain)[0], k)
            assert torch.equal(joined(chain)[1], v)
    # Rows that are not a block's have nothing to take back.
    state.select([1, 0]).reclaim()
    assert block.filled == [5, 2]


def test_what_is_longer_than_was_asked_for_is_kept_nevertheless() -> None:
    state = _reserved([5, 2], 4)
    assert _same(state, AttentionState.kept(None, *_new([5, 2])))
    assert sum(state.allocations().values()) == 7 * TOKEN_BYTES


def test_a_row_without_tokens_can_begin() -> None:
    empty = AttentionState(((), ()))
    assert empty.lengths == [0, 0]
    assert empty.storages() == {}
    assert AttentionState.from_tensors(empty.tensors()) == empty
    assert empty.map(torch.clone) == empty
    k, v, starts = _new([1, 1])
    assert _same(_grown(empty, k, v), AttentionState.kept(empty, k, v, starts))


def test_many_small_steps_stay_in_few_pieces() -> None:
    state = AttentionState.kept(None, *_new([3])).select([0, 0])
    for i in range(100):
        state = AttentionState.kept(state, *_new([2, 2], seed=i))
    assert max(len(chain) for chain in state.chains) <= 33
    assert state.lengths == [203, 203]
    want = torch.cat([_new([3])[0], *(_new([2, 2], seed=i)[0][:, 2:] for i in range(100))], 1)
    assert torch.equal(joined(state.chains[1])[0], want)


def test_rows_that_share_a_long_chain_share_its_copy() -> None:
    state = AttentionState.kept(None, *_new([3]))
    for i in range(31):
        state = AttentionState.kept(state, *_new([1], seed=i))
    children = AttentionState.kept(state.select([0, 0, 0]), *_new([2, 2, 2]))
    assert _bytes(children) == (34 + 6) * TOKEN_BYTES


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_state_is_a_value(data: st.DataObject) -> None:
    """Random histories against rows that are plain tensors, and the way over the disk."""
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    k, v, starts = _new(lengths)
    room = data.draw(st.sampled_from([0, 3, 12, 40]))
    state = AttentionState.kept(AttentionState(((),) * len(lengths)).reserve(room), k, v, starts)
    plain = [(k[:, a:b], v[:, a:b]) for a, b in pairwise(starts)]
    for step in range(data.draw(st.integers(1, 5))):
        rows = data.draw(st.lists(st.integers(0, state.rows - 1), min_size=1, max_size=4))
        old, copy = state, [_content(chain) for chain in state.chains]
        if data.draw(st.booleans()):
            rows = list(range(state.rows))
        else:
            state = state.select(rows)
        plain = [plain[row] for row in rows]
        if data.draw(st.booleans()):
            k, v, starts = _new([1] * len(rows), seed=step + 1)
            state = _grown(state, k, v)
        else:
            new = data.draw(st.lists(st.integers(1, 4), min_size=len(rows), max_size=len(rows)))
            k, v, starts = _new(new, seed=step + 1)
            state = AttentionState.kept(state, k, v, starts)
        plain = [
            (torch.cat([a, k[:, begin:end]], 1), torch.cat([b, v[:, begin:end]], 1))
            for (a, b), begin, end in zip(plain, starts, starts[1:], strict=False)
        ]
        assert all(torch.equal(x, y) for c, d in zip(map(_content, old.chains), copy, strict=True)
                   for x, y in zip(c, d, strict=True))  # fmt: skip
        for chain, (want_k, want_v) in zip(state.chains, plain, strict=True):
            assert torch.equal(joined(chain)[0], want_k)
            assert torch.equal(joined(chain)[1], want_v)
    again = AttentionState.from_tensors(state.tensors())
    assert _same(again, state)
    assert _bytes(again) == _bytes(state)


def test_the_disk_gives_rows_of_different_lengths_back(tmp_path: Path) -> None:
    prefix = AttentionState.kept(None, *_new([7, 4]))
    state = AttentionState.kept(prefix.select([0, 0, 1]), *_new([2, 5, 1], seed=1))
    save_file(state.tensors(), tmp_path / "state.safetensors")
    again = AttentionState.from_tensors(load_file(tmp_path / "state.safetensors"))
    assert _same(again, state)
    assert _bytes(again) == _bytes(state) == (11 + 8) * TOKEN_BYTES


@pytest.mark.parametrize("grow", [False, True])
def test_a_changed_state_shares_as_the_first_did_but_not_with_it(grow: bool) -> None:
    state = AttentionState.kept(None, *_new([7, 4])).select([0, 1, 0])
    if grow:
        state = _grown(state, *_new([1, 1, 1], seed=1)[:2])
    changed = state.map(lambda tensor: tensor.clone())
    assert _same(changed, state)
    assert _bytes(changed) == _bytes(state)
    assert not set(changed.storages()) & set(state.storages())
    narrow = state.map(lambda tensor: tensor.to(torch.bfloat16))
    assert _bytes(narrow) * 2 == _bytes(state)


def test_emptied_rows_are_written_where_they_were() -> None:
    k, v, starts = _new([4, 2])
    state = AttentionState(((), ())).reserve(6)
    state = AttentionState.kept(state, k, v, starts)
    block = state.block
    assert block is not None
    fresh = state.emptied()
    assert fresh.lengths == [0, 0]
    k, v, starts = _new([3, 5], seed=1)
    again = AttentionState.kept(fresh, k, v, starts)
    assert again.block is block
    assert _same(again, AttentionState.kept(None, k, v, starts))
    more = _new([1, 1], seed=2)[:2]
    assert _grown(again, *more).block is block
    with pytest.raises(ValueError, match="memory of their own"):
        again.select([1, 0]).emptied()
