"""What a long-context run says in sentences, with the numbers in them, and only what its data bears.

for sentence in words(table):
    print(sentence)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from mambabench.stats.effective import SHARE
from mambabench.tables.speed.format import listed, number, percent, plural, seconds, size, times

if TYPE_CHECKING:
    from mambabench.stats.effective import EffectiveContext
    from mambabench.stats.falling import Difference
    from mambabench.tables.longcontext.table import Effective, LongRow, LongTable, Trend

_ALL_PAIRS_UP_TO = 3


def words(table: LongTable) -> list[str]:
    """Return what a run says: effective contexts, tasks at chance, models against each other, where loss
    stops falling and rises, and what the last step of the length costs, in this order."""
    return [
        *effective_words(table),
        *chance_words(table),
        *compared_words(table),
        *loss_words(table),
        *cost_words(table),
    ]


def effective_words(table: LongTable) -> list[str]:
    """Say of each model up to which length it recalls, in the mean over tasks and then task by task."""
    said = []
    for model in table.models:
        whole = table.effective_of(model)
        if whole is not None:
            said += [f"{model}: {_whole(table, whole)}."]
        tasks = [e for e in table.effective if e.model == model and e.task is not None and e is not whole]
        parts = [f"{e.task} {span(e.headline)}" for e in tasks if e.found.outcome != "none"]
        if parts:
            said.append(f"{model} task by task: {', '.join(parts)}.")
    return said


def chance_words(table: LongTable) -> list[str]:
    """Name the tasks at which models guess, of which no length can be said."""
    never: dict[tuple[str, ...], list[str]] = {}
    later = []
    for task in table.tasks:
        at_chance = [e for e in table.effective if e.task == task and e.found.outcome == "none"]
        guessing = tuple(e.model for e in at_chance if not e.ever_above_chance)
        if guessing:
            never.setdefault(guessing, []).append(task)
        later += [
            f"{e.model} is not above chance in {task} at {e.found.shortest_tokens:,} tokens, though it is at "
            "a longer length: there is no short-context value to keep."
            for e in at_chance
            if e.ever_above_chance
        ]
    said = []
    for models, tasks in never.items():
        everyone = len(models) == len(table.models) > 1
        who = "every model" if everyone else listed(list(models))
        said.append(
            f"Not above chance at any length: {who} in {listed(tasks)}; nothing can be said about length "
            "there."
        )
    return said + later


def compared_words(table: LongTable) -> list[str]:
    """Say which of two models holds longer, where their intervals separate.

    Of more than three models, each is held against the one whose effective context is the longest.
    """
    known = [
        e
        for model in table.models
        if (e := table.effective_of(model)) is not None and e.found.outcome != "none"
    ]
    if len(known) < 2 or any(e.found.shortest_tokens == e.found.longest_tokens for e in known):
        return []
    pairs = list(combinations(known, 2))
    if len(known) > _ALL_PAIRS_UP_TO:
        longest = max(known, key=lambda e: (e.headline.length_tokens or 0, e.headline.low or 0))
        pairs = [(longest, e) for e in known if e is not longest]
    said, alike = [], []
    for a, b in pairs:
        longer, other = (a, b) if (a.headline.low or 0) > (b.headline.low or 0) else (b, a)
        low, high = longer.headline.low or 0, other.headline.high or 0
        if low > high and not other.headline.is_open:
            said.append(
                f"{longer.model} holds longer than {other.model}: {span(longer.headline)} against "
                f"{span(other.headline)}, at least {number(low / high)} times as long."
            )
        else:
            alike.append(f"{a.model} and {b.model}")
    if alike:
        said.append(f"Not distinguishable by effective context: {'; '.join(alike)}.")
    return said


def loss_words(table: LongTable) -> list[str]:
    """Say of each model from which context on its loss stops falling, and where it rises."""
    return [
        f"Loss of {trend.model} {_trend(trend, _few_documents(table, trend))}."
        for trend in table.trends
        if len(trend.found.lengths) > 1
    ]


def cost_words(table: LongTable) -> list[str]:
    """Say what the last step of the length that was timed costs each model, beside what it gives."""
    said = []
    for model in table.models:
        rows = [row for row in table.rows_of(model) if row.ttft_s is not None or row.peak_bytes is not None]
        if len(rows) < 2:
            continue
        before, after = rows[-2], rows[-1]
        parts = _steps(before, after)
        step = "doubling" if after.length_tokens == 2 * before.length_tokens else "step"
        said.append(
            f"The last {step} of {model}, from {before.length_tokens:,} to {after.length_tokens:,} tokens: "
            f"{', '.join(parts)}{_state(rows)}."
        )
    return said


def span(found: EffectiveContext) -> str:
    """Return an effective context with its interval in a few words."""
    length = "none" if found.length_tokens is None else f"{found.length_tokens:,}"
    if found.low is None or found.high is None or found.shortest_tokens == found.longest_tokens:
        return length
    if found.outcome == "at least":
        return (
            f"at least {length} ({found.low:,} or more)" if found.low < found.high else f"at least {length}"
        )
    return f"{length} ({_ends(found, '{:,} or more')})"


def _whole(table: LongTable, effective: Effective) -> str:
    found = effective.headline
    tasks = [effective.task] if effective.task is not None else list(table.mean_tasks)
    what = f"recall in {tasks[0]}" if len(tasks) == 1 else f"mean recall in {len(tasks)} tasks"
    level = f"{percent(found.short_value)} at {found.shortest_tokens:,} tokens"
    if found.outcome == "none":
        return (
            f"{what} is not above chance ({percent(found.chance)}) at {found.shortest_tokens:,} tokens, and "
            "nothing can be said about its effective context"
        )
    if found.shortest_tokens == found.longest_tokens:
        return f"{what} is {level}, the only length measured"
    of = " of what is above chance" if found.above_chance else ""
    kept = (
        f"{what} keeps {SHARE:.0%}{of} of its {level}"
        if not of
        else f"{what} keeps {SHARE:.0%}{of} of {level}"
    )
    text = f"effective context {_length(found)}: {kept} up to there"
    if found.outcome == "at least":
        text += ", the longest length measured"
    other = effective.found_above_chance
    if not found.above_chance and other.length_tokens != found.length_tokens:
        text += (
            f"; of what is above chance ({percent(found.chance)}) it keeps {SHARE:.0%} up to {span(other)}"
        )
    trained = table.training_lengths.get(effective.model)
    return text if trained is None else f"{text}; it was trained on {trained:,}"


def _length(found: EffectiveContext) -> str:
    exact = f"{found.length_tokens:,} tokens"
    if found.outcome == "at least":
        return f"at least {exact} (95% interval from {found.low:,} on)"
    return f"{exact} (95% interval {_ends(found, 'from {:,} on')})"


def _ends(found: EffectiveContext, without_end: str) -> str:
    if found.is_open:
        return without_end.format(found.low)
    return f"{found.low:,} alone" if found.low == found.high else f"{found.low:,} to {found.high:,}"


def _few_documents(table: LongTable, trend: Trend) -> bool:
    """Tell whether documents are the items of intervals, and too few to be those of a trend."""
    records = [row.loss for row in table.rows_of(trend.model) if row.loss is not None]
    return not trend.by_document and any(r.status == "ok" and r.n_documents > 1 for r in records)


def _trend(trend: Trend, few_documents: bool) -> str:
    found = trend.found
    first, last = found.lengths[0], found.lengths[-1]
    if found.outcome == "unknown":
        return "is of one block, which tells nothing from noise"
    by = plural(found.n_clusters, "document" if trend.by_document else "block")
    few = ", as documents are few" if few_documents else ""
    if found.outcome == "still falling":
        text = f"is still falling at {last:,} tokens of context, the longest measured"
    elif found.outcome == "does not fall":
        text = (
            f"does not fall by more than noise beyond {first:,} tokens of context, the shortest measured "
            f"({by} compared{few})"
        )
    else:
        text = (
            f"stops falling at {found.stops_at_tokens:,} tokens of context: no longer one is lower by more "
            "than noise"
        )
    if found.gain is not None and found.outcome != "does not fall":
        text += (
            f"; from {first:,} to {found.best_tokens:,} tokens it falls by {_nats(found.gain, -1)} over "
            f"{by}{few}"
        )
    if found.settled_at_tokens is not None:
        text += f"; a gain of 1% of perplexity beyond {found.settled_at_tokens:,} is ruled out"
    if found.rises_from_tokens is not None and found.rise is not None:
        factor = math.exp(found.rise.value)
        text += (
            f"; it rises from {found.rises_from_tokens:,} on: at {last:,} tokens it is {_nats(found.rise)} "
            f"above that at {found.best_tokens:,}, {times(factor)} times the perplexity"
        )
    return text


def _nats(found: Difference, sign: int = 1) -> str:
    low, high = sorted((sign * found.low, sign * found.high))
    return f"{sign * found.value:.3f} nats a token (95% interval {low:.3f} to {high:.3f})"


def _steps(before: LongRow, after: LongRow) -> list[str]:
    """Return each figure that both rows have, from the one to the other."""
    found = []
    if before.recall_mean is not None and after.recall_mean is not None:
        found.append(f"recall {percent(before.recall_mean.value)} to {percent(after.recall_mean.value)}")
    if before.loss_nats is not None and after.loss_nats is not None:
        found.append(f"loss {before.loss_nats.value:.3f} to {after.loss_nats.value:.3f} nats")
    for name, attribute, write in (
        ("first token", "ttft_s", seconds),
        ("each later one", "tpot_s", seconds),
        ("peak memory", "peak_bytes", size),
    ):
        ends = [getattr(row, attribute) for row in (before, after)]
        if None not in ends:
            found.append(f"{name} {write(ends[0].value)} to {write(ends[1].value)}")
    return found


def _state(rows: Sequence[LongRow]) -> str:
    known = [(row.length_tokens, row.state_bytes) for row in rows if row.state_bytes is not None]
    if len(known) < 2:
        return ""
    if len({held for _, held in known}) == 1:
        return f"; its state stays at {size(known[0][1])} from {known[0][0]:,} tokens on"
    (_, first), (_, last) = known[-2:]
    grows = all(a < b for (_, a), (_, b) in pairwise(known))
    return f"; its state {'grows' if grows else 'goes'} from {size(first)} to {size(last)}"
