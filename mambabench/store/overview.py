"""What a run is and how far it came, from plain JSON: hundreds of runs in a second, damaged ones included.

    for found in overviews(Path("results")):
        print(found.path.name, found.state, found.n_ok, "of", found.n_expected)

A record is parsed but not validated here; `mambabench.store.verify` does that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from mambabench.errors import StoreError
from mambabench.schema import SCHEMA_VERSION, RunManifest
from mambabench.store.expected import Json, missing_of, plain_json
from mambabench.store.lock import writer
from mambabench.store.run import MANIFEST

State = Literal["complete", "partial", "interrupted", "failed", "empty", "running", "unreadable"]
"""Of these the first that holds: unreadable, running, empty, interrupted (not all that was asked for is
there), failed (all is there, and some of it failed), partial (only some items were asked for), complete."""
STATES: Final = ("complete", "partial", "interrupted", "failed", "empty", "running", "unreadable")
RECORD_FOLDERS: Final = ("cells", "replicates", "recall", "context-loss", "perplexity")
_SIGNS: Final = (
    {"checkpoints", "cells", "samples", "answers"},
    {"replicates", "ceilings"},
    {"checkpoints", "answers", "perplexity", "context-loss", "recall"},
)
"""Folders that every run of a kind has from its beginning."""
_OURS: Final = ("identity", "kind", "models", "settings")
_DONE: Final = frozenset({"ok", "oom", "unsupported", "skipped_after_oom"})
"""Out of memory and unsupported are results of a sweep."""


@dataclass(frozen=True)
class Overview:
    """A run, readable or not."""

    path: Path
    state: State
    manifests: tuple[Json, ...] = ()
    """As they were written: the first one, then those of resumptions; empty where the first is unreadable."""
    records: tuple[Json, ...] = ()
    """Of cells, processes and long-context results, as far as they can be read."""
    n_expected: int | None = None
    """Records of a complete run; None where the manifest does not tell."""
    missing: tuple[str, ...] = ()
    """What was asked for and is not there, in words."""
    problems: tuple[str, ...] = ()
    """Why parts of it, or all of it, cannot be read."""
    written_by: str = ""
    """The process that is writing it at the moment."""
    size_bytes: int = 0
    """Of all its files."""
    n_files: int = 0

    @property
    def n_ok(self) -> int:
        """Records that hold a result."""
        return sum(1 for record in self.records if record["status"] in _DONE)

    @property
    def failed(self) -> list[Json]:
        """Records of what failed."""
        return [record for record in self.records if record["status"] not in _DONE]

    @property
    def kind(self) -> str:
        """What was computed; empty where that cannot be read."""
        return self._text("kind")

    @property
    def created_utc(self) -> str:
        """ISO 8601, seconds; empty where that cannot be read."""
        return self._text("created_utc")

    @property
    def suite(self) -> str:
        """Name of the suite; empty where there is none or it cannot be read."""
        return self._text("suite")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self.manifests[0]["models"]) if self.manifests else ()

    def _text(self, name: str) -> str:
        return str(self.manifests[0][name]) if self.manifests else ""


@dataclass(frozen=True)
class Place:
    """A directory of runs."""

    path: Path
    runs: tuple[Path, ...] = ()
    """Whatever is a run, or what is left of one."""
    staging: tuple[Path, ...] = ()
    """What processes have left that were killed while they made or deleted a run, or are still at it."""


def place(folder: Path) -> Place:
    """Look through a directory, one level deep.

    Raises:
        OSError: it cannot be read.
    """
    runs, staging = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".new-", ".gone-")):
            staging.append(path)
        elif path.name.startswith("."):
            continue
        elif looks_like_run(path):
            runs.append(path)
    return Place(folder, tuple(runs), tuple(staging))


def looks_like_run(path: Path) -> bool:
    """Tell whether a directory is a run, or was one before its manifest was damaged or lost.

    Other programs write files named manifest.json too; such a directory is none.
    """
    try:
        if not path.is_dir():
            return False
        value = plain_json(path / MANIFEST)
        if isinstance(value, dict):
            return all(name in value for name in _OURS)
        return any(all((path / name).is_dir() for name in names) for names in _SIGNS)
    except OSError:
        return False


def overviews(paths: Iterable[Path]) -> Iterator[Overview]:
    """Yield the overview of each run; none raises."""
    for path in paths:
        yield overview(path)


def overview(path: Path) -> Overview:
    """Read a run; whatever is wrong with it is in its problems."""
    size_bytes, n_files = size_of(path)
    unreadable = Overview(path, "unreadable", size_bytes=size_bytes, n_files=n_files)
    try:
        manifests, problems = _manifests(path)
    except StoreError as error:
        return replace(unreadable, problems=(error.message,))
    try:
        records = list(_records(path, problems))
    except OSError as error:
        return replace(unreadable, manifests=manifests, problems=(f"{error.filename}: {error.strerror}",))
    missing, n_expected = missing_of(path, manifests, records)
    by = writer(path) or ""
    state = _state(manifests, records, missing, problems, by)
    return Overview(
        path, state, manifests, tuple(records), n_expected, tuple(missing), tuple(problems), by,
        size_bytes, n_files,
    )  # fmt: skip


def _state(
    manifests: Sequence[Json],
    records: Sequence[Json],
    missing: Sequence[str],
    problems: Sequence[str],
    written_by: str,
) -> State:
    if problems:
        return "unreadable"
    if written_by:
        return "running"
    if not records:
        return "empty"
    if missing:
        return "interrupted"
    if any(record["status"] not in _DONE for record in records):
        return "failed"
    partial = manifests[0]["partial"] or any(record.get("partial") for record in records)
    return "partial" if partial else "complete"


def size_of(path: Path) -> tuple[int, int]:
    """Return bytes and number of all files in a directory; links count as themselves."""
    size_bytes = n_files = 0
    for _, entry in files_below(path):
        try:
            size_bytes += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
        n_files += 1
    return size_bytes, n_files


def files_below(path: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (path relative to the directory, entry) of all files, without following links out of it."""
    waiting = [("", os.fspath(path))]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((f"{prefix}{entry.name}/", entry.path))
            else:
                yield f"{prefix}{entry.name}", entry


def _manifests(path: Path) -> tuple[tuple[Json, ...], list[str]]:
    """Return the manifests that can be read, and what is wrong with later ones.

    Raises:
        StoreError: the first one cannot be read.
    """
    found = [_manifest(path / MANIFEST)]
    problems: list[str] = []
    number = 2
    while (later := path / f"manifest-{number}.json").exists():
        try:
            found.append(_manifest(later))
        except StoreError as error:
            problems.append(error.message)
        number += 1
    return tuple(found), problems


def _manifest(path: Path) -> Json:
    value = _read(path)
    try:
        RunManifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise StoreError(f"{path.name} is damaged: {where}: {first['msg']}") from error
    return value


def _read(path: Path) -> Json:
    if path.exists() and not path.is_file():
        raise StoreError(f"{path.name} is no file")
    try:
        # A number that is none would be refused by whoever reads our own JSON.
        value = json.loads(path.read_bytes(), parse_constant=str)
    except OSError as error:
        raise StoreError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path.name} is damaged: it is not JSON") from error
    if type(value) is not dict:
        raise StoreError(f"{path.name} is damaged: it is no record")
    version = value.get("schema_version", 1)
    if type(version) is int and version > SCHEMA_VERSION:
        raise StoreError(
            f"{path.name} has schema version {version}; this mambabench reads up to {SCHEMA_VERSION}"
        )
    return value


def _records(path: Path, problems: list[str]) -> Iterator[Json]:
    for folder in RECORD_FOLDERS:
        if not (path / folder).is_dir():
            continue
        for entry in sorted(os.scandir(path / folder), key=lambda entry: entry.name):
            if not entry.name.endswith(".json") or entry.name.startswith("."):
                continue
            try:
                value = _read(Path(entry.path))
                yield {**value, "folder": folder, "key": _key(folder, value)}
            except StoreError as error:
                problems.append(f"{folder}/{error.message}")
            except (KeyError, TypeError, ValueError):
                problems.append(f"{folder}/{entry.name} is damaged: it is no record")


def _key(folder: str, value: Json) -> tuple[Any, ...]:
    """Return what a record is about; all that is used of it later is looked at here.

    Raises:
        KeyError, TypeError, ValueError: it is no such record.
    """
    if type(value["status"]) is not str:
        raise TypeError
    if folder == "cells":
        return str(value["model"]), str(value["task"]["task"])
    if folder == "replicates":
        point = value["point"]
        size = (
            int(point["prompt_len_tokens"]), int(point["batch_size"]), int(point["gen_len_tokens"]),
            int(point["prefill_chunk_tokens"] or 0),
        )  # fmt: skip
        return size, int(value["order"]), int(value["replicate"]), str(point["model"])
    if folder == "recall":
        return str(value["model"]), str(value["task"]), int(value["length_tokens"])
    if folder == "context-loss":
        return str(value["model"]), str(value["corpus"]["sha256"]), int(value["context_tokens"])
    return str(value["model"]), str(value["corpus"]["sha256"])
