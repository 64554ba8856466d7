"""Gates as lines of text: which failed, by how much, and how sure that is.

render(results)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from mambabench.compare.gate_grammar import GateStatus, parse_gate, written
from mambabench.tables.compare.format import harmless
from mambabench.tables.console import console_on
from mambabench.tables.speed.format import plural

if TYPE_CHECKING:
    from mambabench.compare.gate_grammar import GateResult

_WIDTH_OF_FILES = 140
_WORDS: dict[GateStatus, str] = {"failed": "FAILED", "unknown": "UNKNOWN", "passed": "passed"}
_STYLE: dict[GateStatus, str] = {"failed": "bold red", "unknown": "bold yellow", "passed": "green"}


def render(results: Sequence[GateResult], stream: TextIO | None = None) -> None:
    """Write what became of gates to a stream, in colour where that is a terminal."""
    from rich.text import Text

    console = console_on(stream or sys.stdout, _WIDTH_OF_FILES)
    for status, line in gate_lines(results):
        text = Text(f"{_WORDS[status]}  ", style=_STYLE[status])
        console.print(text.append(line, style="not bold default"))


def gate_lines(results: Sequence[GateResult]) -> list[tuple[GateStatus, str]]:
    """Return a line for each result that did not pass, and one for all that passed of a gate and candidate.

    The latter shows the result that came nearest to the threshold. Results that passed without a value have
    lines of their own, since something else than a figure decided them.
    """
    found: dict[tuple[str, str], list[GateResult]] = {}
    for result in harmless(tuple(results)):
        found.setdefault((result.gate, result.candidate), []).append(result)
    lines: list[tuple[GateStatus, str]] = []
    for (gate, candidate), own in found.items():
        head = f"{gate}  {candidate}: "
        shown = [r for r in own if r.status != "passed" or r.value is None]
        lines += [(r.status, f"{head}{_said(r)}") for r in shown]
        passed = [r for r in own if r.status == "passed" and r.value is not None]
        if passed:
            sign = -1 if parse_gate(gate).is_below else 1
            nearest = max(passed, key=lambda r: sign * (r.value or 0.0))
            rest = len(passed) - 1
            more = f"; nearest of {plural(rest + 1, 'result')}" if rest else ""
            lines.append(("passed", f"{head}{_said(nearest)}{more}"))
    return lines


def _said(result: GateResult) -> str:
    if result.value is None:
        return f"{result.where}: {result.why}"
    ends = ""
    if result.low is not None and result.high is not None and result.low < result.high:
        low, high = written(result.low, result.unit), written(result.high, result.unit)
        ends = f" (95% interval {low} to {high})"
    sure = ""
    if result.crossed:
        sure = ", certainly" if result.certain else ", by the estimate"
    why = f"; {result.why}" if result.why else ""
    return f"{result.where} {written(result.value, result.unit)}{ends}{sure}{why}"
