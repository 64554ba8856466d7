"""What a step of `drive.py` is, and how its processes are run. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


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
