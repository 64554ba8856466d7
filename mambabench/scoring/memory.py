"""Batches that do not fit into the memory are halved; memory that is free is given back.

glibc keeps freed blocks in its heap, where a small state that lives on between two large activations
pins both: a process then holds several times what it uses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")

_M_MMAP_THRESHOLD = -3


def map_blocks_from(n_bytes: int) -> None:
    """Let glibc take blocks of this size and larger from the system and give them back when freed.

    By itself it raises that size up to 32 MiB as larger blocks are freed. Other C libraries are left alone.

    Args:
        n_bytes: smaller ones save memory, and cost time for fresh pages.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, n_bytes)


def give_back() -> None:
    """Return free pages of glibc's heap to the system; elsewhere nothing happens."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


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
