"""A run's seal: the sha256 of all its files, as the program `sha256sum` writes and checks them.

    write_seal(run)                     # run/SHA256SUMS
    compare_with_seal(run).changed      # names of files with other bytes than then

`sha256sum -c SHA256SUMS` in the run's directory gives the same answer for files that changed or are gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mambabench.errors import StoreError
from mambabench.fingerprint import file_sha256
from mambabench.store.files import write_bytes

SEAL: Final = "SHA256SUMS"
_LEFT_OUT: Final = (".lock", ".owner.json")
_LINE: Final = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
_ESCAPES: Final = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_REMEDY: Final = "Look for a copy of it, or seal the run anew with `mambabench runs verify --seal`."


@dataclass(frozen=True)
class Sealed:
    """A run's files against its seal; names are relative to the run."""

    n_files: int
    """That the seal names."""
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the run is as it was sealed."""
        return not (self.changed or self.missing or self.added or self.unreadable)

    @property
    def is_outdated(self) -> bool:
        """Whether files were only added, as by going on with the run, or taken out of the way by it."""
        gone = [name for name in self.missing if not _is_working_file(name)]
        changed = [name for name in self.changed if not _is_working_file(name)]
        return bool(self.added) and not (changed or gone or self.unreadable)


def sealed_files(run: Path) -> list[str]:
    """Return the names of all files that a seal covers, sorted: all but locks, notes of owners, half files.

    Links are left out, as what they lead to is no part of the run.
    """
    from mambabench.store.overview import files_below

    names = [
        name
        for name, entry in files_below(run)
        if entry.is_file(follow_symlinks=False)
        and name not in (*_LEFT_OUT, SEAL)
        and not (entry.name.startswith(".") and entry.name.endswith(".tmp"))
    ]
    return sorted(names)


def write_seal(run: Path, advance: Callable[[int], None] = lambda n_bytes: None) -> int:
    """Write the seal, in the place of an earlier one.

    Args:
        run: a run that nobody is writing.
        advance: told of bytes read.

    Returns:
        The number of files.

    Raises:
        StoreError: a file cannot be read, or the seal not be written.
    """
    lines = []
    for name in sealed_files(run):
        try:
            digest = file_sha256(run / name)
            advance((run / name).stat().st_size)
        except OSError as error:
            raise StoreError(
                f"cannot read {run / name}: {error.strerror or error}", hint="The run was not sealed."
            ) from error
        lines.append(_line(name, digest))
    try:
        write_bytes(run / SEAL, b"".join(lines))
    except StoreError as error:
        raise StoreError(error.message, hint="The run was not sealed.") from error
    return len(lines)


def read_seal(run: Path) -> dict[str, str] | None:
    """Return sha256 by name, None where there is no seal.

    Raises:
        StoreError: it is damaged, or cannot be read.
    """
    path = run / SEAL
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", hint=_REMEDY) from error
    found: dict[str, str] = {}
    # Names are bytes to the file system; what is no UTF-8 comes back as it went in.
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n")[:-1], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise StoreError(f"{path} is damaged at line {number}", hint=_REMEDY)
        escaped, digest, name = match.groups()
        if escaped:
            name = re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], name)
        if name.startswith("/") or ".." in name.split("/"):
            raise StoreError(f"{path} names a file outside of the run at line {number}", hint=_REMEDY)
        found[name] = digest
    if data and not data.endswith(b"\n"):
        raise StoreError(f"{path} is damaged: its last line is cut off", hint=_REMEDY)
    return found


def compare_with_seal(run: Path, advance: Callable[[int], None] = lambda n_bytes: None) -> Sealed | None:
    """Read all files and compare them with the seal; None where there is none.

    Raises:
        StoreError: the seal is damaged, or cannot be read.
    """
    seal = read_seal(run)
    if seal is None:
        return None
    there = sealed_files(run)
    changed, unreadable = [], []
    for name in there:
        if name not in seal:
            continue
        try:
            if file_sha256(run / name) != seal[name]:
                changed.append(name)
            advance((run / name).stat().st_size)
        except OSError:
            unreadable.append(name)
    known = set(there)
    return Sealed(
        n_files=len(seal),
        changed=tuple(changed),
        missing=tuple(sorted(seal.keys() - known)),
        added=tuple(name for name in there if name not in seal),
        unreadable=tuple(unreadable),
    )


def _line(name: str, digest: str) -> bytes:
    # The program's own way of writing names that would break a line.
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest}  {escaped}\n".encode("utf-8", "surrogateescape")


def _is_working_file(name: str) -> bool:
    """Tell whether going on with a run may change or remove a file."""
    return name.startswith(("answers/", "checkpoints/")) or name.endswith((".progress", ".state"))
