"""`mambabench runs`: a lazy group of its own, as each of its commands needs other modules."""

from __future__ import annotations

import click

from mambabench.cli import LazyGroup


class _RunsGroup(LazyGroup):
    table = {  # noqa: RUF012
        "list": ("mambabench.cli.runs_list", "List runs with their state, date and size."),
        "show": ("mambabench.cli.runs_show", "Show what a run is, holds and lacks."),
        "rename": ("mambabench.cli.runs_rename", "Give a run another name."),
        "delete": ("mambabench.cli.runs_delete", "Delete runs, after a question."),
        "verify": ("mambabench.cli.runs_verify", "Check that runs say what their files hold; seal them."),
        "du": ("mambabench.cli.runs_du", "Tell what runs take on the disk."),
    }


@click.group(
    name="runs",
    cls=_RunsGroup,
    short_help="List, show, rename, delete and verify stored runs.",
    epilog="""\b
Examples:
  mambabench runs list
  mambabench runs list --kind zeroshot --model mamba --state interrupted
  mambabench runs show zeroshot-smoke-mamba-tiny-75c8b06c
  mambabench runs verify --seal
  mambabench runs delete results/latency-*
""",
)
def command() -> None:
    """Look after the runs that commands keep under results/.

    RUN is a run's directory or its name there, or the beginning of its name or identity where no other run
    begins so. PLACE is a directory of runs.
    """
