"""Records for tests of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mambabench.fingerprint import digest
from mambabench.schema import (
    CellRecord,
    CheckpointRecord,
    RunManifest,
    SettingsRecord,
    TaskRecord,
    TokenizerRecord,
)

FINGERPRINT = digest("cell")


def manifest(name: str = "mamba-tiny smoke", **changes: Any) -> RunManifest:
    fields: dict[str, Any] = {
        "name": name,
        "kind": "zeroshot",
        "command": ("mambabench", "zeroshot", "--model", "mamba-tiny"),
        "created_utc": "2025-01-01T00:00:00+00:00",
        "identity": digest(name),
        "suite": "smoke",
        "suite_sha256": digest("suite"),
        "models": ("mamba-tiny",),
        "settings": SettingsRecord(dtype="float32", device="cpu", batch_size=None, limit=None),
        "partial": False,
        "environment": {"python": "3.11"},
    }
    return RunManifest(**{**fields, **changes})


def cell(fingerprint: str = FINGERPRINT, **changes: Any) -> CellRecord:
    task = TaskRecord(
        task="smoke_last_word",
        version="1",
        config_sha256="0",
        output_type="loglikelihood",
        n_fewshot=0,
        n_docs=2,
        n_docs_total=2,
        requests_sha256="1",
        data=(),
    )
    fields: dict[str, Any] = {
        "fingerprint": fingerprint,
        "checkpoint_fingerprint": digest("checkpoint"),
        "model": "hf:org/mamba tiny",
        "task": task,
        "status": "ok",
        "partial": False,
    }
    return CellRecord(**{**fields, **changes})


def checkpoint_record(**changes: Any) -> CheckpointRecord:
    fields: dict[str, Any] = {
        "name": "m",
        "family": "mamba",
        "weights": "pretrained",
        "implementation": "i",
        "kernel_path": "k",
        "device": "cpu",
        "device_name": "c",
        "dtypes": {"matmul": "float32"},
        "n_parameters": 1,
        "vocab_rows_stored": 304,
        "vocab_rows_used": 300,
        "max_length_tokens": 2048,
        "tokenizer": TokenizerRecord(source="bundled", sha256="0", n_tokens=300),
        "files": (),
    }
    return CheckpointRecord(**{**fields, **changes})


def sample(doc_id: int = 0, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "doc_id": doc_id,
        "doc": {"text": "a “b”", "n": doc_id},
        "target": " b",
        "arguments": [("a", " b")],
        "resps": [[(-0.1, True)]],
        "filtered_resps": [(-0.1, True)],
        "filter": "none",
        "metrics": ["acc", "perplexity"],
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        "acc": 1,
        "perplexity": -0.1,
    }
    return {**fields, **changes}


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
