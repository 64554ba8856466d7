"""A meeting point of threads within one compiled call.

Who waits looks again and again for a few microseconds, which is what the others take when they have cores of
their own; after that it sleeps between looks, so that they get the core if there is none left for them.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

_LOOKS = 2_000
_SLEEP_US = 50
_HAS_PAUSE = platform.machine().lower() in ("x86_64", "amd64")

_sleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@register_jitable  # type: ignore[untyped-decorator]
def meet(arrived: int, target: int) -> None:
    """Count this thread as arrived, and wait until the count is `target`.

    Args:
        arrived: address of the count, an int64 that is zero when the first thread begins.
        target: threads times the meetings so far, this one among them.
    """
    _arrive(arrived)
    looks = 0
    while _count(arrived) < target:
        looks += 1
        if looks < _LOOKS:
            _pause()
        else:
            _sleep(types.uint32(_SLEEP_US))


@intrinsic  # type: ignore[untyped-decorator]
def _arrive(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.atomic_rmw("add", place, ir.IntType(64)(1), "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _count(typing_context: Any, address: Any) -> Any:
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
