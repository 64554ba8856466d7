"""A meeting point of threads within one compiled call.

Who waits looks again and again for some microseconds, which is what the others take when they have cores of
their own, and then sleeps until the last one comes. Who had to sleep looks for half as long the next time:
when another program has a core, every look keeps one of the other threads from running.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

LONGEST = 2_000
"""Looks before a thread first sleeps."""
_SHORTEST = 50

_MACHINE = platform.machine().lower()
_HAS_PAUSE = _MACHINE in ("x86_64", "amd64")
# The number of Linux's call to sleep while a number in memory is what it is, and to wake those who do.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(_MACHINE, 0) if sys.platform == "linux" else 0
_WAIT, _WAKE = 128, 129
_SLEEP_US = 50
_LONGEST_SLEEP_NS = 20_000_000
_COUNT, _SLEEPERS, _SECONDS = 0, 8, 16

_int = types.int64
_syscall = types.ExternalFunction("syscall", _int(_int, _int, _int, _int, _int, _int, _int))
_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


def meeting() -> npt.NDArray[np.int64]:
    """Return memory for the meetings of one call; set its first number to 2^62 to end all waiting."""
    return np.array([0, 0, 0, _LONGEST_SLEEP_NS], np.int64)


@register_jitable  # type: ignore[untyped-decorator]
def meet(place: int, target: int, looks: int) -> int:
    """Count this thread as arrived, and wait until all have.

    Args:
        place: address of what `meeting` returned.
        target: threads times the meetings so far, this one among them.
        looks: before this thread sleeps.

    Returns:
        How many it should take the next time.
    """
    if _add(place + _COUNT, 1) + 1 == target:
        if _FUTEX and _load(place + _SLEEPERS) > 0:
            _syscall(_FUTEX, place, _WAKE, 2**30, 0, 0, 0)
        return looks
    for _ in range(looks):
        if _load(place + _COUNT) >= target:
            return min(2 * looks, LONGEST)
        _pause()
    if _FUTEX:
        _add(place + _SLEEPERS, 1)
        count = _load(place + _COUNT)
        while count < target:
            _syscall(_FUTEX, place, _WAIT, count, place + _SECONDS, 0, 0)
            count = _load(place + _COUNT)
        _add(place + _SLEEPERS, -1)
    else:
        while _load(place + _COUNT) < target:
            _usleep(types.uint32(_SLEEP_US))
    return max(looks // 2, _SHORTEST)


@intrinsic  # type: ignore[untyped-decorator]
def _add(typing_context: Any, address: Any, number: Any) -> Any:
    """Add to the int64 at an address, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _load(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _pause(typing_context: Any) -> Any:
    """Let a thread of the same core go first, where the processor has an instruction for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _HAS_PAUSE:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate
