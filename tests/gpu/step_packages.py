"""The steps of `drive.py` that install wheels and build the kernels for one card. Standard library only."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import one_architecture
from step_running import Run, Step, StepError

# The machine's own torch is what the kernels are built against; NVIDIA's are parts of it, but nvidia_ml_py.
NEVER_INSTALLED = ("torch-", "triton-", "nvidia_c", "nvidia_n", "pytorch_triton-")
PACKAGES = {
    "causal_conv1d": {"CAUSAL_CONV1D_FORCE_BUILD": "TRUE", "CAUSAL_CONV1D_SKIP_CUDA_BUILD": "FALSE"},
    "mamba_ssm": {
        "MAMBA_FORCE_BUILD": "TRUE",
        "MAMBA_SKIP_CUDA_BUILD": "FALSE",
        # Later versions build no CUDA code without it.
        "MAMBA_KEEP_CUDA_BUILD": "TRUE",
    },
}
GIB_PER_COMPILER = 4
_AT_ONCE = """
ended=0
for source; do eval "$0" '"$source"' & done
for job in $(jobs -p); do wait "$job" || ended=1; done
exit $ended
"""
"""The command comes first, then what it is called with, each time by itself."""


def install(run: Run, step: Step) -> dict[str, Any]:
    """Install the wheels given, without touching the machine's own packages."""
    chosen = [p for p in sorted(run.wheels.glob("*.whl")) if not p.name.startswith(NEVER_INSTALLED)]
    if not chosen:
        return {"installed": 0}
    try:
        run.call(step, pip_install(run, chosen))
    except StepError:
        # One wheel for another Python must not keep the others out.
        refused = []
        for wheel in chosen:
            try:
                run.call(step, pip_install(run, [wheel]))
            except StepError as error:
                refused.append(f"{wheel.name}: {error}")
        if len(refused) == len(chosen):
            raise StepError(f"no wheel could be installed, first {refused[0]}") from None
        return {"installed": len(chosen) - len(refused), "refused": refused}
    return {"installed": len(chosen)}


def pip_install(run: Run, wheels: list[Path]) -> list[str]:
    """Return the command that puts wheels in the run's own folder."""
    options = ["--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(run.site)]
    return [sys.executable, "-m", "pip", "install", "--quiet", *options, *map(str, wheels)]


def build(run: Run, step: Step) -> dict[str, Any]:
    """Build what was neither given nor built before, for this card: both packages at once.

    One file of each takes most of its time, and keeps one core busy.
    """
    found: dict[str, Any] = {}
    missing = []
    for package in PACKAGES:
        if given := find(run.wheels, package, ".whl"):
            found[package] = {"wheel": given.name, "built": False, "why": "a wheel was given"}
        elif earlier := _built_before(run, package):
            found[package] = {"wheel": earlier.name, "built": False, "why": "built by an earlier run"}
        else:
            missing.append(package)
    run.figures = found
    if not missing:
        return found
    sources = {package: unpack(run, package, run.out / "src") for package in missing}
    run.built.mkdir(parents=True, exist_ok=True)
    for package in missing:
        _note(run, package).unlink(missing_ok=True)
    began_s = time.perf_counter()
    jobs = str(max_jobs())
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    command += ["--no-cache-dir", "--wheel-dir", str(run.built)]
    try:
        run.call(
            step,
            ["bash", "-c", _AT_ONCE, shlex.join(command), *(str(source) for source, _ in sources.values())],
            MAX_JOBS=jobs,
            **{one_architecture.CAPABILITY_VARIABLE: run.known_capability()},
            **{name: value for package in missing for name, value in PACKAGES[package].items()},
        )
    except StepError as error:
        # pip's last words do not say what the compiler said.
        said = first_error(run.out / f"{step.name}.log")
        raise StepError(f"{error}; {said}" if said else str(error)) from error
    finally:
        for package, (_, what) in sources.items():
            if built := find(run.built, package, ".whl"):
                _note(run, package).write_text(json.dumps(_key(run)))
                found[package] = {"wheel": built.name, "built": True, "setup": what}
    return {**found, "max_jobs": int(jobs), "build_s": round(time.perf_counter() - began_s, 1)}


def _key(run: Run) -> dict[str, str]:
    """Return what a wheel fits: the torch that it was built against, and the card."""
    python = sys.version.split()[0]
    return {"capability": run.known_capability(), "python": python, "torch": torch_version(run)}


def _note(run: Run, package: str) -> Path:
    note: Path = run.built / f"{package}.json"
    return note


def _built_before(run: Run, package: str) -> Path | None:
    note, wheel = _note(run, package), find(run.built, package, ".whl")
    if wheel and note.exists() and json.loads(note.read_text()) == _key(run):
        return wheel
    if wheel:
        wheel.unlink()
    return None


def first_error(log: Path) -> str:
    """Return the first line of a log in which a compiler reports an error; "" if there is none."""
    with log.open(encoding="utf-8", errors="replace") as stream:
        found = (line.strip() for line in stream if ": error:" in line or ": fatal error:" in line)
        return next(found, "")


def install_built(run: Run, step: Step) -> dict[str, Any]:
    """Install the two packages that were built or given."""
    found = [find(run.built, p, ".whl") or find(run.wheels, p, ".whl") for p in PACKAGES]
    wheels = [wheel for wheel in found if wheel]
    if not wheels:
        raise StepError("neither package was built")
    run.call(step, pip_install(run, wheels))
    return {"wheels": [wheel.name for wheel in wheels]}


def find(folder: Path, package: str, suffix: str) -> Path | None:
    """Return the newest file of a package in a folder, or None; `-` and `_` are the same in its name."""
    found = [
        p
        for p in sorted(folder.glob(f"*{suffix}"))
        if p.name.replace("-", "_").lower().startswith(f"{package}_")
    ]
    return found[-1] if found else None


def unpack(run: Run, package: str, where: Path) -> tuple[Path, str]:
    """Unpack a package's source distribution and restrict it to one card.

    Returns:
        The unpacked directory and what was done to its setup.py.
    """
    archive = find(run.wheels, package, ".tar.gz")
    if archive is None:
        raise StepError(f"no sdist of {package} in {run.wheels}")
    target = where / archive.name.removesuffix(".tar.gz")
    shutil.rmtree(target, ignore_errors=True)
    where.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as stream:
        stream.extractall(where, filter="data")
    return target, one_architecture.patch(target)


def torch_version(run: Run) -> str:
    """Return the version of the machine's torch."""
    command = [sys.executable, "-c", "import torch; print(torch.__version__)"]
    result = subprocess.run(
        command, env=run.environment(), capture_output=True, text=True, timeout=120, check=True
    )
    return result.stdout.split()[-1]


def max_jobs() -> int:
    """Return how many compilers to run at once: one a core, as far as memory goes."""
    cores = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(cores, int(memory_gib / GIB_PER_COMPILER)))
