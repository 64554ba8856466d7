"""A report built of runs: the answers, then a section for each question that the runs speak to.

report = build_report(load_runs("results"))
[section.title for section in report.sections]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mambabench.report.answers import answers
from mambabench.report.document import Block, Picture, Report, Section, Table, Words
from mambabench.report.format import Rows, harmless, plural, some, unique
from mambabench.report.sections.comparison import comparison_section
from mambabench.report.sections.conversation import conversation_section
from mambabench.report.sections.doubts import doubts_section
from mambabench.report.sections.longcontext import longcontext_section
from mambabench.report.sections.making import making_section
from mambabench.report.sections.quality import quality_section
from mambabench.report.sections.speed import speed_section
from mambabench.report.sections.steps import steps_section
from mambabench.report.sections.texts import texts_section
from mambabench.report.sections.zeroshot import zeroshot_section

if TYPE_CHECKING:
    from mambabench.frames.api import Runs
    from mambabench.plots.report import Drawing
    from mambabench.plots.speed.described import DescribedFigure

MOST_ITEMS: Final = 2000
"""Of a task, to look through."""
_TITLES: Final = {
    "zero-shot": "How good the models are",
    "comparison": "Which is better, and how sure is that",
    "training-steps": "Training steps",
    "long-context": "What models still know at length",
    "texts": "How well models predict texts",
    "speed": "What the models cost: speed and memory",
    "conversations": "What keeping a conversation costs",
    "quality-and-cost": "What a model gives for what it takes",
}
"""Sections of figures that have no table."""
_SECTIONS: Final = {
    "zeroshot-profile": "zero-shot",
    **dict.fromkeys(
        ("differences", "perplexities", "bits-per-byte", "log-likelihoods", "calibration"), "comparison"
    ),
    **dict.fromkeys(
        ("recall-grid", "recall-by-length", "loss-by-context", "quality-and-cost"), "long-context"
    ),
    "loss-by-position": "texts",
    **dict.fromkeys(("conversation-reply", "conversation-state"), "conversations"),
    **dict.fromkeys(("accuracy-cost", "recall-cost"), "quality-and-cost"),
}
"""Section of a figure, by what it shows; all others are of sweeps."""
MOST_PICTURES: Final = 12
"""Of a section; the command draws all of them with `--figures`."""
MOST_OF_A_RUN: Final = 3
"""Of a section that has figures of several runs."""
_TELLING: Final = {
    "latency": ("ttft", "itl-depth", "peak-memory"),
    "throughput": ("decode-tokens-per-s", "peak-memory"),
    "memory": ("peak-memory", "state-bytes"),
}
"""Figures of sweeps that tell most."""


def build_report(
    runs: Runs,
    *,
    title: str | None = None,
    most_items: int = MOST_ITEMS,
    items: bool = True,
    told: Callable[[str], None] = lambda text: None,
) -> Report:
    """Build the report of runs.

    Args:
        runs: of any kinds, readable or not.
        title: by default what the models are.
        most_items: of each task that can be looked through.
        items: whether they can at all.
        told: of what is worked on.
    """
    from mambabench import __version__

    told("reading runs")
    rows, problem = Rows(runs), runs.comparison_problem
    found = sections_of(rows, problem)
    told("drawing figures")
    sections = _with_pictures(found, *_pictures(runs, told))
    told("laying out items")
    # Items go on for pages and are looked up rather than read.
    sections += [doubts_section(rows), making_section(rows), *_items(runs, most_items, items=items)]
    return Report(
        title=harmless(title) if title else _title(rows),
        subtitle=_subtitle(rows),
        answers=answers(rows, problem),
        sections=tuple(sections),
        program=f"mambabench {__version__}",
    )


def sections_of(rows: Rows, problem: str = "") -> dict[str, Section]:
    """Return the sections of results by key, without figures, in the order of a reader's questions.

    Args:
        rows: of the frames.
        problem: why several models were not compared.
    """
    made = (
        zeroshot_section(rows),
        comparison_section(rows, problem),
        steps_section(rows),
        longcontext_section(rows),
        texts_section(rows),
        speed_section(rows),
        conversation_section(rows),
        quality_section(rows),
    )
    return {section.key: section for section in made if section is not None}


class Drawn:
    """A figure that was drawn to be described: handed out once as it is, then drawn anew.

    Args:
        draw: how.
    """

    def __init__(self, draw: Callable[[], DescribedFigure]) -> None:
        self._draw = draw
        self._first: DescribedFigure | None = draw()
        self.description = self._first.description

    def __call__(self) -> DescribedFigure:
        """Return the figure, which belongs to whoever asked."""
        first, self._first = self._first, None
        return self._draw() if first is None else first


def _pictures(
    runs: Runs, told: Callable[[str], None]
) -> tuple[dict[str, list[Picture | Words]], dict[str, int]]:
    """Draw what each section has room for: of each run the figures that tell most; count the others."""
    from mambabench.plots.report import drawings_of

    kinds = {run.name: run.manifest.kind for run in runs.runs if run.manifest is not None}
    by: dict[str, list[Drawing]] = {}
    for drawing in drawings_of(runs):
        by.setdefault(_section_of(drawing.figure), []).append(drawing)
    found: dict[str, list[Picture | Words]] = {}
    left: dict[str, int] = {}
    for section, drawings in by.items():
        ranks: dict[str, int] = {}
        order = []
        for i, drawing in sorted(
            enumerate(drawings), key=lambda one: _place(one[1].figure, kinds.get(one[1].run))
        ):
            ranks[drawing.run] = ranks.get(drawing.run, 0) + 1
            order.append((ranks[drawing.run], i))
        most = MOST_OF_A_RUN * len(ranks) if len(ranks) > 1 else MOST_PICTURES
        kept = sorted(i for _, i in sorted(order)[: min(most, MOST_PICTURES)])
        found[section] = [_picture(drawings[i], told) for i in kept]
        left[section] = len(drawings) - len(kept)
    return found, left


def _place(figure: str, kind: str | None) -> int:
    telling = _TELLING.get(kind or "", ())
    return telling.index(figure) if figure in telling else len(telling)


def _section_of(figure: str) -> str:
    if "curve" in figure or "step" in figure:
        return "training-steps"
    return _SECTIONS.get(figure, "speed")


def _picture(drawing: Drawing, told: Callable[[str], None]) -> Picture | Words:
    """Return a figure, or why there is none: one damaged record must not cost the report."""
    told(f"drawing {drawing.key}")
    try:
        drawn = Drawn(drawing.draw)
    except Exception as error:
        reason = harmless(str(error).partition("\n")[0]) or type(error).__name__
        return Words((f"The figure {drawing.key} could not be drawn: {reason}.",), "bad")
    title = harmless(drawn.description.partition("\n")[0]) or drawing.figure
    # Several runs have a figure of this title.
    title = f"{title} ({drawing.run})" if drawing.key != drawing.figure else title
    return Picture(drawing.key, title, drawn.description, drawn)


def _with_pictures(
    sections: Mapping[str, Section],
    pictures: Mapping[str, Sequence[Picture | Words]],
    left: Mapping[str, int],
) -> list[Section]:
    """Put figures behind the first table of their section."""
    kept = []
    for key, title in _TITLES.items():
        own = pictures.get(key, ())
        section = sections.get(key) or (Section(key, title, ()) if own else None)
        if section is not None:
            first = next((i + 1 for i, b in enumerate(section.blocks) if isinstance(b, Table)), 0)
            blocks: tuple[Block, ...] = (*section.blocks[:first], *own, *section.blocks[first:])
            more = f"{plural(left[key], 'more figure')} drawn with --figures." if left.get(key) else ""
            lead = " ".join(part for part in (section.lead, more) if part)
            kept.append(replace(section, blocks=blocks, lead=lead))
    return kept


def _items(runs: Runs, most_items: int, *, items: bool) -> list[Section]:
    from mambabench.report.items import browser

    found = browser(runs, most_items=most_items) if items else None
    if found is None:
        return []
    lead = "What was asked, what each model answered, and which items were won and lost."
    return [Section("items", "Items to look through", (found,), lead)]


def _labels(rows: Rows) -> list[str]:
    frames = ("scores", "recall_means", "perplexities", "speed", "conversation")
    return unique(row["label"] for name in frames for row in rows(name))


def _title(rows: Rows) -> str:
    labels = _labels(rows)
    if not labels:
        return "Report of no results"
    return f"Report of {some(labels)}" if len(labels) <= 3 else f"Report of {plural(len(labels), 'model')}"


def _subtitle(rows: Rows) -> str:
    runs = rows("runs")
    kinds = unique(row["kind"] or None for row in runs)
    machines = unique(row["device_name"] or None for row in runs)
    parts = [plural(len(runs), "run")]
    if kinds:
        parts[0] += f": {', '.join(kinds)}"
    parts.append(plural(len(_labels(rows)), "model"))
    if machines:
        parts.append(f"on {some(machines, 2)}")
    return "; ".join(parts)
