"""Where depth matters: recall by thirds of the context that holds answers, where two of them differ.

That context is a haystack, or the pairs of associative recall, or a string that is to be copied.

for found in uneven(table):
    print(found.words)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mambabench.stats.intervals import wilson_bounds
from mambabench.tables.speed.format import percent

if TYPE_CHECKING:
    from mambabench.long_schema import RecallRecord
    from mambabench.tables.longcontext.table import LongTable

_THIRDS = ("first", "middle", "last")


@dataclass(frozen=True)
class Third:
    """A third of the context that holds answers."""

    name: str
    accuracy: float
    n: float
    """Questions; where a sample has several, so many samples' worth."""


@dataclass(frozen=True)
class Uneven:
    """A model, task and length at which recall depends on depth."""

    model: str
    task: str
    length_tokens: int
    worst: Third
    best: Third

    @property
    def words(self) -> str:
        """The same as a sentence."""
        return (
            f"{self.model}, {self.task} at {self.length_tokens:,} tokens: "
            f"{percent(self.worst.accuracy)} in the {self.worst.name} third of the context that holds "
            f"answers, {percent(self.best.accuracy)} in the {self.best.name}."
        )


def thirds(record: RecallRecord) -> tuple[Third, ...]:
    """Return recall by thirds; empty where the depths of a record do not reach into all of them."""
    if record.status != "ok" or not record.n_questions:
        return ()
    weight = record.n_samples / record.n_questions
    found = []
    for i, name in enumerate(_THIRDS):
        parts = [d for d in record.depths if int(3 * (d.depth_low + d.depth_high) / 2) == i]
        n = sum(d.n_questions for d in parts)
        if n:
            right = math.fsum(d.accuracy * d.n_questions for d in parts)
            found.append(Third(name, right / n, n * weight))
    return tuple(found) if len(found) == len(_THIRDS) else ()


def uneven(table: LongTable) -> list[Uneven]:
    """Return for each model and task the length where depth matters most, if the intervals say that it does.

    The worst third and the best one are apart where their Wilson intervals are, at a level that is divided
    by the number of all comparisons of the table.
    """
    from scipy.special import ndtri

    cells = [
        (row, task, by_depth)
        for row in table.rows
        for task, record in row.recall.items()
        if (by_depth := thirds(record))
    ]
    found: dict[tuple[str, str], Uneven] = {}
    for row, task, by_depth in cells:
        z = float(-ndtri(0.025 / (len(cells) * len(_THIRDS))))
        worst = min(by_depth, key=lambda third: third.accuracy)
        best = max(by_depth, key=lambda third: third.accuracy)
        if _ends(worst, z)[1] >= _ends(best, z)[0]:
            continue
        key, one = (row.model, task), Uneven(row.model, task, row.length_tokens, worst, best)
        if key not in found or _gap(one) > _gap(found[key]):
            found[key] = one
    return sorted(found.values(), key=_gap, reverse=True)


def _gap(found: Uneven) -> float:
    return found.best.accuracy - found.worst.accuracy


def _ends(third: Third, z: float) -> tuple[float, float]:
    return wilson_bounds(third.accuracy * third.n, third.n, z)
