"""Aligned tasks made by hand: chosen values for every side, without runs on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mambabench.compare.items import LOG_LIKELIHOOD, AlignedSide, AlignedTask, Measure

# What each kind of measure is like in lm-eval: name, unit, whether higher is better.
KINDS: dict[str, tuple[str, str, bool]] = {
    "binary": ("acc", "fraction", True),
    "mean": ("f1", "fraction", True),
    "log mean": ("perplexity", "perplexity", False),
    "ratio": ("word_perplexity", "perplexity", False),
    "bits": ("bits_per_byte", "bits_per_byte", False),
    "corpus": ("bleu", "score", True),
    "nats": (LOG_LIKELIHOOD, "nats", True),
    "score": ("chrf", "score", True),
    "error": ("error_rate", "fraction", False),
}
_MEASURED: dict[str, str] = {"bits": "ratio", "nats": "mean", "score": "mean", "error": "binary"}


def measure(kind: str, values: Any, weights: Any = None, **changes: Any) -> Measure:
    name, unit, higher = KINDS[kind]
    column = np.asarray(values, float)
    if weights is not None:
        weights = np.broadcast_to(np.asarray(weights, float), column.shape)
    fields: dict[str, Any] = {
        "name": name,
        "filter": "none",
        "unit": unit,
        "kind": _MEASURED.get(kind, kind),
        "values": column,
        "weights": weights,
        "higher_is_better": higher,
        "recorded": float(column.mean()),
    }
    return Measure(**{**fields, **changes})


def aligned_task(*sides: Sequence[Measure], **changes: Any) -> AlignedTask:
    """Lay measures side by side, the baseline's first; the log-likelihood is no metric that is read."""
    n = len(sides[0][0].values)
    names = [m.name for m in sides[0]]
    fields: dict[str, Any] = {
        "task": "arc_easy",
        "label": "ARC-E",
        "metrics": tuple(name for name in names if name != LOG_LIKELIHOOD),
        "members": (changes.get("task", "arc_easy"),),
        "member_of": np.zeros(n, np.int64),
        "doc_ids": np.arange(n),
        "doc_hashes": tuple(map(str, range(n))),
        "context_lengths_bytes": np.full(n, 10),
        "clusters": None,
        "cluster_name": "",
        "n_total": n,
        "sides": tuple(AlignedSide({m.name: m for m in side}, None, ()) for side in sides),
        "partial": False,
    }
    return AlignedTask(**{**fields, **changes})


def compared_by(kind: str, baseline: Any, candidate: Any, weights: Any = None, **changes: Any) -> AlignedTask:
    """One measure of one candidate."""
    return aligned_task([measure(kind, baseline, weights)], [measure(kind, candidate, weights)], **changes)


def answers(n_won: int, n_lost: int, n_both: int, n_neither: int) -> tuple[list[int], list[int]]:
    """Right and wrong answers of a baseline and a candidate."""
    baseline = [0] * n_won + [1] * n_lost + [1] * n_both + [0] * n_neither
    candidate = [1] * n_won + [0] * n_lost + [1] * n_both + [0] * n_neither
    return baseline, candidate
