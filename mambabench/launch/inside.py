"""The child's side of `mambabench.launch.process`: it ends with its parent, reads its job and sends events.

if __name__ == "__main__":
    channel = begin()
    channel.send({"event": "record", "n": channel.job["n"] + 1})
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PARENT_VARIABLE = "MAMBABENCH_PARENT_PID"
"""Environment variable with the id of the process that waits for the child."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Channel:
    """What a child was asked, and where its answers go."""

    job: dict[str, Any]
    """As given to `run_child`."""
    fd: int
    """The parent reads it."""

    def send(self, event: Mapping[str, Any]) -> None:
        """Write one event, now, as one line of JSON."""
        line = memoryview(json.dumps(event).encode() + b"\n")
        while line:
            line = line[os.write(self.fd, line) :]


def begin() -> Channel:
    """Tie this process to its parent, read the job, and keep standard output for events.

    What is printed from here on, by whatever library, goes to standard error.
    """
    die_with_parent()
    job = json.loads(sys.stdin.buffer.readline())
    sys.stdout.flush()
    events = os.dup(1)
    os.dup2(2, 1)
    return Channel(job, events)


def die_with_parent() -> None:
    """Let Linux kill this process when the one that started it ends; elsewhere nothing happens.

    A process that was not started by `run_child` is left alone.
    """
    # Taken out, because a process that this one starts has another parent.
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent.isdigit() or not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have ended before the kernel was told.
    try:
        os.kill(int(parent), 0)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
