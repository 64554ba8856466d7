"""What a comparison of sweeps says, as plain data: ratios of figures, what ran out of memory, what differs.

Every format renders these and nothing else. Ratios are candidate over baseline.

    >>> place = Place(batch_size=1, prompt_len_tokens=4096, gen_len_tokens=64)
    >>> place.describe()
    'prompt 4,096, batch 1, 64 generated'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from mambabench.compare.result import CompareOptions, Family, Side
from mambabench.speed_schema import Arm, Attention, PointRecord, Status, SweepKind
from mambabench.stats.process_ratio import RatioMethod

SpeedVerdict = Literal[
    "faster", "slower", "less", "more", "no difference", "not distinguishable", "not tested"
]
SpeedUnit = Literal["s", "tokens/s", "bytes", "J/token"]
PointStatus = Status | Literal["missing"]
NO_PLACE: Final[frozenset[PointStatus]] = frozenset({"oom", "skipped_after_oom", "unsupported"})
"""Statuses that are results: the model cannot run there."""
_SIZES: Final = {
    "prompt_len_tokens": "prompt {:,}",
    "batch_size": "batch {:,}",
    "gen_len_tokens": "{:,} generated",
    "prefill_chunk_tokens": "chunks of {:,}",
    "turn_len_tokens": "turns of {:,}",
    "n_forks": "{:,} forks",
}


@dataclass(frozen=True, order=True)
class Place:
    """What is asked of both sides alike."""

    batch_size: int
    prompt_len_tokens: int
    gen_len_tokens: int
    prefill_chunk_tokens: int = 0
    """0 for prompts forwarded at once."""
    turn_len_tokens: int = 0
    """Of the turn that follows a conversation's history; 0 in other sweeps."""
    n_forks: int = 0

    def describe(self, *, without: Sequence[str] = ()) -> str:
        """Return the sizes in a few words, those named in `without` and those that are 0 left out."""
        shown = [
            words.format(value)
            for name, words in _SIZES.items()
            if name not in without and (value := getattr(self, name))
        ]
        return ", ".join(shown)


@dataclass(frozen=True, order=True)
class Way:
    """How a model was run."""

    arm: Arm
    attention: Attention
    dtype: str
    device: str

    @classmethod
    def of(cls, point: PointRecord) -> Way:
        """Return how a point was run."""
        return cls(point.arm, point.attention, point.dtype, point.device)

    def describe(self) -> str:
        """Return one phrase.

        >>> Way("graph", "sdpa", "bfloat16", "cuda:0").describe()
        'graph arm, sdpa attention, bfloat16 on cuda:0'
        """
        attention = "" if self.attention == "none" else f", {self.attention} attention"
        return f"{self.arm} arm{attention}, {self.dtype} on {self.device}"


@dataclass(frozen=True)
class Match:
    """A point of the candidate and the point of the baseline that it is held against."""

    candidate: str
    """Label of the side."""
    place: Place
    candidate_way: Way
    baseline_way: Way


@dataclass(frozen=True)
class SpeedContrast:
    """One figure at one place: a candidate over the baseline."""

    match: Match
    figure: str
    """Short name, as in gates: "ttft", "tpot", "peak", ..."""
    label: str
    """As in tables."""
    unit: SpeedUnit
    lower_is_better: bool
    baseline_value: float
    """Geometric mean over the processes compared."""
    candidate_value: float
    ratio: float
    low: float
    high: float
    """Ends of the 95% interval of the ratio, not adjusted for other tests; of the range where `method` says
    so, equal to the ratio where it is exact."""
    method: RatioMethod
    paired: bool
    """Whether both were measured in one run, where equal numbers are near each other in time."""
    n_candidate: int
    """Processes."""
    n_baseline: int
    p_value: float | None
    """Of no difference; None where nothing is tested."""
    p_adjusted: float | None
    margin: float
    """Ratios from 1 / (1 + margin) to 1 + margin do not matter."""
    p_equivalence: float | None
    p_equivalence_adjusted: float | None
    verdict: SpeedVerdict
    within_margin: bool = False
    """Whether a difference was shown, and also that it lies within the margin."""
    remarks: tuple[str, ...] = ()

    @property
    def has_interval(self) -> bool:
        """Whether the ends hold 95%, or everything as they are exact."""
        return self.method not in ("range", "single")

    @property
    def change_percent(self) -> float:
        """Candidate minus baseline, in percent of the baseline."""
        return 100 * (self.ratio - 1)


@dataclass(frozen=True)
class Outcome:
    """A place where a side did not end well in every process: a finding without a ratio."""

    match: Match
    baseline_status: PointStatus
    """The worst of its processes."""
    candidate_status: PointStatus
    words: str
    """What happened to whom, as a sentence."""


@dataclass(frozen=True)
class Difference:
    """Something beside what is compared that is not the same on both sides."""

    candidate: str
    what: str
    """For example "torch", "processor", "arm"."""
    baseline_value: str
    candidate_value: str
    loud: bool = False
    """Whether ratios say more of this than of the models: another processor or GPU."""

    def describe(self) -> str:
        """Return one phrase, the baseline first.

        >>> Difference("b", "torch", "2.12.0", "2.13.0").describe()
        'torch: 2.12.0 -> 2.13.0'
        """
        return f"{self.what}: {self.baseline_value or 'none'} -> {self.candidate_value or 'none'}"


@dataclass(frozen=True)
class SpeedComparison:
    """Candidates against a baseline on sweeps of one kind."""

    baseline: Side
    candidates: tuple[Side, ...]
    kind: SweepKind
    title: str
    contrasts: tuple[SpeedContrast, ...]
    """By candidate, place, then figure."""
    outcomes: tuple[Outcome, ...]
    differences: tuple[Difference, ...]
    """Loud ones first."""
    families: tuple[Family, ...]
    remarks: tuple[str, ...] = ()
    """Sentences that limit what was compared."""
    options: CompareOptions = field(default_factory=CompareOptions)

    @property
    def matches(self) -> tuple[Match, ...]:
        """Every place that was compared, or was to be, in order."""
        found = dict.fromkeys([*(c.match for c in self.contrasts), *(o.match for o in self.outcomes)])
        labels = [side.label for side in self.candidates]
        return tuple(sorted(found, key=lambda m: (labels.index(m.candidate), m.place, m.candidate_way)))

    def where(self, match: Match) -> str:
        """Return what is special of a place in this comparison, such as "prompt 2,048, batch 8"."""
        matches = self.matches
        places = [m.place for m in matches]
        same = [
            name
            for name in _SIZES
            if name != "prompt_len_tokens" and len({getattr(p, name) for p in places}) == 1
        ]
        own = {m.candidate_way for m in matches if m.candidate == match.candidate}
        way = f", {match.candidate_way.describe()}" if len(own) > 1 else ""
        return f"{match.place.describe(without=same)}{way}"

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        written = asdict(self)
        for side in (written["baseline"], *written["candidates"]):
            side["run"] = str(side["run"])
        return written


def with_adjusted(
    contrast: SpeedContrast, p: float | None, p_equivalence: float | None, verdict: SpeedVerdict, within: bool
) -> SpeedContrast:
    """Return a contrast with what follows from its family."""
    return replace(
        contrast,
        p_adjusted=p,
        p_equivalence_adjusted=p_equivalence,
        verdict=verdict,
        within_margin=within,
    )
