"""Options of the GPU script's driver, for tests of its steps."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def options(tmp_path: Path, **changes: Any) -> argparse.Namespace:
    """Return what the command line would give; `changes` replace some of it."""
    wheels = tmp_path / "wheels"
    wheels.mkdir(exist_ok=True)
    fields = {
        "wheels": wheels, "out": tmp_path / "out", "data": None, "tokenizer": None, "checkpoint": None,
        "documents": None, "capability": None, "limit": 5, "rehearse": False,
    }  # fmt: skip
    return argparse.Namespace(**{**fields, **changes})
