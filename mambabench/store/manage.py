"""Runs found by name, renamed and deleted; a run is found by its command wherever it lies in its directory.

    path = find_run("zeroshot-smoke", Path("results"))
    rename_run(path, "first try")
    delete_run(path)

A deletion renames first, so that an interruption leaves no half run; `remove_leftovers` clears the rest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mambabench.errors import StoreError, UnknownNameError, UsageError
from mambabench.store.files import slug, sync_directory
from mambabench.store.lock import held
from mambabench.store.overview import Place, looks_like_run, overview, place
from mambabench.store.run import MANIFEST
from mambabench.store.usage import usage_of

_GONE_PREFIX: Final = ".gone-"
_LONGEST_NAME_BYTES: Final = 255
_LEAST_IDENTITY: Final = 6
"""Letters of an identity that are taken for one rather than for the beginning of a name."""
_MADE_NAME: Final = re.compile(r".*-([0-9a-f]{8})")
_MOST_NAMED: Final = 5


def find_place(folder: Path) -> Place:
    """Look through a directory of runs; one that is not there yet holds none.

    Raises:
        StoreError: it is no directory, or cannot be read.
    """
    if not folder.exists() and not folder.is_symlink():
        return Place(folder)
    try:
        return place(folder)
    except NotADirectoryError as error:
        raise StoreError(f"{folder} is no directory", hint="Name a directory that holds runs.") from error
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror or error}") from error


def find_run(text: str, out: Path) -> Path:
    """Return the directory of a run.

    Args:
        text: a path of a run, or of its manifest; or the name of a run in `out`, the beginning of one, or
            that of its identity where no other run's begins so.
        out: directory of runs.

    Raises:
        UnknownNameError: there is none; the closest names are offered.
        UsageError: it is empty, stands for several runs, or is something else than a run.
    """
    if not text.strip():
        raise UsageError("a run's name is empty", hint="`mambabench runs list` lists all.")
    if "\0" in text:
        raise UsageError("a run's name holds a character that no name has")
    path = Path(text)
    if path.name == MANIFEST and looks_like_run(path.parent):
        return path.parent
    if looks_like_run(path):
        return path
    if len(path.parts) == 1 and path.name not in ("..", "."):
        if looks_like_run(out / path):
            return out / path
        # Unlike a path's own methods these tell of names that are too long, too.
        if not os.path.lexists(path):
            return _begins_with(text, out)
    return _refuse(path)


def _begins_with(text: str, out: Path) -> Path:
    runs = find_place(out).runs
    found = [path for path in runs if path.name.startswith(text)]
    if not found and len(text) >= _LEAST_IDENTITY:
        found = [path for path in runs if _identity(path).startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found[:_MOST_NAMED])
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise UsageError(f"'{text}' stands for {len(found)} runs", hint=f"Name one of {names}{more}.")
    if os.path.lexists(out / text):
        return _refuse(out / text)
    where = "`mambabench runs list` lists all."
    if out != Path("results"):
        where = f"`mambabench runs list {out}` lists all."
    raise UnknownNameError.for_name("run", text, [path.name for path in runs], where=where)


def _refuse(path: Path) -> Path:
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114
        raise UsageError(f"{path} is a link that leads nowhere", hint="Remove the link by hand.")
    if not os.path.exists(path):  # noqa: PTH110
        parent, runs = path.parent, []
        if parent.is_dir():
            runs = [str(found) for found in find_place(parent).runs]
        where = f"`mambabench runs list {parent}` lists all."
        raise UnknownNameError.for_name("run", str(path), runs, where=where)
    if not path.is_dir():
        raise UsageError(f"{path} is a file and no run", hint="Name a run's directory.")
    if find_place(path).runs:
        raise UsageError(
            f"{path} holds runs and is none itself", hint="Name one of them, or several: `DIR/*` if all."
        )
    raise UsageError(f"{path} is no run", hint=f"A run is a directory with a {MANIFEST} of ours.")


def _identity(path: Path) -> str:
    try:
        value = json.loads((path / MANIFEST).read_bytes()).get("identity")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def same_runs(path: Path) -> list[Path]:
    """Return the other directories beside a run that hold the same run: copies of it."""
    if not (identity := _identity(path)):
        return []
    others = find_place(path.parent).runs
    return [other for other in others if other.name != path.name and _identity(other) == identity]


def check_name(path: Path, name: str) -> None:
    """Check that a run can be given a name.

    Raises:
        UsageError: it is none, is taken, is hidden, leads elsewhere, or would be taken for another run's.
    """
    if not name.strip() or name != name.strip():
        raise UsageError(f"'{name}' is no name for a run", hint="Begin and end it with something to see.")
    if "/" in name or os.sep in name or (os.altsep and os.altsep in name):
        raise UsageError(
            f"'{name}' is a path and no name",
            hint=f"The run stays in {path.parent}; `mv` moves it elsewhere.",
        )
    if name.startswith("."):
        raise UsageError(f"'{name}' begins with a dot", hint="Runs with such names are not found.")
    if name.startswith("-"):
        raise UsageError(f"'{name}' begins like an option", hint="Begin it with a letter or a digit.")
    if not name.isprintable():
        raise UsageError(
            f"{name!a} holds characters that cannot be seen", hint="Leave them out: names are typed again."
        )
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        raise UsageError(
            f"'{name[:20]}…' is longer than {_LONGEST_NAME_BYTES} bytes", hint="Give it a shorter name."
        )
    made = _MADE_NAME.fullmatch(name)
    if made and not slug(_identity(path)).startswith(made[1]):
        # `Store` looks for a command's run under the name that it would make, before it looks elsewhere.
        raise UsageError(
            f"'{name}' ends like the name of another run",
            hint="A dash and eight hexadecimal digits tell which command a run belongs to; end it otherwise.",
        )
    if os.path.lexists(path.parent / name):
        raise UsageError(f"{path.parent / name} is there already", hint="Take another name.")


def rename_run(path: Path, name: str) -> Path:
    """Give a run's directory another name; the command that made it finds it there.

    Raises:
        UsageError: as `check_name` does.
        StoreError: a process is writing the run, or it cannot be renamed.
    """
    check_name(path, name)
    target = path.parent / name
    with held(path):
        if os.path.lexists(target):
            raise UsageError(f"{target} is there already", hint="Take another name.")
        try:
            path.rename(target)
            sync_directory(path.parent)
        except OSError as error:
            raise StoreError(
                f"cannot rename {path}: {error.strerror or error}", hint="It keeps its name."
            ) from error
    return target


@dataclass(frozen=True)
class Deletion:
    """What goes with a run."""

    path: Path
    link_to: Path | None
    """Where a link leads; only the link goes then."""
    state: str
    n_files: int
    size_bytes: int
    n_results: int
    """Cells, processes or records that hold a result."""
    answers_bytes: int
    unknown: tuple[str, ...]
    """Files in it that no command of ours has left there."""


def plan_deletion(path: Path) -> Deletion:
    """Look at what a deletion would take away.

    Raises:
        UsageError: the run holds another run, or the working directory.
        StoreError: a process is writing it.
    """
    link_to = Path(os.readlink(path)) if path.is_symlink() else None  # noqa: PTH115
    found = overview(path)
    if link_to is None:
        _must_be_alone(path)
        if found.written_by:
            raise StoreError(
                f"{path} is being written by {found.written_by}", hint="Wait for it or stop it first."
            )
    usage = usage_of(path)
    answers = usage.by_kind.get("answers")
    return Deletion(
        path=path,
        link_to=link_to,
        state=found.state,
        n_files=usage.total.n_files,
        size_bytes=usage.total.size_bytes,
        n_results=found.n_ok,
        answers_bytes=answers.size_bytes if answers else 0,
        unknown=usage.unknown,
    )


def _must_be_alone(path: Path) -> None:
    real = path.resolve()
    if Path.cwd().resolve().is_relative_to(real):
        raise UsageError(f"{path} holds the working directory", hint="Go elsewhere first: `cd ..`.")
    for folder, names, _ in os.walk(path):
        for name in names:
            inside = Path(folder) / name
            if not inside.is_symlink() and looks_like_run(inside):
                raise UsageError(f"{path} holds another run, {inside}", hint="Move or delete that one first.")


def delete_run(path: Path) -> None:
    """Delete a run, or a link to one; never anything that a link leads to.

    Interrupted, it leaves a hidden directory that `remove_leftovers` removes, and no half run.

    Raises:
        UsageError: it is no run, or holds another one.
        StoreError: a process is writing it, or it cannot be deleted.
    """
    if path.is_symlink():
        with _deleting(path):
            path.unlink()
        return
    if not looks_like_run(path):
        _refuse(path)
    _must_be_alone(path)
    prefix = f"{_GONE_PREFIX}{slug(socket.gethostname())}-{os.getpid()}-"
    number = 0
    while os.path.lexists(hidden := path.parent / f"{prefix}{number}"):
        number += 1
    with held(path), _deleting(path):
        path.rename(hidden)
        sync_directory(path.parent)
    with _deleting(hidden):
        shutil.rmtree(hidden)


class _deleting:  # noqa: N801
    """Turn an operating system's error while deleting into a `StoreError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StoreError(
                f"cannot delete {self._path}: {reason}", hint="What is left of it can be deleted again."
            ) from error


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what interrupted deletions of this machine have left in a directory; return what it was."""
    import psutil

    here = f"{_GONE_PREFIX}{slug(socket.gethostname())}-"
    removed = []
    with suppress(OSError):
        for path in sorted(folder.glob(f"{here}*")):
            pid = path.name.removeprefix(here).split("-")[0]
            ours = pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid)))
            if ours and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed


def checked_runs(texts: Sequence[str], out: Path) -> list[Path]:
    """Return the runs that arguments stand for, each once, all looked up before anything is done.

    Raises:
        UsageError: as `find_run` does.
    """
    found: dict[Path, Path] = {}
    for text in texts:
        path = find_run(text, out)
        # A link and what it leads to are two; the same directory typed twice is one.
        found.setdefault(path.parent.resolve() / path.name, path)
    return list(found.values())
