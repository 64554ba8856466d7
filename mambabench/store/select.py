"""Which runs are meant: by kind, model, suite, state and date.

>>> matches("mamba-130m", "130"), matches("mamba-130m", "pythia*")
(True, False)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mambabench.store.overview import Overview


@dataclass(frozen=True)
class Filters:
    """Which runs are listed."""

    kinds: Sequence[str] = ()
    models: Sequence[str] = ()
    """Patterns, or parts of names."""
    suites: Sequence[str] = ()
    states: Sequence[str] = ()
    since_utc: str = ""
    """ISO 8601; runs made then or later."""
    before_utc: str = ""

    def keep(self, run: Overview) -> bool:
        """Tell whether a run is listed; one whose date cannot be read is not where dates are asked for."""
        made = utc(run.created_utc)
        since, before = utc(self.since_utc), utc(self.before_utc)
        return (
            (not self.kinds or run.kind in self.kinds)
            and (not self.states or run.state in self.states)
            and (not self.models or any(matches(name, p) for name in run.models for p in self.models))
            and (not self.suites or any(matches(run.suite, pattern) for pattern in self.suites))
            and (not since or (bool(made) and made >= since))
            and (not before or (bool(made) and made < before))
        )


def matches(name: str, pattern: str) -> bool:
    """Tell whether a name holds a text, or matches it where it has one of * ? [."""
    name, pattern = name.lower(), pattern.lower()
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def utc(text: str) -> str:
    """Return a time as text that sorts; empty where it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return ""
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found.astimezone(UTC).isoformat(timespec="seconds")
