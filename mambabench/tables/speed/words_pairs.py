"""Sentences on two ways of running compared: who is faster, where that changes, and what a gap is made of.

Ratios are of times, paired by replicate. Below six processes they have a range, and no verdict is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

from mambabench.medians import Figure, by_replicate, tpot_s, ttft_s
from mambabench.speed_schema import Arm, ReplicateRecord
from mambabench.stats.crossings import Crossings, compare_curves
from mambabench.stats.replicates import Estimate, paired_ratio, verdict
from mambabench.tables.speed.contenders import Contender, Field, Setting
from mambabench.tables.speed.format import listed, plural, times, with_interval

FIGURES: tuple[tuple[str, Figure], ...] = (("Time to first token", ttft_s), ("Time per token", tpot_s))

_Curve = dict[int, dict[float, float]]
_Pair = tuple[_Curve, _Curve]

_CHAIN: tuple[Arm, ...] = ("shipped", "eager", "graph")
_STEPS = {
    ("shipped", "eager"): "kernel path",
    ("eager", "graph"): "CUDA graph, where launch overhead shows",
    ("shipped", "graph"): "kernel path and CUDA graph together, where launch overhead shows",
}
_AXES = {"prompt_len_tokens": ("prompts of {} tokens", " tokens"), "batch_size": ("batches of {}", "")}
"""What is varied: how its range is said, and the unit of a crossing."""


@dataclass(frozen=True)
class _Split:
    """A gap between two models as a product."""

    setting: Setting
    arm: Arm
    """In which the gap is."""
    whole: Estimate
    parts: list[tuple[str, float]]


def crossing_words(field: Field) -> list[str]:
    """Say for each pair where its curves over prompt length or batch size cross, or that they do not."""
    said = []
    for a, b in field.pairs():
        for axis, (places, unit) in _AXES.items():
            for name, figure in FIGURES:
                for fixed, curves in _ends(_curves(field, a, b, axis, figure)):
                    found = compare_curves(*curves)
                    if found is not None:
                        where = field.at(fixed, without=axis)
                        head = f"{name}{', ' + where if where else ''}"
                        measured = places.format(f"{found.first:,.0f} to {found.last:,.0f}")
                        words = _crossing(measured, unit, found, field.name(a), field.name(b))
                        said.append(f"{head}: {words}{field.apart(a, b)}.")
    return said


def pair_words(field: Field) -> list[str]:
    """Say for each pair of models how many times the one's time the other takes, over all settings."""
    return [
        f"{name}: {_summary(field, ratios, field.name(a), field.name(b))}{field.apart(a, b)}."
        for a, b in field.pairs()
        for name, figure in FIGURES
        if (ratios := field.ratios(a, b, figure))
    ]


def arm_words(field: Field) -> list[str]:
    """Say what other arms and other attention cost, each against the eager arm of the same model."""
    said = []
    for other in field.contenders:
        base = _base(field, other)
        if base is None:
            continue
        # These arms differ in the steps after the first id.
        figures = FIGURES[1:] if other.arm in ("sampled", "graph") else FIGURES
        for name, figure in figures:
            ratios = field.ratios(other, base, figure)
            if ratios:
                summary = _summary(field, ratios, *_sides(other, base))
                said.append(f"{name} of {other.model}: {summary}{field.apart(other, base)}.")
    return said


def gap_words(field: Field) -> list[str]:
    """Split the gap between two models into factors that multiply to it, as far as arms were measured."""
    arms = {contender.arm for contender in field.contenders}
    on_gpu = any(s.device != "cpu" for c in field.contenders for s in field.cells(c))
    lacking = [arm for arm in _CHAIN if arm not in arms and (arm != "graph" or on_gpu)]
    pairs = field.pairs()
    said = [sentence for a, b in pairs if (sentence := _gap(field, a, b, lacking))]
    if not said and lacking and any(field.ratios(a, b, tpot_s) for a, b in pairs):
        return [
            f"Gaps between models are not split into their causes: that takes {_options(lacking)} as well."
        ]
    return said


def _ends(curves: Mapping[Setting, _Pair]) -> list[tuple[Setting, _Pair]]:
    """Return the first and the last of many curves: a sentence for each would not be read."""
    ordered = sorted(curves.items(), key=lambda item: item[0])
    return ordered if len(ordered) <= 2 else [ordered[0], ordered[-1]]


def _curves(field: Field, a: Contender, b: Contender, axis: str, figure: Figure) -> dict[Setting, _Pair]:
    """Return both curves over an axis for each combination of the others, which stands at its first value."""
    found: dict[tuple[object, ...], tuple[Setting, _Curve, _Curve]] = {}
    for side, contender in ((1, a), (2, b)):
        for setting in field.cells(contender):
            key = tuple(getattr(setting, f.name) for f in fields(setting) if f.name != axis)
            entry = found.setdefault(key, (setting, {}, {}))
            curves = entry[1] if side == 1 else entry[2]
            for replicate, value in field.figures(contender, setting, figure).items():
                curves.setdefault(replicate, {})[float(getattr(setting, axis))] = value
    return {first: (above, below) for first, above, below in found.values()}


def _crossing(measured: str, unit: str, found: Crossings, a: str, b: str) -> str:
    if found.outcome in ("above", "below"):
        faster, slower = (a, b) if found.outcome == "below" else (b, a)
        in_all = f"in each of {found.n} processes" if found.n > 1 else "in one process"
        return f"{faster} is faster than {slower} for all {measured}, {in_all}; they do not cross there"
    if found.outcome == "crosses":
        turns = [with_interval(e, lambda at: f"{at:,.0f}", unit) for e in found.at]
        first, then = (a, b) if found.starts_below else (b, a)
        names = [first if i % 2 == 0 else then for i in range(len(turns) + 1)]
        parts = [f"{names[0]} is faster up to {turns[0]}"]
        parts += [f"{name} from there to {turn}" for name, turn in zip(names[1:], turns[1:], strict=False)]
        return f"{', '.join(parts)}, {names[-1]} beyond ({measured} measured)"
    return (
        f"whether {a} and {b} cross is not distinguishable for {measured}: they do in "
        f"{found.n_crossing} of {plural(found.n, 'process', 'processes')}"
    )


def _summary(field: Field, ratios: Mapping[Setting, Estimate], a: str, b: str) -> str:
    """Say one ratio in full, or the smallest and the largest of several with a count of verdicts."""
    if len(ratios) == 1:
        ((setting, ratio),) = ratios.items()
        judged = f", {_verdict(ratio)}" if ratio.method == "t on log" else ""
        return f"{a} takes {with_interval(ratio, times)} times {b}'s at {field.at(setting)}{judged}"
    at_least, least = min(ratios.items(), key=lambda item: item[1].value)
    at_most, most = max(ratios.items(), key=lambda item: item[1].value)
    return (
        f"{a} takes from {with_interval(least, times)} times {b}'s at {field.at(at_least)} "
        f"to {with_interval(most, times)} times at {field.at(at_most)}; {_counts(list(ratios.values()))}"
    )


def _counts(ratios: list[Estimate]) -> str:
    kinds = [_verdict(r) for r in ratios if r.method == "t on log"]
    if not kinds:
        return f"{plural(len(ratios), 'point')}, and no verdict below 6 processes"
    order = ("less", "more", "no difference", "not distinguishable")
    counts = [f"{kind} at {kinds.count(kind)}" for kind in order if kind in kinds]
    if len(kinds) < len(ratios):
        counts.append(f"no verdict at {len(ratios) - len(kinds)}")
    return f"of {plural(len(ratios), 'point')}, {listed(counts)}"


def _verdict(ratio: Estimate) -> str:
    found = verdict(ratio)
    if found != "difference":
        return found
    return "less" if ratio.value < 1 else "more"


def _base(field: Field, other: Contender) -> Contender | None:
    """Return what a contender is held against: its model's eager arm, and there its best attention."""
    if other.arm != "eager":
        same = Contender(other.model, "eager", other.attention)
        return same if same in field.contenders else None
    best = field.best(other.model, "eager")
    return best if best != other else None


def _sides(other: Contender, base: Contender) -> tuple[str, str]:
    if other.arm == base.arm:
        return f"{other.attention} attention", f"{base.attention} attention"
    what = {"sampled": "drawing ids", "shipped": "the model's own library", "graph": "a CUDA graph"}[
        other.arm
    ]
    against = "greedy decoding" if other.arm == "sampled" else "the eager arm"
    suffix = "" if other.attention in ("none", "sdpa") else f", {other.attention} attention"
    return f"{what} ({other.arm} arm{suffix})", against


def _gap(field: Field, a: Contender, b: Contender, lacking: list[Arm]) -> str:
    """Return the sentence on one pair at the setting where most can be split off, the longest of these."""
    sides = {arm: (field.best(a.model, arm), field.best(b.model, arm)) for arm in _CHAIN}
    cells = {
        arm: (field.cells(one), field.cells(other))
        for arm, (one, other) in sides.items()
        if one is not None and other is not None
    }
    best: _Split | None = None
    for setting in sorted({s for ours, theirs in cells.values() for s in ours.keys() & theirs.keys()}):
        split = _factors(
            setting,
            {
                arm: (ours[setting], theirs[setting])
                for arm, (ours, theirs) in cells.items()
                if setting in ours and setting in theirs
            },
        )
        if split is not None and (best is None or len(split.parts) >= len(best.parts)):
            best = split
    if best is None or len(best.parts) == 1:
        return ""
    turned = best.whole.value < 1
    slow, fast = (b, a) if turned else (a, b)
    whole = best.whole.inverse() if turned else best.whole
    product = " x ".join(f"{times(1 / factor if turned else factor)} {name}" for name, factor in best.parts)
    advice = f" What {_options(lacking)} would split off was not measured." if lacking else ""
    return (
        f"Gap in time per token at {field.at(best.setting)}: {slow.model} takes "
        f"{with_interval(whole, times)} times {fast.model}'s in the {best.arm} arm, made of {product}"
        f"{field.apart(a, b)}.{advice}"
    )


def _factors(
    setting: Setting, at: Mapping[Arm, tuple[list[ReplicateRecord], list[ReplicateRecord]]]
) -> _Split | None:
    """Split the ratio of the first arm; the last factor is what remains.

    All are over the same replicates, whose geometric means multiply exactly.
    """
    ratios: list[tuple[Arm, dict[int, float]]] = []
    for arm, (ours, theirs) in at.items():
        one, other = by_replicate(ours, tpot_s), by_replicate(theirs, tpot_s)
        ratios.append((arm, {n: one[n] / other[n] for n in one.keys() & other.keys()}))
    ratios = [(arm, ratio) for arm, ratio in ratios if ratio]
    if not ratios:
        return None
    common = set.intersection(*(set(ratio) for _, ratio in ratios))
    if not common:
        return None
    ones = dict.fromkeys(common, 1.0)

    def over(x: Mapping[int, float], y: Mapping[int, float]) -> float:
        return paired_ratio({n: x[n] for n in common}, {n: y[n] for n in common}).value

    parts = [
        (_STEPS[first, then], over(before, after)) for (first, before), (then, after) in pairwise(ratios)
    ]
    parts.append(("architecture and all else", over(ratios[-1][1], ones)))
    whole = paired_ratio({n: ratios[0][1][n] for n in common}, ones)
    return _Split(setting, ratios[0][0], whole, parts)


def _options(arms: list[Arm]) -> str:
    return listed([f"`--arm {arm}`" for arm in arms])
