"""An advice as text for a terminal: the answer, candidates with their bounds, evidence, and what to measure.

render(advice)
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from mambabench.advise.result import Advice, Bound, Candidate, Check, Figure, Place
from mambabench.advise.words import BOUNDS_IN_WORDS, limit_of, problem, short, written
from mambabench.tables.console import console_on, fitting, no_room
from mambabench.tables.speed.format import listed, plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH_OF_FILES = 140
_LONGEST_NAMES = (36, 22)
_LONGEST_MACHINE = 18
_MOST_CANDIDATES = 30
_MOST_EVIDENCE = 5
_LONGEST_REASON = 100
_STYLES: Final = {"fits": "green", "fits with doubt": "yellow", "not known": "", "does not fit": "red"}
_DROPPED_FIRST: Final = ("attention", "chunk", "device", "dtype", "arm", "machine")
_FORECAST: Final = ("latency", "longcontext")
_MARKS: Final = {"kept": "", "doubt": " ?", "unknown": " ?", "broken": " x"}

Cell = Callable[[Candidate], str]


def render(advice: Advice, stream: TextIO | None = None) -> None:
    """Write an advice to a stream, in colour where that is a terminal."""
    from rich.text import Text

    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    for number, line in enumerate(advice.answer):
        console.print(Text(line, style="" if number else "bold"))
    if advice.candidates:
        _table(advice, console)
        _evidence(advice, console)
    for remark in advice.remarks:
        console.print(Text(f"note: {remark}", style="dim"))
    if advice.to_measure:
        console.print(Text("To be measured:", style="bold"))
        for one in advice.to_measure:
            console.print(Text(f"  {one.settles}", style="dim"), soft_wrap=True)
            # Whole, so that it can be copied.
            console.print(Text(f"    {one.text}"), soft_wrap=True)
        if any(one.command[1] in _FORECAST for one in advice.to_measure):
            names = " and ".join(f"`mambabench {name}`" for name in _FORECAST)
            console.print(Text(f"  How long {names} take is said by `--dry-run`.", style="dim"))


def as_text(advice: Advice) -> str:
    """Return an advice as plain text without colour."""
    stream = io.StringIO()
    render(advice, stream)
    return stream.getvalue()


def _table(advice: Advice, console: Console) -> None:
    from rich.text import Text

    shown = advice.candidates[:_MOST_CANDIDATES]
    table, _, left_out = fitting(
        console, _columns(shown), _dropped_first(advice), lambda kept, narrow: _drawn(shown, kept, narrow)
    )
    console.print(table)
    if len(advice.candidates) > len(shown):
        more = plural(len(advice.candidates) - len(shown), "more candidate")
        console.print(Text(f"{more} with `--json`.", style="dim"))
    if room := no_room(left_out):
        console.print(Text(room, style="dim"))
    console.print(Text(_legend(shown, advice), style="dim"))


def _dropped_first(advice: Advice) -> tuple[str, ...]:
    """Return columns in the order in which they are left out: what is bounded never is."""
    wish = advice.wish
    unbounded = [
        *(["average"] if wish.quality_percent is None else []),
        *(["recall"] if wish.recall_percent is None else []),
    ]
    return ("whole time", *unbounded, *_DROPPED_FIRST)


def _columns(shown: Sequence[Candidate]) -> list[tuple[str, Cell]]:
    machines = {candidate.setting.machine for candidate in shown} - {""}
    columns: list[tuple[str, Cell]] = [
        (
            "machine",
            lambda c: textwrap.fill(c.setting.machine, _LONGEST_MACHINE) if len(machines) > 1 else "",
        ),
        ("arm", lambda c: c.setting.arm),
        ("attention", lambda c: "" if c.setting.attention == "none" else c.setting.attention),
        ("dtype", lambda c: c.setting.dtype),
        ("device", lambda c: c.setting.device),
        ("chunk", lambda c: f"{c.setting.prefill_chunk_tokens:,}" if c.setting.prefill_chunk_tokens else ""),
        ("memory", lambda c: _cell(c.check("memory"))),
        ("TTFT", lambda c: _cell(c.check("ttft"), c.ttft)),
        ("TPOT", lambda c: _cell(c.check("tpot"), c.tpot)),
        ("recall", lambda c: _cell(c.check("recall"))),
        ("average", lambda c: _cell(c.check("quality"))),
        ("whole time", lambda c: "" if c.e2e is None else written(c.e2e.value, "s")),
    ]
    return [column for column in columns if any(column[1](candidate) for candidate in shown)]


def _cell(check: Check | None, figure: Figure | None = None) -> str:
    if check is None:
        return "" if figure is None else short(figure)
    if check.figure is None:
        return "no" if check.state == "broken" else "not known"
    # A figure that nothing is asked of is not in question.
    mark = _MARKS[check.state] if check.limit is not None else ""
    return f"{short(check.figure)}{mark}"


def _drawn(shown: Sequence[Candidate], columns: Sequence[tuple[str, Cell]], narrow: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("model", "verdict", *(name for name, _ in columns)):
        table.add_column(name, no_wrap=True)
    for candidate in shown:
        name = textwrap.fill(candidate.label, _LONGEST_NAMES[narrow], break_on_hyphens=False)
        verdict = Text(candidate.verdict, style=_STYLES[candidate.verdict])
        table.add_row(name, verdict, *(cell(candidate) for _, cell in columns))
    return table


def _legend(shown: Sequence[Candidate], advice: Advice) -> str:
    wish = advice.wish
    figures = [f for c in shown for f in (c.ttft, c.tpot, *(check.figure for check in c.checks)) if f]
    limits = {limit_of(check) for c in shown for check in c.checks if check.limit is not None}
    parts = [
        f"Batch {wish.conversations:,}, {wish.prompt_len_tokens:,} + {wish.gen_len_tokens:,} tokens",
        f"bounds: {', '.join(sorted(limits))}" if limits else "no bounds",
        "TTFT: time to first token, TPOT: of each later one" if any(f.unit == "s" for f in figures) else "",
        "[ ]: 95% interval" if any(f.is_interval for f in figures) else "",
        "( ): range of processes" if any(f.method == "range" for f in figures) else "",
        "~: between measured points" if any(f.kind == "between" for f in figures) else "",
        "≥, ≤: bounded by other points or by sizes" if any(f.kind.startswith("at") for f in figures) else "",
        "?: in doubt or not known, x: broken",
    ]
    return f"{'; '.join(filter(None, parts))}."


def _evidence(advice: Advice, console: Console) -> None:
    from rich.text import Text

    console.print(Text("Evidence:", style="bold"))
    for candidate in advice.candidates[:_MOST_EVIDENCE]:
        console.print(Text(f"  {candidate.label}, {candidate.setting.text}: {candidate.verdict}"))
        for line in _lines(candidate):
            console.print(Text(f"    {line}"), soft_wrap=True)
        for doubt in candidate.all_doubts:
            console.print(Text(f"    doubt: {doubt}", style="yellow"), soft_wrap=True)
        for remark in dict.fromkeys([*(r for c in candidate.checks for r in c.remarks), *candidate.remarks]):
            console.print(Text(f"    note: {remark}", style="dim"), soft_wrap=True)


def _lines(candidate: Candidate) -> list[str]:
    lines = []
    unknown: dict[str, list[str]] = {}
    for check in candidate.checks:
        if check.figure is None:
            unknown.setdefault(check.why, []).append(BOUNDS_IN_WORDS[check.bound])
    lines += [f"{listed(names)}: {why}" for why, names in unknown.items()]
    for check in candidate.checks:
        if check.figure is None:
            continue
        if check.state in ("unknown", "broken"):
            lines.append(problem(check))
        else:
            against = f", {limit_of(check)}" if check.limit is not None else ""
            why = f" ({check.why})" if check.why else ""
            lines.append(
                f"{BOUNDS_IN_WORDS[check.bound]} {short(check.figure)}{against}{why}; {_places(check.figure)}"
            )
        if check.parts:
            lines.append("  by task: " + ", ".join(f"{task} {short(part)}" for task, _, part in check.parts))
    times: tuple[tuple[Bound, Figure | None], ...] = (("ttft", candidate.ttft), ("tpot", candidate.tpot))
    for bound, figure in times:
        if figure is not None and candidate.check(bound) is None:
            lines.append(f"{BOUNDS_IN_WORDS[bound]} {short(figure)}; {_places(figure)}")
    return lines


def _places(figure: Figure) -> str:
    if not figure.places:
        return "computed from sizes"
    runs = list(dict.fromkeys(place.run for place in figure.places))
    points = " and ".join(_place(place, figure) for place in figure.places)
    of = plural(figure.n, "question") if figure.unit == "%" else plural(figure.n, "process", "processes")
    return ", ".join([points, *([of] if figure.n else []), f"run {', '.join(runs)}"])


def _place(place: Place, figure: Figure) -> str:
    if figure.unit == "%":
        return f"at {place.prompt_len_tokens:,} tokens" if place.prompt_len_tokens else "over its tasks"
    at = f"at {place.prompt_len_tokens:,} + {place.gen_len_tokens:,} tokens, batch {place.batch_size:,}"
    if len(figure.places) == 1 or place.value is None:
        return at
    return f"{written(place.value, figure.unit)} {at}"
