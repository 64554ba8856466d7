"""Processes that are asked by lines of JSON, and whose memory is watched from outside.

What is measured runs in a process of its own: with the environment that its own command line would have, and
with nothing of the measuring in its memory. The parent sleeps between its looks, so that it costs no core.

    with Child([sys.executable, "child.py"], environment) as child:
        child.ask(do="load")
        child.memory.start()
        answer = child.ask(do="work")
    child.memory.above_bytes
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import psutil

SAMPLES_PER_S = 50
_LOG_LINES = 30
_GRACE_S = 10.0


class ChildError(RuntimeError):
    """A child died, or said that it failed."""


class Memory:
    """Watches the resident memory of a process from outside.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.baseline_bytes = 0
        """Resident memory when `start` was called."""
        self.peak_bytes = 0
        """Largest resident memory since."""

    @property
    def above_bytes(self) -> int:
        """Peak above the baseline."""
        return self.peak_bytes - self.baseline_bytes

    def start(self) -> None:
        """Take the baseline, and begin to watch."""
        self.baseline_bytes = self.peak_bytes = self.now_bytes()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def now_bytes(self) -> int:
        """Return the resident memory of this moment; 0 when the process has ended."""
        try:
            return int(self._process.memory_info().rss)
        except psutil.Error:
            return 0

    def _watch(self) -> None:
        while not self._stop.wait(1 / SAMPLES_PER_S):
            self.peak_bytes = max(self.peak_bytes, self.now_bytes())


class Child:
    """A process that answers a line of JSON with a line of JSON; see `serve`.

    Args:
        command: program and arguments.
        environment: all of its variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environment),
        )
        self.memory = Memory(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            ChildError: with the end of what the child wrote to stderr.
        """
        self.send(**request)
        return self.hear()

    def send(self, **request: Any) -> None:
        """Send a request; the answer is fetched by `hear`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failed("the child has ended") from error

    def hear(self) -> dict[str, Any]:
        """Wait for the next line of the child.

        Raises:
            ChildError: as `ask` does.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failed(f"the child has ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._failed(answer["error"])
        return answer

    def close(self) -> None:
        """Let the child end, and make sure that it does."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.memory.stop()
        self._log.close()

    def _failed(self, what: str) -> ChildError:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
        return ChildError("\n".join([what, *lines]))


def serve(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests on stdin until it is closed; whatever else prints to stdout lands on stderr.

    Args:
        handle: from request to answer; an exception becomes the answer {"error": ...}.
    """
    import traceback

    with private_stdout() as out:
        for line in sys.stdin:
            try:
                answer = handle(json.loads(line))
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(answer) + "\n")
            out.flush()


@contextmanager
def private_stdout() -> Iterator[IO[str]]:
    """Yield the process's stdout, which for everybody else becomes stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield out


def our_environment() -> dict[str, str]:
    """Return the variables under which `mambabench` runs: what its command line sets for itself."""
    return {**_common(), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "true"}


def their_environment() -> dict[str, str]:
    """Return the variables under which `lm_eval` runs: none of ours."""
    return {name: value for name, value in _common().items() if name != "OMP_WAIT_POLICY"}


def _common() -> dict[str, str]:
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")))
        ),
    }
