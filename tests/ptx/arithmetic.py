"""Instructions that compute: integers, numbers with a point, comparisons, bits and conversions.

Of numbers with a point there is float32. `fma` rounds once, as a GPU does; what a GPU approximates, such as
`ex2` and `div.full`, is computed as exactly as numpy does, and numbers near zero are not flushed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ptx.machine import Builder, Machine, Step, bytes_of, computed, encoded, operand, register, writer
from ptx.memory import UNSIGNED, Array
from ptx.text import Statement, listed


def _quotient(a: Array, b: Array) -> Array:
    """Divide as C does, towards zero."""
    whole = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -whole, whole).astype(a.dtype)


def _remainder(a: Array, b: Array) -> Array:
    left: Array = a - _quotient(a, b) * b
    return left


def _rounded_once(a: Array, b: Array, c: Array) -> Array:
    return (a.astype(np.float64) * b + c).astype(np.float32)


INTEGER: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mad": lambda a, b, c: a * b + c,
    "div": _quotient,
    "rem": _remainder,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "abs": np.abs,
}
FLOAT: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "fma": _rounded_once,
    "div": np.divide,
    "min": np.fmin,
    "max": np.fmax,
    "neg": np.negative,
    "abs": np.abs,
    "ex2": np.exp2,
    "lg2": np.log2,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "rcp": lambda a: 1 / a,
}
BITS: dict[str, Callable[..., Array]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
}
COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "lt": np.less,
    "gt": np.greater,
    "le": np.less_equal,
    "ge": np.greater_equal,
    "eq": np.equal,
    # NaN is not unequal to anything here, but is in those that end in u.
    "ne": lambda a, b: (a < b) | (a > b),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "gtu": lambda a, b: ~(a <= b),
    "leu": lambda a, b: ~(a > b),
    "geu": lambda a, b: ~(a < b),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}


def _arithmetic(statement: Statement, threads: int) -> Step:
    name, kind = statement.operation[0], statement.kind
    if kind == "f32":
        return computed(statement, threads, FLOAT[name])
    if kind[0] not in "us":
        raise ValueError(f"not known: {statement.text}")
    if {"wide", "hi"} & set(statement.operation):
        return _wide(statement, threads)
    return computed(statement, threads, INTEGER[name])


def _logic(statement: Statement, threads: int) -> Step:
    return computed(statement, threads, BITS[statement.operation[0]])


def _wide(statement: Statement, threads: int) -> Step:
    """Multiply, and add for `mad`, in numbers of twice the size; `hi` is the upper half."""
    kind = statement.kind
    wide: Any = {"s32": np.int64, "u32": np.uint64, "u16": np.uint32}[kind]

    def product(a: Array, b: Array) -> Array:
        return np.asarray(a.astype(wide) * b.astype(wide))

    def upper(a: Array, b: Array) -> Array:
        return np.asarray(product(a, b) >> wide(8 * bytes_of(kind))).astype(a.dtype)

    if statement.operation[0] == "mul":
        return computed(statement, threads, upper if "hi" in statement.operation else product)
    if "hi" in statement.operation:
        raise ValueError(f"not known: {statement.text}")
    kinds = [kind, kind, f"{kind[0]}{16 * bytes_of(kind)}"]
    return computed(statement, threads, lambda a, b, c: product(a, b) + c, kinds)


def _compare(statement: Statement, threads: int) -> Step:
    compare, kind = COMPARISONS[statement.operation[1]], statement.kind
    also = {"and": np.logical_and, "or": np.logical_or}.get(statement.operation[2])
    if also is None:
        return computed(statement, threads, compare)
    return computed(statement, threads, lambda a, b, c: also(compare(a, b), c), [kind, kind, "pred"])


def _select(statement: Statement, threads: int) -> Step:
    def selected(a: Array, b: Array, is_first: Array) -> Array:
        return np.where(is_first, a, b)

    return computed(statement, threads, selected, [statement.kind, statement.kind, "pred"])


def _shift(statement: Statement, threads: int) -> Step:
    kind = statement.kind
    n_bits, is_left = 8 * bytes_of(kind), statement.operation[0] == "shl"

    def shifted(a: Array, count: Array) -> Array:
        by = np.minimum(count, n_bits - 1).astype(a.dtype)
        if kind[0] == "s":
            return np.asarray(a >> by)
        return np.where(count >= n_bits, 0, a << by if is_left else a >> by).astype(a.dtype)

    return computed(statement, threads, shifted, [kind, "u32"])


def _extract(statement: Statement, threads: int) -> Step:
    n_bits = 8 * bytes_of(statement.kind)

    def extracted(a: Array, first: Array, length: Array) -> Array:
        # To the top and down again: what is signed takes the field's own sign along.
        top = np.asarray(a << (n_bits - first - length).astype(a.dtype))
        return np.asarray(top >> (n_bits - length).astype(a.dtype))

    return computed(statement, threads, extracted, [statement.kind, "u32", "u32"])


def _permute(statement: Statement, threads: int) -> Step:
    def permuted(a: Array, b: Array, choice: Array) -> Array:
        both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
        found = np.zeros(threads, np.uint32)
        for i in range(4):
            byte = ((choice >> np.uint32(4 * i)) & np.uint32(7)).astype(np.uint64) * np.uint64(8)
            found |= ((both >> byte) & np.uint64(255)).astype(np.uint32) << np.uint32(8 * i)
        return found

    if statement.operation != ("prmt", "b32"):
        raise ValueError(f"not known: {statement.text}")
    return computed(statement, threads, permuted)


def _convert(statement: Statement, threads: int) -> Step:
    to, source = statement.operation[-2:]
    if to in ("bf16x2", "f16x2"):
        part = to.removesuffix("x2")

        def paired(high: Array, low: Array) -> Array:
            upper, lower = (encoded(half, part).astype(np.uint32) for half in (high, low))
            return (upper << np.uint32(16)) | lower

        return computed(statement, threads, paired)
    return computed(statement, threads, lambda a: encoded(a, to), [source])


def _move(statement: Statement, threads: int) -> Step:
    target, source = statement.operands
    kind = statement.kind
    if target.startswith("{"):
        return _unpack(statement, threads)
    if source.startswith("{"):
        return _pack(statement, threads)
    read, write = register(source, kind, threads), writer(statement, target, threads)
    size = bytes_of(kind)

    def step(m: Machine) -> None:
        write(m, read(m) if kind == "pred" else read(m).astype(UNSIGNED[size]))

    return step


def _unpack(statement: Statement, threads: int) -> Step:
    names, kind = listed(statement.operands[0]), statement.kind
    size, read = bytes_of(kind) // len(names), register(statement.operands[1], kind, threads)
    writes = [writer(statement, name, threads) for name in names]

    def step(m: Machine) -> None:
        # The lowest bits are the first register's.
        parts = np.ascontiguousarray(read(m)).view(UNSIGNED[size]).reshape(threads, len(names))
        for i, write in enumerate(writes):
            write(m, parts[:, i].copy())

    return step


def _pack(statement: Statement, threads: int) -> Step:
    names, kind = listed(statement.operands[1]), statement.kind
    part = f"b{8 * bytes_of(kind) // len(names)}"
    reads = [register(name, part, threads) for name in names]
    write = writer(statement, statement.operands[0], threads)

    def step(m: Machine) -> None:
        parts = np.stack([read(m) for read in reads], axis=1)
        write(m, parts.view(UNSIGNED[bytes_of(kind)])[:, 0])

    return step


def _shuffle(statement: Statement, threads: int) -> Step:
    """Give each lane a number of another lane of its warp; those past the warp's ends keep their own."""
    mode, target = statement.operation[2], statement.operands[0].partition("|")[0]
    read = register(statement.operands[1], "b32", threads)
    count = operand(statement.operands[2], "s32", threads)
    write = writer(statement, target, threads)
    thread = np.arange(threads)
    lane = thread % 32
    if statement.operands[3] not in ("0", "31", "0x1f") or mode not in ("bfly", "up", "down", "idx"):
        raise ValueError(f"not known: {statement.text}")

    def step(m: Machine) -> None:
        by = count(m)
        source = {"bfly": lane ^ by, "up": lane - by, "down": lane + by, "idx": by % 32}[mode]
        source = np.where((source >= 0) & (source < 32), source, lane)
        write(m, read(m)[thread - lane + source])

    return step


BUILDERS: dict[str, Builder] = {
    **dict.fromkeys(INTEGER | FLOAT, _arithmetic),
    **dict.fromkeys(BITS, _logic),
    "setp": _compare,
    "selp": _select,
    "shl": _shift,
    "shr": _shift,
    "bfe": _extract,
    "prmt": _permute,
    "cvt": _convert,
    "mov": _move,
    "shfl": _shuffle,
}
