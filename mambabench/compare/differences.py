"""The first item in which two sides differ, shown so that one sees what happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mambabench.compare.items import TaskItems
from mambabench.errors import MismatchError

_SHOWN_LETTERS: Final = 80
_BEFORE: Final = 20
_SAME_DATA = "Evaluate both on the same data, with the same prompts."


def refuse_mismatch(member: str, items: tuple[TaskItems, TaskItems], labels: tuple[str, str]) -> None:
    """Check that two sides hold the same documents, asked in the same way.

    Args:
        member: lm-eval's task.
        items: of both sides, over the same document numbers.
        labels: of both sides.

    Raises:
        MismatchError: with the first document that differs.
    """
    first, second = items
    for what, column, remedy in (
        ("document", "doc", "Evaluate both on the same data."),
        ("right answer", "target", _SAME_DATA),
        ("prompt", "arguments", "Evaluate both with the same prompts, examples and chat template."),
    ):
        one, other = _digests(first, column), _digests(second, column)
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a and b and a != b), None)
        if at is None:
            continue
        doc_id = int(first.doc_ids[at])
        texts = [_text(i.samples_path, doc_id, column) for i in items]
        shown = _apart(*texts)
        which = f"document {doc_id}" if what == "document" else f"the {what} of document {doc_id}"
        raise MismatchError(
            f"{member}: {which} differs: {labels[0]} has '{shown[0]}', {labels[1]} has '{shown[1]}'",
            hint=remedy,
        )


def _digests(items: TaskItems, column: str) -> Sequence[str]:
    return {"doc": items.doc_hashes, "target": items.target_hashes, "arguments": items.prompt_hashes}[column]


def _text(path: Path, doc_id: int, column: str) -> str:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=[column], filters=[("doc_id", "=", doc_id)])
    stored = table.column(column)[0].as_py() if table.num_rows else ""
    try:
        value: Any = json.loads(stored or '""')
    except ValueError:
        value = stored
    if column == "arguments" and isinstance(value, list):
        parts = [part for request in value for part in request if isinstance(part, str)]
        return " | ".join(parts)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _apart(first: str, second: str) -> tuple[str, str]:
    """Return both texts from shortly before where they begin to differ, on one line each."""
    same = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        same += 1
    begin = max(0, same - _BEFORE)
    return _shortened(first, begin), _shortened(second, begin)


def _shortened(text: str, begin: int) -> str:
    part = text[begin : begin + _SHOWN_LETTERS]
    shown = "".join(c if c.isprintable() else " " for c in part)
    return f"{'...' if begin else ''}{shown}{'...' if begin + _SHOWN_LETTERS < len(text) else ''}"
