"""A kernel's compiled code, PTX, executed on a CPU, with a look at races.

    program = Program(compiled.asm["ptx"], n_warps=compiled.metadata.num_warps)
    races = program.launch([x.data_ptr(), len(x)], grid=(4,), shared_bytes=compiled.metadata.shared)

Triton's interpreter executes what a kernel says; this executes what the compiler made of it, with every
thread, so that threads that need a barrier, and have none, are found. Programs run one after another, and the
threads of each one together.

What it cannot show: what `ptxas` makes of PTX, speed, what lanes of one warp do to each other, how matrix
units and approximations round, and what goes on by itself beside the threads, such as copies on newer cards.
It knows the instructions that this project's kernels get for compute capability 8.0, and refuses others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from ptx import access, arithmetic
from ptx.machine import END, LANES, Machine, Step
from ptx.memory import GlobalMemory, SharedMemory
from ptx.text import Statement, parsed


class Program:
    """A kernel, ready to be launched.

    Raises:
        ValueError: an instruction is not known.
    """

    def __init__(self, ptx: str, n_warps: int) -> None:
        self.kernel = parsed(ptx)
        self.threads = LANES * n_warps
        self._steps = [self._step(statement) for statement in self.kernel.statements]

    def _step(self, statement: Statement) -> Step:
        builder = (access.BUILDERS | arithmetic.BUILDERS).get(statement.operation[0])
        if builder is None:
            raise ValueError(f"not known: {statement.text}")
        return builder(statement, self.threads)

    def launch(
        self,
        arguments: Sequence[int],
        grid: Sequence[int],
        shared_bytes: int = 0,
        *,
        is_reversed: bool = False,
        keeps_barriers: bool = True,
    ) -> set[str]:
        """Run all programs of a grid and return which races there were.

        Args:
            arguments: each parameter's bits; those past the last one are zero.
            grid: programs along up to three axes.
            shared_bytes: size of a program's shared memory.
            is_reversed: the last program goes first.
            keeps_barriers: barriers order what is done; without them every missing one would be found.

        Raises:
            ValueError: an address is not aligned or outside of shared memory, or only some threads jump.
        """
        names = self.kernel.parameters
        values = [*arguments, *[0] * (len(names) - len(arguments))]
        parameters = dict(zip(names, values, strict=True))
        memory, races = GlobalMemory(), set[str]()
        x, y, z = (*grid, 1, 1)[:3]
        places = [(i, j, k) for k, j, i in itertools.product(range(z), range(y), range(x))]
        numbered = list(enumerate(places))
        for number, place in reversed(numbered) if is_reversed else numbered:
            machine = Machine(
                self.threads, place, number, parameters, SharedMemory(shared_bytes), memory, keeps_barriers
            )
            self._run(machine)
            races |= machine.shared.races
        return {f"{self.kernel.name}: {words}" for words in races | memory.races()}

    def _run(self, machine: Machine) -> None:
        at = 0
        with np.errstate(all="ignore"):
            while at < len(self._steps):
                try:
                    label = self._steps[at](machine)
                except (ValueError, TypeError, KeyError) as error:
                    error.add_note(f"in {self.kernel.name}: {self.kernel.statements[at].text}")
                    raise
                if label == END:
                    return
                at = at + 1 if label is None else self.kernel.labels[label]
