"""Where items flipped: by subject, by the length of the right answer, by the length of what was asked.

These are for looking. Nobody asked about the categories beforehand, there are many, and they overlap: among
twenty intervals of 95% one leaves out the truth by chance alone. So nothing is tested and there is no
verdict. Items are taken as independent within a category.

    category_changes(task, ["tuned"])["tuned"][0].difference
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mambabench.compare.result import CategoryChange
from mambabench.compare.texts import answer_lengths_bytes
from mambabench.stats.paired_binary import binary_effect

if TYPE_CHECKING:
    from mambabench.compare.items import AlignedTask, Integers
    from mambabench.stats.effect import Effect

MOST_CATEGORIES: Final = 60
"""Of a kind; smaller subjects are put together beyond it."""
_MOST_BINS: Final = 5
_ITEMS_PER_BIN: Final = 20
_READABLE: Final = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)


def category_changes(task: AlignedTask, candidates: Sequence[str]) -> dict[str, tuple[CategoryChange, ...]]:
    """Return what changed in each category, by candidate; nothing unless each item is right or wrong.

    Args:
        task: aligned items; the first side is the baseline, the others are the candidates in order.
        candidates: labels.

    Raises:
        StoreError: samples are missing or damaged.
    """
    if task.accuracy is None or not task.n:
        return dict.fromkeys(candidates, ())
    binary = [side.measures[task.accuracy].values for side in task.sides]
    found: dict[str, tuple[CategoryChange, ...]] = {}
    kinds = categories_of(task)
    for label, values in zip(candidates, binary[1:], strict=True):
        changes = []
        for by, (names, which) in kinds.items():
            for number, name in enumerate(names):
                before, after = binary[0][which == number], values[which == number]
                n, n_right = len(before), int(before.sum())
                won, lost = (
                    int(((after == 1) & (before == 0)).sum()),
                    int(((after == 0) & (before == 1)).sum()),
                )
                effect = _effect(won, lost, n)
                changes.append(
                    CategoryChange(
                        candidate=label,
                        task=task.task,
                        by=by,
                        category=name,
                        n=n,
                        n_won=won,
                        n_lost=lost,
                        baseline_value=100 * n_right / n,
                        candidate_value=100 * (n_right + won - lost) / n,
                        difference=100 * (won - lost) / n,
                        low=100 * effect.low,
                        high=100 * effect.high,
                    )
                )
        found[label] = tuple(changes)
    return found


def categories_of(task: AlignedTask) -> dict[str, tuple[tuple[str, ...], Integers]]:
    """Return names of the categories of each kind, and which of them each item belongs to, [n].

    A kind that does not part the items is left out.

    Raises:
        StoreError: samples are missing or damaged.
    """
    kinds: dict[str, tuple[tuple[str, ...], Integers]] = {}
    if len(task.members) > 1:
        kinds["subject"] = _subjects(task)
    answers = answer_lengths_bytes(task)
    if answers is not None:
        kinds["answer length"] = length_bins(answers)
    kinds["context length"] = length_bins(task.context_lengths_bytes)
    return {by: found for by, found in kinds.items() if len(found[0]) > 1}


def length_bins(lengths_bytes: Integers) -> tuple[tuple[str, ...], Integers]:
    """Return readable ranges of lengths with about equally many items, and the range of each, [n].

    Bounds are quantiles rounded to one or two digits; there are at most five ranges, fewer for few items.
    """
    import numpy as np

    n_bins = min(_MOST_BINS, max(1, len(lengths_bytes) // _ITEMS_PER_BIN))
    quantiles = np.quantile(lengths_bytes, np.arange(1, n_bins) / n_bins)
    bounds = np.array(sorted({_readable(float(value)) for value in quantiles}), np.int64)
    which = np.searchsorted(bounds, lengths_bytes, side="left")
    kept, places = np.unique(which, return_inverse=True)
    # A range without items is taken into the one above it.
    names: list[str] = []
    below: int | None = None
    for number in kept[:-1]:
        upper = int(bounds[number])
        names.append(_range(below, upper))
        below = upper
    names.append("all" if below is None else f"over {below:,} bytes")
    return tuple(names), np.asarray(places.ravel(), np.int64)


def _range(below: int | None, upper: int) -> str:
    if below is None:
        return f"up to {upper:,} bytes"
    return f"{upper:,} bytes" if below + 1 == upper else f"{below + 1:,} to {upper:,} bytes"


def _readable(value: float) -> int:
    """Return the nearest whole number of one or two digits and zeros."""
    if value < 10:
        return round(value)
    unit = 10.0 ** math.floor(math.log10(value))
    return round(unit * min(_READABLE, key=lambda digits: abs(digits * unit - value)))


def _subjects(task: AlignedTask) -> tuple[tuple[str, ...], Integers]:
    """Return members with items, the smallest put together where there are too many."""
    import numpy as np

    sizes = np.bincount(task.member_of, minlength=len(task.members))
    present = [int(i) for i in np.flatnonzero(sizes)]
    alone = present
    if len(present) > MOST_CATEGORIES:
        alone = sorted(sorted(present, key=lambda i: (-sizes[i], i))[: MOST_CATEGORIES - 1])
    names = [_short(task, task.members[i]) for i in alone]
    numbers = np.full(len(task.members), len(alone), np.int64)
    numbers[alone] = np.arange(len(alone))
    if len(alone) < len(present):
        names.append(f"{len(present) - len(alone)} smaller ones")
    return tuple(names), np.asarray(numbers[task.member_of], np.int64)


def _short(task: AlignedTask, member: str) -> str:
    """Return a member's name without the group's before it."""
    return member.removeprefix(f"{task.task}_") or member


@functools.lru_cache(maxsize=4096)
def _effect(won: int, lost: int, n: int) -> Effect:
    # Small categories repeat the same counts, and their exact intervals take tens of milliseconds.
    alike = n - won - lost
    return binary_effect([1] * won + [0] * (lost + alike), [0] * won + [1] * lost + [0] * alike)
