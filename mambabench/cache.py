"""The directory of what can be computed again: `MAMBABENCH_CACHE`, or the user's cache directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the directory, which need not exist; a leading `~` is the user's home."""
    if chosen := os.environ.get("MAMBABENCH_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mambabench"))
