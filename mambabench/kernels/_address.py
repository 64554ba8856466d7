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


@register_jitable  # type: ignore[untyped-decorator]
def floats_at(address: int, size: int) -> Any:
    """Return the `size` float32 numbers at an address; nothing checks that they are there, or keeps them."""
    return carray(_pointer(address), (size,))
