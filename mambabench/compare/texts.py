"""What items asked and what a side answered, read from samples for chosen documents only.

    texts = read_texts(task, items=[0, 17])
    texts[0].question, texts[0].right_answer, texts[0].answers[1]

The Parquet file is read in batches of which all but the wanted rows are dropped at once: prompts of five
worked examples take hundreds of megabytes for a task.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mambabench.errors import StoreError

if TYPE_CHECKING:
    from mambabench.compare.items import AlignedSide, AlignedTask, Choices, Floats, Integers

SCREENFUL_CHARS: Final = 600
"""Of a question its end is kept, where the question itself stands."""
ANSWER_CHARS: Final = 300
"""Of an answer its beginning is kept."""
_BATCH_ROWS: Final = 1_000
_REMEDY: Final = "Delete the file and the record of the same name in `cells/`, and run the command again."

_Reduced = TypeVar("_Reduced")


@dataclass(frozen=True)
class ItemText:
    """One item in words."""

    question: str
    """End of what was asked, worked examples before it cut off as far as it is long."""
    right_answer: str
    """Empty where there is none, as of a text whose probability is the figure."""
    answers: tuple[str, ...]
    """[n_sides]; empty where what a side answered is not known."""


def read_texts(task: AlignedTask, items: Sequence[int]) -> dict[int, ItemText]:
    """Return the texts of some items of a task.

    What a side answered is, of choices, the likeliest by the rule of the task's accuracy; of a single
    continuation itself where it was the likeliest; of generation what the filter made of it.

    Args:
        task: aligned items.
        items: places in the task's columns.

    Returns:
        By place.

    Raises:
        StoreError: samples are missing or damaged.
    """
    wanted = sorted(set(items))
    asked = _rows_of(task, 0, wanted, ("arguments", "target"), functools.partial(_asked, task))
    # Only what was generated differs in text from side to side.
    generated = any(one.generated for one in asked.values())
    answers = [
        _rows_of(task, number, wanted, ("filtered_resps",), _first_answer) if generated else {}
        for number in range(len(task.sides))
    ]
    chosen = [chosen_of(side, task.accuracy or "acc") for side in task.sides]
    found = {}
    for item in wanted:
        one = asked.get(item, _Asked("", "", (), generated=False))
        if one.generated:
            said = tuple(side.get(item, "") for side in answers)
        elif task.sides[0].choices is not None:
            at = [-1 if places is None else int(places[item]) for places in chosen]
            said = tuple(one.choices[i] if 0 <= i < len(one.choices) else "" for i in at)
        else:
            said = tuple(one.right_answer if _is_likeliest(side, item) else "" for side in task.sides)
        found[item] = ItemText(one.question, one.right_answer, said)
    return found


def answer_lengths_bytes(task: AlignedTask) -> Integers | None:
    """Return the UTF-8 bytes of each item's right answer, [n]; None where it is no text of its own.

    Of sentences with several beginnings and one end all choices are as long as the end, which is no answer.

    Raises:
        StoreError: samples are missing or damaged.
    """
    import numpy as np

    choices = task.sides[0].choices
    if choices is not None:
        if bool((np.nanmin(choices.lengths_bytes, axis=1) == np.nanmax(choices.lengths_bytes, axis=1)).all()):
            return None
        lengths = np.take_along_axis(choices.lengths_bytes, choices.right[:, None], axis=1)[:, 0]
        return np.asarray(lengths, np.int64)
    lengths_bytes = _rows_of(task, 0, range(task.n), ("target",), _target_bytes)
    known = [lengths_bytes.get(item) for item in range(task.n)]
    if any(length is None for length in known):
        return None
    return np.array(known, np.int64)


def chosen_of(side: AlignedSide, accuracy: str) -> Integers | None:
    """Return the choice that a side takes by an accuracy, [n]; None without choices, -1 if unknown.

    As in lm-eval, `acc_norm` divides log-likelihoods by characters and `acc_bytes` by bytes. Where the item's
    score says otherwise (a task may do its own), the score holds.
    """
    import numpy as np

    if side.choices is None:
        return None
    chosen = _scores(side.choices, accuracy).argmax(axis=1)
    measure = side.measures.get(accuracy)
    if measure is None or measure.kind != "binary":
        return np.asarray(chosen, np.int64)
    right = side.choices.right
    unknown = (chosen == right) & (measure.values == 0)
    return np.asarray(np.where(measure.values == 1, right, np.where(unknown, -1, chosen)), np.int64)


def _scores(choices: Choices, accuracy: str) -> Floats:
    import numpy as np

    lengths = {"acc_norm": choices.lengths_chars, "acc_bytes": choices.lengths_bytes}.get(accuracy)
    scores = choices.log_likelihoods
    if lengths is not None:
        scores = np.divide(scores, lengths, out=np.full_like(scores, -np.inf), where=lengths > 0)
    return np.where(np.isnan(scores), -np.inf, scores)


@dataclass(frozen=True)
class _Asked:
    question: str
    right_answer: str
    choices: tuple[str, ...]
    generated: bool


def _asked(task: AlignedTask, item: int, row: Mapping[str, Any]) -> _Asked:
    """Return what one row asked; long prompts are cut here, so that few are held at a time."""
    requests = _json(row["arguments"]) or []
    target = _target_text(_json(row["target"]))
    if not requests or not all(isinstance(request, list) and request for request in requests):
        return _Asked("", _start(target), (), generated=False)
    first = requests[0]
    choices = task.sides[0].choices
    texts: list[str] = []
    question, right, generated = str(first[0]), "", False
    if len(requests) == 1 and len(first) > 1 and isinstance(first[1], dict):
        right, generated = target, True
    elif choices is not None:
        n_choices = int((choices.lengths_bytes[item] >= 0).sum())
        question, texts = _choices_in_words(requests[:n_choices])
        right = texts[int(choices.right[item])]
    elif len(requests) > 1:
        right = target
    elif len(first) > 1:
        right = str(first[1]).strip()
    return _Asked(_end(question), _start(right), tuple(map(_start, texts)), generated)


def _is_likeliest(side: AlignedSide, item: int) -> bool:
    """Return whether the right continuation of an item was the likeliest one, token by token."""
    measure = side.measures.get("acc")
    return measure is not None and measure.kind == "binary" and bool(measure.values[item] == 1)


def _choices_in_words(requests: Sequence[Sequence[Any]]) -> tuple[str, list[str]]:
    """Return the question and the choices; of one sentence with several beginnings, what they differ in."""
    contexts = [str(request[0]) for request in requests]
    endings = [str(request[1]) if len(request) > 1 else "" for request in requests]
    if len(set(endings)) > 1 or len(set(contexts)) == 1:
        return contexts[0], [ending.strip() for ending in endings]
    least, greatest = min(contexts), max(contexts)
    same = [a == b for a, b in zip(least, greatest, strict=False)]
    shared = least[: [*same, False].index(False)]
    # Choices that begin alike are told apart by whole words.
    shared = shared[: shared.rfind(" ") + 1]
    return f"{shared}_{endings[0]}", [context[len(shared) :].strip() for context in contexts]


def _first_answer(item: int, row: Mapping[str, Any]) -> str:
    """Return what was generated, the first of several."""
    value = _json(row["filtered_resps"])
    while isinstance(value, list) and value:
        value = value[0]
    return _start(value.strip()) if isinstance(value, str) else ""


def _target_bytes(item: int, row: Mapping[str, Any]) -> int | None:
    target = _json(row["target"])
    return len(target.strip().encode("utf-8", "replace")) if isinstance(target, str) else None


def _target_text(target: Any) -> str:
    if isinstance(target, list):
        target = next((one for one in target if isinstance(one, str)), "")
    return target.strip() if isinstance(target, str) else "" if target is None else str(target)


def _rows_of(
    task: AlignedTask,
    side: int,
    items: Sequence[int],
    columns: Sequence[str],
    reduced: Callable[[int, Mapping[str, Any]], _Reduced],
) -> dict[int, _Reduced]:
    """Return what is made of the rows of one side's samples, by the items' places."""
    import numpy as np

    places = np.asarray(items, np.int64)
    measures = task.sides[side].measures
    read = task.accuracy or next(iter(task.metrics), None)
    measure = measures.get(read) if read else next(iter(measures.values()), None)
    found: dict[int, _Reduced] = {}
    for member, path in enumerate(task.sides[side].samples_paths):
        mine = places[task.member_of[places] == member]
        if not len(mine):
            continue
        by_document = dict(zip(task.doc_ids[mine].tolist(), mine.tolist(), strict=True))
        for row in _rows(path, sorted(by_document), measure.filter if measure else None, columns):
            item = by_document[row["doc_id"]]
            found.setdefault(item, reduced(item, row))
    return found


def _rows(
    path: Path, doc_ids: Sequence[int], filter_name: str | None, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(doc_ids, pa.int64())
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["doc_id", "filter", *columns]):
                for row in batch.filter(pc.is_in(batch["doc_id"], value_set=wanted)).to_pylist():
                    if filter_name is None or (row["filter"] or "none") == filter_name:
                        yield row
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"cannot read the samples in {path}: {reason}", hint=_REMEDY) from error


def _json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return None


def _valid(text: str) -> str:
    """Return text that can be written: half of a surrogate pair, which tokenizers can produce, cannot."""
    return text.encode("utf-8", "replace").decode()


def _end(text: str) -> str:
    text = _valid(text.strip())
    return text if len(text) <= SCREENFUL_CHARS else f"…{text[len(text) - SCREENFUL_CHARS + 1 :]}"


def _start(text: str) -> str:
    text = _valid(text)
    return text if len(text) <= ANSWER_CHARS else f"{text[: ANSWER_CHARS - 1]}…"
