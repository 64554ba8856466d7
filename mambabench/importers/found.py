"""What an importer finds: one cell for each model and task, its samples still in the files.

A cell's values are final here; the samples are read once more when the cell is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mambabench.fingerprint import digest
from mambabench.schema import CellRecord, FileRecord, MetricRecord, TaskRecord


class Samples(Protocol):
    """Scored items that lie in a file."""

    record: FileRecord

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield samples in the shape that the store keeps."""
        ...


@dataclass(frozen=True)
class FoundCell:
    """One task of one model."""

    model: str
    checkpoint_fingerprint: str
    task: TaskRecord
    metrics: tuple[MetricRecord, ...]
    partial: bool
    n_requests: int
    source: FileRecord
    """The results file."""
    samples: Samples | None
    """None where there are only totals."""
    warnings: tuple[str, ...] = ()

    def record(self) -> CellRecord:
        """Return the cell as it is stored; equal contents have equal fingerprints."""
        fingerprint = digest(
            {
                "imported": "cell",
                "checkpoint": self.checkpoint_fingerprint,
                "task": self.task,
                "metrics": list(self.metrics),
                "samples": self.samples.record.sha256 if self.samples else None,
            }
        )
        return CellRecord(
            fingerprint=fingerprint,
            checkpoint_fingerprint=self.checkpoint_fingerprint,
            model=self.model,
            task=self.task,
            status="ok",
            partial=self.partial,
            metrics=self.metrics,
            n_requests=self.n_requests,
            warnings=self.warnings,
        )
