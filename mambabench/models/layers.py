"""Parts that the state-carrying forwards share: matrix products, normalisation, the head, row bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional


def row_starts(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return where each row begins in an end-to-end layout, and the total, int64 [B + 1]."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply float32 activations [T, n] by a weight [m, n] of any float dtype; return float32 [T, m].

    A processor with matrix units for a 16-bit dtype multiplies in it; for others the weight is widened,
    this one only and just for now. In 32 bits the product is that of `torch.nn.functional.linear`.
    """
    if weight.dtype != x.dtype:
        if _multiplies(weight.dtype, weight.device):
            return functional.linear(x.to(weight.dtype), weight, _as(bias, weight.dtype)).to(x.dtype)
        weight = weight.to(x.dtype)
    return functional.linear(x, weight, _as(bias, x.dtype))


def _as(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


def _multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    if device.type != "cpu":
        return True
    mkldnn = torch.ops.mkldnn
    if dtype == torch.bfloat16:
        return bool(mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(mkldnn._is_mkldnn_fp16_supported())
