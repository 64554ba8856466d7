"""Inner products of a few rows of activations with many rows of weights, their sums kept in registers.

With few rows of activations all the time goes into reading the weights, so each is read once for all of them,
and asked for long before. Every sum runs over the inputs in the same order, sixteen lanes beside each other,
whatever else is computed with it: a row's result does not depend on its neighbours, on the threads, or on how
wide the processor's vectors are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
FLOAT32, BFLOAT16, FLOAT16 = range(3)
ITEM_BYTES = (4, 2, 2)
"""Of each kind of weights."""

_FEATURES = llvm.get_host_cpu_features()
HAS_FLOAT16 = _FEATURES.get("f16c", False) or _FEATURES.get("neon", False)
"""Whether the processor widens 16-bit floats itself."""
_WIDE = _FEATURES.get("avx512f", False)
# Thirty-two 512-bit registers hold the sums of 3 rows with 8, and what they are made of.
ROWS, ROWS_WEIGHTS = (8, 3) if _WIDE else (2, 2)
"""Most rows of activations at once, and the rows of weights that they meet."""
FEW, FEW_WEIGHTS = (4, 4) if _WIDE else (2, 2)
"""The same for fewer."""
ONE_WEIGHTS = 4
"""Rows of weights that a single row of activations meets at once."""

_AHEAD_BYTES = 16_384
"""How far ahead weights are asked for: the processor alone does not look beyond a page, and waits at each."""
_INTO_SECOND_CACHE = 2

STATE_LANES = 64
"""Channels that `step_states` takes."""
_STATES_AHEAD_BYTES = 8_192

_NUMBER, _SMALL, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_BYTES = ir.IntType(8).as_pointer()
_VECTOR = ir.VectorType(_FLOAT, LANES)


def products(kind: int, rows: int, weights: int) -> Callable[..., None]:
    """Return the compiled product of `rows` rows of activations and `weights` rows of weights.

    It is called with the address of the first row of activations, the bytes from one to the next, how many
    there are (for the others the last is taken again), the same for the rows of weights, the number of whole
    vectors in a row, and the address of the sums, float32 [weights, rows].
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def multiply(
        typing_context: Any,
        x: Any,
        x_step: Any,
        n_rows: Any,
        weight: Any,
        weight_step: Any,
        n_weights: Any,
        n_vectors: Any,
        sums: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit(builder, kind, rows, weights, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return multiply  # type: ignore[no-any-return]


def _emit(builder: Any, kind: int, rows: int, weights: int, arguments: Any) -> None:
    x, x_step, n_rows, weight, weight_step, n_weights, n_vectors, sums = arguments
    stored = _VECTOR if kind == FLOAT32 else ir.VectorType(ir.IntType(16), LANES)
    multiply_add, prefetch = _multiply_add(builder), _prefetch(builder)
    x_rows = [_row(builder, x, x_step, n_rows, r, _VECTOR) for r in range(rows)]
    weight_rows = [_row(builder, weight, weight_step, n_weights, j, stored) for j in range(weights)]
    totals = {}
    for j in range(weights):
        for r in range(rows):
            totals[j, r] = cgutils.alloca_once(builder, _VECTOR)
            builder.store(ir.Constant(_VECTOR, [0.0] * LANES), totals[j, r])
    with cgutils.for_range(builder, n_vectors, intp=_NUMBER) as loop:
        values = [
            _widened(builder, builder.load(builder.gep(row, [loop.index]), align=ITEM_BYTES[kind]), kind)
            for row in weight_rows
        ]
        for row in weight_rows:
            here = builder.bitcast(builder.gep(row, [loop.index]), _BYTES)
            prefetch(builder.gep(here, [_NUMBER(_AHEAD_BYTES)]))
        for r in range(rows):
            one = builder.load(builder.gep(x_rows[r], [loop.index]), align=4)
            for j in range(weights):
                total = totals[j, r]
                builder.store(builder.call(multiply_add, [one, values[j], builder.load(total)]), total)
    target = builder.inttoptr(sums, _FLOAT.as_pointer())
    for (j, r), total in totals.items():
        place = builder.gep(target, [_NUMBER(j * rows + r)])
        builder.store(_across(builder, builder.load(total)), place)


def _row(builder: Any, first: Any, step: Any, count: Any, index: int, kind: Any) -> Any:
    """Return a pointer to a row, or to the last if there are not so many."""
    last = builder.sub(count, _NUMBER(1))
    is_there = builder.icmp_signed("<", _NUMBER(index), count)
    place = builder.mul(builder.select(is_there, _NUMBER(index), last), step)
    return builder.inttoptr(builder.add(first, place), kind.as_pointer())


def _widened(builder: Any, value: Any, kind: int) -> Any:
    if kind == BFLOAT16:
        bits = ir.VectorType(_SMALL, LANES)
        high = builder.shl(builder.zext(value, bits), ir.Constant(bits, [16] * LANES))
        return builder.bitcast(high, _VECTOR)
    if kind == FLOAT16:
        return builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), LANES)), _VECTOR)
    return value


@intrinsic  # type: ignore[untyped-decorator]
def ask_for(typing_context: Any, address: Any) -> Any:
    """Begin to bring what is at an address into the second cache."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        prefetch = _prefetch(builder)
        prefetch(builder.inttoptr(arguments[0], _BYTES))
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def step_states(
    typing_context: Any,
    state: Any,
    step: Any,
    n_states: Any,
    decay: Any,
    drive: Any,
    b: Any,
    c: Any,
    total: Any,
) -> Any:
    """Take `STATE_LANES` neighbouring channels through one step of Mamba-2's scan.

    Each of `n_states` states becomes decay * state + drive * b, and times c it is added to the total.

    Args:
        state: address of the channels' first state, float32.
        step: bytes from one state to the next.
        n_states: their number.
        decay: float32.
        drive: address of the channels' inputs times the step size.
        b: address of [n_states].
        c: address of [n_states].
        total: address of the channels' sums.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        state, step, n_states, decay, drive, b, c, total = arguments
        multiply_add = _multiply_add(builder)
        prefetch = _prefetch(builder)
        parts = range(STATE_LANES // LANES)
        drive, total = (builder.inttoptr(v, _VECTOR.as_pointer()) for v in (drive, total))
        b, c = (builder.inttoptr(v, _FLOAT.as_pointer()) for v in (b, c))
        drives = [builder.load(builder.gep(drive, [_NUMBER(p)]), align=4) for p in parts]
        decays = _spread(builder, decay)
        totals = [cgutils.alloca_once(builder, _VECTOR) for _ in parts]
        for p in parts:
            builder.store(builder.load(builder.gep(total, [_NUMBER(p)]), align=4), totals[p])
        with cgutils.for_range(builder, n_states, intp=_NUMBER) as loop:
            at = builder.add(state, builder.mul(loop.index, step))
            b_n, c_n = (_spread(builder, builder.load(builder.gep(v, [loop.index]))) for v in (b, c))
            row = builder.inttoptr(at, _VECTOR.as_pointer())
            far = builder.inttoptr(builder.add(at, _NUMBER(_STATES_AHEAD_BYTES)), _VECTOR.as_pointer())
            for p in parts:
                prefetch(builder.bitcast(builder.gep(far, [_NUMBER(p)]), _BYTES))
                place = builder.gep(row, [_NUMBER(p)])
                driven = builder.fmul(drives[p], b_n)
                h = builder.call(multiply_add, [decays, builder.load(place, align=4), driven])
                builder.store(h, place, align=4)
                builder.store(builder.call(multiply_add, [h, c_n, builder.load(totals[p])]), totals[p])
        for p in parts:
            builder.store(builder.load(totals[p]), builder.gep(total, [_NUMBER(p)]), align=4)
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, number, number, types.float32, number, number, number, number), generate


def _spread(builder: Any, value: Any) -> Any:
    """Return a vector of one number."""
    start = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, _SMALL(0))
    same = ir.Constant(ir.VectorType(_SMALL, LANES), [0] * LANES)
    return builder.shuffle_vector(start, ir.Constant(_VECTOR, ir.Undefined), same)


def _multiply_add(builder: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")


def _prefetch(builder: Any) -> Callable[[Any], Any]:
    """Return what asks for the line at a pointer to bytes."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, *[_SMALL] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    how = [_SMALL(number) for number in (0, _INTO_SECOND_CACHE, 1)]
    return lambda place: builder.call(function, [place, *how])


@intrinsic  # type: ignore[untyped-decorator]
def half_at(typing_context: Any, address: Any) -> Any:
    """Return the 16-bit float at an address as a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.HalfType().as_pointer())
        return builder.fpext(builder.load(place, align=2), _FLOAT)

    return types.float32(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def bfloat_at(typing_context: Any, address: Any) -> Any:
    """Return the bfloat16 at an address as a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(16).as_pointer())
        bits = builder.shl(builder.zext(builder.load(place, align=2), _SMALL), _SMALL(16))
        return builder.bitcast(bits, _FLOAT)

    return types.float32(types.int64), generate


def _across(builder: Any, value: Any) -> Any:
    """Add a vector's lanes, halves first."""
    size = LANES
    while size > 1:
        size //= 2
        parts = [
            builder.shuffle_vector(
                value,
                ir.Constant(value.type, ir.Undefined),
                ir.Constant(ir.VectorType(_SMALL, size), list(range(begin, begin + size))),
            )
            for begin in (0, size)
        ]
        value = builder.fadd(*parts)
    return builder.extract_element(value, _SMALL(0))
