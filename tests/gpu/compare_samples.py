"""Compare what two runs stored, item by item: the same model on two devices must give the same answers.

>>> a = [{"doc_id": 0, "filter": "none", "resps": [[[-1.5, True]]], "metrics": ["acc"], "acc": 1.0}]
>>> compare(a, a).n_numbers
1
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

ABSOLUTE_NATS = 1e-3
RELATIVE = 1e-6


@dataclass
class Comparison:
    """How far two lists of samples of one task lie apart."""

    n_samples: int = 0
    n_numbers: int = 0
    """Log-probabilities compared."""
    largest_difference_nats: float = 0.0
    n_beyond_tolerance: int = 0
    """Differences above 1e-3 + 1e-6 |log-probability|."""
    n_other_answers: int = 0
    """Greedy flags or generated texts that differ."""
    documents_with_other_metrics: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether every log-probability lies within the tolerance and nothing else is amiss.

        Greedy flags and metrics may differ where two answers lie closer together than the tolerance, so
        they are counted, not judged.
        """
        return not self.problems and self.n_beyond_tolerance == 0 and self.n_samples > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return {**asdict(self), "agrees": self.agrees}


def compare(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare two lists of lm-eval's sample dictionaries, matched by document and filter."""
    found = Comparison()
    mine, other = _by_key(ours), _by_key(theirs)
    if mine.keys() != other.keys():
        found.problems.append(f"{len(mine.keys() ^ other.keys())} samples are in one list only")
    for key in sorted(mine.keys() & other.keys()):
        found.n_samples += 1
        first, second = mine[key], other[key]
        answers = list(_leaves(first.get("resps"))), list(_leaves(second.get("resps")))
        if len(answers[0]) != len(answers[1]):
            found.problems.append(f"document {key[0]}: {len(answers[0])} and {len(answers[1])} answers")
            continue
        for a, b in zip(*answers, strict=True):
            _compare_leaf(a, b, found)
        if any(not _same(first.get(name), second.get(name)) for name in first.get("metrics", ())):
            found.documents_with_other_metrics.append(key[0])
    return found


def _by_key(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], Mapping[str, Any]]:
    return {(sample["doc_id"], sample["filter"]): sample for sample in samples}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _compare_leaf(a: Any, b: Any, found: Comparison) -> None:
    if isinstance(a, float) and isinstance(b, float):
        found.n_numbers += 1
        difference = 0.0 if a == b else abs(a - b)
        if not difference <= ABSOLUTE_NATS + RELATIVE * abs(b):
            found.n_beyond_tolerance += 1
        found.largest_difference_nats = max(
            found.largest_difference_nats, math.inf if math.isnan(difference) else difference
        )
    elif a != b:
        found.n_other_answers += 1


def _same(a: Any, b: Any) -> bool:
    numbers = [list(_leaves(a)), list(_leaves(b))]
    if len(numbers[0]) != len(numbers[1]):
        return False
    return all(
        abs(x - y) <= ABSOLUTE_NATS + RELATIVE * abs(y)
        if isinstance(x, float) and isinstance(y, float)
        else x == y
        for x, y in zip(*numbers, strict=True)
    )
