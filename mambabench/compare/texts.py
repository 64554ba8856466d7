"""What items asked and what a side answered, read from samples for chosen documents only.

    texts = read_texts(task, items=[0, 17])
    texts[0].question, texts[0].right_answer, texts[0].answers[1]

The Parquet file is read in batches of which all but the wanted rows are dropped at once: prompts of five
worked examples take hundreds of megabytes for a task.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.errors import StoreError

if TYPE_CHECKING:
    from mambabench.compare.items import AlignedSide, AlignedTask, Choices, Floats, Integers

SCREENFUL_CHARS: Final = 600
"""Of a question its end is kept, where the question itself stands."""
ANSWER_CHARS: Final = 300
"""Of an answer its beginning is kept."""
_BATCH_ROWS: Final = 1_000
_ASKED: Final = ("doc_id", "filter", "arguments", "target", "filtered_resps")
_ANSWERED: Final = ("doc_id", "filter", "filtered_resps")
_REMEDY: Final = "Delete the file and the record of the same name in `cells/`, and run the command again."


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

    What a side answered is, of choices, the likeliest by the rule of the headline metric; of a single
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
    asked = _rows_of(task, 0, wanted, _ASKED)
    requests = {item: _json(row.get("arguments")) or [] for item, row in asked.items()}
    # Only what was generated differs in text from side to side.
    generated = any(len(one) == 1 and _is_generation(one[0]) for one in requests.values())
    rows = [asked] + [
        _rows_of(task, number, wanted, _ANSWERED) if generated else {} for number in range(1, len(task.sides))
    ]
    chosen = [chosen_of(side, task.metrics[0] if task.metrics else "") for side in task.sides]
    found = {}
    for item in wanted:
        mine = requests.get(item, [])
        target = _json(asked.get(item, {}).get("target"))
        kept = [_json(side.get(item, {}).get("filtered_resps")) for side in rows]
        question, right, answers = _in_words(task, item, mine, target, kept, chosen)
        found[item] = ItemText(_end(question, SCREENFUL_CHARS), _start(right), tuple(map(_start, answers)))
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
    rows = _rows_of(task, 0, range(task.n), ("doc_id", "filter", "target"))
    targets = [_json(rows.get(item, {}).get("target")) for item in range(task.n)]
    if not all(isinstance(target, str) for target in targets):
        return None
    return np.array([len(target.strip().encode("utf-8", "replace")) for target in targets], np.int64)


def chosen_of(side: AlignedSide, headline: str) -> Integers | None:
    """Return the choice that a side takes by the headline metric, [n]; None without choices, -1 if unknown.

    As in lm-eval, `acc_norm` divides log-likelihoods by characters and `acc_bytes` by bytes. Where the item's
    score says otherwise (a task may do its own), the score holds.
    """
    import numpy as np

    if side.choices is None:
        return None
    chosen = _scores(side.choices, headline).argmax(axis=1)
    measure = side.measures.get(headline)
    if measure is None or measure.kind != "binary":
        return np.asarray(chosen, np.int64)
    right = side.choices.right
    unknown = (chosen == right) & (measure.values == 0)
    return np.asarray(np.where(measure.values == 1, right, np.where(unknown, -1, chosen)), np.int64)


def _scores(choices: Choices, headline: str) -> Floats:
    import numpy as np

    lengths = {"acc_norm": choices.lengths_chars, "acc_bytes": choices.lengths_bytes}.get(headline)
    scores = choices.log_likelihoods
    if lengths is not None:
        scores = np.divide(scores, lengths, out=np.full_like(scores, -np.inf), where=lengths > 0)
    return np.where(np.isnan(scores), -np.inf, scores)


def _in_words(
    task: AlignedTask,
    item: int,
    requests: Sequence[Any],
    target: Any,
    kept: Sequence[Any],
    chosen: Sequence[Integers | None],
) -> tuple[str, str, list[str]]:
    """Return an item's question, its right answer, and each side's answer."""
    unknown = [""] * len(kept)
    if not requests or not all(isinstance(request, list) and request for request in requests):
        return "", target if isinstance(target, str) else "", unknown
    first = requests[0]
    if len(requests) == 1 and _is_generation(first):
        answers = [_first_text(one) for one in kept]
        return str(first[0]), _target_text(target), answers
    choices = task.sides[0].choices
    if choices is not None:
        n_choices = int((choices.lengths_bytes[item] >= 0).sum())
        question, texts = _choices_in_words(requests[:n_choices])
        at = [-1 if one is None else int(one[item]) for one in chosen]
        return question, texts[int(choices.right[item])], [texts[i] if i >= 0 else "" for i in at]
    if len(requests) == 1 and len(first) > 1:
        measures = [side.measures.get("acc") for side in task.sides]
        greedy = [m is not None and m.kind == "binary" and m.values[item] == 1 for m in measures]
        answer = str(first[1]).strip()
        return str(first[0]), answer, [answer if likeliest else "" for likeliest in greedy]
    return str(first[0]), _target_text(target) if len(requests) > 1 else "", unknown


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


def _is_generation(request: Any) -> bool:
    return isinstance(request, list) and len(request) > 1 and isinstance(request[1], dict)


def _first_text(value: Any) -> str:
    """Return what was generated, the first of several."""
    while isinstance(value, list) and value:
        value = value[0]
    return value.strip() if isinstance(value, str) else ""


def _target_text(target: Any) -> str:
    if isinstance(target, list):
        target = next((one for one in target if isinstance(one, str)), "")
    return target.strip() if isinstance(target, str) else "" if target is None else str(target)


def _rows_of(
    task: AlignedTask, side: int, items: Sequence[int], columns: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """Return rows of one side's samples by the items' places."""
    import numpy as np

    places = np.asarray(items, np.int64)
    measures = task.sides[side].measures
    headline = measures.get(task.metrics[0]) if task.metrics else next(iter(measures.values()), None)
    found: dict[int, dict[str, Any]] = {}
    for member, path in enumerate(task.sides[side].samples_paths):
        mine = places[task.member_of[places] == member]
        if not len(mine):
            continue
        by_document = dict(zip(task.doc_ids[mine].tolist(), mine.tolist(), strict=True))
        for row in _rows(path, sorted(by_document), headline.filter if headline else None, columns):
            found.setdefault(by_document[row["doc_id"]], row)
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
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
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


def _end(text: str, most: int) -> str:
    text = text.strip()
    return text if len(text) <= most else f"…{text[len(text) - most + 1 :]}"


def _start(text: str) -> str:
    return text if len(text) <= ANSWER_CHARS else f"{text[: ANSWER_CHARS - 1]}…"
