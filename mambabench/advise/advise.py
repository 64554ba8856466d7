"""From stored runs and a wish to an advice: candidates, their checks, a choice and what is left to measure.

A candidate is a model in one way of running it (arm, attention, dtype, device, pieces of the prefill) on
one machine, at the batch that the wish asks for. Models with recall or scores and without any times are
candidates too, of which it is not known what they cost; imported results alone make none.

    advise_runs(load_runs("results"), Wish(prompt_len_tokens=2000, gen_len_tokens=200)).answer
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mambabench.advise.choose import choose, rank
from mambabench.advise.facts import RunFacts, facts_of
from mambabench.advise.measure_next import to_measure
from mambabench.advise.memory import capacity_bytes, memory_check
from mambabench.advise.quality import Quality, quality_check
from mambabench.advise.recall import recall_check
from mambabench.advise.result import Advice, Candidate, Check, Setting
from mambabench.advise.rows import Row, plain, speed_rows
from mambabench.advise.speed import e2e_at, figure_at, time_check
from mambabench.advise.wish import Wish
from mambabench.advise.words import answer
from mambabench.units import size

if TYPE_CHECKING:
    import pandas as pd

    from mambabench.frames.api import Runs

FRAMES: Final = ("speed", "recall", "recall_means", "averages", "scores", "checkpoints")
"""Frames that an advice follows from."""

_QUALITY: Final = ("recall", "recall_means", "averages")
_IMPORTED: Final = "imported"


def advise_runs(runs: Runs, wish: Wish) -> Advice:
    """Say what stored runs have to say about a wish."""
    return advise({name: runs.frame(name) for name in FRAMES}, facts_of(runs.runs), wish)


def advise(frames: Mapping[str, pd.DataFrame], facts: Mapping[str, RunFacts], wish: Wish) -> Advice:
    """Say what frames have to say about a wish.

    Args:
        frames: those of `FRAMES`, by name.
        facts: by run; what is not known of a run may be left out.
        wish: what is asked for.
    """
    rows = speed_rows(frames["speed"], facts)
    others = {name: plain(frames[name]) for name in FRAMES if name != "speed"}
    quality = Quality(others)
    found = [_candidate(who, own, facts, quality, wish) for who, own in _groups(rows).items()]
    unmeasured, n_imported = _without_times(others, {(c.label, c.model) for c in found}, facts)
    found += [_candidate((*who, Setting()), (), facts, quality, wish) for who in unmeasured]
    choice = choose(found, wish.prefer)
    found.sort(key=lambda c: (c is not choice.chosen, *rank(c, wish.prefer)))
    remarks = [*choice.remarks, *_remarks(found, wish)]
    capacity = capacity_bytes(rows, facts)
    if wish.memory_bytes is not None and capacity is not None and wish.memory_bytes > capacity:
        remarks.append(
            f"times are those of a device with {size(capacity)} of memory, less than was asked for"
        )
    if n_imported:
        models = "1 model" if n_imported == 1 else f"{n_imported:,} models"
        remarks.append(f"{models} with imported results alone left out: nothing was run here")
    return Advice(
        wish=wish,
        candidates=tuple(found),
        chosen=choice.chosen,
        ties=choice.ties,
        answer=answer(found, choice, wish),
        remarks=tuple(remarks),
        to_measure=to_measure(found, choice.chosen, rows, others, facts, wish),
    )


def _groups(rows: Iterable[Row]) -> dict[tuple[str, str, Setting], list[Row]]:
    """Return the rows of each candidate, in an order that does not depend on theirs."""
    found: dict[tuple[str, str, Setting], list[Row]] = {}
    for row in sorted(rows, key=_order):
        found.setdefault((row.label, row.model, row.setting), []).append(row)
    return dict(sorted(found.items()))


def _order(row: Row) -> tuple[str, int, int, int]:
    return (row.run, row.batch_size, row.prompt_len_tokens, row.gen_len_tokens)


def _candidate(
    who: tuple[str, str, Setting],
    rows: Sequence[Row],
    facts: Mapping[str, RunFacts],
    quality: Quality,
    wish: Wish,
) -> Candidate:
    label, model, setting = who
    weights = min((row.weights_bytes for row in rows if row.weights_bytes), default=None)
    average, why = quality.average(label, model, setting.dtype, weights)
    recall = recall_check(quality.recall(label, model, setting.dtype, weights), wish)
    checks: list[Check | None] = [memory_check(rows, facts, wish)]
    if wish.ttft_s is not None:
        checks.append(time_check(rows, "ttft", wish.ttft_s, wish))
    if wish.tpot_s is not None:
        checks.append(time_check(rows, "tpot", wish.tpot_s, wish))
    checks += [recall, quality_check(average, why, wish)]
    trained = min((r.training_length_tokens for r in rows if r.training_length_tokens), default=None)
    past = trained is not None and wish.length_tokens > trained
    said = (f"longer than the {trained:,} tokens that it was trained on",) if past else ()
    # Where recall has been measured and asked for, it speaks for itself.
    asked = recall is not None and recall.limit is not None
    return Candidate(
        label=label,
        model=model,
        setting=setting,
        batch_size=wish.conversations,
        checks=tuple(check for check in checks if check is not None),
        e2e=e2e_at(rows, wish),
        ttft=figure_at(rows, "ttft_s", wish).figure,
        tpot=figure_at(rows, "tpot_s", wish).figure if wish.gen_len_tokens > 1 else None,
        comparable=() if average is None else average.tasks,
        doubts=(*quality.mixed(label, model), *(() if asked else said)),
        remarks=said if asked else (),
    )


def _without_times(
    frames: Mapping[str, Sequence[Mapping[str, Any]]],
    timed: set[tuple[str, str]],
    facts: Mapping[str, RunFacts],
) -> tuple[list[tuple[str, str]], int]:
    """Return models whose quality alone is known, and how many more were only imported."""
    labels, models = {label for label, _ in timed}, {model for _, model in timed}
    ours: set[tuple[str, str]] = set()
    imported: set[tuple[str, str]] = set()
    for name in _QUALITY:
        for row in frames[name]:
            who = (row["label"] or "", row["model"] or row["label"] or "")
            if who[0] in labels or who[1] in models:
                continue
            is_imported = facts.get(row["run"], RunFacts()).kind == _IMPORTED
            (imported if is_imported else ours).add(who)
    return sorted(ours), len(imported - ours)


def _remarks(candidates: Sequence[Candidate], wish: Wish) -> list[str]:
    found = []
    machines = sorted({c.setting.machine for c in candidates if c.setting.machine})
    if len(machines) > 1:
        found.append(f"measured on several machines, each held against its own: {'; '.join(machines)}")
    limits = [
        check.limit for c in candidates if (check := c.check("memory")) is not None and c.setting.device
    ]
    if wish.memory_bytes is None and limits:
        if all(limit is None for limit in limits):
            found.append("memory of the device was not recorded, and is not judged; give `--memory`")
        else:
            found.append("memory: that of the device that was measured on, as `--memory` was not given")
    if wish.quality_percent is not None and len({c.comparable for c in candidates if c.comparable}) > 1:
        found.append("average accuracies are over different tasks, and held against one bound all the same")
    return found
