"""Data sets as plain files: `<data set id>/<configuration>/<split>.jsonl`, or `.parquet`.

The configuration's folder is there only where the task's YAML names one. Rows are read into memory, a
bad line is told by its number, and every file is known by its digest.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambabench.errors import UsageError
from mambabench.schema import DataFileRecord

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".parquet")
_DEEPEST = 4
_MOST_FOLDERS = 5000
_LIKE_ENOUGH = 0.7
_LAYOUT = "A .jsonl file holds one row a line, each a JSON object; a .parquet file holds one table."


@dataclass(frozen=True)
class Split:
    """One split in memory and what it came from."""

    dataset: Dataset
    record: DataFileRecord


def split_paths(root: Path, dataset_path: str, dataset_name: str | None, split: str) -> tuple[Path, ...]:
    """Return the files that would hold a split, in order of preference."""
    folder = root / dataset_path / (dataset_name or "")
    return tuple(folder / f"{split}{suffix}" for suffix in SUFFIXES)


def find_split(root: Path, dataset_path: str, dataset_name: str | None, split: str) -> Path | None:
    """Return the file that holds a split, None if there is none."""
    return next((p for p in split_paths(root, dataset_path, dataset_name, split) if p.is_file()), None)


def closest_folder(root: Path, dataset_path: str, dataset_name: str | None) -> Path | None:
    """Return the folder below `root` that most looks like the wanted one, None if none does.

    The wanted folder itself is returned when it is there and only the file is missing; otherwise last
    parts of paths are compared, since a wrong or absent organisation is the usual mistake.
    """
    wanted = root / dataset_path / (dataset_name or "")
    if wanted.is_dir():
        return wanted
    name = Path(dataset_path).name.lower()
    full = Path(dataset_path, dataset_name or "").as_posix().lower()
    best: tuple[float, float, Path] | None = None
    for folder in itertools.islice(_folders(root, _DEEPEST), _MOST_FOLDERS):
        likeness = difflib.SequenceMatcher(None, name, folder.name.lower()).ratio()
        if likeness < _LIKE_ENOUGH:
            continue
        relative = folder.relative_to(root).as_posix().lower()
        whole = difflib.SequenceMatcher(None, full, relative).ratio()
        if best is None or (likeness, whole) > best[:2]:
            best = (likeness, whole, folder)
    return best[2] if best else None


def read_split(path: Path, root: Path, split: str, source: str) -> Split:
    """Read one split.

    Args:
        path: a .jsonl file with one object a line, or a .parquet file.
        root: the data directory; the record names the file relative to it.
        split: name of the split.
        source: "data-dir" or "bundled".

    Raises:
        UsageError: naming the file, and the line where there is one, when it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    dataset = _parquet(content, path) if path.suffix == ".parquet" else _jsonl(content, path)
    if len(dataset) == 0:
        raise UsageError(f"{path} holds no rows", hint=_LAYOUT)
    record = DataFileRecord(
        split=split,
        source="bundled" if source == "bundled" else "data-dir",
        name=path.relative_to(root).as_posix(),
        n_rows=len(dataset),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return Split(dataset, record)


def _parquet(content: bytes, path: Path) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet
    from datasets import Dataset

    try:
        return Dataset(pyarrow.parquet.read_table(io.BytesIO(content)))
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{path} is no readable Parquet file ({_first_line(error)})") from error


def _jsonl(content: bytes, path: Path) -> Dataset:
    from datasets import Dataset

    rows = list(_rows(content, path))
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for r in rows for k in r)}
    if rows and not columns:
        raise UsageError(f"{path} holds rows without columns")
    try:
        return Dataset.from_dict(columns)
    except (ValueError, TypeError, OverflowError) as error:
        column = _mixed_column(columns)
        which = f"column '{column}' holds values of different types" if column else "its columns do not fit"
        raise UsageError(f"{path}: {which} ({_first_line(error)})") from error


def _rows(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
            raise UsageError(f"{path}, line {number}: no JSON ({reason})", hint=_LAYOUT) from error
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise UsageError(f"{path}, line {number}: no JSON object but a {kind}", hint=_LAYOUT)
        yield row


def _mixed_column(columns: dict[str, list[Any]]) -> str | None:
    import pyarrow as pa

    for name, values in columns.items():
        try:
            pa.array(values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return name
    return None


def _folders(root: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        return
    try:
        below = sorted(p for p in root.iterdir() if p.is_dir())
    except OSError:
        return
    for folder in below:
        yield folder
        yield from _folders(folder, depth - 1)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
