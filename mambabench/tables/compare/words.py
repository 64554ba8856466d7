"""What a comparison says in sentences: first which side is better, then what could not have been seen.

for sentence in words(comparison):
    print(sentence)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.tables.compare.format import amount, effect, harmless, interval, p_words, signed
from mambabench.tables.speed.format import listed, plural

if TYPE_CHECKING:
    from mambabench.compare.result import Comparison, Contrast, Overall, Verdict

_MOST_NAMED = 4
_ORDER: tuple[Verdict, ...] = ("worse", "better", "equivalent", "not distinguishable", "not tested")


def words(comparison: Comparison) -> list[str]:
    """Return all that is said of a comparison in sentences, the verdicts first."""
    comparison = harmless(comparison)
    return [
        *(sentence for _, sentence in verdicts(comparison)),
        *(
            f"{side.label}: {said}"
            for side in comparison.candidates
            if (said := likelihood_tallies(comparison, side.label))
        ),
        *corrections(comparison),
        *sensitivity(comparison),
        *comparison.remarks,
        *limits(comparison),
    ]


def verdicts(comparison: Comparison) -> list[tuple[Verdict, str]]:
    """Return one sentence a candidate with its verdict: overall, or of its only task."""
    return [_verdict(comparison, side.label) for side in comparison.candidates]


def tallies(comparison: Comparison, candidate: str) -> str:
    """Say on which tasks a candidate is better, worse and so on, by headlines; empty of a single task."""
    found = _headlines(comparison, candidate)
    if len(found) < 2:
        return ""
    by: dict[Verdict, list[str]] = {}
    for contrast in found:
        by.setdefault(contrast.verdict, []).append(contrast.label)
    parts = [f"{verdict} on {len(by[verdict])}{_named(by[verdict])}" for verdict in _ORDER if verdict in by]
    return f"of {plural(len(found), 'task')}: {', '.join(parts)}"


def likelihood_tallies(comparison: Comparison, candidate: str) -> str:
    """Say on which tasks right answers got likelier or less likely; empty where that was shown on none.

    A log-likelihood moves before an answer does, so that this may be shown where accuracies show nothing.
    """
    found = [c for c in comparison.contrasts if c.candidate == candidate and c.family == "log-likelihoods"]
    if not any(c.verdict in ("better", "worse") for c in found):
        return ""
    if len(found) == 1:
        (only,) = found
        likelier = "likelier" if only.verdict == "better" else "less likely"
        return f"right answers of {only.label} are {likelier}, by {effect(only)}"
    kinds = [verdict for verdict in ("worse", "better") if any(c.verdict == verdict for c in found)]
    shown = [_shown_on([c for c in found if c.verdict == kind], len(found)) for kind in kinds]
    return f"log-likelihood of the right answers: {'; '.join(shown)}"


def _shown_on(alike: Sequence[Contrast], n_tasks: int) -> str:
    """Say of contrasts with one verdict on how many tasks it was shown, and how surely."""
    where = _named([c.label for c in alike]) if len(alike) < n_tasks else ""
    largest = max(c.p_adjusted or 0.0 for c in alike)
    p = p_words(largest).replace("p =", "p up to") if len(alike) > 1 else p_words(largest)
    first = alike[0]
    but = f", though by less than {amount(first.margin, first.effect_unit)}"
    within = but if all(c.within_margin for c in alike) else ""
    return f"{first.verdict} on {len(alike)} of {plural(n_tasks, 'task')}{where}{within}, {p}"


def corrections(comparison: Comparison) -> list[str]:
    """Say how many tests were made and what bounds their errors."""
    if not comparison.families:
        return ["Nothing was tested."]
    first, *others = comparison.families
    if others and all((f.correction, f.alpha) == (first.correction, first.alpha) for f in others):
        # What is said of one family holds for each.
        counts, how = first.describe().split(", ", 1)
        counts = ", ".join([counts, *(f"{f.n_tests} ({f.name})" for f in others)])
        found = f"{counts}, in each {how}"
    else:
        found = "; ".join(family.describe() for family in comparison.families)
    return [f"{found}. Intervals are 95% each and not adjusted."]


def sensitivity(comparison: Comparison) -> list[str]:
    """Say which differences so few items could not have shown, and how many items would show them."""
    options = comparison.options
    known = [
        c for c in comparison.contrasts if c.headline and c.effect_unit == "pt" and c.paired and c.detectable
    ]
    said = []
    if known:
        wanted = options.margin_points if options.detect_points is None else options.detect_points
        said.append(_seen(known, options.power, wanted))
    overall = [o.detectable for o in comparison.overall if o.detectable is not None and o.paired]
    if overall:
        low, high = min(overall), max(overall)
        said.append(f"On average over the tasks they show {_range(low, high, 'pt')} or more.")
    return said


def limits(comparison: Comparison) -> list[str]:
    """Say of contrasts what limits them: unpaired, not tested, items that are not independent."""
    said = []
    contrasts = comparison.contrasts
    unpaired = _unpaired(contrasts)
    if unpaired:
        said.append(f"Compared by totals only, without single items, which shows less: {_some(unpaired)}.")
    clustered: dict[str, list[str]] = {}
    for label, c in {c.label: c for c in contrasts if c.n_clusters}.items():
        clustered.setdefault(c.cluster_name or "cluster", []).append(f"{label} {c.n_clusters:,}")
    for name, found in clustered.items():
        said.append(f"Items that share a {name} are not independent and count as such: {_some(found)}.")
    reasons: dict[str, list[str]] = {}
    for c in contrasts:
        for remark in c.remarks:
            what = f"{c.label} {c.measure}" if len(comparison.candidates) == 1 else _whole(c)
            reasons.setdefault(remark, []).append(what)
    said += [f"{_some(list(dict.fromkeys(found)))}: {remark}" for remark, found in reasons.items()]
    return said


def _unpaired(contrasts: Sequence[Contrast]) -> list[str]:
    """Return tasks without pairs, with the candidates where that does not go for all of them."""
    by_task: dict[str, dict[str, bool]] = {}
    for c in contrasts:
        sides = by_task.setdefault(c.label, {})
        sides[c.candidate] = sides.get(c.candidate, False) or c.paired
    said = []
    for label, sides in by_task.items():
        without = [candidate for candidate, paired in sides.items() if not paired]
        if without:
            whose = "" if len(without) == len(sides) else f" of {_some(without)}"
            said.append(f"{label}{whose}")
    return said


def verdict_text(contrast: Contrast) -> str:
    """Return a contrast's verdict in a few words."""
    if contrast.verdict == "equivalent":
        return f"equivalent within {margin_text(contrast)}"
    if contrast.within_margin and contrast.verdict in ("better", "worse"):
        return f"{contrast.verdict}, within {margin_text(contrast)}"
    return contrast.verdict


def margin_text(contrast: Contrast) -> str:
    """Return the margin, with its unit where that is short."""
    unit = {"pt": " pt", "%": "%", "nats": " nats"}.get(contrast.effect_unit, "")
    return f"±{contrast.margin:.3g}{unit}"


def _verdict(comparison: Comparison, candidate: str) -> tuple[Verdict, str]:
    baseline = comparison.baseline.label
    overall = next((o for o in comparison.overall if o.candidate == candidate), None)
    if overall is not None:
        return overall.verdict, _overall(overall, baseline, comparison)
    found = _headlines(comparison, candidate)
    if not found:
        return "not tested", f"{candidate} was not compared with {baseline} on any task."
    if len(found) == 1:
        (only,) = found
        p = "" if only.p_adjusted is None else f", {_p_words(only.p_adjusted, only.p_value)}"
        what = f"{effect(only)} in {only.measure} of {only.label}"
        how = _relation(only.verdict, only.within_margin, baseline, amount(only.margin, only.effect_unit))
        return only.verdict, f"{candidate} {how}: {what}{p}."
    by = Counter(c.verdict for c in found)
    parts = [f"{verdict} on {by[verdict]}" for verdict in _ORDER if by[verdict]]
    kinds = [verdict for verdict in _ORDER if by[verdict]]
    whole: Verdict = kinds[0] if len(kinds) == 1 else "not tested"
    return whole, f"{candidate} against {baseline}, of {plural(len(found), 'task')}: {', '.join(parts)}."


def _overall(overall: Overall, baseline: str, comparison: Comparison) -> str:
    width = overall.high - overall.low
    ends = interval(overall.low, overall.high, "pt")
    how = _relation(
        overall.verdict, overall.within_margin, baseline, amount(comparison.options.margin_points, "pt")
    )
    sentence = (
        f"{overall.candidate} {how}: {signed(overall.difference, 'pt', width)} points on average over "
        f"{plural(overall.n_tasks, 'task')} (95% {ends}), {_p_words(overall.p_adjusted, overall.p_value)}"
    )
    if overall.paired:
        return f"{sentence}."
    own = [c for c in comparison.contrasts if c.candidate == overall.candidate and c.unit == "%"]
    how = (
        "not all tasks item by item" if any(c.paired for c in own) else "by totals only, no task item by item"
    )
    return f"{sentence}; {how}."


def _p_words(adjusted: float, plain: float | None) -> str:
    """Return a p-value, which an interval beside it need not agree with once it is adjusted."""
    text = p_words(adjusted)
    return text if plain is None or text == p_words(plain) else f"adjusted {text}"


def _relation(verdict: Verdict, within: bool, baseline: str, margin: str) -> str:
    if verdict in ("better", "worse"):
        but = f", though by less than {margin}" if within else ""
        return f"is {verdict} than {baseline}{but}"
    if verdict == "equivalent":
        return f"is equivalent to {baseline} within {margin}"
    if verdict == "not distinguishable":
        return f"is not distinguishable from {baseline}"
    return f"was not tested against {baseline}"


def _headlines(comparison: Comparison, candidate: str) -> list[Contrast]:
    return [c for c in comparison.contrasts if c.headline and c.candidate == candidate]


def _seen(known: Sequence[Contrast], power: float, wanted: float) -> str:
    least = min(known, key=lambda c: c.detectable or 0.0)
    most = max(known, key=lambda c: c.detectable or 0.0)
    counts = sorted({c.n for c in known})
    chance = f"With a chance of {power:.0%}"
    if len(counts) == 1:
        text = (
            f"{chance}, {plural(counts[0], 'item')} show differences of "
            f"{_range(least.detectable or 0.0, most.detectable or 0.0, 'pt')} or more"
        )
    else:
        text = (
            f"{chance}, the items show differences of {amount(least.detectable or 0.0, 'pt')} or more in "
            f"{least.label} ({least.n:,} items) to {amount(most.detectable or 0.0, 'pt')} or more in "
            f"{most.label} ({most.n:,})"
        )
    needed = sorted(c.n_needed for c in known if c.n_needed is not None)
    if needed and needed[-1] > counts[-1]:
        span = f"{needed[0]:,}" if needed[0] == needed[-1] else f"{needed[0]:,} to {needed[-1]:,}"
        asked = amount(wanted, "pt")
        text += f"; {asked} {'needs' if asked == '1 point' else 'need'} {span} items a task"
    return f"{text}. Adjusting for several tests asks for more."


def _range(low: float, high: float, unit: str) -> str:
    first, last = amount(low, unit), amount(high, unit)
    return first if first == last else f"{first.split()[0]} to {last}"


def _named(names: Sequence[str]) -> str:
    return f" ({_joined(names)})" if len(names) <= _MOST_NAMED else ""


def _some(names: Sequence[str]) -> str:
    if len(names) <= _MOST_NAMED:
        return _joined(names)
    return f"{_joined(names[:_MOST_NAMED], last=False)} and {len(names) - _MOST_NAMED:,} more"


def _joined(names: Sequence[str], *, last: bool = True) -> str:
    # Names may have commas of their own.
    if any("," in name for name in names):
        return "; ".join(names)
    return listed(list(names)) if last else ", ".join(names)


def _whole(contrast: Contrast) -> str:
    return f"{contrast.label} {contrast.measure} of {contrast.candidate}"
