"""Figures of conversation costs: when a reply begins with and without a kept state, and what is kept.

save_conversation_figures(outcome.replicates, Path("figures"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench.plots import save_all
from mambabench.plots.palette import PAPER
from mambabench.plots.speed.looks import Looks, band_opacity, band_words
from mambabench.plots.speed.scales import Unit, quantity, scale_counts, scale_values, spans_decades
from mambabench.plots.speed.sheet import Sheet, sheet_style
from mambabench.stats.replicates import Estimate
from mambabench.tables.speed.conversation import ConversationRow, conversation_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.speed_schema import ReplicateRecord

_KEPT, _AGAIN = "from the kept state", "everything forwarded again"
_METHODS = {"t on log": "bands are 95% intervals", "range": "bands are ranges over processes"}


def drawable_rows(replicates: Sequence[ReplicateRecord]) -> list[ConversationRow]:
    """Return the rows that were timed; none where fewer than two lengths of history were."""
    rows = [row for row in conversation_rows(replicates) if row.times]
    return rows if len({row.point.prompt_len_tokens for row in rows}) > 1 else []


def conversation_figures(replicates: Sequence[ReplicateRecord]) -> dict[str, DescribedFigure]:
    """Draw what there is data for: at least two lengths of history of some model."""
    rows = drawable_rows(replicates)
    with sheet_style():
        return {key: draw(rows) for key, draw in DRAW.items()} if rows else {}


def save_conversation_figures(
    replicates: Sequence[ReplicateRecord], directory: Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write all figures into a directory that exists; return their paths.

    Raises:
        UsageError: for another format, or a directory that cannot be written to.
    """
    return save_all(lambda: conversation_figures(replicates), directory, formats)


def _reply(rows: Sequence[ConversationRow]) -> DescribedFigure:
    looks = Looks(_models(rows), (_KEPT, _AGAIN))
    operations = {_KEPT: "resume", _AGAIN: "prefill_again"}
    sheet = Sheet()
    [axes] = sheet.axes
    sentences = []
    for model in looks.models:
        for variant, operation in operations.items():
            found = {r.point.prompt_len_tokens: r.times[operation] for r in rows if r.point.model == model}
            _line(axes, found, _past(rows, model), looks, model, variant)
            ends = [f"{quantity(e.value, 's')} at {at:,}" for at, e in sorted(found.items())]
            sentences.append(f"{model}, {variant}: {' to '.join(dict.fromkeys((ends[0], ends[-1])))} tokens.")
    values = [v for r in rows for o in operations.values() for v in (r.times[o].low, r.times[o].high)]
    _scale(sheet, rows, values, "s", "reply's first token after")
    methods = {e.method for r in rows for e in r.times.values()}
    bands = [words for method, words in _METHODS.items() if method in methods]
    how = dict.fromkeys(band_words(len(looks.models), words) for words in bands)
    turn = rows[0].turn_len_tokens
    return sheet.finish(
        "When the reply to a turn begins",
        " · ".join([f"a turn of {turn:,} tokens, batch 1", _runs(rows), *how]),
        _handles(rows, looks),
        sentences,
    )


def _state(rows: Sequence[ConversationRow]) -> DescribedFigure:
    looks = Looks(_models(rows))
    sheet = Sheet()
    [axes] = sheet.axes
    sentences = []
    for model in looks.models:
        found = {
            r.point.prompt_len_tokens: Estimate(r.state_bytes, r.state_bytes, r.state_bytes, 1, "single")
            for r in rows
            if r.point.model == model and r.state_bytes is not None
        }
        _line(axes, found, _past(rows, model), looks, model, "")
        ends = [f"{quantity(e.value, 'bytes')} at {at:,}" for at, e in sorted(found.items())]
        sentences.append(f"{model}: {' to '.join(dict.fromkeys((ends[0], ends[-1])))} tokens.")
    values = [float(r.state_bytes) for r in rows if r.state_bytes]
    _scale(sheet, rows, values, "bytes", "state of one conversation")
    return sheet.finish(
        "What a kept conversation takes",
        f"the live state, walked · {rows[0].point.dtype} · batch 1",
        _handles(rows, looks),
        sentences,
    )


DRAW: Final[dict[str, Callable[[Sequence[ConversationRow]], DescribedFigure]]] = {
    "conversation_reply": _reply,
    "conversation_state": _state,
}
"""By name, from rows that `drawable_rows` gave."""


def _past(rows: Sequence[ConversationRow], model: str) -> set[int]:
    """Return the histories that are longer than a model was trained on."""
    return {r.point.prompt_len_tokens for r in rows if r.point.model == model and r.past_training_length}


def _handles(rows: Sequence[ConversationRow], looks: Looks) -> list[Line2D]:
    handles = looks.handles(list(looks.models))
    if any(row.past_training_length for row in rows):
        hollow = {"marker": "o", "markersize": 5, "markerfacecolor": PAPER, "markeredgewidth": 1.3}
        handles.append(Looks.extra("past the training length", **hollow))
    return handles


def _models(rows: Sequence[ConversationRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.point.model for row in rows))


def _runs(rows: Sequence[ConversationRow]) -> str:
    counts = sorted({row.n_processes for row in rows})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{n} {'process' if counts[-1] == 1 else 'processes'} a point"


def _line(
    axes: Axes, found: dict[int, Estimate], past: set[int], looks: Looks, model: str, variant: str
) -> None:
    xs = sorted(found)
    by: Callable[[str], list[float]] = lambda end: [getattr(found[x], end) for x in xs]  # noqa: E731
    colour = looks.colour(model)
    axes.plot(
        xs, by("value"), color=colour, linestyle=looks.line_style(variant), label=f"{model} {variant}".strip()
    )
    for hollow in (False, True):
        marked = [(x, found[x].value) for x in xs if (x in past) == hollow]
        if marked:
            style = looks.marker_style(model, hollow=hollow)
            axes.plot(*zip(*marked, strict=True), linestyle="none", zorder=3, label="_marks", **style)
    axes.fill_between(
        xs, by("low"), by("high"), color=colour, alpha=band_opacity(len(looks.models)), linewidth=0
    )


def _scale(
    sheet: Sheet, rows: Sequence[ConversationRow], values: Sequence[float], unit: Unit, label: str
) -> None:
    [axes] = sheet.axes
    lengths = sorted({row.point.prompt_len_tokens for row in rows})
    scale_counts(axes, lengths, "history (tokens)", width_inches=sheet.panel_inches)
    scale_values(axes, values, unit, label, log=spans_decades(values))
