"""Which choice is right and what each is worth, from what lm-eval keeps of a multiple-choice item.

lm-eval's samples hold the target as an index, as the choice's text, or, where the prompts differ and the
continuation does not, as a text that says nothing. Whatever is worked out here must give back the accuracy
that the task itself computed; where it does not, nothing is said of choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mambabench.compare.items import Choices, Measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mambabench.schema import CellRecord

    Floats = NDArray[np.float64]

Row = Mapping[str, Any]


def choices_of(
    cell: CellRecord, rows: Sequence[Row], measures: Mapping[str, Measure]
) -> tuple[Choices | None, str]:
    """Return the choices of a multiple-choice task, or None and why there are none.

    Args:
        cell: says what kind of task it is.
        rows: with "resps", "target", "continuations" and "metrics".
        measures: of the task; its accuracy is what the choices are held against.

    Returns:
        No reason is given where a task has no choices by its kind.
    """
    import numpy as np

    if cell.task.output_type != "multiple_choice" or not rows:
        return None, ""
    has_unconditional = "acc_mutual_info" in {m.metric for m in cell.metrics}
    scores, lengths_bytes, lengths_chars, right = [], [], [], []
    for row in rows:
        likelihoods = _log_likelihoods(row)
        texts = [_plain(text) for text in row["continuations"]]
        if likelihoods is None or len(texts) != len(likelihoods):
            return None, "what each choice was worth is not known: the samples do not say it"
        if has_unconditional:
            half = len(likelihoods) // 2
            likelihoods, texts = likelihoods[:half], texts[:half]
        at = _right(row, texts, likelihoods)
        if at is None:
            return None, "what each choice was worth is not known: some items do not say which is right"
        scores.append(likelihoods)
        lengths_bytes.append([float(len(text.encode("utf-8", "replace"))) for text in texts])
        lengths_chars.append([float(len(text)) for text in texts])
        right.append(at)
    found = Choices(
        _padded(scores), _padded(lengths_bytes), _padded(lengths_chars), np.array(right, np.int64)
    )
    accuracy = measures.get("acc")
    if accuracy is not None and not np.array_equal(_is_right(found), accuracy.values == 1.0):
        return None, "what each choice was worth is left out: it does not give back the task's own accuracy"
    return found, ""


def right_log_likelihoods(cell: CellRecord, rows: Sequence[Row], choices: Choices | None) -> Floats | None:
    """Return each item's log-likelihood of the right answer, [n] in nats; None where there is none."""
    import numpy as np

    if choices is not None:
        return np.asarray(np.take_along_axis(choices.log_likelihoods, choices.right[:, None], axis=1)[:, 0])
    if cell.task.output_type != "loglikelihood" or not rows:
        return None
    found = [_log_likelihoods(row) for row in rows]
    if not all(values is not None and len(values) == 1 for values in found):
        return None
    return np.array([values[0] for values in found if values], np.float64)


def _log_likelihoods(row: Row) -> list[float] | None:
    """Return the first answer to each request; a request may have been repeated."""
    import json

    answers = json.loads(row["resps"]) if isinstance(row["resps"], str) else row["resps"]
    found = []
    for answer in answers or []:
        while isinstance(answer, list) and answer and isinstance(answer[0], list):
            answer = answer[0]
        value = answer[0] if isinstance(answer, list) and answer else answer
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        found.append(float(value))
    return found or None


def _right(row: Row, texts: Sequence[str], likelihoods: Sequence[float]) -> int | None:
    import json

    target = json.loads(row["target"]) if isinstance(row["target"], str) else row["target"]
    if isinstance(target, int) and not isinstance(target, bool):
        return target if 0 <= target < len(texts) else None
    if isinstance(target, str):
        same = [i for i, text in enumerate(texts) if text == _plain(target)]
        if len(same) == 1:
            return same[0]
        if not same and target.strip().isdigit() and int(target) < len(texts):
            return int(target)
    return _right_by_accuracy(row, likelihoods)


def _right_by_accuracy(row: Row, likelihoods: Sequence[float]) -> int | None:
    """Return the right choice where the item's own accuracy leaves no doubt."""
    accuracy = row["metrics"].get("acc")
    likeliest = max(range(len(likelihoods)), key=likelihoods.__getitem__)
    if accuracy == 1.0:
        return likeliest
    return 1 - likeliest if accuracy == 0.0 and len(likelihoods) == 2 else None


def _is_right(choices: Choices) -> NDArray[np.bool_]:
    import numpy as np

    scores = np.where(np.isnan(choices.log_likelihoods), -np.inf, choices.log_likelihoods)
    return np.asarray(scores.argmax(axis=1) == choices.right)


def _plain(text: str) -> str:
    return text.strip()


def _padded(rows: Sequence[Sequence[float]]) -> Floats:
    import numpy as np

    padded = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
