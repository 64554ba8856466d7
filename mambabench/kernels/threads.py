"""Work on a few threads of our own, which sleep while they wait.

numba's and OpenMP's threads spin, and beside other programs they lose most of their time.

    >>> done = []
    >>> split(5, lambda first, last: done.append((first, last)), threads=2)
    >>> sorted(done)
    [(0, 2), (2, 5)]
"""

from __future__ import annotations

import os
import threading
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


def together(work: Callable[[int], None], threads: int, *, leave: Callable[[], None]) -> None:
    """Call `work(0)` to `work(threads - 1)` at the same time, and wait for all of them.

    Args:
        work: may wait for the other calls.
        threads: how many calls.
        leave: ends all waiting of one call for another; called if this thread is interrupted.
    """
    # Two groups at once could each hold threads that the other waits for.
    with _alone():
        rest = []
        try:
            for thread in range(1, threads):
                rest.append(_company(threads - 1).submit(work, thread))
            work(0)
        except BaseException:
            leave()
            raise
        finally:
            for part in rest:
                part.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")


@cache
def _company(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="together")


@cache
def _alone() -> threading.Lock:
    return threading.Lock()


def _forget() -> None:
    for made in (_pool, _company, _alone):
        made.cache_clear()


# Threads do not survive a fork, and a pool without them would wait forever.
os.register_at_fork(after_in_child=_forget)
