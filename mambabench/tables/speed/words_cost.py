"""What a memory sweep says where it timed as well: the peak and the speed of each model side by side.

for sentence in cost_words(table, Field(table)):
    print(sentence)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mambabench.tables.speed.contenders import Field, Setting
from mambabench.tables.speed.format import number, size, with_interval

if TYPE_CHECKING:
    from mambabench.tables.speed.table import SpeedRow, SpeedTable


def cost_words(table: SpeedTable, field: Field) -> list[str]:
    """Say what each way of running took and how fast it decoded, at the first and the last setting."""
    if table.kind != "memory" or all(row.decode_tokens_per_s is None for row in table.rows):
        return []
    found: dict[Setting, list[str]] = {}
    for row in table.rows:
        contender, setting = field.place(row.point)
        if words := _cost(row):
            found.setdefault(setting, []).append(f"{field.name(contender)}: {words}")
    ends = dict.fromkeys((min(found), max(found)))
    return [f"Memory and speed at {field.at(setting)}: {'; '.join(found[setting])}." for setting in ends]


def _cost(row: SpeedRow) -> str:
    parts = []
    if row.peak_bytes is not None:
        # Processes mostly agree in memory, and then there is no range to speak of.
        alike = size(row.peak_bytes.low) == size(row.peak_bytes.high)
        peak = size(row.peak_bytes.value) if alike else with_interval(row.peak_bytes, size)
        parts.append(f"{peak} peak")
    if row.decode_tokens_per_s is not None:
        parts.append(f"{with_interval(row.decode_tokens_per_s, number, ' tokens/s')}")
    if row.status == "oom":
        parts.append("out of memory")
    return ", ".join(parts)
