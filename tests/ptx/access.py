"""Instructions that touch memory or order it: loads, stores, tiles of matrices, barriers and jumps.

Not here, and refused by name: copies that go on by themselves (`cp.async`, the tensor memory accelerator),
barriers of some threads only, atomic operations, and jumps that only some threads of a program take.
"""

from __future__ import annotations

import re

import numpy as np
from ptx.machine import END, LANES, Builder, Machine, Reader, Step, bytes_of, condition, register, writer
from ptx.memory import UNSIGNED, Array
from ptx.text import Statement, listed

_ROW, _PAIR = np.arange(LANES) // 4, np.arange(LANES) % 4
"""Where a lane's numbers lie in a tile of 8 rows: its row, and its place among the row's four lanes."""
_TF32 = np.uint32(0xFFFFE000)
"""Bits of a float32 that matrix units read, 10 of the fraction's."""


def _address(statement: Statement, text: str, numbers: int, threads: int) -> Reader:
    """Return what reads an address that so many numbers lie at side by side.

    Raises:
        ValueError: when it is read, for an address that is no multiple of all those numbers' size.
    """
    found = re.fullmatch(r"\[\s*(%?\w+)\s*(?:\+\s*(-?\w+))?\s*\]", text)
    if found is None:
        raise ValueError(f"not an address: {text}")
    kind = "u64" if _space(statement) == "global" else "u32"
    base, offset = register(found[1], kind, threads), int(found[2] or "0", 0)
    part, size = condition(statement, threads), numbers * bytes_of(statement.kind)

    def read(m: Machine) -> Array:
        places: Array = base(m).astype(np.int64) + offset
        if (places[part(m)] % size).any():
            raise ValueError("not aligned")
        return places

    return read


def _space(statement: Statement) -> str:
    names = {"global", "shared", "shared::cta", "param"} & set(statement.operation)
    if len(names) != 1:
        raise ValueError(f"not known: {statement.text}")
    return names.pop().partition(":")[0]


def _parameter(statement: Statement, threads: int) -> Step:
    target, source = statement.operands
    found = re.fullmatch(r"\[\s*(\w+)\s*\]", source)
    if found is None:
        raise ValueError(f"not known: {statement.text}")
    name, kind, write = found[1], statement.kind, writer(statement, target, threads)
    # A number may be loaded into a register that is larger.
    is_larger = target.startswith("%rd") and bytes_of(kind) < 8
    size, n_bits = 8 if is_larger else bytes_of(kind), 8 * bytes_of(kind)

    def step(m: Machine) -> None:
        value = m.parameters[name] & ((1 << n_bits) - 1)
        if kind[0] == "s" and value >> (n_bits - 1):
            value -= 1 << n_bits
        write(m, np.full(threads, value & ((1 << 8 * size) - 1), UNSIGNED[size]))

    return step


def _load(statement: Statement, threads: int) -> Step:
    space = _space(statement)
    if space == "param":
        return _parameter(statement, threads)
    names, size = listed(statement.operands[0]), bytes_of(statement.kind)
    writes = [writer(statement, name, threads) for name in names]
    address = _address(statement, statement.operands[1], len(names), threads)
    part = condition(statement, threads)

    def step(m: Machine) -> None:
        takes, first = part(m), address(m)
        for i, write in enumerate(writes):
            values = np.zeros(threads, UNSIGNED[size])
            if takes.any():
                places, warps = first[takes] + i * size, m.warps[takes]
                if space == "shared":
                    values[takes] = m.shared.load(places, size, warps)
                else:
                    values[takes] = m.memory.load(places, size, warps=warps, program=m.program, epoch=m.epoch)
            write(m, values)

    return step


def _store(statement: Statement, threads: int) -> Step:
    space, kind = _space(statement), statement.kind
    size, names = bytes_of(kind), listed(statement.operands[1])
    reads = [register(name, kind, threads) for name in names]
    address = _address(statement, statement.operands[0], len(names), threads)
    part = condition(statement, threads)

    def step(m: Machine) -> None:
        takes, first = part(m), address(m)
        if not takes.any():
            return
        warps = m.warps[takes]
        for i, read in enumerate(reads):
            places, values = first[takes] + i * size, read(m)[takes]
            if space == "shared":
                m.shared.store(places, values, size, warps)
            else:
                m.memory.store(places, values, size, warps=warps, program=m.program, epoch=m.epoch)

    return step


def _load_tiles(statement: Statement, threads: int) -> Step:
    """Load tiles of 8 x 8 numbers of 16 bits; lanes 0 to 7 say where the first one's rows are, and so on."""
    targets = listed(statement.operands[0])
    writes = [writer(statement, name, threads) for name in targets]
    address = _address(statement, statement.operands[1], 1, threads)
    turns, n_warps = "trans" in statement.operation, threads // LANES
    warps = np.repeat(np.arange(n_warps), 64)
    if statement.condition or _space(statement) != "shared" or f"x{len(targets)}" not in statement.operation:
        raise ValueError(f"not known: {statement.text}")

    def step(m: Machine) -> None:
        rows = address(m).reshape(n_warps, LANES)
        if (rows[:, : 8 * len(writes)] % 16).any():
            raise ValueError("not aligned")
        for i, write in enumerate(writes):
            places = rows[:, 8 * i : 8 * i + 8, None] + 2 * np.arange(8)
            tile = m.shared.load(places.reshape(-1), 2, warps).reshape(n_warps, 8, 8)
            if turns:
                tile = tile.transpose(0, 2, 1)
            low, high = (tile[:, _ROW, 2 * _PAIR + k].astype(np.uint32) for k in (0, 1))
            write(m, (low | (high << np.uint32(16))).reshape(-1))

    return step


def _multiply_tiles(statement: Statement, threads: int) -> Step:
    """Add the product of 16 x 8 and 8 x 8 numbers to 16 x 8 others, in each warp.

    The factors are cut to what matrix units read; sums are in float64, rounded once.
    """
    if not {"m16n8k8", "row", "col", "tf32"} <= set(statement.operation) or statement.condition:
        raise ValueError(f"not known: {statement.text}")
    d, a, b, c = (listed(text) for text in statement.operands)
    left, right, before = ([register(name, "b32", threads) for name in names] for names in (a, b, c))
    writes = [writer(statement, name, threads) for name in d]
    n_warps = threads // LANES
    # Row and column of each register's number.
    of_left = [(_ROW + down, _PAIR + along) for along in (0, 4) for down in (0, 8)]
    of_right = [(_PAIR + down, _ROW) for down in (0, 4)]
    of_sum = [(_ROW + down, 2 * _PAIR + along) for down in (0, 8) for along in (0, 1)]

    def filled(m: Machine, reads: list[Reader], places: list[tuple[Array, Array]], mask: np.uint32) -> Array:
        tile = np.zeros((n_warps, 16, 8))
        for read, (row, column) in zip(reads, places, strict=True):
            tile[:, row, column] = (read(m) & mask).view(np.float32).reshape(n_warps, LANES)
        return tile

    def step(m: Machine) -> None:
        product = filled(m, left, of_left, _TF32) @ filled(m, right, of_right, _TF32)[:, :8]
        total = (product + filled(m, before, of_sum, np.uint32(0xFFFFFFFF))).astype(np.float32)
        for write, (row, column) in zip(writes, of_sum, strict=True):
            write(m, total[:, row, column].reshape(-1))

    return step


def _barrier(statement: Statement, threads: int) -> Step:
    if statement.operation == ("bar", "warp", "sync"):
        return lambda m: None
    if statement.operation not in {("bar", "sync"), ("barrier", "sync")} or statement.operands != ("0",):
        raise ValueError(f"not known: {statement.text}")

    def step(m: Machine) -> None:
        m.barrier()

    return step


def _jump(statement: Statement, threads: int) -> Step:
    label = END if statement.operation[0] == "ret" else statement.operands[0]
    part = condition(statement, threads)

    def step(m: Machine) -> str | None:
        takes = part(m)
        if takes.any() and not takes.all():
            raise ValueError("only some threads jump")
        return label if takes.all() else None

    return step


BUILDERS: dict[str, Builder] = {
    "ld": _load,
    "st": _store,
    "ldmatrix": _load_tiles,
    "mma": _multiply_tiles,
    "bar": _barrier,
    "barrier": _barrier,
    "bra": _jump,
    "ret": _jump,
}
