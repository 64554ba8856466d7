"""`mambabench runs rename`."""

from __future__ import annotations

from pathlib import Path

import click

from mambabench.cli.run_options import OUT
from mambabench.cli.runs_list import shown


@click.command(
    name="rename",
    short_help="Give a run another name.",
    epilog="""\b
Examples:
  mambabench runs rename zeroshot-mamba-paper-mamba-130m-5a6b7c8d baseline
""",
)
@click.argument("run")
@click.argument("new")
@OUT
def command(run: str, new: str, out: Path) -> None:
    """Rename the directory of RUN to NEW, in the same place.

    The command that made the run goes on finding it. Commands that name it by its path, such as compare and
    report, take the new name from then on.
    """
    from mambabench.store.manage import find_run, rename_run, same_runs

    path = find_run(run, out)
    target = rename_run(path, new)
    click.echo(
        shown(
            f"{path} is {target} now. The command that made it finds it there; "
            f"to compare and report it is {target.name} from now on."
        )
    )
    if copies := same_runs(target):
        more = f" and {len(copies) - 1} more hold" if len(copies) > 1 else " holds"
        click.echo(shown(f"{copies[0]}{more} the same run: its command goes on with one of them."))
