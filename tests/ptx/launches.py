"""Triton's launches without a GPU: each kernel is compiled for one, and its code executed on the CPU.

    launches = Launches(monkeypatch, cache)
    TritonKernels().add_norm(residual, None, weight, 1e-5)
    launches.kernels, launches.races  # {"add_norm"}, set()

Compiled is for compute capability 8.0, by the Triton that is installed, exactly as it would be for a launch:
with the arguments' own alignments and constants.
"""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from ptx.program import Program


class NoGpu:
    """Answers Triton's questions about a GPU that is not there."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 80, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Launches:
    """What was launched since this was made, and how the next launches are to run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        from triton.runtime.jit import JITFunction

        driver: Any = importlib.import_module("triton.runtime").driver
        if not hasattr(driver, "_active"):
            pytest.skip("this Triton keeps its driver elsewhere")
        self.kernels: set[str] = set()
        self.races: set[str] = set()
        self.is_reversed = False
        self.keeps_barriers = True
        self._programs: dict[str, Program] = {}
        self._compile = JITFunction.run
        monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
        monkeypatch.setattr(driver, "_active", NoGpu())
        # A function of its own: Triton's is called with the kernel first.
        monkeypatch.setattr(JITFunction, "run", lambda kernel, *args, **named: self._run(kernel, args, named))

    def _run(self, kernel: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        grid = named["grid"]
        compiled = self._compile(kernel, *args, **named | {"warmup": True})
        if compiled.hash not in self._programs:
            self._programs[compiled.hash] = Program(compiled.asm["ptx"], compiled.metadata.num_warps)
        given = dict(zip((parameter.name for parameter in kernel.params), args, strict=False)) | named
        # What is a constant is in the code; what Triton adds at the end, for memory of its own, is not used.
        kinds = compiled.src.signature
        arguments = [_bits(given[name]) for name, kind in kinds.items() if kind != "constexpr"]
        self.kernels.add(kernel.__name__)
        self.races |= self._programs[compiled.hash].launch(
            arguments,
            grid,
            compiled.metadata.shared,
            is_reversed=self.is_reversed,
            keeps_barriers=self.keeps_barriers,
        )


def _bits(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    if isinstance(value, float):
        return int.from_bytes(struct.pack("<f", value), "little")
    return int(value)
