"""Corrections for many tests at once: a dozen lines, as statsmodels takes over a second to import.

>>> adjusted([0.01, None, 0.04], "holm")
[0.02, None, 0.04]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Literal

Correction = Literal["holm", "bh", "none"]


def adjusted(p_values: Sequence[float | None], correction: Correction) -> list[float | None]:
    """Return p-values such that those below alpha keep the rate of errors over all tests at alpha.

    "holm" bounds the probability of any false finding, however the tests depend on each other (S. Holm, 1979,
    Scandinavian Journal of Statistics 6, 65-70). "bh" bounds the expected share of false ones among the
    findings of independent or positively dependent tests (Y. Benjamini and Y. Hochberg, 1995, JRSS B 57,
    289-300).

    Args:
        p_values: [n]; None for what was not tested, which stays None and does not count.
        correction: "holm", "bh", or "none".

    Raises:
        ValueError: a p-value that does not lie between 0 and 1, or another correction.
    """
    if correction not in _CORRECTIONS:
        raise ValueError(f"{correction} is none of holm, bh and none")
    known = [p for p in p_values if p is not None]
    for p in known:
        if math.isnan(p) or not 0 <= p <= 1:
            raise ValueError(f"{p} is not a p-value")
    found = iter(_CORRECTIONS[correction](known))
    return [None if p is None else next(found) for p in p_values]


def _holm(p_values: Sequence[float]) -> list[float]:
    rising, n = _rising(p_values), len(p_values)
    # Never smaller than what a smaller p-value has become.
    raised = accumulate(((n - rank) * p_values[i] for rank, i in enumerate(rising)), max)
    return _placed(rising, raised)


def _benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    falling, n = _rising(p_values)[::-1], len(p_values)
    # Never larger than what a larger p-value has become.
    raised = accumulate((n / (n - rank) * p_values[i] for rank, i in enumerate(falling)), min)
    return _placed(falling, raised)


def _rising(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda i: p_values[i])


def _placed(order: Sequence[int], values: Iterable[float]) -> list[float]:
    """Return values in the order that they were given in, at most 1."""
    by_index = dict(zip(order, values, strict=True))
    return [min(1.0, by_index[i]) for i in range(len(order))]


_CORRECTIONS: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "holm": _holm,
    "bh": _benjamini_hochberg,
    "none": list,
}
