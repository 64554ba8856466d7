"""The steps of `run.sh`, each in its own process with its own time limit; one that fails costs no other.

Standard library only: it starts on a machine that has nothing but torch. What is found is written as it
is found: in `<out>/steps.jsonl` a line when a step begins and one when it has ended, its figures in
`<out>/<step>.json`, everything it printed in `<out>/<step>.log`, runs in `<out>/runs/<step>`, and after every
step all of it in brief in `<out>/SUMMARY.md`. Wheels that were built stay in `<out>/wheels` and are used
again; copied into the folder of `--wheels`, they are used by other runs.

Exit codes: 0 all chosen steps passed or had nothing to do; 2 wrong usage; 3 a step failed, or its time was
up; 4 an input is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import one_architecture
import step_packages
import summary
from plan import GROUPS, LOAN_S, STEPS, group_s
from step_packages import NEVER_INSTALLED, PACKAGES, find, unpack
from step_running import Run, Skipped, Step, StepError
from step_sweeps import COMMANDS, command_of

__all__ = ["COMMANDS", "STEPS", "Run", "Step", "StepError", "main"]

DEADLINE = "deadline"
REHEARSAL = "rehearsal"


def perform(run: Run, step: Step, failed: set[str], left_s: float | None = None) -> dict[str, Any]:
    """Do one step and return its record, whatever happens in it.

    Args:
        run: where things are.
        step: what to do.
        failed: names of the steps that did not pass.
        left_s: until the deadline; null for none.
    """
    if left_s is not None and left_s < step.limit_s:
        step = dataclasses.replace(step, limit_s=int(max(0, left_s)))
    record: dict[str, Any] = {"step": step.name, "limit_s": step.limit_s}
    if run.rehearse:
        record["rehearsed"] = True
    began_s = time.perf_counter()
    run.figures = {}
    run.step_ends_at_s = time.monotonic() + step.limit_s
    (run.out / f"{step.name}.log").unlink(missing_ok=True)
    missing = [need for need in step.needs if need in failed]
    if missing:
        record |= {"status": "skipped", "why": f"{missing[0]} did not pass"}
    elif run.rehearse and not step.rehearsed:
        record |= {"status": "skipped", "why": REHEARSAL}
    elif left_s is not None and left_s < step.least_s:
        record |= {"status": "skipped", "why": DEADLINE}
    else:
        # What is killed outright leaves this behind.
        _append(run, {**record, "status": "begun", "wall_s": 0.0})
        summary.write(run.out)
        try:
            record |= {"status": "ok", "found": step.act(run, step)}
        except Skipped as reason:
            record |= {"status": "skipped", "why": str(reason)}
        except Exception as error:
            reason_why = str(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
            record |= {"status": "failed", "why": reason_why, "found": run.figures}
        except BaseException:
            record |= {"status": "failed", "why": "stopped from outside", "found": run.figures}
            _keep(run, record, began_s)
            raise
    _keep(run, record, began_s)
    return record


def _keep(run: Run, record: dict[str, Any], began_s: float) -> None:
    """Complete a step's record and write it down."""
    record["wall_s"] = round(time.perf_counter() - began_s, 2)
    (run.out / f"{record['step']}.json").write_text(json.dumps(record, indent=1) + "\n")
    _append(run, record)


def _append(run: Run, record: dict[str, Any]) -> None:
    with (run.out / "steps.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def stands_in_the_way(record: dict[str, Any]) -> bool:
    """Return whether steps that need this one cannot be done: it failed, or time or another was short."""
    return record["status"] == "failed" or (
        record["status"] == "skipped" and (record["why"] == DEADLINE or "did not pass" in record["why"])
    )


def passed_before(run: Run, step: Step) -> bool:
    """Return whether an earlier call has done a step, so that it need not be done again."""
    earlier = run.out / f"{step.name}.json"
    if step.again or not earlier.exists():
        return False
    record = json.loads(earlier.read_text())
    return bool(record["status"] == "ok" and bool(record.get("rehearsed")) == run.rehearse)


def dry_run(run: Run, chosen: list[Step], deadline_s: float | None) -> int:
    """Print the plan, look at the inputs, and patch copies of the setup.py files; touches no GPU."""
    run.out.mkdir(parents=True, exist_ok=True)
    problems = []
    if not run.rehearse:
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
        skipped = " (skipped: no --data)" if "--data" in step.what and run.data is None else ""
        skipped = f" (skipped: {REHEARSAL})" if run.rehearse and not step.rehearsed else skipped
        print(f"{step.name:20} at most {step.limit_s:5} s  {step.what}{skipped}")
        if step.name in COMMANDS:
            print(f"{'':20} mambabench {' '.join(command_of(step.name, rehearse=run.rehearse, out=run.out))}")
    limits_s = sum(step.limit_s for step in chosen)
    print(f"all of it {limits_s if deadline_s is None else min(limits_s, deadline_s):g} s at most")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 4 if problems else 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    names = ", ".join(step.name for step in STEPS)
    groups = "\n".join(
        f"  {name:9} {group_s(name)} s: {', '.join(limits)}" for name, limits in GROUPS.items()
    )
    made = argparse.ArgumentParser(
        prog="run.sh",
        description=__doc__.splitlines()[0],
        epilog=f"steps: {names}\n\ngroups, each for one command of at most {LOAN_S} s on a lent machine:\n"
        f"{groups}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--wheels", type=Path, help="folder of wheels and sdists")
    made.add_argument("--out", type=Path, required=True, help="folder for what is found and built")
    made.add_argument("--data", type=Path, help="folder of task data, as for `zeroshot --data-dir`")
    made.add_argument("--tokenizer", type=Path, help="GPT-NeoX's; by default the one in --data")
    made.add_argument("--checkpoint", type=Path, help="mamba-1.4b as published, instead of random weights")
    made.add_argument("--limit", type=int, default=50, help="documents per task of the parity steps")
    made.add_argument("--documents", type=int, help="documents per task of the engines; by default what fits")
    made.add_argument("--steps", help="some of the steps below, by default all")
    made.add_argument("--group", choices=list(GROUPS), help="a group of steps with its own limits")
    made.add_argument(
        "--deadline", type=float, metavar="SECONDS",
        help=f"begin no step that cannot end by then; {LOAN_S} with --group",
    )  # fmt: skip
    made.add_argument("--continue", dest="goes_on", action="store_true", help="leave out what passed before")
    made.add_argument("--capability", help="compute capability to build for, instead of the card's own")
    made.add_argument("--rehearse", action="store_true", help="everything on the CPU with tiny models")
    made.add_argument("--dry-run", action="store_true", help="print the plan and check the inputs")
    return made


def choose(options: argparse.Namespace, used: argparse.ArgumentParser) -> list[Step]:
    """Return the steps asked for, in their order, with the limits of their group."""
    if options.group and options.steps:
        used.error("--group and --steps exclude each other")
    if options.group:
        limits = GROUPS[options.group]
        return [dataclasses.replace(s, limit_s=limits[s.name]) for s in STEPS if s.name in limits]
    names = [step.name for step in STEPS]
    asked = names if options.steps is None else options.steps.split(",")
    if unknown := sorted(set(asked) - set(names)):
        used.error(f"unknown steps: {', '.join(unknown)}")
    return [step for step in STEPS if step.name in asked]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run the steps."""
    began_s = time.monotonic()
    used = parser()
    options = used.parse_args(arguments)
    chosen = choose(options, used)
    if options.wheels is None and not options.rehearse:
        used.error("--wheels is needed, but with --rehearse")
    if options.capability:
        try:
            one_architecture.parse_capability(options.capability)
        except ValueError as error:
            used.error(str(error))
    for folder in (options.wheels, options.data, options.tokenizer, options.checkpoint):
        if folder is not None and not folder.is_dir():
            print(f"error: {folder} is not a directory", file=sys.stderr)
            return 4
    run = Run(options)
    deadline_s = options.deadline or (LOAN_S if options.group else None)
    if options.dry_run:
        return dry_run(run, chosen, deadline_s)
    run.out.mkdir(parents=True, exist_ok=True)
    run.note_places()
    failed: set[str] = set()
    for step in chosen:
        if options.goes_on and passed_before(run, step):
            print(f"{step.name}: passed before", flush=True)
            continue
        print(f"{step.name} ...", flush=True)
        left_s = None if deadline_s is None else deadline_s - (time.monotonic() - began_s)
        try:
            record = perform(run, step, failed, left_s)
        finally:
            summary.write(run.out)
        if stands_in_the_way(record):
            failed.add(step.name)
        why = f"{record['why']} " if "why" in record else ""
        print(f"  {record['status']} {why}{record['wall_s']} s", flush=True)
    return 3 if failed else 0


def _stop(number: int, frame: object) -> None:
    """End by an exception, which ends the step's processes and is written down."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
