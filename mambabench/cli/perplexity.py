"""`mambabench perplexity`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mambabench.cli.options import check_directory, not_empty, positive_int, print_json, some_path
from mambabench.cli.run_options import (
    AS_JSON,
    DATA_DIR,
    DEVICE,
    DTYPE,
    MEMORY_BUDGET,
    MODELS,
    OUT,
    PART,
    TOKENIZER,
    VERIFY,
    WEIGHTS,
)

if TYPE_CHECKING:
    from mambabench.longcontext.perplexity_options import PerplexityOutcome

_FIGURE_NAME = "loss_by_position.png"


@click.command(
    name="perplexity",
    short_help="Predict a text: perplexity and loss by position.",
    epilog="""\b
Examples:
  mambabench perplexity --model mamba-tiny --data war_and_peace.txt
  mambabench perplexity --model mamba-130m --model pythia-160m --data books/ --plot loss.svg
  mambabench perplexity --model mamba-130m --data wikitext --data-dir ~/eval-data
  mambabench perplexity --model mamba-130m --data enwik8 --part valid
  mambabench perplexity --model pythia-160m --data book.txt --context sliding --window 1024 --stride 256
  mambabench perplexity --model mamba-1.4b --data book.txt --max-tokens 100000 --json
""",
)
@MODELS
@click.option(
    "--data",
    required=True,
    callback=not_empty,
    metavar="FILE|DIR|wikitext|enwik8",
    help="Text to predict: a file is one document, a directory one a file, wikitext one a page.",
)
@PART
@DATA_DIR
@click.option(
    "--context",
    type=click.Choice(["auto", "full", "sliding", "disjoint"]),
    default="auto",
    show_default=True,
    help="What each token is predicted from. full: all of the document before it. sliding: the last --window "
    "tokens at most. disjoint: lm-eval's windows. auto: full where the state has a fixed size, as Mamba's, "
    "otherwise sliding.",
)
@click.option(
    "--window",
    "window_tokens",
    callback=positive_int,
    metavar="TOKENS",
    help="Longest context of sliding and disjoint. [default: the training length]",
)
@click.option(
    "--stride",
    "stride_tokens",
    callback=positive_int,
    metavar="TOKENS",
    help="Tokens that each sliding window predicts. [default: half of the window]",
)
@click.option(
    "--limit",
    callback=positive_int,
    metavar="N",
    help="Only the first N documents; the result is marked partial.",
)
@click.option(
    "--max-tokens",
    callback=positive_int,
    metavar="N",
    help="Only the beginning of each document, the same text for all models; the result is marked partial.",
)
@OUT
@WEIGHTS
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of random weights.")
@DTYPE
@DEVICE
@click.option(
    "--engine",
    type=click.Choice(["shared", "as-shipped"]),
    default="shared",
    show_default=True,
    help="shared: go on from states. as-shipped: the plain forward in windows, to compare with.",
)
@MEMORY_BUDGET
@VERIFY
@TOKENIZER
@click.option(
    "--plot",
    callback=some_path,
    metavar="DIR|FILE.svg|png|pdf",
    help=f"Draw the loss by position into a file, or into a directory as {_FIGURE_NAME}.",
)
@AS_JSON
def command(**given: Any) -> int:
    """Predict every token of a text: bits per byte, perplexities, and loss by position.

    Bits per byte compare models with different tokenizers. Intervals take documents as the items. A long
    document goes through a Mamba in constant memory. Running the same command again goes on where it was
    interrupted, inside a document too, and repeats nothing.
    """
    from mambabench.longcontext.perplexity import run_perplexity
    from mambabench.longcontext.perplexity_options import PerplexityOptions

    as_json: bool = given.pop("as_json")
    plot = _figure_path(given.pop("plot"))
    outcome = run_perplexity(PerplexityOptions(command=("mambabench", *sys.argv[1:]), **given))
    drawn = plot is not None and _draw(outcome, plot)
    _render(outcome, plot if drawn else None, as_json=as_json)
    outcome.raise_for_failures()
    return 0


def _figure_path(plot: Path | None) -> Path | None:
    """Return the figure's file, after a check that it can be written."""
    if plot is None:
        return None
    from mambabench.plots import check_figure_path

    if plot.suffix and not plot.is_dir():
        check_figure_path(plot)
        return plot
    check_directory(plot)
    return plot / _FIGURE_NAME


def _draw(outcome: PerplexityOutcome, path: Path) -> bool:
    from mambabench.plots import save
    from mambabench.plots.longcontext.perplexity import draw_loss_by_position

    figure = draw_loss_by_position(outcome.table)
    if figure is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)
    return figure is not None


def _render(outcome: PerplexityOutcome, drawn: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "schema_version": 1,
                "run": str(outcome.path),
                "table": outcome.table.as_json(),
                "records": [record.model_dump(mode="json") for record in outcome.records],
                "notes": list(outcome.notes),
                "checkpoints": {
                    name: record.model_dump(mode="json") for name, record in outcome.checkpoints.items()
                },
                "plots": [] if drawn is None else [str(drawn)],
            }
        )
        return
    from mambabench.cli.engines import engine_lines
    from mambabench.tables.longcontext.perplexity_terminal import render

    render(outcome.table)
    for line in (
        *outcome.table.words,
        *outcome.table.notes,
        *outcome.notes,
        *engine_lines(outcome.checkpoints),
    ):
        click.echo(line)
    if drawn is not None:
        click.echo(f"plot: {drawn}")
    again = "" if outcome.n_computed else " (complete before; nothing was computed)"
    click.echo(f"run: {outcome.path}{again}")
