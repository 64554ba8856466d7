"""What a model gives beside what it takes, and which models nothing beats at both.

section = quality_section(Rows(runs))
"""

from __future__ import annotations

import re
from typing import Final

from mambabench.report.document import EMPTY, Cell, Column, Section, Table
from mambabench.report.format import Row, Rows, figure, integer, measured, number, seconds, size
from mambabench.report.sections.layout import findings, first_rows, slug, table
from mambabench.tables.speed.format import Write

_COSTS: Final[dict[str, tuple[str, str, Write]]] = {
    "ttft_s": ("time to first token", "", seconds),
    "tpot_s": ("time per token", "", seconds),
    "peak_bytes": ("peak memory", "", size),
    "gross_j_per_token": ("energy", "J/token", number),
}
_PROMPT: Final = re.compile(r"prompts? of [\d,]+ tokens?, |, prompts? of [\d,]+ tokens?")
"""Part of a setting that the column of lengths says."""


def quality_section(rows: Rows) -> Section | None:
    """Return the section, or None where no model has both a quality and a cost."""
    found = [row for row in rows("quality_cost") if row["cost_value"] is not None]
    if not found:
        return None
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        setting = _PROMPT.sub("", row["setting"] or "")
        groups.setdefault((row["quality"] or "", setting), []).append(row)
    tables = []
    for i, ((quality, setting), own) in enumerate(groups.items(), 1):
        key = "quality-cost" if len(groups) == 1 else f"quality-cost-{i}"
        tables.append(_table(key, quality, setting, own))
    lead = (
        "Starred costs are on the front: by values and not by intervals no other model of the table gives as "
        "much for less at that length. Where there is no other model there is no star. "
        "Only costs that were measured at the same setting stand in one table."
    )
    return Section(
        "quality-and-cost", "What a model gives for what it takes",
        (*tables, *findings(rows, ("quality and cost",))), lead,
    )  # fmt: skip


def _table(key: str, quality: str, setting: str, own: list[Row]) -> Table:
    lines: dict[tuple[str, int | None], dict[str, Row]] = {}
    for row in own:
        lines.setdefault((row["label"], row["length_tokens"]), {})[row["cost"]] = row
    used = {cost for by in lines.values() for cost in by}
    costs = [*(cost for cost in _COSTS if cost in used), *sorted(used - _COSTS.keys())]
    columns = [
        Column("model"),
        Column("length", "tokens", numeric=True),
        Column(f"{quality} [95%]", "%", numeric=True),
    ]
    for cost in costs:
        heading, unit, _ = _COSTS.get(cost, (cost, "", number))
        columns.append(Column(heading, unit, numeric=True))
    models: dict[tuple[str, int | None], set[str]] = {}
    for row in own:
        models.setdefault((row["cost"], row["length_tokens"]), set()).add(row["label"])
    body = []
    for (label, length), by in lines.items():
        first = next(iter(by.values()))
        value = figure(
            first["quality_percent"], "%", first["quality_low_percent"], first["quality_high_percent"]
        )
        spent = [_cost(by.get(cost), contested=len(models.get((cost, length), ())) > 1) for cost in costs]
        body.append([Cell(label), integer(length), value, *spent])
    shown, notes = first_rows(body, "quality_cost", "line")
    title = f"{quality[:1].upper()}{quality[1:]} and cost{f': {setting}' if setting else ''}"
    return table(slug(key), title, "quality_cost", columns, shown, notes)


def _cost(row: Row | None, *, contested: bool) -> Cell:
    if row is None:
        return EMPTY
    write = _COSTS.get(row["cost"], ("", "", number))[2]
    found = measured(row["cost_value"], write, row["cost_low"], row["cost_high"])
    if not (contested and row["on_front"]):
        return found
    return Cell(f"{found.text} *", found.numbers, "good")
