"""Where rows lie, on the device: what goes there, and that it goes there once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.kernels.gpu import layout
from mambabench.kernels.gpu.layout import Layout, layout_for, sent_together
from mambabench.kernels.rows import Memory, Partition
from mambabench.models.layers import row_starts

CPU = torch.device("cpu")
LIKE = torch.empty(0)
PARTITION = Partition([(3, 5), (2, 5)])
few = settings(max_examples=50, deadline=None)


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the bytes of everything that is sent."""
    found: list[int] = []
    plain = layout.sent

    def sent(array: Any, device: torch.device) -> torch.Tensor:
        found.append(array.nbytes)
        return plain(array, device)

    monkeypatch.setattr(layout, "sent", sent)
    return found


@few
@given(st.lists(st.one_of(st.integers(0, 9), st.tuples(st.integers(0, 3), st.integers(0, 9))), min_size=1))
def test_arrays_arrive_as_they_were_at_multiples_of_16_bytes(shapes: list[Any]) -> None:
    arrays = [np.arange(np.prod(shape), dtype=np.int64).reshape(shape) + 7 for shape in shapes]
    found = sent_together(arrays, CPU)
    begin = min((tensor.data_ptr() for tensor in found if tensor.numel()), default=0)
    for tensor, array in zip(found, arrays, strict=True):
        assert np.array_equal(tensor.numpy(), array)
        for row in tensor.view(-1, tensor.shape[-1]) if tensor.numel() else ():
            assert (row.data_ptr() - begin) % 16 == 0


@few
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 9), st.booleans())
def test_pieces_cover_each_row_in_order(lengths: list[int], longest: int, some: bool) -> None:
    starts = row_starts(lengths)
    taken = np.array([n // 2 if row % 2 else n for row, n in enumerate(lengths)]) if some else None
    layout = Layout(starts, CPU, longest, taken)
    want = np.array(lengths) if taken is None else taken
    assert layout.longest == want.max()
    assert layout.begins.tolist() == starts[:-1].tolist()
    assert layout.stops.tolist() == (starts[:-1] + want).tolist()
    assert layout.row_of.tolist() == [row for row, n in enumerate(lengths) for _ in range(n)]
    assert layout.is_cut == (layout.longest > longest)
    if not layout.is_cut:
        return
    rows = len(lengths)
    pieces = layout.pieces
    begins, stops, source, target = (
        t.tolist() for t in (pieces.begins, pieces.stops, pieces.source, pieces.target)
    )
    lead, piece = 0, 0
    for row, n in enumerate(want):
        assert pieces.lead_of[row] == lead
        at = int(starts[row])
        is_cut = n > longest
        while True:
            is_last = stops[piece] == starts[row] + n
            assert begins[piece] == at
            assert is_last or stops[piece] - at == longest
            assert source[piece] == (rows + lead if is_cut else row)
            assert target[piece] == (row if is_last else rows)
            if is_cut:
                assert pieces.lead_begins[lead] == max(at - longest, starts[row])
                assert pieces.lead_stops[lead] == at
                lead += 1
            at, piece = stops[piece], piece + 1
            if is_last:
                break
    assert piece == len(begins)
    assert pieces.lead_of[-1] == lead
    assert pieces.leads.tolist() == list(range(lead))
    assert pieces.nowhere.tolist() == [0] * (rows + 1)


def test_a_forward_needs_one_copy_and_the_same_again_none(sends: list[int]) -> None:
    memories = [Memory.places(None, LIKE, PARTITION, 3) for _ in range(3)]
    layout = layout_for(row_starts([2, 1, 4]), CPU, 512, memories[:2], None)
    assert len(sends) == 1
    assert all(memory.is_sent for memory in memories[:2])
    # Equal lengths are the same layout, whoever remembers it; and memory that is new is sent alone.
    assert layout_for(row_starts([2, 1, 4]), CPU, 512, memories[:1], None) is layout
    assert layout_for(row_starts([2, 1, 4]), CPU, 512, [], layout) is layout
    assert len(sends) == 1
    assert layout_for(row_starts([2, 1, 4]), CPU, 512, memories[1:], None) is layout
    assert len(sends) == 2
    assert memories[2].companion is layout
    # A memory that is both before and after is sent once.
    alone = Memory.places(None, LIKE, PARTITION, 3)
    layout_for(row_starts([2, 1, 4]), CPU, 512, [alone, alone], layout)
    assert sends[2] == 2 * 4 * 8


def test_other_rows_are_another_layout(sends: list[int]) -> None:
    memory = Memory.places(None, LIKE, PARTITION, 2)
    layout = layout_for(row_starts([2, 1]), CPU, 512, [memory], None)
    for starts, longest in ((row_starts([1, 2]), 512), (row_starts([2, 1, 1]), 512), (row_starts([2, 1]), 8)):
        assert layout_for(starts, CPU, longest, [], layout) is not layout
    only_some = Layout(row_starts([2, 1]), CPU, 512, np.array([0, 1]))
    assert len(sends) == 5
    # What the memory keeps is what its last forward used: a recorded step goes on reading it.
    assert memory.companion is layout
    assert not only_some.fits(row_starts([2, 1]), CPU, 512)


def test_rows_of_another_dtype_are_refused() -> None:
    wide = Memory.places(None, LIKE.double(), PARTITION, 2)
    with pytest.raises(ValueError, match="float32"):
        layout_for(row_starts([2, 1]), CPU, 512, [wide], None)
