"""Runs read from disk with the tables that follow from them, each under labels that tell models apart.

runs = load_runs("results")
runs.frame("scores")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mambabench.schema import CellRecord, CheckpointRecord, RunManifest
    from mambabench.speed_schema import CeilingsRecord, ReplicateRecord
    from mambabench.store import StoredRun
    from mambabench.tables.longcontext.perplexity import PerplexityTable
    from mambabench.tables.longcontext.table import LongTable
    from mambabench.tables.speed.table import SpeedTable
    from mambabench.tables.zeroshot import ZeroshotTable


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
