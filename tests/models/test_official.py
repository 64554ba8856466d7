"""The path to mamba_ssm's own model, with stand-ins for its CUDA functions; skipped where it is not there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import tiny_mamba, tiny_mamba_ssm

WHERE = os.environ.get("MAMBABENCH_TEST_MAMBA_SSM", "")
needs_mamba_ssm = pytest.mark.skipif(
    importlib.util.find_spec("mamba_ssm") is None and not Path(WHERE, "mamba_ssm").is_dir(),
    reason="mamba_ssm's Python code is not here; MAMBABENCH_TEST_MAMBA_SSM names a directory that holds it",
)


@needs_mamba_ssm
@pytest.mark.parametrize("build", [tiny_mamba_ssm, tiny_mamba])
def test_mamba_ssms_own_code_agrees(tmp_path: Path, build: Any) -> None:
    options = {"with_tokenizer": True} if build is tiny_mamba_ssm else {}
    directory = build(tmp_path / "m", **options)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([WHERE, os.environ.get("PYTHONPATH", "")])}
    script = Path(__file__).with_name("official_on_cpu.py")
    done = subprocess.run(
        [sys.executable, str(script), str(directory)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] < 1e-5
    assert found["last"] < 1e-5
    assert found["shape"] == [3, 5, 300]
    assert found["tied"]
    assert found["ours"] == found["theirs"]
    assert [len(row) for row in found["theirs"]] == [9, 9, 4]
    # With mamba_ssm importable transformers would call its kernels on the CPU.
    assert found["kernel_path"] == "mambabench compiled scan"
