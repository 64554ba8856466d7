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
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import one_architecture
import step_packages
from step_packages import NEVER_INSTALLED, PACKAGES, build, find, install, install_built, unpack
from step_running import HERE, Run, Step, StepError
from step_sweeps import COMMANDS, SWEEPS

DOCTORED = ("official", "triton")
"""Paths of the card that must be usable."""


def check_environment(run: Run, step: Step) -> dict[str, Any]:
    """Find the card, torch and nvcc."""
    found = run.check(step)
    run.capability = run.capability or found["capability"]
    return found


def check(*arguments: str) -> Callable[[Run, Step], dict[str, Any]]:
    """Return a step that `checks.py` does."""

    def act(run: Run, step: Step) -> dict[str, Any]:
        more = [str(run.data)] if run.data and "--data" in arguments else []
        work = ["--work", str(run.out), "--limit", str(run.limit)]
        return run.check(step, *arguments, *more, *work)

    return act


def run_doctor(run: Run, step: Step) -> dict[str, Any]:
    """Let the doctor hold every kernel of the card against float64, and say what it found.

    Raises:
        StepError: a path of the card is not usable, or a kernel is wrong.
    """
    paths = [part for name in DOCTORED for part in ("--path", name)]
    try:
        run.call(step, [sys.executable, "-m", "mambabench", "doctor", *paths, "--json"])
    except StepError as error:
        said = _diagnosis(run, step)
        if not said:
            raise
        run.figures = said
        wrong = [f"{p['path']}: {p['reason']}" for p in said["paths"] if p["asked"] and not p["usable"]]
        raise StepError("; ".join([str(error).partition(":")[0], *wrong])) from error
    return _diagnosis(run, step)


def _diagnosis(run: Run, step: Step) -> dict[str, Any]:
    """Return the document in a step's log, which progress may stand before; empty if there is none."""
    text = (run.out / f"{step.name}.log").read_text(encoding="utf-8", errors="replace")
    begin = text.find("\n{")
    if begin < 0:
        return {}
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text, begin + 1)[0]
    return found


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
    Step("doctor", 300, "every kernel of the card against float64, by the doctor", run_doctor),
    Step("pytest", 600, "the tests marked gpu", run_pytest),
    *SWEEPS,
    Step("parity", 900, "mambabench zeroshot: CUDA against CPU, every sample of the smoke suite", check()),
    Step("parity_data", 900, "the same on real tasks (--data)", check("--data")),
    Step("decode", 300, "time decoding of a 130M-parameter model", check(), ("install_built",)),
)  # fmt: skip


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
    print(f"wheels to install: {len(wheels)}; compilers at once: {step_packages.max_jobs()}")
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
        if step.name in COMMANDS:
            print(f"{'':20} mambabench {' '.join(COMMANDS[step.name])}")
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
