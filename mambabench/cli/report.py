"""`mambabench report`."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mambabench.cli.garbage import collected_rarely
from mambabench.cli.options import check_directory, not_empty, some_path
from mambabench.cli.runs_list import shown

if TYPE_CHECKING:
    from mambabench.frames.api import Runs
    from mambabench.report.document import Report

FORMATS: Final = {"html": ".html", "md": ".md", "tex": ".tex", "json": ".json"}
"""Formats with the ending of their files."""
_ENDINGS: Final = {ending: name for name, ending in FORMATS.items()} | {
    ".htm": "html", ".markdown": "md", ".latex": "tex"
}  # fmt: skip
_KINDS: Final = (
    "zeroshot", "imported", "latency", "throughput", "memory", "conversation", "longcontext", "perplexity",
)  # fmt: skip
_MOST_ITEMS: Final = 2000

Told = Callable[[str], None]


@click.command(
    name="report",
    short_help="Make one page of runs to pass on: HTML, Markdown, LaTeX or JSON.",
    epilog="""\b
Examples:
  mambabench report
  mambabench report results/zeroshot-smoke-mamba-tiny-75c8b06c -o smoke.html
  mambabench report results/zeroshot-a results/latency-b --title "The new base" -o base.html -o base.md
  mambabench report results --kind zeroshot --baseline mamba-130m --format tex
  mambabench report results -o paper.tex --figures figures --tables tables --no-items
""",
)
@click.argument("places", nargs=-1, metavar="[RUN]...")
@click.option(
    "-o", "--output", "outputs", multiple=True, callback=lambda c, p, v: _paths(p, v), metavar="FILE",
    help="File to write; may be repeated. [default: report.html]",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(tuple(FORMATS)),
    help="Format of the files. [default: by their endings]",
)  # fmt: skip
@click.option("--title", callback=not_empty, metavar="TEXT", help="Title. [default: of the models]")
@click.option(
    "--baseline", callback=not_empty, metavar="LABEL",
    help="Model that the others are held against. [default: the first]",
)  # fmt: skip
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS),
    help="Take runs of this kind only; may be repeated.",
)
@click.option(
    "--items", "n_items", type=click.IntRange(min=1), metavar="N",
    help=f"Items of each task that can be looked through. [default: {_MOST_ITEMS}]",
)  # fmt: skip
@click.option("--no-items", "no_items", is_flag=True, help="Leave questions and answers out.")
@click.option(
    "--figures", callback=some_path, metavar="DIR",
    help="Draw every figure into DIR as PNG and SVG, and as PDF for LaTeX.",
)  # fmt: skip
@click.option(
    "--tables", callback=some_path, metavar="DIR", help="Write every frame into DIR, as CSV and Parquet."
)
def command(**given: Any) -> None:
    """Make one report of stored runs of any kinds.

    A RUN is a run's directory, or a directory of runs; without any it is `results`. The report answers first:
    which model is better and how sure that is, what it costs, what to doubt. Then come tables with intervals,
    figures, what could be wrong, and how it was made. The HTML file holds everything and opens from disk.

    Equal runs give equal files. Nothing is evaluated or measured.
    """
    with collected_rarely():
        _report(given)


def _report(given: dict[str, Any]) -> None:
    outputs = _outputs(given["outputs"], given["form"])
    for option in ("figures", "tables"):
        if given[option] is not None:
            _check_folder(given[option], f"--{option}", f"all {option}", outputs)
    if given["no_items"] and given["n_items"] is not None:
        from mambabench.errors import UsageError

        raise UsageError("--items does not go with --no-items", hint="Leave one of them out.")
    with _status() as told:
        written = _make(given, outputs, told)
    for line in written:
        click.echo(shown(line))


def _paths(parameter: click.Parameter, values: Sequence[str]) -> tuple[Path, ...]:
    from mambabench.errors import UsageError

    if any(not value.strip() for value in values):
        raise UsageError(f"{parameter.opts[0]} is empty", hint="Give it the name of a file.")
    return tuple(Path(value) for value in values)


def _outputs(paths: Sequence[Path], form: str | None) -> dict[Path, str]:
    """Return the format of each file to write; all that can be wrong with them is found here."""
    from mambabench.errors import UsageError

    found: dict[Path, str] = {}
    for path in paths or (Path(f"report{FORMATS[form or 'html']}"),):
        chosen = form or _ENDINGS.get(path.suffix.lower())
        if chosen is None:
            raise UsageError(
                f"{path} does not end like a format",
                hint=f"End it with {', '.join(FORMATS.values())}, or give --format.",
            )
        _check_file(path)
        if path.resolve() in {other.resolve() for other in found}:
            raise UsageError(f"{path} is named twice", hint="Leave one of them out.")
        found[path] = chosen
    return found


def _check_file(path: Path) -> None:
    """Check that a report can be written to a path, and that nothing else is lost by it."""
    from mambabench.errors import UsageError

    if path == Path("-"):
        raise UsageError("-o - names no file", hint="A report is a file, such as report.md.")
    try:
        mode = path.stat().st_mode if path.exists() else None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written to: {error.strerror}", hint="Name another file with `-o`."
        ) from error
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory", hint="`-o` names a file, such as report.html.")
    if mode is not None and not stat.S_ISREG(mode):
        # The report would take its place: /dev/null would be a file from then on.
        raise UsageError(f"{path} is no ordinary file", hint="`-o` names a file, such as report.html.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no directory", hint="`-o` names a file in one that exists.")
    _check_outside_runs(path, "-o")
    check_directory(path.parent, "-o", "the report")


def _check_folder(path: Path, option: str, holds: str, outputs: Iterable[Path]) -> None:
    """Check that files can be written into a directory, which need not exist."""
    from mambabench.errors import UsageError

    check_directory(path, option, holds)
    real = path.resolve()
    for file in outputs:
        if file.resolve() in (real, *real.parents):
            raise UsageError(
                f"{file} is the report and cannot be a directory", hint=f"Name another one for `{option}`."
            )
    _check_outside_runs(path, option)


def _check_outside_runs(path: Path, option: str) -> None:
    """Check that a path leads into no run: its records are named like files that may be asked for."""
    from mambabench.errors import UsageError
    from mambabench.store.overview import looks_like_run

    real = path.resolve()
    for folder in (real, *real.parents):
        if looks_like_run(folder):
            raise UsageError(
                f"{path} lies in the run {folder.name}, which is left as it is",
                hint=f"Name another place for `{option}`.",
            )


@contextmanager
def _status() -> Iterator[Told]:
    """Show on a terminal what is worked on, for as long as the block runs."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text("reading runs")) as status:
        yield lambda text: status.update(Text(text))


def _make(given: dict[str, Any], outputs: dict[Path, str], told: Told) -> list[str]:
    """Write everything; return the answers and what was written."""
    from mambabench.frames.api import load_runs
    from mambabench.report.build import build_report

    told("reading runs")
    runs = load_runs(*given["places"], kinds=given["kinds"], baseline=given["baseline"])
    report = build_report(
        runs,
        title=given["title"],
        most_items=given["n_items"] or _MOST_ITEMS,
        items=not given["no_items"],
        told=told,
    )
    lines = [sentence for words in report.answers for sentence in words.sentences]
    for path, form in outputs.items():
        told(f"writing {path}")
        _write(path, _rendered(report, form, _beside(path, given["figures"])))
        lines.append(f"report: {path}")
    if given["figures"] is not None:
        told("drawing figures")
        lines.append(_figures(runs, given["figures"], pdf="tex" in outputs.values()))
    if given["tables"] is not None:
        told("writing tables")
        lines.append(_tables(runs, given["tables"]))
    return lines


def _beside(path: Path, figures: Path | None) -> str | None:
    """Return where figures are, seen from a file."""
    if figures is None:
        return None
    return Path(os.path.relpath(figures.resolve(), path.parent.resolve())).as_posix()


def _rendered(report: Report, form: str, figures: str | None) -> str:
    if form == "html":
        from mambabench.report.html import render_html

        return render_html(report)
    if form == "md":
        from mambabench.report.markdown import render_markdown

        return render_markdown(report, figures=figures)
    if form == "tex":
        from mambabench.report.latex import render_latex

        return render_latex(report, figures=figures)
    from mambabench.report.data import render_json

    return render_json(report)


def _write(path: Path, text: str) -> None:
    from mambabench.errors import StoreError, UsageError
    from mambabench.store.files import write_bytes

    try:
        # A half of a surrogate pair, which a name of a file may hold, has no place in UTF-8.
        write_bytes(path, text.encode("utf-8", errors="backslashreplace"))
    except StoreError as error:
        raise UsageError(error.message, hint="Name another file with `-o`.") from error


def _figures(runs: Runs, folder: Path, *, pdf: bool) -> str:
    from mambabench.plots.report import save_pictures

    folder.mkdir(parents=True, exist_ok=True)
    written = save_pictures(runs, folder, ("png", "svg", "pdf") if pdf else ("png", "svg"))
    return _counted("figures", len(written), folder)


def _tables(runs: Runs, folder: Path) -> str:
    from mambabench.errors import StoreError, UsageError
    from mambabench.report.data import write_frames

    folder.mkdir(parents=True, exist_ok=True)
    try:
        written = write_frames(runs, folder)
    except StoreError as error:
        raise UsageError(error.message, hint="Name another directory with `--tables`.") from error
    return _counted("tables", len(written), folder)


def _counted(what: str, n: int, folder: Path) -> str:
    return f"{what}: {n:,} {'file' if n == 1 else 'files'} in {folder}"
