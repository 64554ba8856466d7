"""The steps of `run.sh`, each in its own process with its own time limit; one that fails costs no other.

Standard library only: it starts on a machine that has nothing but torch. What is found is written as it
is found: one line a step in `<out>/steps.jsonl`, the step's figures in `<out>/<step>.json`, everything it
printed in `<out>/<step>.log`. Wheels that were built stay in `<out>/wheels` and are used again.

Exit codes: 0 all chosen steps passed; 2 wrong usage; 3 a step failed; 4 an input is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import one_architecture

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# The machine's own torch is what the kernels are built against.
NEVER_INSTALLED = ("torch-", "triton-", "nvidia_", "pytorch_triton-")
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


class StepError(Exception):
    """A step cannot be done, for a reason worth a sentence."""


@dataclass(frozen=True)
class Step:
    """One step of the plan."""

    name: str
    limit_s: int
    what: str
    act: Callable[[Run, Step], dict[str, Any]]
    needs: tuple[str, ...] = ()


class Run:
    """Where things are, and how a step's processes are run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.wheels: Path = options.wheels.resolve()
        self.out: Path = options.out.resolve()
        self.data: Path | None = options.data.resolve() if options.data else None
        self.site = self.out / "site"
        self.built = self.out / "wheels"
        self.capability: str | None = options.capability
        self.limit: int = options.limit
        self.figures: dict[str, Any] = {}
        """What the last check found, also when it then failed."""

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a step: the installed wheels and this checkout come first."""
        path = [str(REPOSITORY), str(self.site), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
        offline = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(filter(None, path)), **more}

    def call(self, step: Step, command: list[str], **environment: str) -> None:
        """Run a command within the step's limit; its output goes to the step's log.

        Raises:
            StepError: it failed or ran past the limit; ends with the last line that it printed.
        """
        log = self.out / f"{step.name}.log"
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"$ {' '.join(command)}\n")
            stream.flush()
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment(**environment),
                cwd=REPOSITORY,
                start_new_session=True,
            )
            try:
                code = process.wait(step.limit_s)
            except BaseException as error:
                # The compilers below pip belong to the step's own process group.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise StepError(f"ran past its limit of {step.limit_s} s") from error
                raise
        if code != 0:
            lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
            raise StepError(f"exit code {code}: {lines[-1]}")

    def check(self, step: Step, *arguments: str) -> dict[str, Any]:
        """Run `checks.py` and return the figures that it found."""
        found = self.out / f"{step.name}.found.json"
        found.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / "checks.py"), step.name, "--found", str(found), *arguments]
        try:
            self.call(step, command)
        finally:
            self.figures = json.loads(found.read_text()) if found.exists() else {}
            found.unlink(missing_ok=True)
        return self.figures

    def known_capability(self) -> str:
        """Return the compute capability asked for or found, by an earlier run if need be."""
        earlier = self.out / "environment.json"
        if self.capability is None and earlier.exists():
            self.capability = json.loads(earlier.read_text()).get("found", {}).get("capability")
        if self.capability is None:
            raise StepError("the card's compute capability is not known: give --capability")
        return self.capability


def check_environment(run: Run, step: Step) -> dict[str, Any]:
    """Find the card, torch and nvcc."""
    found = run.check(step)
    run.capability = run.capability or found["capability"]
    return found


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


def build(package: str) -> Callable[[Run, Step], dict[str, Any]]:
    """Return the step that builds one package for this card, or finds it built."""

    def act(run: Run, step: Step) -> dict[str, Any]:
        if given := find(run.wheels, package, ".whl"):
            return {"wheel": given.name, "built": False, "why": "a wheel was given"}
        capability = run.known_capability()
        note = run.built / f"{package}.json"
        # A wheel fits the torch that it was built against, and the card.
        key = {"capability": capability, "python": sys.version.split()[0], "torch": torch_version(run)}
        earlier = find(run.built, package, ".whl")
        if earlier and note.exists() and json.loads(note.read_text()) == key:
            return {"wheel": earlier.name, "built": False, "why": "built by an earlier run"}
        source, what = unpack(run, package, run.out / "src")
        run.built.mkdir(parents=True, exist_ok=True)
        began_s = time.perf_counter()
        jobs = str(max_jobs())
        options = ["--no-build-isolation", "--no-deps", "--no-index", "--no-cache-dir"]
        run.call(
            step,
            [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(run.built), str(source)],
            MAX_JOBS=jobs,
            **{one_architecture.CAPABILITY_VARIABLE: capability},
            **PACKAGES[package],
        )
        note.write_text(json.dumps(key))
        built = find(run.built, package, ".whl")
        return {
            "wheel": built.name if built else "",
            "built": True,
            "setup": what,
            "max_jobs": int(jobs),
            "build_s": round(time.perf_counter() - began_s, 1),
        }

    return act


def install_built(run: Run, step: Step) -> dict[str, Any]:
    """Install the two packages that were built or given."""
    found = [find(run.built, p, ".whl") or find(run.wheels, p, ".whl") for p in PACKAGES]
    wheels = [wheel for wheel in found if wheel]
    if not wheels:
        raise StepError("neither package was built")
    run.call(step, pip_install(run, wheels))
    return {"wheels": [wheel.name for wheel in wheels]}


def check(*arguments: str) -> Callable[[Run, Step], dict[str, Any]]:
    """Return a step that `checks.py` does."""

    def act(run: Run, step: Step) -> dict[str, Any]:
        more = [str(run.data)] if run.data and "--data" in arguments else []
        work = ["--work", str(run.out), "--limit", str(run.limit)]
        return run.check(step, *arguments, *more, *work)

    return act


def run_pytest(run: Run, step: Step) -> dict[str, Any]:
    """Run the tests that are marked `gpu`."""
    # Not the project's own options: they name plugins that the machine may not have.
    options = ["-o", "addopts=", "-o", "timeout=", "-W", "default", "--import-mode=importlib", "-rs"]
    run.call(step, [sys.executable, "-m", "pytest", "-m", "gpu", *options, str(HERE)])
    lines = (run.out / f"{step.name}.log").read_text(encoding="utf-8").splitlines()
    return {"summary": next((line for line in reversed(lines) if line.strip()), "")}


STEPS = (
    Step("environment", 120, "the card, torch, nvcc, processor and memory", check_environment),
    Step("install", 300, "install the wheels into --out/site, without an index", install),
    Step(
        "build_causal_conv1d", 1200, "build causal-conv1d for this card", build("causal_conv1d"),
        ("environment",),
    ),
    Step("build_mamba_ssm", 2400, "build mamba-ssm for this card", build("mamba_ssm"), ("environment",)),
    Step("install_built", 120, "install what was built", install_built),
    Step("kernels", 180, "compiled scan and convolution against float64", check(), ("install_built",)),
    Step(
        "official", 300, "a mamba_ssm checkpoint in the official CUDA model against the CPU", check(),
        ("install_built",),
    ),
    Step("parity", 900, "mambabench zeroshot: CUDA against CPU, every sample of the smoke suite", check()),
    Step("parity_data", 900, "the same on real tasks (--data)", check("--data")),
    Step("decode", 300, "time decoding of a 130M-parameter model", check(), ("install_built",)),
    Step("pytest", 600, "the tests marked gpu", run_pytest),
)  # fmt: skip


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


def perform(run: Run, step: Step, failed: set[str]) -> dict[str, Any]:
    """Do one step and return its record, whatever happens in it."""
    record: dict[str, Any] = {"step": step.name, "limit_s": step.limit_s}
    began_s = time.perf_counter()
    run.figures = {}
    (run.out / f"{step.name}.log").unlink(missing_ok=True)
    missing = [need for need in step.needs if need in failed]
    if missing:
        record |= {"status": "skipped", "why": f"{missing[0]} did not pass"}
    elif step.name == "parity_data" and run.data is None:
        record |= {"status": "skipped", "why": "no --data"}
    else:
        try:
            record |= {"status": "ok", "found": step.act(run, step)}
        except Exception as error:
            reason = str(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
            record |= {"status": "failed", "why": reason, "found": run.figures}
    record["wall_s"] = round(time.perf_counter() - began_s, 2)
    (run.out / f"{step.name}.json").write_text(json.dumps(record, indent=1) + "\n")
    with (run.out / "steps.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return record


def dry_run(run: Run, chosen: list[Step]) -> int:
    """Print the plan, look at the inputs, and patch copies of the setup.py files; touches no GPU."""
    run.out.mkdir(parents=True, exist_ok=True)
    problems = []
    wheels = [p for p in run.wheels.glob("*.whl") if not p.name.startswith(NEVER_INSTALLED)]
    print(f"wheels to install: {len(wheels)}; compilers at once: {max_jobs()}")
    for package in PACKAGES:
        if wheel := find(run.wheels, package, ".whl"):
            print(f"{package}: installs {wheel.name}")
            continue
        try:
            source, what = unpack(run, package, run.out / "dry-run")
            print(f"{package}: builds {source.name}; setup.py: {what}")
        except (StepError, ValueError) as error:
            problems.append(str(error))
    for step in chosen:
        skipped = " (skipped: no --data)" if step.name == "parity_data" and run.data is None else ""
        print(f"{step.name:20} at most {step.limit_s:5} s  {step.what}{skipped}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 4 if problems else 0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run the steps."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True, help="folder of wheels and sdists")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found and built")
    parser.add_argument("--data", type=Path, help="folder of task data, as for `zeroshot --data-dir`")
    parser.add_argument("--limit", type=int, default=50, help="documents per task of the parity steps")
    parser.add_argument("--steps", default=",".join(names), help=f"some of: {', '.join(names)}")
    parser.add_argument("--capability", help="compute capability to build for, instead of the card's own")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and check the inputs")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.steps.split(",")) - set(names))
    if unknown:
        parser.error(f"unknown steps: {', '.join(unknown)}")
    if options.capability:
        try:
            one_architecture.parse_capability(options.capability)
        except ValueError as error:
            parser.error(str(error))
    for folder in (options.wheels, options.data):
        if folder is not None and not folder.is_dir():
            print(f"error: {folder} is not a directory", file=sys.stderr)
            return 4
    chosen = [step for step in STEPS if step.name in options.steps.split(",")]
    run = Run(options)
    if options.dry_run:
        return dry_run(run, chosen)
    run.out.mkdir(parents=True, exist_ok=True)
    failed: set[str] = set()
    for step in chosen:
        print(f"{step.name} ...", flush=True)
        record = perform(run, step, failed)
        if record["status"] != "ok":
            failed.add(step.name)
        print(f"  {record['status']} {record['wall_s']} s {record.get('why', '')}", flush=True)
    harmless = {"parity_data"} if run.data is None else set()
    return 3 if failed - harmless else 0


if __name__ == "__main__":
    sys.exit(main())
