"""One run directory of another program's results, which compares like our own.

    outcome = import_results((Path("output"),), ImportOptions())
    outcome.path

Everything is read and checked before the run is made. A run is found by the contents of the files: the same
import again changes nothing, and one file more makes another run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench import __version__
from mambabench.errors import UsageError
from mambabench.fingerprint import digest
from mambabench.importers.detect import Detected, detect
from mambabench.importers.found import FoundCell
from mambabench.importers.lm_eval import Found, ReadOptions, read_lm_eval
from mambabench.importers.old_lm_eval import read_old_lm_eval
from mambabench.progress import progress
from mambabench.schema import CellRecord, FileRecord, ImportSettingsRecord, ReadRecord, RunManifest

if TYPE_CHECKING:
    from mambabench.store import Store, StoredRun

_HEADLINES: Final = "mamba-paper"
"""Suite whose metrics are read first of its tasks."""


@dataclass(frozen=True)
class ImportOptions:
    """What is imported, and where to; the defaults are those of the command."""

    out: Path = Path("results")
    name: str | None = None
    """Of the run; made of the models' names by default."""
    tasks: tuple[str, ...] = ()
    """All if empty."""
    time: str = ""
    """Only results files whose time begins so."""
    samples: bool = True
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportOutcome:
    """What an import left behind."""

    path: Path
    """The run's directory."""
    manifest: RunManifest
    cells: tuple[CellRecord, ...]
    n_with_samples: int
    n_written: int
    """Cells written by this call; the others were there."""
    remarks: tuple[str, ...] = ()


def import_results(paths: Sequence[Path], options: ImportOptions) -> ImportOutcome:
    """Read results and store them as one run.

    Args:
        paths: results files, and directories that are searched for them.
        options: what of them, and where to.

    Raises:
        UsageError: something is wrong with a file, before anything is written.
        UnknownNameError: a task is asked for that no file has.
        StoreError: the run cannot be written.
    """
    from mambabench.store import Store

    detected = detect(paths)
    store = Store(options.out)
    store.check_writable()
    asked = ReadOptions(tasks=options.tasks, time=options.time, samples=options.samples)
    read = read_lm_eval if detected.format == "lm-eval" else read_old_lm_eval
    found = read(detected.files, asked)
    _check_equal(found.cells)
    manifest = _manifest(detected, found, options)
    records = [cell.record() for cell in found.cells]
    path = _complete_run(store, manifest, records)
    n_written = 0
    if path is None:
        path, n_written = _write(store, manifest, found.cells, records)
    return ImportOutcome(
        path=path,
        manifest=manifest,
        cells=tuple(records),
        n_with_samples=sum(cell.samples is not None for cell in found.cells),
        n_written=n_written,
        remarks=(*detected.remarks, *found.remarks),
    )


def _check_equal(cells: Sequence[FoundCell]) -> None:
    """Check that no result stands there under two names.

    Raises:
        UsageError: one does.
    """
    seen: dict[str, FoundCell] = {}
    for cell in cells:
        before = seen.setdefault(cell.record().fingerprint, cell)
        if before is not cell:
            raise UsageError(
                f"{before.source.name} and {cell.source.name} hold the same result of {cell.task.task}",
                hint="One is a copy of the other: leave it out.",
            )


def _manifest(detected: Detected, found: Found, options: ImportOptions) -> RunManifest:
    files = _files(found.cells)
    settings = ImportSettingsRecord(
        format=detected.format, lm_eval_version=found.version, files=files, limit=found.limit
    )
    models = tuple(dict.fromkeys(cell.model for cell in found.cells))
    plain = list(dict.fromkeys(model.partition("@")[0] for model in models))
    name = options.name or "import-" + "+".join(plain[:3]) + ("+more" if len(plain) > 3 else "")
    reads = _reads(found.cells)
    identity = digest(
        {
            "kind": "imported",
            "name": name,
            "settings": settings,
            "tasks": [read.task for read in reads],
            "version": __version__,
        }
    )
    return RunManifest(
        name=name,
        kind="imported",
        command=options.command,
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        identity=identity,
        suite="",
        suite_sha256="",
        models=models,
        settings=settings,
        partial=any(cell.partial for cell in found.cells),
        reads=reads,
        # What the figures depend on is the other program's; here only who read its files.
        environment={"packages": {"mambabench": __version__}},
    )


def _files(cells: Sequence[FoundCell]) -> tuple[FileRecord, ...]:
    """Return what was read, each file once."""
    read = [f for cell in cells for f in (cell.source, cell.samples.record if cell.samples else None) if f]
    return tuple({(f.name, f.sha256): f for f in read}.values())


def _reads(cells: Sequence[FoundCell]) -> tuple[ReadRecord, ...]:
    """Return tasks and groups with their metrics, those of the Mamba paper first and as it reads them."""
    from mambabench.suite import load_suite

    metrics: dict[str, list[str]] = {}
    for cell in cells:
        mine = metrics.setdefault(cell.task.group or cell.task.task, [])
        mine += [m.metric for m in cell.metrics if m.metric not in mine]
    paper = {task.task: task for task in load_suite(_HEADLINES).tasks}
    order = [task for task in paper if task in metrics] + [task for task in metrics if task not in paper]
    reads = []
    for task in order:
        told = paper.get(task)
        first = [m for m in told.metrics if m in metrics[task]] if told else []
        rest = [m for m in metrics[task] if m not in first]
        label = told.label or "" if told else ""
        reads.append(ReadRecord(task=task, metrics=tuple(first + rest), label=label))
    return tuple(reads)


def _complete_run(store: Store, manifest: RunManifest, records: Sequence[CellRecord]) -> Path | None:
    """Return the run that holds all of it already, None if there is none."""
    for run in store.runs():
        if run.manifest.identity == manifest.identity and _missing(run, records) == set():
            return run.path
    return None


def _missing(run: StoredRun, records: Sequence[CellRecord]) -> set[str]:
    return {record.fingerprint for record in records} - {cell.fingerprint for cell in run.cells()}


def _write(
    store: Store, manifest: RunManifest, cells: Sequence[FoundCell], records: Sequence[CellRecord]
) -> tuple[Path, int]:
    """Write what is missing; return the run's directory and the number of cells written."""
    with store.open_run(manifest) as run:
        missing = _missing(run, records)
        with progress(len(missing), "writing", unit="results") as bar:
            for cell, record in zip(cells, records, strict=True):
                if record.fingerprint in missing:
                    bar.stage(f"{cell.model}  {cell.task.task}")
                    run.write_cell(record, list(cell.samples.rows()) if cell.samples else [])
                    bar.advance(1)
        return run.path, len(missing)
