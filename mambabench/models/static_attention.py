"""Attention with one token a row over keys and values that stay at their addresses, as a CUDA graph needs it.

`PackedAttention` works out on the host how its rows lie, and its states move as they grow. Here the memory
is as large as it will ever be, the device itself counts the tokens, and a mask hides the columns that nothing
was written to: the same launches are right for every next token. Rows may differ in length.

    attention = StaticAttention([5, 3], device)
    keys = StaticKeys(k, v)                             # [2, kv_heads, room, head_dim] each
    attention.begin()                                   # once a token, before the first layer
    out, keys = attention(q, k, v, keys, scaling=None, window=None)        # q [heads, 2, head_dim]

A step reads all columns that there is room for, at the first token as at the last. It has not run on a GPU
yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mambabench.models.layers import sent
from mambabench.models.packed_attention import additive, attend


@dataclass(frozen=True, eq=False)
class StaticKeys:
    """One attention layer's keys and values of several rows; what was never written must be numbers."""

    k: Tensor
    """[rows, kv_heads, room, head_dim]"""
    v: Tensor
    """[rows, kv_heads, room, value_dim]"""


@dataclass(frozen=True, eq=False)
class StaticWindow:
    """The inputs before the next token of a causal convolution, of several rows."""

    inputs: Tensor
    """Oldest first, [rows, k - 1, channels]."""

    def convolved(self, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        """Convolve one more input of each row, and take it into the window.

        Args:
            x: [rows, channels].
            taps: oldest input's first, [k, channels].
            bias: [channels].

        Returns:
            [rows, channels].
        """
        every = torch.cat([self.inputs, x[:, None]], dim=1)
        out = every[:, 0] * taps[0]
        for tap in range(1, taps.shape[0]):
            out.addcmul_(every[:, tap], taps[tap])
        self.inputs.copy_(every[:, 1:])
        return out.add_(bias)


class StaticAttention:
    """The attention of one token of each row, again and again; called as `PackedAttention` is.

    Args:
        lengths: tokens of each row so far.
        device: of the queries.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.seen = sent(torch.tensor(lengths), device)
        """Tokens of each row so far, int64 [rows]; `begin` counts them."""
        self.positions = self.seen
        """Where each row's new token stands, int64 [rows]."""
        self._rows = torch.arange(len(lengths), device=device)
        self._mask: Tensor | None = None

    def begin(self) -> None:
        """Go on to the rows' next tokens."""
        self.positions = self.seen.clone()
        self.seen.add_(1)
        self._mask = None

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        before: StaticKeys,
        *,
        scaling: float | None,
        window: int | None,
    ) -> tuple[Tensor, StaticKeys]:
        """Attend in one layer, after writing its keys and values in place.

        Args:
            q: one query of each row [heads, rows, head_dim], positions already worked in.
            k: keys [kv_heads, rows, head_dim]; heads is a multiple of kv_heads.
            v: values [kv_heads, rows, value_dim].
            before: this layer's memory; all layers have as much room.
            scaling: of the products; null for 1 / sqrt(head_dim).
            window: null: mamba_ssm's attention sees all.

        Returns:
            The output [rows, heads, value_dim] and the same memory.
        """
        if window is not None:
            raise ValueError("attention in place sees all tokens, not a window")
        before.k[self._rows, :, self.positions] = k.transpose(0, 1)
        before.v[self._rows, :, self.positions] = v.transpose(0, 1)
        if self._mask is None:
            columns = torch.arange(before.k.shape[2], device=q.device)
            self._mask = additive(columns <= self.positions[:, None], q.dtype)[:, None, None]
        y = attend(q.transpose(0, 1)[:, :, None], before.k, before.v, self._mask, scaling)
        return y[:, :, 0], before
