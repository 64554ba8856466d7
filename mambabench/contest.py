"""Models among what is compared, evaluated first: one run a model, and nothing is computed that is there.

It is the run that `mambabench zeroshot --model NAME` makes, so that either command finds the other's.

    options = contest_options(Asked(suite=load_suite("smoke")), runs=[], out=Path("results"))
    for one in evaluate_first([parse_given("mamba-tiny"), parse_given("pythia-tiny")], options):
        one.given.path, one.outcome.n_computed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambabench.errors import UsageError
from mambabench.schema import SettingsRecord
from mambabench.zeroshot import Checked, ZeroshotOptions, ZeroshotOutcome

if TYPE_CHECKING:
    from mambabench.compare.sources import Given
    from mambabench.schema import RunManifest
    from mambabench.store import StoredRun
    from mambabench.suite import Suite

DEFAULT_SUITE = "mamba-paper"
_MOST_NAMED = 6
_NAME_SUITE = "Name what models are evaluated on with `--suite` or `--task`."


@dataclass(frozen=True)
class Asked:
    """How models are evaluated as far as the user says it; runs that they are held against say the rest."""

    suite: Suite | None = None
    limit: int | None = None
    apply_chat_template: bool = False
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = False


@dataclass(frozen=True)
class Evaluated:
    """A model with its run."""

    given: Given
    """Of the run."""
    outcome: ZeroshotOutcome


def contest_options(asked: Asked, runs: Sequence[StoredRun], **how: Any) -> ZeroshotOptions:
    """Return how models are evaluated so that they can be held against runs.

    Args:
        asked: by the user; what is not asked for is as in the runs.
        runs: scores that are there; without any the default suite is run.
        how: further fields of `ZeroshotOptions`, such as `out`.

    Raises:
        UsageError: runs that differ in what is not asked for, or have no task of the suite that is; a suite
            that is no longer what it was.
    """
    suite = asked.suite or (_suite_of(runs) if runs else _load(DEFAULT_SUITE))
    for run in runs:
        _require_common(suite, run)

    fields = ("limit", "apply_chat_template", "system_instruction", "fewshot_as_multiturn")
    return ZeroshotOptions(models=(), suite=suite, **{f: _setting(f, asked, runs) for f in fields}, **how)


def evaluate_first(
    models: Sequence[Given], options: ZeroshotOptions, against: Sequence[StoredRun] = ()
) -> list[Evaluated]:
    """Evaluate models, each in a run of its own, on tasks that are prepared once.

    What a run of the same command, or any run beside it, holds already is not computed again.

    Args:
        models: no runs among them.
        options: for all of them; its models are not looked at.
        against: runs whose prompts must hold as many worked examples.

    Raises:
        MambabenchError: before anything slow when one of the models cannot be evaluated; what goes wrong
            later stays in the cells.
        KeyboardInterrupt: when interrupted; every answer so far is kept.
    """
    from mambabench.execute import check_zeroshot, run_zeroshot
    from mambabench.preflight import look_ahead
    from mambabench.store import Store

    names = [str(one.model) for one in models]
    # All of them before a model library is imported.
    look_ahead(
        names, options.suite.tasks, out=options.out, data_dir=options.data_dir, weights=options.weights,
        device=options.device, max_length=options.max_length, tokenizer=options.tokenizer,
    )  # fmt: skip
    checked: list[Checked] = []
    for name in names:
        tasks = checked[0].tasks if checked else None
        checked.append(check_zeroshot(replace(options, models=(name,)), tasks))
    _require_different(names, checked)
    for run in against:
        _require_as_many_examples(run, checked)
    kept = [run for run in Store(options.out).runs() if run.manifest.kind == "zeroshot"]
    done = []
    for one, name, found in zip(models, names, checked, strict=True):
        outcome = run_zeroshot(replace(options, models=(name,)), checked=found, kept=kept)
        label = one.label or found.plans[0].name
        done.append(Evaluated(replace(one, label=label, path=outcome.path, model=None), outcome))
    return done


def _setting(field: str, asked: Asked, runs: Sequence[StoredRun]) -> Any:
    """Return a setting as asked for, or as in the runs."""
    wanted = getattr(asked, field)
    # Items in common can be compared whatever their number, but not answers to different prompts.
    if wanted and field == "limit":
        return wanted
    found = [
        (getattr(s, field), run) for run in runs if isinstance(s := run.manifest.settings, SettingsRecord)
    ]
    value = wanted or (found[0][0] if found else wanted)
    for other, run in found:
        if other != value:
            here = "the command has" if wanted else f"{found[0][1].path} was made with"
            raise UsageError(
                f"{here} {_option(field, value)}, and {run.path} was made with {_option(field, other)}",
                hint="Say with `--limit` how many documents models are evaluated on."
                if field == "limit"
                else "Only equal prompts can be compared.",
            )
    return value


def _load(name: str) -> Suite:
    from mambabench.suite import load_suite

    return load_suite(name)


def _suite_of(runs: Sequence[StoredRun]) -> Suite:
    """Find the suite that runs were made with, by its digest.

    Raises:
        UsageError: they were made with different ones, or with one that cannot be had again.
    """
    ours = [run for run in runs if run.manifest.kind == "zeroshot"]
    if not ours:
        tasks = [f"--task {name}" for name in _tasks(runs[0])[:_MOST_NAMED]]
        raise UsageError(
            f"{runs[0].path} was imported, which says of no suite how it is run",
            hint=f"{_NAME_SUITE} It has {' '.join(tasks)}.",
        )
    first = ours[0].manifest
    for run in ours[1:]:
        if run.manifest.suite_sha256 != first.suite_sha256:
            raise UsageError(
                f"{ours[0].path} is of suite {first.suite} and {run.path} of {run.manifest.suite}"
                + (", which has changed between them" if run.manifest.suite == first.suite else ""),
                hint=_NAME_SUITE,
            )
    for make in _ways_to(ours[0]):
        try:
            suite = make()
        except UsageError:
            continue
        if suite.sha256 == first.suite_sha256:
            return suite
    raise UsageError(
        f"suite {first.suite} is not here as it was when {ours[0].path} was made", hint=_NAME_SUITE
    )


def _ways_to(run: StoredRun) -> list[Callable[[], Suite]]:
    """Return what may give a run's suite: its name, its file, and its tasks by themselves."""
    from mambabench.suite import suite_from_tasks

    manifest = run.manifest
    tasks = [read.task for read in manifest.reads] or _tasks(run)
    shots: list[int | None] = [None, *sorted({cell.task.n_fewshot for cell in run.cells()})]
    return [
        lambda: _load(manifest.suite),
        *((lambda file=file: _load(file)) for file in _suite_files(manifest)),
        *((lambda n=n: suite_from_tasks(tasks, num_fewshot=n)) for n in shots),
    ]


def _suite_files(manifest: RunManifest) -> list[str]:
    command = manifest.command
    spaced = [after for before, after in pairwise(command) if before == "--suite"]
    joined = [word.removeprefix("--suite=") for word in command if word.startswith("--suite=")]
    return [name for name in (*spaced, *joined) if Path(name).is_file()]


def _tasks(run: StoredRun) -> list[str]:
    """Return the tasks and groups that a run has cells of."""
    return list(dict.fromkeys(cell.task.group or cell.task.task for cell in run.cells()))


def _require_common(suite: Suite, run: StoredRun) -> None:
    tasks = _tasks(run)
    if tasks and not {task.task for task in suite.tasks} & set(tasks):
        more = ", ..." if len(tasks) > _MOST_NAMED else ""
        raise UsageError(
            f"{run.path} has no task of suite {suite.name}: it has {', '.join(tasks[:_MOST_NAMED])}{more}",
            hint=_NAME_SUITE,
        )


def _require_different(names: Sequence[str], checked: Sequence[Checked]) -> None:
    seen: dict[str, str] = {}
    for name, found in zip(names, checked, strict=True):
        fingerprint = found.plans[0].fingerprint
        if fingerprint in seen:
            raise UsageError(
                f"{seen[fingerprint]} and {name} are the same weights",
                hint="A model compared with itself shows nothing; leave one out.",
            )
        seen[fingerprint] = name


def _require_as_many_examples(run: StoredRun, checked: Sequence[Checked]) -> None:
    ours = {task.name: task.record.n_fewshot for task in checked[0].tasks}
    for cell in run.cells():
        n = ours.get(cell.task.task, cell.task.n_fewshot)
        if n != cell.task.n_fewshot:
            raise UsageError(
                f"{run.path} gave {cell.task.n_fewshot} worked examples in {cell.task.task}, and models "
                f"would now be given {n}",
                hint="Evaluate on its suite, or with `--task` and its `--num-fewshot`.",
            )


def _option(field: str, value: Any) -> str:
    name = "--" + field.replace("_", "-")
    if value is None or value is False:
        return f"no {name}"
    return name if value is True else f"{name} {value}"
