"""The command line: a lazy group, so that `--help` answers before any heavy import.

A command parses, calls one function, and renders. Errors of `mambabench.errors` become one line on
stderr and the exit code that their class carries; an interruption exits with 130.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import click

from mambabench import __version__
from mambabench.errors import EXIT_INTERRUPTED, MambabenchError

# Name, module and one line of help, here so that the list of commands costs no import of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "zeroshot": ("mambabench.cli.zeroshot", "Evaluate models on a suite of tasks."),
    "compare": ("mambabench.cli.compare", "Compare models or runs: which is better, and how sure is that."),
    "perplexity": ("mambabench.cli.perplexity", "Predict a text: perplexity and loss by position."),
    "longcontext": (
        "mambabench.cli.longcontext",
        "Probe what a model still knows at length L, and what that costs.",
    ),
    "latency": (
        "mambabench.cli.latency",
        "Measure time to the first token and between tokens, by length.",
    ),
    "throughput": ("mambabench.cli.throughput", "Measure tokens a second, by batch."),
    "memory": ("mambabench.cli.memory", "Measure peak memory and state, by length."),
    "conversation": (
        "mambabench.cli.conversation",
        "Measure what keeping, forking and taking up a conversation costs.",
    ),
    "advise": ("mambabench.cli.advise", "Say which measured model and settings fit a task."),
    "runs": ("mambabench.cli.runs", "List, show, rename, delete and verify stored runs."),
    "report": ("mambabench.cli.report", "Make one page of runs to pass on: HTML, Markdown, LaTeX or JSON."),
    "doctor": (
        "mambabench.cli.doctor",
        "Say what is installed, what can run here, and whether it computes right.",
    ),
    "models": ("mambabench.cli.models", "List the models that can be named."),
    "suites": ("mambabench.cli.suites", "List the suites, or show one."),
    "tasks": ("mambabench.cli.tasks", "Find a task to use with --task."),
    "import": ("mambabench.cli.import_results", "Make a run of lm-eval's results, to compare with."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is used."""

    table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of their table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or null when there is none of that name."""
        if cmd_name not in self.table:
            return None
        command = importlib.import_module(self.table[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; offer the closest names for a mistyped one."""
        from mambabench.errors import UnknownNameError

        if args and args[0] not in self.table and not args[0].startswith("-"):
            raise UnknownNameError.for_name(
                "command", args[0], self.table, where=f"`{ctx.command_path} --help` lists all."
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a gate failed, 2 usage, 3 some cells or processes failed, "
    "4 something is missing, 130 interrupted.",
)
@click.version_option(__version__, prog_name="mambabench")
def cli() -> None:
    """How good is this Mamba checkpoint, what does it cost to run, and is it really better than that one?

    \b
    Examples:
      mambabench zeroshot --model mamba-tiny --suite smoke
      mambabench zeroshot --model mamba-130m --model pythia-160m
      mambabench compare mamba-130m pythia-160m
      mambabench latency --model mamba-130m --model pythia-160m --prompt-len 128:4096*2
      mambabench report
      mambabench models
    """


def main() -> None:
    """Run the command line and turn errors into one line and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    _open_closed_streams()
    _escape_what_cannot_be_written()
    _quiet_libraries()
    _let_threads_sleep()
    code = _run(sys.argv[1:])
    if code == EXIT_INTERRUPTED:
        # One more while Python takes itself down would end it by the signal instead of by the exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def _run(args: list[str]) -> int:
    try:
        result = _invoke(args)
        sys.stdout.flush()
    except MambabenchError as error:
        _say(f"error: {_harmless(str(error))}")
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        _say(error.format_message())
        return 2
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"See `{context.command_path} --help`." if context is not None else ""
        _say(f"error: {MambabenchError(error.format_message(), hint=hint)}")
        return 2
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted: what was done is kept, and the same command goes on from there")
        # Under `python -m`, CPython ends by the signal instead of by our exit code if the interruption
        # fell into code given as text, as dataclasses make it. Other such code lets it forget.
        exec("")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`).
        _drop_output()
        return 0
    except SystemExit as error:
        # rich answers that by itself.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return 0
    except OSError as error:
        _drop_output()
        where = f" ({error.filename})" if error.filename else ""
        _say(f"error: {error.strerror or error}{where}")
        return MambabenchError.exit_code
    except Exception:
        # Python's own exit code for this is 1, which here means that a gate failed.
        import traceback

        _say(f"{traceback.format_exc()}error: this is a fault of mambabench; what was done is kept.")
        return MambabenchError.exit_code
    return result if isinstance(result, int) else 0


def _invoke(args: list[str]) -> Any:
    if "_MAMBABENCH_COMPLETE" in os.environ:
        return cli.main(args=args, prog_name="mambabench")
    # Not by `cli.main`, which answers an interruption with an empty line and a closed pipe with exit code 1.
    try:
        with cli.make_context("mambabench", list(args)) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code


def _harmless(text: str) -> str:
    """Return a text on one line, without what a terminal obeys: errors quote names and texts of files."""
    line = text.replace("\n", " ")
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def _say(line: str) -> None:
    with suppress(OSError):
        click.echo(line, err=True)


def _drop_output() -> None:
    """Send what is left in stdout's buffer nowhere: a second error at exit would only confuse."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _open_closed_streams() -> None:
    """Give a process that was started without a standard stream (`>&-`, `<&-`) one that leads nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def _escape_what_cannot_be_written() -> None:
    """Let letters that a terminal's encoding does not have end no command: texts of items hold any."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _quiet_libraries() -> None:
    """Keep other libraries' bars and notices off the terminal; whoever sets these keeps his value."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def _let_threads_sleep() -> None:
    """Let OpenMP's threads sleep between matrix products; must happen before torch is imported.

    They would spin for milliseconds, on the cores that the compiled scan and other programs could use.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
