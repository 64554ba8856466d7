"""Digests of checkpoint files; those of large ones are remembered, since reading gigabytes takes a while.

The memory is one JSON file in the user's cache directory (`MAMBABENCH_CACHE` overrides it), keyed by
path, size and modification time. Losing it costs time only.

    records = file_records([Path("m/config.json"), Path("m/model.safetensors")], root=Path("m"))
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mambabench.cache import cache_dir
from mambabench.fingerprint import file_sha256
from mambabench.schema import FileRecord

_REMEMBER_FROM_BYTES = 16 << 20
_MAX_ENTRIES = 2000


def file_records(paths: Sequence[Path], *, root: Path) -> tuple[FileRecord, ...]:
    """Return name relative to `root`, size and sha256 of each file, in the order of their names.

    Raises:
        OSError: a file cannot be read.
    """
    records = []
    for path in sorted(paths):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        records.append(FileRecord(name=name, size_bytes=path.stat().st_size, sha256=cached_sha256(path)))
    return tuple(records)


def cached_sha256(path: Path) -> str:
    """Return a file's sha256, read only if it is small or has changed since it was last read."""
    # The Hub's cache links a snapshot's names to blobs; the blob is what is hashed once.
    real = path.resolve()
    stat = real.stat()
    if stat.st_size < _REMEMBER_FROM_BYTES:
        return file_sha256(real)
    memory = _read_memory()
    known = memory.get(str(real))
    # Archives and copies keep size and modification time; they cannot keep all four.
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    if isinstance(known, list) and known[:-1] == state:
        return str(known[-1])
    digest = file_sha256(real)
    # Read again: another process may have added its own entries while this file was hashed.
    memory = _read_memory()
    memory.pop(str(real), None)
    memory[str(real)] = [*state, digest]
    _write_memory(dict(list(memory.items())[-_MAX_ENTRIES:]))
    return digest


def _memory_path() -> Path:
    return cache_dir() / "file-sha256.json"


def _read_memory() -> dict[str, object]:
    try:
        value = json.loads(_memory_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_memory(memory: dict[str, object]) -> None:
    path = _memory_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(memory, stream)
        Path(temporary).replace(path)
    except OSError:
        # A read-only home directory costs time on the next run, nothing else.
        return
