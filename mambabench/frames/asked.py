"""What a stored run was asked for, as far as its manifests and records say: no model is looked for.

    points_asked(stored, replicates, sizes)

A run keeps a manifest of its first call, and one of each later call of another command or environment. The
plan of a sweep is laid out again from these; where that does not give the plan that was kept as a digest, as
with suites of several parts, the points that have a record are all that is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.bench.points import Block, ModelTraits, expand
from mambabench.errors import StoreError
from mambabench.fingerprint import digest
from mambabench.schema import LongSettingsRecord, RunManifest, SpeedSettingsRecord

if TYPE_CHECKING:
    from mambabench.sizes import ModelSizes
    from mambabench.speed_schema import PointRecord, ReplicateRecord
    from mambabench.store import StoredRun

_REMEDY: Final = "Delete that file: the same command writes it again."


def manifests_of(stored: StoredRun) -> tuple[RunManifest, ...]:
    """Return the manifests of a run's calls, the first call's first.

    One that cannot be read ends them: those before it say what they say.
    """
    from mambabench.store.files import read_record

    found = [stored.manifest]
    while (path := stored.path / f"manifest-{len(found) + 1}.json").is_file():
        try:
            found.append(read_record(path, RunManifest, remedy=_REMEDY))
        except StoreError:
            break
    return tuple(found)


def models_asked(manifests: Iterable[RunManifest]) -> tuple[str, ...]:
    """Return every model that some call named, in order."""
    return tuple(dict.fromkeys(model for manifest in manifests for model in manifest.models))


def speed_settings_of(manifests: Iterable[RunManifest]) -> list[SpeedSettingsRecord]:
    """Return the settings of a sweep's calls."""
    return [m.settings for m in manifests if isinstance(m.settings, SpeedSettingsRecord)]


def long_settings_of(manifests: Iterable[RunManifest]) -> list[LongSettingsRecord]:
    """Return the settings of a long-context run's calls."""
    return [m.settings for m in manifests if isinstance(m.settings, LongSettingsRecord)]


def points_asked(
    manifests: Sequence[RunManifest],
    replicates: Sequence[ReplicateRecord],
    sizes: Mapping[str, ModelSizes],
) -> tuple[PointRecord, ...]:
    """Return the points of a sweep in its order, measured or not.

    Args:
        manifests: of its calls.
        replicates: in the sequence of the sweep; their points follow those of the plans.
        sizes: of the models, by name, as far as they are known.
    """
    found: dict[PointRecord, None] = {}
    for manifest in manifests:
        if isinstance(manifest.settings, SpeedSettingsRecord):
            found |= dict.fromkeys(_plan(manifest, manifest.settings, replicates, sizes))
    return tuple(found | dict.fromkeys(record.point for record in replicates))


def n_processes_asked(manifests: Sequence[RunManifest]) -> int | None:
    """Return how many processes each point is measured with: the most that a call asked for."""
    return max((settings.processes for settings in speed_settings_of(manifests)), default=None)


def n_cores_of(manifest: RunManifest) -> int | None:
    """Return the logical cores of the machine that measured, None where its manifest does not say."""
    processor: Any = manifest.environment.get("processor")
    cores = processor.get("logical_cores") if isinstance(processor, Mapping) else None
    return cores if isinstance(cores, int) else None


def siblings_of(path: Path, *, kind: str) -> list[Path]:
    """Return the runs of a kind that lie beside a run, and beside what it links to, in the order of names."""
    here = path.absolute()
    found: dict[Path, None] = {}
    for parent in dict.fromkeys((here.parent, here.resolve().parent)):
        try:
            found |= dict.fromkeys(sorted(p for p in parent.iterdir() if _kind(p / "manifest.json") == kind))
        except OSError:
            continue
    return [sibling for sibling in found if sibling != here]


def _kind(manifest: Path) -> str:
    """Return the kind that a manifest names without checking the rest; empty where it cannot be read."""
    try:
        found: Any = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    return str(found.get("kind", "")) if isinstance(found, dict) else ""


def _plan(
    manifest: RunManifest,
    settings: SpeedSettingsRecord,
    replicates: Sequence[ReplicateRecord],
    sizes: Mapping[str, ModelSizes],
) -> tuple[PointRecord, ...]:
    """Return the points that a call laid out; empty where the axes alone do not give them."""
    block = Block(
        models=manifest.models,
        prompt_len_tokens=settings.prompt_len_tokens,
        gen_len_tokens=settings.gen_len_tokens,
        batch_size=settings.batch_size,
        arms=settings.arms,
        attention=settings.attention,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
    )
    traits = {name: _traits(name, replicates, sizes) for name in manifest.models}
    points = expand([block], traits, dtype=settings.dtype, device=settings.device)
    return points if digest({"points": points}) == manifest.suite_sha256 else ()


def _traits(name: str, replicates: Sequence[ReplicateRecord], sizes: Mapping[str, ModelSizes]) -> ModelTraits:
    measured = {r.point.attention for r in replicates if r.point.model == name}
    if measured:
        return ModelTraits(name, measured != {"none"})
    known = sizes.get(name)
    return ModelTraits(name, known is None or known.n_attention_layers > 0)
