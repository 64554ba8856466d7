"""`mambabench runs du`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mambabench.cli.options import print_json
from mambabench.cli.run_options import AS_JSON
from mambabench.cli.runs_list import places_of, shown


@click.command(
    name="du",
    short_help="Tell what runs take on the disk.",
    epilog="""\b
Examples:
  mambabench runs du
  mambabench runs du results elsewhere/results --json
""",
)
@click.argument("places", nargs=-1, metavar="[PLACE...]")
@AS_JSON
def command(places: Sequence[str], as_json: bool) -> None:
    """Tell what the runs in each PLACE take by kind of file, the largest first, and what could be given back.

    Nothing is deleted. Sizes are those of the files; "on disk" counts the blocks that they fill.
    """
    from mambabench.store.overview import overview
    from mambabench.store.usage import usage_of
    from mambabench.tables.runs import render_usage, spare_words, staging_words, usage_rows

    found = places_of(places)
    pairs = [(overview(path), usage_of(path)) for place in found for path in place.runs]
    if as_json:
        rows = usage_rows(pairs)
        total = sum(row["size_bytes"] for row in rows)
        print_json({"runs": rows, "size_bytes": total, "could_be_given_back": spare_words(pairs)})
        return
    if pairs:
        render_usage(pairs, sys.stdout, with_place=len(found) > 1)
    else:
        click.echo(f"no run in {shown(', '.join(str(place.path) for place in found))}")
    for place in found:
        if words := staging_words(place.path, place.staging):
            click.echo(words)
