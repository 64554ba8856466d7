"""`mambabench runs show`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mambabench.cli.options import print_json
from mambabench.cli.run_options import AS_JSON, OUT


@click.command(
    name="show",
    short_help="Show what a run is, holds and lacks.",
    epilog="""\b
Examples:
  mambabench runs show zeroshot-smoke-mamba-tiny-75c8b06c
  mambabench runs show elsewhere/results/latency-mamba-130m-0b1c2d3e --json
""",
)
@click.argument("run")
@OUT
@AS_JSON
def command(run: str, out: Path, as_json: bool) -> None:
    """Show a run: what was asked for and by which commands, on which machine, with which checkpoints; what is
    there, what failed and why, what is missing, its files, and the command that goes on with it."""
    from mambabench.store.manage import find_run
    from mambabench.tables.compare.plain import plain
    from mambabench.tables.run_details import details_of, render_details

    details = details_of(find_run(run, out))
    if as_json:
        print_json(plain(details))
    else:
        render_details(details, sys.stdout)
