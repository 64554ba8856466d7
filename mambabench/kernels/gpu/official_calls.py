"""Calls of `segments` on the device: where their rows lie, and what each row goes on from and leaves behind.

long = LongRows.of(calls(starts, rows, most_tokens=4096), len(starts) - 1, device)
carried = Carried(before, after, (n_states, channels), long, device)
for call in long.calls:
    x = call.gather(u)                              # [rows, longest, channels]
    carried.old(call)                               # addresses of states, and which is each row's
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mambabench.kernels.gpu.layout import sent, sent_together
from mambabench.kernels.gpu.segments import Call

if TYPE_CHECKING:
    from mambabench.kernels.rows import Rows

Places = tuple[Tensor, Tensor]
"""Addresses of states, int64, and for each row of a call which of them is its own."""


class OnDevice:
    """A call, and where its rows lie, on the device.

    Args:
        call: on the host.
        begins: of the call, on the device.
        lengths: likewise.
        row_of: the call's rows, likewise.
        only: 0 for each row.
    """

    def __init__(self, call: Call, begins: Tensor, lengths: Tensor, row_of: Tensor, only: Tensor) -> None:
        self.call, self._device = call, begins.device
        self.rows, self.longest = len(call.rows), call.longest
        self.begins, self.lengths, self.row_of, self.only = begins, lengths, row_of, only

    @cached_property
    def is_block(self) -> bool:
        """See `Call.is_block`."""
        return self.call.is_block

    @cached_property
    def _padding(self) -> tuple[Tensor, Tensor]:
        """The token at each place of the padded batch, and whether it only fills."""
        i = np.arange(self.longest)
        lengths = self.call.lengths[:, None]
        # A row's own last token fills, so that no row sees what another holds.
        index = self.call.begins[:, None] + np.minimum(i, lengths - 1)
        found = sent(np.stack([index, (i >= lengths).astype(np.int64)]), self._device)
        return found[0], found[1].bool()

    @cached_property
    def _tokens(self) -> tuple[Tensor, Tensor]:
        """All rows' tokens, and the places that they have in the padded batch."""
        inside = np.arange(self.longest) < self.call.lengths[:, None]
        index = self.call.begins[:, None] + np.arange(self.longest)
        found = sent(np.stack([index[inside], np.flatnonzero(inside)]), self._device)
        return found[0], found[1]

    def gather(self, x: Tensor, *, fill: float | None = None) -> Tensor:
        """Return tokens [T, columns] as [rows, longest, columns], a view where the rows lie so."""
        if self.is_block:
            begin = int(self.call.begins[0])
            return x[begin : begin + self.rows * self.longest].view(self.rows, self.longest, -1)
        index, is_filling = self._padding
        found = x[index]
        return found if fill is None else found.masked_fill_(is_filling[..., None], fill)

    def scatter(self, padded: Tensor, y: Tensor) -> None:
        """Write [rows, longest, columns] to the tokens of `y` [T, columns]."""
        flat = padded.flatten(0, 1)
        if self.is_block:
            begin = int(self.call.begins[0])
            y[begin : begin + len(flat)] = flat
        else:
            tokens, places = self._tokens
            y.index_copy_(0, tokens, flat[places])


@dataclass(frozen=True, eq=False)
class LongRows:
    """All calls of one forward."""

    calls: tuple[OnDevice, ...]
    n_rows: int
    """Of the forward, those that are not in a call included."""
    is_cut: bool
    """Whether a row goes through several calls."""

    @classmethod
    def of(cls, calls: Sequence[Call], n_rows: int, device: torch.device) -> LongRows:
        """Send the calls to a device, in one copy."""
        bounds = [(call.begins, call.lengths, call.rows, 0 * call.rows) for call in calls]
        there = iter(sent_together([array for four in bounds for array in four], device))
        made = tuple(OnDevice(call, *islice(there, 4)) for call in calls)
        return cls(made, n_rows, not all(call.is_last for call in calls))


class Carried:
    """What the rows of each call go on from and leave behind, in one layer.

    Args:
        before: the states of all rows.
        after: places for those of all rows.
        shape: of a state.
        long: the calls; a row that is cut goes on from memory that is kept here in between.
        device: of everything.

    Raises:
        ValueError: the states do not fit.
    """

    def __init__(
        self,
        before: Rows | None,
        after: Rows | None,
        shape: tuple[int, ...],
        long: LongRows,
        device: torch.device,
    ) -> None:
        what = long.n_rows, shape, torch.float32, device
        self._old = None if before is None else before.pointers(*what, sent)
        self._new = None if after is None else after.pointers(*what, sent)
        self._has_old = None if before is None else before.addresses(*what) != 0
        if long.is_cut:
            self._between = torch.empty(shape, dtype=torch.float32, device=device)
            self._at_between = sent(np.array([self._between.data_ptr()]), device)

    def old(self, call: OnDevice) -> Places | None:
        """Return where the states are from which a call's rows go on; null where none has one."""
        if not call.call.is_first:
            return self._at_between, call.only
        if self._old is None or self._has_old is None or not self._has_old[call.call.rows].any():
            return None
        return self._old, call.row_of

    def new(self, call: OnDevice) -> Places | None:
        """Return where the states after a call's rows go; null where none is wanted."""
        if not call.call.is_last:
            return self._at_between, call.only
        return None if self._new is None else (self._new, call.row_of)
