"""A stored cell's samples as columns, checked against what the cell's record says.

run = StoredRun(Path("results/zeroshot-smoke-mamba-tiny-75c8b06c"))
items = [read_task_items(run, cell) for cell in run.cells()]

Samples are read in batches, and only what is compared is kept: prompts of five worked examples times four
choices take hundreds of megabytes, digests and lengths next to nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.choices import choices_of, right_log_likelihoods
from mambabench.compare.items import LOG_LIKELIHOOD, Measure, TaskItems
from mambabench.errors import StoreError
from mambabench.store.samples import METRIC_PREFIX

if TYPE_CHECKING:
    from mambabench.schema import CellRecord, MetricRecord
    from mambabench.store import StoredRun

_BATCH_ROWS: Final = 2_000
_KEPT: Final = ("doc_id", "doc_hash", "target_hash", "filter", "target", "resps")
_DIGESTED: Final = ("prompt_hash", "arguments", "doc")
_SHARED_FIELDS: Final = ("passage", "article", "paragraph", "story", "context", "background", "document")
"""Fields of documents by which questions are told to be about the same text."""
_RELATIVE: Final = 1e-6
"""How far a value may lie from what its items give: sums in another order, or in 32 bits."""
_REMEDY: Final = "Delete the file and the record of the same name in `cells/`, and run the command again."
_MOST_ASKED: Final = 1 << 15
"""Items whose requests are not taken apart again: some 10 MB."""
_ASKED: Final[dict[bytes, tuple[str, int, tuple[str, ...]]]] = {}

Row = dict[str, Any]


def filter_read(cell: CellRecord, metric: str) -> str:
    """Return the filter whose value is read: the plain one if there is one, else the task's first."""
    filters = [m.filter for m in cell.metrics if m.metric == metric]
    return "none" if "none" in filters else (filters or [""])[0]


def read_task_items(run: StoredRun, cell: CellRecord, *, cluster: str = "auto") -> TaskItems:
    """Read one cell's samples.

    Args:
        run: that the cell belongs to.
        cell: a finished one.
        cluster: "auto", "none" or a field of the documents, as in `CompareOptions.cluster`.

    Raises:
        StoreError: samples are missing or damaged, hold an item twice, are not as many as the record says, or
            give another value than it states.
    """
    import numpy as np

    path = run.samples_path_of(cell)
    chosen = {m.metric: m for m in cell.metrics if m.filter == filter_read(cell, m.metric)}
    filters = list(dict.fromkeys(m.filter for m in chosen.values()))
    rows: dict[str, list[Row]] = {}
    for row in _rows(path, cluster):
        rows.setdefault(row["filter"], []).append(row)
    base = filters[0] if filters else next(iter(rows), "none")
    if base not in rows:
        raise StoreError(f"{path} holds no items of the filter '{base}'", hint=_REMEDY)
    for found in rows.values():
        found.sort(key=lambda row: row["doc_id"])
        _check_ids(path, found)
    items = rows[base]
    remarks: list[str] = []
    measures: dict[str, Measure] = {}
    for name, record in chosen.items():
        mine = rows.get(record.filter, [])
        if [row["doc_id"] for row in mine] != [row["doc_id"] for row in items]:
            remarks.append(f"{name} is left out: its filter '{record.filter}' has other items than '{base}'")
            continue
        measures[name] = _measure(path, record, mine)
    with _reading(path):
        choices, why_not = choices_of(cell, items, measures)
        likelihoods = right_log_likelihoods(cell, items, choices)
    if why_not:
        remarks.append(why_not)
    known = [m.values for m in measures.values() if m.kind == "log mean"]
    if likelihoods is not None and not any(np.array_equal(likelihoods, values) for values in known):
        if np.isfinite(likelihoods).all():
            mean = float(likelihoods.mean())
            measures[LOG_LIKELIHOOD] = Measure(
                LOG_LIKELIHOOD, base, "nats", "mean", likelihoods, None, True, mean
            )
        else:
            remarks.append("log-likelihoods are left out: some are not finite")
    shared = items[0]["shared"] if items else None
    return TaskItems(
        cell=cell,
        samples_path=path,
        doc_ids=np.array([row["doc_id"] for row in items], np.int64),
        doc_hashes=tuple(row["doc_hash"] for row in items),
        prompt_hashes=tuple(row["asked"] for row in items),
        target_hashes=tuple(row["target_hash"] for row in items),
        context_lengths_bytes=np.array([row["context_bytes"] for row in items], np.int64),
        measures=measures,
        choices=choices,
        cluster_texts=(shared[0], tuple(row["shared"][1] for row in items)) if shared else None,
        remarks=tuple(remarks),
    )


def _rows(path: Path, cluster: str) -> Iterator[Row]:
    """Yield each sample with digests and lengths in place of long texts."""
    import pyarrow.parquet as pq

    field: str | None = None
    with _reading(path), pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        metrics = [name for name in names if name.startswith(METRIC_PREFIX)]
        is_json = {
            f.name for f in file.schema_arrow if f.name in metrics and f.metadata == {b"type": b"json"}
        }
        _check_columns(names)
        first = True
        for batch in file.iter_batches(_BATCH_ROWS, columns=[*_KEPT, *_DIGESTED, *metrics]):
            for row in batch.to_pylist():
                _check_id(row["doc_id"])
                document = row.pop("doc")
                if first:
                    field, first = _shared_field(document, cluster), False
                row["shared"] = (field, _field_digest(document, field)) if field else None
                _digest_arguments(row)
                row["filter"] = row["filter"] or "none"
                for name in ("doc_hash", "target_hash"):
                    row[name] = row[name] or ""
                row["metrics"] = {
                    name.removeprefix(METRIC_PREFIX): json.loads(row[name])
                    if name in is_json and row[name] is not None
                    else row[name]
                    for name in metrics
                }
                yield row


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say of which file's samples it is that what is wrong with them shows."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"cannot read the samples in {path}: {reason}", hint=_REMEDY) from error


def _check_columns(names: Sequence[str]) -> None:
    # pyarrow leaves out those that are not there without a word.
    for name in (*_KEPT, *_DIGESTED):
        if name not in names:
            raise ValueError(f"it has no column {name}")


def _check_id(doc_id: object) -> None:
    if not isinstance(doc_id, int):
        raise TypeError(f"a doc_id is {doc_id!r:.40}, which is no number")


def _shared_field(document: str | None, cluster: str) -> str | None:
    if cluster == "none" or not document:
        return None
    fields = json.loads(document)
    if not isinstance(fields, dict):
        return None
    if cluster != "auto":
        return cluster if cluster in fields else None
    return next((name for name in _SHARED_FIELDS if fields.get(name)), None)


def _field_digest(document: str, field: str) -> str:
    value = json.loads(document).get(field)
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _digest_arguments(row: Row) -> None:
    """Put a digest of all texts asked in the place of the requests, and keep what is measured of them."""
    arguments = row.pop("arguments") or "[]"
    prompt_hash = row.pop("prompt_hash") or ""
    # Models that are compared were asked the same, one after another.
    key = hashlib.sha256(arguments.encode("utf-8", "surrogatepass")).digest()
    found = _ASKED.get(key)
    if found is None:
        if len(_ASKED) >= _MOST_ASKED:
            _ASKED.clear()
        found = _ASKED[key] = _asked(arguments)
    asked, row["context_bytes"], continuations = found
    row["asked"] = asked or prompt_hash
    row["continuations"] = list(continuations)


def _asked(arguments: str) -> tuple[str, int, tuple[str, ...]]:
    """Return a digest of all texts of requests, empty without any, the longest context, and what follows."""
    texts = [[part for part in request if isinstance(part, str)] for request in json.loads(arguments)]
    return (
        hashlib.sha256(json.dumps(texts).encode()).hexdigest() if any(texts) else "",
        max((len(parts[0].encode("utf-8", "replace")) for parts in texts if parts), default=0),
        tuple(parts[1] for parts in texts if len(parts) > 1),
    )


def _check_ids(path: Path, rows: Sequence[Row]) -> None:
    for before, row in itertools.pairwise(rows):
        if before["doc_id"] == row["doc_id"]:
            raise StoreError(
                f"{path} holds document {row['doc_id']} twice",
                hint="An item must count once. " + _REMEDY,
            )


def _measure(path: Path, record: MetricRecord, rows: Sequence[Row]) -> Measure:
    import numpy as np

    values = [row["metrics"].get(record.metric) for row in rows]
    if len(values) != record.n:
        raise StoreError(
            f"{path} holds {len(values):,} items, but its record says {record.n:,}",
            hint="One of the two was cut short. " + _REMEDY,
        )
    if any(value is None for value in values):
        raise StoreError(f"{path} has items without {record.metric}", hint=_REMEDY)
    weights = None
    if all(isinstance(value, list) and len(value) == 2 for value in values):
        array = np.array([value[0] for value in values], np.float64)
        weights = np.array([value[1] for value in values], np.float64)
        kind = "ratio" if record.unit in ("perplexity", "bits_per_byte") else "corpus"
    elif all(isinstance(value, bool | int | float) for value in values):
        array = np.array(values, np.float64)
        if record.unit == "perplexity":
            kind = "log mean"
        else:
            kind = "binary" if record.unit == "fraction" and np.isin(array, (0.0, 1.0)).all() else "mean"
    else:
        array, kind = np.full(len(values), np.nan), "corpus"
    measure = Measure(
        name=record.metric,
        filter=record.filter,
        unit=record.unit,
        kind=kind,  # type: ignore[arg-type]
        values=array,
        weights=weights,
        higher_is_better=record.higher_is_better,
        recorded=record.value,
    )
    return _checked(path, measure)


def _checked(path: Path, measure: Measure) -> Measure:
    """Return the measure, as a corpus's where its value is no mean of its items.

    Raises:
        StoreError: it should be and is not, or another number of items is stated.
    """
    from dataclasses import replace

    value = value_of(measure)
    if value is not None and math.isclose(value, measure.recorded, rel_tol=_RELATIVE, abs_tol=_RELATIVE):
        return measure
    if measure.unit == "score" or measure.kind == "corpus":
        return replace(measure, kind="corpus")
    raise StoreError(
        f"{path} gives {measure.name} {value:.6g}, but its record says {measure.recorded:.6g}",
        hint="One of the two was changed. " + _REMEDY,
    )


def value_of(measure: Measure) -> float | None:
    """Return the value that a measure's items give; None for a corpus's, or where there are none."""
    if measure.kind == "corpus" or len(measure.values) == 0:
        return None
    if measure.kind == "ratio":
        if measure.weights is None or not measure.weights.sum() > 0:
            return None
        per_unit = float(measure.values.sum() / measure.weights.sum())
        return -per_unit / math.log(2) if measure.unit == "bits_per_byte" else _exp(-per_unit)
    mean = float(measure.values.mean())
    return _exp(-mean) if measure.kind == "log mean" else mean


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
