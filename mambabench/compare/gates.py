"""What becomes of gates: each is held against every contrast that it names, and nothing passes unseen.

results = check_gates([parse_gate("any < -2pt")], comparison, None)
results[0].status

A change is judged by its estimate, or where that is asked for by its whole 95% interval. "any" takes
everything that gets worse in the gate's direction: `any < -2pt` accuracies, `any > 5%` perplexities, times
and memory. A candidate that cannot run where the baseline can has lost more than any figure; what could not
be compared is "unknown", and neither passes nor fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from mambabench.compare.gate_changes import (
    PLAIN_POINTS,
    Change,
    misfit,
    overall_change,
    speed_change,
    task_change,
)
from mambabench.compare.gate_grammar import FailWhen, Gate, GateStatus
from mambabench.compare.gate_grammar import GateResult as GateResult
from mambabench.compare.gate_grammar import parse_gate as parse_gate
from mambabench.compare.gate_grammar import raise_for as raise_for
from mambabench.compare.result import Comparison, Contrast
from mambabench.compare.speed_figures import FIGURES, figure_named
from mambabench.compare.speed_result import NO_PLACE, Match, Outcome, SpeedComparison
from mambabench.errors import UnknownNameError, UsageError

ANY: Final = "any"
OVERALL: Final = "overall"
_PLACE_KEYS: Final = {
    "prompt": "prompt_len_tokens",
    "batch": "batch_size",
    "gen": "gen_len_tokens",
    "chunk": "prefill_chunk_tokens",
}


def check_gates(
    gates: Sequence[Gate],
    comparison: Comparison | None,
    speed: SpeedComparison | None,
    *,
    fail_when: FailWhen = "estimate",
) -> list[GateResult]:
    """Hold gates against what was compared.

    Args:
        gates: in the order of the results.
        comparison: of tasks, where there is one.
        speed: of sweeps, where there is one.
        fail_when: "estimate": a gate fails when the estimate is beyond its threshold; "certain": when the
            whole 95% interval is. What has crossed by its estimate and has no interval is "unknown" then.

    Returns:
        One result for each gate, candidate and thing compared.

    Raises:
        UsageError: a name that was not compared, or a unit that its measure does not have.
    """
    return [result for gate in gates for result in _Checker(gate, comparison, speed, fail_when).results()]


class _Checker:
    def __init__(
        self, gate: Gate, comparison: Comparison | None, speed: SpeedComparison | None, fail_when: FailWhen
    ) -> None:
        self._gate = gate
        self._comparison = comparison
        self._speed = speed
        self._fail_when = fail_when

    def results(self) -> list[GateResult]:
        """Return one result for each candidate and contrast that the gate names."""
        gate = self._gate
        tasks = {} if self._comparison is None else _tasks(self._comparison)
        is_task = gate.name in (ANY, OVERALL) or gate.name.lower() in tasks or self._dotted() in tasks
        if self._comparison is not None and is_task and not (gate.name == ANY and gate.point):
            if gate.point:
                raise self._refused("a task has no points", "Leave out what follows '@'.")
            return self._overall() if gate.name == OVERALL else self._on_tasks(tasks)
        figure = figure_named(gate.name)
        if self._speed is not None and (gate.name == ANY or figure is not None):
            if gate.measure:
                raise self._refused("a figure of speed has no measures", f"Write '{gate.name}'.")
            return self._on_speed(None if figure is None else figure.name)
        raise self._not_compared(tasks)

    def _dotted(self) -> str:
        """Return the name with what was taken for a measure: names of tasks may have dots."""
        return f"{self._gate.name}.{self._gate.measure}".lower()

    def _not_compared(self, tasks: dict[str, str]) -> UsageError:
        names = list(dict.fromkeys(tasks.values()))
        if self._comparison is not None and self._comparison.overall:
            names.append(OVERALL)
        if self._speed is not None:
            measured = {c.figure for c in self._speed.contrasts}
            names += [f.name for f in FIGURES if f.name in measured]
        error = UnknownNameError.for_name(
            "name", self._gate.name, [*names, ANY], where=f"Compared were {', '.join(names) or 'no tasks'}."
        )
        return UnknownNameError(f"gate '{self._gate.text}': {error.message}", hint=error.hint)

    def _refused(self, why: str, hint: str = "") -> UsageError:
        return UsageError(f"gate '{self._gate.text}': {why}", hint=hint)

    def _on_tasks(self, tasks: dict[str, str]) -> list[GateResult]:
        comparison, gate = self._comparison, self._gate
        assert comparison is not None
        if self._dotted() in tasks:
            chosen, measure = [tasks[self._dotted()]], ""
        else:
            chosen = list(dict.fromkeys(tasks.values()))
            chosen = chosen if gate.name == ANY else [tasks[gate.name.lower()]]
            measure = gate.measure
        found: dict[str, list[Contrast]] = {}
        for task in chosen:
            of_task = [c for c in comparison.contrasts if c.task == task]
            name = self._measure(task, of_task, measure)
            if name:
                found[task] = [c for c in of_task if c.measure == name]
        if not found:
            raise self._refused(
                f"nothing that was compared {_direction(gate)}{_in_unit(gate)}",
                "Name a task to gate a change that is no loss.",
            )
        results = []
        for side in comparison.candidates:
            for task, contrasts in found.items():
                contrast = next((c for c in contrasts if c.candidate == side.label), None)
                if contrast is None:
                    where = f"{contrasts[0].label} {contrasts[0].measure}"
                    results.append(self._unknown(side.label, where, f"{task} was not compared for it"))
                else:
                    where = f"{contrast.label} {contrast.measure}"
                    results.append(self._decided(side.label, where, task_change(gate, contrast)))
        return results

    def _measure(self, task: str, contrasts: Sequence[Contrast], asked: str) -> str:
        """Return the measure of a task that the gate is about; empty where "any" leaves the task out."""
        gate = self._gate
        known = list(dict.fromkeys(c.measure for c in sorted(contrasts, key=lambda c: not c.headline)))
        first = {name: next(c for c in contrasts if c.measure == name) for name in known}
        if asked and asked not in first:
            if gate.name == ANY and any(c.measure == asked for c in self._all_contrasts()):
                return ""
            raise self._refused(f"{task} has no '{asked}'", f"It has {', '.join(known)}.")
        if gate.name == ANY:
            fitting = [
                name
                for name in ([asked] if asked else known)
                if first[name].higher_is_better == gate.is_below
                and not misfit(gate, first[name])
                and (asked or first[name].headline or gate.unit == "pt")
                and (asked or first[name].family != "log-likelihoods")
            ]
            return fitting[0] if fitting else ""
        if asked or gate.unit != "pt":
            name = asked or known[0]
        else:
            name = next((n for n in known if first[n].effect_unit == "pt"), known[0])
        if why := misfit(gate, first[name]):
            raise self._refused(f"{task}'s {name} {why}")
        return name

    def _all_contrasts(self) -> Iterable[Contrast]:
        return () if self._comparison is None else self._comparison.contrasts

    def _overall(self) -> list[GateResult]:
        comparison, gate = self._comparison, self._gate
        assert comparison is not None
        if gate.measure:
            raise self._refused("the overall figure has no measures", f"Write '{OVERALL}'.")
        if not comparison.overall:
            raise self._refused("there is no overall figure", "It takes two tasks with an accuracy.")
        if not gate.unit:
            raise self._refused(PLAIN_POINTS)
        found = {o.candidate: o for o in comparison.overall}
        return [
            self._decided(side.label, OVERALL, overall_change(gate, found[side.label]))
            if side.label in found
            else self._unknown(side.label, OVERALL, "no two of its tasks with an accuracy were compared")
            for side in comparison.candidates
        ]

    def _on_speed(self, figure: str | None) -> list[GateResult]:
        speed, gate = self._speed, self._gate
        assert speed is not None
        if gate.unit == "pt":
            raise self._refused(
                "figures of speed have no percentage points", "Write % for a relative change."
            )
        if figure is None and not gate.unit:
            raise self._refused("times and memory have no unit in common", "Write % for a relative change.")
        matches = [m for m in speed.matches if _is_at(gate, m)]
        if not matches:
            places = list(dict.fromkeys(speed.where(m) for m in speed.matches))
            raise self._refused("no such point was compared", f"There are {'; '.join(places)}.")
        if figure is None:
            wanted = [f.name for f in FIGURES if f.lower_is_better != gate.is_below]
        else:
            wanted = [figure]
        measured = {c.figure for c in speed.contrasts}
        if speed.contrasts and not measured & {*wanted}:
            names = ", ".join(f.name for f in FIGURES if f.name in measured)
            raise self._refused(f"{gate.name} was not measured", f"Compared were {names}.")
        return [result for match in matches for result in self._at(match, wanted)]

    def _at(self, match: Match, wanted: Sequence[str]) -> list[GateResult]:
        """Return the results at one place."""
        speed = self._speed
        assert speed is not None
        place, label = speed.where(match), match.candidate
        where = f"{wanted[0] if len(wanted) == 1 else 'all figures'} at {place}"
        outcome = next((o for o in speed.outcomes if o.match == match), None)
        found = [c for c in speed.contrasts if c.match == match and c.figure in wanted]
        if outcome is None and not found:
            return [self._unknown(label, where, "it was not measured on both sides")]
        if outcome is not None and (not found or _is_lost(outcome)):
            return [self._by_outcome(outcome, where, wanted)]
        said = outcome.words if outcome else ""
        return [
            self._decided(label, f"{c.figure} at {place}", speed_change(self._gate, c, said)) for c in found
        ]

    def _by_outcome(self, outcome: Outcome, where: str, wanted: Sequence[str]) -> GateResult:
        """Decide where a side could not run, which is worse than any figure."""
        figure = figure_named(wanted[0])
        against_loss = figure is not None and figure.lower_is_better != self._gate.is_below
        could_run = outcome.baseline_status not in NO_PLACE, outcome.candidate_status not in NO_PLACE
        status: GateStatus = "unknown"
        if against_loss and _is_lost(outcome):
            status = "failed"
        elif against_loss and outcome.baseline_status in NO_PLACE and outcome.candidate_status == "ok":
            status = "passed"
        elif not any(could_run) and not self._gate.point:
            # Sweeps end where nothing fits, and a gate on all of their points is on those that can be run.
            status = "passed"
        crossed = status == "failed"
        label = outcome.match.candidate
        return self._result(label, where, Change(), crossed, crossed, status, outcome.words)

    def _decided(self, label: str, where: str, change: Change) -> GateResult:
        gate = self._gate
        if change.value is None or change.value != change.value:
            return self._unknown(label, where, change.why or "there is no value")
        crossed = gate.holds(change.value)
        end = change.high if gate.is_below else change.low
        certain = crossed and end is not None and gate.holds(end)
        status: GateStatus = "failed" if crossed else "passed"
        why = change.why
        if crossed and self._fail_when == "certain" and not certain:
            status = "passed" if end is not None else "unknown"
            but = "has no interval" if end is None else "is not beyond it with its whole interval"
            why = "; ".join(filter(None, (why, f"the estimate crossed it and {but}")))
        return self._result(label, where, change, crossed, certain, status, why)

    def _unknown(self, label: str, where: str, why: str) -> GateResult:
        return self._result(label, where, Change(), False, False, "unknown", why)

    def _result(
        self,
        label: str,
        where: str,
        change: Change,
        crossed: bool,
        certain: bool,
        status: GateStatus,
        why: str,
    ) -> GateResult:
        return GateResult(
            gate=self._gate.text,
            candidate=label,
            where=where,
            value=change.value,
            low=change.low,
            high=change.high,
            unit=change.unit,
            crossed=crossed,
            certain=certain,
            status=status,
            why=why,
        )


def _tasks(comparison: Comparison) -> dict[str, str]:
    """Return lm-eval's names of the tasks by those names and by their labels, in small letters."""
    found = {c.label.lower(): c.task for c in comparison.contrasts}
    return found | {c.task.lower(): c.task for c in comparison.contrasts}


def _direction(gate: Gate) -> str:
    return "gets worse by falling" if gate.is_below else "gets worse by rising"


def _in_unit(gate: Gate) -> str:
    return {"pt": " in percentage points", "%": "", "": " in a unit of its own"}[gate.unit]


def _is_lost(outcome: Outcome) -> bool:
    """Return whether the candidate cannot run where the baseline can."""
    return outcome.candidate_status in NO_PLACE and outcome.baseline_status == "ok"


def _is_at(gate: Gate, match: Match) -> bool:
    """Return whether a place is one that the gate names; of ways the candidate's counts."""
    for key, value in gate.point:
        if key in _PLACE_KEYS:
            if getattr(match.place, _PLACE_KEYS[key]) != value:
                return False
        elif getattr(match.candidate_way, key) != value:
            return False
    return True
