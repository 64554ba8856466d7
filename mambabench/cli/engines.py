"""What computed the figures of a run, a line for each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mambabench.schema import CheckpointRecord


def engine_lines(checkpoints: Mapping[str, CheckpointRecord]) -> list[str]:
    """Say for each model what computed its figures, and how that compared with the model as shipped."""
    from mambabench.models.certificate import summary
    from mambabench.models.record import UNSHIPPED

    lines = []
    for record in checkpoints.values():
        found = record.certificate
        if found is not None:
            lines.append(f"{record.name}: {summary(found)}")
            continue
        if record.implementation == UNSHIPPED:
            where = "on a CPU" if record.device == "cpu" else "without mamba-ssm"
            compared = f"nothing shipped to compare with {where}"
        elif record.implementation.startswith("mambabench"):
            compared = "not compared with the model as shipped"
        else:
            compared = "the model as shipped"
        lines.append(f"{record.name}: {record.kernel_path}, {record.dtypes.get('matmul', '')}; {compared}")
    return lines
