"""What a step of `drive.py` is, and how its processes are run. Standard library only."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PLACES = "places.json"
"""Where a run notes the paths that it was given, so that `publish.py` can replace them."""
CUDA_FOLDERS = (Path("/usr/local/cuda"),)
"""Where a toolkit may lie that `nvcc` on the PATH does not lead to."""
_PR_SET_PDEATHSIG = 1
_TOKENIZER = Path("tokenizers") / "gpt-neox-20b"


class StepError(Exception):
    """A step cannot be done, for a reason worth a sentence."""


class Skipped(Exception):
    """A step has nothing to do here, for a reason worth a sentence."""


@dataclass(frozen=True)
class Step:
    """One step of the plan."""

    name: str
    limit_s: int
    what: str
    act: Callable[[Run, Step], dict[str, Any]]
    needs: tuple[str, ...] = ()
    least_s: int = 10
    """It is not begun with less time than this before the deadline."""
    again: bool = False
    """Done again by `--continue`, since a machine that was given back has lost what it leaves."""
    rehearsed: bool = True
    """False where nothing of it runs without the card; `--rehearse` leaves it out."""


class Run:
    """Where things are, and how a step's processes are run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out.resolve()
        self.wheels: Path = options.wheels.resolve() if options.wheels else self.out / "wheels"
        self.data: Path | None = options.data.resolve() if options.data else None
        self.tokenizer: Path | None = options.tokenizer.resolve() if options.tokenizer else None
        if self.tokenizer is None and self.data is not None and (self.data / _TOKENIZER).is_dir():
            self.tokenizer = self.data / _TOKENIZER
        self.checkpoint: Path | None = options.checkpoint.resolve() if options.checkpoint else None
        self.rehearse: bool = options.rehearse
        # By this name dill, by which data sets are hashed, tells packages from a user's modules.
        self.site = self.out / "site-packages"
        self.built = self.out / "wheels"
        self.capability: str | None = options.capability
        self.limit: int = options.limit
        self.documents: int | None = options.documents
        self.figures: dict[str, Any] = {}
        """What the last check found, also when it then failed."""
        self.step_ends_at_s: float | None = None
        """On the monotonic clock; null where the step's own limit is all that there is."""

    @property
    def device(self) -> str:
        """Where the measurements run."""
        return "cpu" if self.rehearse else "cuda"

    def note_places(self) -> None:
        """Write down the paths that were given, by name, beside those of earlier calls."""
        path = self.out / PLACES
        noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        given = {
            "OUT": self.out, "WHEELS": self.wheels, "DATA": self.data, "TOKENIZER": self.tokenizer,
            "CHECKPOINT": self.checkpoint, "REPOSITORY": REPOSITORY, "PYTHON": Path(sys.prefix),
        }  # fmt: skip
        noted |= {str(place): name for name, place in given.items() if place is not None}
        path.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a step: the installed wheels and this checkout come first."""
        path = [str(REPOSITORY), str(self.site), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
        offline = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "PYTHONUNBUFFERED": "1"}
        toolkit = cuda_home(os.environ)
        if toolkit is not None:
            offline["CUDA_HOME"] = str(toolkit)
        return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(filter(None, path)), **more}

    def left_s(self, step: Step) -> float:
        """Return how long a process of the step may still take."""
        if self.step_ends_at_s is None:
            return step.limit_s
        return max(0.0, min(step.limit_s, self.step_ends_at_s - time.monotonic()))

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
                preexec_fn=_end_with_parent,
            )
            try:
                code = process.wait(self.left_s(step))
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

    def check(self, step: Step, *arguments: str, script: str = "checks.py") -> dict[str, Any]:
        """Run a check of `checks.py`, or another script that writes its figures likewise; return these."""
        found = self.out / f"{step.name}.found.json"
        found.unlink(missing_ok=True)
        name = [step.name] if script == "checks.py" else []
        command = [sys.executable, str(HERE / script), *name, "--found", str(found), *arguments]
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


def _end_with_parent() -> None:
    """Let Linux end this process when the script ends, however that happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def cuda_home(environment: Mapping[str, str]) -> Path | None:
    """Return the CUDA toolkit that kernels are built with; null where none is complete.

    torch takes the folder above that of `nvcc` on the PATH. Where this is a script that calls the real one,
    no headers are there, and a build fails for want of them, after minutes of compiling.

    Args:
        environment: "CUDA_HOME" and "CUDA_PATH" go before what is found.
    """
    named = [Path(environment[name]) for name in ("CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    nvcc = shutil.which("nvcc", path=environment.get("PATH"))
    on_path = [Path(nvcc).parent.parent, Path(nvcc).resolve().parent.parent] if nvcc else []
    for folder in (*named, *on_path, *CUDA_FOLDERS):
        if (folder / "bin" / "nvcc").is_file() and (folder / "include" / "cuda_runtime_api.h").is_file():
            return folder
    return None
