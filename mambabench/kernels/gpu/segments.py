"""Which rows of a forward are computed together by a kernel that takes a padded batch; pure arithmetic.

Rows of about the same length go into one call, so that padding stays small; a call holds so many tokens at
most, and a row with more is cut through time, its pieces one after another, each on from the one before.

    >>> import numpy as np
    >>> starts = np.array([0, 1000, 1010, 1900])
    >>> [(c.rows.tolist(), c.lengths.tolist()) for c in calls(starts, [0, 2], most_tokens=4096)]
    [([0, 2], [1000, 890])]
    >>> [(c.begins.tolist(), c.lengths.tolist()) for c in calls(starts, [0], most_tokens=600)]
    [([0], [600]), ([600], [400])]

What is computed together depends on the lengths alone, so that the same requests give the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

MOST_PADDING = 0.25
"""Largest share of a call's tokens that padding adds to them."""


@dataclass(frozen=True, eq=False)
class Call:
    """Rows, or pieces of one, that are computed together."""

    rows: Int64s
    begins: Int64s
    """The first token of each among all tokens."""
    lengths: Int64s
    is_first: bool = True
    """Whether its rows begin here: else they go on from the call before."""
    is_last: bool = True
    """Whether its rows end here: else the next call goes on."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())

    @property
    def is_block(self) -> bool:
        """Whether the rows are of one length and lie one behind the other."""
        is_one_length = bool((self.lengths == self.longest).all())
        return is_one_length and bool((np.diff(self.begins) == self.longest).all())


def calls(
    starts: Int64s,
    rows: Sequence[int],
    *,
    most_tokens: int,
    ahead: int = 0,
    most_padding: float = MOST_PADDING,
) -> list[Call]:
    """Return the calls that compute some rows, in the order in which they are to be made.

    Args:
        starts: where each row begins, and T, [B + 1].
        rows: to be computed; none may be empty.
        most_tokens: of a call, padding and `ahead` included.
        ahead: tokens that the kernel is given before each row; fewer than `most_tokens`.
        most_padding: largest share of a call's tokens that padding adds to them.
    """
    lengths = np.diff(starts)
    most = most_tokens - ahead
    if most < 1:
        raise ValueError(f"a call of {most_tokens} tokens has no room behind {ahead} of them")
    found: list[Call] = []
    together: list[int] = []
    total = 0
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        if lengths[row] > most:
            found += _pieces(row, int(starts[row]), int(lengths[row]), most)
            continue
        widest = lengths[together[0] if together else row]
        total += int(lengths[row])
        padded = widest * (len(together) + 1)
        is_room = padded + ahead * (len(together) + 1) <= most_tokens
        if together and not (is_room and padded <= (1 + most_padding) * total):
            found.append(_whole(starts, lengths, together))
            together, total = [], int(lengths[row])
        together.append(row)
    return [*found, _whole(starts, lengths, together)] if together else found


def _whole(starts: Int64s, lengths: Int64s, rows: list[int]) -> Call:
    # In the order in which they lie in memory.
    at = np.array(sorted(rows), np.int64)
    return Call(at, starts[at], lengths[at])


def _pieces(row: int, begin: int, length: int, most: int) -> Iterator[Call]:
    for first in range(0, length, most):
        size = min(most, length - first)
        at, begins, lengths = (np.array([value], np.int64) for value in (row, begin + first, size))
        yield Call(at, begins, lengths, is_first=first == 0, is_last=first + size == length)
