"""A stored sweep as the table that its command shows, and as rows of frames.

    table = speed_table(stored, stored.replicates(), stored.ceilings())
    table.rows[0].tpot_s.value

Everything is from what is stored: points from the settings, the cores of the machine that measured, sizes of
models that the registry knows. What the command knew besides, such as the sizes of a checkpoint that is only
a directory, is left out, and shares of ceilings with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, get_args

from mambabench.bench.fake import PREFIX as FAKE
from mambabench.bench.sizes import fake_sizes, registered_sizes
from mambabench.errors import UsageError
from mambabench.frames.asked import manifests_of, n_cores_of, n_processes_asked, points_asked
from mambabench.registry import load_registry
from mambabench.schema import SpeedSettingsRecord
from mambabench.speed_schema import SweepKind
from mambabench.tables.speed.table import build_speed_table

if TYPE_CHECKING:
    from mambabench.schema import RunManifest
    from mambabench.sizes import ModelSizes
    from mambabench.speed_schema import CeilingsRecord, ReplicateRecord
    from mambabench.store import StoredRun
    from mambabench.tables.speed.table import SpeedTable

_ALIKE: Final = 0.02
"""Weights that differ by more from what the registry's architecture has are those of another model."""


def speed_table(
    stored: StoredRun, replicates: Sequence[ReplicateRecord], ceilings: Sequence[CeilingsRecord]
) -> SpeedTable:
    """Return the table of a sweep.

    Args:
        stored: the run.
        replicates: of it, in the sequence of the sweep.
        ceilings: of it.

    Raises:
        ValueError: the run is no sweep.
    """
    manifest = stored.manifest
    kinds: tuple[SweepKind, ...] = get_args(SweepKind)
    kind = next((kind for kind in kinds if kind == manifest.kind), None)
    if kind is None:
        raise ValueError(f"a run of kind {manifest.kind} is no sweep")
    manifests = manifests_of(stored)
    sizes = known_sizes(manifest.models, replicates)
    return build_speed_table(
        kind,
        _title(manifest),
        replicates,
        ceilings,
        sizes,
        expected=points_asked(manifests, replicates, sizes),
        n_processes=n_processes_asked(manifests),
        n_cores=n_cores_of(manifest),
    )


def known_sizes(models: Sequence[str], replicates: Sequence[ReplicateRecord]) -> dict[str, ModelSizes]:
    """Return the sizes of models that the registry knows, and of fake ones, by name.

    A model that only has a registered one's name is told by the weights that its processes loaded.
    """
    found: dict[str, ModelSizes] = {}
    for name in dict.fromkeys([*models, *(r.point.model for r in replicates)]):
        sizes = _sizes(name)
        if sizes is not None and _could_be(sizes, [r for r in replicates if r.point.model == name]):
            found[name] = sizes
    return found


def _sizes(name: str) -> ModelSizes | None:
    if name.startswith(FAKE):
        try:
            return fake_sizes(name)
        except UsageError:
            return None
    spec = load_registry().get(name)
    return None if spec is None else registered_sizes(spec)


def _could_be(sizes: ModelSizes, replicates: Sequence[ReplicateRecord]) -> bool:
    loaded = [(r.memory.weights_bytes, r.point.dtype) for r in replicates if r.memory is not None]
    return not loaded or any(
        abs(n_bytes - sizes.weights_bytes(dtype)) <= _ALIKE * n_bytes for n_bytes, dtype in loaded
    )


def _title(manifest: RunManifest) -> str:
    if manifest.suite or not isinstance(manifest.settings, SpeedSettingsRecord):
        return manifest.suite
    device = manifest.settings.device
    return f"{manifest.kind} on {'a CPU' if device == 'cpu' else device}"
