"""Loss by position in the document, one line a model.

    figure = draw_loss_by_position(table)       # null where nothing was predicted
    save(figure, Path("loss.svg"))

A marker stands in the middle of its positions on the logarithmic axis. Bands are 95% intervals by document,
hollow markers lie past the training length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.plots import shortened
from mambabench.plots.palette import MUTED, PAPER
from mambabench.plots.speed.looks import Looks, band_opacity, band_words
from mambabench.plots.speed.scales import scale_counts, tokens_text
from mambabench.plots.speed.sheet import Sheet, above, sheet_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.tables.longcontext.perplexity import PerplexityRow, PerplexityTable, PositionRow

_FIRST_POINTS, _LANE_POINTS = 7.0, 11.0
_ROOM = 0.06
_MOST_TICKS = 13
_MOST_TITLE_LETTERS = 60


def draw_loss_by_position(table: PerplexityTable) -> DescribedFigure | None:
    """Draw the figure of a table; None where no model has a loss."""
    rows = [row for row in table.rows if row.positions]
    if not rows:
        return None
    with sheet_style():
        return _draw(table, rows)


def _draw(table: PerplexityTable, rows: Sequence[PerplexityRow]) -> DescribedFigure:
    looks = Looks(table.models)
    # Buckets end at powers of two, whatever the length of the longest document.
    edges = sorted({p.first_token for row in rows for p in row.positions} - {0})
    edges.append(max(16, 2 * edges[-1] if edges else 16))
    ends = (edges[0] // 2, edges[-1])
    marks = _training_marks(rows, ends)
    sheet = Sheet(lanes=max((lane for _, _, lane in marks), default=-1) + 1)
    axes = sheet.axes[0]
    for row in rows:
        _draw_row(axes, row, looks)
    # Of many powers of two every other one, rather than whichever have room.
    ticks = edges if len(edges) <= _MOST_TICKS else edges[::-2][::-1]
    scale_counts(axes, ticks, "position in the document (tokens)", width_inches=sheet.panel_inches, ends=ends)
    _scale_losses(axes, rows)
    for length, models, lane in marks:
        _draw_training(axes, length, models, lane, looks, ends, of_all=len(models) == len(rows))
    handles = looks.handles([row.model for row in rows])
    contexts = {row.context for row in rows}
    if len(contexts) > 1:
        for handle, row in zip(handles, rows, strict=True):
            handle.set_label(f"{shortened(row.model)}, {row.context}")
    if any(place.past_training_length for row in rows for place in row.positions):
        handles.append(
            looks.extra(
                "past the training length", marker="o", markersize=5, markerfacecolor=PAPER,
                markeredgecolor=MUTED, markeredgewidth=1.3,
            )
        )  # fmt: skip
    return sheet.finish("Loss by position", _subtitle(table, rows, contexts), handles, list(table.words))


def _subtitle(table: PerplexityTable, rows: Sequence[PerplexityRow], contexts: set[str]) -> str:
    title = (
        table.title if len(table.title) <= _MOST_TITLE_LETTERS else f"{table.title[:_MOST_TITLE_LETTERS]}…"
    )
    parts = [title]
    if len(contexts) == 1:
        parts.append(next(iter(contexts)))
    with_bands = any(p.loss_nats.low is not None for row in rows for p in row.positions)
    bands = band_words(len(table.models), "bands: 95% intervals by document")
    parts.append(bands if with_bands else "one document, so no intervals")
    if len({(row.n_tokens, row.n_bytes) for row in rows}) > 1:
        parts.append("tokenizers differ: compare shapes, not heights")
    if table.partial:
        parts.append("PARTIAL: not all of it was evaluated")
    return "; ".join(parts)


def _middle(place: PositionRow) -> float:
    """Return where a bucket stands: in the middle of its logarithmic width; the first one's begins at 8."""
    return math.sqrt((place.first_token or 8) * max(place.end_token, 9))


def _draw_row(axes: Axes, row: PerplexityRow, looks: Looks) -> None:
    colour = looks.colour(row.model)
    xs = [_middle(place) for place in row.positions]
    axes.plot(xs, [p.loss_nats.value for p in row.positions], color=colour, label=shortened(row.model))
    low = [math.nan if p.loss_nats.low is None else p.loss_nats.low for p in row.positions]
    high = [math.nan if p.loss_nats.high is None else p.loss_nats.high for p in row.positions]
    axes.fill_between(
        xs, low, high, color=colour, alpha=band_opacity(len(looks.models)), linewidth=0, label="_band"
    )
    for place, x, (bottom, top) in zip(row.positions, xs, zip(low, high, strict=True), strict=True):
        alone = len(xs) == 1
        if alone and not math.isnan(bottom):
            axes.plot([x, x], [bottom, top], color=colour, label="_band")
        axes.plot(
            [x], [place.loss_nats.value], linestyle="none", zorder=3, label="_mark",
            **looks.marker_style(row.model, hollow=place.past_training_length),
        )  # fmt: skip


def _scale_losses(axes: Axes, rows: Sequence[PerplexityRow]) -> None:
    """Show all losses; a band that is much wider than they are is cut."""
    from matplotlib.ticker import MaxNLocator

    every = [p.loss_nats.value for row in rows for p in row.positions]
    # What overflowed is a gap of its line.
    losses = [loss for loss in every if math.isfinite(loss)] or [0.0]
    reach = max(max(losses) - min(losses), 0.05 * max(losses), 1e-3)
    ends = [
        end for row in rows for p in row.positions for end in (p.loss_nats.low, p.loss_nats.high)
        if end is not None and min(losses) - reach / 2 <= end <= max(losses) + reach / 2
    ]  # fmt: skip
    low, high = min([*losses, *ends]), max([*losses, *ends])
    axes.set_ylim(low - _ROOM * reach, high + _ROOM * reach)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel("loss (nats a token)")


def _training_marks(
    rows: Sequence[PerplexityRow], ends: tuple[int, int]
) -> list[tuple[int, list[PerplexityRow], int]]:
    """Return training lengths within the axis with their models and the lane that their words stand in."""
    found: dict[int, list[PerplexityRow]] = {}
    for row in rows:
        length = row.training_length_tokens
        if length is not None and ends[0] <= length <= ends[1]:
            found.setdefault(length, []).append(row)
    # Few models differ in it, so that each has a lane of its own.
    return [(length, found[length], lane) for lane, length in enumerate(sorted(found))]


def _draw_training(
    axes: Axes,
    length: int,
    models: Sequence[PerplexityRow],
    lane: int,
    looks: Looks,
    ends: tuple[int, int],
    *,
    of_all: bool,
) -> None:
    one = models[0].model if len(models) == 1 and not of_all else None
    names = "" if of_all else f" ({', '.join(shortened(row.model) for row in models[:2])})"
    colour = looks.colour(one) if one else MUTED
    axes.axvline(length, color=colour, linewidth=0.8, alpha=0.7, zorder=1.5, label="_training")
    place = math.log(length / ends[0]) / math.log(ends[1] / ends[0])
    side = "left" if place < 0.25 else "right" if place > 0.75 else "center"
    axes.text(
        length, 1.0, f"trained on {tokens_text(length)}{names}", fontsize=7.5, ha=side,
        transform=above(axes, _FIRST_POINTS + lane * _LANE_POINTS), va="center_baseline",
        color=looks.text_colour(one) if one else MUTED,
    )  # fmt: skip
