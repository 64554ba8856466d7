"""Whether long-context records agree with the rows beside them, from which all their figures follow.

check = check_long(StoredRun(Path("results/longcontext-mamba-tiny-bfb721c6")))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mambabench.errors import StoreError
from mambabench.long_schema import ContextLossRecord, PerplexityRecord, RecallRecord
from mambabench.store.files import read_record
from mambabench.store.verify import Advance, Check, checked

if TYPE_CHECKING:
    from mambabench.long_schema import LongRecord
    from mambabench.store import StoredRun

_RELATIVE: Final = 1e-6
"""How far a figure may lie from what its rows give: sums in another order."""
_EXACT: Final = 1e-12
"""How far the sum of the same numbers may lie."""
_FOLDERS: Final[dict[str, type[LongRecord]]] = {
    "recall": RecallRecord,
    "context-loss": ContextLossRecord,
    "perplexity": PerplexityRecord,
}

Row = Mapping[str, Any]


def check_long(run: StoredRun, advance: Advance = lambda n_bytes: None) -> Check:
    """Compute the figures of every record again from its rows."""
    problems: list[str] = []
    n = 0
    for folder, kind in _FOLDERS.items():
        for path in sorted((run.path / folder).glob("[!.]*.json")):
            try:
                record = read_record(path, kind, remedy="")
            except StoreError:
                # Its records have said so.
                continue
            if record.status != "ok":
                continue
            rows_path = run.long_rows_path(record)
            name = f"{folder}/{rows_path.name}"
            if not rows_path.is_file():
                problems.append(f"{name} is not there")
                continue
            try:
                rows = run.read_long_rows(record)
                advance(rows_path.stat().st_size)
                n += len(rows)
                problems += [f"{name}: {text}" for text in _disagreements(run, record, rows)]
            except StoreError as error:
                problems.append(error.message.replace(f"{run.path}/", ""))
            except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
                problems.append(f"{name} holds other rows than its record's: {type(error).__name__} {error}")
    how = "as many rows as each record says, and their values give the recorded figures"
    return checked("rows", n, how, problems, "no record ended well")


def _disagreements(run: StoredRun, record: LongRecord, rows: Sequence[Row]) -> Iterator[str]:
    if isinstance(record, RecallRecord):
        counts, figures = _recall(record, rows)
        yield from _judged_otherwise(rows)
    elif isinstance(record, ContextLossRecord):
        counts = {
            "blocks": (len(rows), record.n_blocks),
            "documents": (len({row["document_index"] for row in rows}), record.n_documents),
        }
        figures = _losses(rows)
    else:
        counts, figures = _perplexity(record, rows)
        yield from _other_values(run, record, rows)
    for what, (there, said) in counts.items():
        if there != said:
            yield f"{there:,} {what}, but its record says {said:,}"
    for metric in record.metrics:
        if metric.metric in figures and not _close(figures[metric.metric], metric.value):
            there_is = figures[metric.metric]
            yield f"gives {metric.metric} {there_is:.6g}, but its record says {metric.value:.6g}"


def _recall(record: RecallRecord, rows: Sequence[Row]) -> tuple[dict[str, tuple[int, int]], dict[str, float]]:
    import numpy as np

    from mambabench.stats.effective import Credits, mean_recall

    samples = np.array([row["sample"] for row in rows], np.int64)
    counts = {
        "questions": (len(rows), record.n_questions),
        "samples": (len(set(samples.tolist())), record.n_samples),
    }
    if not rows:
        return counts, {}
    greedy = np.array([float(row["is_greedy"]) for row in rows])
    credit = np.array([row["credit"] for row in rows], np.float64)
    margins = [_margin(row["logprobs"]) for row in rows]
    return counts, {
        "accuracy": mean_recall([Credits(samples, credit)]),
        "exact_match": mean_recall([Credits(samples, greedy)]),
        "rank": _mean_of_means(rows, [row["rank"] for row in rows]),
        "margin_nats": _mean_of_means(rows, margins),
    }


def _judged_otherwise(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the first row whose rank or credit does not follow from its log-probabilities."""
    for place, row in enumerate(rows):
        right, *wrong = row["logprobs"]
        better = sum(other > right for other in wrong)
        equal = 1 + sum(other == right for other in wrong)
        credit = 0.0 if better else 1 / equal
        if not _close(row["rank"], better + (equal + 1) / 2) or not _close(row["credit"], credit):
            yield f"row {place} is judged otherwise than its log-probabilities say"
            return


def _margin(logprobs: Sequence[float]) -> float:
    right, best = logprobs[0], max(logprobs[1:])
    return 0.0 if right == best else right - best


def _mean_of_means(rows: Sequence[Row], values: Sequence[float]) -> float:
    by_sample: dict[int, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        by_sample.setdefault(row["sample"], []).append(value)
    return sum(sum(group) / len(group) for group in by_sample.values()) / len(by_sample)


def _losses(rows: Sequence[Row]) -> dict[str, float]:
    total = -math.fsum(row["logprob"] for row in rows)
    per_byte = total / sum(row["n_bytes"] for row in rows)
    return {
        "loss_nats": total / sum(row["n_tokens"] for row in rows),
        "bits_per_byte": per_byte / math.log(2),
    }


def _perplexity(
    record: PerplexityRecord, rows: Sequence[Row]
) -> tuple[dict[str, tuple[int, int]], dict[str, float]]:
    counts = {
        "documents": (len(rows), record.n_documents),
        "tokens": (sum(row["n_tokens"] for row in rows), record.n_tokens),
        "bytes": (sum(row["n_bytes"] for row in rows), record.n_bytes),
    }
    total = -math.fsum(row["logprob"] for row in rows)
    figures = {}
    for metric, per in (("byte", "n_bytes"), ("word", "n_words"), ("token", "n_tokens")):
        if number := sum(row[per] for row in rows):
            figures[f"{metric}_perplexity"] = math.exp(min(total / number, 700.0))
    if number := sum(row["n_bytes"] for row in rows):
        figures["bits_per_byte"] = total / number / math.log(2)
    return counts, figures


def _other_values(run: StoredRun, record: PerplexityRecord, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the first document whose tokens' log-probabilities have another sum than its row."""
    import numpy as np

    values = run.read_long_values(record)
    start = 0
    for row in rows:
        part = values[start : start + row["n_tokens"]].astype(np.float64)
        start += row["n_tokens"]
        if not _close(float(part.sum()), row["logprob"], _EXACT):
            yield f"document '{row['name']}' has another sum than its tokens' log-probabilities"
            return


def _close(one: float, other: float, relative: float = _RELATIVE) -> bool:
    # Infinite values and those that are no number agree with their like.
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=relative, abs_tol=relative)
