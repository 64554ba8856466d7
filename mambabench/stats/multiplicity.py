"""Corrections for many tests at once.

>>> adjusted([0.01, None, 0.04], "holm")
[0.02, None, 0.04]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Correction = Literal["holm", "bh", "none"]

_STATSMODELS = {"holm": "holm", "bh": "fdr_bh"}


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
    known = [p for p in p_values if p is not None]
    for p in known:
        if math.isnan(p) or not 0 <= p <= 1:
            raise ValueError(f"{p} is not a p-value")
    if correction != "none" and correction not in _STATSMODELS:
        raise ValueError(f"{correction} is none of holm, bh and none")
    # One test needs no correction, and statsmodels takes over a second to import.
    if correction != "none" and len(known) > 1:
        from statsmodels.stats.multitest import multipletests

        known = [float(p) for p in multipletests(known, method=_STATSMODELS[correction])[1]]
    left = iter(known)
    return [None if p is None else next(left) for p in p_values]
