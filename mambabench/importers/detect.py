"""Which files under the given paths hold another program's results, and in which format.

    found = detect([Path("results/EleutherAI__pythia-160m")])
    found.format, [file.name for file in found.files]

A directory is searched as a whole, so that any layout of an output folder is found. What is no JSON there is
an error, since half a file would else be passed over silently; another program's JSON is passed over and
counted.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mambabench.errors import UsageError
from mambabench.schema import FileRecord

Format = Literal["lm-eval", "old lm-eval"]
_SAMPLES: Final = "samples_"
_TIME: Final = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.-]+)$")
_FORMATS: Final = "Results files of lm-eval can be read, of version 0.4 and of those before."
_SAMPLES_HINT: Final = "Name the results file that was written with it, or the directory of both."


@dataclass(frozen=True)
class ResultsFile:
    """One results file, read."""

    path: Path
    name: str
    """Relative to the path that was given."""
    format: Format
    content: dict[str, Any]
    record: FileRecord
    time: str
    """When it was written, ISO 8601 as lm-eval puts it into file names; empty where nothing says it."""
    stamp: str
    """The time in the file's own name, which its samples share; empty for files without one."""


@dataclass(frozen=True)
class Detected:
    """Results files of one format."""

    format: Format
    files: tuple[ResultsFile, ...]
    """By time, the oldest first, then in the order given; of a directory by name."""
    remarks: tuple[str, ...]


def detect(paths: Sequence[Path]) -> Detected:
    """Find and read all results files.

    Args:
        paths: files, and directories that are searched with all that lies below them.

    Raises:
        UsageError: a path does not exist or cannot be read, is no JSON, holds no results of lm-eval, or
            both formats are there.
    """
    found: dict[Path, ResultsFile] = {}
    others: list[str] = []
    for path in paths:
        files, passed_over = _in_directory(path) if path.is_dir() else ([_in_file(path)], [])
        others += passed_over
        for file in files:
            found.setdefault(file.path.resolve(), file)
    kept = sorted(found.values(), key=lambda file: file.time)
    formats = dict.fromkeys(file.format for file in kept)
    if len(formats) > 1:
        new, old = (next(f for f in kept if f.format == kind) for kind in ("lm-eval", "old lm-eval"))
        raise UsageError(
            f"{new.path} is of lm-eval 0.4, {old.path} of a version before",
            hint="Import them by two commands: these versions ask many tasks differently.",
        )
    return Detected(kept[0].format, tuple(kept), tuple(_said_of(others)))


def _said_of(others: Sequence[str]) -> list[str]:
    if not others:
        return []
    are = "file is" if len(others) == 1 else "files are"
    return [f"{len(others)} other JSON {are} no results of lm-eval and passed over, first {others[0]}"]


def _in_directory(folder: Path) -> tuple[list[ResultsFile], list[str]]:
    files, others = [], []
    for path in sorted(folder.rglob("*.json")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or path.name.startswith(_SAMPLES) or path.is_dir():
            continue
        if (file := _read(path, inside.as_posix())) is None:
            others.append(str(path))
        else:
            files.append(file)
    if files:
        return files, others
    if (folder / "manifest.json").is_file():
        raise UsageError(
            f"{folder} is a run of mambabench",
            hint="It needs no import: give it to `mambabench compare`.",
        )
    named = [path for path in others if Path(path).name.startswith("results")]
    if not named and any(folder.rglob(f"{_SAMPLES}*.jsonl")):
        raise UsageError(
            f"{folder} holds samples of lm-eval, but no results file",
            hint="Without `results_*.json` nobody can tell what was asked; copy it there, too.",
        )
    raise UsageError(f"{named[0] if named else folder} holds no results of lm-eval", hint=_FORMATS)


def _in_file(path: Path) -> ResultsFile:
    if path.suffix == ".jsonl" or path.name.startswith(_SAMPLES):
        if not path.is_file():
            raise UsageError(f"{path} does not exist", hint="Give a results file or a directory.")
        raise UsageError(f"{path} holds samples, no results", hint=_SAMPLES_HINT)
    file = _read(path, path.name)
    if file is None:
        raise UsageError(f"{path} holds no results of lm-eval", hint=_FORMATS)
    return file


def _read(path: Path, name: str) -> ResultsFile | None:
    """Read one file; None if it is JSON, but no results."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror or error}",
            hint="Give a results file of lm-eval or a directory that holds some.",
        ) from error
    content = parsed(data, str(path))
    kind = _format_of(content)
    if kind is None:
        return None
    match = _TIME.search(path.stem)
    stamp = match.group(1) if match else ""
    record = FileRecord(name=path.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    return ResultsFile(path, name, kind, content, record, stamp or _date(content), stamp)


def parsed(data: bytes, where: str) -> Any:
    """Parse JSON.

    Args:
        data: of one value.
        where: it stands, for the message.

    Raises:
        UsageError: it is no JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        what = "is empty" if not data.strip() else f"is not JSON, or cut short ({error})"
        raise UsageError(
            f"{where} {what}", hint="Copy it once more from where it was written, or leave it out."
        ) from error


def _format_of(content: Any) -> Format | None:
    """Return the format by what makes each unmistakable; None for another program's file."""
    if not isinstance(content, dict) or not _is_table(content.get("results")):
        return None
    keys = {key for entry in content["results"].values() for key in entry}
    if "configs" in content or any("," in key for key in keys):
        return "lm-eval" if isinstance(content.get("configs", {}), dict) else None
    return "old lm-eval" if _is_versions(content.get("versions")) else None


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(v, dict) for v in value.values())


def _is_versions(value: Any) -> bool:
    return isinstance(value, dict) and not any(isinstance(v, dict | list) for v in value.values())


def _date(content: dict[str, Any]) -> str:
    date = content.get("date")
    if isinstance(date, bool) or not isinstance(date, int | float):
        return ""
    try:
        # File names carry local time without a zone.
        return time.strftime("%Y-%m-%dT%H-%M-%S", time.localtime(date))
    except (OverflowError, ValueError, OSError):
        return ""


def only_tasks(present: Iterable[str], asked: Sequence[str]) -> set[str]:
    """Return which tasks are imported.

    Args:
        present: in the files.
        asked: by the user; all if none is named.

    Raises:
        UnknownNameError: a task that no file has.
    """
    from mambabench.errors import UnknownNameError

    known = set(present)
    for name in asked:
        if name not in known:
            listed = f"The files hold {len(known)} tasks" if len(known) > 1 else "The files hold one task"
            raise UnknownNameError.for_name(
                "task", name, sorted(known), where=f"{listed}: leave `--task` out for all."
            )
    return set(asked) or known
