"""Threads of one program, their registers, and how instructions read and write them.

All threads take each instruction together: a register is an array with a number for each thread, kept as an
unsigned integer of the register's size, or as a bool for a predicate. A register that a thread reads before
it wrote it is all ones, NaN as a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from ptx.memory import UNSIGNED, Array, GlobalMemory, SharedMemory
from ptx.text import Statement

LANES = 32
SIGNED = {2: np.int16, 4: np.int32, 8: np.int64}
_AXES = "xyz"


@dataclass
class Machine:
    """One program of a launch."""

    threads: int
    place: tuple[int, int, int]
    program: int
    """Its number among the launch's programs."""
    parameters: dict[str, int]
    shared: SharedMemory
    memory: GlobalMemory
    keeps_barriers: bool = True
    registers: dict[str, Array] = field(default_factory=dict)
    epoch: int = 0
    """How many barriers the program passed."""

    def __post_init__(self) -> None:
        self.warps = np.arange(self.threads) // LANES

    def barrier(self) -> None:
        """Let every thread wait for all others."""
        if self.keeps_barriers:
            self.epoch += 1
            self.shared.barrier()


Step = Callable[[Machine], str | None]
"""Executes an instruction; returns the label to go on at, `END`, or null for the next instruction."""
END = ""
Reader = Callable[[Machine], Array]
Writer = Callable[[Machine, Array], None]
Builder = Callable[[Statement, int], Step]
"""Makes a step of a statement for so many threads."""


def bytes_of(kind: str) -> int:
    """Return the size of a type's numbers."""
    return 1 if kind == "pred" else int(re.sub(r"\D+", "", kind)) // 8


def bits(values: Array) -> Array:
    """Return values as a register holds them."""
    return values if values.dtype == bool else values.view(UNSIGNED[values.itemsize])


def decoded(values: Array, kind: str) -> Array:
    """Return a register's numbers; those of 16 bits with a point as float32."""
    if kind == "bf16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if kind == "f16":
        return values.view(np.float16).astype(np.float32)
    if kind == "f32":
        return values.view(np.float32)
    return values.view(SIGNED[bytes_of(kind)]) if kind[0] == "s" else values


def encoded(values: Array, kind: str) -> Array:
    """Return numbers as a register of a type holds them, rounded to nearest where that is needed.

    Raises:
        ValueError: a type that is not known, or a number with a point is to become an integer.
    """
    if kind == "bf16":
        exact = values.astype(np.float32).view(np.uint32)
        odd = (exact >> np.uint32(16)) & np.uint32(1)
        cut = (exact + np.uint32(0x7FFF) + odd) >> np.uint32(16)
        return np.where(np.isnan(values), np.uint32(0x7FFF), cut).astype(np.uint16)
    if kind in ("f16", "f32"):
        return bits(values.astype(np.float16 if kind == "f16" else np.float32))
    if kind[0] not in "us" or values.dtype.kind == "f":
        raise ValueError(f"no conversion to {kind}")
    return values.astype(UNSIGNED[bytes_of(kind)])


def register(name: str, kind: str, threads: int) -> Reader:
    """Return what reads an operand, a register or a constant, as its bits."""
    if name.startswith("%tid.") or name == "%laneid":
        lanes = np.arange(threads, dtype=np.uint32)
        constant = {"%tid.x": lanes, "%laneid": lanes % LANES}.get(name, np.zeros_like(lanes))
        return lambda m: constant
    if name.startswith("%ctaid."):
        axis = _AXES.index(name[-1])
        return lambda m: np.full(threads, m.place[axis], np.uint32)
    if name.startswith("%"):
        missing = np.ones(threads, bool) if kind == "pred" else _all_ones(threads, bytes_of(kind))
        return lambda m: m.registers.get(name, missing)
    is_float = re.fullmatch(r"0[fF][0-9A-Fa-f]{8}", name)
    number = int(name[2:], 16) if is_float else int(name.removesuffix("U"), 0)
    if kind == "pred":
        truth = np.full(threads, number != 0)
        return lambda m: truth
    size = bytes_of(kind)
    fixed = np.full(threads, number & ((1 << 8 * size) - 1), UNSIGNED[size])
    return lambda m: fixed


def operand(name: str, kind: str, threads: int) -> Reader:
    """Return what reads an operand as numbers of its type."""
    read = register(name, kind, threads)
    return lambda m: decoded(read(m), kind)


def condition(statement: Statement, threads: int) -> Reader:
    """Return which threads take part in a statement."""
    if statement.condition is None:
        everyone = np.ones(threads, bool)
        return lambda m: everyone
    read = register(statement.condition, "pred", threads)
    return (lambda m: ~read(m)) if statement.is_negated else read


def writer(statement: Statement, name: str, threads: int) -> Writer:
    """Return what writes a register, for the threads that take part."""
    if statement.condition is None:

        def write(m: Machine, values: Array) -> None:
            m.registers[name] = bits(values)

        return write
    part = condition(statement, threads)

    def write_some(m: Machine, values: Array) -> None:
        new = bits(values)
        missing = np.ones(threads, bool) if new.dtype == bool else _all_ones(threads, new.itemsize)
        m.registers[name] = np.where(part(m), new, m.registers.get(name, missing))

    return write_some


def _all_ones(threads: int, size: int) -> Array:
    return np.full(threads, (1 << 8 * size) - 1, UNSIGNED[size])


def computed(
    statement: Statement, threads: int, function: Callable[..., Array], kinds: list[str] | None = None
) -> Step:
    """Return a step that writes a function of the operands, of the statement's type or of `kinds`."""
    sources = statement.operands[1:]
    reads = [
        operand(name, kind, threads)
        for name, kind in zip(sources, kinds or [statement.kind] * len(sources), strict=True)
    ]
    write = writer(statement, statement.operands[0], threads)

    def step(m: Machine) -> None:
        write(m, function(*(read(m) for read in reads)))

    return step
