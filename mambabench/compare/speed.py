"""Models of stored sweeps against one of them: ratios of their figures, tested over fresh processes.

Sides of one run are compared by pairs of processes that were measured near each other; sides of two runs by
the processes of each. Places of equal sizes are compared, in ways of running as alike as the sides have.

comparison = compare_speed(sides, sides[0], CompareOptions())
comparison.contrasts[0].ratio
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, get_args

from mambabench.compare.result import CompareOptions, Family, Side
from mambabench.compare.speed_differences import (
    environment_differences,
    process_differences,
    setting_differences,
    way_differences,
)
from mambabench.compare.speed_figures import FIGURES, SpeedFigure, figure_named
from mambabench.compare.speed_match import Measured, matched_ways, measured
from mambabench.compare.speed_result import (
    Difference,
    Match,
    Outcome,
    Place,
    PointStatus,
    SpeedComparison,
    SpeedContrast,
    SpeedVerdict,
    with_adjusted,
)
from mambabench.errors import UsageError
from mambabench.medians import by_replicate
from mambabench.schema import SpeedSettingsRecord
from mambabench.speed_schema import ReplicateRecord, Status, SweepKind
from mambabench.stats.process_ratio import MARGIN, ProcessRatio, paired_process_ratio, unpaired_ratio
from mambabench.units import size

if TYPE_CHECKING:
    from mambabench.schema import RunManifest

_WORST_FIRST: Final[tuple[Status, ...]] = (
    "failed", "illegal_access", "killed", "oom", "timeout", "unsupported", "skipped_after_oom", "ok",
)  # fmt: skip
_HOW: Final[dict[PointStatus, str]] = {
    "ok": "ran",
    "oom": "ran out of memory",
    "skipped_after_oom": "was not tried, as less ran out of memory",
    "unsupported": "cannot run there",
    "timeout": "took too long",
    "killed": "was killed",
    "illegal_access": "ended with an illegal access",
    "failed": "failed",
}
_PAIRED: Final = "Sides of one run are compared by pairs of processes."
_UNPAIRED: Final = (
    "Sides of separate runs are compared by the processes of each. What changed on the machine between "
    "them, such as clocks, heat and other programs, is part of a ratio, and its interval does not hold it; "
    "models of one command are measured by turns."
)


@dataclass(frozen=True)
class _Loaded:
    """A side with what its run holds of it."""

    side: Side
    manifest: RunManifest
    settings: SpeedSettingsRecord
    records: tuple[ReplicateRecord, ...]

    @cached_property
    def measured(self) -> Measured:
        return measured(self.records, self.settings)

    def shares_run_with(self, other: _Loaded) -> bool:
        return self.side.run.resolve() == other.side.run.resolve()


def compare_speed(sides: Sequence[Side], baseline: Side, options: CompareOptions) -> SpeedComparison:
    """Compare models of stored sweeps.

    Args:
        sides: of one kind of sweep; the baseline may be among them.
        baseline: what the others are held against.
        options: correction, level, replicates and seed of the bootstrap.

    Raises:
        StoreError: a record is damaged.
        UsageError: sides of several kinds or of none, a side without records, no place in common.
    """
    candidates = tuple(side for side in sides if side != baseline)
    kind = _kind([baseline, *candidates])
    base = _loaded(baseline)
    contrasts: list[SpeedContrast] = []
    outcomes: list[Outcome] = []
    differences: list[Difference] = []
    remarks: list[str] = []
    others = [_loaded(side) for side in candidates]
    for other in others:
        matches = _matches(other, base)
        for match in matches:
            contrasts += _contrasts(match, other, base, options)
            outcomes += _outcomes(match, other, base)
        differences += _differences(matches, other, base)
        remarks += _unmatched(matches, other, base)
    judged, families = _judged(contrasts, options)
    remarks += [words for paired, words in ((True, _PAIRED), (False, _UNPAIRED)) if _any(judged, paired)]
    remarks += [f"{side.label} is partial: its sweep is not finished." for side in sides if side.partial]
    return SpeedComparison(
        baseline=baseline,
        candidates=candidates,
        kind=kind,
        title=f"{kind}: {', '.join(side.label for side in candidates)} against {baseline.label}",
        contrasts=judged,
        outcomes=tuple(outcomes),
        differences=tuple(sorted(differences, key=lambda d: not d.loud)),
        families=families,
        remarks=tuple(remarks),
        options=options,
    )


def _kind(sides: Sequence[Side]) -> SweepKind:
    kinds = dict.fromkeys(side.kind for side in sides)
    known: tuple[SweepKind, ...] = get_args(SweepKind)
    kind = next((k for k in known if list(kinds) == [k]), None)
    if kind is None:
        raise UsageError(
            f"runs of {' and '.join(kinds)} cannot be compared by their speed",
            hint=f"Compare runs of one kind: {', '.join(known)}.",
        )
    return kind


def _loaded(side: Side) -> _Loaded:
    from mambabench.store import StoredRun

    run = StoredRun(side.run)
    records = tuple(r for r in run.replicates() if r.point.model == side.model)
    settings = run.manifest.settings
    if not records or not isinstance(settings, SpeedSettingsRecord):
        raise UsageError(
            f"{side.label} holds no measurement of {side.model}", hint="Run its command again to finish it."
        )
    return _Loaded(side, run.manifest, settings, records)


def _matches(other: _Loaded, base: _Loaded) -> list[Match]:
    pairs = matched_ways(other.measured, base.measured)
    if not pairs:
        theirs, ours = (_extent(loaded.measured) for loaded in (base, other))
        raise UsageError(
            f"{other.side.label} and {base.side.label} have no point in common: {ours}; {theirs}",
            hint="Measure both at the same lengths and batch sizes.",
        )
    return [
        Match(other.side.label, place, own, against)
        for own, against in pairs
        for place in sorted(other.measured[own].keys() & base.measured[against].keys())
    ]


def _extent(found: Measured) -> str:
    places = sorted({place for by_place in found.values() for place in by_place})
    if len(places) == 1:
        return places[0].describe()
    return f"{places[0].describe()} to {places[-1].describe()}"


def _contrasts(match: Match, other: _Loaded, base: _Loaded, options: CompareOptions) -> list[SpeedContrast]:
    own, against = _records(match, other, base)
    found = []
    for figure in FIGURES:
        above, below = (
            by_replicate([r for r in side if r.status == "ok"], figure.of) for side in (own, against)
        )
        paired = other.shares_run_with(base)
        if paired:
            common = above.keys() & below.keys()
            above, below = ({n: side[n] for n in sorted(common)} for side in (above, below))
        if above and below:
            found.append(_contrast(match, figure, above, below, paired, options))
    return found


def _contrast(
    match: Match,
    figure: SpeedFigure,
    above: dict[int, float],
    below: dict[int, float],
    paired: bool,
    options: CompareOptions,
) -> SpeedContrast:
    if paired:
        ratio = paired_process_ratio(above, below, n_for_exact=figure.n_for_exact)
    else:
        ratio = unpaired_ratio(
            [*above.values()],
            [*below.values()],
            n_for_exact=figure.n_for_exact,
            replicates=options.replicates,
            seed=options.seed,
        )
    return SpeedContrast(
        match=match,
        figure=figure.name,
        label=figure.label,
        unit=figure.unit,
        lower_is_better=figure.lower_is_better,
        baseline_value=_centre(below),
        candidate_value=_centre(above),
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        method=ratio.method,
        paired=paired,
        n_candidate=ratio.n_candidate,
        n_baseline=ratio.n_baseline,
        p_value=ratio.p_value,
        p_adjusted=None,
        margin=MARGIN,
        p_equivalence=ratio.p_equivalence,
        p_equivalence_adjusted=None,
        verdict="not tested",
        remarks=_remarks(figure, ratio),
    )


def _centre(figures: dict[int, float]) -> float:
    values = [*figures.values()]
    # Rounding must not change bytes that are all equal.
    return values[0] if min(values) == max(values) else statistics.geometric_mean(values)


def _remarks(figure: SpeedFigure, ratio: ProcessRatio) -> tuple[str, ...]:
    if ratio.method == "exact" and figure.unit != "bytes":
        return ("every process gave the same, which times do not: nothing is tested",)
    return ()


def _records(
    match: Match, other: _Loaded, base: _Loaded
) -> tuple[Sequence[ReplicateRecord], Sequence[ReplicateRecord]]:
    own = other.measured[match.candidate_way][match.place]
    return own, base.measured[match.baseline_way][match.place]


def _outcomes(match: Match, other: _Loaded, base: _Loaded) -> list[Outcome]:
    own, against = _records(match, other, base)
    worst = [min((r.status for r in records), key=_WORST_FIRST.index) for records in (against, own)]
    if worst == ["ok", "ok"]:
        return []
    words = f"{_became(base.side.label, against)}; {_became(other.side.label, own)}"
    return [Outcome(match, worst[0], worst[1], words)]


def _became(label: str, records: Sequence[ReplicateRecord]) -> str:
    """Say what the processes of a side did at a place, the worst first."""
    parts = []
    for status in _WORST_FIRST:
        found = [r for r in records if r.status == status]
        if found:
            wanted = next((r.requested_bytes for r in found if r.requested_bytes is not None), None)
            detail = f" (wanted {size(wanted)})" if wanted is not None else ""
            count = f" in {len(found)} of {len(records)} processes" if len(found) < len(records) else ""
            parts.append(f"{_HOW[status]}{detail}{count}")
    return f"{label} {' and '.join(parts)}"


def _differences(matches: Sequence[Match], other: _Loaded, base: _Loaded) -> list[Difference]:
    label = other.side.label
    compared = [_records(match, other, base) for match in matches]
    own, against = ([r for pair in compared for r in pair[side]] for side in (0, 1))
    found = [*way_differences(matches), *process_differences(label, against, own)]
    if not other.shares_run_with(base):
        found += environment_differences(label, base.manifest.environment, other.manifest.environment)
        found += setting_differences(label, base.settings, other.settings)
    return found


def _unmatched(matches: Sequence[Match], other: _Loaded, base: _Loaded) -> list[str]:
    """Say how many points of either side have nothing on the other to be held against."""
    said = []
    for loaded, against, ways in (
        (other, base, {(m.candidate_way, m.place) for m in matches}),
        (base, other, {(m.baseline_way, m.place) for m in matches}),
    ):
        points = {(way, place) for way, by_place in loaded.measured.items() for place in by_place}
        left: list[Place] = sorted(place for way, place in points - ways)
        if left:
            noun = "point" if len(left) == 1 else "points"
            said.append(
                f"{len(left)} {noun} of {loaded.side.label} without the like of {against.side.label}; "
                f"the first is {left[0].describe()}."
            )
    return said


def _any(contrasts: Sequence[SpeedContrast], paired: bool) -> bool:
    return any(c.paired == paired and c.method != "exact" for c in contrasts)


def _judged(
    contrasts: Sequence[SpeedContrast], options: CompareOptions
) -> tuple[tuple[SpeedContrast, ...], tuple[Family, ...]]:
    """Adjust p-values over all figures, places and candidates, and call each contrast what it is.

    The inverse of a figure is the same test over again: it does not count, and takes the other's p-values.
    """
    from mambabench.stats.multiplicity import adjusted

    counted = [c for c in contrasts if not _twin(c, contrasts)]
    p_values = adjusted([c.p_value for c in counted], options.correction)
    p_equivalences = adjusted([c.p_equivalence for c in counted], options.correction)
    corrected = {
        (c.match, c.figure): pair for c, *pair in zip(counted, p_values, p_equivalences, strict=True)
    }
    judged = []
    for contrast in contrasts:
        twin = _twin(contrast, contrasts)
        p, p_equivalence = corrected[contrast.match, twin or contrast.figure]
        verdict, within = _verdict(contrast, p, p_equivalence, options.alpha)
        judged.append(with_adjusted(contrast, p, p_equivalence, verdict, within))
    n_tests = sum(p is not None for p in p_values)
    families = (Family("speed", n_tests, options.correction, options.alpha),) if n_tests else ()
    return tuple(judged), families


def _twin(contrast: SpeedContrast, contrasts: Sequence[SpeedContrast]) -> str:
    figure = figure_named(contrast.figure)
    name = figure.inverse_of if figure is not None else ""
    return name if any((c.match, c.figure) == (contrast.match, name) for c in contrasts) else ""


def _verdict(
    contrast: SpeedContrast, p: float | None, p_equivalence: float | None, alpha: float
) -> tuple[SpeedVerdict, bool]:
    if contrast.method == "exact" and contrast.unit == "bytes":
        inside = 1 / (1 + contrast.margin) <= contrast.ratio <= 1 + contrast.margin
        return ("no difference", False) if contrast.ratio == 1 else (_word(contrast), inside)
    if p is None:
        return "not tested", False
    alike = p_equivalence is not None and p_equivalence < alpha
    if p < alpha and contrast.ratio != 1:
        return _word(contrast), alike
    return ("no difference" if alike else "not distinguishable"), False


def _word(contrast: SpeedContrast) -> SpeedVerdict:
    if contrast.unit in ("bytes", "J/token"):
        return "less" if contrast.ratio < 1 else "more"
    return "faster" if (contrast.ratio < 1) == contrast.lower_is_better else "slower"
