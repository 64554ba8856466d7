"""How far two programs' log-likelihoods lie from each other and from the same model's in float32.

>>> a, b = [{"doc_id": 0, "resps": [[-1.0, True]], "metrics": []}], [{"doc_id": 0, "resps": [[-1.5, True]], "metrics": []}]
>>> errors(ours={"t": a}, theirs={"t": b}, exact={"t": a})["largest_difference_nats"]
0.5
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ALLOWED = 1.5
"""Our root-mean-square error may be so many times theirs."""
SLACK_NATS = 1e-3
"""An error below this is none: sums of other order in float32 differ by as much."""

Samples = Mapping[str, Sequence[Mapping[str, Any]]]


def errors(*, ours: Samples, theirs: Samples, exact: Samples) -> dict[str, Any]:
    """Compare samples of the same tasks.

    Args:
        ours: by task, samples with "doc_id", "resps" as [log-likelihood, greedy] each, and metrics by name.
        theirs: the same documents.
        exact: of all or some of them, what both are held against.

    Returns:
        Counts and errors in nats. "agrees": all documents are there, all numbers are numbers, and our
        root-mean-square error is at most 1.5 times theirs, or below 1e-3 nats. "n_beyond" counts
        log-likelihoods of the two that differ by more than twice their largest error.
    """
    pairs = list(_matched(ours, theirs))
    against = {"ours": _error(ours, exact), "theirs": _error(theirs, exact)}
    differences = [abs(a[0] - b[0]) for _, _, mine, other in pairs for a, b in zip(mine, other, strict=True)]
    flags = [a[1] == b[1] for _, _, mine, other in pairs for a, b in zip(mine, other, strict=True)]
    choices = [_choice(mine) == _choice(other) for _, _, mine, other in pairs if len(mine) > 1]
    complete = _keys(ours) == _keys(theirs) and bool(pairs)
    finite = all(map(math.isfinite, differences))
    allowed = max(SLACK_NATS, ALLOWED * against["theirs"]["rms_nats"])
    return {
        "agrees": complete and finite and against["ours"]["rms_nats"] <= allowed,
        "n_documents": len(pairs),
        "n_log_likelihoods": len(differences),
        "largest_difference_nats": max(differences, default=math.nan),
        "rms_difference_nats": _rms(differences),
        "n_beyond": sum(not d <= 2 * against["theirs"]["largest_nats"] + SLACK_NATS for d in differences),
        "same_choice_share": _share(choices),
        "n_other_choice": choices.count(False),
        "same_greedy_share": _share(flags),
        "n_other_greedy": flags.count(False),
        "n_held_against_float32": against["ours"]["n"],
        "our_rms_error_nats": against["ours"]["rms_nats"],
        "their_rms_error_nats": against["theirs"]["rms_nats"],
        "our_largest_error_nats": against["ours"]["largest_nats"],
        "their_largest_error_nats": against["theirs"]["largest_nats"],
    }


def _keys(samples: Samples) -> set[tuple[str, int, str]]:
    return {(task, s["doc_id"], s.get("filter", "")) for task, rows in samples.items() for s in rows}


def _matched(
    one: Samples, other: Samples
) -> Iterator[tuple[str, int, Sequence[Sequence[Any]], Sequence[Sequence[Any]]]]:
    """Yield (task, document, its answers in one, in the other) of what both have."""
    for task, rows in one.items():
        there = {(s["doc_id"], s.get("filter", "")): s for s in other.get(task, ())}
        for sample in rows:
            match = there.get((sample["doc_id"], sample.get("filter", "")))
            if match is not None and len(match["resps"]) == len(sample["resps"]):
                yield task, sample["doc_id"], sample["resps"], match["resps"]


def _error(samples: Samples, exact: Samples) -> dict[str, Any]:
    found = [
        abs(a[0] - b[0])
        for _, _, mine, other in _matched(samples, exact)
        for a, b in zip(mine, other, strict=True)
    ]
    return {"n": len(found), "rms_nats": _rms(found), "largest_nats": max(found, default=math.nan)}


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / len(values)) if values else math.nan


def _share(same: Sequence[bool]) -> float | None:
    return sum(same) / len(same) if same else None


def _choice(answers: Sequence[Sequence[Any]]) -> int:
    return max(range(len(answers)), key=lambda i: answers[i][0])
