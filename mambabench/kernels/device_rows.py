"""Where the rows of one forward lie, for kernels on a GPU: bounds are sent there once, not once a layer.

layout = Layout(np.array([0, 700, 703]), torch.device("cpu"), 512)
layout.starts, layout.row_of          # [3], [703]
layout.pieces.begins                  # 0, 512, 700
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int64s = npt.NDArray[np.int64]


def sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return an array on a device, without waiting for what the device has still to do."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Pieces:
    """Rows cut into pieces for the scan; all but a row's last are its inner ones."""

    row: Int64s
    is_first: npt.NDArray[np.bool_]
    is_last: npt.NDArray[np.bool_]
    n_inner: int
    begins: Tensor
    stops: Tensor
    inner_begins: Tensor
    inner_stops: Tensor
    inner_of: Tensor
    """Where each row's inner pieces begin among all of them, and their number, int64 [B + 1]."""


class Layout:
    """Where the rows of a forward lie, on the host and on the device.

    Args:
        starts: where each row begins, and T, [B + 1].
        device: of the tensors.
        piece_tokens: longest piece.
        lengths: how many of each row's tokens are taken, [B]; all when absent.
    """

    def __init__(
        self, starts: Int64s, device: torch.device, piece_tokens: int, lengths: Int64s | None = None
    ) -> None:
        self.source, self.device = starts, device
        self._piece_tokens = piece_tokens
        self.rows = len(starts) - 1
        self._lengths = np.diff(starts) if lengths is None else lengths
        self.longest = int(self._lengths.max(initial=0))
        self.is_cut = self.longest > piece_tokens
        self.starts = sent(starts, device)
        self.begins = self.starts[:-1]
        self.stops = self.starts[1:] if lengths is None else sent(starts[:-1] + lengths, device)

    @cached_property
    def row_of(self) -> Tensor:
        """The row of each token, int32 [T]."""
        return sent(np.repeat(np.arange(self.rows, dtype=np.int32), self._lengths), self.device)

    @cached_property
    def pieces(self) -> Pieces:
        """The rows in pieces of at most `piece_tokens`."""
        counts = np.maximum(1, -(-self._lengths // self._piece_tokens))
        row = np.repeat(np.arange(self.rows), counts)
        number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        begins = self.source[row] + number * self._piece_tokens
        stops = np.minimum(begins + self._piece_tokens, self.source[row] + self._lengths[row])
        is_last = number == counts[row] - 1
        inner_of = np.append(0, np.cumsum(counts - 1))
        bounds = begins, stops, begins[~is_last], stops[~is_last], inner_of
        on_device = (sent(part.astype(np.int64), self.device) for part in bounds)
        return Pieces(row, number == 0, is_last, int(inner_of[-1]), *on_device)
