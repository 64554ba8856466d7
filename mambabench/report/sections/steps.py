"""How checkpoints of a training went: first, last and best step of each task, and every step.

section = steps_section(Rows(runs))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mambabench.report.document import EMPTY, Block, Cell, Column, Section, Table
from mambabench.report.format import Row, Rows, figure, integer, unique
from mambabench.report.sections.comparison import OVERALL
from mambabench.report.sections.layout import (
    MOST_PLAIN_COLUMNS,
    MOST_ROWS,
    findings,
    first_rows,
    grids,
    slug,
    table,
)

_KINDS: Final = ("steps", "training steps", "curves")
_Curve = tuple[str, str, str]
"""Series, task and metric."""


def steps_section(rows: Rows) -> Section | None:
    """Return the section, or None where no training has two steps."""
    found = rows("steps")
    if not found:
        return None
    by: dict[_Curve, list[Row]] = {}
    for row in found:
        by.setdefault((row["series"], row["task"], row["metric"]), []).append(row)
    for line in by.values():
        line.sort(key=lambda row: row["step"] or 0)
    heads = {curve: line for curve, line in by.items() if line[0]["headline"] or curve[1] == OVERALL}
    series = unique(row["series"] for row in found)
    blocks: list[Block] = [_summary(heads or by)]
    for name in series:
        lines = {curve: line for curve, line in (heads or by).items() if curve[0] == name}
        if max(map(len, lines.values()), default=0) <= MOST_ROWS:
            blocks += _every_step(name, lines, key=f"steps-{slug(name)}-{series.index(name) + 1}")
    blocks += findings(rows, _KINDS)
    lead = (
        "Values of each task's first metric by training step. The best of many steps is partly luck: steps "
        "that may be as good are those that the items do not tell from it."
    )
    return Section("training-steps", "Training steps", tuple(blocks), lead)


def _summary(by: Mapping[_Curve, list[Row]]) -> Table:
    columns = [
        Column("training"),
        Column("task"),
        Column("metric"),
        Column("first step", numeric=True),
        Column("value there", numeric=True),
        Column("last step", numeric=True),
        Column("value there", numeric=True),
        Column("best step", numeric=True),
        Column("value there [95%]", numeric=True),
        Column("may be as good", numeric=True, note="steps, of those with a value"),
    ]
    body = [_curve(curve, line) for curve, line in by.items()]
    shown, notes = first_rows(body, "steps", "curve")
    return table("steps", "First, last and best step", "steps", columns, shown, notes)


def _curve(curve: _Curve, line: Sequence[Row]) -> list[Cell]:
    known = [row for row in line if row["value"] is not None]
    best = next((row for row in known if row["best"]), None)
    names = [Cell(curve[0]), Cell(_task(line[0])), Cell(_metric(line[0]))]
    if not known:
        return [*names, *(Cell("no value", tone="bad") if i == 0 else EMPTY for i in range(7))]
    first, last = known[0], known[-1]
    ends = [integer(first["step"]), _value(first), integer(last["step"]), _value(last)]
    if best is None:
        return [*names, *ends, EMPTY, EMPTY, EMPTY]
    tested = [row for row in known if row["contender"] is not None]
    n = sum(bool(row["contender"]) for row in tested)
    # Counts of rows are in no frame.
    as_good = Cell(f"{n:,} of {len(known):,}") if tested else EMPTY
    found = figure(best["value"], best["unit"] or "", best["interval_low"], best["interval_high"])
    return [*names, *ends, integer(best["step"]), found, as_good]


def _every_step(name: str, lines: Mapping[_Curve, list[Row]], key: str) -> list[Table]:
    steps = sorted({row["step"] for line in lines.values() for row in line if row["step"] is not None})
    columns = [
        (
            Column(_task(line[0]), _metric(line[0]), numeric=True),
            _at({row["step"]: row for row in line}, steps),
        )
        for line in lines.values()
    ]
    return grids(
        key,
        f"Every step of {name}",
        "steps",
        heads=[Column("step", numeric=True)],
        names=[(integer(step),) for step in steps],
        columns=columns,
        most=MOST_PLAIN_COLUMNS,
        notes=["With a star the best of a column, with ~ what may be as good as that."],
    )


def _at(by: Mapping[int, Row], steps: Sequence[int]) -> Callable[[int], Cell]:
    def cell(i: int) -> Cell:
        row = by.get(steps[i])
        if row is None or row["value"] is None:
            return EMPTY
        plain = _value(row)
        if row["best"]:
            return Cell(f"{plain.text} *", plain.numbers, "good")
        return Cell(f"{plain.text} ~", plain.numbers) if row["contender"] else plain

    return cell


def _task(row: Row) -> str:
    return "mean over tasks" if row["task"] == OVERALL else row["task_label"] or row["task"] or ""


def _metric(row: Row) -> str:
    return ", ".join(part for part in (row["metric"], row["unit"]) if part)


def _value(row: Row) -> Cell:
    return figure(row["value"], row["unit"] or "")
