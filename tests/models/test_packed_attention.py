"""Rows end to end against a plain loop over rows in float64, however they are put into calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.models import packed_attention
from mambabench.models.attention_state import AttentionState, joined
from mambabench.models.layers import row_starts
from mambabench.models.packed_attention import PackedAttention

CPU = torch.device("cpu")
K_DIM, V_DIM = 4, 4


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _state(lengths: Sequence[int], heads: int, seed: int = 9) -> AttentionState:
    total = sum(lengths)
    k, v = _random(seed, heads, total, K_DIM), _random(seed + 1, heads, total, V_DIM)
    return AttentionState.kept(None, k, v, row_starts(lengths).tolist())


def _expected(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: Sequence[int],
    before: AttentionState | None,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Return the output [T, heads, V_DIM], one query and one head at a time."""
    out = []
    starts = row_starts(lengths).tolist()
    for row in range(len(lengths)):
        keys, values = k[:, starts[row] : starts[row + 1]], v[:, starts[row] : starts[row + 1]]
        if before is not None:
            keys, values = joined(before.chains[row], keys, values)
        seen = keys.shape[1] - lengths[row]
        for i in range(lengths[row]):
            first = 0 if window is None else max(0, seen + i + 1 - window)
            sees = slice(first, seen + i + 1)
            for head in range(q.shape[0]):
                shared = head // (q.shape[0] // k.shape[0])
                scores = keys[shared, sees].double() @ q[head, starts[row] + i].double() * scaling
                out.append(scores.softmax(0) @ values[shared, sees].double())
    return torch.stack(out).view(-1, q.shape[0], V_DIM)


def _check(
    lengths: Sequence[int],
    before: AttentionState | None,
    *,
    kv_heads: int = 2,
    times: int = 1,
    window: int | None = None,
    keep: Sequence[int] | None = None,
    consume: bool = False,
) -> AttentionState:
    total = sum(lengths)
    q = _random(1, kv_heads * times, total, K_DIM)
    # As a projection gives them: the heads of a token beside each other.
    k, v = (_random(seed, total, kv_heads, K_DIM).transpose(0, 1) for seed in (2, 3))
    expected = _expected(q, k, v, lengths, before, 0.7, window)
    rows = PackedAttention(lengths, before, device=CPU, keep=keep, consume=consume)
    out, after = rows(q, k, v, before, scaling=0.7, window=window)
    assert out.shape == expected.shape
    assert torch.allclose(out.double(), expected, rtol=0, atol=2e-6)
    seen = [0] * len(lengths) if before is None else before.lengths
    kept = range(len(lengths)) if keep is None else keep
    assert after.lengths == [seen[row] + lengths[row] for row in kept]
    return after


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_rows(data: st.DataObject) -> None:
    kv_heads, times = data.draw(st.sampled_from([(1, 1), (2, 1), (2, 3)]))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=7))
    before = None
    if data.draw(st.booleans()):
        parents = _state(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3)), kv_heads)
        parents = AttentionState.concat([parents, AttentionState(((),))])
        chosen = st.integers(0, parents.rows - 1)
        before = parents.select(data.draw(st.lists(chosen, min_size=len(lengths), max_size=len(lengths))))
    window = data.draw(st.none() | st.integers(1, 25))
    keep = data.draw(st.none() | st.lists(st.integers(0, len(lengths) - 1), max_size=4))
    call_pairs = data.draw(st.sampled_from([0, 60, 1 << 20]))
    if data.draw(st.booleans()):
        lengths = [1] * len(lengths)
    consume = data.draw(st.booleans())
    if before is not None:
        before = before.reserve(data.draw(st.sampled_from([0, 40])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(packed_attention._CALL_PAIRS, "cpu", call_pairs)
        patch.setattr(packed_attention, "_BLOCK_TOKENS", data.draw(st.sampled_from([3, 512])))
        after = _check(
            lengths, before, kv_heads=kv_heads, times=times, window=window, keep=keep, consume=consume
        )
        if after.rows:
            _check([1] * after.rows, after, kv_heads=kv_heads, times=times, window=window, consume=True)


@pytest.mark.parametrize("window", [None, 40, 700])
def test_a_long_row_goes_in_blocks(window: int | None) -> None:
    _check([600, 5], _state([130, 60], 2), window=window)
    _check([600], None, window=window)


def test_siblings_of_one_prefix_are_one_sequence() -> None:
    before = _state([40, 3], 2).select([0, 0, 0, 0, 1])
    rows = PackedAttention([5, 9, 1, 20, 4], before, device=CPU)
    assert sorted(unit.rows for group in rows._groups for unit in group.units) == [(0, 1, 2, 3), (4,)]
    _check([5, 9, 1, 20, 4], before)


def test_few_rows_beside_a_prefix_do_not_outweigh_it() -> None:
    before = _state([70], 2).select([0] * 30)
    rows = PackedAttention([20] * 30, before, device=CPU)
    units = [unit for group in rows._groups for unit in group.units]
    assert sum(len(unit.rows) for unit in units) == 30
    assert max(unit.tokens for unit in units) <= 128
    _check([20] * 30, before)


def test_no_token_is_copied_for_one_row_or_neighbours() -> None:
    before = _state([70], 2).select([0, 0, 0])
    for rows in (PackedAttention([7], None, device=CPU), PackedAttention([5, 5, 6], before, device=CPU)):
        assert [type(group.take) for group in rows._groups] == [slice]


def test_one_more_token_each_in_place() -> None:
    state = _state([5, 9, 2], 2)
    for _ in range(3):
        state = _check([1, 1, 1], state, consume=True)
        block = state.chains[0][0].block
    after = _check([1, 1, 1], state, consume=True)
    assert after.chains[2][0].block is block
    assert _check([1, 1, 1], state).chains[2][0].block is block, "the prefix is shared by reference"
    # A row that has left makes the others move together once.
    left = _check([1, 1], after.select([2, 0]), consume=True)
    assert left.chains[0][0].block is not block
    assert _check([1, 1], left, consume=True).chains[0][0].block is left.chains[0][0].block


def test_a_single_query_may_stand_for_its_heads() -> None:
    """What a GPU's kernels need: a mask without fewer key heads than query heads."""
    q, k, v = _random(1, 3, 6, 1, 4), _random(2, 3, 2, 5, 4), _random(3, 3, 2, 5, 4)
    mask = torch.zeros(3, 1, 1, 5).masked_fill(torch.arange(5) > torch.tensor([4, 2, 0])[:, None, None, None],
                                               float("-inf"))  # fmt: skip
    expected = packed_attention.attend(q, k, v, mask, 0.5)
    packed = packed_attention._attend_masked(q, k, v, mask, 0.5)
    assert torch.allclose(packed, expected, atol=1e-6)
    wide, bias = _random(4, 3, 6, 2, 4), mask.expand(3, 1, 2, 5)
    expected = packed_attention.attend(wide, k, v, bias, 0.5)
    assert torch.allclose(packed_attention._attend_masked(wide, k, v, bias, 0.5), expected, atol=1e-6)
