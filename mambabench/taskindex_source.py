"""What the task index is made from, and the layout of its file: shared by its reader and its builder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

FORMAT = 1
"""Raised when the layout of the index file changes; an index of another format is rebuilt."""


def installed_lm_eval() -> tuple[str, Path | None]:
    """Return the installed lm-eval's version and its folder of tasks, ("", None) if there is none."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        return "", None
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        return "", None
    return version, Path(next(iter(spec.submodule_search_locations))) / "tasks"
