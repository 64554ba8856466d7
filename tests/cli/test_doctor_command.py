"""`mambabench doctor` as a user meets it; once for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from doctor_machines import machine

from mambabench.cli import _run
from mambabench.doctor import facts
from mambabench.doctor.finding import CHECKS


def test_the_whole_of_it_on_this_machine(tmp_path: Path) -> None:
    """Nothing is made up here but that the Hub must not be asked."""
    done = subprocess.run(
        [sys.executable, "-m", "mambabench", "doctor", "--path", "cpu", "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert done.stderr == ""
    assert [f["check"] for f in found["findings"]] == list(CHECKS)
    (path,) = [p for p in found["paths"] if p["asked"]]
    assert path["usable"]
    assert len(found["kernels"]) > 20
    assert all(k["passed"] and k["ratio"] <= k["bar"] for k in found["kernels"])
    (model,) = found["models"]
    assert model["passed"]
    assert model["ratio"] <= 1.5
    by_check = {f["check"]: f for f in found["findings"]}
    assert by_check["torch"]["verdict"] == by_check["bundled"]["verdict"] == "ok"
    assert by_check["hub"]["verdict"] == "not needed"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what puts the command on a made-up machine."""

    def put(**changes: Any) -> None:
        monkeypatch.setattr(facts, "Probes", lambda: machine(**changes))

    return put


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = _run(["doctor", *args])
    return code, capsys.readouterr().out


def test_a_path_that_is_not_usable_is_exit_code_4(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on()
    code, out = run(capsys, "--quick", "--path", "official")
    assert code == 4
    assert "Not usable here, though asked for: official." in out
    code, out = run(capsys, "--quick", "--path", "official", "--path", "official", "--json")
    assert code == 4
    assert json.loads(out)["exit_code"] == 4


def test_quick_on_a_machine_without_a_gpu_is_fine(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on()
    code, out = run(capsys, "--quick")
    assert code == 0
    assert "nothing about CUDA is needed" in out


@pytest.mark.parametrize("args", [["--path", "gpu"], ["--path"], ["extra"]])
def test_mistakes_are_usage_errors(args: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["doctor", *args]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, mambabench.cli.doctor, mambabench.doctor.diagnose, mambabench.doctor.terminal;"
        "print([m for m in ('torch', 'transformers', 'numba', 'pandas', 'lm_eval') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
