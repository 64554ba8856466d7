"""What rows remember, a tensor for each, by reference: naming a row a second time copies nothing.

Every row of a batch has memory of its own, which is freed with the last reference to it. The compiled
loops and a GPU's kernels read and write rows by their addresses.

    after = Rows.places(None, x, (3, 1536), 2)          # room for two rows' states
    y = kernels.conv_silu(x, 0, weight, bias, starts, None, after)
    siblings = after.select([0, 0, 1])                  # nothing is copied
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import Tensor


class Rows:
    """One tensor for each of several rows, all of one shape.

    Args:
        tensors: null stands for zeros: a row that has seen nothing.
        shape: of each tensor.
    """

    __slots__ = ("_addresses", "_is_ours", "_pointers", "shape", "tensors")

    def __init__(self, tensors: Sequence[Tensor | None], shape: Sequence[int]) -> None:
        self.tensors = tuple(tensors)
        self.shape = tuple(shape)
        self._addresses: npt.NDArray[np.int64] | None = None
        self._pointers: Tensor | None = None
        # Whether each tensor is one row's, and no other object refers to it: only then may it be overwritten.
        self._is_ours = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tensors)

    @classmethod
    def places(
        cls,
        before: Rows | None,
        like: Tensor,
        shape: Sequence[int],
        n_rows: int,
        *,
        keep: Collection[int] | None = None,
        consume: bool = False,
    ) -> Rows:
        """Return where the rows' next states go; their contents are whatever was there.

        Args:
            before: the rows' states now; null when they have none.
            like: of the dtype and on the device of new ones.
            shape: of a row's state.
            n_rows: their number.
            keep: rows whose states are wanted, the others have null; all when absent.
            consume: whether `before` may be overwritten: then a row's next state takes its place, unless
                other rows may still need it.
        """
        in_place = before is not None and consume and before._is_ours
        if before is not None and in_place and keep is None:
            return before
        wanted = range(n_rows) if keep is None else frozenset(keep)
        old = before.tensors if before is not None and in_place else (None,) * n_rows
        found = cls(
            [
                None if row not in wanted else like.new_empty(shape) if old[row] is None else old[row]
                for row in range(n_rows)
            ],
            shape,
        )
        found._is_ours = keep is None
        return found

    def kept(self, keep: Sequence[int]) -> Rows:
        """Return some rows in this order; this object must not be used after it."""
        rows = Rows([self.tensors[row] for row in keep], self.shape)
        rows._is_ours = len(set(keep)) == len(keep)
        return rows

    def select(self, rows: Sequence[int]) -> Rows:
        """Return the given rows in the given order, each as often as it is named."""
        return Rows.gather([(self, row) for row in rows], self.shape)

    @staticmethod
    def gather(picks: Sequence[tuple[Rows, int]], shape: Sequence[int]) -> Rows:
        """Return one row for each (rows, row); they share their memory."""
        for rows, _ in picks:
            rows._is_ours = False
        return Rows([rows.tensors[row] for rows, row in picks], shape)

    def map(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """Return the rows with each tensor replaced by `change(tensor)`; what they share stays shared."""
        # The change may return the same tensor.
        self._is_ours = False
        changed = {id(tensor): change(tensor) for tensor in self.distinct()}
        return Rows([None if t is None else changed[id(t)] for t in self.tensors], self.shape)

    def distinct(self) -> list[Tensor]:
        """Return each tensor once."""
        return list({id(tensor): tensor for tensor in self.tensors if tensor is not None}.values())

    def stacked(self) -> Tensor:
        """Return a copy of all rows in one tensor, [rows, ...]."""
        import torch

        known = self.distinct()
        zeros = known[0].new_zeros(self.shape) if known else torch.zeros(self.shape)
        if not self.tensors:
            return torch.zeros(0, *self.shape)
        return torch.stack([zeros if tensor is None else tensor for tensor in self.tensors])

    @classmethod
    def apart(cls, tensor: Tensor) -> Rows:
        """Return copies of a tensor's rows [rows, ...]; views would keep all of it in memory."""
        return cls([row.clone() for row in tensor], tensor.shape[1:])

    def addresses(
        self,
        n_rows: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device | Literal["cpu"] = "cpu",
    ) -> npt.NDArray[np.int64]:
        """Return where each row's tensor lies in the memory of its device, 0 for null, int64 [rows].

        Raises:
            ValueError: there are not `n_rows` contiguous tensors of this shape and dtype on the device.
        """
        if len(self.tensors) != n_rows or self.shape != tuple(shape):
            wanted = f"{n_rows} of {tuple(shape)}"
            raise ValueError(f"{len(self)} rows of shape {self.shape} where {wanted} are needed")
        if self._addresses is None:
            for tensor in self.distinct():
                if tensor.shape != self.shape:
                    raise ValueError(f"a tensor of shape {tuple(tensor.shape)} where {self.shape} is needed")
                is_there = tensor.is_cpu if device == "cpu" else tensor.device == device
                if tensor.dtype != dtype or not is_there or not tensor.is_contiguous():
                    raise ValueError(
                        f"contiguous {dtype} on {device} is needed, not {tensor.dtype} on {tensor.device}"
                    )
            found = [0 if tensor is None else tensor.data_ptr() for tensor in self.tensors]
            self._addresses = np.array(found, np.int64)
        return self._addresses

    def pointers(
        self,
        n_rows: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        sent: Callable[[npt.NDArray[np.int64], torch.device], Tensor],
    ) -> Tensor:
        """Return `addresses` as a tensor on the device, which is made once: decoding asks again and again.

        Args:
            n_rows: as in `addresses`.
            shape: as in `addresses`.
            dtype: as in `addresses`.
            device: that the rows are on.
            sent: moves an array there.

        Raises:
            ValueError: as from `addresses`.
        """
        addresses = self.addresses(n_rows, shape, dtype, device)
        if self._pointers is None:
            self._pointers = sent(addresses, device)
        return self._pointers
