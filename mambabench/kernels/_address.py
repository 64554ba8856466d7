"""An array at an address, for compiled loops whose rows lie in memory of their own."""

from __future__ import annotations

from typing import Any

from numba import carray, types
from numba.extending import intrinsic, register_jitable


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any) -> Any:
    """Turn an int64 into a pointer to float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def integer_at(typing_context: Any, address: Any) -> Any:
    """Return the int64 at an address; nothing checks that it is there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(types.CPointer(types.int64))
        return builder.load(builder.inttoptr(arguments[0], kind))

    return types.int64(types.int64), generate


@register_jitable  # type: ignore[untyped-decorator]
def floats_at(address: int, size: int) -> Any:
    """Return the `size` float32 numbers at an address; nothing checks that they are there, or keeps them."""
    return carray(_pointer(address), (size,))


@register_jitable  # type: ignore[untyped-decorator]
def copy(source: Any, target: Any) -> None:
    """Copy an array to another of its length.

    numba compiles `target[:] = source` together with the words of its error, which takes seconds.
    """
    for i in range(source.shape[0]):
        target[i] = source[i]
