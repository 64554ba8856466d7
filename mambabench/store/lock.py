"""Which process writes a run: a lock that ends with its process, and a note of whose it is.

lock = acquire(run_directory)
write_owner(run_directory)
release(lock, run_directory)
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench.errors import StoreError
from mambabench.store.files import storing, write_bytes

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOCK: Final = ".lock"
_OWNER: Final = ".owner.json"


def acquire(path: Path) -> BaseFileLock:
    """Lock a run's directory.

    Raises:
        StoreError: another process holds it, named with its host, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path / _LOCK, thread_local=False)
    with storing(path):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise StoreError(
                f"run {path.name} in {path.parent} is being written by {_describe_owner(path)}",
                hint="Wait for it or stop it, or write to another directory with `--out DIR`.",
            ) from error
    return lock


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a run that a command is about: it is there, and nowhere else.

    Raises:
        StoreError: as `acquire` does, without naming another directory as the way out.
    """
    from filelock import Timeout

    try:
        lock = acquire(path)
    except StoreError as error:
        is_busy = isinstance(error.__cause__, Timeout)
        hint = "Wait for it or stop it." if is_busy else "Nothing of the run was changed."
        raise StoreError(error.message, hint=hint) from error
    try:
        yield
    finally:
        lock.release()


def release(lock: BaseFileLock, path: Path) -> None:
    """Give a held lock up."""
    with suppress(OSError):
        (path / _OWNER).unlink()
    lock.release()


def write_owner(path: Path) -> None:
    """Note for other processes who holds the lock."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since_utc": started}
    write_bytes(path / _OWNER, json.dumps(owner).encode())


def writer(path: Path) -> str | None:
    """Return who is writing a run, None where nobody is or it cannot be told; creates nothing.

    A process that died left its note behind, but not its lock.
    """
    from filelock import FileLock, Timeout

    if not (path / _OWNER).exists() or not (path / _LOCK).is_file():
        return None
    lock = FileLock(path / _LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return _describe_owner(path)
    except OSError:
        return None
    lock.release()
    return None


def _describe_owner(path: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((path / _OWNER).read_bytes())
        return f"process {int(owner['pid'])} on {owner['host']} since {owner['since_utc']}"
    return "another process"
