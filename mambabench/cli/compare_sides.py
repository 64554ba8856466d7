"""The sides of a comparison from what was typed: runs are read, models are evaluated first.

Everything that can be wrong with a side, a gate or a baseline shows before the first model is evaluated.

    found = find_sides(["base", "ft=./out/checkpoint-500"], asked, out=Path("results"))
    found.sides[0].label
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from mambabench.compare.gate_grammar import Gate
    from mambabench.compare.result import CompareOptions, Side
    from mambabench.compare.sources import Given
    from mambabench.compare.steps import Stepped
    from mambabench.contest import Asked, Evaluated
    from mambabench.suite import Suite

_SCORED: Final = ("zeroshot", "imported")
_ANYTHING: Final = ("any", "overall")
_STEP_HINT: Final = (
    "A step is read from a name such as checkpoint-500 or step1000, or from trainer_state.json."
)


@dataclass(frozen=True)
class Found:
    """Sides that can be compared, and what was evaluated for that."""

    sides: list[Side]
    """In the order typed."""
    evaluated: list[Evaluated]
    steps: dict[str, Stepped]
    """Of checkpoints by label, where their place on the disk says more than their label."""

    @property
    def is_scored(self) -> bool:
        """Whether sides are scores rather than sweeps."""
        return self.sides[0].kind in _SCORED


@dataclass(frozen=True)
class Asking:
    """What the command line says besides the sides."""

    asked: Asked
    baseline: str | None
    gates: Sequence[Gate]
    evaluation: dict[str, Any]
    """Fields of `ZeroshotOptions`."""
    useless: Sequence[str]
    """Options that say how models are evaluated, as typed."""
    options: CompareOptions
    curves: bool = False


def checkpoints(patterns: Sequence[str], out: Path) -> list[str]:
    """Return what patterns match, by run of training and step.

    Args:
        patterns: of directories, checkpoints or runs; runs may be named as they lie in `out`.
        out: where runs are kept.

    Raises:
        UsageError: a pattern that matches nothing.
    """
    from mambabench.compare.steps import stepped

    found: dict[str, None] = {}
    for pattern in patterns:
        matched = [path for path in glob.glob(pattern) if Path(path).is_dir()]  # noqa: PTH207
        matched = matched or [str(path) for path in out.glob(pattern) if path.is_dir()] if pattern else []
        if not matched:
            raise UsageError(
                f"--checkpoints '{pattern}' matches no directory",
                hint="Quote the pattern, so that the shell leaves it alone.",
            )
        found |= dict.fromkeys(matched)
    places = {text: stepped(text) for text in found}
    return sorted(found, key=lambda t: (p.series, p.step, t) if (p := places[t]) else ("", 0, t))


def find_sides(given: Sequence[Given], asking: Asking) -> Found:
    """Return the sides that arguments stand for, evaluating models among them.

    Raises:
        MambabenchError: with anything that can be known to be wrong, before anything slow.
    """
    from mambabench.compare.sources import require_baseline, sides_of
    from mambabench.registry import resolve

    runs = [one for one in given if one.path is not None]
    models = [one for one in given if one.path is None]
    known = sides_of(runs)
    # Over training steps it also picks what is laid out.
    useless = [option for option in asking.useless if not (asking.curves and option == "--task")]
    if not models and useless:
        raise UsageError(
            f"{useless[0]} says how models are evaluated, and only runs are named",
            hint="Leave it out, or name a model.",
        )
    need_weights = asking.evaluation.get("weights") == "pretrained"
    coming = []
    for one in models:
        name = resolve(str(one.model), need_weights=need_weights).name
        coming.append(_coming(one, name, known))
    if not asking.curves:
        require_baseline([*known, *coming], asking.baseline)
    if not models:
        return Found(known, [], {})
    evaluated = _evaluate(models, known, asking)
    by_text = {one.given.text: one.given for one in evaluated}
    sides = sides_of([by_text.get(one.text, one) if one.path is None else one for one in given])
    return Found(sides, evaluated, _steps(sides, models))


def _coming(given: Given, name: str, known: Sequence[Side]) -> Side:
    """Return a side of a model that is not evaluated yet."""
    from mambabench.compare.result import Side

    sweep = next((side for side in known if side.kind not in _SCORED), None)
    if sweep is not None:
        raise UsageError(
            f"{given.text} is a model, and {sweep.origin} a {sweep.kind} sweep",
            hint=f"Measure it first: `mambabench {sweep.kind} --model {given.model}`.",
        )
    return Side(given.label or name, name, Path(), "zeroshot", True, False, given.text)


def _evaluate(models: Sequence[Given], known: Sequence[Side], asking: Asking) -> list[Evaluated]:
    from mambabench.compare.align import aligned_tasks
    from mambabench.compare.steps import stepped
    from mambabench.contest import contest_options, evaluate_first
    from mambabench.store import StoredRun

    if asking.curves and (
        without := [m for m in models if not stepped(m.label or "") and not stepped(m.text)]
    ):
        raise UsageError(f"no training step is known of {without[0].text}", hint=_STEP_HINT)
    runs = [StoredRun(path) for path in dict.fromkeys(side.run for side in known)]
    options = contest_options(asking.asked, runs, command=("mambabench", *sys.argv[1:]), **asking.evaluation)
    for gate in asking.gates:
        _check_gate(gate, options.suite)
    if known:
        # Runs that are damaged, or do not go together, are not worth an evaluation.
        aligned_tasks(known, asking.options)
    evaluated = evaluate_first(models, options, runs)
    for one in evaluated:
        if all(cell.status != "ok" for cell in one.outcome.cells):
            # Nothing of it can be compared.
            one.outcome.raise_for_failures()
    return evaluated


def _check_gate(gate: Gate, suite: Suite) -> None:
    """Refuse a gate on what is about to be evaluated and will not be there."""
    from mambabench.compare.items import LOG_LIKELIHOOD

    by_name = {name.lower(): task for task in suite.tasks for name in (task.task, task.label or task.task)}
    # Names of tasks may have dots.
    task, measure = by_name.get(f"{gate.name}.{gate.measure}".lower()), ""
    if task is None:
        task, measure = by_name.get(gate.name.lower()), gate.measure
    if task is None and gate.name not in _ANYTHING:
        tasks = [task.task for task in suite.tasks]
        error = UnknownNameError.for_name(
            "name", gate.name, [*tasks, *_ANYTHING], where=f"Suite {suite.name} has {', '.join(tasks)}."
        )
        raise UnknownNameError(f"gate '{gate.text}': {error.message}", hint=error.hint)
    if gate.point:
        raise UsageError(f"gate '{gate.text}': a task has no points", hint="Leave out what follows '@'.")
    known = [*(task.metrics if task else ()), LOG_LIKELIHOOD]
    if task is not None and measure and measure not in known:
        raise UsageError(
            f"gate '{gate.text}': {task.task} has no '{measure}'", hint=f"It has {', '.join(known)}."
        )


def _steps(sides: Sequence[Side], models: Sequence[Given]) -> dict[str, Stepped]:
    from mambabench.compare.steps import stepped

    places = {one.text: stepped(str(one.model)) for one in models if one.label is None}
    return {side.label: place for side in sides if (place := places.get(side.origin)) is not None}
