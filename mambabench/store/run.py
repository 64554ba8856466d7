"""One run: locked while it is written, readable at any time.

with store.open_run(manifest) as run:
    if run.cell(fingerprint) is None:
        run.write_cell(cell, samples)

A sweep's run holds replicates and ceilings instead of cells (`write_replicate`), a long-context run records
with rows (`write_long`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from mambabench.errors import StoreError
from mambabench.long_schema import ContextLossRecord, LongRecord, PerplexityRecord, RecallRecord
from mambabench.schema import CellRecord, CheckpointRecord, RunManifest
from mambabench.speed_schema import CeilingsRecord, ReplicateRecord
from mambabench.store.answers import AnswerLog
from mambabench.store.files import (
    read_record,
    remove_temporaries,
    slug,
    storing,
    write_record,
)
from mambabench.store.lock import acquire, release, write_owner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST: Final = "manifest.json"
_FOLDERS: Final = ("checkpoints", "cells", "samples", "answers")
_SWEEP_FOLDERS: Final = ("replicates", "ceilings")
_LONG_KINDS: Final[dict[str, type[LongRecord]]] = {
    "perplexity": PerplexityRecord,
    "context-loss": ContextLossRecord,
    "recall": RecallRecord,
}
"""The folder of each kind of long-context record."""
_LONG_FOLDERS: Final = ("checkpoints", "answers", *_LONG_KINDS)
_MANIFEST_REMEDY: Final = "Delete that run's directory, or write to another one with `--out DIR`."
_CELL_REMEDY: Final = "Delete that file: its cell is computed again."
_REPLICATE_REMEDY: Final = "Delete that file: its point is measured again."
_RECORD_REMEDY: Final = "Delete that file: the same command writes it again."
_L = TypeVar("_L", PerplexityRecord, ContextLossRecord, RecallRecord)


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

    def long_records(self, kind: type[_L]) -> list[_L]:
        """Return the long-context records of one kind, by file name.

        Raises:
            StoreError: a record is damaged or of a newer version.
        """
        paths = sorted((self.path / long_folder(kind)).glob("[!.]*.json"))
        return [read_record(path, kind, remedy=_CELL_REMEDY) for path in paths]

    def long_rows_path(self, record: LongRecord) -> Path:
        """Return the Parquet file of a long-context record's rows.

        Equal weights may have been stored under another name; what they gave is there once.
        """
        folder = self.path / long_folder(type(record))
        known = sorted(folder.glob(f"[!.]*-{record.fingerprint[:16]}.parquet"))
        return known[0] if known else folder / f"{_long_stem(record)}.parquet"

    def read_long_rows(self, record: LongRecord) -> list[dict[str, Any]]:
        """Return a long-context record's rows: questions, documents or blocks.

        Raises:
            StoreError: they are missing or damaged.
        """
        from mambabench.store.rows import read_rows

        return read_rows(self.long_rows_path(record))

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
        return self.samples_path_of(cell)

    def samples_path_of(self, cell: CellRecord) -> Path:
        """Return the Parquet file of the samples of one of the run's cells, without looking for the cell."""
        return self.path / "samples" / f"{_cell_stem(cell)}.parquet"

    def read_samples(self, fingerprint: str) -> list[dict[str, Any]]:
        """Return a cell's samples in the shape that `RunDir.write_cell` was given; tuples are lists.

        Raises:
            StoreError: the run has no such cell, or its samples are missing or damaged.
        """
        from mambabench.store.samples import read_samples

        return read_samples(self.samples_path(fingerprint))

    def long_values_path(self, record: LongRecord) -> Path:
        """Return the file of a long-context record's single values, which lie beside its rows."""
        return self.long_rows_path(record).with_suffix(".f32")

    def read_long_values(self, record: LongRecord) -> NDArray[np.float32]:
        """Return the log-probabilities of a perplexity record: a value a token, in the order of its rows.

        Raises:
            StoreError: they are missing, or others than the record's.
        """
        import numpy as np

        path = self.long_values_path(record)
        remedy = "Delete the record beside it: the same command writes both again."
        try:
            values = np.fromfile(path, np.dtype("<f4"))
        except OSError as error:
            raise StoreError(
                f"cannot read the log-probabilities in {path}: {error.strerror or error}", hint=remedy
            ) from error
        n_tokens = record.n_tokens if isinstance(record, PerplexityRecord) else len(values)
        if len(values) != n_tokens:
            raise StoreError(f"{path} holds {len(values):,} values for {n_tokens:,} tokens", hint=remedy)
        return values


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
                for name in folders_of(manifest):
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
        self._compact(cell.checkpoint_fingerprint)

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

    def write_long(self, record: LongRecord, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Store a long-context record and its rows; the record appears last: one that is there is complete.

        The answers of its checkpoint are then compacted.

        Args:
            record: replaces an earlier one of the same fingerprint.
            rows: all with the same keys; values are numbers, texts or lists of them.

        Raises:
            StoreError: the disk is full or gone; an earlier record is then untouched.
        """
        from mambabench.store.rows import write_rows

        self._must_be_open()
        path = self.long_rows_path(record)
        write_rows(path, rows)
        write_record(path.with_suffix(".json"), record)
        self._compact(record.checkpoint_fingerprint)

    def _compact(self, checkpoint_fingerprint: str) -> None:
        for (checkpoint, _), log in self._answers.items():
            if checkpoint == checkpoint_fingerprint:
                log.compact()

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


def long_folder(kind: type[LongRecord]) -> str:
    """Return the folder of the records of one kind of long-context measurement."""
    return next(name for name, known in _LONG_KINDS.items() if known is kind)


def _long_stem(record: LongRecord) -> str:
    if isinstance(record, RecallRecord):
        what = f"{slug(record.task)}-{record.length_tokens}"
    elif isinstance(record, ContextLossRecord):
        what = f"{slug(record.corpus.name)}-{record.context_tokens}"
    else:
        what = f"{slug(record.corpus.name)}-{record.context.mode}"
    return f"{slug(record.model)}-{what}-{record.fingerprint[:16]}"


def folders_of(manifest: RunManifest) -> tuple[str, ...]:
    """Return the folders of a run of the manifest's kind."""
    if manifest.kind in ("zeroshot", "imported"):
        return _FOLDERS
    return _LONG_FOLDERS if manifest.kind in ("longcontext", "perplexity") else _SWEEP_FOLDERS
