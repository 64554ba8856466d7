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
        self._by_psutil: _ByPsutil | None = None
        if not self._open(pid):
            self._by_psutil = _ByPsutil(pid)

    def bytes(self) -> int:
        """Return what is resident now, of the process and its children; 0 when it has ended."""
        now_s = time.monotonic()
        due = now_s - self._children_s >= _CHILDREN_EVERY_S
        if due:
            self._children_s = now_s
        if self._by_psutil is not None:
            return self._by_psutil.bytes(find_children=due)
        if due:
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


class _ByPsutil:
    """The same on other systems.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        import psutil

        self._error = psutil.Error
        self._all: list[psutil.Process] = []
        with suppress(psutil.Error):
            self._all.append(psutil.Process(pid))

    def bytes(self, *, find_children: bool) -> int:
        """Return what is resident now, after looking for new children if asked to."""
        if find_children and self._all:
            with suppress(self._error):
                self._all[1:] = self._all[0].children(recursive=True)
        total = 0
        for process in self._all:
            with suppress(self._error):
                total += int(process.memory_info().rss)
        return total
