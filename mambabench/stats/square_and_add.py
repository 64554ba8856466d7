"""The interval of a mean from the intervals of its independent parts.

>>> mean_ends([(0.5, 0.4, 0.6), (0.7, 0.6, 0.8)])[0] < 0.6 < mean_ends([(0.5, 0.4, 0.6), (0.7, 0.6, 0.8)])[1]
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_ends(parts: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the ends of the interval of a mean in which each part counts alike.

    Distances from value to end add in squares, lower ones and upper ones apart, so that the result is as
    lopsided as its parts: G. Y. Zou and A. Donner (2008), "Construction of confidence limits about effect
    measures: a general approach", Statistics in Medicine 27, 1693-1702. It has the confidence of the parts.

    Args:
        parts: value, lower end and upper end of each; independent of each other.

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("expected at least one part")
    n = len(parts)
    mean = math.fsum(value for value, _, _ in parts) / n
    below = math.sqrt(math.fsum((value - low) ** 2 for value, low, _ in parts)) / n
    above = math.sqrt(math.fsum((high - value) ** 2 for value, _, high in parts)) / n
    return mean - below, mean + above
