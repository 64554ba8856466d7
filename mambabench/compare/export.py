"""A comparison as Parquet files, for pandas, DuckDB or anything else.

    export_items(Path("changes"), compared.comparison, compared.tasks)
    duckdb.sql("select question from 'changes/items.parquet' where change = 'lost'")

`items.parquet`, one row for each item and candidate, in one row group for each task and candidate:

    task, member, doc_id, doc_hash   strings and int64; member is lm-eval's task, of a group one of several
    baseline, candidate              labels of the two sides
    change                           "won", "lost", "both right", "both wrong" by the first metric by which
                                     items are right or wrong; null without such a one
    cluster                          int64, equal for items of a task that are not independent; null without
    context_length_bytes             int64, longest context of the item's requests
    answer_length_bytes              int64, right answer; null where it is no text of its own
    right_choice, baseline_choice, candidate_choice                int64 from 0; by the same metric's rule
    baseline_confidence, candidate_confidence                      double, probability of the likeliest choice
    baseline.<metric>, candidate.<metric>                          double, the item's score in lm-eval's unit
    baseline.<metric>.log_likelihood_nats, candidate.(the same)    double, of perplexities
    <metric>.weight                                                double, the item's words or bytes
    baseline.log_likelihood_nats, candidate.log_likelihood_nats    double, of the right answer
    question, right_answer, baseline_answer, candidate_answer      strings as in the examples, cut like those

`contrasts.parquet`, one row for each measure, task and candidate: `baseline` and all fields of
`mambabench.compare.result.Contrast`, whose `unit` and `effect_unit` name the units.

`categories.parquet`: baseline, candidate, task, by, category, n, n_won, n_lost, baseline_percent,
candidate_percent, difference_points, low_points, high_points.

`calibration.parquet`, one row for each side, task and bin, all shares from 0 to 1: side, task, label, n,
accuracy, mean_confidence, error, error_low, error_high, bin, bin_low, bin_high, bin_n, bin_mean_confidence,
bin_accuracy.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.calibration import confidence_of
from mambabench.compare.changes import flips_of
from mambabench.compare.items import LOG_LIKELIHOOD
from mambabench.compare.result import Comparison, Contrast
from mambabench.compare.texts import answer_lengths_bytes, chosen_of, read_texts
from mambabench.store.files import make_directory, replace_file

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from mambabench.compare.items import AlignedTask, Measure

_CATEGORIES: Final = {
    "baseline": str,
    "candidate": str,
    "task": str,
    "by": str,
    "category": str,
    "n": int,
    "n_won": int,
    "n_lost": int,
    "baseline_percent": float,
    "candidate_percent": float,
    "difference_points": float,
    "low_points": float,
    "high_points": float,
}
_CALIBRATION: Final = {
    "side": str,
    "task": str,
    "label": str,
    "n": int,
    "accuracy": float,
    "mean_confidence": float,
    "error": float,
    "error_low": float,
    "error_high": float,
    "bin": int,
    "bin_low": float,
    "bin_high": float,
    "bin_n": int,
    "bin_mean_confidence": float,
    "bin_accuracy": float,
}


def export_items(
    folder: Path,
    comparison: Comparison,
    tasks: Sequence[AlignedTask],
    labels: Sequence[str] | None = None,
) -> list[Path]:
    """Write items, contrasts, categories and calibration, each file whole or not at all.

    Args:
        folder: where to; made if it is not there. Files of the same names are replaced.
        comparison: what was found.
        tasks: the items that it was found on.
        labels: of the sides of `tasks`, the baseline first. Default: the comparison's sides that have items.

    Returns:
        The files.

    Raises:
        StoreError: samples cannot be read, or a file cannot be written.
    """
    import pyarrow.parquet as pq

    if labels is None:
        labels = [side.label for side in (comparison.baseline, *comparison.candidates) if side.has_samples]
    if any(len(task.sides) != len(labels) for task in tasks):
        raise ValueError(f"tasks do not have {len(labels)} sides")
    make_directory(folder, [])
    items = folder / "items.parquet"
    schema = _items_schema(tasks)

    def write_items(path: Path) -> None:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for task in tasks:
                for table in _item_tables(task, labels, schema):
                    writer.write_table(table, row_group_size=max(1, table.num_rows))

    replace_file(items, write_items)
    baseline = comparison.baseline.label
    types = {"baseline": str, **typing.get_type_hints(Contrast)}
    contrasts = [{"baseline": baseline, **dataclasses.asdict(one)} for one in comparison.contrasts]
    return [
        items,
        _write(folder / "contrasts.parquet", types, contrasts),
        _write(folder / "categories.parquet", _CATEGORIES, _category_rows(comparison)),
        _write(folder / "calibration.parquet", _CALIBRATION, _calibration_rows(comparison)),
    ]


def _write(path: Path, types: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, _arrow_type(kind)) for name, kind in types.items()])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    replace_file(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    return path


def _arrow_type(kind: Any) -> pa.DataType:
    """Return the column's type for a field's annotation."""
    import pyarrow as pa

    if typing.get_origin(kind) is tuple:
        return pa.list_(_arrow_type(typing.get_args(kind)[0]))
    # Of `float | None` the first that is a value; names are text.
    kinds = [one for one in typing.get_args(kind) or (kind,) if one is not type(None)]
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(kinds[0], pa.string())


def _items_schema(tasks: Sequence[AlignedTask]) -> pa.Schema:
    import pyarrow as pa

    text, whole, number = pa.string(), pa.int64(), pa.float64()
    fields = [
        *((name, text) for name in ("task", "member")),
        ("doc_id", whole),
        *((name, text) for name in ("doc_hash", "baseline", "candidate", "change")),
        *((name, whole) for name in ("cluster", "context_length_bytes", "answer_length_bytes")),
        *((name, whole) for name in ("right_choice", "baseline_choice", "candidate_choice")),
        *((name, number) for name in ("baseline_confidence", "candidate_confidence")),
    ]
    names = {n: None for task in tasks for m in task.sides[0].measures.values() for n in _columns(m)}
    fields += [(name, number) for name in names]
    fields += [(name, text) for name in ("question", "right_answer", "baseline_answer", "candidate_answer")]
    return pa.schema([pa.field(name, kind) for name, kind in fields])


def _columns(measure: Measure) -> list[str]:
    """Return the names of a measure's columns: both sides' values, and weights where there are."""
    if measure.kind == "corpus":
        return []
    if measure.name == LOG_LIKELIHOOD:
        value = "log_likelihood_nats"
    elif measure.kind in ("log mean", "ratio"):
        value = f"{measure.name}.log_likelihood_nats"
    else:
        value = measure.name
    weights = [f"{measure.name}.weight"] if measure.weights is not None else []
    return [f"baseline.{value}", f"candidate.{value}", *weights]


def _item_tables(task: AlignedTask, labels: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield one table for each candidate."""
    import numpy as np
    import pyarrow as pa

    texts = read_texts(task, range(task.n))
    shown = [texts[item] for item in range(task.n)]
    before = task.sides[0]
    shared: dict[str, Any] = {
        "task": [task.task] * task.n,
        "member": [task.members[int(member)] for member in task.member_of],
        "doc_id": task.doc_ids,
        "doc_hash": task.doc_hashes,
        "baseline": [labels[0]] * task.n,
        "cluster": task.clusters,
        "context_length_bytes": task.context_lengths_bytes,
        "answer_length_bytes": answer_lengths_bytes(task),
        "question": [one.question for one in shown],
        "right_answer": [one.right_answer for one in shown],
        "baseline_answer": [one.answers[0] for one in shown],
    }
    for number, label in enumerate(labels[1:], 1):
        after = task.sides[number]
        columns = {
            **shared,
            "candidate": [label] * task.n,
            "change": _changes(task, number),
            "candidate_answer": [one.answers[number] for one in shown],
        }
        for name, side in (("baseline", before), ("candidate", after)):
            chosen = chosen_of(side, task.accuracy or "acc")
            if side.choices is not None and chosen is not None:
                columns["right_choice"] = side.choices.right
                columns[f"{name}_choice"] = np.ma.masked_equal(chosen, -1)
                columns[f"{name}_confidence"] = confidence_of(side.choices)[0]
        for key, measure in before.measures.items():
            values = [measure.values, after.measures[key].values, measure.weights]
            columns.update(zip(_columns(measure), values, strict=False))
        yield pa.table(
            [_array(columns.get(field.name), task.n, field.type) for field in schema], schema=schema
        )


def _array(values: Any, n: int, kind: pa.DataType) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    if values is None:
        return pa.nulls(n, kind)
    if isinstance(values, np.ma.MaskedArray):
        return pa.array(values.data, kind, mask=np.ma.getmaskarray(values))
    return pa.array(values, kind)


def _changes(task: AlignedTask, number: int) -> list[str] | None:
    """Return what happened to each item, None unless each is right or wrong."""
    import numpy as np

    flips = flips_of(task, number)
    if task.accuracy is None:
        return None
    was_right: NDArray[np.bool_] = task.sides[0].measures[task.accuracy].values == 1
    same = np.where(was_right, "both right", "both wrong")
    named = np.where(flips.won == 1, "won", np.where(flips.lost == 1, "lost", same))
    return [str(name) for name in named]


def _category_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "baseline": comparison.baseline.label,
            "candidate": one.candidate,
            "task": one.task,
            "by": one.by,
            "category": one.category,
            "n": one.n,
            "n_won": one.n_won,
            "n_lost": one.n_lost,
            "baseline_percent": one.baseline_value,
            "candidate_percent": one.candidate_value,
            "difference_points": one.difference,
            "low_points": one.low,
            "high_points": one.high,
        }
        for changes in comparison.changes
        for one in changes.categories
    ]


def _calibration_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "side": one.side,
            "task": one.task,
            "label": one.label,
            "n": one.n,
            "accuracy": one.accuracy,
            "mean_confidence": one.mean_confidence,
            "error": one.error,
            "error_low": one.low,
            "error_high": one.high,
            "bin": number,
            "bin_low": part.low,
            "bin_high": part.high,
            "bin_n": part.n,
            "bin_mean_confidence": part.mean_confidence,
            "bin_accuracy": part.accuracy,
        }
        for one in comparison.calibrations
        for number, part in enumerate(one.bins)
    ]
