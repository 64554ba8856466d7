"""What curves over training steps say in sentences: the best step, how sure that is, and what came after.

for sentence in words(curves):
    print(sentence)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mambabench.tables.compare.format import interval, p_words, signed, value
from mambabench.tables.speed.format import listed, plural

if TYPE_CHECKING:
    from mambabench.compare.curves_result import Curve, Curves

_MOST_NAMED: Final = 4
_PERCENT: Final = 100.0


def words(curves: Curves) -> list[str]:
    """Return what is said of each series: its first curve in full, then where the last step is past the best,
    then what all of it rests on."""
    said = []
    for series in curves.series:
        mine = [c for c in curves.curves if c.series == series]
        if mine:
            said += curve_words(mine[0], curves)
            late = [c for c in mine[1:] if c.headline and _is_past_best(c)]
            said += [_also_past_best(late)] if late else []
    return [*said, *caveats(curves)]


def curve_words(curve: Curve, curves: Curves) -> list[str]:
    """Return what one curve says: best step, change from first to last, other candidates, luck."""
    best, first, last = curve.best, curve.points[0], curve.points[-1]
    said = [
        f"{name(curve)}: best at step {best.step:,} with {value(best.value, curve.unit)}, after "
        f"{value(first.value, curve.unit)} at step {first.step:,} and before "
        f"{value(last.value, curve.unit)} at step {last.step:,}."
        if first.step < best.step < last.step
        else f"{name(curve)}: {value(first.value, curve.unit)} at step {first.step:,}, "
        f"{value(last.value, curve.unit)} at step {last.step:,}, {_which(curve)}."
    ]
    if curve.change is not None:
        change = curve.change
        ends = interval(change.low, change.high, curve.effect_unit)
        shown = _with_unit(signed(change.difference, curve.effect_unit), curve.effect_unit)
        said.append(
            f"From the first step to the last: {shown}" + (f" (95% {ends})" if ends else "")
            + f", {p_words(change.p_value)}."
        )  # fmt: skip
    said += [one for one in (_contenders(curve, curves), _past_best(curve), _luck(curve)) if one]
    return said


def caveats(curves: Curves) -> list[str]:
    """Return what limits all of it."""
    if not curves.curves:
        return []
    sure = f"{_PERCENT * (1 - curves.alpha):g}%"
    said = [
        f"May be the best: not shown to be worse than the observed best; in each column the truly best step "
        f"is among these with {sure} confidence, however many steps were looked at."
    ]
    if any(c.best.luck is not None and c.paired for c in curves.curves):
        said.append(
            "Luck: by how much the step picked for being the best looks better than on items that it was not "
            f"picked by, from {curves.replicates:,} resamples of the items."
        )
    if any(c.best.luck is not None and not c.paired for c in curves.curves):
        said.append(
            "Luck at most: without items, what the luckiest of equally good steps would gain on average if "
            "their errors were independent; on shared items it is less."
        )
    return said


def name(curve: Curve) -> str:
    """Return series, task and metric."""
    return f"{curve.series}, {_what(curve)}" if curve.series else _what(curve)


def _what(curve: Curve) -> str:
    return curve.label if curve.label == curve.metric else f"{curve.label} {curve.metric}"


def luck_text(curve: Curve) -> str:
    """Return how much of the best value is luck; empty where that is unknown."""
    luck = curve.best.luck
    if luck is None:
        return ""
    text = _with_unit(signed(max(0.0, luck), curve.effect_unit).lstrip("+"), curve.effect_unit)
    return text if curve.paired else f"at most {text}"


def contenders_text(curve: Curve) -> str:
    """Return how many steps may be the best, and from which one on."""
    best = curve.best
    if not best.contenders:
        return ""
    if len(best.contenders) == 1:
        return "it alone"
    return f"{len(best.contenders)} of {len(curve.points)}, from {best.contenders[0]:,}"


def _which(curve: Curve) -> str:
    best = curve.best
    if len(best.ties) == len(curve.points):
        return "the same at every step"
    if best.step == curve.points[-1].step:
        return "which is the best"
    if best.step == curve.points[0].step:
        return "best at the first"
    return f"best at step {best.step:,}"


def _contenders(curve: Curve, curves: Curves) -> str:
    best = curve.best
    if not best.contenders:
        return "Whether another step may be the best could not be tested."
    others = [step for step in best.contenders if step != best.step]
    if not others:
        return f"Each other step is worse, at {_PERCENT * curves.alpha:g}% in all."
    first = best.contenders[0]
    if len(others) == len(curve.points) - 1:
        return "No step is shown to be worse than the best: all may be."
    count = plural(len(others), "other step")
    if len(others) <= _MOST_NAMED:
        count += f" ({listed([f'{step:,}' for step in others])})"
    verb = "may be the best as well"
    since = f"; after step {first:,} no gain over it is shown" if first < best.step else ""
    return f"{count} {verb}{since}."


def _is_past_best(curve: Curve) -> bool:
    return curve.points[-1].contender is False


def _past_best(curve: Curve) -> str:
    """Say so where the last step is worse than the best by more than noise."""
    if not _is_past_best(curve):
        return ""
    return (
        f"The last step is past the best: step {curve.points[-1].step:,} is worse than step "
        f"{curve.best.step:,} by more than noise."
    )


def _also_past_best(curves: Sequence[Curve]) -> str:
    """Say of which tasks the last step is worse than the best one."""
    each = [
        f"{_what(c)} ({value(c.points[-1].value, c.unit)} against {value(c.best.value, c.unit)} at step "
        f"{c.best.step:,})"
        for c in curves[:_MOST_NAMED]
    ]
    if len(curves) > _MOST_NAMED:
        each.append(f"{len(curves) - _MOST_NAMED} more")
    where = f"{curves[0].series} at" if curves[0].series else "At"
    return f"{where} the last step is worse than its best by more than noise in {listed(each)}."


def _luck(curve: Curve) -> str:
    best = curve.best
    if best.luck is None or best.expected is None:
        return ""
    k = plural(len(curve.points), "step")
    if curve.paired:
        share = curve.at(best.step).share_best
        often = "" if share is None else f"; it is the best in {share:.0%} of resamples"
        return (
            f"Picked as the best of {k}, it is worth {value(best.expected, curve.unit)} on other items: "
            f"{luck_text(curve)} of luck{often}."
        )
    return f"Of its value {luck_text(curve)} is the luck of having been picked from {k}."


def _with_unit(text: str, unit: str) -> str:
    if not unit:
        return text
    return f"{text}%" if unit == "%" else f"{text} {'points' if unit == 'pt' else unit}"


def shown_steps(curve_steps: Sequence[int], wanted: Sequence[int], most: int) -> list[int]:
    """Return at most so many steps to show, in order: the ends, the wanted ones, and others evenly between.

    >>> shown_steps(range(0, 100, 10), [30], 5)
    [0, 30, 40, 70, 90]
    """
    steps = list(curve_steps)
    if len(steps) <= most:
        return steps
    kept = dict.fromkeys([steps[0], steps[-1], *(s for s in wanted if s in steps)])
    kept = dict.fromkeys(list(kept)[:most])
    while len(kept) < most:
        places = sorted(steps.index(step) for step in kept)
        # The middle of the widest gap.
        gap, low = max((b - a, -a) for a, b in itertools.pairwise(places))
        kept[steps[-low + gap // 2]] = None
    return sorted(kept)
