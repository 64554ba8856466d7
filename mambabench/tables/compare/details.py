"""What changed item by item, how sides know what they know, and their ranking: below a comparison's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mambabench.tables.compare.format import interval, shortened, signed
from mambabench.tables.compare.names import apart
from mambabench.tables.console import fitting, no_room
from mambabench.tables.speed.format import plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mambabench.compare.result import (
        Calibration,
        CategoryChange,
        Comparison,
        Ranking,
        Shift,
        TaskChanges,
    )

_MOST_CATEGORIES = 8
_MOST_CALIBRATED = 8
_SHARE_BY_CHANCE = 0.05
_LONGEST_NAME = 24
_LEAST_TEXT = 24
_LONGEST_ANSWER = 48
_KINDS = {"lost": "lost", "won": "won", "shifts": "shifted most"}


def render(console: Console, comparison: Comparison) -> None:
    """Write categories, examples, calibration and ranking, as far as there are any.

    Args:
        console: to write on.
        comparison: with texts that do no harm.
    """
    _categories(console, comparison)
    _examples(console, comparison)
    _calibrations(console, comparison)
    if comparison.ranking is not None:
        _ranking(console, comparison.ranking)


def moved(comparison: Comparison) -> tuple[list[CategoryChange], int]:
    """Return categories whose interval leaves out 0, largest differences first, and how many there are."""
    every = [c for changes in comparison.changes for c in changes.categories]
    found = [c for c in every if not c.low <= 0 <= c.high]
    return sorted(found, key=lambda c: -abs(c.difference)), len(every)


def _categories(console: Console, comparison: Comparison) -> None:
    found, n_all = moved(comparison)
    if not n_all:
        return
    _heading(console, "Categories that moved most")
    most = -(-_MOST_CATEGORIES // len(comparison.candidates))
    shown = [
        c for side in comparison.candidates for c in [f for f in found if f.candidate == side.label][:most]
    ]
    if found:
        labels = {c.task: c.label for c in comparison.changes}
        sides = apart((side.label for side in comparison.candidates), _LONGEST_NAME)
        tasks = apart((labels.get(c.task, c.task) for c in shown), _LONGEST_NAME)
        columns: list[tuple[str, Callable[[CategoryChange], str]]] = [
            ("candidate", lambda c: sides[c.candidate]),
            ("task", lambda c: tasks[labels.get(c.task, c.task)]),
            ("by", lambda c: c.by),
            ("category", lambda c: shortened(c.category, _LONGEST_NAME)),
            ("n", lambda c: f"{c.n:,}"),
            ("won", lambda c: f"{c.n_won:,}"),
            ("lost", lambda c: f"{c.n_lost:,}"),
            ("difference", lambda c: f"{signed(c.difference, 'pt', c.high - c.low)} pt"),
            ("95% interval", lambda c: interval(c.low, c.high, "pt")),
        ]

        def draw(kept: Sequence[tuple[str, Callable[[CategoryChange], str]]], narrow: bool) -> Table:
            drawn = _frame()
            for name, _ in kept:
                words = name in ("candidate", "task", "by", "category")
                drawn.add_column(name, justify="left" if words else "right", no_wrap=True)
            for change in shown:
                drawn.add_row(*(cell(change) for _, cell in kept))
            return drawn

        table, _, left_out = fitting(console, columns, ("by", "lost", "won", "n"), draw)
        console.print(table)
        if left_out:
            console.print(no_room(left_out), style="dim")
    n_left = len(found) - len(shown)
    # Exact intervals of few items leave 0 out in less than 5% of the cases.
    by_chance = round(_SHARE_BY_CHANCE * n_all)
    expected = f"of so many about {by_chance:,} or fewer" if by_chance else "of so few hardly one"
    more = f" {n_left:,} more are not shown." if n_left > 0 else ""
    console.print(
        f"{len(found):,} of {plural(n_all, 'category', 'categories')} have an interval without 0; {expected} "
        f"would by chance alone.{more}",
        style="dim",
    )


def _examples(console: Console, comparison: Comparison) -> None:
    from rich.text import Text

    most = comparison.options.n_examples
    for side in comparison.candidates:
        changes = [c for c in comparison.changes if c.candidate == side.label]
        for kind, words in _KINDS.items():
            shown = _chosen(changes, kind, most)
            if not shown:
                continue
            n = [count for c in changes if (count := getattr(c, f"n_{kind}", None)) is not None]
            many = f": {plural(sum(n), 'item')}, for example" if kind != "shifts" else ""
            heading = (
                f"{'Log-likelihood ' if kind == 'shifts' else 'Items '}{words} by {side.label}"
                f"{many if n or kind == 'shifts' else ''}"
            )
            _heading(console, heading)
            labels = {c.task: c.label for c in changes}
            for shift in shown:
                for line in _item(shift, labels[shift.task], comparison.baseline.label, console.width):
                    console.print(Text(line), soft_wrap=True)


def _chosen(changes: Sequence[TaskChanges], kind: str, most: int) -> list[Shift]:
    """Return a few examples of one kind: the largest shift of each task first, then the next ones."""
    by_task = [sorted(getattr(c, kind), key=lambda s: -_size(s)) for c in changes]
    rounds = [[found[place] for found in by_task if place < len(found)] for place in range(most)]
    ordered = [shift for found in rounds for shift in sorted(found, key=lambda s: -_size(s))]
    return ordered[:most]


def _size(shift: Shift) -> float:
    old, new = shift.baseline_log_likelihood, shift.candidate_log_likelihood
    return 0.0 if old is None or new is None else abs(new - old)


def _item(shift: Shift, label: str, baseline: str, width: int) -> list[str]:
    """Return the lines of one item: what was asked, and what each side made of it."""
    task = label if shift.member in ("", shift.task) else f"{label}, {shift.member}"
    where = f"  {shortened(task, 2 * _LONGEST_NAME)} #{shift.doc_id}  "
    room = max(_LEAST_TEXT, width - len(where))
    answers = [f"right: {_answer(shift.right_answer)}"] if shift.right_answer else []
    if shift.baseline_answer or shift.candidate_answer:
        answers.append(f"{shortened(baseline, _LONGEST_NAME)}: {_answer(shift.baseline_answer)}")
        answers.append(f"{shortened(shift.candidate, _LONGEST_NAME)}: {_answer(shift.candidate_answer)}")
    old, new = shift.baseline_log_likelihood, shift.candidate_log_likelihood
    if old is not None and new is not None:
        what = "the right one" if shift.right_answer else "all of it"
        answers.append(f"log-likelihood of {what} {old:.2f} to {new:.2f}")
    lines = [f"{where}{shortened(shift.text, room, keep_end=True)}"]
    line = ""
    for part in answers:
        joined = f"{line} | {part}" if line else f"      {part}"
        if line and len(joined) > width:
            lines.append(line)
            joined = f"      {part}"
        line = joined
    return [*lines, line] if line else lines


def _answer(text: str) -> str:
    return f"'{shortened(text.strip(), _LONGEST_ANSWER)}'" if text.strip() else "not known"


def _calibrations(console: Console, comparison: Comparison) -> None:
    if not comparison.calibrations:
        return
    sides = list(dict.fromkeys(c.side for c in comparison.calibrations))
    by_task: dict[str, dict[str, Calibration]] = {}
    for one in comparison.calibrations:
        by_task.setdefault(one.task, {})[one.side] = one
    shown = sorted(by_task, key=lambda task: -_spread(by_task[task].values()))[:_MOST_CALIBRATED]
    _heading(
        console,
        "Calibration: mean distance of confidence and accuracy less what noise adds (95%), then confidence - "
        "accuracy as it is",
    )
    names = apart(sides, _LONGEST_NAME)
    columns = [(names[side], side) for side in sides]
    tasks = apart((next(iter(by_task[task].values())).label for task in shown), _LONGEST_NAME)

    def draw(kept: Sequence[tuple[str, str]], narrow: bool) -> Table:
        drawn = _frame()
        drawn.add_column("task", no_wrap=True)
        for name, _ in kept:
            drawn.add_column(name, justify="right", no_wrap=True)
        for task in (task for task in by_task if task in shown):
            label = next(iter(by_task[task].values())).label
            cells = [_calibrated(by_task[task].get(side), narrow=narrow) for _, side in kept]
            drawn.add_row(tasks[label], *cells)
        return drawn

    table, _, left_out = fitting(console, columns, [name for name, _ in reversed(columns[2:])], draw)
    console.print(table)
    notes = [no_room(left_out)]
    if len(by_task) > len(shown):
        notes.append(f"Of {len(by_task)} tasks those where sides differ most.")
    for line in filter(None, notes):
        console.print(line, style="dim")


def _calibrated(found: Calibration | None, *, narrow: bool) -> str:
    if found is None:
        return "-"
    ends = "" if narrow else f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
    excess = signed(100 * (found.mean_confidence - found.accuracy), "pt")
    return f"{100 * found.error:.1f}{ends}, {excess}"


def _spread(found: Iterable[Calibration]) -> float:
    errors = [one.error for one in found]
    return max(errors) - min(errors)


def _ranking(console: Console, ranking: Ranking) -> None:
    _heading(console, "Ranking")
    drawn = _frame()
    for name in ("group", "side", "strength", "95% interval"):
        drawn.add_column(name, justify="left" if name == "side" else "right", no_wrap=True)
    for rank in ranking.ranks:
        groups = ", ".join(str(group) for group in rank.groups or (rank.group,))
        ends = f"{rank.low:.3f} to {rank.high:.3f}"
        drawn.add_row(groups, shortened(rank.label, 2 * _LONGEST_NAME), f"{rank.strength:.3f}", ends)
    console.print(drawn)
    method = ranking.method.rstrip(".")
    console.print(
        f"Over {plural(ranking.n_items, 'item')} of {plural(len(ranking.tasks), 'task')}, on "
        f"{ranking.n_decisive:,} of which sides differ. {method}. A ranking is no test against the baseline.",
        style="dim",
    )


def _heading(console: Console, words: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text(words, style="bold"))


def _frame() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False)
