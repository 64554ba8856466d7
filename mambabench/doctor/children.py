"""What could crash or hang is asked in a process of its own; its end is then an answer like any other.

answer = ask({"do": "import", "modules": ["torch"]}, time_limit_s=60)
answer.outcome, answer.events
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mambabench.errors import MambabenchError

CHILD = (sys.executable, "-m", "mambabench.doctor.child")
"""The command that answers."""

Outcome = Literal["ok", "failed", "crashed", "timeout"]
Told = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Answer:
    """What a process said, and how it ended."""

    events: tuple[dict[str, Any], ...]
    """In the order in which they came; each names its "event"."""
    outcome: Outcome
    """"ok" only if the process said that it was done."""
    detail: str = ""
    """How it ended, in one line; empty for "ok"."""
    wall_s: float = 0.0

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return the events of a name."""
        return [one for one in self.events if one.get("event") == event]

    def first(self, event: str) -> dict[str, Any]:
        """Return the first event of a name, or an empty dictionary."""
        return next(iter(self.named(event)), {})


def ask(
    job: Mapping[str, Any],
    *,
    time_limit_s: float,
    on_event: Told = lambda event: None,
    argv: Sequence[str] | None = None,
) -> Answer:
    """Start a process, wait for it, and return what it said.

    Args:
        job: what to do, by its key "do"; see `mambabench.doctor.child`.
        time_limit_s: the process is ended after it.
        on_event: told of each event as it comes.
        argv: the command, `CHILD` where it is not given.
    """
    from mambabench.bench.failures import classify_exit
    from mambabench.launch.process import run_child

    events: list[dict[str, Any]] = []

    def take(event: dict[str, Any]) -> None:
        events.append(event)
        on_event(event)

    try:
        ended = run_child(list(argv or CHILD), job, on_event=take, time_limit_s=time_limit_s)
    except MambabenchError as error:
        return Answer((), "failed", error.message)
    if any(event.get("event") == "done" for event in events) and not ended.timed_out:
        # What falls over only while Python takes itself down has answered before.
        return Answer(tuple(events), "ok", wall_s=ended.wall_s)
    outcome: Outcome = "timeout" if ended.timed_out else "crashed" if ended.returncode < 0 else "failed"
    return Answer(tuple(events), outcome, classify_exit(ended).detail, ended.wall_s)
