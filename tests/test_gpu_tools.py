"""The GPU script's own logic, on a CPU: one architecture only, builds that are used again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from driven import options
from gpu import drive
from gpu.drive import Run, Step
from gpu.one_architecture import CAPABILITY_VARIABLE, for_one_architecture, parse_capability, patch

RUN_SH = Path(drive.__file__).parent / "run.sh"
# As the script itself imports it.
step_running: Any = sys.modules[Run.__module__]
HOPPER = ["-gencode", "arch=compute_90,code=sm_90"]

# --- one architecture


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-gencode", "arch=compute_75,code=sm_75", "-gencode", "arch=compute_90,code=sm_90"],
        ["-gencode=arch=compute_75,code=sm_75", "-gencode=arch=compute_80,code=[sm_80,compute_80]"],
        ["--generate-code=arch=compute_75,code=sm_75", "--generate-code", "arch=compute_80,code=sm_80"],
        ["-arch=sm_80"],
        ["-arch", "sm_80", "-code", "sm_80"],
        ["--gpu-architecture=compute_80", "--gpu-code=sm_80,compute_80"],
    ],
)
def test_every_spelling_is_replaced(flags: list[str]) -> None:
    before, after = ["-O3", "--use_fast_math"], ["--threads", "4", "-lineinfo"]
    got = for_one_architecture([*before, *flags, *after], (9, 0))
    assert got == [*before, *after, *HOPPER]
    assert for_one_architecture(got, (9, 0)) == got


def test_capabilities() -> None:
    assert parse_capability("12.1") == (12, 1)
    assert for_one_architecture([], (12, 1))[-1] == "arch=compute_121,code=sm_121"
    for bad in ("9", "", "sm_90", "9.0a"):
        with pytest.raises(ValueError, match=r"looks like 9\.0"):
            parse_capability(bad)


# Two layouts in the style of the official files: appended under version tests, and built in one go with
# a list for both compilers.
APPENDED = '''# A comment, then imports.
"""
from nowhere import nothing  (text, not code)
"""
from __future__ import annotations
import os
from packaging.version import Version, parse
from setuptools import setup
import torch
from torch.utils.cpp_extension import BuildExtension, CUDAExtension, CUDA_HOME

cc_flag = []
nvcc_version = Version("13.0")
cc_flag.append("-gencode")
cc_flag.append("arch=compute_75,code=sm_75")
cc_flag.append("-gencode")
cc_flag.append("arch=compute_80,code=sm_80")
if nvcc_version >= Version("11.8"):
    cc_flag.append("-gencode")
    cc_flag.append("arch=compute_90,code=sm_90")

ext_modules = [
    CUDAExtension(
        name="scan",
        sources=["csrc/scan.cu"],
        extra_compile_args={"cxx": ["-O3"], "nvcc": ["-O3", "--threads", "4"] + cc_flag},
    )
]
setup(name="scan", version="1.0", ext_modules=ext_modules)
'''
AT_ONCE = """import torch.utils.cpp_extension as cpp
import setuptools
archs = ["80", "86", "90"]
flags = ["-O3"] + [f"--generate-code=arch=compute_{a},code=sm_{a}" for a in archs]
setuptools.setup(
    name="conv",
    ext_modules=[cpp.CUDAExtension("conv", ["conv.cu"], extra_compile_args=flags)],
)
"""
STUBS = {
    "torch/__init__.py": "__version__ = '2.13.0'\nfrom torch import version\n"
    "class _C: _GLIBCXX_USE_CXX11_ABI = True\n",
    "torch/version.py": "cuda = '13.0'\nhip = None\n",
    "torch/utils/__init__.py": "",
    "torch/utils/cpp_extension.py": "import json, os\n"
    "CUDA_HOME, HIP_HOME = os.environ['STUB_CUDA'], None\n"
    "class BuildExtension: pass\n"
    "class CppExtension: pass\n"
    "def CUDAExtension(name, sources, **rest):\n"
    "    with open(os.environ['STUB_FOUND'], 'w') as stream:\n"
    "        json.dump(rest['extra_compile_args'], stream)\n"
    "    return name\n",
    "setuptools/__init__.py": "def setup(**rest): pass\ndef find_packages(**rest): return []\n",
    "wheel/__init__.py": "",
    "wheel/bdist_wheel.py": "class bdist_wheel: pass\n",
}


def flags_of(source: Path, work: Path) -> dict[str, list[str]]:
    """Run a setup.py with stand-ins for torch and setuptools; return the compilers' flags."""
    for name, text in STUBS.items():
        path = work / "stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    nvcc = work / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True, exist_ok=True)
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.1'\n")
    nvcc.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": str(work / "stubs"),
        "STUB_CUDA": str(work / "cuda"),
        "STUB_FOUND": str(work / "found.json"),
        CAPABILITY_VARIABLE: "9.0",
    }
    # As pip runs it: the file's directory is the working directory, and not on the path.
    code = "import runpy, sys; sys.path = list(filter(None, sys.path)); runpy.run_path('setup.py')"
    subprocess.run([sys.executable, "-c", code], cwd=source, env=environment, check=True, timeout=60)
    found: dict[str, list[str]] = json.loads((work / "found.json").read_text())
    return found


@pytest.mark.parametrize("text", [APPENDED, AT_ONCE])
def test_a_patched_setup_builds_for_one_card(tmp_path: Path, text: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "setup.py").write_text(text)
    assert "builds for" in patch(source)
    once = (source / "setup.py").read_text()
    assert patch(source) == "patched before"
    assert (source / "setup.py").read_text() == once
    flags = flags_of(source, tmp_path)
    assert [flag for flag in flags["nvcc"] if "arch" in flag or "code" in flag] == HOPPER
    assert "-O3" in flags["nvcc"]
    assert not any("arch" in flag for flag in flags["cxx"] if text is APPENDED)


def test_what_is_no_cuda_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no setup\.py"):
        patch(tmp_path)
    (tmp_path / "setup.py").write_text("import setuptools\nsetuptools.setup()\n")
    with pytest.raises(ValueError, match="no CUDA extension"):
        patch(tmp_path)


@pytest.mark.parametrize("package", ["causal_conv1d", "mamba_ssm"])
def test_the_official_sources_build_for_one_card(tmp_path: Path, package: str) -> None:
    folder = Path(os.environ.get("MAMBABENCH_TEST_SDISTS", "/nonexistent"))
    archives = sorted(folder.glob(f"{package}-*.tar.gz"))
    if not archives:
        pytest.skip("needs MAMBABENCH_TEST_SDISTS, a folder of the official source distributions")
    for archive in archives:
        with tarfile.open(archive) as stream:
            stream.extractall(tmp_path, filter="data")
        source = tmp_path / archive.name.removesuffix(".tar.gz")
        patch(source)
        flags = flags_of(source, tmp_path)["nvcc"]
        assert [f for f in flags if "gencode" in f or "arch=" in f] == HOPPER
        assert "--use_fast_math" in flags


# --- the steps


def sdist(folder: Path, name: str) -> Path:
    """Write a source distribution with a setup.py in the official style."""
    source = folder / name
    source.mkdir(parents=True)
    (source / "setup.py").write_text(APPENDED)
    archive = folder / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as stream:
        stream.add(source, name)
    return archive


def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(RUN_SH), "--dry-run", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHON": sys.executable},
    )


def test_a_dry_run_prints_the_plan_and_patches_copies(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    sdist(wheels, "causal_conv1d-1.7.0")
    sdist(wheels, "mamba-ssm-2.3.1")
    before = sorted(wheels.rglob("*"))
    result = dry_run("--wheels", str(wheels), "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert "mamba_ssm: builds mamba-ssm-2.3.1" in result.stdout
    assert all(step.name in result.stdout for step in drive.STEPS)
    assert sorted(wheels.rglob("*")) == before
    assert "restrict()" in (tmp_path / "out" / "dry-run" / "mamba-ssm-2.3.1" / "setup.py").read_text()


def test_a_dry_run_names_what_is_missing(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    result = dry_run("--wheels", str(tmp_path / "absent"), "--out", out)
    assert (result.returncode, "is not a directory" in result.stderr) == (4, True)
    (tmp_path / "empty").mkdir()
    result = dry_run("--wheels", str(tmp_path / "empty"), "--out", out)
    assert (result.returncode, result.stderr.count("no sdist of")) == (4, 2)
    result = dry_run("--wheels", str(tmp_path / "empty"), "--out", out, "--steps", "decode,dance")
    assert (result.returncode, "unknown steps: dance" in result.stderr) == (2, True)
    result = dry_run("--wheels", str(tmp_path / "empty"), "--out", out, "--capability", "sm_90")
    assert (result.returncode, "looks like 9.0" in result.stderr) == (2, True)


def test_a_script_in_place_of_nvcc_does_not_hide_the_toolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def toolkit(name: str, *, headers: bool) -> Path:
        folder = tmp_path / name
        (folder / "bin").mkdir(parents=True)
        (folder / "include").mkdir()
        (folder / "bin" / "nvcc").write_text("#!/bin/sh\n")
        (folder / "bin" / "nvcc").chmod(0o755)
        if headers:
            (folder / "include" / "cuda_runtime_api.h").touch()
        return folder

    script, whole, other = toolkit("a", headers=False), toolkit("b", headers=True), toolkit("c", headers=True)
    monkeypatch.setattr(step_running, "CUDA_FOLDERS", (whole,))
    on_path = {"PATH": str(script / "bin")}
    assert step_running.cuda_home(on_path) == whole
    assert step_running.cuda_home({"PATH": str(other / "bin")}) == other
    assert step_running.cuda_home({**on_path, "CUDA_HOME": str(other)}) == other
    assert step_running.cuda_home({**on_path, "CUDA_HOME": str(tmp_path / "none")}) == whole
    monkeypatch.setenv("PATH", str(script / "bin"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert Run(options(tmp_path)).environment()["CUDA_HOME"] == str(whole)
    monkeypatch.setattr(step_running, "CUDA_FOLDERS", ())
    assert "CUDA_HOME" not in Run(options(tmp_path)).environment()


@pytest.fixture
def building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run with both source distributions."""
    given = options(tmp_path, capability="9.0")
    for name in ("causal_conv1d-1.7.0", "mamba_ssm-2.3.1"):
        sdist(given.wheels, name)
    monkeypatch.setattr(drive.step_packages, "torch_version", lambda run: "2.13.0+cu130")
    run = Run(given)
    run.out.mkdir()
    return run


BUILD = next(step for step in drive.STEPS if step.name == "build")


def test_a_failed_build_says_what_the_compiler_said(building: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(step: Step, command: list[str], **environment: str) -> None:
        said = "ok\n  a.h:4:10: fatal error: no such file\n  b.h:1:1: error: other\nERROR: Failed\n"
        (building.out / "build.log").write_text(said)
        (building.built / "mamba_ssm-2.3.1-cp311-cp311-linux_x86_64.whl").touch()
        raise drive.StepError("exit code 1: ERROR: Failed")

    monkeypatch.setattr(building, "call", call)
    with pytest.raises(drive.StepError, match=r"Failed; a\.h:4:10: fatal error: no such file$"):
        BUILD.act(building, BUILD)
    # The other was built, and is not built again.
    assert building.figures["mamba_ssm"]["built"] is True
    with pytest.raises(drive.StepError):
        BUILD.act(building, BUILD)
    assert building.figures["mamba_ssm"]["why"] == "built by an earlier run"


def test_both_packages_are_built_at_once(building: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = building.call

    def call(step: Step, command: list[str], **environment: str) -> None:
        # Each waits for the other.
        code = (
            "import os, pathlib, sys, time\n"
            "mine = pathlib.Path(sys.argv[-1]); (mine / 'begun').touch()\n"
            "while len(list(mine.parent.glob('*/begun'))) < 2: time.sleep(0.02)\n"
            "name = mine.name; built = sys.argv[sys.argv.index('--wheel-dir') + 1]\n"
            "pathlib.Path(built, name + '-cp311-cp311-linux_x86_64.whl').touch()\n"
            "sys.exit(os.environ['MAMBA_FORCE_BUILD'] != 'TRUE')\n"
        )
        script = building.out / "one.py"
        script.write_text(code)
        words = shlex.split(command[3])
        assert words[1:4] == ["-m", "pip", "wheel"]
        replaced = f"{sys.executable} {script} {shlex.join(words[4:])}"
        real(step, [*command[:3], replaced, *command[4:]], **environment)

    monkeypatch.setattr(building, "call", call)
    assert {name: f["built"] for name, f in BUILD.act(building, BUILD).items() if isinstance(f, dict)} == {
        "causal_conv1d": True,
        "mamba_ssm": True,
    }


def test_a_build_is_used_again_and_a_given_wheel_first(
    building: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[dict[str, str]] = []

    def call(step: Step, command: list[str], **environment: str) -> None:
        built.append(environment)
        for source in command[4:]:
            (building.built / f"{Path(source).name}-cp311-cp311-linux_x86_64.whl").touch()

    monkeypatch.setattr(building, "call", call)
    assert BUILD.act(building, BUILD)["mamba_ssm"]["built"] is True
    assert BUILD.act(building, BUILD)["mamba_ssm"] == {
        "wheel": "mamba_ssm-2.3.1-cp311-cp311-linux_x86_64.whl",
        "built": False,
        "why": "built by an earlier run",
    }
    [environment] = built
    assert environment["MAMBA_FORCE_BUILD"] == environment["CAUSAL_CONV1D_FORCE_BUILD"] == "TRUE"
    assert environment[CAPABILITY_VARIABLE] == "9.0"
    # Another card, another build.
    building.capability = "8.6"
    (building.wheels / "mamba_ssm-2.3.2-cp311-cp311-linux_x86_64.whl").touch()
    found = BUILD.act(building, BUILD)
    assert found["causal_conv1d"]["built"] is True
    assert found["mamba_ssm"]["why"] == "a wheel was given"
