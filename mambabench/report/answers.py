"""The answer in a few sentences: which model is best and how sure that is, what it costs, what to doubt.

Nothing is claimed that no test showed: models are called better only where a contrast says so, and the
highest of several averages is just that.

answers(Rows(runs))[0].sentences[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mambabench.report.answers_cost import cost_answers
from mambabench.report.document import Words
from mambabench.report.format import (
    Row,
    Rows,
    harmless,
    listed,
    plural,
    rounded,
    shortened,
    some,
    unique,
    whole,
)
from mambabench.report.sections.comparison import OVERALL, without_earlier
from mambabench.report.sections.doubts import NOTHING, grouped, what, where
from mambabench.report.sections.layout import earlier_checkpoints
from mambabench.report.sections.longcontext import ABOVE_CHANCE, MEAN
from mambabench.report.sections.scores import is_partial
from mambabench.tables.compare.format import amount, interval, p_words, signed

_RESULTS: Final = (
    "scores",
    "recall",
    "recall_means",
    "context_losses",
    "perplexities",
    "speed",
    "conversation",
)
_MOST_TASKS: Final = 3
_MOST_NAMED: Final = 3
_LONGEST_DOUBT: Final = 240
_ORDER: Final = ("better", "worse", "equivalent", "not distinguishable", "not tested")


def answers(rows: Rows, problem: str = "") -> tuple[Words, ...]:
    """Return the sentences, each with its tone; there is always one.

    Args:
        rows: of the frames.
        problem: why several models were not compared.
    """
    if not any(rows(name) for name in _RESULTS):
        return (_nothing(rows), _doubt(rows)) if rows("warnings") else (_nothing(rows),)
    said = [*_quality(rows, problem), *_published(rows), *_steps(rows), *_recall(rows)]
    if not said:
        said = _texts(rows)
    return (*(Words((sentence,)) for sentence in (*said, *cost_answers(rows))), _doubt(rows))


def _nothing(rows: Rows) -> Words:
    runs = rows("runs")
    if not runs:
        return Words(("There is no run.",), "bad")
    unread = sum(row["state"] == "unreadable" for row in runs)
    what = "The run holds" if len(runs) == 1 else f"None of {len(runs):,} runs holds"
    negated = "no result" if len(runs) == 1 else "a result"
    more = f"; {unread:,} cannot be read" if unread else ""
    return Words((f"{what} {negated}{more}.",), "bad")


def _quality(rows: Rows, problem: str) -> list[str]:
    """Say which model is better by the tests; without tests what was measured."""
    contrasts = without_earlier(rows)
    if contrasts:
        return _tested(contrasts)
    earlier = earlier_checkpoints(rows)
    scores = [row for row in rows("scores") if row["label"] not in earlier] or rows("scores")
    labels = unique(row["label"] for row in scores)
    means = [row for row in rows("averages") if row["label"] in set(labels) and row["value"] is not None]
    if not labels:
        return []
    if len(labels) == 1:
        return _one(labels[0], scores, means)
    untested = f": {harmless(problem).rstrip('.')}" if problem else ""
    most = _alike(means, scores)
    if len(most) < 2:
        return [f"{plural(len(labels), 'model')} were evaluated; which is better was not tested{untested}."]
    best = max(most, key=lambda row: row["value"])
    return [
        f"The highest of {len(most)} average accuracies is that of {best['label']}, "
        f"{rounded(best['value'], '%')}% over {plural(best['n_tasks'], 'task')}; whether it is better than "
        f"the others was not tested{untested}."
    ]


def _alike(means: Sequence[Row], scores: Sequence[Row]) -> list[Row]:
    """Return the most averages that are over the same tasks."""
    tasks: dict[tuple[str, str], set[str]] = {}
    for row in scores:
        if row["in_average"]:
            tasks.setdefault((row["run"], row["label"]), set()).add(row["task"])
    by: dict[tuple[str, frozenset[str]], list[Row]] = {}
    for row in means:
        own = frozenset(tasks.get((row["run"], row["label"]), ()))
        by.setdefault((row["suite"] or "", own), []).append(row)
    return max(by.values(), key=len, default=[])


def _one(label: str, scores: Sequence[Row], means: Sequence[Row]) -> list[str]:
    if means:
        row = means[0]
        n = plural(row["n_tasks"], "task")
        part = ", of which not all items were scored" if any(is_partial(row) for row in scores) else ""
        return [f"{label} has an average accuracy of {rounded(row['value'], '%')}% over {n}{part}."]
    known = [row for row in scores if row["headline"] and row["value"] is not None]
    if not known:
        return [f"{label} was evaluated, and no task has a value."]
    parts = [f"{_measure(row)} {_with_interval(row)}" for row in known[:_MOST_TASKS]]
    more = f" and {plural(len(known) - _MOST_TASKS, 'more task')}" if len(known) > _MOST_TASKS else ""
    return [f"{label}: {'; '.join(parts)}{more}."]


def _measure(row: Row) -> str:
    return f"{row['task_label'] or row['task']} {row['metric'] or ''}".rstrip()


def _with_interval(row: Row) -> str:
    unit = row["unit"] or ""
    sign = "%" if unit == "%" else f" {unit}" if unit else ""
    text = f"{rounded(row['value'], unit)}{sign}"
    if row["interval_low"] is None or row["interval_high"] is None:
        return text
    return f"{text} (95% {rounded(row['interval_low'], unit)} to {rounded(row['interval_high'], unit)})"


def _tested(contrasts: Sequence[Row]) -> list[str]:
    """Say of candidates what the tests show: of the mean over tasks, else of the only task or of several."""
    baseline = contrasts[0]["baseline"]
    by: dict[str, list[Row]] = {}
    for row in contrasts:
        by.setdefault(row["candidate"], []).append(row)
    decided: dict[str, Row] = {}
    tallied: dict[str, list[Row]] = {}
    for candidate, own in by.items():
        heads = _heads(own)
        overall = next((row for row in own if row["task"] == OVERALL), None)
        main = overall or (heads[0] if len(heads) == 1 else None)
        if main is not None:
            decided[candidate] = main
        elif heads:
            tallied[candidate] = heads
    if len(by) == 1:
        by_task = [_tally(baseline, name, _heads(by[name])) for name in decided if len(_heads(by[name])) > 1]
        return [
            *(_pair(baseline, name, row, by[name]) for name, row in decided.items()),
            *by_task,
            *(_tally(baseline, name, heads) for name, heads in tallied.items()),
        ]
    said = [_several(baseline, decided)] if decided else []
    some_tallies = [_tally(baseline, name, heads) for name, heads in list(tallied.items())[:_MOST_NAMED]]
    if len(tallied) > _MOST_NAMED:
        more = plural(len(tallied) - _MOST_NAMED, "more model")
        some_tallies.append(f"Of {more} tests over single tasks are in the table.")
    return said + some_tallies


def _heads(own: Sequence[Row]) -> list[Row]:
    return [row for row in own if row["headline"] and row["task"] != OVERALL]


def _pair(baseline: str, candidate: str, row: Row, own: Sequence[Row]) -> str:
    how = {
        "better": f"is better than {baseline}",
        "worse": f"is worse than {baseline}",
        "equivalent": f"is equivalent to {baseline} within {_margin(row)}",
        "not distinguishable": f"is not distinguishable from {baseline}",
    }.get(row["verdict"] or "", f"was not tested against {baseline}")
    sentence = f"{candidate} {how}"
    if row["difference"] is not None:
        sentence += f": {_effect(row)} {_over(row, own)}"
    if row["p_adjusted"] is not None:
        plain = row["p_value"] is None or p_words(row["p_value"]) == p_words(row["p_adjusted"])
        sentence += f", {'' if plain else 'adjusted '}{p_words(row['p_adjusted'])}"
    return f"{sentence}{'; by totals only' if row['paired'] is False else ''}."


def _margin(row: Row) -> str:
    return "its margin" if row["margin"] is None else amount(row["margin"], row["effect_unit"] or "")


def _effect(row: Row, *, inside: bool = False) -> str:
    """Return a difference with its unit in words and its interval."""
    unit, low, high = row["effect_unit"] or "", row["interval_low"], row["interval_high"]
    ends = interval(low, high, unit)
    number = signed(row["difference"], unit, high - low if ends else None)
    words = {"pt": " points", "%": "%"}.get(unit, f" {unit}".rstrip())
    if not ends:
        return f"{number}{words}"
    # Brackets within brackets would be hard to read.
    return f"{number}{words}, 95% {ends}" if inside else f"{number}{words} (95% {ends})"


def _over(row: Row, own: Sequence[Row]) -> str:
    if row["task"] != OVERALL:
        return f"in {row['measure']} of {row['task_label'] or row['task']}"
    # Of a task whose first metric is a perplexity the mean has the first accuracy.
    n = len({r["task"] for r in own if r["unit"] == "%" and r["task"] != OVERALL})
    return f"on average over {plural(n, 'task')}" if n else "on average over tasks"


def _tally(baseline: str, candidate: str, heads: Sequence[Row]) -> str:
    parts = []
    for verdict in _ORDER:
        names = [row["task_label"] or row["task"] for row in heads if row["verdict"] == verdict]
        if names:
            parts.append(
                f"{verdict} on {len(names)}{f' ({some(names)})' if len(names) <= _MOST_NAMED else ''}"
            )
    return f"{candidate} against {baseline}, of {plural(len(heads), 'task')}: {', '.join(parts)}."


def _several(baseline: str, decided: dict[str, Row]) -> str:
    """Name the candidates by verdict, those with the largest differences first."""
    parts = []
    for verdict in _ORDER:
        found = [(name, row) for name, row in decided.items() if (row["verdict"] or "not tested") == verdict]
        if not found:
            continue
        if verdict in ("better", "worse"):
            found.sort(key=lambda one: -abs(one[1]["difference"] or 0.0))
            named = [f"{name} ({_effect(row, inside=True)})" for name, row in found[:_MOST_NAMED]]
        else:
            named = [name for name, _ in found[:_MOST_NAMED]]
        more = [f"{len(found) - len(named):,} more"] if len(found) > len(named) else []
        verb = "is" if len(found) == 1 else "are"
        parts.append(f"{verdict} {verb} {listed([*named, *more])}")
    first = next(iter(decided.values()))
    same = {(row["task"], row["measure"]) for row in decided.values()}
    where_ = "on average over tasks" if first["task"] == OVERALL else f"in {_of_task(first)}"
    head = f"Against {baseline}{f', {where_}' if len(same) == 1 else ''}"
    return f"{head}: {'; '.join(parts)}."


def _of_task(row: Row) -> str:
    return f"{row['measure']} of {row['task_label'] or row['task']}"


def _published(rows: Rows) -> list[str]:
    """Say how many published figures were reproduced."""
    known = [row for row in rows("scores") if row["verdict"] in ("reproduced", "differs")]
    if not known:
        return []
    # Of those that were scored in part nobody can tell.
    part = any(row["verdict"] == "partial" and row["reference"] is not None for row in rows("scores"))
    whole_tasks = " of tasks scored in full" if part else ""
    apart = [f"{row['label']} on {_measure(row)}" for row in known if row["verdict"] == "differs"]
    n = len(known) - len(apart)
    if not apart:
        return [
            f"The published figure{whole_tasks.replace('tasks', 'the task')} is reproduced."
            if n == 1
            else f"All {n:,} published figures{whole_tasks} are reproduced."
        ]
    return [
        f"Of {plural(len(known), 'published figure')}{whole_tasks} {n:,} are reproduced; not "
        f"{some(apart, _MOST_NAMED)}."
    ]


def _steps(rows: Rows) -> list[str]:
    """Say which step of each training is the best, and how many may be."""
    by: dict[str, list[Row]] = {}
    for row in rows("steps"):
        by.setdefault(row["series"], []).append(row)
    said: dict[str, list[str]] = {}
    for series, own in by.items():
        tasks = unique(row["task"] for row in own if row["headline"] or row["task"] == OVERALL)
        if not tasks:
            continue
        task = OVERALL if OVERALL in tasks else tasks[0]
        line = [row for row in own if row["task"] == task and row["value"] is not None]
        line = [row for row in line if row["metric"] == line[0]["metric"]]
        best = next((row for row in line if row["best"]), None)
        if best is None or len(line) < 2:
            continue
        what = "on average over tasks" if task == OVERALL else f"in {_measure(best)}"
        n = sum(bool(row["contender"]) for row in line)
        luck = f", {n:,} of {plural(len(line), 'step')} may be as good" if n > 1 else ""
        found = f"{series} {whole(best['step'])} with {_with_interval(best)}{luck}"
        said.setdefault(what, []).append(found)
    return [f"Best training step {what}: {_first(found)}." for what, found in said.items()]


def _first(found: Sequence[str]) -> str:
    more = [f"{len(found) - _MOST_NAMED:,} more"] if len(found) > _MOST_NAMED else []
    return "; ".join([*found[:_MOST_NAMED], *more])


def _recall(rows: Rows) -> list[str]:
    """Say up to which length models keep what they recall, or what they do at the only length."""
    contexts = [row for row in rows("effective_contexts") if row["headline"]]
    tasks = unique(row["task"] for row in contexts)
    main = MEAN if MEAN in tasks else tasks[0] if len(tasks) == 1 else None
    means = rows("recall_means")
    lengths: dict[str, set[int]] = {}
    for row in means:
        if row["accuracy"] is not None:
            lengths.setdefault(row["label"], set()).add(row["length_tokens"])
    parts: list[tuple[int, str]] = []
    for row in contexts:
        if row["task"] == main and len(lengths.get(row["label"], ())) > 1:
            parts.append(_kept(row, max(lengths[row["label"]])))
    if parts:
        parts.sort(key=lambda part: -part[0])
        named = [text for _, text in parts[:_MOST_NAMED]]
        more = [plural(len(parts) - _MOST_NAMED, "more model")] if len(parts) > _MOST_NAMED else []
        return [f"Recall keeps 90% of what it is at the shortest length: {'; '.join([*named, *more])}."]
    known = [row for row in means if row["accuracy"] is not None]
    if not known:
        return []
    row = max(known, key=lambda row: row["length_tokens"])
    same = [r for r in known if r["length_tokens"] == row["length_tokens"]]
    named = [
        f"{r['label']} {_with_interval({**r, 'value': r['accuracy'], 'unit': '%'})}"
        for r in same[:_MOST_NAMED]
    ]
    more = [plural(len(same) - _MOST_NAMED, "more model")] if len(same) > _MOST_NAMED else []
    return [f"Recall at {whole(row['length_tokens'])} tokens: {'; '.join([*named, *more])}."]


def _kept(row: Row, longest: int) -> tuple[int, str]:
    label, length = row["label"], row["length_tokens"]
    if row["ever_above_chance"] is False:
        return -1, f"{label} is not above chance at any length"
    if length is None:
        return 0, f"{label} is not above chance there"
    of = ", of what is above chance" if row["rule"] == ABOVE_CHANCE else ""
    last = ", the longest measured" if length >= longest else ""
    low, high = row["length_low_tokens"], row["length_high_tokens"]
    text = f"{label} up to {whole(length)} tokens{of}{last}"
    if low is None:
        return length, text
    ends = f"{whole(low)} or more" if high is None else f"{whole(low)} to {whole(high)}"
    return length, f"{text} (95% {ends})"


def _texts(rows: Rows) -> list[str]:
    """Say how well a text is predicted, where nothing else was evaluated."""
    known = [r for r in rows("perplexities") if r["metric"] == "bits_per_byte" and r["value"] is not None]
    if not known:
        return []
    corpus = known[0]["corpus"]
    same = sorted((row for row in known if row["corpus"] == corpus), key=lambda row: row["value"])
    named = [f"{r['label']} {_with_interval({**r, 'unit': 'bits/byte'})}" for r in same[:_MOST_NAMED]]
    more = [plural(len(same) - _MOST_NAMED, "more model")] if len(same) > _MOST_NAMED else []
    return [f"{corpus} takes, lowest first: {'; '.join([*named, *more])}."]


def _doubt(rows: Rows) -> Words:
    """Say what to doubt: the worst first."""
    found = rows("warnings")
    if not found:
        return Words((NOTHING,), "good")
    wrong = grouped([row for row in found if row["severity"] == "wrong"])
    doubts = grouped([row for row in found if row["severity"] == "doubt"])
    notes = grouped([row for row in found if row["severity"] == "note"])
    worst = (wrong or doubts or notes)[0]
    counts = [
        f"{len(groups):,} {say}"
        for groups, say in (
            (wrong, "on figures that are missing or unusable"),
            (doubts, "on what may mislead"),
            (notes, "worth knowing"),
        )
        if groups
    ]
    of = where(worst)
    text = shortened(what(worst[0]).rstrip("."), _LONGEST_DOUBT)
    first = f"{of}: {text}" if of and of not in text else text
    n = len(wrong) + len(doubts) + len(notes)
    head = f"Warnings: {listed(counts)}; the first: " if n > 1 else "One warning: "
    return Words((f"{head}{first}.",), "bad" if wrong else "doubt" if doubts else "faint")
