"""Rows of the frame `quality_cost` as lines of panels: what is drawn where, and what cannot be.

A line is a model in one way of measuring; its points are the lengths. Settings that differ in the prompt's
length alone are one way of measuring.

>>> way_of("batch 1, prompt of 512 tokens, 64 generated, float32, cpu", 512)
'batch 1, 64 generated, float32, cpu'
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mambabench.plots.speed.scales import Unit, spans_decades
from mambabench.plots.speed.series import few

if TYPE_CHECKING:
    import pandas as pd

MOST_WAYS: Final = 3
_MOST_FRONTS: Final = 3
_COUNT: Final = r"\d(?:[\d,]*\d)?k?"
_PROMPT: Final = re.compile(
    rf"\bprompts?(?: of)? {_COUNT}(?: tokens)?|\b{_COUNT}(?:[ -]tokens?)? prompts?(?: tokens)?\b"
)


@dataclass(frozen=True)
class Cost:
    """What a quality is held against."""

    column: str
    """Of the frame `speed`."""
    title: str
    words: str
    """Label of its axis."""
    unit: Unit


COSTS: Final = (
    Cost("tpot_s", "Time of a token", "each later token", "s"),
    Cost("ttft_s", "Time to first token", "first token after the prompt", "s"),
    Cost("peak_bytes", "Memory", "peak memory", "bytes"),
    Cost("gross_j_per_token", "Energy", "energy of a token", "J"),
)


@dataclass(frozen=True)
class Point:
    """A model's quality and cost at one length."""

    label: str
    length_tokens: int
    quality: tuple[float, float, float]
    """Low end, value, high end, in percent; ends are NaN where undetermined."""
    cost: tuple[float, float, float]
    """Low end, value, high end."""
    setting: str
    way: str
    front: bool | None
    """Whether no other model gives as much for less; None where that is not known."""

    @property
    def drawn(self) -> bool:
        """Whether it has a place in the drawing."""
        return math.isfinite(self.quality[1]) and math.isfinite(self.cost[1]) and self.cost[1] > 0


@dataclass(frozen=True)
class Panel:
    """All points of one cost, measured in one way."""

    cost: Cost
    way: str
    points: tuple[Point, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Models in the frame's order."""
        return tuple(dict.fromkeys(p.label for p in self.points))

    @property
    def log(self) -> bool:
        """Whether costs lie more than a decade apart."""
        return spans_decades([p.cost[1] for p in self.points])

    @property
    def ends(self) -> list[float]:
        """Costs and the ends of their intervals."""
        return [v for p in self.points for v in p.cost if math.isfinite(v)]

    def line(self, label: str) -> list[Point]:
        """Return a model's points by length."""
        return sorted((p for p in self.points if p.label == label), key=lambda p: p.length_tokens)

    def fronts(self) -> list[list[Point]]:
        """Return those points of a setting that no other model's beats, by cost, a list a length.

        Settings with one model have no front. Of many lengths: the shortest, one between and the longest.
        """
        by_setting: dict[tuple[int, str], list[Point]] = {}
        for point in self.points:
            by_setting.setdefault((point.length_tokens, point.setting), []).append(point)
        compared = {k: mine for k, mine in by_setting.items() if len({p.label for p in mine}) > 1}
        shown = few([length for length, _ in compared], _MOST_FRONTS)
        found = (
            sorted((p for p in mine if p.front), key=lambda p: (p.cost[1], p.quality[1]))
            for (length, _), mine in sorted(compared.items())
            if length in shown
        )
        return [front for front in found if front]


def points_of(frame: pd.DataFrame, cost: Cost) -> list[Point]:
    """Return the rows of a cost, with those that have no place in the drawing."""
    rows = frame[frame["cost"] == cost.column]
    columns = ("label", "length_tokens", "quality_low_percent", "quality_percent", "quality_high_percent",
               "cost_low", "cost_value", "cost_high", "setting", "on_front")  # fmt: skip
    found = []
    for label, length, *numbers, setting, front in zip(*(rows[c].tolist() for c in columns), strict=True):
        quality, spent = tuple(numbers[:3]), tuple(numbers[3:])
        known = isinstance(front, bool)
        way = way_of(setting or "", length)
        found.append(Point(label, length, quality, spent, setting or "", way, front if known else None))
    return found


def panels_of(frame: pd.DataFrame) -> tuple[list[Panel], list[str]]:
    """Lay out the rows of one quality.

    Returns:
        Panels by way of measuring, then by cost; of many ways those of most models. And the ways left out.
    """
    by_cost = {cost: [p for p in points_of(frame, cost) if p.drawn] for cost in COSTS}
    models: dict[str, set[str]] = {}
    sizes: dict[str, int] = {}
    for point in (p for points in by_cost.values() for p in points):
        models.setdefault(point.way, set()).add(point.label)
        sizes[point.way] = sizes.get(point.way, 0) + 1
    ranked = sorted(models, key=lambda way: (-len(models[way]), -sizes[way]))
    shown = [way for way in models if way in ranked[:MOST_WAYS]]
    panels = [
        Panel(cost, way, mine)
        for way in shown
        for cost, points in by_cost.items()
        if (mine := tuple(p for p in points if p.way == way))
    ]
    return panels, ranked[MOST_WAYS:]


def undrawn(frame: pd.DataFrame) -> Iterator[str]:
    """Say of each model and cost at which lengths there is nothing to draw."""
    for cost in COSTS:
        points = points_of(frame, cost)
        drawn = {(p.label, p.length_tokens) for p in points if p.drawn}
        lengths: Sequence[int] = sorted({length for _, length in drawn})
        for label in dict.fromkeys(frame["label"]) if lengths else ():
            missing = [length for length in lengths if (label, length) not in drawn]
            if missing:
                where = (
                    ""
                    if len(missing) == len(lengths)
                    else f" at {', '.join(f'{n:,}' for n in missing)} tokens"
                )
                yield f"{label}: no {cost.title.lower()}{where}, so not drawn there."


def way_of(setting: str, length_tokens: int) -> str:
    """Return a setting without its prompt's length: what all points of a line share."""
    found, n = _PROMPT.subn("", setting, count=1)
    if not n:
        written = rf"(?<![\d,]){length_tokens:,}(?![\d,])|(?<!\d){length_tokens}(?!\d)"
        found = re.sub(written, "", setting, count=1)
    return ", ".join(part for part in (" ".join(p.split()) for p in re.split(r"[,;·]\s+", found)) if part)
