"""Options of `mambabench compare`: what is held against what, how it is tested, and how models are evaluated.

@click.command()
@statistics_options
@evaluation_options
def command(**given): ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Final, TypeVar

import click

from mambabench.cli.options import not_empty, positive_int
from mambabench.cli.run_options import (
    DATA_DIR,
    DEVICE,
    DTYPE,
    ENGINE,
    MEMORY_BUDGET,
    OUT,
    TOKENIZER,
    VERIFY,
    WEIGHTS,
)

_F = TypeVar("_F", bound=Callable[..., Any])
_AMOUNT: Final = re.compile(r"(\d+\.?\d*|\.\d+)\s*(pt|%|nats?)?", re.IGNORECASE)
_LEAST_AMOUNT: Final = 1e-6
"""Less needs more items than a number can count."""
_LEAST_ALPHA: Final = 1e-12
"""One minus half of less is one."""
_MOST_REPLICATES: Final = 1_000_000
"""More move no digit that is shown, and take gigabytes."""
_MARGINS: Final = {"": "margin_points", "pt": "margin_points", "%": "margin_percent", "nat": "margin_nats"}
ASKED: Final = (
    "suite", "tasks", "num_fewshot", "limit", "apply_chat_template", "system_instruction",
    "fewshot_as_multiturn",
)  # fmt: skip
"""What models are asked."""
EVALUATED: Final = (
    "data_dir", "weights", "dtype", "device", "engine", "memory_budget_bytes", "verify", "batch_size",
    "max_length", "tokenizer",
)  # fmt: skip
"""How models are run, besides where runs are kept."""


def margins(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, float]:
    """Parse margins such as 1pt, 2% and 0.01nats into fields of `CompareOptions`.

    Raises:
        UsageError: for another text, 0, or one unit twice.
    """
    from mambabench.errors import UsageError

    found: dict[str, float] = {}
    for text in values:
        number, unit = _amount(text, "--margin", "1pt, 2% or 0.01nats")
        field = _MARGINS[unit]
        if field in found:
            raise UsageError(f"--margin '{text}' is given twice", hint="Give one for each unit.")
        found[field] = number
    return found


def points(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Parse a difference in percentage points.

    Raises:
        UsageError: for another text or unit, or 0.
    """
    from mambabench.errors import UsageError

    if value is None:
        return None
    number, unit = _amount(value, "--detect", "1pt")
    if unit not in ("", "pt"):
        raise UsageError(f"--detect '{value}' is not in percentage points", hint="Write 1pt.")
    return number


def replicates(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Parse a number of resamples.

    Raises:
        UsageError: for another text, or more than move any digit that is shown.
    """
    from mambabench.errors import UsageError

    number = positive_int(ctx, param, value)
    if number is None or number > _MOST_REPLICATES:
        raise UsageError(
            f"--replicates '{value:.40}' is more than {_MOST_REPLICATES:,}",
            hint="Those move no digit that is shown; 10,000 are usual.",
        )
    return number


def _amount(text: str, option: str, example: str) -> tuple[float, str]:
    from mambabench.errors import UsageError

    match = _AMOUNT.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{option} '{text}' is no amount above 0", hint=f"Write {example}.")
    if float(match[1]) < _LEAST_AMOUNT:
        raise UsageError(f"{option} '{text:.40}' is less than any test shows", hint=f"Write {example}.")
    return float(match[1]), (match[2] or "").lower().removesuffix("s")


def statistics_options(command: _F) -> _F:
    """Add what says how sides are compared."""
    return _with(
        command,
        click.option(
            "--correction", type=click.Choice(["holm", "bh", "none"]), default="holm", show_default=True,
            help="For many tests. holm: errors in all; bh: share of false findings (Benjamini-Hochberg).",
        ),
        click.option(
            "--alpha", type=click.FloatRange(_LEAST_ALPHA, 0.5), default=0.05, show_default=True,
            help="Chance of a false finding.",
        ),
        click.option(
            "--margin", "margins", multiple=True, callback=margins, metavar="1pt|1%|0.01nats",
            help="Differences within it do not matter; may be repeated, once a unit. "
            "[default: 1pt of accuracy, 1% of perplexity, 0.01nats]",
        ),
        click.option(
            "--detect", "detect_points", callback=points, metavar="1pt",
            help="Say how many items would show so large a difference. [default: the margin]",
        ),
        click.option(
            "--power", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.8,
            show_default=True, help="Chance of showing a true difference, where that is spoken of.",
        ),
        click.option(
            "--replicates", callback=replicates, default="10000", show_default=True, metavar="N",
            help="Resamples of a bootstrap.",
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of resamples."
        ),
        click.option(
            "--cluster", callback=not_empty, default="auto", show_default=True, metavar="auto|none|FIELD",
            help="Items that are not independent. auto: of one subject, of one passage; or of one FIELD of "
            "the documents.",
        ),
        click.option(
            "--rank", "ranking", is_flag=True,
            help="Rank all sides by Bradley-Terry over items; needs `pip install 'mambabench[ranking]'`.",
        ),
    )  # fmt: skip


def evaluation_options(command: _F) -> _F:
    """Add what says how models are evaluated before they are compared."""
    return _with(
        command,
        click.option(
            "--suite", callback=not_empty, metavar="NAME|FILE.yaml",
            help="Evaluate models on it. [default: that of the runs, else mamba-paper]",
        ),
        click.option(
            "--task", "tasks", multiple=True, metavar="NAME",
            help="Evaluate models on this task instead of a suite, or lay it out with --checkpoints; "
            "may be repeated.",
        ),
        click.option(
            "--num-fewshot", type=click.IntRange(min=0), help="Worked examples in each prompt, with --task."
        ),
        click.option(
            "--limit", callback=positive_int, metavar="N",
            help="Score only the first N documents of each task. [default: as in the runs]",
        ),
        DATA_DIR,
        OUT,
        WEIGHTS,
        DTYPE,
        DEVICE,
        click.option(
            "--batch-size", callback=positive_int, metavar="N",
            help="Most sequences in a forward. [default: by length]",
        ),
        ENGINE,
        MEMORY_BUDGET,
        VERIFY,
        click.option(
            "--max-length", callback=positive_int, metavar="TOKENS",
            help="Longest window scored at once. [default: the model's]",
        ),
        TOKENIZER,
        click.option(
            "--apply-chat-template", is_flag=True, help="Dress prompts up with the tokenizer's chat template."
        ),
        click.option("--system-instruction", metavar="TEXT", help="System message of every prompt."),
        click.option(
            "--fewshot-as-multiturn", is_flag=True, help="Give worked examples as turns of a conversation."
        ),
    )  # fmt: skip


def typed(context: click.Context, names: Sequence[str]) -> list[str]:
    """Return those of the named parameters that stand on the command line, as options."""
    from click.core import ParameterSource

    on_it = {n for n in names if context.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    return [p.opts[0] for p in context.command.params if p.name in on_it]


def _with(command: _F, *options: Callable[[_F], _F]) -> _F:
    return reduce(lambda made, option: option(made), reversed(options), command)
