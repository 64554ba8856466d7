"""`mambabench advise`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mambabench.cli.options import byte_size, positive_int, print_json
from mambabench.cli.run_options import AS_JSON

if TYPE_CHECKING:
    from mambabench.advise.wish import Wish


def _percent(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from mambabench.advise.wish import parse_percent

    return None if value is None else parse_percent(value, name=param.opts[0])


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from mambabench.advise.wish import parse_seconds

    return None if value is None else parse_seconds(value, name=param.opts[0])


@click.command(
    name="advise",
    short_help="Say which measured model and settings fit a task.",
    epilog="""\b
Examples:
  mambabench advise --prompt-len 2000 --gen-len 200
  mambabench advise --prompt-len 10000 --gen-len 500 --memory 24GB --recall 90% --ttft 2s --tpot 50ms
  mambabench advise results/latency-* results/longcontext-* --prompt-len 4096 --gen-len 64 --conversations 8
  mambabench advise --prompt-len 1000 --gen-len 100 --quality 50% --prefer speed --json

Exit codes: 0 there is an answer, if only that nothing fits; 4 the runs do not tell.
""",
)
@click.argument("places", nargs=-1, metavar="[RUN]...")
@click.option(
    "--prompt-len", "prompt_len_tokens", required=True, callback=positive_int, metavar="TOKENS",
    help="Tokens of each prompt.",
)  # fmt: skip
@click.option(
    "--gen-len", "gen_len_tokens", required=True, callback=positive_int, metavar="TOKENS",
    help="Tokens generated for each.",
)  # fmt: skip
@click.option(
    "--conversations", default="1", callback=positive_int, metavar="N",
    help="Conversations at once, as one batch. [default: 1]",
)  # fmt: skip
@click.option(
    "--memory", "memory_bytes", callback=byte_size, metavar="SIZE",
    help="Memory that there is, such as 24GB. [default: that of the device that was measured on]",
)  # fmt: skip
@click.option(
    "--recall", "recall_percent", callback=_percent, metavar="PERCENT",
    help="Least mean accuracy over recall tasks, at every measured length up to prompt and output.",
)  # fmt: skip
@click.option(
    "--quality", "quality_percent", callback=_percent, metavar="PERCENT",
    help="Least average accuracy over a suite's tasks.",
)  # fmt: skip
@click.option(
    "--ttft", "ttft_s", callback=_seconds, metavar="TIME", help="Longest time to the first token, such as 2s."
)  # fmt: skip
@click.option(
    "--tpot", "tpot_s", callback=_seconds, metavar="TIME", help="Longest time of a later token, such as 50ms."
)  # fmt: skip
@click.option(
    "--prefer", type=click.Choice(["quality", "speed", "memory"]), default="quality", show_default=True,
    help="What decides among those that fit.",
)  # fmt: skip
@AS_JSON
def command(places: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Say which of the models that were measured fits, in which setting, and how sure that is.

    Read are the runs given, or those under results/: times and memory of sweeps, recall of long-context runs,
    average accuracies of zero-shot ones. A bound is kept where the upper end of the figure's interval keeps
    it. Between two measured lengths both must; beyond them nothing is known, and commands are printed that
    would tell. The machine that is advised for is the one that was measured on.
    """
    from mambabench.advise.wish import Wish

    return _advise(places, Wish(**given), as_json=as_json)


def _advise(places: tuple[str, ...], wish: Wish, *, as_json: bool) -> int:
    from mambabench.advise.advise import advise_runs
    from mambabench.advise.terminal import render
    from mambabench.frames.api import load_runs

    advice = advise_runs(load_runs(*places), wish)
    if as_json:
        print_json(advice.as_json())
    else:
        render(advice)
    return advice.exit_code
