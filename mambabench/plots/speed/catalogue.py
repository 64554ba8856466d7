"""The figures that are drawn against length or batch size, and the physical lines beside them."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from mambabench.plots.speed.looks import LINE_STYLES
from mambabench.plots.speed.quantity import Quantity, Reference
from mambabench.plots.speed.scales import quantity
from mambabench.plots.speed.series import Axis, Series, at

if TYPE_CHECKING:
    from mambabench.sizes import StateLayout
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

DASHED, DOTTED = (0, (4, 2)), (0, (1, 1.5))


def library_at(table: SpeedTable, row: SpeedRow) -> str | None:
    """Return whose layout of the state a row's processes had; None where that is not known.

    Of a row that failed before it said so: that of the model's others, of the same arm if there are such.
    """
    from mambabench.tables.speed.table import library_of

    known = [r for r in table.rows if r.point.model == row.point.model and r.implementation]
    alike = [r for r in known if (r.point.arm, r.point.attention) == (row.point.arm, row.point.attention)]
    found = row if row.implementation else next(iter([*alike, *known]), None)
    return None if found is None else library_of(found.implementation)


def layout_of(table: SpeedTable, row: SpeedRow) -> StateLayout | None:
    """Return how a row's processes held the state; None where that or the model's sizes are not known."""
    from mambabench.sizes import layout_for

    sizes, library = table.sizes.get(row.point.model), library_at(table, row)
    return None if sizes is None or library is None else layout_for(library, row.point.dtype, sizes)


def decode_ceilings(table: SpeedTable, x: Axis, series: Series) -> list[Reference]:
    """Return the most tokens a second that the memory's bandwidth allows, by a copy and by the data sheet."""
    by_copy = _ceiling(table, x, series, measured=True)
    by_sheet = _ceiling(table, x, series, measured=False)
    found = []
    if by_copy:
        found.append(Reference("ceiling: bandwidth of a copy", by_copy, series.model, DASHED))
    if by_sheet:
        found.append(Reference("ceiling: data sheet", by_sheet, series.model, DOTTED, optional=True))
    return found


def weights_and_budget(table: SpeedTable, x: Axis, series: Series) -> list[Reference]:
    """Return the level of a model's weights, and the budget."""
    from mambabench.medians import budget_bytes

    found = []
    weights = tuple((at(r, x), float(r.memory.weights_bytes)) for r in series.rows if r.memory is not None)
    if weights:
        found.append(Reference("weights alone", weights, series.model, "solid", width=0.8, opacity=0.6))
    budgets = {budget_bytes(r) for r in table.replicates}
    for budget in sorted(b for b in budgets if b is not None):
        name = f"budget of {quantity(budget, 'bytes')}"
        found.append(Reference(name, ((0, float(budget)),), None, LINE_STYLES[2], optional=True))
    return found


QUANTITIES: dict[str, Quantity] = {
    "ttft": Quantity("Time to first token", "time to first token", "s", lambda r: r.ttft_s),
    "itl_depth": Quantity("Inter-token latency", "inter-token latency", "s", lambda r: r.tpot_s, depth=True),
    "decode_tokens_per_s": Quantity(
        "Decoding speed", "decoded tokens/s", "tokens/s", lambda r: r.decode_tokens_per_s,
        preferred="batch_size", references=decode_ceilings,
    ),
    "peak_memory": Quantity(
        "Peak memory", "peak memory", "bytes", lambda r: r.peak_bytes, references=weights_and_budget
    ),
}  # fmt: skip


def _ceiling(table: SpeedTable, x: Axis, series: Series, *, measured: bool) -> tuple[tuple[int, float], ...]:
    from mambabench.sizes import decode_ceiling_tokens_per_s

    found = []
    for row in series.rows:
        point = row.point
        sizes, layout = table.sizes.get(point.model), layout_of(table, row)
        bandwidth = _bytes_per_s(table, point.device, measured=measured)
        if sizes is None or layout is None or bandwidth is None:
            continue
        ceiling = decode_ceiling_tokens_per_s(
            sizes, layout, point.dtype, batch_size=point.batch_size,
            # Of the middle of the generation, as in the table.
            depth_tokens=point.prompt_len_tokens + point.gen_len_tokens // 2, bytes_per_s=bandwidth,
        )  # fmt: skip
        if math.isfinite(ceiling):
            found.append((at(row, x), ceiling))
    return tuple(found)


def _bytes_per_s(table: SpeedTable, device: str, *, measured: bool) -> float | None:
    here = [c for c in table.ceilings if c.device == device]
    if measured:
        # The best, as in the table.
        return max((figure for c in here for figure in c.copy_bytes_per_s), default=None)
    figures = [c.sheet_bytes_per_s for c in here if c.sheet_bytes_per_s is not None]
    return statistics.median(figures) if figures else None
