"""Runs one child process that measures, and watches it without disturbing it.

The parent sleeps until the child writes, ends, or is due for a look at its memory. It has no threads.

from mambabench.launch.process import run_child

program = "from mambabench.launch.inside import begin; c = begin(); c.send({'twice': 2 * c.job['n']})"
run_child([sys.executable, "-c", program], {"n": 21}, on_event=print, time_limit_s=10)
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from mambabench.errors import MambabenchError
from mambabench.launch.inside import PARENT_VARIABLE
from mambabench.launch.resident import Resident

CHILD_DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Variables of a child unless they are set: threads of OpenMP that wait by spinning take the cores from what
other libraries run."""
_GRACE_S = 2.0
_TAIL_LINES = 30
_LONGEST_LINE = 2000
_CHUNK_BYTES = 1 << 20
_BLIND_WAIT_S = 0.05
_FIRST_LOOK_S = 0.002


@dataclass(frozen=True)
class ChildExit:
    """How a child ended."""

    returncode: int
    """Negative for the number of the signal that ended it."""
    timed_out: bool
    """Whether it was ended for its time limit."""
    over_budget: bool
    """Whether it was ended for its memory budget."""
    wall_s: float
    """From its start to its end."""
    peak_rss_bytes: int
    """Largest resident memory that was seen, of the process and its children together."""
    stderr_tail: str
    """Its last 30 lines, with whatever it wrote to standard output that was no event."""
    baseline_bytes: int | None = None
    """As it reported itself, or None."""


def run_child(
    argv: Sequence[str],
    job: Mapping[str, Any],
    *,
    on_event: Callable[[dict[str, Any]], None],
    time_limit_s: float,
    rss_budget_bytes: int | None = None,
    environment: Mapping[str, str] | None = None,
    sample_every_s: float = 0.05,
) -> ChildExit:
    """Start a process, give it a job, hand on its events as they come, and wait for its end.

    The child has a process group of its own, of which nothing is left when this returns. It ends with this
    process if it calls `mambabench.launch.inside.begin`.

    Args:
        argv: the command.
        job: given to the child's standard input as one line of JSON.
        on_event: called in this thread with each JSON object that the child writes to its standard output,
            one a line. What it raises ends the child.
        time_limit_s: from the start; the child is then asked to end, and two seconds later made to.
        rss_budget_bytes: the child is killed when its resident memory is more than this above what it
            reported in {"event": "baseline", "baseline_bytes": ...}; not bounded before it has.
        environment: variables for the child beside those of this process.
        sample_every_s: between two looks at its resident memory.

    Raises:
        MambabenchError: the process cannot be started.
        KeyboardInterrupt: after the child was ended.
    """
    with tempfile.TemporaryFile() as stdin:
        # A file, because a child that does not read its job must not block us.
        stdin.write(json.dumps(job).encode() + b"\n")
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=_environment(environment),
                process_group=0,
            )
        except OSError as error:
            raise MambabenchError(f"a measuring process could not be started: {error}") from error
    with _ended_after(process), ExitStack() as stack:
        watched = _Watched(process, on_event, time_limit_s, rss_budget_bytes, sample_every_s)
        stack.callback(watched.close)
        watched.wait()
    return watched.exit()


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    defaults = {**CHILD_DEFAULTS, "PYTHONUNBUFFERED": "1"}
    return {**defaults, **os.environ, **(more or {}), PARENT_VARIABLE: str(os.getpid())}


@contextmanager
def _ended_after(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave nothing of the process behind, whatever happens, a second interrupt included."""
    with process:
        try:
            yield
        except BaseException:
            try:
                _signal_group(process, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE_S)
            finally:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            raise


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # macOS refuses to signal a group of which only a dead process is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class _Lines:
    """Puts a stream of bytes together to lines."""

    def __init__(self, take: Callable[[bytes], None], longest: int | None = None) -> None:
        self._take = take
        self._longest = longest
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take what was read."""
        self._rest += chunk
        if b"\n" in chunk:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                self._take(line)
        elif self._longest is not None and len(self._rest) > self._longest:
            # Progress bars may never end a line.
            del self._rest[: -self._longest]

    def end(self) -> None:
        """Take a last line without an end."""
        if self._rest:
            self._take(bytes(self._rest))
            self._rest.clear()


class _Watched:
    """A running child.

    Args:
        process: started, with pipes for its output.
        on_event: as of `run_child`, like the other arguments.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        on_event: Callable[[dict[str, Any]], None],
        time_limit_s: float,
        rss_budget_bytes: int | None,
        sample_every_s: float,
    ) -> None:
        self._process = process
        self._on_event = on_event
        self._budget_bytes = rss_budget_bytes
        self._sample_every_s = sample_every_s
        self._began_s = time.monotonic()
        self._ended_s = self._began_s
        self._limit_s: float | None = self._began_s + time_limit_s
        self._kill_s: float | None = None
        self._timed_out = self._over_budget = False
        self._baseline_bytes: int | None = None
        self._peak_bytes = 0
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._resident = Resident(process.pid)
        self._events = _Lines(self._event)
        self._selector = selectors.DefaultSelector()
        self._end = _open_end(process.pid)
        if self._end is not None:
            self._selector.register(self._end, selectors.EVENT_READ)
        self._streams: dict[IO[bytes], _Lines] = {}
        for stream, lines in (
            (process.stdout, self._events),
            (process.stderr, _Lines(self._text, _LONGEST_LINE)),
        ):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._streams[stream] = lines
            self._selector.register(stream, selectors.EVENT_READ)

    def wait(self) -> None:
        """Wait until the child has ended and all that it wrote is read."""
        look_s = self._began_s
        while True:
            now_s = time.monotonic()
            if now_s >= look_s:
                self._look()
                # Sooner at first, or a short life would pass unseen.
                look_s = now_s + min(self._sample_every_s, _FIRST_LOOK_S + (now_s - self._began_s) / 2)
            self._check_time(now_s)
            ready = self._select(
                min(t for t in (look_s, self._limit_s, self._kill_s) if t is not None) - now_s
            )
            for stream in [s for s in self._streams if s in ready]:
                self._read(stream)
            if self._has_ended(ready):
                break
        self._ended_s = time.monotonic()
        # Before its id is free for another: a child of the child must neither live on nor write.
        _signal_group(self._process, signal.SIGKILL)
        for stream in list(self._streams):
            while self._read(stream):
                pass
        for lines in self._streams.values():
            lines.end()

    def exit(self) -> ChildExit:
        """Return how it ended."""
        return ChildExit(
            returncode=self._process.returncode,
            timed_out=self._timed_out,
            over_budget=self._over_budget,
            wall_s=self._ended_s - self._began_s,
            peak_rss_bytes=self._peak_bytes,
            stderr_tail="\n".join(self._tail),
            baseline_bytes=self._baseline_bytes,
        )

    def close(self) -> None:
        """Close all files."""
        self._selector.close()
        self._resident.close()
        if self._end is not None:
            os.close(self._end)

    def _select(self, seconds: float) -> list[Any]:
        wait_s = max(seconds, 0.0)
        if self._end is None:
            wait_s = min(wait_s, _BLIND_WAIT_S)
        return [key.fileobj for key, _ in self._selector.select(wait_s)]

    def _has_ended(self, ready: list[Any]) -> bool:
        return self._process.poll() is not None if self._end is None else self._end in ready

    def _read(self, stream: IO[bytes]) -> bool:
        """Read what is there; return whether there may be more."""
        try:
            chunk = os.read(stream.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self._streams[stream].feed(chunk)
            return True
        if stream in self._selector.get_map():
            self._selector.unregister(stream)
        return False

    def _check_time(self, now_s: float) -> None:
        if self._limit_s is not None and now_s >= self._limit_s:
            self._limit_s = None
            self._timed_out = True
            self._kill_s = now_s + _GRACE_S
            _signal_group(self._process, signal.SIGTERM)
        if self._kill_s is not None and now_s >= self._kill_s:
            self._kill_s = None
            _signal_group(self._process, signal.SIGKILL)

    def _look(self) -> None:
        now_bytes = self._resident.bytes()
        self._peak_bytes = max(self._peak_bytes, now_bytes)
        if self._budget_bytes is None or self._baseline_bytes is None or self._timed_out:
            return
        if now_bytes - self._baseline_bytes > self._budget_bytes:
            self._over_budget = True
            self._limit_s = None
            _signal_group(self._process, signal.SIGKILL)

    def _event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self._text(line)
            return
        baseline = event.get("baseline_bytes")
        if event.get("event") == "baseline" and isinstance(baseline, int):
            self._baseline_bytes = baseline
        self._on_event(event)

    def _text(self, line: bytes) -> None:
        # Of a bar that is drawn over itself only the last drawing is a line.
        text = line.decode(errors="replace").rstrip().rpartition("\r")[2]
        if text:
            self._tail.append(text[-_LONGEST_LINE:])


def _open_end(pid: int) -> int | None:
    """Return a file descriptor that can be read when the process has ended, or None where there is none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
