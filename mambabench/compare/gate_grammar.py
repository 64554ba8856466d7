"""Gates on a comparison: how they are written, what becomes of them, and the error that ends a command.

A gate names a change, candidate minus baseline, that must not happen: `hellaswag < -1pt` fails when the
candidate has lost more than a percentage point. `parse_gate` needs no results, so that a slip of the pen
shows before anything slow.

    >>> gate = parse_gate("lambada_openai.perplexity > +3%")
    >>> gate.name, gate.measure, gate.operator, gate.number, gate.unit
    ('lambada_openai', 'perplexity', '>', 3.0, '%')
    >>> parse_gate("ttft@prompt=4096,batch=8 >= 10 %").text
    'ttft@prompt=4096,batch=8 >= 10%'
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mambabench.errors import CellsFailedError, GateFailedError, UsageError

Operator = Literal["<", "<=", ">", ">="]
GateUnit = Literal["pt", "%", ""]
FailWhen = Literal["estimate", "certain"]
GateStatus = Literal["passed", "failed", "unknown"]
GRAMMAR: Final = (
    "Write NAME[.MEASURE][@POINT] OP NUMBER[pt|%], such as 'hellaswag < -1pt', 'any < -2pt', "
    "'lambada_openai.perplexity > 3%', 'tpot > 5%' or 'ttft@4096 > 10%'."
)
_SIZE_KEYS: Final = ("prompt", "batch", "gen", "chunk")
_WORD_KEYS: Final = ("arm", "attention", "dtype", "device")
_OPERATOR = re.compile(r"[<>]=?")
_NAME = re.compile(r"\w[^<>=@]*")
_MEASURE = re.compile(r"(?P<name>.*\w.*)\.(?P<measure>[A-Za-z][\w-]*)")
_NUMBER = re.compile(r"(?P<sign>[+-]?)\s*(?P<digits>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_SIZE = re.compile(r"[1-9]\d*")
_WORD = re.compile(r"\w[\w:.-]*")


@dataclass(frozen=True)
class Gate:
    """A threshold as it was written."""

    name: str
    """A task or its label, "any", "overall", or a figure of speed."""
    measure: str
    """A metric of the task; empty for the one that tables read."""
    point: tuple[tuple[str, int | str], ...]
    """Which places of a sweep, by key ("prompt", "batch", "gen", "chunk", "arm", "attention", "dtype",
    "device"); empty for all."""
    operator: Operator
    number: float
    unit: GateUnit
    """"pt": percentage points of a share; "%": change relative to the baseline; "": the measure's own."""

    @property
    def text(self) -> str:
        """The gate, written in one way."""
        measure = f".{self.measure}" if self.measure else ""
        at = f"@{','.join(f'{key}={value}' for key, value in self.point)}" if self.point else ""
        number = repr(self.number).removesuffix(".0")
        return f"{self.name}{measure}{at} {self.operator} {number}{self.unit}"

    def holds(self, value: float) -> bool:
        """Return whether a change is beyond the threshold; what rounding leaves of a tie is a tie."""
        if math.isclose(value, self.number, rel_tol=1e-9, abs_tol=1e-9):
            return self.operator in ("<=", ">=")
        return value < self.number if self.is_below else value > self.number

    @property
    def is_below(self) -> bool:
        """Whether small values cross it."""
        return self.operator.startswith("<")


@dataclass(frozen=True)
class GateResult:
    """What became of a gate for one candidate at one place."""

    gate: str
    """As it was written, but for spaces."""
    candidate: str
    where: str
    """Task and measure, or figure and place."""
    value: float | None
    """The change, candidate minus baseline; None where there is none."""
    low: float | None
    high: float | None
    """Ends of its 95% interval; None where there is none."""
    unit: str
    """Of all three."""
    crossed: bool
    """By the estimate."""
    certain: bool
    """Whether the whole interval is beyond the threshold."""
    status: GateStatus
    """"failed": crossed in the way that was asked for; "unknown": nothing could be decided."""
    why: str
    """What limits the answer, or what stands in for a value; may be empty."""


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Args:
        text: `NAME[.MEASURE][@POINT] OP NUMBER[UNIT]`. POINT is a prompt's length in tokens, or `KEY=VALUE`
            separated by commas. Spaces do not matter between the parts.

    Raises:
        UsageError: naming the letter where reading ended.
    """
    # A minus sign of typography arrives where commands are copied from documents.
    plain = text.replace("\N{MINUS SIGN}", "-")
    operator = _OPERATOR.search(plain)
    if operator is None:
        at = plain.find("=") if "=" in plain and "@" not in plain else len(plain.rstrip())
        raise _unreadable(text, at, "expected <, <=, > or >=")
    name, measure, point = _subject(text, plain[: operator.start()])
    number, unit = _threshold(text, plain, operator.end())
    return Gate(name, measure, point, _operator(operator[0]), number, unit)


def raise_for(results: Sequence[GateResult]) -> None:
    """Raise when a gate failed, or could not be decided: nothing passes because it is not known.

    Raises:
        GateFailedError: exit code 1, naming the first that failed and how many did.
        CellsFailedError: exit code 3, where none failed and some could not be decided.
    """
    failed = [r for r in results if r.status == "failed"]
    unknown = [r for r in results if r.status == "unknown"]
    n_gates = len({r.gate for r in results})
    if failed:
        more = _counted(failed, n_gates)
        raise GateFailedError(f"gate '{failed[0].gate}' failed: {_said(failed[0])}{more}")
    if unknown:
        more = _counted(unknown, n_gates)
        raise CellsFailedError(
            f"gate '{unknown[0].gate}' could not be decided: {_said(unknown[0])}{more}",
            hint="What is not known does not pass.",
        )


def written(value: float, unit: str) -> str:
    """Return a change with its sign and unit.

    >>> written(-1.25, "pt"), written(0.5, "%"), written(-0.0125, "nats")
    ('-1.25 pt', '+0.50%', '-0.0125 nats')
    """
    if unit in ("pt", "%"):
        return f"{value:+.2f}{' pt' if unit == 'pt' else '%'}"
    return f"{value:+.3g}{' ' if unit else ''}{unit}"


def _said(result: GateResult) -> str:
    change = "" if result.value is None else f" changed by {written(result.value, result.unit)}"
    why = f" ({result.why})" if result.why else ""
    return f"{result.candidate}: {result.where}{change}{why}"


def _counted(results: Sequence[GateResult], n_gates: int) -> str:
    if len(results) == 1:
        return ""
    n_concerned = len({r.gate for r in results})
    return f"; {len(results)} times in all, in {n_concerned} of {n_gates} gate{'s' if n_gates > 1 else ''}"


def _subject(text: str, before: str) -> tuple[str, str, tuple[tuple[str, int | str], ...]]:
    head, at, tail = before.partition("@")
    begin = len(head) - len(head.lstrip())
    name = _NAME.fullmatch(head.strip())
    if name is None:
        raise _unreadable(text, begin, "expected the name of a task or figure")
    words = " ".join(name[0].split())
    point = _point(text, tail, len(head) + 1) if at else ()
    dotted = _MEASURE.fullmatch(words)
    return (dotted["name"].strip(), dotted["measure"], point) if dotted else (words, "", point)


def _point(text: str, tail: str, begin: int) -> tuple[tuple[str, int | str], ...]:
    found: dict[str, int | str] = {}
    for part in tail.split(","):
        at = begin + len(part) - len(part.lstrip())
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            key, value = "prompt", key
        if key not in (*_SIZE_KEYS, *_WORD_KEYS):
            raise _unreadable(text, at, f"expected one of {', '.join((*_SIZE_KEYS, *_WORD_KEYS))}")
        if key in found:
            raise _unreadable(text, at, f"{key} is given twice")
        pattern, wanted = (_SIZE, "a number above 0") if key in _SIZE_KEYS else (_WORD, "a word")
        if pattern.fullmatch(value) is None:
            raise _unreadable(text, at, f"expected {wanted} for {key}")
        found[key] = int(value) if key in _SIZE_KEYS else value
        begin += len(part) + 1
    return tuple((key, found[key]) for key in (*_SIZE_KEYS, *_WORD_KEYS) if key in found)


def _threshold(text: str, plain: str, begin: int) -> tuple[float, GateUnit]:
    begin += len(plain[begin:]) - len(plain[begin:].lstrip())
    number = _NUMBER.match(plain, begin)
    if number is None:
        raise _unreadable(text, begin, "expected a number")
    value = float(number["sign"] + number["digits"])
    if not math.isfinite(value):
        raise _unreadable(text, begin, "expected a number that a float holds")
    rest = plain[number.end() :]
    match rest.strip():
        case "pt" | "%" | "" as unit:
            return value, unit
        case _:
            at = number.end() + len(rest) - len(rest.lstrip())
            raise _unreadable(text, at, "expected pt, % or nothing")


def _operator(sign: str) -> Operator:
    match sign:
        case "<" | "<=" | ">" | ">=":
            return sign
        case _:
            raise ValueError(sign)


def _unreadable(text: str, at: int, expected: str) -> UsageError:
    rest = text[at : at + 20].strip()
    seen = f"'{rest}'" if rest else "the end"
    return UsageError(
        f"gate '{text}' cannot be read at letter {at + 1}: {expected}, found {seen}", hint=GRAMMAR
    )
