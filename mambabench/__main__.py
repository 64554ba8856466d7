"""`python -m mambabench` is the same as `mambabench`."""

from __future__ import annotations

from mambabench.cli import main

main()
