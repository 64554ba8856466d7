"""Which model is better, by how much and how surely: candidates against the baseline.

section = comparison_section(Rows(runs))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from mambabench.report.document import EMPTY, Block, Cell, Column, Section, Table, Tone
from mambabench.report.format import Row, Rows, harmless, integer, plural, unique
from mambabench.report.sections.layout import (
    MOST_PLAIN_COLUMNS,
    earlier_checkpoints,
    findings,
    first_rows,
    grids,
    table,
)
from mambabench.tables.compare.format import interval, p_value, signed, value

OVERALL: Final = "overall"
"""Name of the mean over tasks among the tasks of frame contrasts."""
_FEW_CANDIDATES: Final = 3
_MOST_FURTHER: Final = 30
"""Rows of a table of measures other than the tasks' first."""
_TONES: Final[dict[str, Tone]] = {"better": "good", "worse": "bad", "not tested": "faint"}
_SHORT: Final = {"pt": " pt", "%": "%", "bits/byte": " bits/byte", "nats": " nats"}
_IN_HEADS: Final = {"pt": "points"}
_FURTHER: Final = {
    "further metrics": "Further metrics",
    "log-likelihoods": "Log-likelihood of the right answers",
}
_Measured = tuple[str, str]


def comparison_section(rows: Rows, problem: str = "") -> Section | None:
    """Return the section, or None where there is nothing to compare.

    Args:
        rows: of the frames.
        problem: why several models were not compared.
    """
    contrasts = without_earlier(rows)
    if not contrasts:
        if not problem or len(unique(row["label"] for row in rows("scores"))) < 2:
            return None
        return Section("comparison", "Which is better", (), f"Nothing was compared: {harmless(problem)}")
    baseline = contrasts[0]["baseline"]
    candidates = unique(row["candidate"] for row in contrasts)
    main = [row for row in contrasts if row["headline"] and row["family"] not in _FURTHER]
    main += [row for row in contrasts if row["task"] == OVERALL and row not in main]
    title = f"Differences from {baseline}"
    blocks: list[Block] = []
    few = len(candidates) <= _FEW_CANDIDATES
    if main:
        blocks += [_long("comparison", title, main, candidates)] if few else _apart(title, main, candidates)
    hidden = []
    for family, heading in _FURTHER.items():
        found = [row for row in contrasts if row["family"] == family and row not in main]
        if found and few and len(found) <= _MOST_FURTHER:
            blocks.append(_long(f"comparison-{family.replace(' ', '-')}", heading, found, candidates))
        elif found:
            hidden.append(f"{heading.lower()} ({plural(len(found), 'row')})")
    said = findings(rows, ("comparison",), tuple(f"{name} " for name in candidates))
    lead = (
        f"A difference is the model's value less that of {baseline}. Intervals are of 95% each, p-values are "
        "adjusted for the number of tests, and a verdict is given only where a test shows it."
    )
    if len(candidates) > 1:
        lead += f" Models are tested against {baseline} and not against each other."
    if hidden:
        lead += f" Not shown: {' and '.join(hidden)}, in frame contrasts."
    return Section("comparison", "Which is better, and how sure is that", (*blocks, *said), lead)


def without_earlier(rows: Rows) -> list[Row]:
    """Return contrasts without those of a training's earlier checkpoints, which are shown by step."""
    earlier = earlier_checkpoints(rows)
    return [row for row in rows("contrasts") if row["candidate"] not in earlier]


def _long(key: str, title: str, found: list[Row], candidates: Sequence[str]) -> Table:
    """Return a table with a row for each measure and candidate."""
    counts = Counter(row["effect_unit"] or "" for row in found)
    usual = max(counts, key=lambda unit: counts[unit])
    columns = [
        Column("task"),
        Column("metric"),
        Column("model"),
        Column(found[0]["baseline"], numeric=True),
        Column(candidates[0] if len(candidates) == 1 else "value", numeric=True),
        Column("difference [95%]", _IN_HEADS.get(usual, usual), numeric=True),
        Column("verdict"),
        Column("p adjusted", numeric=True),
        Column("won/lost", numeric=True, note="items that only the one or only the other has right"),
        Column("items", numeric=True, note="compared"),
    ]
    order = {task: i for i, task in enumerate(unique(_task(row) for row in found))}
    lines = sorted(found, key=lambda row: (row["task"] == OVERALL, order[_task(row)]))
    body = [
        [
            Cell(_task(row)),
            Cell("accuracies" if row["task"] == OVERALL else row["measure"] or ""),
            Cell(row["candidate"] if len(candidates) > 1 else ""),
            _plain(row["baseline_value"], row["unit"]),
            _plain(row["candidate_value"], row["unit"]),
            _difference(row, with_unit=(row["effect_unit"] or "") != usual),
            _verdict(row),
            _p(row),
            _won_lost(row),
            integer(row["n_items"]),
        ]
        for row in lines
    ]
    if len(candidates) > 1 and len({(row["task"], row["measure"]) for row in found}) == 1:
        columns, body = columns[2:], [cells[2:] for cells in body]
        title = (
            f"{title}: {_task(lines[0])}{'' if lines[0]['task'] == OVERALL else ', ' + lines[0]['measure']}"
        )
    tests = unique(row["test"] or None for row in lines)
    notes = [f"Tests: {', '.join(tests)}."] if tests else []
    if any(row["paired"] is False for row in found):
        notes.append("Unpaired: compared by totals only, without single items, which shows less.")
    return table(key, title, "contrasts", columns, body, notes)


def _apart(title: str, found: list[Row], candidates: Sequence[str]) -> list[Table]:
    """Return the mean over tasks in full, and single tasks side by side."""
    overall = [row for row in found if row["task"] == OVERALL]
    tables = []
    if overall:
        shown, more = first_rows(overall, "contrasts", "model")
        whole = _long("comparison", title, shown, candidates)
        tables.append(replace(whole, notes=(*whole.notes, *more)))
    tasks = [row for row in found if row["task"] != OVERALL]
    return tables + (_wide(f"{title}: single tasks", tasks, candidates) if tasks else [])


def _wide(title: str, found: list[Row], candidates: Sequence[str]) -> list[Table]:
    """Return tables with a row for each candidate and a column for each task."""
    # Labels of a user's suite need not tell tasks apart.
    by = {(row["candidate"], (row["task"], row["measure"] or "")): row for row in found}
    heads: dict[_Measured, Row] = {}
    shown, more = first_rows(candidates, "contrasts", "model")
    for row in found:
        heads.setdefault((row["task"], row["measure"] or ""), row)
    columns = [
        (
            Column(_task(row), _unit_of(head, row), numeric=True),
            _at(shown, by, head),
        )
        for head, row in heads.items()
    ]
    return grids(
        "comparison-tasks",
        title,
        "contrasts",
        heads=[Column("model")],
        names=[(Cell(name),) for name in shown],
        columns=columns,
        most=MOST_PLAIN_COLUMNS,
        notes=[
            "Where no word follows, the two are not distinguishable. Intervals are in frame contrasts.",
            *more,
        ],
    )


def _unit_of(head: _Measured, row: Row) -> str:
    return ", ".join(part for part in (head[1], row["effect_unit"]) if part)


def _at(
    candidates: Sequence[str], by: Mapping[tuple[str, _Measured], Row], head: _Measured
) -> Callable[[int], Cell]:
    def cell(i: int) -> Cell:
        row = by.get((candidates[i], head))
        if row is None:
            return EMPTY
        if row["difference"] is None:
            return Cell("not tested", tone="faint")
        word = "" if row["verdict"] == "not distinguishable" else f" {row['verdict']}"
        text = signed(row["difference"], row["effect_unit"] or "", _width(row))
        return Cell(f"{text}{word}", (row["difference"],), _TONES.get(row["verdict"], ""))

    return cell


def _task(row: Row) -> str:
    if row["task"] == OVERALL:
        return "mean over tasks"
    return row["task_label"] or row["task"] or ""


def _plain(number: float | None, unit: str | None) -> Cell:
    return EMPTY if number is None else Cell(value(number, unit or ""), (number,))


def _width(row: Row) -> float | None:
    low, high = row["interval_low"], row["interval_high"]
    return None if low is None or high is None else high - low


def _difference(row: Row, *, with_unit: bool) -> Cell:
    if row["difference"] is None:
        return EMPTY
    unit = row["effect_unit"] or ""
    text = signed(row["difference"], unit, _width(row)) + (_SHORT.get(unit, "") if with_unit else "")
    ends = interval(row["interval_low"], row["interval_high"], unit)
    if not ends:
        return Cell(text, (row["difference"],))
    return Cell(f"{text} [{ends}]", (row["difference"], row["interval_low"], row["interval_high"]))


def _won_lost(row: Row) -> Cell:
    if row["n_won"] is None or row["n_lost"] is None:
        return EMPTY
    return Cell(f"{row['n_won']:,}/{row['n_lost']:,}", (row["n_won"], row["n_lost"]))


def _p(row: Row) -> Cell:
    p = row["p_adjusted"]
    return EMPTY if p is None else Cell(p_value(p), (p,))


def _verdict(row: Row) -> Cell:
    verdict = row["verdict"] or ""
    if verdict == "equivalent" and row["margin"] is not None:
        text = f"equivalent within ±{row['margin']:.3g}{_SHORT.get(row['effect_unit'] or '', '')}"
        return Cell(text, (row["margin"],))
    unpaired = " (unpaired)" if row["paired"] is False else ""
    return Cell(f"{verdict}{unpaired}", tone=_TONES.get(verdict, ""))
