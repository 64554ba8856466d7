"""What is found for a wish: candidates with their checks and evidence, a choice, and what is left to measure.

>>> Figure(0.5, 0.4, 0.6, kind="measured", unit="s", method="range", n=3).is_interval
False
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from mambabench.advise.wish import Wish

Kind = Literal["measured", "between", "at least", "at most"]
Bound = Literal["memory", "ttft", "tpot", "recall", "quality"]
State = Literal["kept", "doubt", "unknown", "broken"]
Verdict = Literal["fits", "fits with doubt", "not known", "does not fit"]

BOUNDS: Final[tuple[Bound, ...]] = ("memory", "ttft", "tpot", "recall", "quality")
VERDICTS: Final[tuple[Verdict, ...]] = ("fits", "fits with doubt", "not known", "does not fit")
"""From the best to the worst: tightening a bound only ever leads further along."""

_VERDICT_OF: Final[dict[State, Verdict]] = {
    "kept": "fits",
    "doubt": "fits with doubt",
    "unknown": "not known",
    "broken": "does not fit",
}
_STATES: Final[tuple[State, ...]] = ("kept", "doubt", "unknown", "broken")


@dataclass(frozen=True)
class Place:
    """A measured point, or a measured length of recall."""

    run: str
    prompt_len_tokens: int
    """Of recall and of averages the length of the samples, or 0."""
    gen_len_tokens: int = 0
    batch_size: int = 1
    value: float | None = None
    """In the figure's unit."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Figure:
    """A figure at the wish, and where it comes from."""

    value: float
    low: float | None
    """Lower end, as the method says; between two points the lower of both ends."""
    high: float | None
    kind: Kind
    """"measured": at the wish itself; "between": between two measured points, `value` by interpolation of
    logarithms; "at least": of a smaller point, or computed from sizes; "at most": of a larger point."""
    unit: Literal["s", "B", "%"]
    method: str = ""
    """"t on log", "range" or "single" of times and bytes; empty for shares."""
    n: int = 0
    """Processes, at the end with fewer of them; of shares the questions."""
    places: tuple[Place, ...] = ()

    @property
    def is_interval(self) -> bool:
        """Whether the ends are those of a 95% interval."""
        both = self.low is not None and self.high is not None
        return both and self.method in ("t on log", "")


@dataclass(frozen=True)
class Check:
    """One bound held against what is known of one candidate."""

    bound: Bound
    limit: float | None
    """In seconds, bytes or percent; None where there is none, and something is looked at all the same."""
    state: State
    figure: Figure | None = None
    why: str = ""
    """What it says, in a phrase."""
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """What is worth knowing and takes nothing away."""
    parts: tuple[tuple[str, int, Figure], ...] = ()
    """Of recall: task, length and accuracy, one a task at the length that counts."""
    close: bool = False
    """Whether it was measured, and more of the same would settle it."""


@dataclass(frozen=True, order=True)
class Setting:
    """How a model is run; empty where a model has not been run."""

    machine: str = ""
    """Processor or GPU by its product name."""
    device: str = ""
    dtype: str = ""
    arm: str = ""
    attention: str = ""
    prefill_chunk_tokens: int = 0
    """0 for all at once."""

    @property
    def text(self) -> str:
        """Say it in a phrase."""
        if not self.device:
            return "never measured"
        attention = "" if self.attention in ("", "none", "sdpa") else f"{self.attention} attention"
        chunk = f"prefill in pieces of {self.prefill_chunk_tokens:,}" if self.prefill_chunk_tokens else ""
        return ", ".join(filter(None, (f"{self.arm} arm", attention, self.dtype, self.device, chunk)))


@dataclass(frozen=True)
class Candidate:
    """One model in one setting, judged."""

    label: str
    model: str
    setting: Setting
    batch_size: int
    checks: tuple[Check, ...]
    e2e: Figure | None
    """Time from the prompts to the last token."""
    ttft: Figure | None = None
    """Time to the first token, whether or not it is bounded."""
    tpot: Figure | None = None
    """Time of a later token, likewise."""
    comparable: tuple[str, ...] = ()
    """Tasks that the quality is over: those of others are compared only if they are the same."""
    doubts: tuple[str, ...] = ()
    """That belong to no single bound."""
    remarks: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, Setting]:
        """Return what tells it from others, and in what order it comes."""
        return (self.label, self.model, self.setting)

    @property
    def state(self) -> State:
        """Return the worst of its checks' states."""
        worst: State = max((check.state for check in self.checks), key=_STATES.index, default="unknown")
        return "doubt" if worst == "kept" and self.doubts else worst

    @property
    def verdict(self) -> Verdict:
        """Say whether it fits."""
        return _VERDICT_OF[self.state]

    def check(self, bound: Bound) -> Check | None:
        """Return the check of a bound, None where it was not looked at."""
        return next((check for check in self.checks if check.bound == bound), None)

    def figure(self, bound: Bound) -> Figure | None:
        """Return the figure that a bound was held against."""
        check = self.check(bound)
        return None if check is None else check.figure

    @property
    def all_doubts(self) -> tuple[str, ...]:
        """Return the doubts of all checks and its own, each once."""
        return tuple(dict.fromkeys([*(d for check in self.checks for d in check.doubts), *self.doubts]))


@dataclass(frozen=True)
class Measurement:
    """A command that would settle something, and what that is."""

    command: tuple[str, ...]
    settles: str

    @property
    def text(self) -> str:
        """Return the command as it is typed."""
        import shlex

        return shlex.join(self.command)


@dataclass(frozen=True)
class Advice:
    """What the stored runs say about a wish."""

    wish: Wish
    candidates: tuple[Candidate, ...]
    """The chosen one first, then by verdict; within a verdict by preference."""
    chosen: Candidate | None
    ties: tuple[Candidate, ...] = ()
    """Those that fit as well, and cannot be told from the chosen one in what decides."""
    answer: tuple[str, ...] = ()
    """One or two sentences."""
    remarks: tuple[str, ...] = ()
    to_measure: tuple[Measurement, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 0 where the runs answer the question, if by saying that nothing fits, and otherwise 4."""
        if self.chosen is not None:
            return 0
        return 0 if self.candidates and all(c.state == "broken" for c in self.candidates) else 4

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "schema_version": 1,
            "wish": asdict(self.wish),
            "answer": list(self.answer),
            "chosen": None if self.chosen is None else _as_json(self.chosen),
            "ties": [_as_json(candidate) for candidate in self.ties],
            "candidates": [_as_json(candidate) for candidate in self.candidates],
            "remarks": list(self.remarks),
            "to_measure": [
                {"command": m.text, "arguments": list(m.command), "settles": m.settles}
                for m in self.to_measure
            ],
        }


def judged(check: Check, *, at_most: bool) -> Check:
    """Return a check with the state that its figure's ends give it.

    Kept where the far end is within the limit and nothing is doubted; broken where the near end is beyond;
    in doubt where the value is within and the end is not; not known where the value is beyond and the end is
    not, as then the opposite is the likelier.

    Args:
        check: with a limit and a figure; its state is not looked at.
        at_most: whether the limit is the most that is allowed, else the least that is needed.
    """
    figure, limit = check.figure, check.limit
    assert figure is not None
    assert limit is not None
    sign = 1.0 if at_most else -1.0
    near, far = (figure.low, figure.high) if at_most else (figure.high, figure.low)
    value = sign * (figure.value - limit)
    if near is not None and sign * (near - limit) > 0:
        return replace(check, state="broken")
    if value > 0:
        return replace(check, state="unknown", close=True)
    if far is None or sign * (far - limit) > 0:
        return replace(check, state="doubt", close=True)
    return replace(check, state="doubt" if check.doubts else "kept")


def _as_json(candidate: Candidate) -> dict[str, Any]:
    written = asdict(candidate)
    return {"verdict": candidate.verdict, **written, "all_doubts": list(candidate.all_doubts)}
