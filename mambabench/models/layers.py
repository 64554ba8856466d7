"""Parts that the state-carrying forwards share: matrix products, normalisation, the head, row bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from mambabench.kernels import ahead

FEW_ROWS = 8
"""Rows up to which `linear` and `FewRows` use a product of ours."""
_TORCH_ROWS = 2
_LARGE = 1_000_000
"""Weights from which a product of ours gains more than its threads cost."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device, without waiting for what the device has still to do."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def widened(tensor: Tensor) -> Tensor:
    """Return a parameter as the kernels read it: float32, end to end, without a gradient."""
    return tensor.detach().float().contiguous()


def widened_or_none(tensor: Tensor | None) -> Tensor | None:
    """Return a parameter as `widened` does, or null where there is none."""
    return None if tensor is None else widened(tensor)


def row_starts(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return where each row begins in an end-to-end layout, and the total, int64 [B + 1]."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply float32 activations [T, n] by a weight [m, n] of any float dtype; return float32 [T, m].

    A few rows on a CPU go through a product of ours, which reads a large weight as fast as memory gives it.
    For more rows, a processor with matrix units for a 16-bit dtype multiplies in it; for others the weight
    is widened, this one only and just for now. In 32 bits that product is `torch.nn.functional.linear`'s.
    """
    if x.shape[0] <= FEW_ROWS and weight.numel() >= _LARGE and products_are_there(weight):
        return _few_rows(x, weight, bias)
    if weight.dtype != x.dtype:
        if _multiplies(weight.dtype, weight.device):
            return functional.linear(x.to(weight.dtype), weight, _as(bias, weight.dtype)).to(x.dtype)
        weight = weight.to(x.dtype)
    return functional.linear(x, weight, _as(bias, x.dtype))


class FewRows:
    """Stands in for the forward of a module's linear layers while they see a few rows on a CPU.

    Args:
        module: whose layers of the very class `torch.nn.Linear` are meant.

    `with few_rows.instead(8): module(x)` is then as fast as the weights come from memory.
    """

    def __init__(self, module: nn.Module) -> None:
        # Small layers, and those that somebody gave a forward of their own, stay as they are.
        self._found = [
            (part, _forward_of(part))
            for part in module.modules()
            if type(part) is nn.Linear
            and "forward" not in vars(part)
            and part.weight.numel() >= _LARGE
            and products_are_there(part.weight.detach())
        ]

    @contextmanager
    def instead(self, rows: int) -> Iterator[None]:
        """Take the layers' place for a while, where that is faster for so many rows."""
        replaced = []
        for part, forward in self._found:
            # torch reads 32-bit weights for a row or two as fast, and its call costs less; so it does with
            # 16-bit ones where the processor multiplies them.
            if part.weight.dtype == torch.float32:
                faster = rows > _TORCH_ROWS
            else:
                faster = not _multiplies(part.weight.dtype, part.weight.device)
            if faster and rows <= FEW_ROWS:
                vars(part)["forward"] = forward
                replaced.append(part)
        try:
            yield
        finally:
            for part in replaced:
                del vars(part)["forward"]


def _forward_of(part: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if flat.shape[0] > FEW_ROWS:
            return functional.linear(x, part.weight, part.bias)
        y = _few_rows(flat.float(), part.weight, part.bias)
        return y.to(x.dtype).view(*x.shape[:-1], -1)

    return forward


def products_are_there(*weights: Tensor) -> bool:
    """Tell whether `mambabench.kernels.program` has products with such weights."""
    if not all(weight.is_cpu and weight.is_contiguous() for weight in weights):
        return False
    from mambabench.kernels.program import DTYPES

    return all(weight.dtype in DTYPES for weight in weights)


def _few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from mambabench.kernels.program import Program, usual_threads

    ahead.wait_for("program")
    program = Program(x.shape[0], usual_threads())
    y = x.new_empty(x.shape[0], weight.shape[0])
    program.product(x.contiguous(), weight, y, bias=_as(bias, x.dtype))
    program.run([], [])
    return y


def _as(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


def _multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    if device.type != "cpu":
        return True
    mkldnn = torch.ops.mkldnn
    if dtype == torch.bfloat16:
        return bool(mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(mkldnn._is_mkldnn_fp16_supported())
