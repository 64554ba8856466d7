"""How good a Mamba checkpoint is, what it costs to run, and whether it is really better than another."""

from __future__ import annotations

__version__ = "0.1.0"
