"""What `latency`, `throughput` and `memory` share: options, the dry run, and what they print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mambabench.cli.options import byte_size, check_directory, not_empty, positive_int, print_json, some_path
from mambabench.errors import MambabenchError, UsageError

if TYPE_CHECKING:
    from mambabench.speed_schema import SweepKind
    from mambabench.sweep.options import SpeedOptions, SpeedOutcome

_Command = TypeVar("_Command", bound=Callable[..., Any])
_HOW = (
    "turn_len_tokens",
    "n_forks",
    "weights",
    "seed",
    "dtype",
    "budget_bytes",
    "repeats",
    "processes",
    "max_time_s",
    "text",
    "tokenizer",
    "verify",
    "ceilings",
    "power",
    "out",
)


def axis(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse the values of an axis, such as 512:65536*2.

    Raises:
        UsageError: it is malformed.
    """
    from mambabench.bench.axes import parse_axis

    return None if value is None else parse_axis(value, name=param.opts[0])


_OPTIONS = (
    click.option(
        "--model", "models", multiple=True, metavar="NAME|hf:ORG/NAME|PATH",
        help="Registry name, Hub id or directory; may be repeated. No tokenizer is needed. [default: the "
        "bundled models on a CPU; mamba-1.4b, mamba-2.8b, pythia-1.4b and tinyllama-1.1b on a GPU]",
    ),
    click.option(
        "--suite", callback=not_empty, metavar="NAME|FILE.yaml",
        help="Points from a suite; options that are given besides replace the suite's.",
    ),
    click.option(
        "--prompt-len", "prompt_len_tokens", callback=axis, metavar="AXIS",
        help="Tokens of each prompt: 512:65536*2 doubles, 128:1024+128 adds, 1024,4096 lists.",
    ),
    click.option(
        "--gen-len", "gen_len_tokens", callback=axis, metavar="AXIS",
        help="Tokens generated for each sequence, exactly; 64 or more for figures to publish.",
    ),
    click.option(
        "--batch-size", callback=axis, metavar="AXIS", help="Sequences at once, all equally long."
    ),
    click.option(
        "--arm", "arms", multiple=True, type=click.Choice(["eager", "graph", "best", "sampled", "shipped"]),
        help="eager: our loop. graph: one CUDA graph a token. best: both where there is a GPU. sampled: ids "
        "are drawn. shipped: the model's own library steps it. May be repeated. [default: best]",
    ),
    click.option(
        "--attention", multiple=True, type=click.Choice(["sdpa", "flash", "eager"]),
        help="For models that have any; may be repeated. [default: sdpa]",
    ),
    click.option(
        "--prefill-chunk", "prefill_chunk_tokens", callback=positive_int, metavar="TOKENS",
        help="Forward prompts in pieces, for lengths whose activations would not fit. [default: whole]",
    ),
    click.option(
        "--weights", type=click.Choice(["pretrained", "random"]),
        help="Random weights need no download. [default: pretrained where those of all models are on this "
        "machine, otherwise random]",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", help="Of random weights and prompts. [default: 0]"
    ),
    click.option(
        "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        help="Type of the weights. [default: float32 on a CPU, bfloat16 on a GPU, "
        "float16 on one before capability 8.0]",
    ),
    click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to run."
    ),
    click.option(
        "--memory-budget", "--vram-budget", "budget_bytes", callback=byte_size, metavar="SIZE",
        help="Emulate a device with so much memory, such as 24GB. [default: all there is]",
    ),
    click.option(
        "--repeats", callback=positive_int, metavar="N",
        help="Timed repeats in each process, at least. [default: 10; memory: none]",
    ),
    click.option(
        "--processes", callback=positive_int, metavar="N",
        help="Fresh processes for each point; from 6 on there are 95% intervals. [default: 3]",
    ),
    click.option(
        "--max-time", "max_time_s", callback=positive_int, metavar="SECONDS",
        help="Longest that a process goes on repeating. [default: 60]",
    ),
    click.option(
        "--text", callback=some_path, metavar="FILE",
        help="Make prompts of this text with each model's tokenizer, and count bytes a second besides, which "
        "compare where tokenizers differ. [default: random ids]",
    ),
    click.option(
        "--tokenizer", callback=not_empty, metavar="DIR|ORG/NAME",
        help="Another tokenizer than the models' own, with --text.",
    ),
    click.option(
        "--verify/--no-verify", default=True, show_default=True,
        help="First compare each model with the model as shipped, and do not time one that differs.",
    ),
    click.option(
        "--ceilings/--no-ceilings", default=True, show_default=True,
        help="Measure what this machine reaches in copies and matrix products, to hold figures against.",
    ),
    click.option(
        "--power/--no-power", default=False, show_default=True,
        help="On an NVIDIA GPU measure energy a token too, in one process more for each point.",
    ),
    click.option(
        "--out", callback=some_path, default="results", show_default=True, metavar="DIR",
        help="Where runs are kept.",
    ),
    click.option(
        "--plot", "--plots", "plots", callback=some_path, metavar="DIR",
        help="Draw all figures into DIR, as PNG and SVG.",
    ),
    click.option(
        "--dry-run", is_flag=True,
        help="Print points, processes and expected memory, and start nothing.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else there."
    ),
)  # fmt: skip


_CONVERSATION_OPTIONS = (
    click.option(
        "--history", "prompt_len_tokens", callback=axis, metavar="AXIS",
        help="Tokens of the conversation so far: 1024:65536*4 quadruples, 1024,4096 lists. [default: "
        "512,2048,8192; more on a GPU]",
    ),
    click.option(
        "--turn-len", "turn_len_tokens", callback=positive_int, metavar="TOKENS",
        help="Of the turn that follows. [default: 64]",
    ),
    click.option(
        "--forks", "n_forks", callback=positive_int, metavar="N",
        help="Continuations that go on from one history. [default: 4]",
    ),
    click.option(
        "--prefill-chunk", "prefill_chunk_tokens", callback=positive_int, metavar="TOKENS",
        help="Forward the history in pieces of so many. [default: 1024]",
    ),
    click.option(
        "--repeats", callback=positive_int, metavar="N",
        help="Timed repeats of each operation in a process, at most. [default: 10]",
    ),
)  # fmt: skip
_OF_CONVERSATIONS = frozenset(
    {
        "models", "weights", "seed", "dtype", "device", "processes", "max_time_s",
        "text", "tokenizer", "verify", "out", "plots", "dry_run", "as_json",
    }
)  # fmt: skip


def sweep_options(command: _Command) -> _Command:
    """Give a command the options of a sweep."""
    return _with(command, _OPTIONS)


def conversation_options(command: _Command) -> _Command:
    """Give a command the options of a sweep over conversations."""
    shared = {name: option for option in _OPTIONS if (name := _name_of(option)) in _OF_CONVERSATIONS}
    return _with(command, [*_CONVERSATION_OPTIONS, *shared.values()])


def _with(command: _Command, options: Sequence[Callable[[_Command], _Command]]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def _name_of(option: Callable[[Any], Any]) -> str:
    """Return the name of the parameter that an option adds."""

    def bare() -> None: ...

    option(bare)
    parameter: click.Parameter = bare.__click_params__[0]  # type: ignore[attr-defined]
    return str(parameter.name)


def run_command(kind: SweepKind, given: dict[str, Any]) -> int:
    """Run a sweep, or plan it, and print what came of it.

    Args:
        kind: of the sweep, the command's name.
        given: the options by name.

    Raises:
        MambabenchError: the options cannot work, or some process ended unexpectedly.
    """
    as_json: bool = given.pop("as_json")
    plots: Path | None = given.pop("plots")
    dry_run: bool = given.pop("dry_run")
    options = _options(kind, given)
    if plots is not None:
        check_directory(plots)
    if dry_run:
        from mambabench.cli.speed_dry_run import show_plan
        from mambabench.sweep.plan import make_plan

        show_plan(make_plan(options, fetch=False), as_json=as_json)
        return 0
    from mambabench.sweep.run import run_sweep

    outcome = run_sweep(options)
    drawn: list[Path] = []
    undrawn: MambabenchError | None = None
    if plots is not None:
        try:
            drawn = _draw(outcome, plots)
        except MambabenchError as error:
            # After the table, which may have taken hours.
            undrawn = error
    _render(outcome, options, drawn, as_json=as_json)
    outcome.raise_for_failures()
    if undrawn is not None:
        raise undrawn
    return 0


def _draw(outcome: SpeedOutcome, directory: Path) -> list[Path]:
    from mambabench.plots.speed import save_figures
    from mambabench.plots.speed.conversation import save_conversation_figures

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{directory} cannot be made: {error.strerror}", hint="Name another directory for `--plot`."
        ) from error
    if outcome.table.kind == "conversation":
        return save_conversation_figures(outcome.replicates, directory)
    return save_figures(outcome.table, directory)


def _options(kind: SweepKind, given: dict[str, Any]) -> SpeedOptions:
    from mambabench.sweep.defaults import Asked, complete

    name: str | None = given.pop("suite", None)
    suite = None
    if name is not None:
        from mambabench.sweep.suite import load_speed_suite

        suite = load_speed_suite(name, kind)
    how = {key: given.pop(key) for key in _HOW if key in given}
    return complete(Asked(kind, suite, how={**how, "command": ("mambabench", *sys.argv[1:])}, **given))


def _render(outcome: SpeedOutcome, options: SpeedOptions, drawn: list[Path], *, as_json: bool) -> None:
    if outcome.table.kind == "conversation":
        _render_conversation(outcome, drawn, as_json=as_json)
        return
    from mambabench.tables.speed.words import answers

    words = answers(outcome.table, budget_bytes=options.budget_bytes)
    if as_json:
        print_json(
            {
                "schema_version": 1,
                "run": str(outcome.path),
                "table": outcome.table.as_json(),
                "answers": words,
                "notes": list(outcome.notes),
                "replicates": [r.model_dump(mode="json") for r in outcome.replicates],
                "plots": [str(path) for path in drawn],
            }
        )
        return
    from mambabench.tables.speed.terminal import render

    render(outcome.table)
    for line in (*words, *outcome.notes, *(f"plot: {path}" for path in drawn)):
        click.echo(line)
    click.echo(f"run: {outcome.path}{_unmeasured(outcome)}")


def _render_conversation(outcome: SpeedOutcome, drawn: list[Path], *, as_json: bool) -> None:
    from mambabench.tables.speed.conversation import answers, conversation_rows

    rows = conversation_rows(outcome.replicates)
    words = answers(rows)
    if as_json:
        print_json(
            {
                "schema_version": 1,
                "run": str(outcome.path),
                "rows": [row.as_json() for row in rows],
                "answers": words,
                "notes": list(outcome.notes),
                "replicates": [r.model_dump(mode="json") for r in outcome.replicates],
                "plots": [str(path) for path in drawn],
            }
        )
        return
    from mambabench.tables.speed.conversation_terminal import render

    render(outcome.table.title, rows)
    for line in (*words, *outcome.notes, *(f"plot: {path}" for path in drawn)):
        click.echo(line)
    click.echo(f"run: {outcome.path}{_unmeasured(outcome)}")


def _unmeasured(outcome: SpeedOutcome) -> str:
    if outcome.n_measured or outcome.failed:
        return ""
    if all(record.status == "unsupported" for record in outcome.replicates):
        return " (no point can be measured here)"
    return " (complete before; nothing was measured)"
