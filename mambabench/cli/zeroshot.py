"""`mambabench zeroshot`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mambabench.cli.engines import engine_lines
from mambabench.cli.options import not_empty, positive_int, print_json, some_path
from mambabench.cli.run_options import (
    AS_JSON,
    DATA_DIR,
    DEVICE,
    DTYPE,
    ENGINE,
    MEMORY_BUDGET,
    MODELS,
    OUT,
    TOKENIZER,
    VERIFY,
    WEIGHTS,
)

if TYPE_CHECKING:
    from mambabench.suite import Suite
    from mambabench.zeroshot import ZeroshotOptions, ZeroshotOutcome

_DEFAULT_SUITE = "mamba-paper"


@click.command(
    name="zeroshot",
    short_help="Evaluate models on a suite of tasks.",
    epilog="""\b
Examples:
  mambabench zeroshot --model mamba-tiny --suite smoke
  mambabench zeroshot --model mamba-130m
  mambabench zeroshot --model mamba-1.4b --model pythia-1.4b --suite mamba-paper
  mambabench zeroshot --model ./my-checkpoint --task hellaswag --task piqa --limit 200
  mambabench zeroshot --model hf:state-spaces/mamba-130m-hf@main --device cuda --dtype bfloat16
  mambabench zeroshot --model mamba-130m --data-dir ~/eval-data --json > result.json
""",
)
@MODELS
@click.option(
    "--suite", callback=not_empty, metavar="NAME|FILE.yaml", help=f"Suite to run. [default: {_DEFAULT_SUITE}]"
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    help="Run this task instead of a suite; may be repeated.",
)
@click.option(
    "--num-fewshot", type=click.IntRange(min=0), help="Worked examples in each prompt, with --task."
)
@click.option(
    "--limit",
    callback=positive_int,
    metavar="N",
    help="Score only the first N documents of each task; the result is marked partial.",
)
@DATA_DIR
@OUT
@WEIGHTS
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of random weights and of sampling."
)
@DTYPE
@DEVICE
@click.option(
    "--batch-size",
    callback=positive_int,
    metavar="N",
    help="Most sequences in a forward. [default: by length]",
)
@ENGINE
@MEMORY_BUDGET
@VERIFY
@click.option(
    "--max-length",
    callback=positive_int,
    metavar="TOKENS",
    help="Longest window scored at once. [default: the model's]",
)
@TOKENIZER
@click.option(
    "--apply-chat-template", is_flag=True, help="Dress prompts up with the tokenizer's chat template."
)
@click.option("--system-instruction", metavar="TEXT", help="System message of every prompt.")
@click.option("--fewshot-as-multiturn", is_flag=True, help="Give worked examples as turns of a conversation.")
@click.option(
    "--export",
    "exports",
    multiple=True,
    type=click.Choice(["lm-eval"]),
    help="Write lm-eval's own results and samples files into the run.",
)
@click.option(
    "--plot",
    callback=some_path,
    metavar="FILE.svg|png|pdf",
    help="Draw the accuracies with their intervals.",
)
@AS_JSON
def command(**given: Any) -> int:
    """Evaluate models on a suite of zero-shot tasks.

    The table holds each metric with its 95% interval, and the published figure where the suite names
    a source. Running the same command again finishes what is missing and repeats nothing.
    """
    from mambabench.execute import run_zeroshot
    from mambabench.plots import check_figure_path, save
    from mambabench.plots.profile import zeroshot_profile

    as_json: bool = given.pop("as_json")
    plot: Path | None = given.pop("plot")
    if plot is not None:
        check_figure_path(plot)
    outcome = run_zeroshot(_options(given))
    if plot is not None:
        save(zeroshot_profile(outcome.table), plot)
    _render(outcome, as_json=as_json)
    outcome.raise_for_failures()
    return 0


def _options(given: dict[str, Any]) -> ZeroshotOptions:
    from mambabench.suite import load_suite
    from mambabench.zeroshot import ZeroshotOptions

    suite = asked_suite(given.pop("suite"), given.pop("tasks"), given.pop("num_fewshot"))
    return ZeroshotOptions(
        suite=suite or load_suite(_DEFAULT_SUITE), command=("mambabench", *sys.argv[1:]), **given
    )


def asked_suite(name: str | None, tasks: tuple[str, ...], num_fewshot: int | None) -> Suite | None:
    """Return the suite that options name; None where they name none.

    Raises:
        UsageError: options that do not go together, or name what does not exist.
    """
    from mambabench.errors import UsageError
    from mambabench.suite import load_suite, suite_from_tasks

    if name is not None and tasks:
        raise UsageError("--suite and --task exclude each other", hint="Leave one of them out.")
    if num_fewshot is not None and not tasks:
        raise UsageError(
            "--num-fewshot goes with --task", hint="A suite says for each task how many examples it takes."
        )
    if tasks:
        return suite_from_tasks(list(dict.fromkeys(tasks)), num_fewshot=num_fewshot)
    return None if name is None else load_suite(name)


def _render(outcome: ZeroshotOutcome, *, as_json: bool) -> None:
    from mambabench.references import sources
    from mambabench.tables.terminal import footnotes, render

    if as_json:
        print_json(
            {
                "schema_version": 1,
                "run": str(outcome.path),
                "table": outcome.table.as_json(),
                "cells": [cell.model_dump(mode="json") for cell in outcome.cells],
                "warnings": list(outcome.warnings),
                "checkpoints": {
                    name: record.model_dump(mode="json") for name, record in outcome.checkpoints.items()
                },
            }
        )
        return
    render(outcome.table)
    used = dict.fromkeys(row.source for row in outcome.table.rows if row.source)
    citations = [f"{key}: {sources()[key].citation}" for key in used]
    for line in (*footnotes(outcome.table, citations), *engine_lines(outcome.checkpoints), *outcome.warnings):
        click.echo(line)
    again = "" if outcome.n_computed else " (complete before; nothing was computed)"
    click.echo(f"run: {outcome.path}{again}")
