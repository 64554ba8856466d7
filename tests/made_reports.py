"""Reports that no run made, small to large and full of text that wants to be more than text.

report = small()
"""

from __future__ import annotations

import math
import random
from typing import Any

from mambabench.plots.palette import ON_CELL_DARK, ON_CELL_LIGHT
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
    Tone,
    Words,
)

NASTY = (
    '<script>alert("run")</script><img src="https://example.org/x.png" onerror="alert(1)">'
    "</script><!-- --><style>*{display:none}</style>&amp;{{ 7*7 }}{% raw %}"
    "\x1b[31mred\x00\u202egnp\u2028\ud800</td>"
)
"""Markup, a template, a terminal's colours, a turned direction, a separator of lines, half of a pair."""
NASTY_SHOWN = (
    '<script>alert("run")</script><img src="https://example.org/x.png" onerror="alert(1)">'
    "</script><!-- --><style>*{display:none}</style>&amp;{{ 7*7 }}{% raw %}"
    "\\x1b[31mred\\x00\\u202egnp\\u2028\\ud800</td>"
)
"""As a page shows it."""


def scored(value: float, half: float, tone: Tone = "", note: str = "") -> Cell:
    return Cell(
        f"{value:.1f} [{value - half:.1f}, {value + half:.1f}]",
        (value, value - half, value + half),
        tone,
        note,
    )


def scores(n_models: int = 3, n_tasks: int = 4, key: str = "scores") -> Table:
    """Return accuracies by task, a row a model and task."""
    draw = random.Random(n_models)
    tones: tuple[Tone, ...] = ("", "good", "doubt", "bad")
    rows = [
        (
            Cell(f"mamba-{130 * (m + 1)}m"),
            Cell(f"task_{t}"),
            scored(30 + 60 * draw.random(), 2.2),
            Cell("25.0", (25.0,), "faint"),
            Cell(("-", "agrees", "near", "differs")[(m + t) % 4], tone=tones[(m + t) % 4],
                 note="No figure was published." if (m + t) % 4 == 0 else ""),
        )
        for m in range(n_models)
        for t in range(n_tasks)
    ]  # fmt: skip
    columns = (
        Column("model"),
        Column("task", note="As `mambabench tasks` names it."),
        Column("accuracy", "% [95% interval]", numeric=True, note="Share of items answered rightly."),
        Column("chance", "%", numeric=True),
        Column("published"),
    )
    return Table(key, "Zero-shot accuracy", columns, tuple(rows), "scores", ("Of 200 items a task.",))


def wide(n_columns: int = 24, n_rows: int = 30) -> Table:
    """Return a table that no screen holds."""
    draw = random.Random(1)
    columns = (Column("model"), *(Column(f"task {i}", "acc ↑", numeric=True) for i in range(n_columns)))
    rows = tuple(
        (
            Cell(f"state-spaces/mamba-{i}-a-rather-long-name"),
            *(scored(100 * draw.random(), 3) for _ in range(n_columns)),
        )
        for i in range(n_rows)
    )
    return Table("wide", "All tasks", columns, rows, "scores", layout="paper")


def values() -> Table:
    """Return a table with what numbers can be, in no order."""
    numbers = (3.0, math.inf, -1.5, math.nan, 20.0, -math.inf, 100.0)
    filled = [(Cell(f"row {i}"), Cell(f"{v:g}", (v,))) for i, v in enumerate(numbers)]
    rows = (*filled[:2], (Cell("none"), Cell("")), *filled[2:])
    return Table("values", "Values", (Column("name"), Column("value", "s", numeric=True)), rows, "speed")


def picture(key: str = "lines", title: str = "Time to first token", label: str = "mamba-130m") -> Picture:
    def draw() -> DescribedFigure:
        figure = DescribedFigure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(
            [1, 2, 4], [1.0, 2.1, 4.3], color="#0072B2", marker="o", markerfacecolor="white", label=label
        )
        axes.plot([1, 2, 4], [3.0, 3.1, 3.3], color="#000000", linestyle="--", label="pythia")
        axes.fill_between([1, 2, 4], [0.8, 1.9, 4.0], [1.2, 2.3, 4.6], color="#b2d4e8")
        axes.text(1.5, 3.5, "faster", color="#004e79")
        axes.grid(color="#e4e4e4")
        axes.set_xlabel("prompt (tokens)")
        axes.legend()
        return figure

    return Picture(key, title, f"{title}\nIt doubles with the length.\n{label} is faster.", draw)


def grid_picture(key: str = "grid") -> Picture:
    def draw() -> DescribedFigure:
        figure = DescribedFigure(figsize=(3, 2), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow([[0.1, 0.9], [0.5, 1.0]], cmap="cividis", vmin=0, vmax=1)
        axes.text(0, 0, "10", color=ON_CELL_LIGHT)
        axes.text(1, 0, "90", color=ON_CELL_DARK)
        axes.set_title("recall")
        return figure

    return Picture(key, "Recall", "Recall by depth.", draw)


def items(n: int = 40, n_models: int = 2, key: str = "piqa", text: str = "", seed: int = 3) -> TaskItems:
    """Return items whose outcomes are drawn; the first one holds `text` everywhere."""
    draw = random.Random(seed)
    found = []
    for i in range(n):
        choices = [f"choice {c} of {i}: " + "words " * draw.randint(2, 9) for c in range(2)]
        answers = []
        for _ in range(n_models):
            right = draw.random() < 0.6
            answers.append(Answer(choices[0 if right else 1], right, -10 * draw.random()))
        question = f"Question {i}? " + "Some context goes before it. " * draw.randint(1, 12)
        if text and i == 0:
            question, choices[0], answers[0] = text, text, Answer(text, False, -math.inf)
        found.append(Item(i, key, question, choices[0], tuple(answers)))
    models = tuple(f"model-{m}" for m in range(n_models))
    return TaskItems(key, f"Items of {key}", models, tuple(found), n + 5)


def report(*sections: Section, **changes: Any) -> Report:
    settings: dict[str, Any] = {
        "title": "Mamba against Pythia",
        "subtitle": "3 runs, 2 models, on a processor with 2 cores",
        "answers": (
            Words(("mamba-130m is better than pythia-160m by 2.1 points [0.4, 3.8] on 4 tasks.",), "good"),
            Words(("Its first token comes 1.4 times as late at 2,048 tokens.",), "bad"),
            Words(("One run is partial: `mambabench zeroshot --resume` ends it.",), "doubt"),
        ),
        "sections": sections,
        "program": "mambabench 0.1.0",
    }
    return Report(**(settings | changes))


def made() -> Section:
    """Return how a report was made."""
    codes = (
        Code(
            "Command",
            "mambabench zeroshot smoke --models mamba-130m,pythia-160m --device cpu --dtype float32",
        ),
        Code("Digest", "3f5e" * 16),
    )
    return Section("made", "How it was made", (Words(("On one machine.", "With torch 2.13.0.")), *codes))


def small() -> Report:
    """Return a report with one of everything."""
    quality = (scores(), picture(), grid_picture())
    browser = Browser((items(60), items(8, 1, "lambada"), items(30, 5, "arc")))
    doubts = (Words(("Few items.", "Two processes."), "doubt"), Words(("A failed cell.",), "bad"))
    return report(
        Section("quality", "How good are they?", quality, "Higher is better; `acc` is a share."),
        Section("items", "What was asked?", (browser,)),
        Section("doubts", "What could be wrong?", doubts),
        made(),
    )


def large(n_items: int = 10_000) -> Report:
    """Return a report as long as they become."""
    more = tuple(picture(f"lines-{i}", f"Figure {i}") for i in range(6))
    return report(
        Section("quality", "How good are they?", (scores(20, 10), wide(), *more)),
        Section("items", "What was asked?", (Browser((items(n_items, 3), items(50, 2, "arc"))),)),
        made(),
    )


def nasty() -> Report:
    """Return a report all of whose texts want to be more than text."""
    rows = (
        (Cell(NASTY, note=NASTY), Cell(f"1.0 [{NASTY}]", (1.0, 2.0))),
        (Cell("x"), Cell(NASTY, tone="bad")),
    )
    columns = (Column(NASTY, NASTY, note=NASTY), Column("b", numeric=True))
    blocks = (
        Table("nasty", NASTY, columns, rows * 8, "scores", (NASTY,)),
        picture("nasty-figure", NASTY, "<script>alert(2)</script>"),
        Words((NASTY, NASTY), "doubt"),
        Code(NASTY, NASTY),
        Browser((items(30, 3, "nasty-items", NASTY),)),
    )
    return report(
        Section("nasty-section", NASTY, blocks, NASTY),
        title=NASTY,
        subtitle=NASTY,
        answers=(Words((NASTY,)),),
        program=NASTY,
    )


def empty() -> Report:
    """Return a report of nothing."""
    columns = (Column("model"), Column("value", numeric=True))
    blocks = (Table("none", "No rows", columns, (), "scores"), Browser(()), Browser((items(0),)))
    return report(Section("nothing", "Nothing", blocks), answers=(), subtitle="")
