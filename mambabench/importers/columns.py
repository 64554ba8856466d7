"""What a task's samples say of its metrics, held against the values that the results file states.

A value that is a mean, or another of lm-eval's plain aggregations, must follow from the samples: else the
two files do not belong together, and nothing is imported. A value that a task computes in its own way is
taken as it is and said to be so.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mambabench.errors import UsageError
from mambabench.fingerprint import canonical_json
from mambabench.importers.samples import Row, SamplesFile, hash_text
from mambabench.importers.totals import more_is_better, total
from mambabench.schema import MetricRecord
from mambabench.tasks.intervals import FRACTIONS, metric_interval

_RELATIVE: Final = 1e-6
"""How far a value may lie from its items': sums in another order, or of 32-bit numbers."""
_KNOWN: Final = frozenset({"mean", "nanmean", "perplexity", "weighted_perplexity", "bits_per_byte"})
_BY_NAME: Final = {
    "perplexity": "perplexity",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
    **dict.fromkeys(FRACTIONS, "mean"),
}
"""lm-eval's aggregation where a task's configuration names none."""
_REQUEST: Final = {"multiple_choice": "loglikelihood"}
"""Type of a task's requests where it is another than the task's."""


@dataclass
class Columns:
    """The values of all items, by metric and filter, and digests of what was asked."""

    values: dict[tuple[str, str], list[Any]] = field(default_factory=lambda: defaultdict(list))
    n_rows: int = 0
    n_docs: int = 0
    """Items of the first filter."""
    n_requests: int = 0
    requests_sha256: str = ""
    task_hash: str = ""
    """lm-eval's digest over all items, as it stands in the results file; empty where rows lack digests."""


def read_columns(samples: SamplesFile, advance: Callable[[int], None]) -> Columns:
    """Read all samples once.

    Args:
        samples: of one task.
        advance: told of bytes read.

    Raises:
        UsageError: as `SamplesFile.rows` does, or the file holds none.
    """
    columns = Columns()
    requests, hashes, first = hashlib.sha256(), [], ""
    kind = _REQUEST.get(samples.output_type, samples.output_type)
    for row in samples.rows(advance):
        first = first or row["filter"]
        columns.n_rows += 1
        if row["filter"] == first:
            columns.n_docs += 1
            for request in row["arguments"]:
                requests.update(canonical_json([kind, request]).encode("utf-8", "surrogatepass") + b"\n")
            columns.n_requests += len(row["arguments"])
        hashes.append(row["doc_hash"] + row["prompt_hash"] + row["target_hash"])
        _take(columns, row)
    if not columns.n_rows:
        raise UsageError(
            f"{samples.path} is empty",
            hint="Copy it once more, or import the values with `--without-samples`.",
        )
    columns.requests_sha256 = requests.hexdigest() if kind else ""
    columns.task_hash = hash_text("".join(hashes))
    return columns


def _take(columns: Columns, row: Row) -> None:
    for metric in row["metrics"]:
        if metric in row:
            columns.values[metric, row["filter"]].append(row[metric])


@dataclass(frozen=True)
class Stated:
    """One metric as the results file has it."""

    metric: str
    filter: str
    value: float
    error: float | None
    aggregation: str
    """As the task's configuration names it; empty where it does not."""
    better: bool | None


def metric_records(
    task: str, stated: list[Stated], columns: Columns | None, n: int | None, *, where: str
) -> tuple[tuple[MetricRecord, ...], list[str]]:
    """Return a task's metrics, and what must be said of them.

    Args:
        task: lm-eval's name.
        stated: what the results file has.
        columns: of the samples; None without any.
        n: items behind the values where there are no samples; None where that is not known.
        where: both stand, for messages.

    Raises:
        UsageError: a value does not follow from the samples.
    """
    records, remarks = [], []
    for one in stated:
        items = columns.values.get((one.metric, one.filter)) if columns is not None else None
        if items:
            record, remark = _from_items(task, one, items, where)
        else:
            count = columns.n_docs if columns is not None else n
            record = total(one.metric, one.filter, one.value, one.error, count, better=one.better)
            remark = _said_of_total(task, record)
            if columns is not None:
                remark = f"{task}: {one.metric} stands in no sample and is taken as it is"
        records.append(record)
        remarks += [remark] if remark else []
    return tuple(records), remarks


def _said_of_total(task: str, record: MetricRecord) -> str:
    if record.n == 0:
        return f"{task}: the number of items behind {record.metric} is not known"
    return "" if record.interval_method else f"{task}: no interval of {record.metric} can be had"


def _from_items(task: str, one: Stated, items: list[Any], where: str) -> tuple[MetricRecord, str]:
    aggregation = one.aggregation or _BY_NAME.get(one.metric, "")
    known = aggregation in _KNOWN
    value = _aggregated(aggregation if known else "mean", items)
    follows = value is not None and math.isclose(value, one.value, rel_tol=_RELATIVE, abs_tol=_RELATIVE)
    if known and not follows:
        given = "no value" if value is None else f"{value:.6g}"
        raise UsageError(
            f"{where}: {task} has {one.metric} {one.value:.6g}, but its {len(items):,} samples give {given}",
            hint="These files do not belong together, or one was cut short or changed; "
            "`--without-samples` takes the results file's word.",
        )
    remark = ""
    if not follows:
        aggregation = ""
        remark = f"{task}: {one.metric} is no mean of its items and is taken as it is"
    elif not known:
        aggregation = "mean"
    unit, interval = metric_interval(one.metric, aggregation, items)
    if interval is not None and not interval.determined:
        interval = None
    record = MetricRecord(
        metric=one.metric,
        filter=one.filter,
        value=one.value,
        unit=unit,
        interval_low=interval.low if interval else None,
        interval_high=interval.high if interval else None,
        interval_method=interval.method if interval else "",
        n=len(items),
        higher_is_better=more_is_better(one.metric) if one.better is None else one.better,
    )
    return record, remark


def _aggregated(aggregation: str, items: list[Any]) -> float | None:
    """Return lm-eval's value of the items, None where they are not of the aggregation's kind."""
    try:
        if aggregation in ("weighted_perplexity", "bits_per_byte"):
            ratio = -math.fsum(float(v[0]) for v in items) / math.fsum(float(v[1]) for v in items)
            return ratio / math.log(2) if aggregation == "bits_per_byte" else math.exp(ratio)
        if not all(isinstance(v, bool | int | float) for v in items):
            return None
        numbers = [float(v) for v in items]
        if aggregation == "nanmean":
            numbers = [v for v in numbers if not math.isnan(v)]
        mean = math.fsum(numbers) / len(numbers)
        return math.exp(-mean) if aggregation == "perplexity" else mean
    except (TypeError, ValueError, IndexError, KeyError, ZeroDivisionError, OverflowError):
        return None


def aggregations_of(config: Any) -> dict[str, str]:
    """Return the aggregation of each metric that a task's configuration names."""
    listed = config.get("metric_list") if isinstance(config, Mapping) else None
    found = {}
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("aggregation"), str):
            found[str(entry.get("metric"))] = str(entry["aggregation"])
    return found
