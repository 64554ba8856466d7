"""A comparison of sweeps as text for a terminal: ratios by place, then what they rest on.

render(comparison)
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO, get_args

from mambabench.compare.speed_result import SpeedVerdict
from mambabench.stats.process_ratio import N_FOR_BOOTSTRAP
from mambabench.stats.replicates import N_FOR_INTERVAL
from mambabench.tables.compare.format import harmless, p_value, shortened
from mambabench.tables.console import console_on, fitting, no_room
from mambabench.tables.speed.format import listed, number, plural, seconds, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mambabench.compare.speed_result import Difference, SpeedComparison, SpeedContrast, SpeedUnit

_WIDTH_OF_FILES = 140
_LONGEST_NAMES = (28, 16)
_STYLE: dict[SpeedVerdict, str] = {
    "faster": "bold green",
    "less": "bold green",
    "slower": "bold red",
    "more": "bold red",
    "no difference": "cyan",
    "not distinguishable": "",
    "not tested": "dim",
}
_WRITE: dict[SpeedUnit, Callable[[float], str]] = {
    "s": seconds,
    "bytes": size,
    "tokens/s": lambda v: f"{number(v)} tok/s",
    "J/token": lambda v: f"{number(v)} J/tok",
}
_DROPPED_FIRST = ("p adj.", "processes")
_WORDS = ("place", "figure", "candidate", "verdict")
_MOST_DIFFERENCES = 12

Cell = Callable[["SpeedContrast"], "str | Text"]
Column = tuple[str, Cell]
Line = tuple[str, str]
"""A sentence and its style."""


def render(comparison: SpeedComparison, stream: TextIO | None = None) -> None:
    """Write a comparison to a stream, in colour where that is a terminal."""
    from rich.text import Text

    # Labels come from the command line, details from models' libraries.
    comparison = harmless(comparison)
    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    for line in tallies(comparison):
        console.print(Text(line, style="bold"))
    for line, style in _first(comparison):
        console.print(Text(line, style=style))
    if comparison.contrasts:
        _table(console, comparison)
    for line, style in (*outcome_lines(comparison), *notes(comparison)):
        console.print(Text(line, style=style))


def as_text(comparison: SpeedComparison) -> str:
    """Return the comparison as plain text without colour."""
    stream = io.StringIO()
    render(comparison, stream)
    return stream.getvalue()


def tallies(comparison: SpeedComparison) -> list[str]:
    """Say for each candidate how often which verdict was given."""
    said = []
    for side in comparison.candidates:
        own = [c for c in comparison.contrasts if c.match.candidate == side.label]
        counts = Counter(c.verdict for c in own)
        order: tuple[SpeedVerdict, ...] = get_args(SpeedVerdict)
        parts = [f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict]]
        of = f"{plural(len(own), 'figure')} at {plural(len({c.match for c in own}), 'place')}"
        words = f"of {of} {listed(parts)}" if parts else "nothing could be compared"
        said.append(f"{side.label} against {comparison.baseline.label}: {words}.")
    return said


def outcome_lines(comparison: SpeedComparison) -> list[Line]:
    """Say where a side did not end well; what only one side can run is said loudly."""
    lines = []
    for outcome in comparison.outcomes:
        alike = outcome.baseline_status == outcome.candidate_status
        where = comparison.where(outcome.match)
        lines.append((f"{where}: {outcome.words}.", "" if alike else "bold red"))
    return lines


def notes(comparison: SpeedComparison) -> list[Line]:
    """Say how ratios, intervals and verdicts were had, what else differs, and what limits them."""
    lines: list[Line] = [(line, "dim") for line in _methods(comparison)]
    for side in comparison.candidates:
        quiet = [d for d in comparison.differences if d.candidate == side.label and not d.loud]
        if quiet:
            shown = "; ".join(d.describe() for d in quiet[:_MOST_DIFFERENCES])
            more = len(quiet) - _MOST_DIFFERENCES
            rest = f"; {more} more in the JSON" if more > 0 else ""
            lines.append((f"Also different, {comparison.baseline.label} -> {side.label}: {shown}{rest}.", ""))
    lines += [(remark, "bold yellow" if "partial" in remark else "") for remark in comparison.remarks]
    remarks = dict.fromkeys(f"{c.label}: {r}." for c in comparison.contrasts for r in c.remarks)
    return [*lines, *((remark, "yellow") for remark in remarks)]


def _first(comparison: SpeedComparison) -> list[Line]:
    """Return what must be known before a ratio is read: another machine."""
    loud = [d for d in comparison.differences if d.loud]
    return [
        (
            f"NOT ALIKE: {_of_side(d, comparison)}; ratios say as much of that as of what is compared.",
            "bold yellow",
        )
        for d in loud
    ]


def _of_side(difference: Difference, comparison: SpeedComparison) -> str:
    before, after = difference.baseline_value or "none", difference.candidate_value or "none"
    baseline = comparison.baseline.label
    return f"{difference.what} of {baseline} {before}, of {difference.candidate} {after}"


def _methods(comparison: SpeedComparison) -> list[str]:
    contrasts = comparison.contrasts
    methods = {c.method for c in contrasts}
    if not methods:
        return []
    said = ["Ratios are candidate over baseline, of geometric means over fresh processes."]
    how = {
        "t on log": "Student's t on the logarithms of pairs",
        "Welch t on log": f"Welch's t on logarithms, below {N_FOR_BOOTSTRAP} processes a side",
        "bootstrap t on log": f"a bootstrap over processes ({comparison.options.replicates:,} resamples)",
    }
    used = [words for method, words in how.items() if method in methods]
    if used:
        said.append(f"95% intervals, not adjusted for the number of tests: {listed(used)}.")
    for family in comparison.families:
        said.append(f"Verdicts rest on {family.describe()}.")
    if "exact" in methods:
        said.append("Exact: every process of a side gave the same bytes.")
    if methods & {"range", "single"}:
        said.append(
            f"Fewer than {N_FOR_INTERVAL} processes a side give no interval and no verdict, only the range "
            f"of the ratios: measure with `--processes {N_FOR_INTERVAL}` or more."
        )
    if any(c.verdict == "no difference" and c.method != "exact" for c in contrasts):
        said.append(f"No difference: shown to lie within {100 * contrasts[0].margin:g}%.")
    if any(c.within_margin for c in contrasts):
        said.append(f"(small): a difference, and within {100 * contrasts[0].margin:g}%.")
    return said


def _table(console: Console, comparison: SpeedComparison) -> None:
    from rich.text import Text

    console.print(Text(comparison.title, style="bold"), soft_wrap=True)
    drawn, _, left_out = fitting(
        console,
        _columns(comparison),
        _DROPPED_FIRST,
        lambda columns, narrow: _drawn(comparison, columns, narrow),
    )
    console.print(drawn)
    if left_out:
        console.print(no_room(left_out), style="dim")


def _columns(comparison: SpeedComparison) -> list[Column]:
    several = len(comparison.candidates) > 1
    with_intervals = any(c.p_value is not None for c in comparison.contrasts)
    columns: list[Column] = [
        ("place", lambda c: comparison.where(c.match)),
        ("figure", lambda c: c.label),
        ("candidate", lambda c: c.match.candidate),
        (comparison.baseline.label, lambda c: _WRITE[c.unit](c.baseline_value)),
        (
            "value" if several else comparison.candidates[0].label,
            lambda c: _WRITE[c.unit](c.candidate_value),
        ),
        ("ratio", lambda c: ratio(c.ratio)),
        ("95% interval" if with_intervals else "range", _ends),
        ("processes", _processes),
        ("p adj.", lambda c: "" if c.p_adjusted is None else p_value(c.p_adjusted)),
        ("verdict", _verdict),
    ]
    dropped = {name for name, cell in columns if not any(map(str, map(cell, comparison.contrasts)))}
    return [c for c in columns if c[0] not in dropped and (several or c[0] != "candidate")]


def _drawn(comparison: SpeedComparison, columns: Sequence[Column], narrow: bool) -> Table:
    from rich import box
    from rich.table import Table

    letters = _LONGEST_NAMES[narrow]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    for name, _ in columns:
        drawn.add_column(
            shortened(name, letters), justify="left" if name in _WORDS else "right", no_wrap=True
        )
    before: SpeedContrast | None = None
    for contrast in comparison.contrasts:
        row = [cell(contrast) for _, cell in columns]
        if before is not None and before.match == contrast.match:
            row = ["" if n == "place" else shown for (n, _), shown in zip(columns, row, strict=True)]
        elif before is not None:
            drawn.add_section()
        cut = [
            shortened(shown, letters) if name in _WORDS and isinstance(shown, str) else shown
            for (name, _), shown in zip(columns, row, strict=True)
        ]
        drawn.add_row(*cut)
        before = contrast
    return drawn


def ratio(value: float) -> str:
    """Return a ratio with the digits that a margin of 2% takes.

    >>> ratio(1.0123), ratio(41.013), ratio(0.00012)
    ('1.012', '41.0', '0.000120')
    """
    return f"{value:.3f}" if 0.01 <= value < 10 else number(value)


def _ends(contrast: SpeedContrast) -> str:
    if contrast.method == "exact":
        return "exact"
    if contrast.method == "single":
        return "one process"
    words = "range " if contrast.method == "range" else ""
    return f"{words}{ratio(contrast.low)} to {ratio(contrast.high)}"


def _processes(contrast: SpeedContrast) -> str:
    if contrast.paired:
        return plural(contrast.n_candidate, "pair")
    return f"{contrast.n_baseline} / {contrast.n_candidate}"


def _verdict(contrast: SpeedContrast) -> Text:
    from rich.text import Text

    small = " (small)" if contrast.within_margin else ""
    return Text(f"{contrast.verdict}{small}", style=_STYLE[contrast.verdict])
