"""Causal attention of rows that lie end to end, each behind keys and values of its own or a shared prefix.

How the rows are put into calls of `scaled_dot_product_attention` is worked out once and used by every layer:

- rows without a prefix alone or, when about equally long, side by side: a causal kernel needs no mask;
- rows with the same prefix in one sequence behind it, so that it is read and copied once;
- one more token for each of the rows of one block, all in one call over the block.

    rows = PackedAttention([5, 3], None, device=q.device)
    out, state = rows(q, k, v, None, scaling=None, window=None)        # q [heads, 8, head_dim]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mambabench.models.attention_state import AttentionState, Chain, behind, joined
from mambabench.models.layers import row_starts, sent

_BLOCK_TOKENS = 512
"""Queries of one call for a long row: a block's mask is that of any other block, seen from its place."""
_CALL_PAIRS = {"cpu": 8192}
"""Query-key pairs that take about as long as the overhead of one more call, by kind of device."""
_CALL_PAIRS_ELSEWHERE = 1 << 17
_FEW_TOKENS = 128
"""Tokens that rows behind one prefix may have as one sequence, however short the prefix is."""
_GROUP_KEYS = {"cpu": 2048}
"""Keys of units side by side, which bounds what is copied for them, by kind of device."""
_GROUP_KEYS_ELSEWHERE = 1 << 14
_PREFIX, _PADDING = -1, -2
"""Numbers in the place of a row's: keys that all rows of a unit see, and keys that none sees."""


@dataclass(frozen=True)
class _Unit:
    """Rows behind one prefix, as one sequence."""

    rows: tuple[int, ...]
    prefix: int
    tokens: int


@dataclass(frozen=True)
class _Group:
    """Units of one call, side by side, padded to the largest."""

    units: list[_Unit]
    take: slice | Tensor
    """Where in the batch each query stands, [units * tokens]; padding repeats a unit's last."""
    real: Tensor | None
    """Places in `take` that are not padding, int64; null without padding."""
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    @property
    def prefix(self) -> int:
        return max(unit.prefix for unit in self.units)

    @property
    def tokens(self) -> int:
        return max(unit.tokens for unit in self.units)


class PackedAttention:
    """The attention of one forward's rows.

    Args:
        lengths: new tokens of each row.
        before: the state of the first attention layer; the others' must be shared between rows alike.
        device: of the queries.
        keep: rows whose states are wanted, in this order; null for all.
        consume: whether the state is given up. One token for each row then goes in place, see
            `AttentionState.grown`, as it does where room was asked for.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        before: AttentionState | None,
        *,
        device: torch.device,
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> None:
        self._lengths = list(lengths)
        self._starts: list[int] = row_starts(lengths).tolist()
        self._seen = [0] * len(lengths) if before is None else before.lengths
        self._known_ends = None if before is None else before.ends
        self._device = device
        self._keep = keep
        keeps_all = keep is None or list(keep) == list(range(len(lengths)))
        self._grows = (
            keeps_all and before is not None and max(lengths) == 1 and (consume or before.has_reserved_place)
        )
        self._groups = [] if self._grows else self._plan(None if before is None else before.chains)
        self._bands: dict[tuple[int | None, torch.dtype], Tensor] = {}

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        before: AttentionState | None,
        *,
        scaling: float | None,
        window: int | None,
    ) -> tuple[Tensor, AttentionState]:
        """Attend in one layer.

        Args:
            q: queries end to end [heads, T, head_dim], positions already worked in.
            k: keys [kv_heads, T, head_dim]; heads is a multiple of kv_heads.
            v: values [kv_heads, T, value_dim].
            before: this layer's state, one row for each row; null for rows that begin here.
            scaling: of the products; null for 1 / sqrt(head_dim).
            window: tokens that a token sees, itself among them; null for all.

        Returns:
            The output [T, heads, value_dim] and the kept rows' state.
        """
        if self._grows:
            assert before is not None
            return self._grow(q, k, v, before, scaling, window)
        out = q.new_empty((q.shape[1], q.shape[0], v.shape[2]))
        for group in self._groups:
            effective = self._effective(group, window)
            if len(group.units) == 1 and len(group.units[0].rows) == 1:
                self._one_row(out, q, k, v, before, group.units[0], scaling, effective)
            else:
                self._side_by_side(out, q, k, v, before, group, scaling, effective)
        return out, AttentionState.kept(before, k, v, self._starts, self._keep)

    def _plan(self, chains: Sequence[Chain] | None) -> list[_Group]:
        units: list[_Unit] = []
        families: dict[Chain, list[int]] = {}
        for row, length in enumerate(self._lengths):
            # A row may have memory and nothing in it yet.
            if chains is None or not self._seen[row]:
                units.append(_Unit((row,), 0, length))
            else:
                families.setdefault(chains[row], []).append(row)
        for rows in families.values():
            units += self._split(rows)
        return self._grouped(units)

    def _split(self, rows: Sequence[int]) -> list[_Unit]:
        """Put a prefix's rows into units whose rows' own tokens do not outweigh the prefix."""
        prefix = self._seen[rows[0]]
        units: list[_Unit] = []
        members: list[int] = []
        tokens = 0
        for row in rows:
            if members and tokens + self._lengths[row] > max(prefix // 2, _FEW_TOKENS):
                units.append(_Unit(tuple(members), prefix, tokens))
                members, tokens = [], 0
            members.append(row)
            tokens += self._lengths[row]
        return [*units, _Unit(tuple(members), prefix, tokens)]

    def _grouped(self, units: list[_Unit]) -> list[_Group]:
        """Put units of about the same size side by side where the padding costs less than a call."""
        call_pairs = _CALL_PAIRS.get(self._device.type, _CALL_PAIRS_ELSEWHERE)
        most_keys = _GROUP_KEYS.get(self._device.type, _GROUP_KEYS_ELSEWHERE)
        groups: list[list[_Unit]] = []
        for unit in sorted(units, key=lambda u: (u.prefix > 0, u.tokens, u.prefix)):
            if groups and (groups[-1][0].prefix > 0) == (unit.prefix > 0):
                wider = [*groups[-1], unit]
                cost = _padded_pairs(wider) - _padded_pairs(groups[-1]) - _padded_pairs([unit])
                if cost <= call_pairs and _padded_keys(wider) <= most_keys:
                    groups[-1] = wider
                    continue
            groups.append([unit])
        return [self._group(group) for group in groups]

    def _group(self, units: list[_Unit]) -> _Group:
        take = np.zeros((len(units), max(unit.tokens for unit in units)), np.int64)
        real = np.zeros(take.shape, np.bool_)
        for i, unit in enumerate(units):
            own = np.concatenate([np.arange(self._starts[r], self._starts[r + 1]) for r in unit.rows])
            take[i, : own.size] = own
            take[i, own.size :] = own[-1]
            real[i, : own.size] = True
        flat = take.reshape(-1)
        if (np.diff(flat) == 1).all():
            return _Group(units, slice(int(flat[0]), int(flat[-1]) + 1), None)
        places = None if real.all() else sent(torch.from_numpy(np.flatnonzero(real)), self._device)
        return _Group(units, sent(torch.from_numpy(flat), self._device), places)

    def _effective(self, group: _Group, window: int | None) -> int | None:
        """Return the window, or null when no row of the group is longer than it."""
        longest = max(self._seen[r] + self._lengths[r] for unit in group.units for r in unit.rows)
        return window if window is not None and longest > window else None

    def _one_row(
        self,
        out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        before: AttentionState | None,
        unit: _Unit,
        scaling: float | None,
        window: int | None,
    ) -> None:
        """Attend in one row, without copying its queries."""
        row = unit.rows[0]
        begin, end = self._starts[row], self._starts[row + 1]
        k, v = k[:, begin:end], v[:, begin:end]
        if before is not None and unit.prefix:
            k, v = joined(before.chains[row], k, v)
        if unit.prefix == 0 and window is None:
            y = attend(q[None, :, begin:end], k[None], v[None], None, scaling, causal=unit.tokens > 1)
            out[begin:end] = y[0].transpose(0, 1)
            return
        for start in range(0, unit.tokens, _BLOCK_TOKENS):
            stop = min(start + _BLOCK_TOKENS, unit.tokens)
            first = unit.prefix + start
            low = 0 if window is None else max(0, first + 1 - window)
            keys = slice(low, unit.prefix + stop)
            mask = None
            if stop - start > 1:
                # Column _band_zero of the band is the key at the block's first query.
                shift = self._band_zero - (first - low)
                band = self._band(window, q.dtype)
                mask = band[None, None, : stop - start, shift : shift + keys.stop - low]
            part = q[None, :, begin + start : begin + stop]
            y = attend(part, k[None, :, keys], v[None, :, keys], mask, scaling)
            out[begin + start : begin + stop] = y[0].transpose(0, 1)

    @cached_property
    def _band_zero(self) -> int:
        return max(seen + length for seen, length in zip(self._seen, self._lengths, strict=True))

    def _band(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Return the mask of a block of queries, to be cut from at the block's place in its row."""
        if (window, dtype) not in self._bands:
            queries = torch.arange(min(_BLOCK_TOKENS, max(self._lengths)), device=self._device)[:, None]
            keys = torch.arange(-self._band_zero, queries.shape[0], device=self._device)
            visible = keys <= queries
            if window is not None:
                visible &= keys > queries - window
            self._bands[window, dtype] = additive(visible, dtype)
        return self._bands[window, dtype]

    def _side_by_side(
        self,
        out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        before: AttentionState | None,
        group: _Group,
        scaling: float | None,
        window: int | None,
    ) -> None:
        size = len(group.units)
        q, k, v = (
            t[:, group.take].reshape(t.shape[0], size, group.tokens, t.shape[2]).transpose(0, 1)
            for t in (q, k, v)
        )
        causal = group.prefix == 0 and window is None
        if group.prefix > 0:
            assert before is not None
            chains = [before.chains[unit.rows[0]] for unit in group.units]
            k, v = behind(chains, k, v, group.prefix)
        mask = None if causal else self._mask(group, window, q.dtype)
        y = attend(q, k, v, mask, scaling, causal=causal and group.tokens > 1).transpose(1, 2).flatten(0, 1)
        if group.real is None:
            out[group.take] = y
        else:
            out[group.take[group.real]] = y[group.real]  # type: ignore[index]

    def _mask(self, group: _Group, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if window not in group.masks:
            group.masks[window] = self._new_mask(group, window, dtype)
        return group.masks[window]

    def _new_mask(self, group: _Group, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return which keys [prefix, own tokens] each query sees, [units, 1, tokens, keys]."""
        units = group.units
        if group.tokens == 1 and window is None and all(unit.prefix == group.prefix for unit in units):
            return None
        shape = (len(units), group.prefix + group.tokens)
        rows, positions = np.full(shape, _PADDING), np.zeros(shape, np.int64)
        for i, unit in enumerate(units):
            rows[i, : unit.prefix] = _PREFIX
            positions[i, : unit.prefix] = np.arange(unit.prefix)
            at = group.prefix
            for row in unit.rows:
                length = self._lengths[row]
                rows[i, at : at + length] = row
                positions[i, at : at + length] = np.arange(unit.prefix, unit.prefix + length)
                at += length
        key_rows, key_at = (sent(torch.from_numpy(a), self._device)[:, None] for a in (rows, positions))
        query_rows, query_at = key_rows[..., group.prefix :].mT, key_at[..., group.prefix :].mT
        visible = (key_rows == query_rows) & (key_at <= query_at) | (key_rows == _PREFIX)
        if window is not None:
            visible &= key_at > query_at - window
        # Padding sees padding and nothing is read of it; without a key it would not be a number.
        return additive(visible, dtype)[:, None]

    def _grow(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        before: AttentionState,
        scaling: float | None,
        window: int | None,
    ) -> tuple[Tensor, AttentionState]:
        """Attend with one new token a row, over a block that holds all rows."""
        state = before.grown(k, v, *self._places, self._ends)
        block = state.chains[0][0].block
        keys = max(self._seen) + 1
        mask = self._grown_mask(window, q.dtype)
        y = attend(q.transpose(0, 1)[:, :, None], block.k[:, :, :keys], block.v[:, :, :keys], mask, scaling)
        return y[:, :, 0], state

    @cached_property
    def positions(self) -> Tensor:
        """Where in its row each token stands, int64 [T], on the queries' device."""
        if self._grows:
            return self._places[1]
        parts = [torch.arange(n, n + new) for n, new in zip(self._seen, self._lengths, strict=True)]
        return sent(torch.cat(parts), self._device)

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Return each row's number and where its new token stands, of rows that bring one each."""
        slots = torch.arange(len(self._seen), device=self._device)
        if self._known_ends is not None:
            return slots, self._known_ends
        return slots, sent(torch.tensor(self._seen), self._device)

    @cached_property
    def _ends(self) -> Tensor:
        return self._places[1] + 1

    def _grown_mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        longest = max(self._seen) + 1
        if window is not None and window >= longest:
            window = None
        if window is None and min(self._seen) + 1 == longest:
            return None
        if (window, dtype) not in self._bands:
            keys, ends = torch.arange(longest, device=self._device), self._places[1][:, None]
            visible = keys <= ends
            if window is not None:
                visible &= keys > ends - window
            self._bands[window, dtype] = additive(visible, dtype)[:, None, None]
        return self._bands[window, dtype]


def _padded_pairs(units: Sequence[_Unit]) -> int:
    """Return the query-key pairs of units side by side."""
    return max(unit.tokens for unit in units) * _padded_keys(units)


def _padded_keys(units: Sequence[_Unit]) -> int:
    return len(units) * (max(unit.prefix for unit in units) + max(unit.tokens for unit in units))


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask to be added to scores: zero where a key is seen, minus infinity elsewhere."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, float("-inf"))


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, *, causal: bool = False
) -> Tensor:
    """Attend with queries [n, heads, S, D] to keys [n, kv_heads, N, D]; return [n, heads, S, value_dim]."""
    shared = q.shape[1] != k.shape[1]
    if shared and mask is not None and q.device.type != "cpu":
        # A GPU's fast kernels take either a mask or fewer key heads than query heads.
        return _attend_masked(q, k, v, mask, scaling)
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scaling, is_causal=causal, enable_gqa=shared
    )


def _attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Attend as `attend` does, giving the kernel as many key heads as query heads."""
    times = q.shape[1] // k.shape[1]
    if q.shape[2] == 1:
        # One query a head: the heads that share keys can stand in the queries' place.
        q = q.reshape(q.shape[0], k.shape[1], times, q.shape[3])
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling).flatten(1, 2)[:, :, None]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
