"""Batches that turn out too large for the memory are halved until they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def in_halves(
    work: Callable[[tuple[int, ...]], _T], batch: tuple[int, ...], note: Callable[[str], None]
) -> Iterator[_T]:
    """Yield `work(batch)`, or the results of its halves when the memory does not suffice.

    Args:
        work: does a batch.
        batch: indices of requests.
        note: told of every batch that had to be halved.

    Raises:
        torch.OutOfMemoryError: when a single request does not fit.
    """
    import torch

    try:
        result = work(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    else:
        yield result
        return
    # Outside the handler: the exception holds the failed forward's tensors, and with them the memory.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = (len(batch) + 1) // 2
    note(f"out of memory with {len(batch)} sequences; going on with {half}")
    yield from in_halves(work, batch[:half], note)
    yield from in_halves(work, batch[half:], note)
