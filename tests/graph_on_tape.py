"""A CUDA graph's stand-in on a CPU: what a step launches is noted once, and launched again where it was.

Calling the step again would hide what a graph gets wrong: Python that counts, or puts something elsewhere.
Here a replay knows only the tensors of the recorded call. It reads them where they are, and writes results
where they were. What a graph could not record is refused: waiting for the device, and tensors made of
numbers of the host.

    replay = record(step)
    replay()

The kernels of mambabench are no operations of torch, so that models have to be made with `taped_kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mambabench.bench.graphs import WARM_CALLS
from mambabench.models import one_token, step_hybrid, step_mamba, step_mamba2

Work = Callable[[], None]
_REFUSED = ("aten::_local_scalar_dense", "aten::lift_fresh", "aten::nonzero", "aten::is_nonzero")
_tape: list[Work] | None = None
"""Where the kernels note their calls while a step is recorded."""


class NotRecordable(RuntimeError):
    """A graph could not do this."""


class _Noting(TorchDispatchMode):
    def __init__(self, tape: list[Work]) -> None:
        super().__init__()
        self._tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in _REFUSED:
            raise NotRecordable(func._schema.name)
        made = func(*args, **kwargs)
        _note(self._tape, lambda: func(*args, **kwargs), made, tree_leaves((args, kwargs)))
        return made


def _note(tape: list[Work], call: Callable[[], Any], made: Any, given: list[Any]) -> None:
    taken = {_memory(t) for t in given if isinstance(t, Tensor)}
    results = [t for t in tree_leaves(made) if isinstance(t, Tensor)]

    def again() -> None:
        anew = [t for t in tree_leaves(call()) if isinstance(t, Tensor)]
        for old, new in zip(results, anew, strict=True):
            # Views, and what was changed in place, lie in the memory of an argument.
            if _memory(old) not in taken:
                old.copy_(new)

    tape.append(again)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def record(work: Work) -> Work:
    """Record a function as `mambabench.bench.graphs.cuda_recorder` does."""
    global _tape
    # A graph does nothing while it is recorded, which is the last of as many calls here.
    for _ in range(WARM_CALLS - 1):
        work()
    tape: list[Work] = []
    _tape = tape
    try:
        with _Noting(tape):
            work()
    finally:
        _tape = None

    def replay() -> None:
        with torch.inference_mode():
            for again in tape:
                again()

    return replay


class _Taped:
    """A device's kernels, whose calls are noted."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self.name, self.dtype = kernels.name, kernels.dtype

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kernels, name)

        def call(*args: Any, **options: Any) -> Any:
            tape = _tape
            if tape is None:
                return method(*args, **options)
            with torch.utils._python_dispatch._disable_current_modes():
                made = method(*args, **options)
            _note(tape, lambda: method(*args, **options), made, list(args))
            return made

        return call


@contextmanager
def taped_kernels() -> Iterator[None]:
    """Let models that are made here have kernels whose calls are noted, for one token a row as well."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (step_mamba, step_mamba2, step_hybrid):
            make = module.kernels_for
            patch.setattr(module, "kernels_for", lambda *asked, make=make: _Taped(make(*asked)))
        # On a GPU one token a row goes through the kernels; the CPU's program is none of them.
        patch.setattr(one_token, "MOST_ROWS", 0)
        yield
