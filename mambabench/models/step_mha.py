"""mamba_ssm's attention layer and gated MLP, for models that mix them with Mamba layers.

Queries, keys and values may go through a short causal convolution first (`d_conv`), positions are rotary over
part of a head (Su et al. 2021, arXiv:2104.09864) or absent, and an MLP may run beside the attention
(`mlp_dim`). Which rows attend to what is `PackedAttention`'s business.

    layer = AttentionLayer(weights, attn_cfg, d_model=2560)
    mixed, states = layer.step(x, starts, rotary(positions, attn_cfg), rows, None)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mambabench.kernels.rows import Rows
from mambabench.models.attention_state import AttentionState
from mambabench.models.layers import linear
from mambabench.models.packed_attention import PackedAttention
from mambabench.models.stateful import LayerState, RecurrentState
from mambabench.models.static_attention import StaticAttention, StaticKeys, StaticWindow

Rotation = tuple[Tensor, Tensor]
AnyState = LayerState | StaticKeys | StaticWindow
"""A state as a value, or memory that stays at its address."""


def rotary(positions: Tensor, attn_cfg: Mapping[str, Any]) -> Rotation | None:
    """Return the cosines and sines [T, rotary_emb_dim / 2] of positions int64 [T]; null without rotation."""
    size = int(attn_cfg.get("rotary_emb_dim", 0))
    if size == 0:
        return None
    base = float(attn_cfg.get("rotary_emb_base", 10000.0))
    frequencies = base ** -(torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size)
    angles = positions.float()[:, None] * frequencies
    return angles.cos(), angles.sin()


class AttentionLayer:
    """One causal attention mixer.

    Args:
        weights: the mixer's parameters by mamba_ssm's names.
        attn_cfg: its configuration, as `config.json` has it.
        d_model: width of the residual stream.
    """

    def __init__(self, weights: Mapping[str, Tensor], attn_cfg: Mapping[str, Any], *, d_model: int) -> None:
        heads = int(attn_cfg["num_heads"])
        self._kv_heads = int(attn_cfg.get("num_heads_kv") or heads)
        self._head_dim = int(attn_cfg.get("head_dim") or d_model // heads)
        self._q_columns = heads * self._head_dim
        self._qkv_columns = self._q_columns + 2 * self._kv_heads * self._head_dim
        self._scale: float | None = attn_cfg.get("softmax_scale")
        self._interleaved = bool(attn_cfg.get("rotary_emb_interleaved", False))
        self._in_proj, self._in_bias = weights["in_proj.weight"], weights.get("in_proj.bias")
        self._out_proj, self._out_bias = weights["out_proj.weight"], weights.get("out_proj.bias")
        taps = weights.get("conv1d.weight")
        self._taps = None if taps is None else taps[:, 0].t().float().contiguous()
        self._conv_bias = None if taps is None else weights["conv1d.bias"].float()

    @property
    def n_states(self) -> int:
        """States that `step` takes and gives: keys and values, after the convolution's window if any."""
        return 1 if self._taps is None else 2

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's state, its tokens apart."""
        return 0 if self._taps is None else 4 * (self._taps.shape[0] - 1) * self._qkv_columns

    @property
    def token_state_bytes(self) -> int:
        """Bytes of a token's keys and values."""
        return 4 * 2 * self._kv_heads * self._head_dim

    @property
    def token_bytes(self) -> int:
        """Memory of a forward per token."""
        # The projection, rotated or convolved copies, keys and values for the state, and the output.
        taps = 0 if self._taps is None else 2
        return 4 * ((2 + taps) * self._in_proj.shape[0] + 2 * self._q_columns)

    def start(self, rows: int) -> list[LayerState]:
        """Return the states of rows that have seen nothing."""
        nothing = AttentionState(((),) * rows)
        if self._taps is None:
            return [nothing]
        shapes = {"conv": (self._taps.shape[0] - 1, self._qkv_columns)}
        return [RecurrentState.start(shapes, rows), nothing]

    def step(
        self,
        x: Tensor,
        starts: npt.NDArray[np.int64],
        rotation: Rotation | None,
        rows: PackedAttention | StaticAttention,
        before: Sequence[AnyState] | None,
        *,
        read: Tensor | None = None,
        keep: Sequence[int] | None = None,
    ) -> tuple[Tensor, list[Any]]:
        """Map normalised inputs [T, d_model] to what is added to the residual stream, [T or n, d_model].

        Args:
            x: float32.
            starts: where each row begins, and T, [B + 1].
            rotation: what `rotary` gives for the tokens' positions.
            rows: how the rows attend; it knows the rows to keep, too.
            before: as many states as `n_states` says, of the kind that `rows` takes; null for rows that
                begin here.
            read: positions whose outputs are needed; null for all.
            keep: rows whose states are wanted, in this order; null for all.
        """
        projected = linear(x, self._in_proj, self._in_bias)
        qkv, mlp = projected[:, : self._qkv_columns], projected[:, self._qkv_columns :]
        after: list[AnyState] = []
        window: Any = None if before is None else before[0]
        if isinstance(window, StaticWindow):
            assert self._taps is not None
            assert self._conv_bias is not None
            qkv = window.convolved(qkv, self._taps, self._conv_bias)
            after.append(window)
        elif self._taps is not None:
            qkv, conv = self._convolved(qkv, starts, None if window is None else window.named["conv"])
            after.append(RecurrentState({"conv": Rows.apart(conv if keep is None else conv[list(keep)])}))
        q, k, v = (
            part.reshape(part.shape[0], -1, self._head_dim).transpose(0, 1)
            for part in qkv.tensor_split([self._q_columns, (self._q_columns + self._qkv_columns) // 2], dim=1)
        )
        if rotation is not None:
            q, k = self._rotated(q, rotation), self._rotated(k, rotation)
        known: Any = None if before is None else before[-1]
        out, kept = rows(q, k, v, known, scaling=self._scale, window=None)
        after.append(kept)
        mixed = out.flatten(1)
        if read is not None:
            mixed, mlp = mixed[read], mlp[read]
        if mlp.shape[1]:
            value, gate = mlp.chunk(2, dim=1)
            mixed = torch.cat([mixed, value * functional.silu(gate)], dim=1)
        return linear(mixed, self._out_proj, self._out_bias), after

    def _convolved(
        self, qkv: Tensor, starts: npt.NDArray[np.int64], before: Rows | None
    ) -> tuple[Tensor, Tensor]:
        """Return the causal convolution [T, qkv] and the window after each row [B, k - 1, qkv]."""
        assert self._taps is not None
        past = self._taps.shape[0] - 1
        n_rows = len(starts) - 1
        zeros = qkv.new_zeros(past, qkv.shape[1])
        windows = (None,) * n_rows if before is None else before.tensors
        # Each row behind its window, so that a token's inputs stand in one piece.
        bounds = [int(start) for start in starts]
        pieces: list[Tensor] = []
        for row, window in enumerate(windows):
            pieces += [zeros if window is None else window, qkv[bounds[row] : bounds[row + 1]]]
        joined = torch.cat(pieces)
        lengths = torch.from_numpy(np.diff(starts)).to(qkv.device)
        row_of = torch.repeat_interleave(torch.arange(n_rows, device=qkv.device), lengths)
        first = torch.arange(qkv.shape[0], device=qkv.device) + past * row_of
        out = joined[first] * self._taps[0]
        for tap in range(1, past + 1):
            out.addcmul_(joined[first + tap], self._taps[tap])
        ends = torch.from_numpy(starts[1:]).to(qkv.device) + past * torch.arange(
            1, n_rows + 1, device=qkv.device
        )
        last = ends[:, None] + torch.arange(-past, 0, device=qkv.device)
        assert self._conv_bias is not None
        return out.add_(self._conv_bias), joined[last]

    def _rotated(self, x: Tensor, rotation: Rotation) -> Tensor:
        """Rotate the first columns of each head of [heads, T, head_dim] by the tokens' positions."""
        cos, sin = rotation
        size = 2 * cos.shape[1]
        turned, rest = x[..., :size], x[..., size:]
        if self._interleaved:
            a, b = turned[..., ::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        else:
            a, b = turned.chunk(2, dim=-1)
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        return torch.cat([turned, rest], dim=-1)


class GatedMLP:
    """A gated MLP: `fc2(value * silu(gate))`, where `fc1` gives value and gate.

    Args:
        weights: "fc1.weight" [2 * n, d_model] and "fc2.weight" [d_model, n].
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._fc1, self._fc2 = weights["fc1.weight"], weights["fc2.weight"]

    @property
    def token_bytes(self) -> int:
        """Memory of a forward per token."""
        return 4 * 2 * self._fc1.shape[0]

    def step(self, x: Tensor) -> Tensor:
        """Map normalised inputs [T, d_model] to what is added to the residual stream."""
        value, gate = linear(x, self._fc1).chunk(2, dim=1)
        return linear(value * functional.silu(gate), self._fc2)
