"""Which line of a speed table says what a length costs a model.

cost_rows(table)[("mamba-130m", 4096)].ttft_s
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mambabench.tables.speed.contenders import Field

if TYPE_CHECKING:
    from mambabench.tables.speed.table import SpeedRow, SpeedTable


def cost_rows(table: SpeedTable) -> dict[tuple[str, int], SpeedRow]:
    """Return one row for each model and length of prompt: of its fastest arm, for the smallest batch.

    A point that failed in that arm is the row of its length all the same.
    """
    field = Field(table)
    found: dict[tuple[str, int], SpeedRow] = {}
    for model in table.models:
        mine = [row for row in table.rows if row.point.model == model]
        way = field.best(model) or field.place(mine[0].point)[0]
        alike = [row for row in mine if field.place(row.point)[0] == way]
        for row in sorted(alike, key=lambda r: (r.point.batch_size, r.point.gen_len_tokens)):
            found.setdefault((model, row.point.prompt_len_tokens), row)
    return found
