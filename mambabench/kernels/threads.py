"""Work on a few threads of our own, which sleep while they wait.

numba's and OpenMP's threads spin, and beside other programs they lose most of their time.

    >>> done = []
    >>> split(5, lambda first, last: done.append((first, last)), threads=2)
    >>> sorted(done)
    [(0, 2), (2, 5)]
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise


def split(n_units: int, work: Callable[[int, int], None], *, threads: int | None = None) -> None:
    """Call `work(first, last)` on ranges that cover the units from 0 to `n_units`, and wait for all of them.

    Args:
        n_units: pieces of work of about equal size.
        work: does the units from `first` up to `last`; calls must not touch each other's results.
        threads: how many ranges; by default as many as torch uses.
    """
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    threads = max(1, min(threads, n_units))
    edges = [n_units * i // threads for i in range(threads + 1)]
    rest = [_pool(threads - 1).submit(work, low, high) for low, high in pairwise(edges[1:])]
    work(edges[0], edges[1])
    for part in rest:
        part.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")


# Threads do not survive a fork, and a pool without them would wait forever.
os.register_at_fork(after_in_child=_pool.cache_clear)
