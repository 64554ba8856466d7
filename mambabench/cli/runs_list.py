"""`mambabench runs list`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mambabench.cli.options import print_json
from mambabench.cli.run_options import AS_JSON

if TYPE_CHECKING:
    from mambabench.store.overview import Overview, Place

KINDS: Final = (
    "zeroshot", "imported", "latency", "throughput", "memory", "conversation", "longcontext", "perplexity",
)  # fmt: skip
_STATES: Final = ("complete", "partial", "interrupted", "failed", "empty", "running", "unreadable")
_AGO: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """Parse a date, a time, or so many minutes, hours, days or weeks ago.

    Raises:
        UsageError: for another text.
    """
    from datetime import UTC, datetime, timedelta

    from mambabench.errors import UsageError
    from mambabench.store.select import utc

    if value is None:
        return ""
    text = value.strip()
    if text[:-1].isascii() and text[:-1].isdigit() and (unit := _AGO.get(text[-1:])):
        try:
            return (datetime.now(UTC) - timedelta(**{unit: int(text[:-1])})).isoformat(timespec="seconds")
        except OverflowError:
            pass
    elif utc(text):
        return text
    raise UsageError(
        f"{param.opts[0]} '{value:.40}' is no time", hint="Write 2026-01-31, 2026-01-31T10:00 or 7d."
    )


@click.command(
    name="list",
    short_help="List runs with their state, date and size.",
    epilog="""\b
States:
  complete     all that was asked for is there
  partial      all is there of a run of some items only (--limit)
  interrupted  not all is there; `runs show` gives the command that goes on
  failed       all was tried, and some of it failed
  empty        begun, without a result
  running      being written at the moment
  unreadable   part of it is damaged, or of a newer version

\b
Examples:
  mambabench runs list
  mambabench runs list --kind latency --since 7d --sort size
  mambabench runs list elsewhere/results --model 'mamba-*' --json
""",
)
@click.argument("places", nargs=-1, metavar="[PLACE...]")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Of this kind; may be repeated."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="TEXT",
    help="With a model whose name holds TEXT, or matches it where it has * ? or [; may be repeated.",
)
@click.option("--suite", "suites", multiple=True, metavar="TEXT", help="Of a suite, likewise.")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="In this state.")
@click.option("--since", callback=_time, metavar="TIME", help="Made then or later: 2026-01-31, or 7d ago.")
@click.option("--before", callback=_time, metavar="TIME", help="Made before then.")
@click.option(
    "--sort",
    "sort_by",
    type=click.Choice(["date", "size", "name"]),
    default="date",
    show_default=True,
    help="Order: the oldest, the largest or the first first.",
)
@AS_JSON
def command(
    places: Sequence[str],
    kinds: Sequence[str],
    models: Sequence[str],
    suites: Sequence[str],
    states: Sequence[str],
    since: str,
    before: str,
    sort_by: str,
    as_json: bool,
) -> None:
    """List the runs in each PLACE, by default in results/; a damaged run is a row like any other."""
    from mambabench.store.overview import overviews
    from mambabench.store.select import Filters
    from mambabench.tables.runs import render_list, row_of, staging_words

    found = places_of(places)
    filters = Filters(kinds, models, suites, states, since, before)
    paths = [path for place in found for path in place.runs]
    runs = sorted((run for run in overviews(paths) if filters.keep(run)), key=_order(sort_by))
    if as_json:
        staging = [str(path) for place in found for path in place.staging]
        print_json({"runs": [row_of(run) for run in runs], "staging": staging})
        return
    if runs:
        render_list(runs, sys.stdout, with_place=len(found) > 1)
    else:
        where = ", ".join(str(place.path) for place in found)
        click.echo(f"no run in {shown(where)}" if not paths else f"none of {len(paths)} runs is such")
    for place in found:
        if words := staging_words(place.path, place.staging):
            click.echo(words)


def places_of(texts: Sequence[str]) -> list[Place]:
    """Return what each argument holds: a directory of runs, or a run by itself; by default `results`.

    Raises:
        UsageError: an argument that is not there, is no directory, or holds no run but other things.
    """
    from mambabench.errors import UsageError
    from mambabench.store.manage import find_place, find_run
    from mambabench.store.overview import Place, looks_like_run

    if not texts:
        return [find_place(Path("results"))]
    found: dict[Path, Place] = {}
    for text in texts:
        if not text.strip() or "\0" in text:
            raise UsageError("a place is empty", hint="Leave it out for results/.")
        path = Path(text)
        # A path's own method does not tell of names that are too long.
        if looks_like_run(path) or not os.path.isdir(path):  # noqa: PTH112
            run = find_run(text, Path("results"))
            place = Place(run.parent, (run,))
            found[run.absolute()] = place
        else:
            found[path.absolute()] = find_place(path)
    return list(found.values())


def _order(by: str) -> Callable[[Overview], Any]:
    if by == "size":
        return lambda run: (-run.size_bytes, run.path.name)
    if by == "name":
        return lambda run: (run.path.name, str(run.path))
    return lambda run: (run.created_utc, run.path.name)


def shown(text: str) -> str:
    """Return a text for a terminal."""
    from mambabench.tables.compare.format import harmless

    return harmless(text)
