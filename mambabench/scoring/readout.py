"""Log-probabilities off rows of logits, in 32-bit floats whatever the model's dtype.

>>> import torch
>>> logprob, best = read_logits(torch.tensor([[0.0, 0.0]]), torch.tensor([0]), torch.tensor([1]))
>>> round(logprob.item(), 4), best.item()
(-0.6931, False)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mambabench.models.base import check_numbers

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY_CHUNK = 65_536
"""Columns of logits held at once; smaller vocabularies are one piece, and larger ones a few."""
_SOFTMAX_ROWS = 32


def read_logits(logits: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probability of targets, and whether each is the most likely id of its row.

    Args:
        logits: [n, V].
        rows: the row of each target, increasing, int64 [q].
        targets: ids, int64 [q].

    Returns:
        float64 [q] and bool [q].

    Raises:
        NotANumberError: a row holds NaN.
    """
    import torch

    found = torch.empty(len(rows), dtype=torch.float64, device=logits.device)
    is_best = torch.zeros(len(rows), dtype=torch.bool, device=logits.device)
    bounds = torch.arange(0, len(logits) + _SOFTMAX_ROWS, _SOFTMAX_ROWS, device=rows.device)
    edges = torch.searchsorted(rows, bounds).tolist()
    for k, begin in enumerate(range(0, len(logits), _SOFTMAX_ROWS)):
        some = logits[begin : begin + _SOFTMAX_ROWS].float()
        # On a processor this op adds up the vocabulary in 32 bits, which moves a log-probability by about
        # 7e-6; lm-eval's does the same, and agreeing with it to the last digits is worth more.
        logprobs = some.log_softmax(dim=1)
        check_numbers(logprobs[:, 0])
        mine = slice(edges[k], edges[k + 1])
        row, target = rows[mine] - begin, targets[mine]
        found[mine] = logprobs[row, target].double()
        # Finding the place of a maximum takes ten times as long as finding the maximum, and only where
        # the target reaches it does the place matter: of equal ones the first counts.
        hits = (some[row, target] == some.amax(dim=1)[row]).nonzero()[:, 0]
        if len(hits):
            is_best[edges[k] + hits] = some[row[hits]].argmax(dim=1) == target[hits]
    return found, is_best


def read_in_chunks(
    logits: Callable[[int, int], Tensor], vocab_size: int, rows: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Do the same for a vocabulary whose logits are too large to be held at once.

    Args:
        logits: returns the columns from one id up to another, [n, last - first].
        vocab_size: number of ids.
        rows: as in `read_logits`.
        targets: as in `read_logits`.

    Raises:
        NotANumberError: a row holds NaN.
    """
    import torch

    if vocab_size <= VOCABULARY_CHUNK:
        return read_logits(logits(0, vocab_size), rows, targets)
    total = largest = best = None
    wanted = torch.zeros(len(rows), dtype=torch.float64, device=targets.device)
    for first in range(0, vocab_size, VOCABULARY_CHUNK):
        some = logits(first, min(first + VOCABULARY_CHUNK, vocab_size)).float()
        here = (targets >= first) & (targets < first + some.shape[1])
        wanted[here] = some[rows[here], targets[here] - first].double()
        chunk_total = some.logsumexp(dim=1).double()
        chunk_largest, chunk_best = some.max(dim=1)
        if total is None or largest is None or best is None:
            total, largest, best = chunk_total, chunk_largest, chunk_best
            continue
        total = torch.logaddexp(total, chunk_total)
        # Of equal logits the first counts, as it does without chunks.
        best = torch.where(chunk_largest > largest, chunk_best + first, best)
        largest = torch.maximum(largest, chunk_largest)
    assert total is not None
    assert best is not None
    # Of infinite logits, as a 16-bit float's overflow gives, the difference is no number either.
    check_numbers(total - total)
    return wanted - total[rows], best[rows] == targets
