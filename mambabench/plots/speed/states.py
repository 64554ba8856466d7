"""State and cache of one sequence by length: spec as lines, measured as markers, where they meet as rings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mambabench.medians import covered_tokens
from mambabench.plots import shortened
from mambabench.plots.palette import TEXT
from mambabench.plots.speed.catalogue import layout_of, library_at
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.scales import quantity, scale_counts, scale_values, spans_decades, tokens_text
from mambabench.plots.speed.series import constants
from mambabench.plots.speed.sheet import Sheet
from mambabench.plots.speed.words import subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mambabench.plots.speed.described import DescribedFigure
    from mambabench.sizes import StateLayout
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

_N_GRID = 97
_MOST_LABELS = 12


@dataclass(frozen=True)
class _Held:
    """What one model holds for a sequence, in one dtype and one implementation's layout."""

    model: str
    dtype: str
    variant: str
    """Dtype and implementation as far as they tell lines of the figure apart; empty where nothing does."""
    layout: StateLayout | None
    """None where sizes are not known."""
    measured: tuple[tuple[int, float], ...]
    """(tokens covered, bytes), after prompt and generation."""

    @property
    def label(self) -> str:
        """Name of the line."""
        return ", ".join(filter(None, (shortened(self.model), self.variant)))


@dataclass(frozen=True)
class _Meeting:
    state: _Held
    cache: _Held
    tokens: float
    bytes: float


def draw_states(table: SpeedTable) -> DescribedFigure | None:
    """Draw bytes against tokens; None where no memory was measured."""
    rows = [r for r in table.rows if r.memory is not None]
    held = _held(table)
    if not held:
        return None
    meetings = _meetings(table, held)
    measured = [x for h in held for x, _ in h.measured]
    lowest = min([*measured, *(m.tokens / 2 for m in meetings)])
    highest = max([*measured, *(m.tokens * 2 for m in meetings)])
    span = (max(1, math.floor(lowest)), math.ceil(highest))
    span = (max(1, span[0] // 2), span[1] * 2) if span[0] == span[1] else span
    looks = Looks(table.models, tuple(dict.fromkeys(h.variant for h in held if h.variant)))
    sheet = Sheet(lanes=1)
    (axes,) = sheet.axes
    by_spec: list[float] = []
    for one in held:
        by_spec += _draw(axes, table, one, span, looks)
    everything = [*by_spec, *(b for h in held for _, b in h.measured)]
    ticks = _powers(span) or sorted({*measured, *span})
    scale_counts(
        axes, ticks, "tokens read (prompt and generation)", width_inches=sheet.panel_inches, ends=span
    )
    scale_values(axes, everything, "bytes", "state and cache of a sequence", log=spans_decades(everything))
    for meeting in meetings:
        axes.plot(
            [meeting.tokens], [meeting.bytes], linestyle="none", marker="o", markersize=10,
            markerfacecolor="none", markeredgecolor=TEXT, markeredgewidth=1.1, zorder=4,
            label="_break-even",
        )  # fmt: skip
        if len(meetings) <= _MOST_LABELS:
            # Below and right of a ring there is no line, unless the next ring is near.
            crowded = any(
                m.state == meeting.state and meeting.tokens < m.tokens < 2.5 * meeting.tokens
                for m in meetings
            )
            axes.annotate(
                tokens_text(round(meeting.tokens)), (meeting.tokens, meeting.bytes),
                xytext=(-5, 6) if crowded else (7, -9), ha="right" if crowded else "left",
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
    handles = looks.handles([m for m in table.models if any(h.model == m for h in held)])
    if meetings:
        handles.append(
            looks.extra("break-even context", color=TEXT, marker="o", markersize=9, markerfacecolor="none")
        )
    notes = [*constants(rows), "markers as measured", *(["lines from the spec"] if by_spec else [])]
    shown = subtitle(table, rows, notes)
    return sheet.finish("State and cache of a sequence by length", shown, handles, _sentences(held, meetings))


def _held(table: SpeedTable) -> list[_Held]:
    """Return the lines: implementations that hold a model's state in as many bytes share one."""
    found: dict[tuple[str, str, object], list[SpeedRow]] = {}
    for row in table.rows:
        if row.memory is not None:
            layout, sizes = layout_of(table, row), table.sizes.get(row.point.model)
            held: object = library_at(table, row)
            if layout is not None and sizes is not None:
                held = sizes.state_bytes(layout), sizes.kv_bytes_per_token(layout)
            found.setdefault((row.point.model, row.point.dtype, held), []).append(row)
    dtypes = {dtype for _, dtype, _ in found}
    lines = []
    for (model, dtype, _), rows in sorted(found.items(), key=lambda item: table.models.index(item[0][0])):
        libraries = dict.fromkeys(library_at(table, row) or "" for row in rows)
        several = len([True for key in found if key[:2] == (model, dtype)]) > 1
        words = [dtype if len(dtypes) > 1 else "", " and ".join(libraries) if several else ""]
        variant = ", ".join(filter(None, words))
        lines.append(_Held(model, dtype, variant, layout_of(table, rows[0]), _measured(rows)))
    return lines


def _measured(rows: Sequence[SpeedRow]) -> tuple[tuple[int, float], ...]:
    memories = [(r.point, r.memory) for r in rows if r.memory is not None]
    found = {covered_tokens(p, m): m.state_bytes / p.batch_size for p, m in memories}
    return tuple(sorted(found.items()))


def _meetings(table: SpeedTable, held: Sequence[_Held]) -> list[_Meeting]:
    from mambabench.sizes import break_even_tokens

    found = []
    for a, b in itertools.permutations(held, 2):
        sizes_a, sizes_b = table.sizes.get(a.model), table.sizes.get(b.model)
        layout_a, layout_b = a.layout, b.layout
        if sizes_a is None or sizes_b is None or layout_a is None or layout_b is None or a.dtype != b.dtype:
            continue
        if sizes_a.kv_elements_per_token == 0 < sizes_b.kv_elements_per_token:
            tokens = break_even_tokens(sizes_a, layout_a, sizes_b, layout_b)
            if tokens is not None and tokens >= 1:
                found.append(_Meeting(a, b, tokens, sizes_a.state_bytes(layout_a)))
    return sorted(found, key=lambda m: m.tokens)


def _draw(axes: Axes, table: SpeedTable, one: _Held, span: tuple[int, int], looks: Looks) -> list[float]:
    """Draw a model's line and its markers; return the line's values."""
    sizes, layout = table.sizes.get(one.model), one.layout
    values: list[float] = []
    if sizes is not None and layout is not None:
        ratio = span[1] / span[0]
        lengths = sorted({round(span[0] * ratio ** (i / (_N_GRID - 1))) for i in range(_N_GRID)})
        values = [float(sizes.state_bytes(layout, length_tokens=n)) for n in lengths]
        axes.plot(
            lengths,
            values,
            color=looks.colour(one.model),
            linestyle=looks.line_style(one.variant),
            label=one.label,
        )
    style = "none" if values else looks.line_style(one.variant)
    axes.plot(
        *zip(*one.measured, strict=True), linestyle=style, zorder=3, label=f"_measured {one.label}",
        **looks.marker_style(one.model),
    )  # fmt: skip
    return values


def _powers(span: tuple[int, int]) -> list[int]:
    """Return the powers of two in a span of more than a decade; measured lengths may cover little of it."""
    if not spans_decades(span):
        return []
    return [2**i for i in range(span[1].bit_length()) if span[0] <= 2**i <= span[1]]


def _sentences(held: Sequence[_Held], meetings: Sequence[_Meeting]) -> list[str]:
    found = []
    for one in held:
        ends = [f"{quantity(b, 'bytes')} after {tokens_text(n)} tokens" for n, b in one.measured]
        found.append(f"{one.label}: {' to '.join(dict.fromkeys((ends[0], ends[-1])))}.")
    for m in meetings:
        found.append(f"{m.state.label} and {m.cache.label} hold as much at {m.tokens:,.0f} tokens.")
    return found
