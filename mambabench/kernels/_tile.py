"""One small matrix product whose sums stay in registers; written as vector code, because LLVM makes of loops
over arrays only such as load and store each sum again and again, at a third of the speed.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4
COLUMNS = 64

_VECTOR = 16
# Sixteen 512-bit sums leave room for what they are made of; processors with shorter or fewer registers
# take a quarter of the columns at a time.
_AT_ONCE = COLUMNS if llvm.get_host_cpu_features().get("avx512f", False) else _VECTOR
_FLAT = types.Array(types.float32, 1, "C")


@intrinsic  # type: ignore[untyped-decorator]
def multiply(typing_context: Any, total: Any, factor: Any, right: Any, depth: Any) -> Any:
    """Add `factor` [4, depth] times `right` [depth, 64] to `total` [4, 64].

    All are flat float32 arrays with a row every 64 numbers; none may overlap `total`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total_at, factor_at, right_at = (
            context.make_array(kind)(context, builder, argument).data
            for kind, argument in zip(signature.args[:3], arguments[:3], strict=True)
        )
        for column in range(0, COLUMNS, _AT_ONCE):
            _columns(builder, total_at, factor_at, right_at, arguments[3], column)
        return context.get_dummy_value()

    if any(kind != _FLAT for kind in (total, factor, right)):
        return None
    return types.void(total, factor, right, types.intp), generate


def _columns(builder: Any, total: Any, factor: Any, right: Any, depth: Any, column: int) -> None:
    """Emit the product for `_AT_ONCE` columns from `column` on."""
    number = ir.IntType(64)
    vector = ir.VectorType(ir.FloatType(), _VECTOR)
    multiply_add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{_VECTOR}f32"
    )
    parts = range(column, column + _AT_ONCE, _VECTOR)

    def at(array: Any, index: Any) -> Any:
        return builder.bitcast(builder.gep(array, [index]), vector.as_pointer())

    sums = {}
    for row in range(ROWS):
        for part in parts:
            place = cgutils.alloca_once(builder, vector)
            builder.store(builder.load(at(total, number(row * COLUMNS + part)), align=4), place)
            sums[row, part] = place
    with cgutils.for_range(builder, depth, intp=number) as loop:
        first = builder.mul(loop.index, number(COLUMNS))
        values = {part: builder.load(at(right, builder.add(first, number(part))), align=4) for part in parts}
        for row in range(ROWS):
            one = builder.load(builder.gep(factor, [builder.add(loop.index, number(row * COLUMNS))]))
            start = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.IntType(32)(0))
            same = ir.Constant(ir.VectorType(ir.IntType(32), _VECTOR), [0] * _VECTOR)
            spread = builder.shuffle_vector(start, ir.Constant(vector, ir.Undefined), same)
            for part in parts:
                place = sums[row, part]
                builder.store(builder.call(multiply_add, [spread, values[part], builder.load(place)]), place)
    for (row, part), place in sums.items():
        builder.store(builder.load(place), at(total, number(row * COLUMNS + part)), align=4)
