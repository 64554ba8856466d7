"""`mambabench throughput`."""

from __future__ import annotations

from typing import Any

import click

from mambabench.cli.speed_options import run_command, sweep_options


@click.command(
    name="throughput",
    short_help="Measure tokens a second, by batch.",
    epilog="""\b
Examples:
  mambabench throughput
  mambabench throughput --model mamba-130m --model pythia-160m --batch-size 1:16*2 --prompt-len 128
  mambabench throughput --suite figure8-right --device cuda --dry-run
""",
)
@sweep_options
def command(**given: Any) -> int:
    """Measure tokens a second of batches of sequences.

    Every point is measured in fresh processes whose order interleaves what is compared. The table holds
    medians with their range, or from 6 processes on their 95% interval, beside what the machine allows;
    sentences under it say what follows. Running the same command again finishes what is missing.
    """
    return run_command("throughput", given)
