"""`mambabench suites`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mambabench.cli.options import print_json

if TYPE_CHECKING:
    from mambabench.suite import Suite


@click.command(
    name="suites",
    short_help="List the suites, or show one.",
    epilog="""\b
Examples:
  mambabench suites
  mambabench suites mamba-paper
  mambabench suites ./my-suite.yaml
  mambabench suites --json
""",
)
@click.argument("name", required=False, metavar="[NAME|FILE.yaml]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(name: str | None, as_json: bool) -> None:
    """List the suites that --suite can name, or show the tasks and metrics of one.

    A file is checked as a run would check it: every mistake in it is reported.
    """
    from mambabench.suite import list_suites, load_suite

    suites = list_suites() if name is None else [load_suite(name)]
    if as_json:
        print_json([_plain(suite) for suite in suites])
    elif name is None:
        for suite in suites:
            click.echo(f"{suite.name:14} {suite.title}")
    else:
        _show(suites[0])


def _show(suite: Suite) -> None:
    click.echo(f"{suite.name}: {suite.title}")
    if suite.description:
        click.echo(suite.description.strip())
    click.echo()
    for task in suite.tasks:
        shots = "" if task.num_fewshot is None else f"  {task.num_fewshot}-shot"
        click.echo(f"  {task.task:24} {', '.join(task.metrics)}{shots}")


def _plain(suite: Suite) -> dict[str, Any]:
    return suite.model_dump(mode="json")
