"""How good the models are on tasks: an overview, every metric with its interval, and published figures.

section = zeroshot_section(Rows(runs))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mambabench.report.document import EMPTY, Block, Cell, Column, Section, Table
from mambabench.report.format import Row, Rows, figure, plural, some, unique
from mambabench.report.sections.layout import (
    FEW_MODELS,
    MOST_COLUMNS,
    MOST_PLAIN_COLUMNS,
    MOST_ROWS,
    earlier_checkpoints,
    first_rows,
    grids,
    table,
)
from mambabench.report.sections.scores import (
    Line,
    arrow,
    difference_cell,
    difference_in_words,
    failures,
    headline_cell,
    is_partial,
    items_cell,
    items_of_all,
    line_of,
    lines_of,
    mean_cell,
    metric_name,
    metric_with_unit,
    shots_differ,
    sources,
    task_name,
    value_cell,
    verdict_cell,
)

_FEW_FOR_ROWS = 3
_ALIKE = 0.5
"""Share of their tasks that models of one table have in common."""


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
    groups: list[tuple[set[Line], list[Row]]] = []
    by_label: dict[str, list[Row]] = {}
    for row in scores:
        by_label.setdefault(row["label"], []).append(row)
    for own in by_label.values():
        lines = {line_of(row) for row in own}
        for known, found in groups:
            if len(known & lines) >= _ALIKE * len(known | lines):
                known |= lines
                found += own
                break
        else:
            groups.append((lines, own))
    return [found for _, found in groups]


def _named(group: list[Row]) -> str:
    suites = unique(row["suite"] or None for row in group)
    return f": {some(suites, 2)}" if suites else ""


def _tables(group: list[Row], averages: list[Row], number: str, named: str) -> list[Table]:
    labels = unique(row["label"] for row in group)
    means = {row["label"]: row for row in averages if row["label"] in set(labels)}
    notes = failures(group)
    if len(lines_of(group)) > MOST_ROWS:
        group = [row for row in group if row["headline"]]
        notes.append("Of each task its first metric; frame scores has all.")
    if len(labels) == 1:
        return [_single(group, means.get(labels[0]), number, named, notes)]
    if len(labels) <= FEW_MODELS and len(lines_of(group)) > MOST_PLAIN_COLUMNS + FEW_MODELS:
        # Many tasks of few models fit into one table, where they are rows.
        tables = []
    else:
        tables = _overview(group, labels, means, number, named)
    if len(labels) <= FEW_MODELS:
        tables += _by_task(group, labels, {} if tables else means, number, named, notes)
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
    several = shots_differ(group)
    body = [
        [
            Cell(task_name(row, several)), Cell(metric_with_unit(row)), value_cell(row), items_cell(row),
            figure(row["chance"], row["unit"]), figure(row["reference"], row["unit"]), difference_cell(row),
            verdict_cell(row),
        ]
        for row in group
    ]  # fmt: skip
    body, more = first_rows(body, "scores", "line")
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
        [*notes, *more, *sources(group)],
    )  # fmt: skip


def _overview(
    group: list[Row], labels: list[str], means: dict[str, Row], number: str, named: str
) -> list[Table]:
    """Return headline values alone, models in rows, as papers print them."""
    heads = [row for row in lines_of(group) if row["headline"]]
    labels, more = first_rows(labels, "scores", "model")
    by = {(row["label"], line_of(row)): row for row in group}
    columns = [
        (
            Column(task_name(head, shots_differ(group)), f"{metric_name(head)} {arrow(head)}", numeric=True),
            _cells(labels, by, line_of(head), headline_cell),
        )
        for head in heads
    ]
    if means:
        average = (
            Column("average", "% ↑", numeric=True, note="mean of the accuracies, one a task"),
            lambda i: mean_cell(means.get(labels[i])),
        )
        # Last as papers have it, unless that would be far to the right.
        columns.insert(0 if len(columns) > MOST_COLUMNS else len(columns), average)
    n_tasks = unique(row["n_tasks"] for row in means.values())
    notes = more
    if len(n_tasks) > 1:
        notes.append("The averages are not over equally many tasks and do not compare.")
    if any(is_partial(row) for row in heads):
        notes.append("Of some tasks not all items were scored.")
    return grids(
        f"zero-shot-overview{number}", f"Models and tasks{named}", "scores", heads=[Column("model")],
        names=[(Cell(label),) for label in labels], columns=columns, most=MOST_PLAIN_COLUMNS, notes=notes,
        layout="paper",
    )  # fmt: skip


def _by_task(
    group: list[Row], labels: list[str], means: dict[str, Row], number: str, named: str, notes: list[str]
) -> list[Table]:
    """Return lines of tasks and metrics, models in columns; averages last unless they stand elsewhere."""
    by = {(row["label"], line_of(row)): row for row in group}
    several = shots_differ(group)
    lines, more = first_rows(lines_of(group), "scores", "line")
    counts = [
        items_of_all([by[label, line_of(row)] for label in labels if (label, line_of(row)) in by])
        for row in lines
    ]
    chances = [figure(row["chance"], row["unit"]) for row in lines]
    columns: list[tuple[Column, Callable[[int], Cell]]] = [
        (
            Column("items", numeric=True, note="scored, of those that the task has"),
            [*counts, EMPTY].__getitem__,
        ),
        (Column("chance", numeric=True, note="what guessing gives"), [*chances, EMPTY].__getitem__),
    ]
    for label in labels:
        found = (by.get((label, line_of(row))) for row in lines)
        cells = [EMPTY if row is None else value_cell(row) for row in found]
        columns.append((Column(label, numeric=True), [*cells, mean_cell(means.get(label))].__getitem__))
    names = [(Cell(task_name(row, several)), Cell(metric_with_unit(row))) for row in lines]
    if means:
        names.append((Cell("average"), Cell("accuracies, %")))
    return grids(
        f"zero-shot{number}", f"Every metric with its interval{named}", "scores",
        heads=[Column("task"), Column("metric")], names=names, columns=columns, notes=[*notes, *more],
    )  # fmt: skip


def _by_model(group: list[Row], labels: list[str], number: str, named: str, notes: list[str]) -> list[Table]:
    by = {(row["label"], line_of(row)): row for row in group}
    labels, more = first_rows(labels, "scores", "model")
    columns = [
        (
            Column(task_name(line, shots_differ(group)), f"{metric_name(line)} {arrow(line)}", numeric=True),
            _cells(labels, by, line_of(line), value_cell),
        )
        for line in lines_of(group)
    ]
    return grids(
        f"zero-shot{number}", f"Every metric with its interval{named}", "scores", heads=[Column("model")],
        names=[(Cell(label),) for label in labels], columns=columns, notes=[*notes, *more],
    )  # fmt: skip


def _published(group: list[Row], labels: list[str], number: str, named: str) -> list[Table]:
    known = [row for row in group if row["reference"] is not None]
    if not known:
        return []
    title, several = f"Against published figures{named}", shots_differ(group)
    key = f"published{number}"
    of = [label for label in labels if any(row["label"] == label for row in known)]
    if len(of) <= _FEW_FOR_ROWS:
        columns = [
            Column("task"), Column("metric"), Column("model"), Column("measured", numeric=True),
            Column("published", numeric=True), Column("difference", numeric=True), Column("verdict"),
        ]  # fmt: skip
        body = [
            [
                Cell(task_name(row, several)), Cell(metric_with_unit(row)), Cell(row["label"]),
                figure(row["value"], row["unit"]), figure(row["reference"], row["unit"]),
                difference_cell(row), verdict_cell(row),
            ]
            for line in lines_of(known) for row in known if line_of(row) == line_of(line)
        ]  # fmt: skip
        body, more = first_rows(body, "scores", "line")
        return [table(key, title, "scores", columns, body, [*more, *sources(known)])]
    by = {(row["label"], line_of(row)): row for row in known}
    wide = [
        (
            Column(task_name(line, several), f"{metric_name(line)} {arrow(line)}", numeric=True),
            _cells(of, by, line_of(line), difference_in_words),
        )
        for line in lines_of(known)
    ]
    note = "Measured less published. Where no word follows, the published figure was reproduced."
    return grids(
        key, title, "scores", heads=[Column("model")], names=[(Cell(label),) for label in of], columns=wide,
        most=MOST_PLAIN_COLUMNS, notes=[note, *sources(known)],
    )  # fmt: skip


def _cells(
    labels: Sequence[str], by: dict[tuple[str, Line], Row], line: Line, cell: Callable[[Row], Cell]
) -> Callable[[int], Cell]:
    def at(i: int) -> Cell:
        row = by.get((labels[i], line))
        return EMPTY if row is None else cell(row)

    return at
