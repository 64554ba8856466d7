"""What attention remembers of each row: its tokens' keys and values, shared by rows that share a prefix.

A row is a chain of pieces of memory. `select` copies nothing, and children of a prefix all point to its
pieces, so that a context with four continuations is in memory once.

    state = AttentionState.kept(None, k, v, [0, 70], keep=[0])     # k, v [heads, 70, head_dim]
    fork = state.select([0, 0, 0, 0])                              # four rows, still one copy
    AttentionState.kept(fork, k2, v2, [0, 5, 9, 12, 20])           # each with an end of its own

Who may write where: tokens that are written never change, so a state is a value however often it is shared.
`grown` appends to a row's memory only where nothing stands yet: when the row ends where its memory ends.
The first of two rows over the same memory to append takes the place; the other finds it taken and is given
a copy. A row sees as many tokens as its own length says, never what another appended behind them.

Who knows how long rows will become asks for the room before they begin: `reserve`. They are then written into
one block at once, and no step has to move them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mambabench.models.stateful import TensorChange

_LONGEST_CHAIN = 32
"""Pieces of a row, above which it is copied together, so that many small steps stay linear."""
_SPARE_TOKENS = 32


@dataclass(frozen=True, eq=False)
class Block:
    """Memory for the tokens of one or more rows; two blocks are equal only when they are the same."""

    k: Tensor
    """[slots, kv_heads, capacity, head_dim]"""
    v: Tensor
    """[slots, kv_heads, capacity, value_dim]"""
    filled: list[int]
    """Tokens written in each slot; they never change again."""


class Piece(NamedTuple):
    """The first tokens of one slot of a block."""

    block: Block
    slot: int
    length: int

    @property
    def k(self) -> Tensor:
        """Keys [kv_heads, length, head_dim]."""
        return self.block.k[self.slot, :, : self.length]

    @property
    def v(self) -> Tensor:
        """Values [kv_heads, length, value_dim]."""
        return self.block.v[self.slot, :, : self.length]


Chain = tuple[Piece, ...]


@dataclass(frozen=True)
class AttentionState:
    """One attention layer's keys and values of several rows."""

    kind: ClassVar[str] = "attention"

    chains: tuple[Chain, ...]
    """The pieces of each row, whose tokens follow one another; none for a row that has seen nothing."""
    ends: Tensor | None = field(default=None, compare=False, repr=False)
    """`lengths` where the keys are, int64 [rows], after a step that had them there: the next one need not
    send them, which on a GPU would be to wait for it."""
    room: int = field(default=0, compare=False)
    """Tokens that each row is to have room for; 0 when nobody asked."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.chains)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [sum(piece.length for piece in chain) for chain in self.chains]

    @classmethod
    def kept(
        cls,
        before: AttentionState | None,
        k: Tensor,
        v: Tensor,
        starts: Sequence[int],
        keep: Sequence[int] | None = None,
    ) -> AttentionState:
        """Return the state after new tokens; of those, only the kept rows' are copied.

        Args:
            before: one row for each row of new tokens; null for rows that begin here.
            k: new keys of all rows end to end [kv_heads, T, head_dim].
            v: new values [kv_heads, T, value_dim].
            starts: where each row begins, and T.
            keep: rows whose states are wanted, in this order; null for all.
        """
        n_rows = len(starts) - 1
        if before is not None and before.room and (keep is None or list(keep) == list(range(n_rows))):
            written = before._written(k, v, starts)
            if written is not None:
                return written
        merged: dict[Chain, Chain] = {}
        ends: dict[int, Chain] = {}
        for row in dict.fromkeys(range(n_rows) if keep is None else keep):
            chain = () if before is None else before.chains[row]
            if len(chain) >= _LONGEST_CHAIN:
                # Rows that shared the chain share its copy.
                if chain not in merged:
                    merged[chain] = (_piece(*joined(chain)),)
                chain = merged[chain]
            part = slice(int(starts[row]), int(starts[row + 1]))
            ends[row] = (*chain, _piece(k[:, part], v[:, part], copy=True))
        rows = tuple(ends[row] for row in (ends if keep is None else keep))
        return cls(rows, room=0 if before is None else before.room)

    def grown(
        self, k: Tensor, v: Tensor, slots: Tensor, positions: Tensor, ends: Tensor | None = None
    ) -> AttentionState:
        """Return the state after one more token of each row, with all rows in one block.

        The token is written in place when this state's rows are the block's, in order, and there is room.
        Otherwise the rows are copied once into a block with the room that was asked for, or for about an
        eighth more tokens than the longest has, which also ends the sharing of prefixes.

        Args:
            k: the new keys, one a row [kv_heads, rows, head_dim].
            v: the new values [kv_heads, rows, value_dim].
            slots: the numbers of the rows, int64 [rows].
            positions: the rows' lengths before, int64 [rows].
            ends: their lengths after, int64 [rows], to be kept for the next step.
        """
        lengths = self.lengths
        longer = [length + 1 for length in lengths]
        block = self._own_block(longer) or _gathered(self.chains, longer, k, v, self.room)
        block.k[slots, :, positions] = k.transpose(0, 1)
        block.v[slots, :, positions] = v.transpose(0, 1)
        return self._filled(block, longer, ends)

    def reserve(self, tokens: int) -> AttentionState:
        """Return rows that will take memory for so many tokens each as soon as they take any."""
        return AttentionState(self.chains, self.ends, tokens)

    def emptied(self) -> AttentionState:
        """Return rows that have seen nothing, which are written where this state's rows stand.

        This state must not be used after it.

        Raises:
            ValueError: the rows are not one block's, in order.
        """
        block = self.block
        if block is None:
            raise ValueError("only rows that lie in memory of their own can be written again")
        block.filled[:] = [0] * self.rows
        chains = tuple((Piece(block, row, 0),) for row in range(self.rows))
        return AttentionState(chains, room=block.k.shape[2])

    def reclaim(self) -> None:
        """Take back the room behind the rows; whatever was appended there must not be used again."""
        block = self.block
        if block is not None:
            block.filled[:] = self.lengths

    @property
    def has_reserved_place(self) -> bool:
        """Whether one more token of each row finds room that was asked for, untaken."""
        return self.room > 0 and self._own_block([length + 1 for length in self.lengths]) is not None

    def _written(self, k: Tensor, v: Tensor, starts: Sequence[int]) -> AttentionState | None:
        """Return the state after `kept`'s tokens in the room that was asked for; null if there is none."""
        lengths = self.lengths
        ends = [n + stop - start for n, (start, stop) in zip(lengths, pairwise(starts), strict=True)]
        if max(ends) > self.room:
            return None
        block = self._own_block(ends)
        if block is None:
            if any(self.chains):
                return None
            block = _gathered(self.chains, ends, k, v, self.room)
        for row, (start, stop) in enumerate(pairwise(starts)):
            block.k[row, :, lengths[row] : ends[row]] = k[:, start:stop]
            block.v[row, :, lengths[row] : ends[row]] = v[:, start:stop]
        return self._filled(block, ends, None)

    def _filled(self, block: Block, lengths: list[int], ends: Tensor | None) -> AttentionState:
        """Return the state of rows that have been appended to, as the block's."""
        block.filled[:] = lengths
        chains = tuple((Piece(block, row, length),) for row, length in enumerate(lengths))
        return AttentionState(chains, ends, self.room)

    def _own_block(self, ends: Sequence[int]) -> Block | None:
        """Return the block in which all rows can be continued in place up to their ends, if there is one."""
        block = self.block
        if block is None or block.filled != self.lengths or max(ends) > block.k.shape[2]:
            return None
        return block

    @property
    def block(self) -> Block | None:
        """The block that consists of the rows, in order, if there is one."""
        if not self.chains or not self.chains[0]:
            return None
        block = self.chains[0][0].block
        if len(block.filled) != len(self.chains):
            return None
        for row, chain in enumerate(self.chains):
            if len(chain) != 1 or chain[0].block is not block or chain[0].slot != row:
                return None
        return block

    def select(self, rows: Sequence[int]) -> AttentionState:
        """Return the given rows; they share their memory with this state's."""
        return AttentionState(tuple(self.chains[row] for row in rows))

    @classmethod
    def concat(cls, parts: Sequence[AttentionState]) -> AttentionState:
        """Return the rows of several states after one another, without copying them."""
        return cls(tuple(chain for part in parts for chain in part.chains))

    @classmethod
    def gather(cls, picks: Sequence[tuple[AttentionState, int]]) -> AttentionState:
        """Return one row for each (state, row), without copying them."""
        return cls(tuple(state.chains[row] for state, row in picks))

    def map(self, change: TensorChange) -> AttentionState:
        """Return the state with every tensor changed; rows that shared memory share the changed one."""
        changed = {
            (piece.block, piece.slot): _piece(change(piece.k), change(piece.v)).block
            for piece in self._longest_pieces()
        }
        return AttentionState(
            tuple(
                tuple(Piece(changed[piece.block, piece.slot], 0, piece.length) for piece in chain)
                for chain in self.chains
            )
        )

    def storages(self) -> dict[int, int]:
        """Return the bytes of written keys and values by their address; spare room is not counted."""
        return {
            tensor.data_ptr(): tensor.numel() * tensor.element_size()
            for piece in self._longest_pieces()
            for tensor in (piece.k, piece.v)
        }

    def allocations(self) -> dict[int, int]:
        """Return the bytes of the memory that holds keys and values by its address, spare room included."""
        storages = [t.untyped_storage() for p in self._longest_pieces() for t in (p.block.k, p.block.v)]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state for the disk, what rows share only once.

        Returns:
            "k" and "v", all pieces end to end [kv_heads, tokens, dim], if there are any; "pieces" int64
            [n, 2], the first token and the length in them of every row's pieces; "rows" int64 [rows], how
            many each row has.
        """
        longest = self._longest_pieces()
        starts: dict[tuple[Block, int], int] = {}
        total = 0
        for piece in longest:
            starts[piece.block, piece.slot] = total
            total += piece.length
        table = [(starts[p.block, p.slot], p.length) for chain in self.chains for p in chain]
        named = {
            "pieces": torch.tensor(table, dtype=torch.int64).view(-1, 2),
            "rows": torch.tensor([len(chain) for chain in self.chains], dtype=torch.int64),
        }
        if longest:
            named["k"] = torch.cat([piece.k for piece in longest], 1)
            named["v"] = torch.cat([piece.v for piece in longest], 1)
        return named

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> AttentionState:
        """Build the state from what `tensors` returned."""
        table: list[tuple[int, int]] = [(start, length) for start, length in tensors["pieces"].tolist()]
        longest: dict[int, int] = {}
        for start, length in table:
            longest[start] = max(length, longest.get(start, 0))
        blocks = {
            start: _piece(*(tensors[n][:, start : start + length] for n in "kv"), copy=True).block
            for start, length in longest.items()
        }
        pieces = iter([Piece(blocks[start], 0, length) for start, length in table])
        return cls(tuple(tuple(next(pieces) for _ in range(n)) for n in tensors["rows"].tolist()))

    def _longest_pieces(self) -> list[Piece]:
        """Return one piece for each slot that rows point to, as long as the longest of them."""
        found: dict[tuple[Block, int], int] = {}
        for block, slot, length in dict.fromkeys(piece for chain in self.chains for piece in chain):
            found[block, slot] = max(length, found.get((block, slot), 0))
        return [Piece(block, slot, length) for (block, slot), length in found.items()]


def joined(chain: Chain, k: Tensor | None = None, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return a chain's keys and values [kv_heads, n, dim], with further ones behind them if given."""
    keys = [piece.k for piece in chain] + ([] if k is None else [k])
    values = [piece.v for piece in chain] + ([] if v is None else [v])
    if len(keys) == 1:
        return keys[0], values[0]
    return torch.cat(keys, 1), torch.cat(values, 1)


def behind(chains: Sequence[Chain], k: Tensor, v: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Put keys and values [n_chains, kv_heads, n, dim] behind those of chains, padded to `prefix`."""
    # Zeros: a masked key's value is multiplied by a weight of zero, and must be a number.
    keys = k.new_zeros((k.shape[0], k.shape[1], prefix + k.shape[2], k.shape[3]))
    values = v.new_zeros((v.shape[0], v.shape[1], prefix + v.shape[2], v.shape[3]))
    keys[:, :, prefix:], values[:, :, prefix:] = k, v
    for i, chain in enumerate(chains):
        start = 0
        for piece in chain:
            keys[i, :, start : start + piece.length] = piece.k
            values[i, :, start : start + piece.length] = piece.v
            start += piece.length
    return keys, values


def _piece(k: Tensor, v: Tensor, *, copy: bool = False) -> Piece:
    if copy:
        # A view would keep the whole batch's tensor in memory.
        k, v = (t.clone(memory_format=torch.contiguous_format) for t in (k, v))
    return Piece(Block(k[None], v[None], [k.shape[1]]), 0, k.shape[1])


def _gathered(chains: Sequence[Chain], ends: Sequence[int], k: Tensor, v: Tensor, room: int) -> Block:
    """Copy the rows into one new block for tensors such as k and v [kv_heads, n, dim].

    Args:
        chains: the rows as they are.
        ends: their lengths after what the caller writes next.
        k: a tensor of the keys' kind.
        v: a tensor of the values' kind.
        room: tokens that were asked for; less than the ends if none were, or too few.
    """
    longest = max(ends)
    capacity = room if room >= longest else longest + max(_SPARE_TOKENS, longest // 8)
    k = k.new_empty((len(chains), k.shape[0], capacity, k.shape[2]))
    v = v.new_empty((len(chains), v.shape[0], capacity, v.shape[2]))
    for block in (k, v):
        # Zeros: what stands behind a shorter row is multiplied by a weight of zero, and must be a number.
        block[:, :, min(ends) :] = 0
    for row, chain in enumerate(chains):
        start = 0
        for piece in chain:
            k[row, :, start : start + piece.length] = piece.k
            v[row, :, start : start + piece.length] = piece.v
            start += piece.length
    return Block(k, v, [sum(piece.length for piece in chain) for chain in chains])
