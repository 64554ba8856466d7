"""What became of a measurement that did not end well, as one of the statuses of a replicate.

>>> classify(RuntimeError("CUDA error: an illegal memory access was encountered")).status
'illegal_access'
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterator
from typing import NamedTuple

from mambabench.errors import MambabenchError
from mambabench.launch.process import ChildExit
from mambabench.speed_schema import Status

_LONGEST_DETAIL = 300
_POWERS = {
    unit: 1024**power for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
}
# numpy writes "909. TiB".
_SIZE = rf"(\d+(?:\.\d*)?)\s*({'|'.join(_POWERS)})\b"
_REQUESTED = re.compile(rf"(?:[Tt]ried to allocate|Unable to allocate)\s+{_SIZE}")
# Before torch 2 the sum stood in parentheses, behind the card's total.
_ALLOCATED = re.compile(rf"{_SIZE}\s+(?:is allocated by PyTorch|already allocated)")
_ILLEGAL = re.compile("illegal memory access|CUDA_ERROR_ILLEGAL_ADDRESS")
_OUT_OF_MEMORY = re.compile(
    "CUDA out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED"
    "|DefaultCPUAllocator: (?:can't allocate memory|not enough memory)"
)


class UnsupportedError(MambabenchError):
    """A point that does not exist for a model: past its learned positions, or a path that it has not got."""


class Failure(NamedTuple):
    """One measurement that did not end well."""

    status: Status
    detail: str
    """One line."""
    requested_bytes: int | None = None
    """Allocation that failed, where the error says it."""
    allocated_bytes: int | None = None
    """In use when it failed, likewise."""


def classify(error: BaseException) -> Failure:
    """Return what an error that ended a measurement means.

    Errors that another was raised from count too, so that a wrapped lack of memory is one.
    """
    chain = list(_causes(error))
    for one in chain:
        if isinstance(one, UnsupportedError):
            return Failure("unsupported", _one_line(str(one)))
    for one in chain:
        text = str(one)
        if _is_out_of_memory(one, text):
            return Failure(
                "oom", _one_line(text) or "out of memory", _size(_REQUESTED, text), _size(_ALLOCATED, text)
            )
        if _ILLEGAL.search(text):
            return Failure("illegal_access", _one_line(text))
    text = str(error)
    if not isinstance(error, MambabenchError):
        text = f"{type(error).__name__}: {text}" if text.strip() else type(error).__name__
    return Failure("failed", _one_line(text))


def classify_exit(ended: ChildExit) -> Failure:
    """Return what the end of a process means that left no record."""
    if ended.over_budget:
        above = ended.peak_rss_bytes - (ended.baseline_bytes or 0)
        return Failure(
            "oom", f"ended at {above:,} bytes above its baseline, over the budget", allocated_bytes=above
        )
    if ended.timed_out:
        return Failure("timeout", f"ended by its time limit after {ended.wall_s:.1f} s")
    if ended.returncode == -signal.SIGKILL:
        return Failure(
            "killed",
            "killed by SIGKILL from outside: probably by the kernel, because the machine was out of memory",
        )
    lines = [line for line in ended.stderr_tail.splitlines() if line.strip()]
    said = f": {lines[-1].strip()}" if lines else ""
    return Failure("failed", _one_line(f"{_ending(ended.returncode)}{said}"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    # By name, because torch need not be there.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return named or refused or isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text) is not None


def _size(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    if found is None:
        return None
    return int(float(found[1]) * _POWERS[found[2]])


def _one_line(text: str) -> str:
    lines = text.strip().splitlines()
    line = lines[0].strip() if lines else ""
    return line if len(line) <= _LONGEST_DETAIL else line[: _LONGEST_DETAIL - 1] + "…"


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode} and no record"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"ended by {name}"
