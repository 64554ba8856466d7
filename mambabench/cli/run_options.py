"""Options that the commands which compute with a model have in common: each is one decorator.

@click.command()
@MODELS
@WEIGHTS
def command(**given): ...
"""

from __future__ import annotations

import click

from mambabench.cli.options import byte_size, not_empty, some_path

MODELS = click.option(
    "--model", "models", multiple=True, required=True, metavar="NAME|hf:ORG/NAME|PATH",
    help="Registry name, Hub id or directory; may be repeated. NAME@REVISION picks a revision.",
)  # fmt: skip
DATA_DIR = click.option(
    "--data-dir", callback=some_path, metavar="DIR",
    help="Read data sets from DIR/<data set id>/<config>/<split>.jsonl (or .parquet) instead of the Hub.",
)  # fmt: skip
OUT = click.option(
    "--out",
    callback=some_path,
    default="results",
    show_default=True,
    metavar="DIR",
    help="Where runs are kept.",
)
WEIGHTS = click.option(
    "--weights",
    type=click.Choice(["pretrained", "random"]),
    default="pretrained",
    show_default=True,
    help="Random weights need no download of weights.",
)
DTYPE = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Type of the weights. auto: float32 on a CPU, bfloat16 on a GPU, float16 before capability 8.0.",
)
DEVICE = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to run."
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["shared", "as-shipped"]),
    default="shared",
    show_default=True,
    help="shared: forward common prefixes once. as-shipped: the plain forward, to compare with.",
)
MEMORY_BUDGET = click.option(
    "--memory-budget", "memory_budget_bytes", callback=byte_size, metavar="SIZE",
    help="Room for states, activations and logits, such as 256MB or 2GiB; weights come on top. "
    "[default: 512MiB, on a GPU up to 8GiB]",
)  # fmt: skip
VERIFY = click.option(
    "--verify/--no-verify", default=True, show_default=True,
    help="First compare the fast path with the model as shipped, and stop where its error is larger.",
)  # fmt: skip
TOKENIZER = click.option(
    "--tokenizer", callback=not_empty, metavar="DIR|ORG/NAME", help="Another tokenizer than the model's own."
)
AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else there."
)
PART = click.option(
    "--part",
    callback=not_empty,
    metavar="train|valid|test",
    help="Part of wikitext or enwik8. [default: test]",
)
