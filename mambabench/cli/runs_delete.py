"""`mambabench runs delete`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mambabench.cli.run_options import OUT
from mambabench.cli.runs_list import shown
from mambabench.errors import UsageError

if TYPE_CHECKING:
    from mambabench.store.manage import Deletion

_MOST_NAMED = 3


@click.command(
    name="delete",
    short_help="Delete runs, after a question.",
    epilog="""\b
Examples:
  mambabench runs delete latency-mamba-tiny-d4b89054
  mambabench runs delete results/latency-* --yes
""",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@OUT
def command(runs: Sequence[str], yes: bool, out: Path) -> None:
    """Delete each RUN with all that is in it, after showing what goes and asking once.

    Nothing is deleted unless all of them are runs that nobody is writing. A link to a run goes by itself,
    and what it leads to stays.
    """
    from mambabench.store.manage import checked_runs, delete_run, plan_deletion, remove_leftovers
    from mambabench.units import size

    paths = checked_runs(runs, out)
    for folder in dict.fromkeys(path.parent for path in paths):
        for left in remove_leftovers(folder):
            click.echo(shown(f"removed {left}, left by a deletion that was interrupted"), err=True)
    plans = [plan_deletion(path) for path in paths]
    for plan in plans:
        click.echo(shown(_what(plan)), err=not yes)
    total_bytes = sum(plan.size_bytes for plan in plans if plan.link_to is None)
    what = f"{len(plans)} runs" if len(plans) > 1 else "this run"
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                f"nothing was deleted: without a terminal nobody can be asked about {what}",
                hint="`--yes` deletes without asking.",
            )
        if not click.confirm(f"Delete {what}, {size(total_bytes)}?", err=True):
            click.echo("nothing was deleted")
            return
    for path in paths:
        delete_run(path)
    click.echo(f"deleted {what if len(plans) > 1 else '1 run'}, {size(total_bytes)}")


def _what(plan: Deletion) -> str:
    """Say what goes with a run."""
    from mambabench.units import size

    if plan.link_to is not None:
        return f"{plan.path}: a link to {plan.link_to}, which stays"
    results = f"{plan.n_results:,} {'result' if plan.n_results == 1 else 'results'}"
    text = f"{plan.path}: {plan.state}, {results}, {size(plan.size_bytes)} in {plan.n_files:,} files"
    if plan.answers_bytes:
        text += f", {size(plan.answers_bytes)} of it answers"
    if plan.unknown:
        names = ", ".join(plan.unknown[:_MOST_NAMED])
        more = f" and {len(plan.unknown) - _MOST_NAMED:,} more" if len(plan.unknown) > _MOST_NAMED else ""
        text += f"; among them files that are none of ours: {names}{more}"
    return text
