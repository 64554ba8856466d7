"""How many documents the comparison of engines takes, and what its times say. Standard library only.

>>> passes = {"lm-eval": [{"wall_s": 6.0, "units": []}], "ours": [{"wall_s": 2.0, "units": []}]}
>>> ratios(passes, (), {"lm-eval": 4.0, "ours": 3.0})["together"]["times_as_fast"]
3.0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

DOCUMENTS = (20_000, 10_000, 5000, 3000, 2000, 1000, 500, 300, 200, 100, 50, 20)
"""Of each task, as many of these as the time allows."""
REFERENCE_DOCUMENTS, FEWEST_REFERENCE_DOCUMENTS = 100, 10
"""Of each task, that float32 answers."""
FLOAT32_TIMES = 12
"""A document in float32, without matrix units, and twice in the given type, costs so many times one pass."""


def documents_that_fit(asked: int | None, there: int, seconds: float, once_s: Callable[[int], float]) -> int:
    """Return how many documents of each task both sides answer twice within the time.

    Args:
        asked: most that are wanted; null for no limit.
        there: documents of the largest task.
        seconds: for both sides, twice, with ours once more task by task.
        once_s: of one pass of both sides, by documents of each task.

    >>> documents_that_fit(None, 10_042, 100.0, lambda n: n * 0.02)
    1000
    """
    if asked is not None:
        return min(asked, there)
    candidates = sorted({min(n, there) for n in DOCUMENTS}, reverse=True)
    # What ours is asked again, task by task, costs less than lm-eval's pass.
    return next((n for n in candidates if 3 * once_s(n) <= seconds), candidates[-1])


def reference_documents(seconds: float, once_s: float) -> int:
    """Return how many documents of each task float32 answers within the time.

    Args:
        seconds: for both sides once more and for float32, loading apart.
        once_s: of lm-eval for one document of each task.

    >>> [reference_documents(seconds, 0.05) for seconds in (600.0, 30.0, -5.0)]
    [100, 50, 10]
    """
    fit = int(seconds / (FLOAT32_TIMES * once_s))
    return max(FEWEST_REFERENCE_DOCUMENTS, min(REFERENCE_DOCUMENTS, fit))


def ratios(
    passes: Mapping[str, Sequence[Any]], units: Sequence[Sequence[str]], load_s: Mapping[str, float]
) -> dict[str, Any]:
    """Return how many times as long lm-eval takes as ours: together, with loading, and unit by unit.

    Together is the sum of lm-eval's passes, each with its best batch size, over one run of ours.
    """
    theirs, ours = passes["lm-eval"], passes["ours"]

    def of(values: Sequence[Sequence[float]]) -> dict[str, Any]:
        a, b = values
        return {
            "times_as_fast": median(a) / median(b),
            "range": [min(a) / max(b), max(a) / min(b)],
            "lm_eval_s": list(a),
            "ours_s": list(b),
        }

    whole = [[p["wall_s"] for p in side] for side in (theirs, ours)]
    return {
        "together": of(whole),
        "with_loading": of(
            [[load_s["lm-eval"] + s for s in whole[0]], [load_s["ours"] + s for s in whole[1]]]
        ),
        "by_unit": {
            "+".join(unit): of([[p["units"][i]["wall_s"] for p in side] for side in (theirs, ours)])
            for i, unit in enumerate(units)
        },
    }
