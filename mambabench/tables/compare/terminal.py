"""A comparison as text for a terminal: the verdicts first, then what they rest on.

render(comparison)
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from mambabench.tables.compare import details
from mambabench.tables.compare.format import harmless, interval, p_value, signed, value
from mambabench.tables.compare.names import apart
from mambabench.tables.compare.words import (
    corrections,
    likelihood_tallies,
    limits,
    sensitivity,
    tallies,
    verdict_text,
    verdicts,
)
from mambabench.tables.console import console_on, fitting, no_room

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mambabench.compare.result import Comparison, Contrast, FamilyName, Verdict

_WIDTH_OF_FILES = 160
_LONGEST_NAMES = (28, 14)
_MOST_ROWS = 96
"""Of a table below the first one."""
_STYLE: dict[Verdict, str] = {
    "better": "bold green",
    "worse": "bold red",
    "equivalent": "cyan",
    "not distinguishable": "",
    "not tested": "dim",
}
_TITLES: dict[FamilyName, str] = {
    "tasks": "",
    "further metrics": "Further metrics",
    "log-likelihoods": "Log-likelihood of the right answer, in nats",
}
"""Of each table but the first, which has the comparison's."""
_SHOWABLE = "could\nshow"
_NAMES = (
    "metric", "n", "candidate", "value", "difference", "95% interval", "won/lost", "p adj.", _SHOWABLE,
    "verdict",
)  # fmt: skip
"""Of all columns but those that bear a side's label."""
_DROPPED_FIRST = (_SHOWABLE, "n", "won/lost")
_NARROW_HEADER = 9

Cell = Callable[["Contrast"], "str | Text"]
Column = tuple[str, Cell]


def render(comparison: Comparison, stream: TextIO | None = None) -> None:
    """Write a comparison to a stream, in colour where that is a terminal."""
    from rich.text import Text

    # Names and texts of items come from files and models.
    comparison = harmless(comparison)
    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    for (verdict, sentence), side in zip(verdicts(comparison), comparison.candidates, strict=True):
        console.print(Text(sentence, style=_STYLE[verdict] or "bold"))
        if counted := tallies(comparison, side.label):
            console.print(f"  {counted}", style="dim")
        if shown := likelihood_tallies(comparison, side.label):
            # Not dim: it may be all that was found.
            console.print(Text(f"  {shown}"))
    console.print()
    families = {name: [c for c in comparison.contrasts if c.family == name] for name in _TITLES}
    if families["tasks"]:
        _table(console, comparison, families["tasks"], comparison.title)
    for line in (
        *corrections(comparison),
        *sensitivity(comparison),
        *comparison.remarks,
        *limits(comparison),
    ):
        console.print(line, style="bold yellow" if line.startswith("PARTIAL") else "")
    for name, title in _TITLES.items():
        if title and families[name]:
            console.print()
            chosen = _telling(families[name], len(comparison.candidates))
            _table(console, comparison, chosen, title)
            if len(chosen) < len(families[name]):
                n_tasks = len({c.task for c in families[name]})
                console.print(f"Of {n_tasks} tasks those that tell most; `--json` has all.", style="dim")
    details.render(console, comparison)


def as_text(comparison: Comparison) -> str:
    """Return the comparison as plain text without colour."""
    stream = io.StringIO()
    render(comparison, stream)
    return stream.getvalue()


def _telling(contrasts: Sequence[Contrast], n_candidates: int) -> Sequence[Contrast]:
    """Return the contrasts of the tasks with the smallest p-values, in their order, as many as have room."""
    least: dict[str, float] = {}
    for c in contrasts:
        least[c.task] = min(least.get(c.task, 1.0), 1.0 if c.p_value is None else c.p_value)
    measures = -(-len(contrasts) // (len(least) * n_candidates))
    most = max(1, _MOST_ROWS // (measures * n_candidates))
    shown = set(sorted(least, key=lambda task: least[task])[:most])
    return [c for c in contrasts if c.task in shown]


def _table(console: Console, comparison: Comparison, contrasts: Sequence[Contrast], title: str) -> None:
    from rich.text import Text

    # What holds for all rows stands once.
    unpaired = all(not c.paired for c in contrasts)
    measures = {c.measure for c in contrasts} - {"log-likelihood"}
    only = f": {measures.pop()}" if len(measures) == 1 else ""
    heading = f"{title}{only}{', unpaired' if unpaired else ''}"
    console.print(Text(heading, style="bold"), soft_wrap=True)
    baseline, candidate = _value_names(comparison)
    one_measure = len({(c.task, c.measure) for c in contrasts}) == len({c.task for c in contrasts})
    # Where a task has several measures, rows without them could not be told apart.
    dropped = (*_DROPPED_FIRST, *(["metric"] if one_measure else []), candidate, baseline, "p adj.")
    drawn, _, left_out = fitting(
        console,
        _columns(comparison, contrasts, unpaired=unpaired),
        dropped,
        lambda columns, narrow: _drawn(contrasts, columns, baseline, narrow),
    )
    console.print(drawn)
    if left_out:
        console.print(no_room(left_out), style="dim")


def _columns(comparison: Comparison, contrasts: Sequence[Contrast], *, unpaired: bool) -> list[Column]:
    several = len(comparison.candidates) > 1
    baseline, candidate = _value_names(comparison)
    columns: list[Column] = [
        ("metric", lambda c: c.measure),
        ("n", _items),
        (baseline, lambda c: value(c.baseline_value, c.unit)),
        ("candidate", lambda c: c.candidate),
        (candidate, lambda c: value(c.candidate_value, c.unit)),
        ("difference", _difference),
        ("95% interval", lambda c: interval(c.low, c.high, c.effect_unit)),
        ("won/lost", lambda c: "" if c.n_won is None else f"{c.n_won:,}/{c.n_lost:,}"),
        ("p adj.", lambda c: p_value(c.p_adjusted)),
        (_SHOWABLE, _showable),
        ("verdict", lambda c: _verdict(c, marked=not (c.paired or unpaired))),
    ]
    if len({c.measure for c in contrasts}) == 1:
        columns = [c for c in columns if c[0] != "metric"]
    if not several:
        columns = [c for c in columns if c[0] != "candidate"]
    # A column without a figure only takes room.
    return [column for column in columns if any(str(column[1](c)).strip("- ") for c in contrasts)]


def _value_names(comparison: Comparison) -> tuple[str, str]:
    """Return the names of the columns of both values, which differ from those of all others."""
    several = len(comparison.candidates) > 1
    labels = comparison.baseline.label, "value" if several else comparison.candidates[0].label
    baseline, candidate = (f"{one} (side)" if one in _NAMES else one for one in labels)
    return baseline, "value" if several else candidate


def _drawn(contrasts: Sequence[Contrast], columns: Sequence[Column], baseline: str, narrow: bool) -> Table:
    from rich import box
    from rich.table import Table

    letters, most = _LONGEST_NAMES[narrow], _LONGEST_NAMES[0]
    tasks = apart((c.label for c in contrasts), letters, most)
    cut = {
        "metric": apart((c.measure for c in contrasts), letters, most),
        "candidate": apart((c.candidate for c in contrasts), letters, most),
    }
    headers = apart((name for name, _ in columns), letters, most)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    drawn.add_column("task", no_wrap=True)
    for name, _ in columns:
        words = name in ("metric", "candidate", "verdict")
        header = headers[name]
        if narrow and name not in _NAMES:
            header = textwrap.fill(header, _NARROW_HEADER)
        drawn.add_column(header, justify="left" if words else "right", no_wrap=True)
    before: Contrast | None = None
    for contrast in contrasts:
        row = [cell(contrast) for _, cell in columns]
        if before is not None and (before.task, before.measure) == (contrast.task, contrast.measure):
            # What is the same for all candidates stands once.
            same = ("metric", "n", baseline)
            drop = [name in same and cell(before) == cell(contrast) for name, cell in columns]
            row = ["" if gone else shown for gone, shown in zip(drop, row, strict=True)]
        task = "" if before is not None and before.task == contrast.task else contrast.label
        row = [
            cut[name].get(shown, shown) if isinstance(shown, str) and name in cut else shown
            for (name, _), shown in zip(columns, row, strict=True)
        ]
        drawn.add_row(tasks.get(task, ""), *row)
        before = contrast
    return drawn


def _items(contrast: Contrast) -> str:
    if not contrast.paired and contrast.n != contrast.n_candidate:
        return f"{contrast.n:,} / {contrast.n_candidate:,}"
    return f"{contrast.n:,}"


def _difference(contrast: Contrast) -> str:
    low, high = contrast.low, contrast.high
    width = None if low is None or high is None else high - low
    number = signed(contrast.difference, contrast.effect_unit, width)
    # Other units are those of the values.
    unit = {"pt": " pt", "%": "%"}.get(contrast.effect_unit, "")
    return number if number == "-" else f"{number}{unit}"


def _showable(contrast: Contrast) -> str:
    if contrast.detectable is None:
        return ""
    return signed(contrast.detectable, contrast.effect_unit).lstrip("+")


def _verdict(contrast: Contrast, *, marked: bool) -> Text:
    from rich.text import Text

    text = verdict_text(contrast)
    return Text(f"{text} (unpaired)" if marked else text, style=_STYLE[contrast.verdict])
