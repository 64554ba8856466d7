"""The store as tidy pandas frames: whatever a table, a figure or a report shows is found here.

import mambabench

runs = mambabench.load_runs("results")
runs.frame("scores")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mambabench.frames.api import Runs, load_runs

__all__ = ["Runs", "load_runs"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mambabench.frames import api

    return getattr(api, name)
