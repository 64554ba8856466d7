"""Reports made by hand, plain ones and ones whose every text is nasty.

made_report(lambda text: text + NASTY)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from mambabench.plots.speed.described import DescribedFigure
from mambabench.report.document import (
    Answer,
    Browser,
    Cell,
    Code,
    Column,
    Item,
    Picture,
    Report,
    Section,
    Table,
    TaskItems,
    Words,
)

NASTY = (
    "|a|*b*_c_ `d` <script>alert(1)</script> [x](http://e.example) ![i](j) www.e.example @someone #12 "
    "a@b.example \\ \\| ~~s~~ $x^2$ :smile: &lt; & % { } ^ \"q\" 'r' "
    "\n# h\n- l\n1. n\n\u202e\x1b[31m\x00 ä中🦥 \ud800"
)
_KEPT = ("key", "frame", "tone", "layout")


def drawn() -> DescribedFigure:
    figure = DescribedFigure()
    figure.description = "A line."
    return figure


def scores() -> Table:
    """Models in rows, tasks in columns, as papers print them."""
    rows = [
        ("pythia-160m", 38.1, 33.0, 35.6, 34.3),
        ("mamba-130m", 16.07, 44.3, 48.0, 44.7),
        ("pythia-1.4b", 6.08, 61.7, 52.1, 55.2),
        ("mamba-1.4b", 5.04, 64.9, 59.1, 59.7),
    ]
    return Table(
        key="scores",
        title="Zero-shot",
        columns=(
            Column("model"),
            Column("LAMBADA", "ppl ↓", numeric=True, note="perplexity of the last word"),
            Column("LAMBADA", "acc ↑", numeric=True),
            Column("HellaSwag", "acc_norm ↑", numeric=True),
            Column("average", "% ↑", numeric=True),
        ),
        rows=tuple(
            (Cell(name), *(Cell(f"{value:.1f}", (value,)) for value in values)) for name, *values in rows
        ),
        frame="scores",
        notes=("Over all items.",),
        layout="paper",
    )


def made_report(change: Callable[[str], str] = lambda text: text) -> Report:
    """Return a report with a block of every kind.

    Args:
        change: is applied to each of its texts, keys and the like left alone.
    """
    speed = Table(
        key="speed",
        title="Speed",
        columns=(Column("model"), Column("TPOT", "ms", numeric=True), Column("verdict")),
        rows=(
            (
                Cell("mamba-130m"),
                Cell("12.3 [12.1, 12.5]", (0.0123, 0.0121, 0.0125), note="3 processes"),
                Cell(""),
            ),
            (
                Cell("pythia-160m"),
                Cell("∞", (math.inf,), "bad"),
                Cell("out of memory", (), "bad", "3 processes"),
            ),
            (Cell("x"), Cell("nan", (math.nan,)), Cell("", (), "faint")),
        ),
        frame="speed",
    )
    items = TaskItems(
        "items-hellaswag",
        "HellaSwag",
        ("base", "tuned"),
        (
            Item(3, "hellaswag", "A man sits. He", "stands up.", (
                Answer("falls.", False, -3.5), Answer("stands up.", True, None))),
            Item(5, "hellaswag", "A dog runs. It", "barks.", (
                Answer("barks.", True, -1.25), Answer("sings.", False, -math.inf))),
            Item(7, "hellaswag", "It rains. It", "pours.", (Answer("", None), Answer("", None))),
        ),
        10,
    )  # fmt: skip
    report = Report(
        title="Two models",
        subtitle="2 runs on a processor",
        answers=(Words(("mamba is better.",), "good"), Words(("It is also faster.", "Mostly."))),
        sections=(
            Section("quality", "How good", (
                scores(), Picture("profile", "Profile", "All tasks.\nmamba leads.", drawn), Browser((items,)),
            ), "In percent."),
            Section("cost", "How fast", (speed, Words(("Noise.",), "doubt"), Words(("Lost.",), "bad"))),
            Section("made", "How it was made", (Code("Command", "mambabench zeroshot  -o x\n"),)),
        ),
        program="mambabench 0.1.0",
    )  # fmt: skip
    return _changed(report, change)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(one, change) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value,
            **{
                f.name: _changed(getattr(value, f.name), change) for f in fields(value) if f.name not in _KEPT
            },
        )
    return value
