"""`mambabench memory`."""

from __future__ import annotations

from typing import Any

import click

from mambabench.cli.speed_options import run_command, sweep_options


@click.command(
    name="memory",
    short_help="Measure peak memory and state, by length.",
    epilog="""\b
Examples:
  mambabench memory
  mambabench memory --model mamba-130m --model pythia-160m --prompt-len 512:8192*2
  mambabench memory --suite article-24gb --device cuda --plot figures
  mambabench memory --model pythia-1.4b --attention eager --prompt-len 10000 --vram-budget 24GB --dry-run
""",
)
@sweep_options
def command(**given: Any) -> int:
    """Measure peak memory and the state's share of it.

    Every point is measured in fresh processes and held against what its specification says: weights, state,
    and what is transient. Points that do not fit are rows of the table. Running the same command again
    finishes what is missing.
    """
    return run_command("memory", given)
