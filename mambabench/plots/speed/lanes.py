"""What stands in lanes above a panel: where training lengths end, and points that failed, with the word.

A lane is one line of text high, outside the frame, so that nothing covers data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mambabench.plots import shortened
from mambabench.plots.palette import MUTED
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.scales import spans_decades, tokens_text
from mambabench.plots.speed.series import Panel, Plan, Series, at
from mambabench.plots.speed.sheet import above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.tables.speed.table import SpeedRow

FAILED_WORDS = {
    "oom": "oom",
    "illegal_access": "illegal access",
    "timeout": "timeout",
    "killed": "killed",
    "unsupported": "unsupported",
    "skipped_after_oom": "skipped",
    "failed": "failed",
}
_LETTER_INCHES = 0.07
_FIRST_POINTS, _LANE_POINTS = 7.0, 11.0
_BESIDE_MARK_INCHES = 0.1


@dataclass(frozen=True)
class TrainingMark:
    """The end of a training length."""

    length_tokens: int
    models: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class FailureLane:
    """The failures of a line, with what is said of them."""

    series: Series
    text: str
    side: Literal["left", "right", "above"]
    """Of the marks; above them the text has a lane of its own."""

    @property
    def rows(self) -> list[SpeedRow]:
        """Those that failed."""
        return [r for r in self.series.rows if has_failed(r)]


Lane = tuple[TrainingMark, ...] | FailureLane


def has_failed(row: SpeedRow) -> bool:
    """Say whether some process of a point came to a bad end."""
    return row.status in FAILED_WORDS


def failure_words(rows: Sequence[SpeedRow]) -> str:
    """Return the words of the failures among rows, each once.

    In the order of the rows, so that "oom, skipped" reads as it happened.
    """
    return ", ".join(dict.fromkeys(FAILED_WORDS[r.status] for r in rows if has_failed(r)))


def lanes(plan: Plan, panel: Panel, width_inches: float) -> list[Lane]:
    """Return the lanes of a panel from the frame upwards."""
    found: list[Lane] = []
    if plan.x == "prompt_len_tokens":
        found += _training_lanes(plan, panel, width_inches)
    failed = [s for s in panel.series if any(map(has_failed, s.rows))]
    return found + [_failure_lane(plan, panel, s, width_inches) for s in failed]


def n_lanes(found: Sequence[Lane]) -> int:
    """Return how many lines of text high some lanes are."""
    return sum(1 + (isinstance(lane, FailureLane) and lane.side == "above") for lane in found)


def draw_lanes(axes: Axes, found: Sequence[Lane], plan: Plan, looks: Looks) -> None:
    """Draw the lanes, and a thin line down from each training length."""
    for place, lane in enumerate(found):
        y_points = _FIRST_POINTS + n_lanes(found[:place]) * _LANE_POINTS
        if isinstance(lane, FailureLane):
            _draw_failures(axes, lane, y_points, plan, looks)
        else:
            for mark in lane:
                _draw_training(axes, mark, y_points, plan, looks)


def lanes_points(found: Sequence[Lane]) -> float:
    """Return the height of some lanes."""
    return _FIRST_POINTS + n_lanes(found) * _LANE_POINTS if found else 0.0


def _training_lanes(plan: Plan, panel: Panel, width_inches: float) -> list[Lane]:
    lengths: dict[int, list[str]] = {}
    for row in (r for s in panel.series for r in s.rows):
        if row.training_length_tokens is not None:
            models = lengths.setdefault(row.training_length_tokens, [])
            models += [row.point.model] if row.point.model not in models else []
    all_models = {s.model for s in panel.series}
    found: list[list[TrainingMark]] = []
    ends_inches: list[float] = []
    for length in sorted(n for n in lengths if plan.xs[0] <= n <= plan.xs[-1]):
        models = lengths[length]
        names = ", ".join(map(shortened, models)) if len(models) < 3 else f"{len(models)} models"
        of = "" if set(models) == all_models else f" ({names})"
        mark = TrainingMark(length, tuple(models), f"trained on {tokens_text(length)}{of}")
        half = len(mark.text) * _LETTER_INCHES / 2
        middle = min(max(place_of(length, plan.xs) * width_inches, half), width_inches - half)
        lane = next((i for i, end in enumerate(ends_inches) if end + 0.1 < middle - half), len(found))
        if lane == len(found):
            found.append([])
            ends_inches.append(0.0)
        found[lane].append(mark)
        ends_inches[lane] = middle + half
    return [tuple(lane) for lane in found]


def _draw_training(axes: Axes, mark: TrainingMark, y_points: float, plan: Plan, looks: Looks) -> None:
    place = place_of(mark.length_tokens, plan.xs)
    one = mark.models[0] if len(mark.models) == 1 else None
    colour = looks.colour(one) if one else MUTED
    axes.axvline(mark.length_tokens, color=colour, linewidth=0.8, alpha=0.7, zorder=1.5, label="_training")
    # Long texts at an end of the axis would leave the panel if they were centred.
    side = "left" if place < 0.25 else "right" if place > 0.75 else "center"
    axes.text(
        mark.length_tokens, 1.0, mark.text, transform=above(axes, y_points), fontsize=7.5, ha=side,
        va="center_baseline", color=looks.text_colour(one) if one else MUTED,
    )  # fmt: skip


def _failure_lane(plan: Plan, panel: Panel, series: Series, width_inches: float) -> FailureLane:
    """Place the words beside the marks, with the line's name where there is room."""
    failed = [r for r in series.rows if has_failed(r)]
    words = failure_words(failed)
    one_model = len({s.model for s in panel.series}) == 1
    name = series.variant if one_model else series.label
    named = f"{name}: {words}" if name else words
    first, last = (place_of(at(r, plan.x), plan.xs) * width_inches for r in (failed[0], failed[-1]))
    for text in (named, words):
        length = len(text) * _LETTER_INCHES + 2 * _BESIDE_MARK_INCHES
        if length <= first:
            return FailureLane(series, text, "left")
        if length <= width_inches - last:
            return FailureLane(series, text, "right")
    return FailureLane(series, named, "above")


def _draw_failures(axes: Axes, lane: FailureLane, y_points: float, plan: Plan, looks: Looks) -> None:
    from matplotlib.lines import Line2D

    xs = [at(r, plan.x) for r in lane.rows]
    colour = looks.colour(lane.series.model)
    where = above(axes, y_points)
    marks = Line2D(
        xs, [1.0] * len(xs), color=colour, linestyle="none", marker="x", markersize=4.5, markeredgewidth=1.5,
        clip_on=False, transform=where, label="_failed",
    )  # fmt: skip
    axes.add_artist(marks)
    edge, offset, ha = {
        "left": (xs[0], (-72 * _BESIDE_MARK_INCHES, 0.0), "right"),
        "right": (xs[-1], (72 * _BESIDE_MARK_INCHES, 0.0), "left"),
        "above": (xs[0], (0.0, _LANE_POINTS), "left"),
    }[lane.side]
    axes.annotate(
        lane.text, (edge, 1.0), xycoords=where, xytext=offset, textcoords="offset points",
        color=looks.text_colour(lane.series.model), fontsize=7.5, ha=ha, va="center_baseline",
        annotation_clip=False,
    )  # fmt: skip


def place_of(x: float, xs: Sequence[int]) -> float:
    """Return where between the ends of the axis a value is: 0 to 1."""
    low, high = xs[0], xs[-1]
    if low == high:
        return 0.5
    if spans_decades(xs):
        return math.log(x / low) / math.log(high / low)
    return (x - low) / (high - low)
