"""Which steps there are, in which order, and which fit one loan of a machine. Standard library only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from step_packages import build, install, install_built
from step_running import HERE, Run, Skipped, Step, StepError
from step_sweeps import SWEEPS

DOCTORED = ("official", "triton")
"""Paths of the card that must be usable."""
_REHEARSED_LIMIT = 5
_CLOSING_S = 10.0
"""What a check leaves of its step's limit for itself to end in."""


def check_environment(run: Run, step: Step) -> dict[str, Any]:
    """Find the card, torch and nvcc."""
    found = run.check(step, *_rehearsal(run))
    run.capability = run.capability or found.get("capability")
    return found


def check(*arguments: str) -> Callable[[Run, Step], dict[str, Any]]:
    """Return a step that `checks.py` does, with those of the inputs that are named."""

    def act(run: Run, step: Step) -> dict[str, Any]:
        given = {
            "--data": run.data, "--tokenizer": run.tokenizer, "--checkpoint": run.checkpoint,
            "--documents": run.documents,
        }  # fmt: skip
        more = [word for name in arguments if given[name] is not None for word in (name, str(given[name]))]
        if "--data" in arguments and run.data is None and not (run.rehearse and step.name != "parity_data"):
            raise Skipped("no --data")
        seconds = max(1.0, run.left_s(step) - _CLOSING_S)
        limit = min(run.limit, _REHEARSED_LIMIT) if run.rehearse else run.limit
        work = ["--work", str(run.out), "--limit", str(limit), "--seconds", f"{seconds:.0f}"]
        return run.check(step, *more, *work, *_rehearsal(run))

    return act


def _rehearsal(run: Run) -> list[str]:
    return ["--rehearse"] if run.rehearse else []


def run_doctor(run: Run, step: Step) -> dict[str, Any]:
    """Let the doctor hold every kernel of the card against float64, and say what it found.

    Raises:
        StepError: a path of the card is not usable, or a kernel is wrong.
    """
    paths = [] if run.rehearse else [part for name in DOCTORED for part in ("--path", name)]
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


def script(name: str) -> Callable[[Run, Step], dict[str, Any]]:
    """Return a step that a script of its own does, where this checkout has it."""

    def act(run: Run, step: Step) -> dict[str, Any]:
        if not (HERE / name).is_file():
            raise Skipped(f"there is no {name}")
        return run.check(step, script=name)

    return act


STEPS = (
    Step("environment", 120, "the card, torch, nvcc, processor and memory", check_environment, again=True),
    Step(
        "install", 300, "install the wheels into --out/site-packages", install, again=True,
        rehearsed=False,
    ),
    Step(
        "build", 3600, "build causal-conv1d and mamba-ssm for this card", build, ("environment",),
        least_s=120, rehearsed=False,
    ),
    Step("install_built", 120, "install what was built", install_built, again=True, rehearsed=False),
    Step("versions", 60, "the versions that are installed now", check(), again=True),
    Step(
        "kernels", 180, "compiled scan and convolution against float64", check(), ("install_built",),
        rehearsed=False,
    ),
    Step(
        "official", 300, "a mamba_ssm checkpoint in the official CUDA model against the CPU", check(),
        ("install_built",), rehearsed=False,
    ),
    Step("doctor", 300, "every kernel of the card against float64, by the doctor", run_doctor, least_s=30),
    Step("pytest", 600, "the tests marked gpu", run_pytest, least_s=60),
    Step(
        "make_checkpoint", 300, "write a checkpoint of mamba-1.4b's sizes (--checkpoint, --tokenizer)",
        check("--checkpoint", "--tokenizer"), least_s=30,
    ),
    Step(
        "engine_vs_lm_eval", 900, "mambabench against lm_eval --model mamba_ssm on four tasks (--data)",
        check("--data", "--checkpoint", "--tokenizer", "--documents"), ("install_built", "make_checkpoint"),
        least_s=90,
    ),
    Step(
        "mmlu_vs_lm_eval", 600, "the same on MMLU with five worked examples (--data)",
        check("--data", "--checkpoint", "--tokenizer", "--documents"), ("install_built", "make_checkpoint"),
        least_s=90,
    ),
    Step(
        "decode_vs_official", 600, "every arm against mamba_ssm's generate, mamba-1.4b and 2.8b", check(),
        ("install_built",), least_s=90,
    ),
    *SWEEPS[:2],
    Step(
        "scan_crossover", 180, "from which length on the official scan is faster",
        script("scan_crossover.py"), ("install_built",), rehearsed=False,
    ),
    *SWEEPS[2:],
    Step("parity", 900, "mambabench zeroshot: CUDA against CPU, every sample of the smoke suite", check()),
    Step("parity_data", 900, "the same on real tasks (--data)", check("--data")),
)  # fmt: skip
"""In the order in which they are done."""

LOAN_S = 570
"""A lent machine ends a command after ten minutes."""
READY_S = 60
"""What the steps that make a bare machine ready take together as a rule; where they take longer, up to their
limits, the deadline cuts what comes last."""
_READY = {"environment": 60, "install": 60, "install_built": 20, "versions": 10}

GROUPS: dict[str, dict[str, int]] = {
    "build": {
        **_READY, "build": 510,
    },
    "check": {
        **_READY, "kernels": 30, "official": 60, "doctor": 130, "pytest": 210, "scan_crossover": 80,
    },
    "headline": {
        **_READY, "make_checkpoint": 50, "engine_vs_lm_eval": 250, "mmlu_vs_lm_eval": 210,
    },
    "decode": {
        **_READY, "decode_vs_official": 330, "figure8_left": 180,
    },
    "sweeps": {
        **_READY, "article_24gb": 250, "figure8_right": 260,
    },
    "lengths": {
        **_READY, "memory_by_length": 280, "latency": 230,
    },
    "more": {
        **_READY, "parity": 110, "parity_data": 130, "power": 100, "conversation": 80, "longcontext": 90,
    },
}  # fmt: skip
"""Steps that fit one command on a lent machine, each with its limit in seconds there."""


def group_s(name: str) -> int:
    """Return what a group takes if its own steps need all of their limits."""
    return READY_S + sum(limit_s for step, limit_s in GROUPS[name].items() if step not in _READY)
