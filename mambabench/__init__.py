"""How good a Mamba checkpoint is, what it costs to run, and whether it is really better than another.

Results of stored runs are had as pandas frames:

    import mambabench

    runs = mambabench.load_runs("results")
    runs.frame("scores")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mambabench.frames.api import load_runs

__version__ = "0.1.0"
__all__ = ["__version__", "load_runs"]


def __getattr__(name: str) -> Any:
    """Import `load_runs` when it is asked for: the package itself is imported at once."""
    if name != "load_runs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mambabench.frames.api import load_runs

    return load_runs
