"""Which weights a run's models are of, so that a name never joins figures of two models.

    loaded_by(run)["mamba-130m"].weights

A name stands for whatever a command found under it: a directory may hold other weights later. Runs of scores,
recall and texts say what they loaded. Sweeps and imported results do not; of sweeps the bytes of the
parameters are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mambabench.fingerprint import digest
from mambabench.sizes import ITEMSIZE_BYTES

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun
    from mambabench.schema import CheckpointRecord
    from mambabench.tables.speed.table import SpeedRow

_ALIKE: Final = 0.02
"""Share by which bytes may differ: of padding and of what is kept besides parameters."""
_LARGEST_BYTES: Final = max(ITEMSIZE_BYTES.values())
"""Of a parameter: some stay in float32, whatever the dtype of the others."""


@dataclass(frozen=True)
class Loaded:
    """What one run loaded under a name."""

    weights: str
    """Equal for equal weights."""
    config_sha256: str
    n_parameters: int
    dtype: str
    """Of matrix products; empty where it was not recorded."""

    @property
    def shape(self) -> tuple[str, int]:
        """What speed and memory depend on, besides the dtype."""
        return self.config_sha256, self.n_parameters

    def could_take(self, row: SpeedRow) -> bool | None:
        """Tell whether a point's weights may be these by their size; None where that is not known."""
        if row.memory is None or not row.memory.weights_bytes:
            return None
        return can_be_of(self.n_parameters, row.memory.weights_bytes, row.point.dtype)


def can_be_of(n_parameters: int, weights_bytes: int, dtype: str) -> bool:
    """Tell whether so many parameters may take so many bytes in a dtype.

    >>> can_be_of(1000, 2000, "bfloat16"), can_be_of(1000, 3000, "bfloat16"), can_be_of(1000, 2000, "float32")
    (True, True, False)
    """
    least = ITEMSIZE_BYTES.get(dtype, _LARGEST_BYTES) * n_parameters
    return (1 - _ALIKE) * least <= weights_bytes <= (1 + _ALIKE) * _LARGEST_BYTES * n_parameters


def loaded_by(run: LoadedRun) -> dict[str, Loaded]:
    """Return what a run loaded, by the model's name in it; empty where it does not say."""
    return {record.name: _loaded(record) for record in run.checkpoints}


def loaded_as(runs: Iterable[LoadedRun]) -> Mapping[str, dict[str, Loaded]]:
    """Return what runs loaded, by the model's name and then by the run's."""
    found: dict[str, dict[str, Loaded]] = {}
    for run in runs:
        for model, loaded in loaded_by(run).items():
            found.setdefault(model, {})[run.name] = loaded
    return found


def ambiguous(runs: Iterable[LoadedRun]) -> dict[str, list[str]]:
    """Return the names that stand for different weights, each with the runs that say so."""
    return {
        model: list(by_run)
        for model, by_run in loaded_as(runs).items()
        if len({loaded.weights for loaded in by_run.values()}) > 1
    }


def weights_digest(record: CheckpointRecord) -> str:
    """Return the digest of the single weight file, or of the list of all files' digests; empty of none."""
    if not record.files:
        return ""
    weights = [file for file in record.files if not file.name.endswith(".json")] or list(record.files)
    return weights[0].sha256 if len(weights) == 1 else digest(sorted(file.sha256 for file in weights))


def _loaded(record: CheckpointRecord) -> Loaded:
    # Random weights follow from the architecture and a seed.
    own = weights_digest(record) or digest([record.weights, record.seed, record.config_sha256])
    adapter = None if record.adapter is None else sorted(file.sha256 for file in record.adapter.files)
    weights = own if adapter is None else digest([own, adapter])
    return Loaded(weights, record.config_sha256, record.n_parameters, record.dtypes.get("matmul", ""))
