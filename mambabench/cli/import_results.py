"""`mambabench import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mambabench.cli.options import not_empty, print_json
from mambabench.cli.run_options import AS_JSON, OUT

if TYPE_CHECKING:
    from mambabench.importers.write import ImportOutcome

_MOST_NAMED = 6


@click.command(
    name="import",
    short_help="Make a run of lm-eval's results, to compare with.",
    epilog="""\b
Examples:
  mambabench import lm-eval-output/EleutherAI__pythia-160m
  mambabench import results_2025-01-31T10-00-00.json --name base
  mambabench import pythia/evals/pythia-v1/pythia-160m/zero-shot --task lambada_openai --task piqa
  mambabench compare results/import-pythia-160m-1f2e3d4c results/zeroshot-mamba-paper-mamba-130m-5a6b7c8d
""",
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--name", callback=not_empty, metavar="NAME", help="Name of the run. [default: of the models]")
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="Import this task only; may be repeated."
)
@click.option(
    "--time",
    default="",
    metavar="TIME",
    help="Take results files whose time begins so, such as 2025-01-31. [default: the latest of each task]",
)
@click.option(
    "--without-samples",
    is_flag=True,
    help="Take the values of results files alone; they are then compared by totals, not item by item.",
)
@OUT
@AS_JSON
def command(
    paths: tuple[Path, ...],
    name: str | None,
    tasks: tuple[str, ...],
    time: str,
    without_samples: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Make one run of the results that lm-eval has left under each PATH, a file or a directory.

    Read are results of lm-eval 0.4, with or without their samples, and those of versions before, as they
    were published for Pythia. Values must follow from the samples. The same import again changes nothing.
    """
    from mambabench.importers.write import ImportOptions, import_results

    options = ImportOptions(
        out=out,
        name=name,
        tasks=tasks,
        time=time,
        samples=not without_samples,
        command=("mambabench", *sys.argv[1:]),
    )
    outcome = import_results(paths, options)
    if as_json:
        print_json(_as_json(outcome))
        return
    for line in outcome.remarks:
        click.echo(line)
    models, n_tasks = outcome.manifest.models, len({cell.task.task for cell in outcome.cells})
    more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
    click.echo(
        f"{len(models)} {'model' if len(models) == 1 else 'models'}: {', '.join(models[:_MOST_NAMED])}{more}"
    )
    n_cells = len(outcome.cells)
    results = "result" if n_cells == 1 else "results"
    click.echo(
        f"{n_cells} {results} of {n_tasks} {'task' if n_tasks == 1 else 'tasks'}, "
        f"{outcome.n_with_samples} of them with samples"
        + (", partial: not all items were scored" if outcome.manifest.partial else "")
    )
    again = "" if outcome.n_written else " (imported before; nothing was changed)"
    click.echo(f"run: {outcome.path}{again}")


def _as_json(outcome: ImportOutcome) -> dict[str, object]:
    return {
        "schema_version": 1,
        "run": str(outcome.path),
        "n_written": outcome.n_written,
        "manifest": outcome.manifest.model_dump(mode="json"),
        "cells": [cell.model_dump(mode="json") for cell in outcome.cells],
        "remarks": list(outcome.remarks),
    }
