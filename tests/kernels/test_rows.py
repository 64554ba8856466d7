"""Rows by reference: what shares memory, what may be overwritten, and when memory is freed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.kernels.rows import Memory, Partition, Rows

LIKE = torch.empty(0)


def written(n: int) -> Rows:
    """Return rows as a forward leaves them."""
    rows = Rows.places(None, LIKE, (2, 3), n)
    for i, tensor in enumerate(rows.tensors):
        assert tensor is not None
        tensor.fill_(i + 1)
    return rows


def is_overwritten(rows: Rows) -> bool:
    """Return whether a forward that may overwrite the rows does."""
    places = Rows.places(rows, LIKE, (2, 3), len(rows), consume=True)
    same = [a is b for a, b in zip(rows.tensors, places.tensors, strict=True)]
    assert all(same) or not any(same)
    return all(same)


def test_selected_rows_are_the_same_memory() -> None:
    rows = written(3)
    picked = rows.select([2, 0, 2])
    assert [t is rows.tensors[i] for t, i in zip(picked.tensors, [2, 0, 2], strict=True)] == [True] * 3
    assert picked.stacked()[:, 0, 0].tolist() == [3, 1, 3]
    assert len(picked.distinct()) == 2


def test_each_row_is_freed_on_its_own() -> None:
    rows = written(3)
    refs = [weakref.ref(t) for t in rows.tensors if t is not None]
    second = rows.select([1])
    del rows
    gc.collect()
    assert [ref() is not None for ref in refs] == [False, True, False]
    assert second.stacked()[0, 0, 0] == 2


def test_what_a_forward_wrote_is_overwritten_by_the_next() -> None:
    rows = written(2)
    assert Rows.places(rows, LIKE, (2, 3), 2, consume=True) is rows
    assert is_overwritten(Rows.part(rows.memory.kept([1, 0]), 0))


def test_what_others_may_need_is_never_overwritten() -> None:
    for derive in (
        lambda rows: rows.select([0, 1]),
        lambda rows: Rows.gather([(rows, 1)], (2, 3)),
        lambda rows: rows.map(lambda tensor: tensor),
    ):
        rows = written(2)
        child = derive(rows)
        assert not is_overwritten(child)
        assert not is_overwritten(rows)
    assert not is_overwritten(Rows.part(written(2).memory.kept([1, 1]), 0))
    assert not is_overwritten(Rows((None, None), (2, 3)))
    rows = written(2)
    places = Rows.places(rows, LIKE, (2, 3), 2)
    assert not {id(t) for t in places.tensors} & {id(t) for t in rows.tensors}


def test_places_are_made_for_kept_rows_only() -> None:
    rows = written(3)
    places = Rows.places(rows, LIKE, (2, 3), 3, keep=[2, 0], consume=True)
    assert [a is b for a, b in zip(places.tensors, rows.tensors, strict=True)] == [True, False, True]
    assert places.tensors[1] is None
    assert Rows.places(None, LIKE, (2, 3), 2, keep=[]).tensors == (None, None)


def test_a_change_is_made_once_for_what_is_shared() -> None:
    picked = Rows.gather([(written(2), 1), (Rows((None,), (2, 3)), 0)], (2, 3)).select([0, 1, 0])
    changed = picked.map(lambda tensor: tensor + 1)
    assert changed.stacked()[:, 0, 0].tolist() == [3, 0, 3]
    assert changed.tensors[0] is changed.tensors[2]
    assert picked.stacked()[:, 0, 0].tolist() == [2, 0, 2]


def test_rows_of_a_tensor_do_not_keep_all_of_it() -> None:
    tensor = torch.randn(3, 2, 3)
    rows = Rows.apart(tensor)
    assert torch.equal(rows.stacked(), tensor)
    assert all(t.untyped_storage().nbytes() == 24 for t in rows.distinct())
    assert Rows.apart(tensor[:0]).stacked().shape == (0, 2, 3)
    assert torch.equal(Rows((None,), (2,)).stacked(), torch.zeros(1, 2))


def test_addresses_are_those_of_fitting_tensors() -> None:
    rows = written(2)
    first, second = rows.tensors
    assert first is not None
    assert second is not None
    mixed = Rows([second, None, first], (2, 3))
    assert mixed.addresses(3, (2, 3), torch.float32).tolist() == [second.data_ptr(), 0, first.data_ptr()]
    for tensor in (first.double(), first.T.contiguous().T, first[:1], first.to("meta")):
        with pytest.raises(ValueError, match="needed"):
            Rows([second, tensor], (2, 3)).addresses(2, (2, 3), torch.float32)
    for n, shape in ((2, (2, 3)), (3, (3, 2))):
        with pytest.raises(ValueError, match="needed"):
            mixed.addresses(n, shape, torch.float32)


class TestParts:
    """Several parts of one piece of memory a row."""

    SHAPES = ((3, 5), (2, 8), (4,), (1, 2, 7))

    def rows(self, n: int) -> tuple[Memory, list[Rows]]:
        memory = Memory.places(None, LIKE, Partition(self.SHAPES), n)
        return memory, [Rows.part(memory, number) for number in range(len(self.SHAPES))]

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=3), min_size=1, max_size=5))
    def test_parts_lie_apart_and_at_lines_of_the_cache(self, shapes: list[list[int]]) -> None:
        partition = Partition(shapes)
        tensor = torch.zeros(partition.shape)
        for number, shape in enumerate(shapes):
            part = partition.view(tensor, number)
            assert list(part.shape) == shape
            assert part.is_contiguous()
            assert not part.numel() or (part.data_ptr() - tensor.data_ptr()) % 64 == 0
            part += number + 1
        sizes = [int(np.prod(shape)) for shape in shapes]
        assert [int((tensor == number + 1).sum()) for number in range(len(shapes))] == sizes
        assert partition.n_bytes == 4 * sum(sizes)
        assert tensor.numel() <= sum(sizes) + 15 * len(sizes)

    def test_addresses_are_those_of_the_parts(self) -> None:
        memory, parts = self.rows(2)
        picked = memory.select([1, 0, 1])
        for number, rows in enumerate(parts):
            want = [t.data_ptr() for t in rows.tensors if t is not None]
            assert len(want) == 2
            some = Rows.part(picked, number)
            found = some.addresses(3, self.SHAPES[number], torch.float32)
            assert found.tolist() == [want[1], want[0], want[1]]
            for n, shape in ((2, self.SHAPES[number]), (3, (9, 9))):
                with pytest.raises(ValueError, match="needed"):
                    some.addresses(n, shape, torch.float32)
        fresh = Memory([None, memory.tensors[0]], memory.partition)
        assert (fresh.addresses(torch.float32, "cpu")[:, 0] == 0).all()
        for wrong in (memory.tensors[0], torch.zeros(3)):
            assert wrong is not None
            with pytest.raises(ValueError, match="needed"):
                Memory([wrong.double()], memory.partition).addresses(torch.float32, "cpu")

    def test_pointers_are_sent_once(self) -> None:
        memory, parts = self.rows(2)
        sends = []

        def sent(
            array: np.ndarray[tuple[int, ...], np.dtype[np.int64]], device: torch.device
        ) -> torch.Tensor:
            sends.append(array.shape)
            return torch.from_numpy(array)

        cpu = torch.device("cpu")
        for _ in range(2):
            for number, rows in enumerate(parts):
                found = rows.pointers(2, self.SHAPES[number], torch.float32, cpu, sent)
                assert torch.equal(found, torch.tensor([t.data_ptr() for t in rows.tensors if t is not None]))
        assert sends == [(4, 2)]
        assert memory.is_sent
        assert not memory.select([0]).is_sent

    def test_a_row_is_freed_with_its_last_part(self) -> None:
        memory, parts = self.rows(3)
        refs = [weakref.ref(t) for t in memory.tensors if t is not None]
        alone = parts[1].select([2])
        del memory, parts
        gc.collect()
        assert [ref() is not None for ref in refs] == [False, False, True]
        assert alone.stacked().shape == (1, 2, 8)

    def test_lending_a_part_lends_the_row(self) -> None:
        def is_overwritten(memory: Memory) -> bool:
            places = Memory.places(memory, LIKE, memory.partition, len(memory), consume=True)
            return places is memory

        for derive in (
            lambda rows: rows.select([0, 1]),
            lambda rows: Rows.gather([(rows, 1)], rows.shape),
            lambda rows: rows.map(lambda tensor: tensor),
        ):
            memory, parts = self.rows(2)
            assert is_overwritten(memory)
            child = derive(parts[2])
            assert not is_overwritten(memory)
            assert not is_overwritten(child.memory)
        memory, _ = self.rows(2)
        other = Partition(self.SHAPES[::-1])
        assert Memory.places(memory, LIKE, other, 2, consume=True).partition == other
        assert Memory.places(memory, LIKE, memory.partition, 2) is not memory

    def test_parts_of_unlike_memory_stand_beside_each_other(self) -> None:
        _, parts = self.rows(2)
        for tensor in parts[0].distinct():
            tensor.fill_(3)
        apart = Rows.apart(torch.full((1, 3, 5), 4.0))
        both = Rows.gather([(parts[0], 1), (apart, 0), (parts[0], 1)], (3, 5))
        assert both.stacked()[:, 0, 0].tolist() == [3, 4, 3]
        parts[0].distinct()[1].fill_(5)
        assert both.stacked()[:, 0, 0].tolist() == [5, 4, 5]
