"""Runs read from disk with the tables that follow from them, each under labels that tell models apart.

runs = load_runs("results")
runs.frame("scores")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mambabench.errors import MambabenchError, StoreError
from mambabench.long_schema import ContextLossRecord, PerplexityRecord, RecallRecord
from mambabench.schema import CellRecord, CheckpointRecord, Record
from mambabench.speed_schema import CeilingsRecord, ReplicateRecord
from mambabench.store import StoredRun
from mambabench.store.files import read_record
from mambabench.store.run import long_folder

if TYPE_CHECKING:
    from mambabench.schema import RunManifest
    from mambabench.tables.longcontext.perplexity import PerplexityTable
    from mambabench.tables.longcontext.table import LongTable
    from mambabench.tables.speed.table import SpeedTable
    from mambabench.tables.zeroshot import ZeroshotTable

_REMEDY: Final = "Delete that file, and run the run's command again."
_SCORED: Final = ("zeroshot", "imported")
_SWEEPS: Final = ("latency", "throughput", "memory", "conversation")
_T = TypeVar("_T")
_R = TypeVar("_R", bound=Record)
_L = TypeVar("_L", PerplexityRecord, ContextLossRecord, RecallRecord)


@dataclass(frozen=True)
class LoadedRun:
    """One run with all that can be read of it."""

    name: str
    """Of its directory, made unique by a number at the end."""
    path: Path
    stored: StoredRun | None
    """None where the manifest cannot be read."""
    problems: tuple[str, ...] = ()
    """Why it, or parts of it, cannot be read."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """By the model's name in the run: its name in tables."""
    cells: tuple[CellRecord, ...] = ()
    checkpoints: tuple[CheckpointRecord, ...] = ()
    replicates: tuple[ReplicateRecord, ...] = ()
    ceilings: tuple[CeilingsRecord, ...] = ()
    zeroshot: ZeroshotTable | None = None
    """Of kinds zeroshot and imported; models by their names in the run, not by labels."""
    speed: SpeedTable | None = None
    """Of the sweeps' kinds."""
    long: LongTable | None = None
    """Of kind longcontext."""
    perplexity: PerplexityTable | None = None
    """Of kind perplexity."""

    @property
    def manifest(self) -> RunManifest | None:
        """What the run is; None where that cannot be read."""
        return None if self.stored is None else self.stored.manifest

    def label(self, model: str) -> str:
        """Return a model's name in tables."""
        return self.labels.get(model, model)


class ReadableRun(StoredRun):
    """A stored run whose damaged records are left out, each with a sentence among the problems.

    Args:
        path: the run's directory.

    Raises:
        StoreError: the manifest is missing, damaged or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.problems: dict[str, None] = {}

    def cells(self) -> list[CellRecord]:
        """Return all finished cells that can be read, by model and task."""
        found = self._readable("cells", CellRecord)
        return sorted(found.values(), key=lambda cell: (cell.model, cell.task.task, cell.fingerprint))

    def checkpoints(self) -> dict[str, CheckpointRecord]:
        """Return what was loaded, as far as it can be read, by the name under which it was written."""
        return self._readable("checkpoints", CheckpointRecord)

    def replicates(self) -> list[ReplicateRecord]:
        """Return what the processes of a sweep left, as far as it can be read, in its sequence."""
        found = self._readable("replicates", ReplicateRecord)
        return sorted(found.values(), key=lambda record: (record.order, record.fingerprint))

    def ceilings(self) -> list[CeilingsRecord]:
        """Return what the machine reached, as far as it can be read, by round."""
        found = self._readable("ceilings", CeilingsRecord)
        return sorted(found.values(), key=lambda record: (record.device, record.dtype, record.round))

    def long_records(self, kind: type[_L]) -> list[_L]:
        """Return the long-context records of one kind that can be read, by file name."""
        return list(self._readable(long_folder(kind), kind).values())

    def check_samples(self, cells: Iterable[CellRecord]) -> None:
        """Note which cells' samples are missing or damaged, as far as their files' ends tell."""
        from mambabench.compare.sources import has_rows

        for cell in cells:
            if cell.status == "ok":
                try:
                    has_rows(self.samples_path_of(cell))
                except StoreError as error:
                    self.problems[str(error)] = None

    def _readable(self, folder: str, kind: type[_R]) -> dict[str, _R]:
        found = {}
        for path in sorted((self.path / folder).glob("[!.]*.json")):
            try:
                found[path.stem] = read_record(path, kind, remedy=_REMEDY)
            except (StoreError, RecursionError) as error:
                self.problems[str(error) or f"{path} is damaged"] = None
        return found


def read_run(path: Path, name: str) -> LoadedRun:
    """Read a run with the tables that follow from it; what cannot be read is among its problems.

    Args:
        path: the run's directory.
        name: that it is given in frames.
    """
    try:
        stored = ReadableRun(path)
    except (StoreError, RecursionError) as error:
        return LoadedRun(name, path, None, (str(error) or f"{path} is damaged",))
    kind = stored.manifest.kind
    parts: dict[str, Any] = {"checkpoints": tuple(stored.checkpoints().values())}
    tables: dict[str, Callable[[], Any]] = {}
    if kind in _SCORED:
        from mambabench.frames.zeroshot import zeroshot_table

        cells = parts["cells"] = tuple(stored.cells())
        stored.check_samples(cells)
        tables["zeroshot"] = lambda: zeroshot_table(stored, cells)
    elif kind in _SWEEPS:
        from mambabench.frames.sweeps import speed_table

        replicates = parts["replicates"] = tuple(stored.replicates())
        ceilings = parts["ceilings"] = tuple(stored.ceilings())
        tables["speed"] = lambda: speed_table(stored, replicates, ceilings)
    elif kind == "longcontext":
        from mambabench.frames.longcontext import long_table

        tables["long"] = lambda: long_table(stored)
    elif stored.long_records(PerplexityRecord):
        from mambabench.frames.longcontext import perplexity_table

        tables["perplexity"] = lambda: perplexity_table(stored)
    for part, build in tables.items():
        parts[part] = _guarded(build, stored)
    return LoadedRun(name, path, stored, tuple(stored.problems), **parts)


def _guarded(build: Callable[[], _T], stored: ReadableRun) -> _T | None:
    """Build a table, or say why it cannot be built: one run that is odd must not cost all others."""
    try:
        return build()
    except MambabenchError as error:
        stored.problems[str(error)] = None
    except Exception as error:
        stored.problems[f"no table follows from {stored.path}: {type(error).__name__}: {error}"] = None
    return None
