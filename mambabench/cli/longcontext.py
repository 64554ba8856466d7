"""`mambabench longcontext`."""

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
    ENGINE,
    MEMORY_BUDGET,
    MODELS,
    OUT,
    PART,
    TOKENIZER,
    VERIFY,
    WEIGHTS,
)
from mambabench.cli.speed_options import axis

if TYPE_CHECKING:
    from mambabench.errors import MambabenchError
    from mambabench.longcontext.options import LongOptions, LongOutcome

_DEFAULT_SUITE = "recall"
_ASKED = (
    "lengths_tokens",
    "tasks",
    "n_samples",
    "n_depths",
    "data",
    "part",
    "data_dir",
    "target_tokens",
    "n_blocks",
    "cost",
)


@click.command(
    name="longcontext",
    short_help="Probe what a model still knows at length L, and what that costs.",
    epilog="""\b
Examples:
  mambabench longcontext --model mamba-tiny --model pythia-tiny --suite recall --lengths 256:4096*2
  mambabench longcontext --model mamba-130m --suite perplexity --data war_and_peace.txt --plot figures
  mambabench longcontext --model mamba-130m --task needle --task mqar --lengths 1024:65536*4 --no-cost
  mambabench longcontext --model ./my-checkpoint --suite recall --data book.txt --samples 100 --json
  mambabench longcontext --model mamba-2.8b --model pythia-2.8b --suite recall --dry-run
""",
)
@MODELS
@click.option(
    "--suite", callback=not_empty, default=_DEFAULT_SUITE, show_default=True,
    metavar="recall|perplexity|FILE.yaml",
    help="What is done at each length; options that are given besides replace the suite's.",
)  # fmt: skip
@click.option(
    "--lengths", "lengths_tokens", callback=axis, metavar="AXIS",
    help="Tokens of samples, of contexts and of prompts: 256:4096*2 doubles, 1024,4096 lists. "
    "[default: the suite's]",
)  # fmt: skip
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME",
    help="Recall task instead of the suite's; may be repeated: passkey, needle, multi_key, multi_value, "
    "multi_query, variable_tracking, frequent_words, phone_book, mqar, mqar_filler, copying, "
    "selective_copying, induction_heads.",
)  # fmt: skip
@click.option(
    "--samples", "n_samples", callback=positive_int, metavar="N",
    help="Samples of each recall task and length. [default: the suite's]",
)  # fmt: skip
@click.option(
    "--depths", "n_depths", callback=positive_int, metavar="N",
    help="Parts of the haystack that needles are spread over. [default: the suite's]",
)  # fmt: skip
@click.option(
    "--data", callback=not_empty, metavar="FILE|DIR|wikitext|enwik8",
    help="Text of which the same tokens are predicted after each length of context.",
)  # fmt: skip
@PART
@DATA_DIR
@click.option(
    "--target-tokens", callback=positive_int, metavar="TOKENS",
    help="Predicted in each block of the text. [default: the suite's, else 256]",
)  # fmt: skip
@click.option(
    "--blocks", "n_blocks", callback=positive_int, metavar="N",
    help="Blocks of the text that are predicted. [default: the suite's, else 32]",
)  # fmt: skip
@click.option(
    "--cost/--no-cost", "cost", default=None,
    help="Measure time and memory at each length too, in processes of their own. [default: the suite's]",
)  # fmt: skip
@WEIGHTS
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, metavar="N",
    help="Of samples, of the places of predicted text, and of random weights.",
)  # fmt: skip
@DTYPE
@DEVICE
@ENGINE
@MEMORY_BUDGET
@TOKENIZER
@VERIFY
@OUT
@click.option(
    "--plot", "plots", callback=some_path, metavar="DIR", help="Draw all figures into DIR, as PNG and SVG."
)
@click.option(
    "--dry-run", is_flag=True, help="Print what would be computed and how many tokens that is, and stop."
)
@AS_JSON
def command(**given: Any) -> int:
    """Probe what models still know at length L, and what that costs.

    Recall tasks are generated, at exactly the lengths that are named and without any data; with --data, the
    same tokens of a text are predicted after each length of context. Cost is measured at these lengths too.
    The table holds them side by side, with 95% intervals, the chance line, and up to which length recall
    stays at 90% of its short-context value. Lengths past those a model was trained on are marked. Running
    the same command again, or one with more lengths, tasks or samples, goes on with what is missing.
    """
    as_json: bool = given.pop("as_json")
    plots: Path | None = given.pop("plots")
    dry_run: bool = given.pop("dry_run")
    options = _options(given)
    if plots is not None:
        check_directory(plots)
    if dry_run:
        from mambabench.cli.long_dry_run import show_plan

        show_plan(options, as_json=as_json)
        return 0
    from mambabench.longcontext.run import run_longcontext

    outcome = run_longcontext(options)
    drawn, undrawn = ([], None) if plots is None else _draw(outcome, plots)
    _render(outcome, drawn, as_json=as_json)
    outcome.raise_for_failures()
    if undrawn is not None:
        raise undrawn
    return 0


def _options(given: dict[str, Any]) -> LongOptions:
    from mambabench.longcontext.suite import Asked, complete, load_long_suite

    suite = load_long_suite(given.pop("suite"))
    asked = Asked(**{key: given.pop(key) for key in _ASKED})
    return complete(suite, asked, command=("mambabench", *sys.argv[1:]), **given)


def _draw(outcome: LongOutcome, directory: Path) -> tuple[list[Path], MambabenchError | None]:
    """Return the figures' files, and what kept them from being drawn: the table may have taken hours."""
    from mambabench.errors import MambabenchError, UsageError
    from mambabench.plots.longcontext import save_figures

    try:
        directory.mkdir(parents=True, exist_ok=True)
        return save_figures(outcome.table, directory), None
    except OSError as error:
        return [], UsageError(
            f"{directory} cannot be made: {error.strerror}", hint="Name another directory for `--plot`."
        )
    except MambabenchError as error:
        return [], error


def _render(outcome: LongOutcome, drawn: list[Path], *, as_json: bool) -> None:
    from mambabench.tables.longcontext.words import words

    said = words(outcome.table)
    if as_json:
        from mambabench.longcontext.options import as_json as document

        print_json({**document(outcome), "answers": said, "plots": [str(path) for path in drawn]})
        return
    from mambabench.cli.engines import engine_lines
    from mambabench.tables.longcontext.terminal import render

    render(outcome.table)
    for line in (
        *said,
        *_published(outcome),
        *outcome.notes,
        *engine_lines(outcome.checkpoints),
        *(f"plot: {path}" for path in drawn),
    ):
        click.echo(line)
    if outcome.cost is not None:
        click.echo(f"run of the cost: {outcome.cost.path}")
    again = "" if outcome.n_computed else " (complete before; nothing was computed)"
    click.echo(f"run: {outcome.path}{again}")


def _published(outcome: LongOutcome) -> list[str]:
    """Say what others measured of the same models, on other texts: to look at, not to compare digits."""
    from mambabench.references import sources

    lines = []
    for model, found in outcome.published.items():
        figures = ", ".join(f"{one.value:.{one.decimals}f} at {one.length_tokens:,}" for one in found)
        on = "; ".join(dict.fromkeys(one.note for one in found))
        lines.append(f"{model}, published perplexity on another text ({on}): {figures}")
    used = dict.fromkeys(one.source for found in outcome.published.values() for one in found)
    return [*lines, *(f"{key}: {sources()[key].citation}" for key in used)]
