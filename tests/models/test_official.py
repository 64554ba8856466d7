"""The path to mamba_ssm's own model, with stand-ins for its CUDA functions; skipped where it is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import tiny_mamba, tiny_mamba_ssm
from mamba_ssm_code import needs_mamba_ssm, run_beside


@needs_mamba_ssm
@pytest.mark.parametrize("build", [tiny_mamba_ssm, tiny_mamba])
def test_mamba_ssms_own_code_agrees(tmp_path: Path, build: Any) -> None:
    options = {"with_tokenizer": True} if build is tiny_mamba_ssm else {}
    directory = build(tmp_path / "m", **options)
    script = Path(__file__).with_name("official_on_cpu.py")
    found = run_beside(script, directory)
    assert found["difference"] < 1e-5
    assert found["last"] < 1e-5
    assert found["shape"] == [3, 5, 300]
    assert found["tied"]
    assert found["ours"] == found["theirs"]
    assert [len(row) for row in found["theirs"]] == [9, 9, 4]
    # With mamba_ssm importable transformers would call its kernels on the CPU.
    assert found["kernel_path"] == "mambabench compiled scan"
