"""Resident memory of a running process and its children, cheap enough to look at many times a second.

>>> resident = Resident(os.getpid())
>>> resident.bytes() > 1_000_000
True
>>> resident.close()
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_CHILDREN_EVERY_S = 1.0
_STATM_BYTES = 128


class Resident:
    """Looks at a process from outside.

    New children are noticed within a second. Pages that processes share are counted for each.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._files: dict[int, int] = {}
        self._children_s = time.monotonic()
        self._psutil: psutil.Process | None = None
        if not self._open(pid):
            import psutil

            with suppress(psutil.Error):
                self._psutil = psutil.Process(pid)

    def bytes(self) -> int:
        """Return what is resident now, of the process and its children; 0 when it has ended."""
        if self._psutil is not None:
            return _by_psutil(self._psutil)
        now_s = time.monotonic()
        if now_s - self._children_s >= _CHILDREN_EVERY_S:
            self._children_s = now_s
            self._find_children()
        return sum(self._of(pid) for pid in list(self._files))

    def close(self) -> None:
        """Close all files."""
        for pid in list(self._files):
            self._drop(pid)

    def _open(self, pid: int) -> bool:
        try:
            self._files[pid] = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def _drop(self, pid: int) -> None:
        os.close(self._files.pop(pid))

    def _of(self, pid: int) -> int:
        try:
            fields = os.pread(self._files[pid], _STATM_BYTES, 0).split()
        except OSError:
            self._drop(pid)
            return 0
        return int(fields[1]) * self._page_bytes if len(fields) > 1 else 0

    def _find_children(self) -> None:
        waiting = [self._pid]
        while waiting:
            for child in _children(waiting.pop()):
                if child in self._files or self._open(child):
                    waiting.append(child)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    # Those that a thread started are listed with it.
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                found += [int(child) for child in file.read().split()]
    return found


def _by_psutil(process: psutil.Process) -> int:
    import psutil

    total = 0
    with suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += int(one.memory_info().rss)
    return total
