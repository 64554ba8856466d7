"""`mambabench latency`."""

from __future__ import annotations

from typing import Any

import click

from mambabench.cli.speed_options import run_command, sweep_options


@click.command(
    name="latency",
    short_help="Measure time to the first token and between tokens, by length.",
    epilog="""\b
Examples:
  mambabench latency --prompt-len 10000
  mambabench latency --model mamba-130m --model pythia-160m --prompt-len 128:4096*2 --gen-len 64
  mambabench latency --model mamba-1.4b --arm eager --arm graph --arm shipped --device cuda --processes 6
  mambabench latency --suite smoke-speed --plot figures
  mambabench latency --suite long-context --dry-run
""",
)
@sweep_options
def command(**given: Any) -> int:
    """Measure time to the first token and between tokens.

    Every point is measured in fresh processes whose order interleaves what is compared. The table holds
    medians with their range, or from 6 processes on their 95% interval, beside what the machine allows;
    sentences under it say what follows. Running the same command again finishes what is missing.
    """
    return run_command("latency", given)
