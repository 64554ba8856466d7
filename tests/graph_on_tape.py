"""A CUDA graph's stand-in on a CPU: what a step launches is noted once, and launched again where it was.

Calling the step again would hide what a graph gets wrong: Python that counts, or puts something elsewhere.
Here a replay knows only the tensors of the recorded call. It reads them where they are, and writes results
where they were. What a graph could not record is refused: waiting for the device, and tensors made of
numbers of the host. Only weak references lead to what was there before: memory that is freed meanwhile shows.

    replay = record(step)
    replay()

The kernels of mambabench are no operations of torch, so that models have to be made with `taped_kernels`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from mambabench.bench.graphs import WARM_CALLS
from mambabench.models import one_token, step_hybrid, step_mamba, step_mamba2

Work = Callable[[], None]
_REFUSED = ("aten::_local_scalar_dense", "aten::lift_fresh", "aten::nonzero", "aten::is_nonzero")


class NotRecordable(RuntimeError):
    """A graph could not do this."""


class FreedMemory(RuntimeError):
    """A replay reads what its owner has let go since."""


class _Tape:
    """What was launched. As in a graph, only what a recording makes is kept by it."""

    def __init__(self) -> None:
        self.launches: list[Work] = []
        self._made: dict[int, Tensor] = {}

    def note(self, call: Callable[..., Any], made: Any, args: Any, kwargs: Any) -> None:
        """Note a call that was made with these arguments."""
        taken = {_memory(t) for t in _tensors((args, kwargs))}
        results = _tensors(made)
        held = tree_map(self._held, (list(args), kwargs))
        self._made |= {id(t): t for t in results}

        def again() -> None:
            args, kwargs = tree_map(_found, held)
            for old, new in zip(results, _tensors(call(*args, **kwargs)), strict=True):
                # Views, and what was changed in place, lie in the memory of an argument.
                if _memory(old) not in taken:
                    old.copy_(new)

        self.launches.append(again)

    def _held(self, value: Any) -> Any:
        return weakref.ref(value) if isinstance(value, Tensor) and id(value) not in self._made else value


_tape: _Tape | None = None
"""The one that kernels note their calls on, while a step is recorded."""


class _Noting(TorchDispatchMode):
    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in _REFUSED:
            raise NotRecordable(func._schema.name)
        made = func(*args, **kwargs)
        self._tape.note(func, made, args, kwargs)
        return made


def _found(value: Any) -> Any:
    if not isinstance(value, weakref.ref):
        return value
    tensor = value()
    if tensor is None:
        raise FreedMemory
    return tensor


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def record(work: Work) -> Work:
    """Record a function as `mambabench.bench.graphs.cuda_recorder` does."""
    global _tape
    # A graph does nothing while it is recorded, which is the last of as many calls here.
    for _ in range(WARM_CALLS - 1):
        work()
    tape = _Tape()
    _tape = tape
    try:
        with _Noting(tape):
            work()
    finally:
        _tape = None

    def replay() -> None:
        with torch.inference_mode():
            for again in tape.launches:
                again()

    return replay


def _noted(call: Callable[..., Any], args: Any, options: Any) -> Any:
    """Call something that is no operation of torch, and note it where a step is recorded."""
    tape = _tape
    if tape is None:
        return call(*args, **options)
    with _disable_current_modes():
        made = call(*args, **options)
    tape.note(call, made, args, options)
    return made


class _Taped:
    """A device's kernels, whose calls are noted."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self.dtype = kernels.dtype

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kernels, name)
        return lambda *args, **options: _noted(method, args, options)


class _Launches:
    """A module of Triton kernels, whose launches are noted."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return _Launched(getattr(self._module, name))


class _Launched:
    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        launch = self._kernel[grid]
        return lambda *args, **options: _noted(launch, args, options)


def taped_triton(dtype: torch.dtype) -> Any:
    """Return a GPU's kernels whose launches are noted; they need Triton's interpreter."""
    from mambabench.kernels.gpu.triton_kernels import TritonKernels

    kernels: Any = TritonKernels(dtype)
    for name in ("_math", "_scan", "_ssd"):
        setattr(kernels, name, _Launches(getattr(kernels, name)))
    return kernels


@contextmanager
def taped_kernels(make: Callable[..., Any] | None = None) -> Iterator[None]:
    """Let models that are made here have kernels whose calls are noted, for one token a row as well.

    Args:
        make: gives the kernels of a device and dtype; the device's own when absent.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (step_mamba, step_mamba2, step_hybrid):
            usual = module.kernels_for
            patch.setattr(module, "kernels_for", make or (lambda *asked, usual=usual: _Taped(usual(*asked))))
        # On a GPU one token a row goes through the kernels; the CPU's program is none of them.
        patch.setattr(one_token, "MOST_ROWS", 0)
        yield
