"""Runs: found by what they are, locked while they are written, readable at any time.

store = Store(Path("results"))
with store.open_run(manifest) as run:
    if run.cell(fingerprint) is None:
        run.write_cell(cell, samples)
print([stored.manifest.name for stored in store.runs()])

A sweep's run holds replicates and ceilings instead of cells, see `write_replicate`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from mambabench.errors import StoreError
from mambabench.schema import CellRecord, CheckpointRecord, RunManifest
from mambabench.speed_schema import CeilingsRecord, ReplicateRecord
from mambabench.store.answers import AnswerLog
from mambabench.store.files import (
    make_directory,
    read_record,
    remove_temporaries,
    slug,
    storing,
    sync_directory,
    write_record,
)
from mambabench.store.lock import acquire, release, write_owner

if TYPE_CHECKING:
    pass

MANIFEST: Final = "manifest.json"
_FOLDERS: Final = ("checkpoints", "cells", "samples", "answers")
_SWEEP_FOLDERS: Final = ("replicates", "ceilings")
_STAGING_PREFIX: Final = ".new-"
_PROBE_BYTES: Final = 1 << 16
_MANIFEST_REMEDY: Final = "Delete that run's directory, or write to another one with `--out DIR`."
_CELL_REMEDY: Final = "Delete that file: its cell is computed again."
_REPLICATE_REMEDY: Final = "Delete that file: its point is measured again."
_RECORD_REMEDY: Final = "Delete that file: the same command writes it again."


class Store:
    """A directory of runs.

    Args:
        root: the directory; need not exist before the first run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_writable(self) -> None:
        """Find out, within milliseconds, whether a run could be written; leaves nothing behind.

        Raises:
            StoreError: the root or a parent is a file, cannot be written to, or its disk is full.
        """
        folder = self.root.absolute()
        while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise StoreError(
                f"cannot write results to {self.root}: {folder} is not a directory",
                hint="Name another directory with `--out DIR`.",
            )
        with storing(self.root), tempfile.TemporaryFile(dir=folder, buffering=0) as stream:
            stream.write(bytes(_PROBE_BYTES))
            os.fsync(stream.fileno())

    def check_free(self, manifest: RunManifest) -> None:
        """Find out whether another process is writing the run that `open_run` would resume.

        Raises:
            StoreError: it is; named with its host.
        """
        if (path := self._find(manifest)) is not None:
            acquire(path).release()

    def runs(self) -> list[StoredRun]:
        """Return all runs whose manifest can be read, oldest first; needs no lock."""
        found: list[StoredRun] = []
        for path in self._paths():
            with suppress(StoreError):
                found.append(StoredRun(path))
        return sorted(found, key=lambda run: (run.manifest.created_utc, run.path.name))

    def open_run(self, manifest: RunManifest) -> RunDir:
        """Resume the run with the manifest's identity, or create it; use as a context manager.

        A new run is put in `<root>/<name>-<start of the identity>/`, complete with its manifest, in one step.

        Raises:
            StoreError: nothing can be written there, another process is writing this run (named with its
                host), or a file of the run is damaged or of a newer version.
        """
        self.check_writable()
        path = self._find(manifest)
        if path is None:
            path = self._create(manifest)
        return RunDir(path, manifest)

    def _paths(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        children = sorted(self.root.iterdir())
        return [p for p in children if not p.name.startswith(".") and (p / MANIFEST).is_file()]

    def _path_of(self, manifest: RunManifest) -> Path:
        return self.root / f"{slug(manifest.name, max_length=100)}-{slug(manifest.identity)[:8]}"

    def _find(self, manifest: RunManifest) -> Path | None:
        expected = self._path_of(manifest)
        for path in [expected, *self._paths()]:
            # Another run's damaged manifest is not this run's business; StoredRun complains about our own.
            with suppress(OSError, ValueError, AttributeError):
                if json.loads((path / MANIFEST).read_bytes()).get("identity") == manifest.identity:
                    return path
        return expected if expected.exists() else None

    def _create(self, manifest: RunManifest) -> Path:
        path = self._path_of(manifest)
        made: list[Path] = []
        staging: Path | None = None
        try:
            make_directory(self.root, made)
            with storing(self.root):
                self._remove_abandoned()
                prefix = f"{_STAGING_PREFIX}{slug(socket.gethostname())}-{os.getpid()}-"
                staging = Path(tempfile.mkdtemp(prefix=prefix, dir=self.root))
                staging.chmod(self.root.stat().st_mode & 0o777)
                for folder in _folders(manifest):
                    (staging / folder).mkdir()
                write_record(staging / MANIFEST, manifest)
                try:
                    staging.rename(path)
                except OSError:
                    # Another process created the same run in the meantime; its lock decides who goes on.
                    if not (path / MANIFEST).is_file():
                        raise
                    shutil.rmtree(staging)
                sync_directory(self.root)
        except BaseException:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            for folder_made in reversed(made):
                with suppress(OSError):
                    folder_made.rmdir()
            raise
        return path

    def _remove_abandoned(self) -> None:
        """Delete the directories of processes of this machine that died while creating a run."""
        import psutil

        here = f"{_STAGING_PREFIX}{slug(socket.gethostname())}-"
        for path in self.root.glob(f"{here}*"):
            pid = path.name.removeprefix(here).split("-")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(path, ignore_errors=True)


class StoredRun:
    """A run as it lies on the disk, for reading.

    Args:
        path: the run's directory.

    Raises:
        StoreError: the manifest is missing, damaged or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_record(path / MANIFEST, RunManifest, remedy=_MANIFEST_REMEDY)

    def cell(self, fingerprint: str) -> CellRecord | None:
        """Return the record of a finished cell, or None.

        Raises:
            StoreError: the record is damaged or of a newer version.
        """
        for path in sorted((self.path / "cells").glob(f"*-{fingerprint[:16]}.json")):
            cell = read_record(path, CellRecord, remedy=_CELL_REMEDY)
            if cell.fingerprint == fingerprint:
                return cell
        return None

    def cells(self) -> list[CellRecord]:
        """Return all finished cells, by model and task.

        Raises:
            StoreError: a record is damaged or of a newer version.
        """
        paths = sorted((self.path / "cells").glob("[!.]*.json"))
        cells = [read_record(path, CellRecord, remedy=_CELL_REMEDY) for path in paths]
        return sorted(cells, key=lambda cell: (cell.model, cell.task.task, cell.fingerprint))

    def checkpoints(self) -> dict[str, CheckpointRecord]:
        """Return what was loaded, by the name under which it was written.

        Raises:
            StoreError: a record is damaged.
        """
        paths = sorted((self.path / "checkpoints").glob("[!.]*.json"))
        return {path.stem: read_record(path, CheckpointRecord, remedy=_RECORD_REMEDY) for path in paths}

    def replicates(self) -> list[ReplicateRecord]:
        """Return what the processes of a sweep left, in the sequence of the sweep.

        Raises:
            StoreError: a record is damaged or of a newer version.
        """
        paths = sorted((self.path / "replicates").glob("[!.]*.json"))
        found = [read_record(path, ReplicateRecord, remedy=_REPLICATE_REMEDY) for path in paths]
        return sorted(found, key=lambda record: (record.order, record.fingerprint))

    def ceilings(self) -> list[CeilingsRecord]:
        """Return what the machine reached in copies and matrix products, by round.

        Raises:
            StoreError: a record is damaged or of a newer version.
        """
        paths = sorted((self.path / "ceilings").glob("[!.]*.json"))
        found = [read_record(path, CeilingsRecord, remedy=_RECORD_REMEDY) for path in paths]
        return sorted(found, key=lambda record: (record.device, record.dtype, record.round))

    def samples_path(self, fingerprint: str) -> Path:
        """Return the Parquet file of a cell's samples.

        Raises:
            StoreError: the run has no such cell.
        """
        cell = self.cell(fingerprint)
        if cell is None:
            raise StoreError(
                f"run {self.path.name} has no cell {fingerprint[:16]}",
                hint="Run the command again: it finishes what is missing.",
            )
        return self.path / "samples" / f"{_cell_stem(cell)}.parquet"

    def read_samples(self, fingerprint: str) -> list[dict[str, Any]]:
        """Return a cell's samples in the shape that `RunDir.write_cell` was given; tuples are lists.

        Raises:
            StoreError: the run has no such cell, or its samples are missing or damaged.
        """
        from mambabench.store.samples import read_samples

        return read_samples(self.samples_path(fingerprint))


class RunDir(StoredRun):
    """A run that this process, and no other, may write to.

    Opened by `Store.open_run`. `manifest` is the one that the run was created with; a resumption under
    another command line or environment is kept beside it as `manifest-<n>.json`.
    """

    def __init__(self, path: Path, manifest: RunManifest) -> None:
        """Lock the run.

        Raises:
            StoreError: another process holds it, or its manifest is damaged or of a newer version.
        """
        super().__init__(path)
        self._answers: dict[tuple[str, str], AnswerLog] = {}
        self._lock = acquire(path)
        try:
            with storing(path):
                write_owner(path)
                for name in _folders(manifest):
                    (path / name).mkdir(exist_ok=True)
                    remove_temporaries(path / name)
                remove_temporaries(path)
                self._note_resumption(manifest)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the answer logs and give up the lock; harmless when repeated."""
        for log in self._answers.values():
            log.close()
        self._answers.clear()
        if self._lock.is_locked:
            release(self._lock, self.path)

    def answers(self, checkpoint_fingerprint: str, settings_key: str) -> AnswerLog:
        """Return the log of a checkpoint's answers under the given settings, opened once.

        Raises:
            StoreError: a file of it is damaged or belongs to another checkpoint.
        """
        self._must_be_open()
        key = (checkpoint_fingerprint, settings_key)
        if key not in self._answers:
            self._answers[key] = AnswerLog(self.path / "answers", *key)
        return self._answers[key]

    def write_cell(self, cell: CellRecord, samples: Sequence[Mapping[str, Any]]) -> None:
        """Store a cell and its samples; the record appears last, so a cell that is there is complete.

        The answers of its checkpoint are then compacted.

        Args:
            cell: replaces an earlier record of the same fingerprint (a failed one, say).
            samples: lm-eval's sample dictionaries; see `mambabench.store.samples`.

        Raises:
            StoreError: the disk is full or gone; an earlier record is then untouched.
        """
        from mambabench.store.samples import write_samples

        self._must_be_open()
        stem = _cell_stem(cell)
        write_samples(self.path / "samples" / f"{stem}.parquet", samples)
        write_record(self.path / "cells" / f"{stem}.json", cell)
        for (checkpoint, _), log in self._answers.items():
            if checkpoint == cell.checkpoint_fingerprint:
                log.compact()

    def write_checkpoint(self, name: str, record: CheckpointRecord) -> None:
        """Store what was loaded under a name that tells the run's checkpoints apart.

        Raises:
            StoreError: the disk is full or gone.
        """
        self._must_be_open()
        write_record(self.path / "checkpoints" / f"{slug(name, max_length=100)}.json", record)

    def write_replicate(self, record: ReplicateRecord) -> None:
        """Store what one process of a sweep left; replaces an earlier record of the same fingerprint.

        Raises:
            StoreError: the disk is full or gone; an earlier record is then untouched.
        """
        self._must_be_open()
        write_record(self.path / "replicates" / f"{_replicate_stem(record)}.json", record)

    def write_ceilings(self, record: CeilingsRecord) -> None:
        """Store one round of ceilings.

        Raises:
            StoreError: the disk is full or gone.
        """
        self._must_be_open()
        name = f"{slug(record.device)}-{slug(record.dtype)}-{record.round}.json"
        write_record(self.path / "ceilings" / name, record)

    def _must_be_open(self) -> None:
        if not self._lock.is_locked:
            raise StoreError(f"run {self.path.name} is closed", hint="Open it again to write to it.")

    def _note_resumption(self, manifest: RunManifest) -> None:
        known = [self.manifest]
        while (path := self.path / f"manifest-{len(known) + 1}.json").exists():
            known.append(read_record(path, RunManifest, remedy=_RECORD_REMEDY))
        if all((k.command, k.environment) != (manifest.command, manifest.environment) for k in known):
            write_record(path, manifest)


def _cell_stem(cell: CellRecord) -> str:
    return f"{slug(cell.model)}-{slug(cell.task.task)}-{cell.fingerprint[:16]}"


def _replicate_stem(record: ReplicateRecord) -> str:
    point = record.point
    size = f"{point.batch_size}x{point.prompt_len_tokens}-{point.gen_len_tokens}"
    return f"{slug(point.model)}-{point.arm}-{size}-r{record.replicate}-{record.fingerprint[:16]}"


def _folders(manifest: RunManifest) -> tuple[str, ...]:
    return _FOLDERS if manifest.kind == "zeroshot" else _SWEEP_FOLDERS
