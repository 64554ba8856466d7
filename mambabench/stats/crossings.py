"""Where two measured curves cross, with what several replicates say about it.

Curves over lengths are taken as straight between neighbouring lengths where both axes are logarithmic, and
nothing is claimed outside the lengths that were measured. A replicate gives both curves, measured near each
other in time, and so its own crossings; the replicates are the sample.

>>> crossing_points([1, 4], [1.0, 4.0], [2.0, 2.0])
[2.0]
>>> both = compare_curves({0: {1: 1.0, 4: 4.0}}, {0: {1: 2.0, 4: 2.0}})
>>> both.outcome, both.at[0].value, both.starts_below
('crosses', 2.0, True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mambabench.stats.replicates import Estimate, centre

Outcome = Literal["crosses", "above", "below", "not distinguishable"]
Curves = Mapping[int, Mapping[float, float]]
"""By the number of the replicate, the figure (above 0) at each length (above 0)."""


@dataclass(frozen=True)
class Crossings:
    """How one curve lies to another within the measured lengths."""

    outcome: Outcome
    """"above" and "below": the first is so at every length in every replicate. "not distinguishable": some
    replicates cross and others do not, or not in the same way."""
    at: tuple[Estimate, ...]
    """Lengths of the crossings in rising order; empty unless the curves cross."""
    starts_below: bool
    """Whether the first curve is below the other before the first crossing; means nothing for others."""
    n: int
    """Replicates that both curves were compared in."""
    n_crossing: int
    """Replicates in which they cross at all."""
    first: float
    """The shortest length of the comparison."""
    last: float
    """The longest one."""


def crossing_points(x: Sequence[float], a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return where two curves cross, in rising order.

    Args:
        x: [n], lengths above 0, rising.
        a: [n], one curve, above 0.
        b: [n], the other one.

    Returns:
        Lengths inside the range; curves that only touch do not cross, and where they are equal for a
        while the middle of it counts.
    """
    return _crossings(x, _gaps(a, b))[0]


def compare_curves(a: Curves, b: Curves) -> Crossings | None:
    """Return whether and where one curve crosses another, over replicates.

    A replicate compares what both sides measured in it. Where some replicates have fewer lengths than others,
    those lengths and replicates are compared that use most points together; `n` counts the replicates.

    Returns:
        None where no replicate has two lengths of both.
    """
    common = {number: a[number].keys() & b[number].keys() for number in a.keys() & b.keys()}
    candidates = [lengths for lengths in common.values() if len(lengths) > 1]
    if not candidates:
        return None
    chosen = max(candidates, key=lambda s: (len(s) * sum(s <= c for c in common.values()), len(s)))
    x = sorted(chosen)
    found, starts = [], []
    for number in sorted(n for n, lengths in common.items() if chosen <= lengths):
        gaps = _gaps([a[number][length] for length in x], [b[number][length] for length in x])
        points, start = _crossings(x, gaps)
        found.append(points)
        starts.append(start)
    outcome, at = _together(found, starts)
    return Crossings(
        outcome=outcome,
        at=at,
        starts_below=starts[0] < 0,
        n=len(found),
        n_crossing=sum(bool(points) for points in found),
        first=x[0],
        last=x[-1],
    )


def _together(
    found: Sequence[Sequence[float]], starts: Sequence[int]
) -> tuple[Outcome, tuple[Estimate, ...]]:
    counts = {len(points) for points in found}
    if len(set(starts)) > 1 or starts[0] == 0:
        return "not distinguishable", ()
    if counts == {0}:
        return ("below" if starts[0] < 0 else "above"), ()
    if len(counts) == 1:
        return "crosses", tuple(centre(points) for points in zip(*found, strict=True))
    if all(count % 2 for count in counts):
        # Noise where the curves are close makes three crossings of one: it lies in their midst.
        return "crosses", (centre([points[len(points) // 2] for points in found]),)
    return "not distinguishable", ()


def _gaps(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [math.log(above / below) for above, below in zip(a, b, strict=True)]


def _crossings(x: Sequence[float], gaps: Sequence[float]) -> tuple[list[float], int]:
    """Return the crossings, and the sign of the first gap that is not 0 (0 where there is none)."""
    logs = [math.log(length) for length in x]
    known = [i for i, gap in enumerate(gaps) if gap != 0]
    points = []
    for i, j in pairwise(known):
        if (gaps[i] > 0) == (gaps[j] > 0):
            continue
        if j > i + 1:
            at = (logs[i + 1] + logs[j - 1]) / 2
        else:
            at = logs[i] + (logs[j] - logs[i]) * gaps[i] / (gaps[i] - gaps[j])
        points.append(min(x[j], max(x[i], math.exp(at))))
    sign = 0 if not known else (1 if gaps[known[0]] > 0 else -1)
    return points, sign
