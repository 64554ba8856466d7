"""What figures say in words: the line under the title, the legend, sentences for who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.plots.palette import FAINT, MUTED, PAPER
from mambabench.plots.speed.lanes import FAILED_WORDS, has_failed
from mambabench.plots.speed.looks import Looks
from mambabench.plots.speed.scales import Unit, quantity
from mambabench.plots.speed.series import Plan, at, past_training

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

    from mambabench.plots.speed.quantity import Quantity, Reference
    from mambabench.stats.replicates import Estimate
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

_METHODS = {"t on log": "95% intervals", "range": "ranges over processes"}


def in_words(found: Estimate, unit: Unit) -> str:
    """Return an estimate with its interval or range."""
    low, high = quantity(found.low, unit), quantity(found.high, unit)
    value = _named(found.value, unit)
    return value if low == high else f"{value} ({low} to {high})"


def subtitle(
    table: SpeedTable,
    rows: Sequence[SpeedRow],
    notes: Sequence[str],
    what: Quantity | None = None,
    *,
    drawn: str = "bands",
) -> str:
    """Say on what machine, in what arm and how often something was measured, and what bands are.

    Args:
        table: whose machine it is.
        rows: that are drawn.
        notes: what else to say of them, in the middle.
        what: whose estimates are drawn; None for values without intervals.
        drawn: name of what shows the intervals.
    """
    devices = {r.point.device for r in rows}
    names = dict.fromkeys(c.device_name for c in table.ceilings if c.device in devices and c.device_name)
    estimates = [] if what is None else [e for r in rows if (e := what.of(r)) is not None]
    parts = [", ".join(names), *notes]
    if estimates:
        counts = sorted({e.n for e in estimates})
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        parts.append(f"{n} {'process' if counts[-1] == 1 else 'processes'} a point")
        methods = [words for method, words in _METHODS.items() if method in {e.method for e in estimates}]
        parts.append(f"{drawn} are {' or '.join(methods)}" if methods else "one process shows no interval")
    if table.partial:
        parts.append("partial: not everything was measured")
    return " · ".join(filter(None, parts))


def sentences(plan: Plan, what: Quantity) -> list[str]:
    """Say of each line where it begins and ends, and what failed."""
    found = []
    for series in plan.series:
        measured = [(r, e) for r in series.rows if (e := what.of(r)) is not None]
        ends = [f"{_named(e.value, what.unit)} at {_place(r, plan)}" for r, e in measured]
        parts = [" to ".join(dict.fromkeys((ends[0], ends[-1])))] if ends else []
        for status, word in FAILED_WORDS.items():
            places = [_place(r, plan) for r in series.rows if r.status == status]
            parts += [f"{word} at {', '.join(places)}"] if places else []
        found.append(f"{series.full_label}: {'; '.join(parts)}.")
    return found


def mark_handles(plan: Plan, looks: Looks, references: Sequence[Reference]) -> list[Line2D]:
    """Return the legend's entries besides models and variants: marks, and lines that figures are held to."""
    handles = []
    if any(past_training(r) and not has_failed(r) for r in plan.rows):
        handles.append(
            looks.extra("past training length", marker="o", markerfacecolor=PAPER, markeredgewidth=1.3)
        )
    if any(map(has_failed, plan.rows)):
        handles.append(looks.extra("failed", marker="x", markeredgewidth=1.5))
    for reference in {r.name: r for r in references}.values():
        style = reference.style(None)
        style["color"] = style["color"] if reference.model is None else MUTED
        handles.append(looks.extra(style.pop("label").removeprefix("_"), **style))
    if any(panel.muted for panel in plan.panels):
        name = ", ".join(["other models", *plan.variants[:1]])
        handles.append(looks.extra(name, linestyle="solid", color=FAINT))
    return handles


def _named(value: float, unit: Unit) -> str:
    return f"{quantity(value, unit)} tokens/s" if unit == "tokens/s" else quantity(value, unit)


def _place(row: SpeedRow, plan: Plan) -> str:
    place = at(row, plan.x)
    return f"batch {place:,}" if plan.x == "batch_size" else f"{place:,} tokens"
