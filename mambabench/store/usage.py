"""What a run takes on the disk, by kind of file, and what could be done without.

usage_of(Path("results/zeroshot-smoke-mamba-tiny-75c8b06c")).by_kind["answers"].size_bytes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mambabench.store.overview import RECORD_FOLDERS, files_below
from mambabench.store.seal import SEAL

KINDS: Final = (
    "records", "samples", "rows", "log-probabilities", "answers", "states", "checkpoints", "manifests",
    "exports", "seal", "locks", "unfinished", "other",
)  # fmt: skip
"""Kinds of files, what a run's figures are read from first."""
_BLOCK_BYTES: Final = 512
"""What `st_blocks` counts in, whatever the file system's own blocks are."""


@dataclass(frozen=True)
class Taken:
    """Files of one kind."""

    n_files: int = 0
    size_bytes: int = 0
    """As long as the files are."""
    disk_bytes: int = 0
    """With the rest of each file's last block; as `size_bytes` where the system does not tell."""

    def __add__(self, other: Taken) -> Taken:
        return Taken(
            self.n_files + other.n_files,
            self.size_bytes + other.size_bytes,
            self.disk_bytes + other.disk_bytes,
        )


@dataclass(frozen=True)
class Usage:
    """A run's files."""

    by_kind: Mapping[str, Taken]
    """Kinds that there are, in the order of `KINDS`."""
    unknown: tuple[str, ...] = ()
    """Files that no command of ours leaves in a run, such as notes and figures; relative paths."""

    @property
    def total(self) -> Taken:
        """All of it."""
        return sum(self.by_kind.values(), Taken())


def usage_of(path: Path) -> Usage:
    """Look through a run's directory; links in it count as themselves."""
    found: dict[str, Taken] = {}
    unknown = []
    for name, entry in files_below(path):
        try:
            stat = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        kind = kind_of(name)
        disk_bytes = _BLOCK_BYTES * stat.st_blocks if hasattr(stat, "st_blocks") else stat.st_size
        found[kind] = found.get(kind, Taken()) + Taken(1, stat.st_size, disk_bytes)
        if kind == "other":
            unknown.append(name)
    return Usage({kind: found[kind] for kind in KINDS if kind in found}, tuple(unknown))


def kind_of(name: str) -> str:
    """Return the kind of a run's file.

    Args:
        name: its path relative to the run.
    """
    folder, _, rest = name.rpartition("/")
    if rest.startswith(".") and rest.endswith(".tmp"):
        return "unfinished"
    if rest.endswith((".progress", ".state")) and folder in RECORD_FOLDERS:
        return "states"
    if not folder:
        if rest in (".lock", ".owner.json"):
            return "locks"
        if rest == SEAL:
            return "seal"
        return "manifests" if rest.startswith("manifest") and rest.endswith(".json") else "other"
    if folder in (*RECORD_FOLDERS, "ceilings") and rest.endswith(".json"):
        return "records"
    if folder == "samples" and rest.endswith(".parquet"):
        return "samples"
    if folder in RECORD_FOLDERS and rest.endswith(".parquet"):
        return "rows"
    if folder in RECORD_FOLDERS and rest.endswith(".f32"):
        return "log-probabilities"
    if folder == "answers" and rest.endswith((".parquet", ".jsonl")):
        return "answers"
    if folder == "checkpoints" and rest.endswith(".json"):
        return "checkpoints"
    return "exports" if folder.split("/")[0] == "lm-eval" else "other"
