from __future__ import annotations

import json
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

import mambabench
from mambabench import environment
from mambabench.environment import describe_environment, processor_name


def test_it_describes_what_results_depend_on() -> None:
    found = describe_environment()
    assert found["packages"]["torch"]
    assert found["packages"]["mambabench"] == mambabench.__version__
    assert "mamba-ssm" in environment.PACKAGES
    assert found["processor"]["logical_cores"] >= 1
    assert found["memory_bytes"] > 1 << 28
    assert found["processor"]["name"] == processor_name() != ""
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    json.dumps(found)


def test_it_tells_no_host_or_user(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass
    import platform

    text = json.dumps(describe_environment())
    assert platform.node() == "" or platform.node() not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert f'"{getpass.getuser()}"' not in text


def test_only_set_variables_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    variables = describe_environment()["variables"]
    assert variables["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in variables


class _Nvml(types.ModuleType):
    class NVMLError(Exception):
        pass

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__("pynvml")
        self.broken = broken
        self.closed = False

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("no driver")

    def nvmlShutdown(self) -> None:
        self.closed = True

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return b"GPU A" if handle == 0 else "GPU B"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return types.SimpleNamespace(total=24 << 30)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> Any:
        return 7, 5

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.1"


def test_gpus_and_driver_come_from_the_management_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = describe_environment()
    assert [g["name"] for g in found["gpus"]] == ["GPU A", "GPU B"]
    assert found["gpus"][0]["memory_bytes"] == 24 << 30
    assert found["gpus"][0]["compute_capability"] == [7, 5]
    assert found["nvidia_driver"] == "570.1"
    assert library.closed


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml(broken=True))
    found = describe_environment()
    assert found["gpus"] == []
    assert found["nvidia_driver"] is None


def test_the_commit_is_known_in_a_checkout_only(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    assert environment._git(package) is None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (package / "a.py").write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert environment._git(package) == {"commit": git("rev-parse", "HEAD"), "modified": False}
    (package / "a.py").write_text("2\n")
    found = environment._git(package)
    assert found is not None
    assert found["modified"] is True


def test_git_that_is_not_installed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert environment._git(tmp_path / "package") is None


def test_it_is_cheap() -> None:
    describe_environment()
    start = time.perf_counter()
    describe_environment()
    assert time.perf_counter() - start < 1.0
    code = "import sys, mambabench.environment as e; e.describe_environment(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
