"""From what a user names to the directories of runs.

paths = find_runs(["results", "elsewhere/latency-mamba-130m-1f2e3d4c"])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mambabench.errors import UsageError
from mambabench.store.overview import looks_like_run, place
from mambabench.store.run import MANIFEST

RESULTS: Final = Path("results")
_HINT: Final = "Name a run, or a directory of runs such as `results`."


def find_runs(places: Sequence[str | Path]) -> list[Path]:
    """Return the directories of runs, each once, in the order of the places.

    Args:
        places: a run's directory or its manifest, a directory of runs, which is searched one level deep, or
            the name of a run in `results`. Without any it is `results`.

    Raises:
        UsageError: a place that does not exist, cannot be read, or holds no runs.
    """
    found: dict[Path, Path] = {}
    for given in places or [RESULTS]:
        for path in _runs_at(given):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _runs_at(given: str | Path) -> Iterable[Path]:
    path = Path(given)
    if isinstance(given, str) and not given.strip():
        # A path made of it would be the working directory.
        raise UsageError("a run's name is empty", hint=_HINT)
    try:
        if path.name == MANIFEST and path.is_file():
            return [path.parent]
        if not path.exists() and len(path.parts) == 1 and looks_like_run(RESULTS / path):
            return [RESULTS / path]
        if (path / MANIFEST).is_file() or looks_like_run(path):
            return [path]
        if not path.is_dir():
            what = "is no run and no directory of runs" if path.exists() else "does not exist"
            raise UsageError(f"{given} {what}", hint=_HINT)
        runs = place(path).runs
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{given} cannot be read: {reason}", hint=_HINT) from error
    if not runs:
        raise UsageError(f"{given} holds no runs", hint=_HINT)
    return runs
