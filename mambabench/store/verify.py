"""Whether a run's own files are whole: every record, every log and segment of answers, and the seal.

    for check in (check_records(path), check_answers(path)):
        print(check.outcome, check.what, check.problems)

What records say of samples is looked at above the store, in `mambabench.compare.verify`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mambabench.errors import StoreError
from mambabench.fingerprint import digest
from mambabench.long_schema import ContextLossRecord, PerplexityRecord, RecallRecord
from mambabench.schema import SCHEMA_VERSION, CellRecord, CheckpointRecord, Record, RunManifest
from mambabench.speed_schema import CeilingsRecord, ReplicateRecord
from mambabench.store.files import read_record
from mambabench.store.run import MANIFEST
from mambabench.store.seal import compare_with_seal
from mambabench.store.segments import KEY_BYTES, MIN_KEY_BYTES, read_segment

Outcome = Literal["agrees", "differs", "outdated", "not checked"]
"""outdated: the run went on after it was sealed, and nothing that was sealed has changed."""
Advance = Callable[[int], None]
"""Told of bytes read."""

_KINDS: Final[dict[str, type[Record]]] = {
    "cells": CellRecord,
    "checkpoints": CheckpointRecord,
    "replicates": ReplicateRecord,
    "ceilings": CeilingsRecord,
    "recall": RecallRecord,
    "context-loss": ContextLossRecord,
    "perplexity": PerplexityRecord,
}
_SHORT: Final = 16
"""Hexadecimal digits of a fingerprint that stand in a file's name."""


@dataclass(frozen=True)
class Check:
    """One kind of check over one run."""

    what: str
    outcome: Outcome
    n: int
    """Things that were looked at."""
    how: str
    """What was compared with what; or why it was not."""
    problems: tuple[str, ...] = ()
    """What does not agree, each naming its file."""


def checked(what: str, n: int, how: str, problems: list[str], why_not: str = "") -> Check:
    """Return a check's result: not checked where there was nothing to look at.

    Args:
        what: is checked.
        n: things that were looked at.
        how: what was compared.
        problems: what does not agree.
        why_not: why nothing was looked at, where that is so.
    """
    if problems:
        return Check(what, "differs", n, how, tuple(problems))
    return Check(what, "agrees", n, how) if n else Check(what, "not checked", 0, why_not or "there are none")


def check_records(path: Path) -> Check:
    """Read every manifest and record as the class that its folder holds, and look for doubles."""
    problems: list[str] = []
    n = 0
    for manifest in [path / MANIFEST, *sorted(path.glob("manifest-*.json"))]:
        n += _reads(manifest, RunManifest, problems) is not None
    for folder, kind in _KINDS.items():
        seen: Counter[str] = Counter()
        for record in _records(path / folder):
            found = _reads(record, kind, problems)
            n += found is not None
            fingerprint = getattr(found, "fingerprint", None)
            if fingerprint is None:
                continue
            seen[fingerprint] += 1
            if seen[fingerprint] == 2:
                problems.append(f"{folder}/{record.name} has the fingerprint of another record there")
            tail = record.stem.rpartition("-")[2]
            if len(tail) == _SHORT and tail != fingerprint[:_SHORT]:
                problems.append(f"{folder}/{record.name} is named after another fingerprint than its own")
    how = f"each is of schema version {SCHEMA_VERSION} or older, and its fingerprint stands once"
    return checked("records", n, how, problems, "no record is there")


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.json"))


def _reads(path: Path, kind: type[Record], problems: list[str]) -> Record | None:
    try:
        return read_record(path, kind, remedy="")
    except StoreError as error:
        problems.append(_relative(error.message, path))
        return None


def _relative(message: str, path: Path) -> str:
    """Return a message that names a file of a run by its place in it."""
    inside = path.name if path.parent.name not in _KINDS else f"{path.parent.name}/{path.name}"
    return message.replace(str(path), inside)


def check_answers(path: Path, advance: Advance = lambda n_bytes: None) -> Check:
    """Read every log and segment of answers, and compare whose they are with what their names say."""
    problems: list[str] = []
    n = 0
    for file in sorted((path / "answers").glob("[!.]*")):
        if file.suffix not in (".jsonl", ".parquet"):
            continue
        try:
            n += _segment(file) if file.suffix == ".parquet" else _log(file)
            advance(file.stat().st_size)
        except StoreError as error:
            problems.append(error.message.replace(str(file), f"answers/{file.name}"))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            problems.append(f"answers/{file.name} is damaged: {str(error) or type(error).__name__}")
    how = "each can be read, and belongs to the checkpoint and settings that its file is named after"
    return checked("answers", n, how, problems, "the run holds no answers")


def _segment(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from error
    owner = metadata.get(b"mambabench.answers", b"").decode()
    _check_owner(path, json.loads(owner) if owner else {})
    return int(read_segment(path, owner).num_rows)


def _log(path: Path) -> int:
    lines = path.read_bytes().split(b"\n")
    # What follows the last line break was being written when the process died; it is dropped by going on.
    lines.pop()
    if not lines:
        return 0
    _check_owner(path, json.loads(lines[0]))
    for number, line in enumerate(lines[1:], 2):
        try:
            key = bytes.fromhex(json.loads(line)["k"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"line {number} is no answer") from error
        if not MIN_KEY_BYTES <= len(key) <= KEY_BYTES:
            raise ValueError(f"line {number} is no answer")
    return len(lines) - 1


def _check_owner(path: Path, owner: Any) -> None:
    if not isinstance(owner, dict) or not all(
        isinstance(owner.get(k), str) for k in ("checkpoint", "settings")
    ):
        raise ValueError("it does not say whose answers it holds")
    stem = f"{owner['checkpoint'][:_SHORT]}-{digest(owner['settings'])[:8]}"
    if path.name.split(".")[0] != stem:
        raise ValueError(f"it holds the answers of {stem}")


def check_replicates(path: Path) -> Check:
    """Look whether each process of a sweep stands once."""
    problems: list[str] = []
    seen: Counter[tuple[str, int]] = Counter()
    for file in _records(path / "replicates"):
        try:
            value = json.loads(file.read_bytes())
            seen[json.dumps(value["point"], sort_keys=True), int(value["replicate"])] += 1
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        if max(seen.values()) > 1:
            problems.append(f"replicates/{file.name} measured a point as the same process as another record")
            seen.subtract(seen.keys())
    how = "each process of a point stands once"
    return checked("processes", len(seen), how, problems, "the run is no sweep")


def check_seal(path: Path, advance: Advance = lambda n_bytes: None) -> Check:
    """Read all files and compare them with the run's seal."""
    how = "sha256 of every file, against SHA256SUMS"
    try:
        sealed = compare_with_seal(path, advance)
    except StoreError as error:
        return Check("seal", "differs", 0, how, (error.message.replace(f"{path}/", ""),))
    if sealed is None:
        return Check("seal", "not checked", 0, "the run is not sealed; `--seal` does it")
    if sealed.agrees:
        return Check("seal", "agrees", sealed.n_files, how)
    parts = (
        ("changed", sealed.changed), ("missing", sealed.missing), ("added", sealed.added),
        ("cannot be read", sealed.unreadable),
    )  # fmt: skip
    problems = tuple(f"{name}: {word}" for word, names in parts for name in names)
    if sealed.is_outdated:
        how = "the run went on after it was sealed: files were added, no result changed; `--seal` renews it"
        return Check("seal", "outdated", sealed.n_files, how, problems)
    return Check("seal", "differs", sealed.n_files, how, problems)


def bytes_to_read(path: Path, folders: tuple[str, ...]) -> Iterator[int]:
    """Yield the sizes of the files in some of a run's folders, for a bar of progress."""
    for folder in folders:
        for file in (path / folder).glob("*"):
            try:
                yield file.stat().st_size
            except OSError:
                continue
