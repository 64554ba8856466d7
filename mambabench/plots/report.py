"""All figures of a set of runs, each drawn when it is asked for; a model looks the same in all of them.

    runs = load_runs("results")
    pictures_of(runs)["zeroshot-profile"]().description
    save_pictures(runs, Path("figures"))        # figures/zeroshot-profile.png, and .svg, and the others

Saying which figures there are draws none: each is drawn by the function that its dictionary holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench.compare.steps import stepped
from mambabench.errors import StoreError, UsageError
from mambabench.plots import check_figure_path, save
from mambabench.plots.compare import DRAW as OF_COMPARISON
from mambabench.plots.compare.curves import draw_steps
from mambabench.plots.longcontext import DRAW as OF_LENGTHS
from mambabench.plots.longcontext.perplexity import draw_loss_by_position
from mambabench.plots.profile import draw_profile
from mambabench.plots.quality import QUALITIES, draw_quality_cost
from mambabench.plots.quality_points import panels_of
from mambabench.plots.speed import DRAW as OF_SWEEP
from mambabench.plots.speed.catalogue import QUANTITIES
from mambabench.plots.speed.conversation import DRAW as OF_CONVERSATION
from mambabench.plots.speed.conversation import drawable_rows
from mambabench.plots.speed.looks import places_of, shared_looks
from mambabench.plots.speed.sheet import sheet_style
from mambabench.tables.compare.format import harmless

if TYPE_CHECKING:
    from mambabench.compare.result import Comparison
    from mambabench.frames.api import Runs
    from mambabench.frames.load import LoadedRun
    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.longcontext.table import LongRow, LongTable
    from mambabench.tables.speed.table import SpeedTable

    Draw = Callable[[], DescribedFigure | None]

_UNITS: Final = {
    "differences": "pt",
    "perplexities": "%",
    "bits_per_byte": "bits/byte",
    "log_likelihoods": "nats",
}
_QUALITY_COST: Final = {"average accuracy": "accuracy-cost", "recall": "recall-cost"}
_MOST_SLUG_LETTERS: Final = 60


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn."""

    key: str
    """Unique in its set, of lower-case letters, digits and hyphens."""
    figure: str
    """What it shows: its key where no other run has the same figure."""
    run: str
    """Name of the run that it is of; empty for those of all runs."""
    draw: Callable[[], DescribedFigure]
    """Draws it anew each time."""


def pictures_of(runs: Runs) -> dict[str, Callable[[], DescribedFigure]]:
    """Return what draws each figure that the runs have something for, by key, in the order of a report."""
    return {drawing.key: drawing.draw for drawing in drawings_of(runs)}


def drawings_of(runs: Runs) -> list[Drawing]:
    """Return every figure that the runs have something for, in the order of a report.

    Those of all runs and those of single ones stand where a reader looks for them: zero-shot, comparison,
    quality against cost, long context, texts, sweeps, conversations. Where several runs have the same figure,
    its key begins with the run's name.
    """
    places = places_of(_groups(runs))
    # A curve looks like the last checkpoint on it.
    for label in list(places):
        if (step := stepped(label)) is not None:
            places.setdefault(step.series, places[label])
    found = [
        Drawing(figure, figure, "", partial(_drawn, draw, _plain(places))) for figure, draw in _of_all(runs)
    ]
    own = [(figure, run, draw) for part in _PARTS for run in runs.runs for figure, draw in part(run)]
    holders: dict[str, set[str]] = {}
    for figure, run, _ in own:
        holders.setdefault(figure, set()).add(run.name)
    slugs = _slugs([run.name for run in runs.runs])
    for figure, run, draw in own:
        key = f"{slugs[run.name]}-{figure}" if len(holders[figure]) > 1 else figure
        looks = _plain({model: places[label] for model, label in run.labels.items()})
        found.append(Drawing(key, figure, run.name, partial(_drawn, draw, looks)))
    return found


def save_pictures(
    pictures: Runs | Mapping[str, Callable[[], DescribedFigure]],
    directory: Path,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw figures one after the other and write each in every format; equal runs give equal files.

    Args:
        pictures: runs, or what `pictures_of` gave.
        directory: exists.
        formats: of "png", "svg" and "pdf".

    Returns:
        Paths of the files, figure by figure.

    Raises:
        UsageError: for another format, or a directory that cannot be written to.
        StoreError: figures could not be drawn of what the runs hold; all others are written.
    """
    for ending in formats:
        check_figure_path(directory / f"figure.{ending}")
    written = []
    failed = []
    for key, draw in (pictures if isinstance(pictures, Mapping) else pictures_of(pictures)).items():
        try:
            figure = draw()
        except Exception as error:
            failed.append(f"{key} ({str(error).partition(chr(10))[0] or type(error).__name__})")
            continue
        for ending in formats:
            written.append(directory / f"{key}.{ending}")
            save(figure, written[-1])
    if failed:
        raise StoreError(
            f"no figure could be drawn of {', '.join(failed)}",
            hint="`mambabench runs verify` tells which record is damaged. All other figures are there.",
        )
    return written


def _drawn(draw: Draw, places: Mapping[str, int]) -> DescribedFigure:
    with sheet_style(), shared_looks(places):
        figure = draw()
    if figure is None:
        raise UsageError("there is nothing to draw", hint="Ask for the figures of these runs again.")
    return figure


def _groups(runs: Runs) -> dict[str, str]:
    """Return what each label belongs with: its model's name, or the run of training that it is a step of.

    Steps come last, since there may be many, and the last one of a run of training before the others.
    """
    models = {label: model for run in runs.runs for model, label in run.labels.items()}
    steps = {label: found for label, model in models.items() if (found := stepped(model)) is not None}
    firm = {label: model for label, model in models.items() if label not in steps}
    return firm | {
        label: f"{steps[label].series} by step" for label in sorted(steps, key=lambda one: -steps[one].step)
    }


def _plain(places: Mapping[str, int]) -> dict[str, int]:
    """Add names as figures of comparisons have them: on one line, without what cannot be seen."""
    return {harmless(name): place for name, place in places.items()} | dict(places)


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """Return each name in the letters of a key; the end stays, which tells runs apart.

    >>> _slugs(["Latency mamba/1", "latency-mamba-1", "…"])
    {'Latency mamba/1': 'latency-mamba-1', 'latency-mamba-1': 'latency-mamba-1-2', '…': 'run'}
    """
    found: dict[str, str] = {}
    for name in names:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[-_MOST_SLUG_LETTERS:].strip("-") or "run"
        candidate, number = slug, 1
        while candidate in found.values():
            number += 1
            candidate = f"{slug}-{number}"
        found[name] = candidate
    return found


def _of_all(runs: Runs) -> Iterator[tuple[str, Draw]]:
    tables = [run.zeroshot for run in runs.runs if run.zeroshot is not None]
    if any(row.unit == "%" and row.value is not None for table in tables for row in table.rows):
        yield "zeroshot-profile", lambda: draw_profile(runs.frame("scores"))
    comparison = runs.comparison
    curves = runs.curves
    if comparison is not None:
        for name, draw in OF_COMPARISON.items():
            if _is_compared(comparison, name):
                yield _key(name), partial(draw, comparison)
    if curves is not None and any(curve.headline for curve in curves.curves):
        yield "training-curves", partial(draw_steps, curves)
    costs = runs.frame("quality_cost")
    for quality in QUALITIES:
        if panels_of(costs[costs["quality"] == quality])[0]:
            yield _QUALITY_COST[quality], partial(draw_quality_cost, costs, quality)


def _is_compared(comparison: Comparison, name: str) -> bool:
    if name == "calibration":
        return bool(comparison.calibrations)
    unit = _UNITS[name]
    return any(c.effect_unit == unit and c.difference is not None for c in comparison.contrasts)


def _of_lengths(run: LoadedRun) -> Iterator[tuple[str, Draw]]:
    if run.long is not None:
        for name, draw in OF_LENGTHS.items():
            if _has_lengths(run.long, name):
                yield _key(name), partial(draw, run.long)


def _has_lengths(table: LongTable, name: str) -> bool:
    rows = table.rows
    recall = any(_recalled(row) for row in rows)
    loss = any(row.bits_per_byte is not None for row in rows)
    if name == "recall_grid":
        return any(record.depths for row in rows for record in row.recall.values())
    if name == "recall_by_length":
        return recall
    if name == "loss_by_context":
        return loss
    costs = (cost for r in rows for cost in (r.ttft_s, r.tpot_s, r.peak_bytes, r.state_bytes))
    mean = any(row.recall_mean is not None for row in rows)
    return (mean or loss) and any(cost is not None for cost in costs)


def _recalled(row: LongRow) -> bool:
    return row.recall_mean is not None or any(row.accuracy(task) is not None for task in row.recall)


def _of_text(run: LoadedRun) -> Iterator[tuple[str, Draw]]:
    table = run.perplexity
    if table is not None and any(row.positions for row in table.rows):
        yield "loss-by-position", partial(draw_loss_by_position, table)


def _of_sweep(run: LoadedRun) -> Iterator[tuple[str, Draw]]:
    if run.speed is not None and run.speed.kind != "conversation":
        for name, draw in OF_SWEEP.items():
            if _has_speed(run.speed, name):
                yield _key(name), partial(draw, run.speed)


def _has_speed(table: SpeedTable, name: str) -> bool:
    if name == "itl_position":
        return any(row.itl_s_by_position for row in table.rows)
    if name == "state_bytes":
        return any(row.memory is not None for row in table.rows)
    return any(QUANTITIES[name].of(row) is not None for row in table.rows)


def _of_conversation(run: LoadedRun) -> Iterator[tuple[str, Draw]]:
    if run.speed is not None and run.speed.kind == "conversation":
        rows = drawable_rows(run.speed.replicates)
        if rows:
            for name, draw in OF_CONVERSATION.items():
                yield _key(name), partial(draw, rows)


_PARTS: Final = (_of_lengths, _of_text, _of_sweep, _of_conversation)


def _key(name: str) -> str:
    return name.replace("_", "-")
