"""Writing files so that a kill at any moment leaves the old one or the new one, never half of one.

>>> slug("hf:org/name @ main")
'hf-org-name-main'
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mambabench.errors import StoreError
from mambabench.schema import SCHEMA_VERSION, Record

TEMPORARY_SUFFIX = ".tmp"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_AnyRecord = TypeVar("_AnyRecord", bound=Record)


def slug(text: str, *, max_length: int = 60) -> str:
    """Return `text` as part of a file name: letters, digits, `.`, `_` and `-` only, never empty."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    return plain[:max_length].rstrip("-.") or "unnamed"


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating system's error while writing `path` into a `StoreError` with the way out."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_SPACE:
            hint = "Free some space, or name another directory with `--out DIR`; what was stored is kept."
        else:
            hint = "Name a directory that can be written with `--out DIR`."
        raise StoreError(f"cannot write {path}: {reason}", hint=hint) from error


def sync_directory(folder: Path) -> None:
    """Make the names in `folder` durable: a rename is only lasting once its directory is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place.

    Args:
        path: the file to create or replace; its directory exists.
        write: called with the path of an empty temporary file.

    Raises:
        StoreError: the file cannot be written; an earlier file at `path` is then untouched.
    """
    with storing(path):
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:100]}.", suffix=TEMPORARY_SUFFIX
        )
        temporary = Path(name)
        try:
            # mkstemp makes the file private; results are as readable as the user's other files.
            os.fchmod(descriptor, 0o666 & ~_umask())
            write(temporary)
            os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(descriptor)
        sync_directory(path.parent)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably; see `replace_file` for what it raises."""
    replace_file(path, lambda temporary: _fill(temporary, data))


def _fill(path: Path, data: bytes) -> None:
    # Opened for writing in place: the descriptor that is synchronised must stay that of this file.
    with path.open("r+b") as stream:
        stream.write(data)
        stream.flush()


def write_record(path: Path, record: Record) -> None:
    """Write a record as indented JSON, atomically and durably."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False)
    # A file name that is not valid text reaches a command line as lone surrogates, which UTF-8 refuses.
    write_bytes(path, (text + "\n").encode("utf-8", errors="backslashreplace"))


def read_record(path: Path, kind: type[_AnyRecord], *, remedy: str) -> _AnyRecord:
    """Read one record.

    Args:
        path: a JSON file.
        kind: the record's class.
        remedy: what the user can do when the file is damaged, as a sentence.

    Raises:
        StoreError: the file is not there, is damaged, or was written by a newer version.
    """
    if path.exists() and not path.is_file():
        # Reading a pipe would wait for ever.
        raise StoreError(f"{path} is no file", hint=remedy)
    try:
        value: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", hint=remedy) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: it is not JSON ({error})", hint=remedy) from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}; this mambabench reads up to {SCHEMA_VERSION}",
            hint="Upgrade mambabench, or write to another directory with `--out DIR`.",
        )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise StoreError(f"{path} is damaged: {where}: {first['msg']}", hint=remedy) from error


def remove_temporaries(folder: Path) -> None:
    """Delete what a killed process left half-written in `folder`; the caller holds the run's lock."""
    for left in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):
            left.unlink()


def make_directory(path: Path, made: list[Path]) -> None:
    """Create a directory with its parents, adding each new one to `made` as it appears, outermost first."""
    missing: list[Path] = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with storing(folder):
            folder.mkdir(exist_ok=True)
        made.append(folder)
