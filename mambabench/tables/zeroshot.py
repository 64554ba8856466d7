"""Cells of a zero-shot run to the rows of its table: values, intervals, references and verdicts.

Rows are what every format renders; nothing here knows how a table looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mambabench.compare.read import filter_read
from mambabench.references import n_items, published, verdict
from mambabench.stats.intervals import pooled_wilson

if TYPE_CHECKING:
    from mambabench.schema import CellRecord, MetricRecord
    from mambabench.suite import Suite, SuiteTask

_PERCENT = 100.0


@dataclass(frozen=True)
class Row:
    """One (model, task, metric) as a reader wants it: fractions have become percentages."""

    model: str
    task: str
    """lm-eval's name of the task or group."""
    label: str
    """What the suite calls it."""
    metric: str
    filter: str
    """lm-eval's filter whose answer was scored; "none" where the task has no filters."""
    headline: bool
    """Whether this is the metric that enters the suite's average."""
    value: float | None
    """Null when the cell failed."""
    unit: str
    """"%", "ppl", "bits/byte" or ""."""
    low: float | None
    high: float | None
    """Ends of the 95% interval."""
    n: int
    """Items scored."""
    n_total: int
    """Items that the task has."""
    chance: float | None
    reference: float | None
    source: str
    difference: float | None
    """Value minus reference, unrounded."""
    verdict: str
    """"reproduced", "differs", "no reference", "partial" or "failed"."""
    higher_is_better: bool
    error: str = ""


@dataclass(frozen=True)
class Average:
    """Mean of a model's headline accuracies, and of their published figures if there is one for each."""

    model: str
    value: float
    reference: float | None
    n_tasks: int


@dataclass(frozen=True)
class ZeroshotTable:
    """Everything that a rendering shows."""

    suite: str
    title: str
    models: tuple[str, ...]
    partial: bool
    rows: tuple[Row, ...]
    averages: tuple[Average, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON types; numbers are not rounded."""
        return asdict(self)


def build_table(
    suite: Suite, models: Sequence[tuple[str, str | None]], cells: Sequence[CellRecord]
) -> ZeroshotTable:
    """Build the table of one run.

    Args:
        suite: gives the order of tasks, the metrics read, the source of references and chance levels.
        models: (name, name in the published figures or null), in order.
        cells: one for each (model, task); those of a group carry its name and are pooled.
    """
    by_key: dict[tuple[str, str], list[CellRecord]] = defaultdict(list)
    for cell in cells:
        by_key[cell.model, cell.task.group or cell.task.task].append(cell)
    rows = [
        _row(suite, task, metric, model, published_as, by_key.get((model, task.task), []))
        for task in suite.tasks
        for metric in task.metrics
        for model, published_as in models
    ]
    averages = [a for model, _ in models if (a := _average(model, rows)) is not None]
    return ZeroshotTable(
        suite=suite.name,
        title=suite.title,
        models=tuple(model for model, _ in models),
        partial=any(_is_partial(name, found) for (_, name), found in by_key.items()),
        rows=tuple(rows),
        averages=tuple(averages),
    )


def _row(
    suite: Suite,
    task: SuiteTask,
    metric: str,
    model: str,
    published_as: str | None,
    cells: Sequence[CellRecord],
) -> Row:
    empty = Row(
        model=model,
        task=task.task,
        label=task.label or task.task,
        metric=metric,
        filter="none",
        headline=metric == task.metrics[0],
        value=None,
        unit="",
        low=None,
        high=None,
        n=0,
        n_total=sum(c.task.n_docs_total for c in cells),
        chance=None,
        reference=None,
        source="",
        difference=None,
        verdict="failed",
        higher_is_better=True,
    )
    if error := _why_not(metric, cells):
        return replace(empty, error=error)
    found = [m for c in cells for m in c.metrics if m.metric == metric and m.filter == filter_read(c, metric)]
    reference = (
        published(published_as, task.task, metric, suite.reference, num_fewshot=cells[0].task.n_fewshot)
        if published_as
        else None
    )
    value, low, high = _pool(task.task, found)
    scale, unit = _display(found[0].unit)
    chance = (task.chance or {}).get(metric)
    shown = value * scale
    return replace(
        empty,
        filter=found[0].filter,
        value=shown,
        unit=unit,
        low=None if low is None else low * scale,
        high=None if high is None else high * scale,
        n=sum(m.n for m in found),
        chance=None if chance is None else chance * scale,
        reference=reference.value if reference else None,
        source=reference.source if reference else "",
        difference=shown - reference.value if reference else None,
        verdict=verdict(shown, reference, partial=_is_partial(task.task, cells)),
        higher_is_better=found[0].higher_is_better,
    )


def _why_not(metric: str, cells: Sequence[CellRecord]) -> str:
    """Return why a row has no value, or nothing if it has one."""
    if not cells:
        return "nothing was computed"
    for cell in cells:
        if cell.status != "ok":
            return cell.error
        if not any(m.metric == metric for m in cell.metrics):
            return f"{cell.task.task} gave no {metric} that is a number"
    if len({c.task.task for c in cells}) != len(cells):
        return "two results for one task"
    units = {m.unit for c in cells for m in c.metrics if m.metric == metric}
    return f"its members give {metric} in different units" if len(units) > 1 else ""


def _is_partial(task: str, cells: Sequence[CellRecord]) -> bool:
    """Whether fewer documents were scored than the task has, by our files or by the published count."""
    full = n_items(task)
    n_docs = sum(c.task.n_docs for c in cells)
    return any(c.partial for c in cells) or (full is not None and n_docs != full)


def _pool(group: str, found: Sequence[MetricRecord]) -> tuple[float, float | None, float | None]:
    """Return value and interval over one cell, or over a group's cells as lm-eval weighs them."""
    from mambabench.compare.contrasts import weighs_by_size

    if len(found) == 1:
        return found[0].value, found[0].interval_low, found[0].interval_high
    by_size = weighs_by_size(group)
    weights = [m.n if by_size else 1 for m in found]
    value = sum(w * m.value for w, m in zip(weights, found, strict=True)) / sum(weights)
    if not by_size or any(m.interval_method != "wilson" for m in found):
        return value, None, None
    interval = pooled_wilson([round(m.value * m.n) for m in found], [m.n for m in found])
    return value, interval.low, interval.high


def _display(unit: str) -> tuple[float, str]:
    return {
        "fraction": (_PERCENT, "%"),
        "perplexity": (1.0, "ppl"),
        "bits_per_byte": (1.0, "bits/byte"),
    }.get(unit, (1.0, ""))


def averaged(model: str, rows: Iterable[Row]) -> list[Row]:
    """Return the accuracies of a model that its average is over, one a task.

    That is the headline, or the first accuracy where that is a perplexity. There is an average only where
    all of them have a value.
    """
    chosen: dict[str, Row] = {}
    for row in rows:
        if row.model == model and row.unit == "%" and row.higher_is_better:
            chosen.setdefault(row.task, row)
    return list(chosen.values())


def _average(model: str, rows: Sequence[Row]) -> Average | None:
    chosen = averaged(model, rows)
    values = [r.value for r in chosen if r.value is not None]
    any_failed = any(r.verdict == "failed" for r in rows if r.model == model)
    if len(values) < 2 or any_failed:
        return None
    references = [r.reference for r in chosen if r.reference is not None]
    complete = len(references) == len(values) and not any(r.verdict == "partial" for r in chosen)
    return Average(
        model=model,
        value=sum(values) / len(values),
        reference=sum(references) / len(references) if complete else None,
        n_tasks=len(values),
    )
