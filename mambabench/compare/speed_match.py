"""Which points of two sides are held against each other: equal sizes, run as alike as the sides allow.

pairs = matched_ways(measured_candidate, measured_baseline)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mambabench.compare.speed_result import Place, Way
from mambabench.medians import by_replicate, tpot_s, ttft_s
from mambabench.schema import SpeedSettingsRecord
from mambabench.speed_schema import Arm, Attention, ReplicateRecord

Measured = Mapping[Way, Mapping[Place, Sequence[ReplicateRecord]]]
"""One side's processes."""
_BEST_ARM_FIRST: Final[tuple[Arm, ...]] = ("graph", "eager", "shipped", "sampled")
_BEST_ATTENTION_FIRST: Final[tuple[Attention, ...]] = ("none", "flash", "sdpa", "eager")
_LEVELS: Final = (
    ("arm", "attention", "dtype", "device"),
    ("arm", "dtype", "device"),
    ("dtype", "device"),
    ("arm", "attention"),
    (),
)
"""What ways must have in common, from all to nothing; the first level at which two sides meet is taken."""


def measured(records: Iterable[ReplicateRecord], settings: SpeedSettingsRecord) -> Measured:
    """Sort one side's processes by way and place."""
    found: dict[Way, dict[Place, list[ReplicateRecord]]] = {}
    for record in records:
        point = record.point
        place = Place(
            batch_size=point.batch_size,
            prompt_len_tokens=point.prompt_len_tokens,
            gen_len_tokens=point.gen_len_tokens,
            prefill_chunk_tokens=point.prefill_chunk_tokens or 0,
            turn_len_tokens=settings.turn_len_tokens or 0,
            n_forks=settings.n_forks or 0,
        )
        found.setdefault(Way.of(point), {}).setdefault(place, []).append(record)
    return found


def matched_ways(candidate: Measured, baseline: Measured) -> list[tuple[Way, Way]]:
    """Return pairs of ways, the candidate's first, that are compared wherever both have a place.

    Equal ways where both sides have such; else ways of one arm, dtype and device in each side's best
    attention; else the best ways of one dtype and device; else one arm and attention in each side's best
    dtype and device; else the best of all. Empty where no place is common to any of these.
    """
    for level in _LEVELS:
        pairs = []
        theirs = _grouped(baseline, level)
        for key, ways in _grouped(candidate, level).items():
            if key in theirs:
                pair = _best(candidate, ways), _best(baseline, theirs[key])
                if candidate[pair[0]].keys() & baseline[pair[1]].keys():
                    pairs.append(pair)
        if pairs:
            return pairs
    return []


def _grouped(side: Measured, level: Sequence[str]) -> dict[tuple[str, ...], list[Way]]:
    found: dict[tuple[str, ...], list[Way]] = {}
    for way in side:
        found.setdefault(tuple(getattr(way, name) for name in level), []).append(way)
    return found


def _best(side: Measured, ways: Sequence[Way]) -> Way:
    """Return the fastest way where all were timed at some place, else the one best by name."""
    if len(ways) == 1:
        return ways[0]
    taken = _taken(side, ways)
    return min(
        ways,
        key=lambda way: (
            way.arm == "sampled",
            taken.get(way, 0.0),
            _BEST_ARM_FIRST.index(way.arm),
            _BEST_ATTENTION_FIRST.index(way.attention),
        ),
    )


def _taken(side: Measured, ways: Sequence[Way]) -> dict[Way, float]:
    """Return the sum of the logarithms of each way's times over the places that all have."""
    for figure in (tpot_s, ttft_s):
        times = {
            way: {
                place: list(values.values())
                for place, records in side[way].items()
                if (values := by_replicate([r for r in records if r.status == "ok"], figure))
            }
            for way in ways
        }
        if common := set.intersection(*(set(found) for found in times.values())):
            return {
                way: sum(math.log(statistics.geometric_mean(found[place])) for place in common)
                for way, found in times.items()
            }
    return {}
