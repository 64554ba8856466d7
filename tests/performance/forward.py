"""The forward of a backbone on the CPU: ours, transformers', mambapy's, and the matrix products alone.

    python tests/performance/speed.py --row forward/mamba-130m ...

4 rows of 100 tokens at 130M size, no logits. Targets, for Mamba-1 and Mamba-2: at least 4 times as fast as
transformers, and at most 1.8 times the time of the model's matrix products. Measured on an idle machine, and
again with two other processes that never rest. Each side runs with its own threads' habits: ours sleep
between products, transformers' spin. The products are timed under both, and the faster counts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from performance import tables
from performance.children import Child, our_environment, their_environment

SPINNERS = 2
_WHAT = ("ours", "transformers", "mambapy", "products")
_SLOW_S = 5.0
"""A forward that takes longer is not repeated."""


@contextmanager
def busy_cores(n: int) -> Iterator[None]:
    """Keep so many cores busy with other processes."""
    with ExitStack() as stack:
        for _ in range(n):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def measure(model: str, *, rows: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Time all ways in turns, on idle cores and on busy ones.

    Args:
        model: directory of the checkpoint.
        rows: of the batch.
        tokens: of each row.
        repeats: of what is not slow.

    Returns:
        "idle" and "busy", each from name to seconds, an empty list for mambapy where it is missing, and
        "why_no_mambapy".
    """
    command = [sys.executable, str(Path(__file__).with_name("forward_child.py"))]
    ours, theirs = ("ours", "products"), ("transformers", "mambapy", "products")
    with Child(command, our_environment()) as a, Child(command, their_environment()) as b:
        for child, what in ((a, ours), (b, theirs)):
            child.send(do="load", model=model, rows=rows, tokens=tokens, what=what)
        _, told = (child.hear() for child in (a, b))
        turns = [(a, name) for name in ours] + [(b, name) for name in theirs if name in told["what"]]
        for child, name in turns:
            child.ask(do=name)
        idle = _in_turns(turns, repeats)
        with busy_cores(SPINNERS):
            busy = _in_turns(turns, repeats)
    return {"idle": idle, "busy": busy, "why_no_mambapy": told["why_no_mambapy"]}


def _in_turns(turns: list[tuple[Child, str]], repeats: int) -> dict[str, list[float]]:
    timed: list[list[float]] = [[] for _ in turns]
    for _ in range(repeats):
        for (child, name), values in zip(turns, timed, strict=True):
            if not values or max(values) < _SLOW_S:
                values.append(child.ask(do=name)["wall_s"])
    found: dict[str, list[float]] = {name: [] for name in _WHAT}
    for (_, name), values in zip(turns, timed, strict=True):
        if not found[name] or median(values) < median(found[name]):
            found[name] = values
    return found


HEADER = (
    "forward", "cores", "mambabench", "transformers", "mambapy", "products alone",
    "transformers / ours (at least 4)", "ours / products (at most 1.8)",
)  # fmt: skip


def lines(name: str, found: dict[str, Any]) -> list[list[str]]:
    """Return a model's two lines of the table."""
    result = []
    for cores in ("idle", "busy"):
        timed = found[cores]
        result.append(
            [
                name,
                cores,
                *(_ms(timed[what]) or found["why_no_mambapy"] for what in _WHAT),
                tables.ratio(timed["transformers"], timed["ours"]),
                tables.ratio(timed["ours"], timed["products"]).replace(" to ", "–"),
            ]
        )
    return result


def _ms(values: list[float]) -> str:
    return f"{1000 * median(values):,.0f} ms ({len(values)}x)" if values else ""
