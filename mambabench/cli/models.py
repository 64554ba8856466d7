"""`mambabench models`."""

from __future__ import annotations

import shutil

import click

from mambabench.cli.options import print_json

_WIDTH_OF_ROWS = 132


@click.command(
    name="models",
    short_help="List the models that can be named.",
    epilog="""\b
Examples:
  mambabench models
  mambabench models mamba2
  mambabench models --json
""",
)
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(words: tuple[str, ...], as_json: bool) -> None:
    """List the models that --model can name, or those whose name, family or Hub id holds all WORDS.

    Besides these, --model takes any `hf:ORG/NAME` and any directory with a checkpoint.
    """
    from mambabench.models.hub import files_on_machine
    from mambabench.registry import load_registry

    specs = [
        spec
        for spec in load_registry().values()
        if all(w.lower() in f"{spec.name} {spec.family} {spec.hub_id}".lower() for w in words)
    ]
    here = {spec.name: files_on_machine(spec) for spec in specs}
    if as_json:
        print_json([{**s.model_dump(mode="json"), "on_this_machine": here[s.name]} for s in specs])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "family", "parameters", "trained at", "here", "source"):
        right = heading in ("parameters", "trained at")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for s in specs:
        table.add_row(
            s.name,
            s.family,
            f"{s.n_parameters / 1e6:,.1f} M",
            f"{s.training_length_tokens:,}",
            "yes" if here[s.name] else "no",
            "bundled" if s.bundled else f"hf:{s.hub_id}",
        )
    # A row that wraps can still be read and copied; one that is cut off cannot.
    width = max(shutil.get_terminal_size().columns, _WIDTH_OF_ROWS)
    Console(width=width, highlight=False, markup=False).print(table)
