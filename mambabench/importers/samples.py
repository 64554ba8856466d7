"""lm-eval's samples files of every version since 0.4.0, a row at a time, in the shape that the store keeps.

    for row in SamplesFile(path, "piqa", ["none"], ("acc", "acc_norm"), "multiple_choice").rows():
        row["doc_id"], row["acc"]

| written by | file | rows |
|---|---|---|
| 0.4.0 to 0.4.2 | one JSON list | numbers as numbers; no filter, no names of metrics, no digests |
| 0.4.3 to 0.4.4 | a line each | numbers of answers as text; digests; no filter, no names of metrics |
| since | a line each | also the filter and the metrics' names |

Where filters are not named, a document stands there once for each of them, in the order of the task's.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from mambabench.errors import UsageError
from mambabench.importers.detect import parsed
from mambabench.schema import FileRecord

_SCORED: Final = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
"""Kinds of tasks whose answers are log-likelihoods."""
_INDEX: Final = re.compile(r"-?\d+|\[-?\d+(, -?\d+)*\]")
_WORDS: Final = {"True": True, "False": False}
_NEEDED: Final = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps")
_REMEDY: Final = "Copy it once more, or import the values alone with `--without-samples`."
Row = dict[str, Any]


def hash_text(text: str) -> str:
    """Return lm-eval's digest of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_document(document: Any) -> str:
    """Return lm-eval's digest of a document, whose fields stand in their original order."""
    return hash_text(json.dumps(document, indent=2, ensure_ascii=False))


@dataclass
class SamplesFile:
    """The samples of one task in a file of their own.

    Args:
        path: of the file.
        task: whose samples they are.
        filters: the task's, in order.
        metrics: names of the task's metrics.
        output_type: lm-eval's kind of task; empty where it is not known.
    """

    path: Path
    task: str
    filters: Sequence[str]
    metrics: Sequence[str]
    output_type: str
    record: FileRecord = field(init=False)

    def __post_init__(self) -> None:
        """Find out the size; the digest is known after the first reading."""
        try:
            size_bytes = self.path.stat().st_size
        except OSError as error:
            raise self._unreadable(error) from error
        self.record = FileRecord(name=self.path.name, size_bytes=size_bytes, sha256="")

    def rows(self, advance: Callable[[int], None] = lambda n: None) -> Iterator[Row]:
        """Yield samples in the file's order.

        Args:
            advance: told of bytes read.

        Raises:
            UsageError: the file cannot be read, is cut short, lacks a field, or holds an item twice.
        """
        seen: Counter[Any] = Counter()
        pairs: set[tuple[Any, str]] = set()
        for number, raw in enumerate(self._raw(advance), 1):
            if not isinstance(raw, dict) or any(name not in raw for name in _NEEDED):
                lacks = [n for n in _NEEDED if not isinstance(raw, dict) or n not in raw]
                raise UsageError(
                    f"{self.path}, item {number}: no sample of lm-eval, it lacks {lacks[0]}", hint=_REMEDY
                )
            doc_id = self._number(raw["doc_id"], number)
            filter_name = raw.get("filter")
            if filter_name is None:
                place = seen[doc_id]
                if place >= len(self.filters):
                    raise self._twice(doc_id)
                filter_name = self.filters[place]
            seen[doc_id] += 1
            if (doc_id, filter_name) in pairs:
                raise self._twice(doc_id)
            pairs.add((doc_id, filter_name))
            yield self._row(raw, doc_id, str(filter_name))

    def _raw(self, advance: Callable[[int], None]) -> Iterator[Any]:
        hasher = hashlib.sha256()
        try:
            with self.path.open("rb") as stream:
                for where, data in self._pieces(stream):
                    hasher.update(data)
                    advance(len(data))
                    if data.strip():
                        value = parsed(data, where)
                        yield from value if isinstance(value, list) else [value]
        except OSError as error:
            raise self._unreadable(error) from error
        digest = hasher.hexdigest()
        if self.record.sha256 not in ("", digest):
            raise UsageError(f"{self.path} has changed while it was read", hint="Import it once more.")
        self.record = self.record.model_copy(update={"sha256": digest})

    def _pieces(self, stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
        """Yield what holds whole JSON values: lines, or all of a file that is one list."""
        first = stream.read(1)
        stream.seek(0)
        if first == b"[":
            yield str(self.path), stream.read()
            return
        for number, line in enumerate(stream, 1):
            yield f"{self.path}, line {number},", line

    def _number(self, doc_id: Any, number: int) -> int:
        if isinstance(doc_id, bool) or not isinstance(doc_id, int):
            raise UsageError(
                f"{self.path}, item {number}: its doc_id {doc_id!r} is no whole number", hint=_REMEDY
            )
        return doc_id

    def _twice(self, doc_id: int) -> UsageError:
        return UsageError(
            f"{self.path} holds document {doc_id} twice",
            hint="An item must count once: evaluate the task again, or import the values alone with "
            "`--without-samples`.",
        )

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(f"cannot read {self.path}: {error.strerror or error}", hint=_REMEDY)

    def _row(self, raw: Mapping[str, Any], doc_id: int, filter_name: str) -> Row:
        arguments = _arguments(raw["arguments"])
        target = raw["target"]
        metrics = raw.get("metrics")
        names = metrics if isinstance(metrics, list) else [m for m in self.metrics if m in raw]
        row: Row = {
            "doc_id": doc_id,
            "doc": raw["doc"],
            "target": _target(target, self.output_type),
            "arguments": arguments,
            "resps": self._answers(raw["resps"]),
            "filtered_resps": self._answers(raw["filtered_resps"]),
            "filter": filter_name,
            "metrics": names,
            "doc_hash": raw.get("doc_hash") or hash_document(raw["doc"]),
            "prompt_hash": raw.get("prompt_hash") or _prompt_hash(arguments),
            "target_hash": raw.get("target_hash") or hash_text(str(target)),
        }
        return row | {name: _metric(name, raw[name]) for name in names if name in raw}

    def _answers(self, value: Any) -> Any:
        return _plain(value) if self.output_type in _SCORED else value


def _arguments(value: Any) -> list[Any]:
    """Return requests as lists of their parts, from either form in which they are written."""
    if isinstance(value, Mapping):
        return [list(one.values()) if isinstance(one, Mapping) else [one] for one in value.values()]
    return [list(one) if isinstance(one, list) else [one] for one in value]


def _prompt_hash(arguments: Sequence[Any]) -> str:
    first = arguments[0][0] if arguments and arguments[0] else ""
    return hash_text(first) if isinstance(first, str) else ""


def _target(value: Any, output_type: str) -> Any:
    """Return the right answer; a choice's number is one again where it was written as text."""
    if output_type == "multiple_choice" and isinstance(value, str) and _INDEX.fullmatch(value):
        return ast.literal_eval(value) if value[0] == "[" else int(value)
    return value


def _metric(name: str, value: Any) -> Any:
    """Return an item's value; lists stay as they are unless they must hold numbers."""
    return _plain(value) if isinstance(value, str) or is_ratio(name) else value


def is_ratio(metric: str) -> bool:
    """Return whether a metric's items are pairs of a log-likelihood and a length."""
    return metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")


def _plain(value: Any) -> Any:
    """Return numbers, and yes and no, that were written as text as what they are."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, str):
        return value
    if value in _WORDS:
        return _WORDS[value]
    try:
        return float(value)
    except ValueError:
        return value
