"""Sweeps written to a directory as a command leaves them, for tests that compare stored runs.

side = stored_side(tmp_path / "a", sweep(models=[MAMBA]), "base")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambabench.compare.result import Side
from mambabench.fingerprint import digest
from mambabench.schema import RunManifest, SpeedSettingsRecord
from mambabench.speed_schema import (
    ConversationOperationRecord,
    ConversationRecord,
    PointRecord,
    ReplicateRecord,
)

ENVIRONMENT: dict[str, Any] = {
    "packages": {"torch": "2.12.0", "numpy": "2.0.0"},
    "python": "3.11.7",
    "system": "Linux",
    "processor": {"name": "a processor", "physical_cores": 2, "logical_cores": 4},
    "memory_bytes": 24 * 10**9,
    "gpus": [],
    "nvidia_driver": None,
    "git": {"commit": "0123456789abcdef", "modified": False},
    "variables": {},
}


def store_sweep(
    folder: Path, records: Sequence[ReplicateRecord], *, environment: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None, **manifest: Any,
) -> Path:  # fmt: skip
    """Write a run of these records; `environment` and `settings` change single fields."""
    (folder / "replicates").mkdir(parents=True)
    points = [record.point for record in records]
    fields: dict[str, Any] = {
        "weights": "random",
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "prompt_len_tokens": tuple(sorted({p.prompt_len_tokens for p in points})),
        "gen_len_tokens": (64,),
        "batch_size": (1,),
        "arms": ("eager",),
        "attention": ("sdpa",),
        "repeats": 10,
        "processes": 6,
        "max_time_s": 60.0,
    }
    written = RunManifest(
        **{
            "name": "sweep",
            "kind": records[0].kind,
            "command": ("mambabench", records[0].kind),
            "created_utc": "2025-01-01T00:00:00Z",
            "identity": digest(str(folder)),
            "suite": "",
            "suite_sha256": "",
            "models": tuple(dict.fromkeys(p.model for p in points)),
            "settings": SpeedSettingsRecord(**{**fields, **(settings or {})}),
            "partial": False,
            "environment": {**ENVIRONMENT, **(environment or {})},
            **manifest,
        }
    )
    (folder / "manifest.json").write_text(written.model_dump_json(), "utf-8")
    for number, record in enumerate(records):
        path = folder / "replicates" / f"{number:05}.json"
        path.write_text(record.model_dump_json(), "utf-8")
    return folder


def side_of(run: Path, label: str, model: str, kind: str = "latency", *, partial: bool = False) -> Side:
    """Return a side of a stored sweep."""
    return Side(
        label=label, model=model, run=run, kind=kind, has_samples=False, partial=partial, origin=str(run)
    )


def stored_side(folder: Path, records: Sequence[ReplicateRecord], label: str, **more: Any) -> Side:
    """Write a sweep of one model and return it as a side."""
    first = records[0]
    return side_of(store_sweep(folder, records, **more), label, first.point.model, first.kind)


def conversation(
    at: PointRecord, number: int, *, resume_s: float, state_bytes: int = 1000
) -> ReplicateRecord:
    """Return what a process measured of a conversation."""
    times = {"resume": resume_s, "prefill_again": 10 * resume_s, "rewind": 0.0}
    return ReplicateRecord(
        fingerprint=f"{at}{number}",
        kind="conversation",
        point=at,
        replicate=number,
        order=number,
        status="ok",
        conversation=ConversationRecord(
            turn_len_tokens=64,
            n_forks=4,
            history_state_bytes=state_bytes,
            history_state_bytes_spec=state_bytes,
            forked_state_bytes=4 * state_bytes,
            certified=True,
            max_difference=0.0,
            operations=tuple(
                ConversationOperationRecord(operation=name, times_s=(t, t, t))  # type: ignore[arg-type]
                for name, t in times.items()
            ),
        ),
    )
