"""How sides were computed: said where it differs, and where only it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scored_runs import choice_samples, drawn, stored_run
from stored import checkpoint_record

from mambabench.compare.sources import parse_given, sides_of
from mambabench.compare.ways import ways
from mambabench.schema import FileRecord, ImportSettingsRecord, RunManifest
from mambabench.store import Store, StoredRun


def run(
    root: Path,
    model: str,
    weights: str,
    *,
    dtype: str = "float32",
    environment: dict[str, Any] | None = None,
    **checkpoint: Any,
) -> Path:
    samples = {"piqa": choice_samples(*drawn(4))}
    path = stored_run(root / model, model, samples, environment=environment or {})
    record = checkpoint_record(
        **checkpoint,
        name=model,
        dtypes={"matmul": dtype},
        files=(FileRecord(name="model.safetensors", size_bytes=1, sha256=weights),),
    )
    with Store(path.parent).open_run(StoredRun(path).manifest) as opened:
        opened.write_checkpoint(model, record)
    return path


def said(*runs: Path) -> list[str]:
    baseline, *candidates = sides_of([parse_given(str(path)) for path in runs])
    return ways(baseline, candidates)


def test_nothing_is_said_of_what_is_alike(tmp_path: Path) -> None:
    assert said(run(tmp_path, "base", "a"), run(tmp_path, "tuned", "b")) == []


def test_another_type_and_the_same_weights(tmp_path: Path) -> None:
    half = run(tmp_path, "half", "a", dtype="bfloat16")
    assert said(run(tmp_path, "base", "a"), half, run(tmp_path, "tuned", "b")) == [
        "computed in different types: base in float32, half in bfloat16, tuned in float32",
        "half is of the same weights as base: what differs is how they were computed",
    ]


def test_versions_that_cannot_be_read_are_not_known(tmp_path: Path) -> None:
    damaged = run(tmp_path, "damaged", "b", environment={"packages": "none"})
    assert said(damaged, run(tmp_path, "base", "a")) == []


@pytest.mark.parametrize("package", ["lm-eval", "mambabench", "torch", "transformers"])
def test_other_versions(tmp_path: Path, package: str) -> None:
    old = run(tmp_path, "old", "b", environment={"packages": {package: "1.0"}})
    new = run(tmp_path, "new", "a", environment={"packages": {package: "2.0"}})
    (line,) = said(old, new)
    assert line.startswith(package)
    assert line.endswith("version differs: old 1.0, new 2.0")


def test_an_imported_run_says_the_version_that_its_files_say(tmp_path: Path) -> None:
    ours = run(tmp_path, "ours", "a", environment={"packages": {"lm-eval": "0.4.13", "torch": "2.13"}})
    settings = ImportSettingsRecord(format="lm-eval", lm_eval_version="0.4.2", files=())
    theirs = stored_run(
        tmp_path / "x", "theirs", {"piqa": choice_samples(*drawn(4))}, kind="imported", settings=settings
    )
    assert isinstance(StoredRun(theirs).manifest, RunManifest)
    assert said(ours, theirs) == [
        "scored by different programs: ours by mambabench, theirs by lm-eval",
        "lm-eval's version differs: ours 0.4.13, theirs 0.4.2",
    ]


def test_other_code_for_one_architecture(tmp_path: Path) -> None:
    ours = run(tmp_path, "ours", "a", implementation="MambaSteps", kernel_path="numba")
    theirs = run(tmp_path, "theirs", "b", implementation="MambaForCausalLM", kernel_path="numba")
    other = run(tmp_path, "other", "c", family="llama", implementation="AttentionSteps")
    assert said(ours, other) == []
    assert said(ours, theirs, other) == [
        "computed by different code: ours by MambaSteps (numba), theirs by MambaForCausalLM (numba)"
    ]
