"""Whether a stored run says what its files hold: records against samples and rows, files against digests.

    found = verify_run(Path("results/zeroshot-smoke-mamba-tiny-75c8b06c"))
    [check.what for check in found.checks if check.outcome == "differs"]

Whoever changes a record and its samples alike is found out by the seal alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench.compare.read import read_task_items
from mambabench.compare.sources import has_rows
from mambabench.compare.verify_files import check_checkpoints, check_sources
from mambabench.compare.verify_long import check_long
from mambabench.errors import StoreError
from mambabench.fingerprint import canonical_json
from mambabench.store import StoredRun
from mambabench.store.lock import writer
from mambabench.store.verify import (
    Advance,
    Check,
    bytes_to_read,
    check_answers,
    check_records,
    check_replicates,
    check_seal,
    checked,
)

if TYPE_CHECKING:
    from mambabench.schema import CellRecord

_SCORED: Final = ("zeroshot", "imported")
_SWEEPS: Final = ("latency", "throughput", "memory", "conversation")
_REQUEST: Final = {"multiple_choice": "loglikelihood"}
"""Type of a task's requests where it is another than the task's."""
_DIGEST_LETTERS: Final = 64
_BATCH_ROWS: Final = 500
_ROWS: Final = ("samples", "samples", "recall", "context-loss", "perplexity", "answers")
"""Folders of which files are read; samples twice."""


@dataclass(frozen=True)
class Verified:
    """What was found out of one run."""

    path: Path
    checks: tuple[Check, ...]
    written_by: str = ""
    """The process that is writing it: nothing was checked then."""

    @property
    def differs(self) -> bool:
        """Whether something does not agree."""
        return any(check.outcome == "differs" for check in self.checks)

    @property
    def n_checked(self) -> int:
        """Kinds of checks that were made."""
        return sum(check.outcome != "not checked" for check in self.checks)


def n_bytes_of(path: Path) -> int:
    """Return about how many bytes `verify_run` reads of a run."""
    sealed = [p.stat().st_size for p in path.rglob("*") if p.is_file()] if has_seal(path) else []
    return sum(bytes_to_read(path, _ROWS)) + sum(sealed)


def has_seal(path: Path) -> bool:
    """Tell whether a run was sealed."""
    from mambabench.store.seal import SEAL

    return (path / SEAL).exists()


def verify_run(
    path: Path, *, advance: Advance = lambda n_bytes: None, stage: Callable[[str], None] = lambda text: None
) -> Verified:
    """Check one run; nothing is written, and what is wrong with it is in the checks.

    Args:
        path: the run's directory.
        advance: told of bytes read.
        stage: told what is being read.
    """
    if by := writer(path):
        return Verified(path, (), by)
    stage("records")
    checks = [check_records(path)]
    try:
        run = StoredRun(path)
    except StoreError:
        # Its records have said so.
        return Verified(path, (*checks, check_seal(path, advance)))
    if not _is_text(path):
        why = "the name of its directory is no text, as which the reader of Parquet files wants it"
        return Verified(path, (*checks, Check("samples", "not checked", 0, why), check_seal(path, advance)))
    kind = run.manifest.kind
    if kind in _SCORED:
        cells = _cells(run)
        stage("samples")
        checks += [_check_samples(run, cells, advance), _check_requests(run, cells, advance)]
    elif kind in _SWEEPS:
        checks.append(check_replicates(path))
    else:
        stage("rows")
        checks.append(check_long(run, advance))
    stage("answers")
    checks.append(check_answers(path, advance))
    stage("files of checkpoints")
    checks.append(check_sources(run) if kind == "imported" else check_checkpoints(run))
    stage("seal")
    checks.append(check_seal(path, advance))
    return Verified(path, tuple(checks))


def _is_text(path: Path) -> bool:
    try:
        os.fspath(path.absolute()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _cells(run: StoredRun) -> list[CellRecord]:
    """Return the cells that can be read; the others are problems of their records."""
    from mambabench.schema import CellRecord
    from mambabench.store.files import read_record

    found = []
    for path in sorted((run.path / "cells").glob("[!.]*.json")):
        try:
            found.append(read_record(path, CellRecord, remedy=""))
        except StoreError:
            continue
    return [cell for cell in found if cell.status == "ok"]


def _check_samples(run: StoredRun, cells: Sequence[CellRecord], advance: Advance) -> Check:
    problems: list[str] = []
    n = 0
    for cell in cells:
        path = run.samples_path_of(cell)
        try:
            if not has_rows(path):
                if run.manifest.kind != "imported" and cell.task.n_docs:
                    problems.append(f"samples/{path.name} holds no items")
                continue
            items = read_task_items(run, cell)
            n += len(items.doc_ids)
            if len(items.doc_ids) != cell.task.n_docs:
                problems.append(
                    f"samples/{path.name} holds {len(items.doc_ids):,} items, but its record says "
                    f"{cell.task.n_docs:,}"
                )
            advance(path.stat().st_size)
        except StoreError as error:
            problems.append(error.message.replace(str(path), f"samples/{path.name}"))
    how = "as many items as each record says, none twice, and their values give the recorded ones"
    return checked("samples", n, how, problems, "the run holds values without items")


def _check_requests(run: StoredRun, cells: Sequence[CellRecord], advance: Advance) -> Check:
    """Compute the digest of what was asked once more from the samples."""
    problems: list[str] = []
    n = 0
    for cell in cells:
        path = run.samples_path_of(cell)
        recorded = cell.task.requests_sha256
        if len(recorded) != _DIGEST_LETTERS or not cell.task.output_type:
            continue
        try:
            if not has_rows(path):
                continue
            n += 1
            if _requests_sha256(path, cell.task.output_type) != recorded:
                problems.append(f"samples/{path.name} holds other requests than its record's digest says")
            advance(path.stat().st_size)
        except StoreError:
            # Its samples have said so.
            n -= 1
    how = "digest of every request, computed again from the samples"
    return checked("requests", n, how, problems, "no requests are kept with a digest")


def _requests_sha256(path: Path, output_type: str) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    hasher = hashlib.sha256()
    kind = _REQUEST.get(output_type, output_type)
    first: str | None = None
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["filter", "arguments"]):
                for row in batch.to_pylist():
                    first = row["filter"] if first is None else first
                    for request in json.loads(row["arguments"] or "[]") if row["filter"] == first else ():
                        text = canonical_json([kind, request])
                        hasher.update(text.encode("utf-8", "surrogatepass") + b"\n")
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"cannot read the requests in {path}: {error}") from error
    return hasher.hexdigest()
