"""Frames `runs` and `checkpoints`: what was run, how far it came, and what was loaded for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mambabench.frames.loaded import weights_digest
from mambabench.schema import ImportSettingsRecord

if TYPE_CHECKING:
    from mambabench.frames.load import LoadedRun
    from mambabench.schema import CheckpointRecord, RunManifest
    from mambabench.store.overview import Overview

_SWEEPS: Final = ("latency", "throughput", "memory", "conversation")


def rows_of_runs(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return the rows of frame `runs`."""
    from mambabench.store.overview import overview

    return [_run(run, overview(run.path)) for run in runs]


def _run(run: LoadedRun, found: Overview) -> dict[str, Any]:
    problems = list(dict.fromkeys([*run.problems, *([] if run.problems else found.problems)]))
    row: dict[str, Any] = {
        "run": run.name,
        "kind": "",
        "state": _state(run, found),
        "size_bytes": found.size_bytes,
        "problem": "; ".join(problems),
    }
    if run.manifest is None:
        return row
    return {
        **row,
        **_made(run.manifest),
        "device_name": _device(run),
        "n_results": found.n_ok,
        "n_failed": len(found.failed),
        "n_missing": _n_missing(run.manifest, found),
    }


def _state(run: LoadedRun, found: Overview) -> str:
    """Return how far a run came; one of which a part cannot be read has not all that was asked for."""
    if run.manifest is None:
        return "unreadable"
    if found.state != "unreadable":
        return found.state
    return "interrupted" if found.records else "empty"


def _n_missing(manifest: RunManifest, found: Overview) -> int | None:
    if not found.missing:
        return 0 if found.n_expected is not None or manifest.kind == "imported" else None
    if manifest.kind not in _SWEEPS:
        return len(found.missing)
    there = len({json.dumps([r["point"], r["replicate"]], sort_keys=True) for r in found.records})
    lacking = 0 if found.n_expected is None else found.n_expected - there
    return lacking or None


def _made(manifest: RunManifest) -> dict[str, Any]:
    environment = manifest.environment
    packages = _mapping(environment.get("packages"))
    settings = manifest.settings
    lm_eval = (
        settings.lm_eval_version if isinstance(settings, ImportSettingsRecord) else packages.get("lm-eval")
    )
    return {
        "kind": manifest.kind,
        "suite": manifest.suite,
        "models": ", ".join(manifest.models),
        "command": " ".join(manifest.command),
        "created_utc": manifest.created_utc,
        "mambabench": str(packages.get("mambabench") or ""),
        "torch": str(packages.get("torch") or ""),
        "transformers": str(packages.get("transformers") or ""),
        "lm_eval": str(lm_eval or ""),
        "host": _host(environment),
        "git": _git(environment),
        "identity": manifest.identity,
        "settings": json.dumps(settings.model_dump(mode="json"), ensure_ascii=False),
    }


def _device(run: LoadedRun) -> str:
    """Return what the models ran on; of sweeps, which load none here, by their devices."""
    from mambabench.frames.joined import device_name

    names = [c.device_name for c in run.checkpoints]
    if run.speed is not None and run.manifest is not None:
        devices = dict.fromkeys(row.point.device for row in run.speed.rows)
        names += [device_name(run.manifest, run.speed, device) for device in devices]
    elif not names and run.manifest is not None:
        environment = run.manifest.environment
        names = [str(_mapping(environment.get("processor")).get("name") or "")]
    return ", ".join(dict.fromkeys(name for name in names if name))


def _host(environment: Mapping[str, Any]) -> str:
    system, python = environment.get("system"), environment.get("python")
    processor = _mapping(environment.get("processor"))
    cores = processor.get("physical_cores")
    parts = [str(system or ""), f"Python {python}" if python else "", str(processor.get("name") or "")]
    parts.append(f"{cores} cores" if cores else "")
    return ", ".join(part for part in parts if part)


def _git(environment: Mapping[str, Any]) -> str:
    git = _mapping(environment.get("git"))
    commit = str(git.get("commit") or "")
    return f"{commit} with changes" if commit and git.get("modified") else commit


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def rows_of_checkpoints(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return the rows of frame `checkpoints`."""
    return [_checkpoint(run, record) for run in runs for record in run.checkpoints]


def _checkpoint(run: LoadedRun, record: CheckpointRecord) -> dict[str, Any]:
    certificate = record.certificate
    return {
        "run": run.name,
        "label": run.label(record.name),
        "model": record.name,
        "family": record.family,
        "weights": record.weights,
        "seed": record.seed,
        "implementation": record.implementation,
        "kernel_path": record.kernel_path,
        "device": record.device,
        "device_name": record.device_name,
        "dtype": record.dtypes.get("matmul", ""),
        "n_parameters": record.n_parameters,
        "vocab_rows_used": record.vocab_rows_used,
        "max_length_tokens": record.max_length_tokens,
        "tokenizer": record.tokenizer.source,
        "hub_id": record.hub_id or "",
        "revision": record.revision or "",
        "adapter": "" if record.adapter is None else record.adapter.name,
        "weights_sha256": weights_digest(record),
        "config_sha256": record.config_sha256,
        "certificate_ratio": None if certificate is None else certificate.ratio,
        "certificate_bar": None if certificate is None else certificate.bar,
        "certificate_passed": None if certificate is None else certificate.passed,
    }
