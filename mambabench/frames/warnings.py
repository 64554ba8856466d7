"""Frame `warnings`: what limits what the runs say, the gravest first, each with the way out.

    runs.frame("warnings").query("severity == 'wrong'")[["label", "text", "advice"]]

One row is about one run and one model where it can be. Kinds are those of `mambabench.frames.warning_kinds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.sources import has_rows
from mambabench.compare.speed_differences import environment_differences
from mambabench.errors import StoreError
from mambabench.frames.asked import manifests_of, speed_settings_of
from mambabench.frames.joined import device_name
from mambabench.frames.loaded import ambiguous
from mambabench.frames.long_warnings import of_long, of_perplexity, said_of
from mambabench.frames.warning_kinds import KINDS, LONG_ADVICE, SPEED_ADVICE
from mambabench.speed_schema import ReplicateRecord
from mambabench.stats.replicates import N_FOR_INTERVAL
from mambabench.tables.longcontext.flags import FEW_PROCESSES
from mambabench.tables.speed import flags
from mambabench.tables.speed.conversation import conversation_rows
from mambabench.tables.speed.format import listed, plural

if TYPE_CHECKING:
    from mambabench.frames.api import Runs
    from mambabench.frames.load import LoadedRun
    from mambabench.schema import CellRecord
    from mambabench.tables.speed.table import SpeedTable
    from mambabench.tables.zeroshot import ZeroshotTable

WIDE_POINTS: Final = 10.0
"""Percentage points; a 95% interval of an accuracy that is wider says little."""
_MOST_NAMED: Final = 3
_NOTHING_SHIPPED: Final = "mambabench HybridSteps"
"""Implementation of models whose own code does not run on the device."""
_BAD_ENDS: Final = ("failed", "illegal_access", "killed", "timeout")
_NO_MEMORY: Final = ("oom", "skipped_after_oom")
_HARMLESS: Final = ("commit", "memory")
_VERSIONS: Final = ("mambabench", "torch", "transformers", "lm-eval")


@dataclass(frozen=True)
class Warned:
    """One warning."""

    about: str
    text: str
    label: str = ""
    n: int = 1
    advice: str = ""
    """Empty for that of its kind."""


def rows_of_warnings(runs: Runs) -> list[dict[str, Any]]:
    """Return rows of frame `warnings`, by severity, then by kind, then in the order of the runs."""
    found = [("", warned) for warned in _of_all(runs)]
    records: Any = runs.frame("runs").to_dict("records")
    for run, record in zip(runs.runs, records, strict=True):
        # Of a run that cannot be read the number is not known either.
        n_missing = record["n_missing"] if isinstance(record["n_missing"], int) else 0
        found += [(run.name, warned) for warned in _of_run(run, record["state"], n_missing)]
    order = list(KINDS)
    found.sort(key=lambda one: order.index(one[1].about))
    return [
        {
            "run": run,
            "label": warned.label,
            "severity": KINDS[warned.about].severity,
            "about": warned.about,
            # What libraries say of a failure may go over many lines.
            "text": " ".join(warned.text.split()),
            "advice": warned.advice or KINDS[warned.about].advice,
            "n": warned.n,
        }
        for run, warned in found
    ]


def _of_run(run: LoadedRun, state: str, n_missing: int) -> Iterator[Warned]:
    if run.stored is None:
        yield Warned("unreadable run", f"{run.name} cannot be read: {_joined(run.problems)}.")
        return
    if run.problems:
        count = plural(len(run.problems), "part")
        yield Warned(
            "unreadable part",
            f"{count} of {run.name} cannot be read: {_joined(run.problems)}.",
            n=len(run.problems),
        )
    manifest = run.stored.manifest
    if n_missing or state in ("interrupted", "empty"):
        what = f"{n_missing:,} of what it was asked for" if n_missing else "some of what it was asked for"
        yield Warned("interrupted", f"{run.name} was not finished: {what} is not there.", n=max(1, n_missing))
    if manifest.kind == "imported":
        yield Warned("imported", f"{run.name} holds results of another program.", n=len(manifest.models))
    yield from _checkpoints(run)
    yield from _resumed(run)
    if run.zeroshot is not None:
        yield from _of_scores(run, run.zeroshot)
    if run.speed is not None:
        yield from _of_sweep(run, run.speed)
    if run.long is not None:
        yield from (Warned(*found) for found in of_long(run, skip_missing=n_missing > 0))
        yield from _said((run.label(row.model), text) for row in run.long.rows for text in said_of(row))
    if run.perplexity is not None:
        yield from (Warned(*found) for found in of_perplexity(run))


def _checkpoints(run: LoadedRun) -> Iterator[Warned]:
    for record in run.checkpoints:
        label, certificate = run.label(record.name), record.certificate
        if certificate is not None and not certificate.passed:
            yield Warned(
                "certificate failed",
                f"{label}: the fast path errs {certificate.ratio:.1f} times as much as the model as shipped, "
                f"and {certificate.bar:g} times are allowed.",
                label,
            )
        ours = record.implementation.startswith("mambabench") and record.implementation != _NOTHING_SHIPPED
        if certificate is None and ours:
            yield Warned(
                "not compared with the model as shipped",
                f"{label}: {record.implementation} was not compared with the model as shipped.",
                label,
            )
        if record.weights == "random":
            yield Warned("random weights", f"{label} has random weights.", label)


def _resumed(run: LoadedRun) -> Iterator[Warned]:
    """Say what changed between the calls that made a run."""
    manifests = [] if run.stored is None else manifests_of(run.stored)
    first = manifests[0] if manifests else None
    changed: dict[str, None] = {}
    for later in manifests[1:]:
        if first is not None:
            found = environment_differences(run.name, first.environment, later.environment)
            changed |= dict.fromkeys(d.describe() for d in found if d.what not in _HARMLESS)
    if changed:
        said = list(changed)
        yield Warned("resumed elsewhere", f"{run.name} was continued with {_joined(said)}.", n=len(said))


def _of_scores(run: LoadedRun, table: ZeroshotTable) -> Iterator[Warned]:
    for model in table.models:
        label = run.label(model)
        cells = [cell for cell in run.cells if cell.model == model]
        failed = [cell for cell in cells if cell.status == "failed"]
        if failed:
            said = f"{failed[0].task.task}: {failed[0].error}"
            yield Warned(
                "failed cells",
                f"{label}: {_count(failed, cells, 'cell')} failed; {said}.",
                label,
                len(failed),
            )
        rows = [row for row in table.rows if row.model == model]
        cut = {cell.task.group or cell.task.task for cell in cells if cell.partial}
        some = (row.label for row in rows if row.verdict == "partial" or row.task in cut)
        partial = list(dict.fromkeys(some))
        if partial:
            yield Warned(
                "partial",
                f"{label}: only some items of {_named(partial)} were scored.",
                label,
                len(partial),
            )
        differs = [row.label for row in rows if row.verdict == "differs"]
        if differs:
            yield Warned(
                "differs from published",
                f"{label}: {_named(list(dict.fromkeys(differs)))} differ from the published figures.",
                label,
                len(differs),
            )
        wide = [
            f"{row.label} (95% interval of {row.high - row.low:.0f} points over {plural(row.n, 'item')})"
            for row in rows
            if row.headline and row.unit == "%" and row.low is not None and row.high is not None
            and row.high - row.low > WIDE_POINTS
        ]  # fmt: skip
        if wide:
            yield Warned("few items", f"{label}: few items tell little on {_joined(wide)}.", label, len(wide))
        lost = [cell for cell in cells if _lacks_samples(run, cell)]
        if lost:
            tasks = _named([cell.task.task for cell in lost])
            text = f"{label}: items of {tasks} cannot be read, and are not compared or shown one by one."
            yield Warned("no samples", text, label, len(lost))
        bad = [m for cell in cells for m in cell.metrics if not math.isfinite(m.value)]
        if bad:
            text = f"{label}: {plural(len(bad), 'value')} without a finite number, as {bad[0].metric}."
            yield Warned("not a number", text, label, len(bad))
    yield from _said((run.label(cell.model), warning) for cell in run.cells for warning in cell.warnings)


def _lacks_samples(run: LoadedRun, cell: CellRecord) -> bool:
    """Tell whether items that a run must have kept cannot be read; of imported ones there may be none."""
    if cell.status != "ok" or run.stored is None:
        return False
    path = run.stored.samples_path_of(cell)
    if run.stored.manifest.kind == "imported" and not path.exists():
        return False
    try:
        has_rows(path)
    except StoreError:
        return True
    return False


def _said(warnings: Iterable[tuple[str, str]]) -> Iterator[Warned]:
    """Repeat what was said while something was computed: each sentence once, with its models."""
    labels: dict[str, list[str]] = {}
    for label, text in warnings:
        labels.setdefault(text.rstrip("."), []).append(label)
    for text, found in labels.items():
        models = list(dict.fromkeys(found))
        who = listed(models) if len(models) <= _MOST_NAMED else f"{len(models)} models"
        label = models[0] if len(models) == 1 else ""
        yield Warned("said while computing", f"{who}: {text}.", label, len(found))


def _of_sweep(run: LoadedRun, table: SpeedTable) -> Iterator[Warned]:
    for model in table.models:
        label, rows = run.label(model), [row for row in table.rows if row.point.model == model]
        for about, statuses, words in (
            ("failed points", _BAD_ENDS, "failed"),
            ("out of memory", _NO_MEMORY, "ran out of memory or were not tried after that"),
            ("cannot be measured", ("unsupported",), "cannot be measured"),
        ):
            bad = [row for row in rows if row.status in statuses]
            if bad:
                detail = next((f"; {row.detail}" for row in bad if row.detail), "").rstrip(".")
                text = f"{label}: {_count(bad, rows, 'point')} {words}{detail}."
                yield Warned(about, text, label, len(bad))
        for flag, advice in SPEED_ADVICE.items():
            flagged = [row for row in rows if flag in row.flags]
            # Of what is missing there is a row for the whole run.
            if flagged and flag != flags.INCOMPLETE:
                text = f"{label}: {flag} at {_count(flagged, rows, 'point')}."
                yield Warned(flag, text, label, len(flagged), advice)
        own = [record for record in table.replicates if record.point.model == model]
        loose = [record for record in own if _is_uncompared(record)]
        if loose:
            yield Warned(
                "not compared with the model as shipped",
                f"{label}: {_count(loose, own, 'process', 'processes')} timed a forward that was not "
                "compared with the model as shipped.",
                label,
                len(loose),
            )
    yield from _few_processes(run)
    if table.kind == "conversation":
        yield from _of_conversations(run, table)


def _is_uncompared(record: ReplicateRecord) -> bool:
    ours = record.implementation.startswith("mambabench") and record.implementation != _NOTHING_SHIPPED
    return record.status == "ok" and ours and record.certificate is None and record.conversation is None


def _few_processes(run: LoadedRun) -> Iterator[Warned]:
    manifests = [] if run.stored is None else manifests_of(run.stored)
    asked = max((settings.processes for settings in speed_settings_of(manifests)), default=N_FOR_INTERVAL)
    if asked < N_FOR_INTERVAL:
        text = (
            f"{run.name}: no 95% intervals from only {plural(asked, 'process', 'processes')} of each point."
        )
        # The sweep beside a long-context run takes its processes from the suite.
        of_long = any("longcontext" in manifest.command[:2] for manifest in manifests)
        yield Warned("few processes", text, n=asked, advice=LONG_ADVICE[FEW_PROCESSES] if of_long else "")


def _of_conversations(run: LoadedRun, table: SpeedTable) -> Iterator[Warned]:
    for model in table.models:
        label = run.label(model)
        rows = [row for row in conversation_rows(table.replicates) if row.point.model == model]
        deaf = [row for row in rows if row.forgetful]
        if deaf:
            text = f"{label}: replies are the same without the history at {_count(deaf, rows, 'length')}."
            yield Warned("history is not noticed", text, label, len(deaf))
        held = [r for r in table.replicates if r.point.model == model and r.conversation is not None]
        wrong = [r for r in held if r.conversation is not None and not r.conversation.certified]
        if wrong:
            text = (
                f"{label}: in {_count(wrong, held, 'process', 'processes')} going on from the state gave "
                "other logits than forwarding everything again."
            )
            yield Warned("resuming differs", text, label, len(wrong))


def _of_all(runs: Runs) -> Iterator[Warned]:
    """Say what limits runs beside each other."""
    comparison = runs.comparison
    for remark in () if comparison is None else comparison.remarks:
        yield Warned("compared differently", remark)
    if runs.comparison_problem:
        yield Warned("not compared", f"Models are not compared: {runs.comparison_problem.rstrip('.')}.")
    for model, names in ambiguous(runs.runs).items():
        yield Warned(
            "different weights",
            f"{model} stands for different weights in {_named(names)}: they are not one model.",
            n=len(names),
        )
    machines: dict[str, set[str]] = {}
    for run in runs.runs:
        if run.speed is not None and run.manifest is not None:
            for device in dict.fromkeys(row.point.device for row in run.speed.rows):
                name = device_name(run.manifest, run.speed, device)
                machines.setdefault(f"{name} ({device})" if name else device, set()).add(run.name)
    if len(machines) > 1:
        text = f"Sweeps were measured on {listed(sorted(machines))}: their speeds do not compare."
        yield Warned("mixed machines", text, n=len(machines))
    yield from _versions(runs.runs)


def _versions(runs: Sequence[LoadedRun]) -> Iterator[Warned]:
    found: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        if run.manifest is None or run.manifest.kind == "imported":
            continue
        packages = run.manifest.environment.get("packages")
        for name in _VERSIONS:
            version = packages.get(name) if isinstance(packages, dict) else None
            if version:
                found.setdefault(name, {}).setdefault(str(version), set()).add(run.name)
    mixed = [f"{name} {listed(sorted(by))}" for name, by in found.items() if len(by) > 1]
    if mixed:
        yield Warned("mixed versions", f"Runs were made with {listed(mixed)}.", n=len(mixed))


def _count(some: Sequence[object], every: Sequence[object], one: str, many: str | None = None) -> str:
    """Say how many of how many, such as "2 of 3 points"."""
    return f"{len(some):,} of {plural(len(every), one, many or f'{one}s')}"


def _named(names: Sequence[str]) -> str:
    """List the first few names, and say how many there are besides."""
    if len(names) <= _MOST_NAMED:
        return listed(list(names))
    return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"


def _joined(parts: Sequence[str]) -> str:
    """Put the first few sentences behind one another, and say how many there are besides."""
    more = f" and {len(parts) - _MOST_NAMED} more" if len(parts) > _MOST_NAMED else ""
    return "; ".join(part.rstrip(".") for part in parts[:_MOST_NAMED]) + more
