"""The measuring process as a sweep starts it."""

from __future__ import annotations

import sys
from typing import Any

from mambabench.bench.jobs import Job
from mambabench.launch.process import run_child


def events_of(job: Job, *, time_limit_s: float = 120.0) -> list[dict[str, Any]]:
    """Do a job in a process of its own and return all that it wrote."""
    events: list[dict[str, Any]] = []
    ended = run_child(
        [sys.executable, "-m", "mambabench.bench.child"],
        job.model_dump(mode="json"),
        on_event=events.append,
        time_limit_s=time_limit_s,
    )
    assert ended.returncode == 0, ended.stderr_tail
    return events
