"""A stored sweep as the table that its command shows, and as rows of frames.

    table = speed_table(stored, stored.replicates(), stored.ceilings())
    table.rows[0].tpot_s.value

Everything is from what is stored: points from the settings, the cores of the machine that measured, sizes of
models that the registry knows. What the command knew besides, such as the sizes of a checkpoint that is only
a directory, is left out, and shares of ceilings with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args

from mambabench.bench.fake import PREFIX as FAKE
from mambabench.bench.sizes import fake_sizes, registered_sizes
from mambabench.errors import UsageError
from mambabench.frames.asked import manifests_of, n_cores_of, n_processes_asked, points_asked
from mambabench.frames.speed_columns import ESTIMATES
from mambabench.medians import Figure, peak_bytes, tpot_s, ttft_s
from mambabench.registry import load_registry
from mambabench.schema import SpeedSettingsRecord
from mambabench.speed_schema import SweepKind
from mambabench.tables.speed import flags
from mambabench.tables.speed.contenders import Field
from mambabench.tables.speed.conversation import conversation_rows
from mambabench.tables.speed.table import build_speed_table

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun
    from mambabench.schema import RunManifest
    from mambabench.sizes import ModelSizes
    from mambabench.speed_schema import CeilingsRecord, MemoryRecord, PointRecord, ReplicateRecord
    from mambabench.stats.replicates import Estimate
    from mambabench.store import StoredRun
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

_ALIKE: Final = 0.02
"""Weights that differ by more from what the registry's architecture has are those of another model."""
_AS_THEY_ARE: Final = (
    "status", "detail", "n_processes", "n_repeats", "host_wait_share", "bytes_per_token", "requested_bytes",
    "allocated_bytes", "training_length_tokens", "implementation", "kernel_path",
)  # fmt: skip
_OF_MEMORY: Final = (
    "weights_bytes", "state_bytes", "state_bytes_spec", "transient_bytes", "peak_process_bytes",
)  # fmt: skip
_OF_CEILINGS: Final = (
    "device", "device_name", "dtype", "round", "sheet_bytes_per_s", "sheet_flops_per_s", "load_average",
)  # fmt: skip
RATIOS: Final[dict[str, Figure]] = {"ttft_s": ttft_s, "tpot_s": tpot_s, "peak_bytes": peak_bytes}


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


def rows_of_speed(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `speed`: points of sweeps, in the order of their tables."""
    found = []
    for run, table in _sweeps(runs):
        field = Field(table)
        for row in table.rows:
            contender, _ = field.place(row.point)
            best = field.best(row.point.model)
            said = {name: getattr(row, name) for name in _AS_THEY_ARE}
            found.append(
                {
                    **_who(run, row.point.model),
                    **_point(table.kind, row.point),
                    **said,
                    "flags": "; ".join(row.flags),
                    "fastest": None if best is None else contender == best,
                    "past_training_length": flags.PAST_TRAINING in row.flags if row.n_processes else None,
                    **_estimates(row),
                    **_memory(row.memory),
                }
            )
    return found


def rows_of_speed_ratios(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `speed_ratios`: pairs of ways as the sentences of a sweep compare them."""
    found = []
    for run, table in _sweeps(runs):
        field = Field(table)
        for one, other in field.pairs():
            names = {
                side: run.label(c.model) + field.name(c).removeprefix(c.model)
                for side, c in (("first", one), ("second", other))
            }
            for figure, of in RATIOS.items():
                for setting, ratio in field.ratios(one, other, of).items():
                    found.append(
                        {
                            "run": run.name,
                            "kind": table.kind,
                            **names,
                            "figure": figure,
                            "batch_size": setting.batch_size,
                            "prompt_len_tokens": setting.prompt_len_tokens,
                            "gen_len_tokens": setting.gen_len_tokens,
                            "ratio": ratio.value,
                            "ratio_low": ratio.low,
                            "ratio_high": ratio.high,
                            "method": ratio.method,
                            "n_pairs": ratio.n,
                        }
                    )
    return found


def rows_of_measurements(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `measurements`: repeats of all processes, in the sequence of the sweep."""
    found = []
    for run, table in _sweeps(runs):
        for record in table.replicates:
            process = {
                **_who(run, record.point.model),
                **_point(table.kind, record.point),
                "replicate": record.replicate,
                "order": record.order,
                "status": record.status,
                "peak_bytes": None if record.memory is None else record.memory.peak_bytes,
            }
            found += [
                {
                    **process,
                    "repeat": number,
                    "ttft_s": repeat.ttft_s,
                    "tpot_s": repeat.tpot_s if repeat.itl_s else None,
                    "e2e_s": repeat.e2e_s,
                }
                for number, repeat in enumerate(record.repeats)
            ] or [process]
    return found


def rows_of_ceilings(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `ceilings`: rounds in which machines were measured."""
    return [
        {
            "run": run.name,
            **{name: getattr(record, name) for name in _OF_CEILINGS},
            "copy_bytes_per_s": max(record.copy_bytes_per_s, default=None),
            "matmul_flops_per_s": max(record.matmul_flops_per_s, default=None),
        }
        for run, table in _sweeps(runs)
        for record in table.ceilings
    ]


def rows_of_conversation(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return rows of frame `conversation`: operations that were timed, as the command's table has them."""
    found = []
    for run, table in _sweeps(runs):
        if table.kind != "conversation":
            continue
        for row in conversation_rows(table.replicates):
            records = [r.conversation for r in table.of(row.point) if r.status == "ok" and r.conversation]
            moved: dict[str, int] = (
                {o.operation: o.bytes_moved for o in records[0].operations} if records else {}
            )
            again = row.prefill_over_resume
            found += [
                {
                    **_who(run, row.point.model),
                    "history_tokens": row.point.prompt_len_tokens,
                    "turn_len_tokens": row.turn_len_tokens,
                    "n_forks": row.n_forks,
                    "operation": operation,
                    "time_s": time_s.value,
                    "time_low_s": time_s.low,
                    "time_high_s": time_s.high,
                    "n_processes": time_s.n,
                    "bytes_moved": moved.get(operation),
                    "state_bytes": row.state_bytes,
                    "forked_state_bytes": records[0].forked_state_bytes,
                    "certified": all(record.certified for record in records),
                    "method": time_s.method,
                    "past_training_length": row.past_training_length,
                    "forgetful": row.forgetful,
                    **(_again(again) if operation == "resume" and again is not None else {}),
                }
                for operation, time_s in row.times.items()
            ]
    return found


def _sweeps(runs: Sequence[LoadedRun]) -> Iterator[tuple[LoadedRun, SpeedTable]]:
    for run in runs:
        if run.speed is not None:
            yield run, run.speed


def _who(run: LoadedRun, model: str) -> dict[str, Any]:
    return {"run": run.name, "label": run.label(model), "model": model}


def _point(kind: SweepKind, point: PointRecord) -> dict[str, Any]:
    return {"kind": kind, **point.model_dump(exclude={"model"})}


def _estimates(row: SpeedRow) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ESTIMATES:
        estimate: Estimate | None = getattr(row, name)
        if estimate is not None:
            found[name] = estimate.value
            found[f"{name}_low"], found[f"{name}_high"] = estimate.low, estimate.high
            found[f"{name}_method"] = estimate.method
    return found


def _memory(memory: MemoryRecord | None) -> dict[str, Any]:
    return {} if memory is None else {name: getattr(memory, name) for name in _OF_MEMORY}


def _again(ratio: Estimate) -> dict[str, Any]:
    return {
        "prefill_over_resume": ratio.value,
        "prefill_over_resume_low": ratio.low,
        "prefill_over_resume_high": ratio.high,
    }
