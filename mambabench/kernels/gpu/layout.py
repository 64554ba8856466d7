"""Where the rows of one forward lie, for kernels on a GPU: it is sent there once, in one copy.

layout = Layout(np.array([0, 700, 703]), torch.device("cpu"), 512)
layout.starts, layout.row_of          # [3], [703]
layout.pieces.begins                  # 0, 512, 700

`layout_for` finds a layout again by its numbers, and sends a new one together with the rows' addresses, so
that a forward waits for one copy at most and a step of decoding like the one before it needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mambabench.kernels.rows import Memory

Int64s = npt.NDArray[np.int64]


def sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return an array on a device, without waiting for what the device has still to do."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def sent_together(arrays: Sequence[Int64s], device: torch.device) -> list[Tensor]:
    """Return arrays on a device, in one copy; the rows of each begin at multiples of 16 bytes.

    Triton compiles a kernel once more for pointers that do not.

    Args:
        arrays: [n] or [rows, n] each.
        device: where they go.
    """
    even = [
        np.zeros((*array.shape[:-1], array.shape[-1] + array.shape[-1] % 2), np.int64) for array in arrays
    ]
    for place, array in zip(even, arrays, strict=True):
        place[..., : array.shape[-1]] = array
    flat = sent(np.concatenate([place.ravel() for place in even]), device)
    parts = torch.split(flat, [place.size for place in even])
    return [
        part.view(place.shape)[..., : array.shape[-1]]
        for part, place, array in zip(parts, even, arrays, strict=True)
    ]


class Pieces(NamedTuple):
    """Rows cut into pieces for the scan.

    A lead is what a piece of a cut row follows on in its row: the piece before it, and no tokens at all for
    the first. It is the first one's, too, so that a state is read before the last piece may overwrite it.
    """

    begins: Tensor
    stops: Tensor
    lead_begins: Tensor
    lead_stops: Tensor
    lead_of: Tensor
    """Where each row's leads begin among all of them, and their number, int64 [B + 1]."""
    leads: Tensor
    """The numbers of the leads, from 0 on."""
    source: Tensor
    """What each piece goes on from: a row's state, or B plus the number of its lead."""
    target: Tensor
    """Where each piece's state goes: a row's place, or B for nowhere."""
    nowhere: Tensor
    """Null for each row, and one more, int64 [B + 1]."""


class Layout:
    """Where the rows of a forward lie, on the host and on the device.

    Args:
        starts: where each row begins, and T, [B + 1].
        device: of the tensors.
        piece_tokens: longest piece.
        lengths: how many of each row's tokens are taken, [B]; all when absent.
        memories: of rows, whose addresses go to the device with it.
    """

    def __init__(
        self,
        starts: Int64s,
        device: torch.device,
        piece_tokens: int,
        lengths: Int64s | None = None,
        memories: Sequence[Memory] = (),
    ) -> None:
        self.source, self.device = starts, device
        self._piece_tokens = piece_tokens
        self.rows = len(starts) - 1
        self._lengths = np.diff(starts) if lengths is None else lengths
        self._is_whole = lengths is None
        self.longest = int(self._lengths.max(initial=0))
        self.is_cut = self.longest > piece_tokens
        bounds = [starts, np.repeat(np.arange(self.rows), np.diff(starts))]
        bounds += [starts[:-1] + self._lengths, *(self._pieces() if self.is_cut else ())]
        self.starts, self.row_of, stops, *pieces = _sent_with(bounds, memories, device)
        self.begins = self.starts[:-1]
        self.stops = self.starts[1:] if lengths is None else stops
        self._on_device = Pieces(*pieces) if pieces else None

    @property
    def pieces(self) -> Pieces:
        """The rows in pieces of at most `piece_tokens`, where one is longer."""
        assert self._on_device is not None
        return self._on_device

    def fits(self, starts: Int64s, device: torch.device, piece_tokens: int) -> bool:
        """Tell whether this is the layout of all tokens of such rows."""
        alike = self._is_whole and self.device == device and self._piece_tokens == piece_tokens
        return alike and (self.source is starts or np.array_equal(self.source, starts))

    def _pieces(self) -> list[Int64s]:
        """Return the arrays of `Pieces`."""
        counts = np.maximum(1, -(-self._lengths // self._piece_tokens))
        row = np.repeat(np.arange(self.rows), counts)
        number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        begins = self.source[row] + number * self._piece_tokens
        stops = np.minimum(begins + self._piece_tokens, self.source[row] + self._lengths[row])
        is_last = number == counts[row] - 1
        is_cut = counts[row] > 1
        lead_begins = np.maximum(begins - self._piece_tokens, self.source[row])[is_cut]
        lead_of = np.append(0, np.cumsum(np.where(counts > 1, counts, 0)))
        leads = np.arange(lead_of[-1])
        source = row.copy()
        source[is_cut] = self.rows + leads
        target = np.where(is_last, row, self.rows)
        nowhere = np.zeros(self.rows + 1, np.int64)
        return [begins, stops, lead_begins, begins[is_cut], lead_of, leads, source, target, nowhere]


def layout_for(
    starts: Int64s,
    device: torch.device,
    piece_tokens: int,
    memories: Sequence[Memory],
    last: Layout | None,
) -> Layout:
    """Return the layout of a forward, and see to it that it and the rows' addresses are on the device.

    Args:
        starts: where each row begins, and T, [B + 1].
        device: of the forward.
        piece_tokens: longest piece.
        memories: of the rows before the forward and after it. They keep the layout: a recorded step over
            them goes on reading it.
        last: one that may fit.

    Raises:
        ValueError: the rows' tensors are not float32 on the device.
    """
    unsent = [memory for memory in dict.fromkeys(memories) if not memory.is_sent]
    known = [memory.companion for memory in memories]
    for layout in (*known, last):
        if isinstance(layout, Layout) and layout.fits(starts, device, piece_tokens):
            if unsent:
                _sent_with([], unsent, device)
            break
    else:
        layout = Layout(starts, device, piece_tokens, memories=unsent)
    for memory in memories:
        memory.companion = layout
    return layout


def _sent_with(arrays: list[Int64s], memories: Sequence[Memory], device: torch.device) -> list[Tensor]:
    tables = [memory.addresses(torch.float32, device) for memory in memories]
    found = sent_together([*arrays, *tables], device)
    for memory, table in zip(memories, found[len(arrays) :], strict=True):
        memory.take(table)
    return found[: len(arrays)]
