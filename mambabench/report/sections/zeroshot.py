"""How good the models are on tasks: an overview, every metric with its interval, and published figures.

section = zeroshot_section(Rows(runs))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mambabench.report.document import EMPTY, Block, Cell, Column, Section, Table, Tone
from mambabench.report.format import Row, Rows, figure, integer, plural, rounded, some, unique
from mambabench.report.sections.layout import (
    FEW_MODELS,
    MOST_PLAIN_COLUMNS,
    earlier_checkpoints,
    first_rows,
    grids,
    table,
)

_TONES: Final[dict[str, Tone]] = {
    "reproduced": "good", "differs": "bad", "failed": "bad", "partial": "doubt"
}  # fmt: skip
_MOST_ERRORS = 6
_FEW_FOR_ROWS = 3
_ALIKE = 0.5
"""Share of their tasks that models of one table have in common."""
_Line = tuple[str, str, str, int | None]
"""Task, metric, filter and worked examples: what stands in one line of a table."""


def zeroshot_section(rows: Rows) -> Section | None:
    """Return the section, or None where nothing was evaluated."""
    if not rows("scores"):
        return None
    kept, left_out = _without_steps(rows)
    groups = _groups(kept)
    blocks: list[Block] = []
    for i, group in enumerate(groups, 1):
        number = f"-{i}" if len(groups) > 1 else ""
        blocks += _tables(group, rows("averages"), number, _named(group) if number else "")
    lead = "Values in % unless a metric says otherwise, with their 95% intervals in brackets."
    return Section("zero-shot", "How good the models are", tuple(blocks), " ".join([lead, *left_out]))


def _without_steps(rows: Rows) -> tuple[list[Row], list[str]]:
    """Leave out the checkpoints of a training but its last."""
    scores, earlier = rows("scores"), earlier_checkpoints(rows)
    kept = [row for row in scores if row["label"] not in earlier]
    n = len({row["label"] for row in scores} & earlier)
    if not n or not kept:
        return scores, []
    return kept, [f"Not here: {plural(n, 'earlier checkpoint')} of a training, see Training steps."]


def _groups(scores: list[Row]) -> list[list[Row]]:
    """Return scores in groups of models that have most tasks in common, so that no table is mostly empty."""
    groups: list[tuple[set[_Line], list[Row]]] = []
    by_label: dict[str, list[Row]] = {}
    for row in scores:
        by_label.setdefault(row["label"], []).append(row)
    for own in by_label.values():
        lines = {_line(row) for row in own}
        for known, found in groups:
            if len(known & lines) >= _ALIKE * len(known | lines):
                known |= lines
                found += own
                break
        else:
            groups.append((lines, own))
    return [found for _, found in groups]


def _line(row: Row) -> _Line:
    return row["task"], row["metric"], row["filter"] or "none", row["n_fewshot"]


def _named(group: list[Row]) -> str:
    suites = unique(row["suite"] or None for row in group)
    return f": {some(suites, 2)}" if suites else ""


def _tables(group: list[Row], averages: list[Row], number: str, named: str) -> list[Table]:
    labels = unique(row["label"] for row in group)
    means = {row["label"]: row for row in averages if row["label"] in set(labels)}
    notes = _failures(group)
    if len(labels) == 1:
        return [_single(group, means.get(labels[0]), number, named, notes)]
    tables = _overview(group, labels, means, number, named)
    if len(labels) <= FEW_MODELS:
        tables += _by_task(group, labels, number, named, notes)
    else:
        tables += _by_model(group, labels, number, named, notes)
    return tables + _published(group, labels, number, named)


def _single(group: list[Row], mean: Row | None, number: str, named: str, notes: list[str]) -> Table:
    columns = [
        Column("task"),
        Column("metric"),
        Column("value [95%]", numeric=True),
        Column("items", numeric=True, note="scored, of those that the task has"),
        Column("chance", numeric=True, note="what guessing gives"),
        Column("published", numeric=True),
        Column("difference", numeric=True, note="value less published figure"),
        Column("verdict"),
    ]
    several = _shots_differ(group)
    body = [
        [
            Cell(_task(row, several)), Cell(_metric(row)), _value(row), _items(row),
            figure(row["chance"], row["unit"]), figure(row["reference"], row["unit"]), _difference(row),
            _verdict(row),
        ]
        for row in group
    ]  # fmt: skip
    if mean is not None:
        body.append(
            [
                Cell(f"average of {mean['n_tasks']}", frame="averages"), Cell("accuracies, %"),
                figure(mean["value"], "%", frame="averages"), EMPTY, EMPTY,
                figure(mean["reference"], "%", frame="averages"), EMPTY, EMPTY,
            ]
        )  # fmt: skip
    return table(
        f"zero-shot{number}", f"{group[0]['label']}{named}", "scores", columns, body,
        [*notes, *_sources(group)],
    )  # fmt: skip


def _overview(
    group: list[Row], labels: list[str], means: dict[str, Row], number: str, named: str
) -> list[Table]:
    """Return headline values alone, models in rows, as papers print them."""
    heads = [row for row in _lines(group) if row["headline"]]
    labels, more = first_rows(labels, "scores", "model")
    by = {(row["label"], _line(row)): row for row in group}
    columns = [
        (
            Column(_task(head, _shots_differ(group)), f"{_bare(head)} {_arrow(head)}", numeric=True),
            _cells(labels, by, _line(head), _headline),
        )
        for head in heads
    ]
    if means:
        columns.append(
            (
                Column("average", "% ↑", numeric=True, note="mean of the accuracies, one a task"),
                lambda i: _mean(means.get(labels[i])),
            )
        )
    n_tasks = unique(row["n_tasks"] for row in means.values())
    notes = more
    if len(n_tasks) > 1:
        notes.append("The averages are not over equally many tasks and do not compare.")
    if any(_is_partial(row) for row in heads):
        notes.append("Of some tasks not all items were scored.")
    return grids(
        f"zero-shot-overview{number}", f"Models and tasks{named}", "scores", heads=[Column("model")],
        names=[(Cell(label),) for label in labels], columns=columns, most=MOST_PLAIN_COLUMNS, notes=notes,
        layout="paper",
    )  # fmt: skip


def _by_task(group: list[Row], labels: list[str], number: str, named: str, notes: list[str]) -> list[Table]:
    by = {(row["label"], _line(row)): row for row in group}
    lines = _lines(group)
    several = _shots_differ(group)
    counts = [
        _alike([by[label, _line(row)] for label in labels if (label, _line(row)) in by]) for row in lines
    ]
    columns: list[tuple[Column, Callable[[int], Cell]]] = [
        (Column("items", numeric=True, note="scored, of those that the task has"), lambda i: counts[i]),
        (
            Column("chance", numeric=True, note="what guessing gives"),
            lambda i: figure(lines[i]["chance"], lines[i]["unit"]),
        ),
    ]
    for label in labels:
        columns.append((Column(label, numeric=True), _column(label, by, [_line(row) for row in lines])))
    return grids(
        f"zero-shot{number}", f"Every metric with its interval{named}", "scores",
        heads=[Column("task"), Column("metric")],
        names=[(Cell(_task(row, several)), Cell(_metric(row))) for row in lines],
        columns=columns, notes=notes,
    )  # fmt: skip


def _by_model(group: list[Row], labels: list[str], number: str, named: str, notes: list[str]) -> list[Table]:
    by = {(row["label"], _line(row)): row for row in group}
    labels, more = first_rows(labels, "scores", "model")
    columns = [
        (
            Column(_task(line, _shots_differ(group)), f"{_bare(line)} {_arrow(line)}", numeric=True),
            _cells(labels, by, _line(line), _value),
        )
        for line in _lines(group)
    ]
    return grids(
        f"zero-shot{number}", f"Every metric with its interval{named}", "scores", heads=[Column("model")],
        names=[(Cell(label),) for label in labels], columns=columns, notes=[*notes, *more],
    )  # fmt: skip


def _published(group: list[Row], labels: list[str], number: str, named: str) -> list[Table]:
    known = [row for row in group if row["reference"] is not None]
    if not known:
        return []
    title, several = f"Against published figures{named}", _shots_differ(group)
    key = f"published{number}"
    of = [label for label in labels if any(row["label"] == label for row in known)]
    if len(of) <= _FEW_FOR_ROWS:
        columns = [
            Column("task"), Column("metric"), Column("model"), Column("measured", numeric=True),
            Column("published", numeric=True), Column("difference", numeric=True), Column("verdict"),
        ]  # fmt: skip
        body = [
            [
                Cell(_task(row, several)), Cell(_metric(row)), Cell(row["label"]),
                figure(row["value"], row["unit"]), figure(row["reference"], row["unit"]), _difference(row),
                _verdict(row),
            ]
            for line in _lines(known) for row in known if _line(row) == _line(line)
        ]  # fmt: skip
        return [table(key, title, "scores", columns, body, _sources(known))]
    by = {(row["label"], _line(row)): row for row in known}
    wide = [
        (
            Column(_task(line, several), f"{_bare(line)} {_arrow(line)}", numeric=True),
            _cells(of, by, _line(line), _difference_in_words),
        )
        for line in _lines(known)
    ]
    note = "Measured less published. Where no word follows, the published figure was reproduced."
    return grids(
        key, title, "scores", heads=[Column("model")], names=[(Cell(label),) for label in of], columns=wide,
        most=MOST_PLAIN_COLUMNS, notes=[note, *_sources(known)],
    )  # fmt: skip


def _cells(
    labels: Sequence[str], by: dict[tuple[str, _Line], Row], line: _Line, cell: Callable[[Row], Cell]
) -> Callable[[int], Cell]:
    def at(i: int) -> Cell:
        row = by.get((labels[i], line))
        return EMPTY if row is None else cell(row)

    return at


def _column(label: str, by: dict[tuple[str, _Line], Row], lines: Sequence[_Line]) -> Callable[[int], Cell]:
    def at(i: int) -> Cell:
        row = by.get((label, lines[i]))
        return EMPTY if row is None else _value(row)

    return at


def _lines(group: list[Row]) -> list[Row]:
    """Return one row a line, in order: one with a value, as a failed one knows no unit."""
    found: dict[_Line, Row] = {}
    for row in group:
        line = _line(row)
        if line not in found or (found[line]["value"] is None and row["value"] is not None):
            found[line] = row
    return list(found.values())


def _shots_differ(group: list[Row]) -> bool:
    shots: dict[tuple[str, str, str], set[int | None]] = {}
    for row in group:
        shots.setdefault(_line(row)[:3], set()).add(row["n_fewshot"])
    return any(len(found) > 1 for found in shots.values())


def _task(row: Row, several: bool) -> str:
    name = row["task_label"] or row["task"] or ""
    return f"{name}, {row['n_fewshot']}-shot" if several and row["n_fewshot"] is not None else name


def _bare(row: Row) -> str:
    return row["metric"] if (row["filter"] or "none") == "none" else f"{row['metric']} ({row['filter']})"


def _metric(row: Row) -> str:
    return f"{_bare(row)}, {row['unit']}" if row["unit"] else _bare(row)


def _arrow(row: Row) -> str:
    return "" if row["higher_is_better"] is None else "↑" if row["higher_is_better"] else "↓"


def _is_partial(row: Row) -> bool:
    return None not in (row["n_items"], row["n_items_total"]) and row["n_items"] < row["n_items_total"]


def _missing(row: Row) -> Cell:
    failed = bool(row["error"]) or row["verdict"] == "failed"
    return Cell("failed" if failed else "no value", tone="bad", note=row["error"] or "")


def _value(row: Row) -> Cell:
    if row["value"] is None:
        return _missing(row)
    ends = row["interval_low"], row["interval_high"]
    tone: Tone = "doubt" if _is_partial(row) else ""
    return figure(row["value"], row["unit"], *ends, tone=tone, note=_of_items(row))


def _headline(row: Row) -> Cell:
    return _missing(row) if row["value"] is None else figure(row["value"], row["unit"], note=_of_items(row))


def _of_items(row: Row) -> str:
    return f"{_items(row).text} items" if _is_partial(row) else ""


def _items(row: Row) -> Cell:
    if not row["n_items"]:
        return EMPTY
    if not _is_partial(row):
        return integer(row["n_items"])
    numbers = row["n_items"], row["n_items_total"]
    return Cell(f"{numbers[0]:,} of {numbers[1]:,}", numbers, "doubt")


def _alike(rows: Sequence[Row]) -> Cell:
    cells = unique(cell for row in rows if (cell := _items(row)).text)
    return cells[0] if len(cells) == 1 else Cell("differ", tone="doubt") if cells else EMPTY


def _difference(row: Row) -> Cell:
    if row["difference"] is None:
        return EMPTY
    return Cell(_signed(row["difference"]), (row["difference"],))


def _signed(value: float) -> str:
    text = f"{value:+.2f}" if abs(value) < 1e5 else f"{value:+.2e}"
    return text[1:] if not text.strip("+-0.") else text


def _difference_in_words(row: Row) -> Cell:
    if row["difference"] is None:
        return _missing(row)
    word = "" if row["verdict"] == "reproduced" else f" {row['verdict']}"
    note = f"{rounded(row['value'], row['unit'])}, published {rounded(row['reference'], row['unit'])}"
    tone = _TONES.get(row["verdict"], "")
    return Cell(f"{_signed(row['difference'])}{word}", (row["difference"],), tone, note)


def _verdict(row: Row) -> Cell:
    return Cell(row["verdict"] or "", tone=_TONES.get(row["verdict"], ""))


def _mean(row: Row | None) -> Cell:
    if row is None:
        return EMPTY
    return figure(row["value"], "%", frame="averages")


def _sources(group: list[Row]) -> list[str]:
    known = unique(row["reference_source"] or None for row in group if row["reference"] is not None)
    return [f"Published: {source}" for source in known]


def _failures(group: list[Row]) -> list[str]:
    said: dict[str, list[str]] = {}
    for row in group:
        if row["error"]:
            said.setdefault(row["error"], []).append(f"{row['label']} on {row['task_label'] or row['task']}")
    notes = [f"Failed: {some(unique(where))}: {error}" for error, where in list(said.items())[:_MOST_ERRORS]]
    if len(said) > _MOST_ERRORS:
        notes.append(f"{len(said) - _MOST_ERRORS} more ways of failing in frame scores.")
    return notes
