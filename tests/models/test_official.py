"""The path to mamba_ssm's own model, with stand-ins for its CUDA functions; skipped where it is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import tiny_mamba, tiny_mamba_ssm
from mamba_ssm_code import needs_mamba_ssm, run_beside


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process found for each format."""
    place = tmp_path_factory.mktemp("official")
    directories = [
        tiny_mamba_ssm(place / "mamba_ssm", with_tokenizer=True),
        tiny_mamba(place / "transformers"),
    ]
    found = run_beside(Path(__file__).with_name("official_on_cpu.py"), *directories)
    return {directory.name: part for directory, part in zip(directories, found, strict=True)}


@needs_mamba_ssm
@pytest.mark.parametrize("stored_as", ["mamba_ssm", "transformers"])
def test_mamba_ssms_own_code_agrees(both: dict[str, Any], stored_as: str) -> None:
    found = both[stored_as]
    assert found["difference"] < 1e-5
    assert found["last"] < 1e-5
    assert found["shape"] == [3, 5, 300]
    assert found["tied"]
    assert found["ours"] == found["theirs"]
    assert [len(row) for row in found["theirs"]] == [9, 9, 4]
    # Steps over its weights are compared with its own forward.
    assert found["certificate"]["passed"]
    assert found["certificate"]["shipped_path"] == "mamba_ssm MambaLMHeadModel"
    # With mamba_ssm importable transformers would call its kernels on the CPU.
    assert found["kernel_path"] == "mambabench compiled scan"
