"""Mamba-2 as a function of a state, over the weights of a loaded transformers model.

transformers' path without CUDA is exact but pads every row to chunks of 256 tokens; this one runs rows of
different lengths end to end, without padding. The mixer is that of Dao & Gu 2024 (arXiv:2405.21060,
section 7.1), with the variants that mamba_ssm's `Mamba2` has.

    steps = Mamba2Steps(module, vocab_size=50277)
    step = steps.step(ids, [7, 3])                      # two rows, 10 ids
    steps.step(more_ids, [1, 300], step.state)          # both go on
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mambabench.kernels.packed import PackedKernels, kernels_for
from mambabench.models.layers import linear, products_are_there, widened, widened_or_none
from mambabench.models.recurrent_state import RecurrentState
from mambabench.models.recurrent_steps import RecurrentSteps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mambabench.kernels.program import Program

LOG2_E = 1.4426950408889634
FAMILIES = frozenset({"mamba2"})
_ACTIVATIONS = ("silu", "swish")
_NO_LIMIT = (0.0, float("inf"))


class Mamba2Layer:
    """One Mamba-2 mixer.

    Args:
        weights: the mixer's parameters by the names that mamba_ssm and transformers both give them;
            without "norm.weight" the output is gated but not normalised.
        kernels: of the device that the weights are on.
        d_state: size of a channel's state.
        n_groups: of heads that share B and C, and of channels that are normalised together.
        norm_eps: of that normalisation.
        dt_limit: smallest and largest step size.
        gate_first: whether the gate comes before the normalisation.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        kernels: PackedKernels,
        *,
        d_state: int,
        n_groups: int,
        norm_eps: float,
        dt_limit: tuple[float, float] = _NO_LIMIT,
        gate_first: bool = True,
    ) -> None:
        self._kernels = kernels
        self._groups, self._eps = n_groups, norm_eps
        self._dt_limit, self._gate_first = dt_limit, gate_first
        self._in_proj, self._in_bias = weights["in_proj.weight"], weights.get("in_proj.bias")
        self._out_proj, self._out_bias = weights["out_proj.weight"], weights.get("out_proj.bias")
        # Small tensors are kept a second time, in the layout and the dtype that the loops read.
        self._taps = widened(weights["conv1d.weight"][:, 0].t())
        conv_channels = self._taps.shape[1]
        bias = weights.get("conv1d.bias")
        self._conv_bias = self._taps.new_zeros(conv_channels) if bias is None else widened(bias)
        self._dt_bias = widened(weights["dt_bias"])
        self._a = widened(-torch.exp(weights["A_log"].double()) * LOG2_E)
        norm = weights.get("norm.weight")
        self._norm = None if norm is None else widened(norm)
        heads = self._a.shape[0]
        self.d_ssm = conv_channels - 2 * n_groups * d_state
        skip = widened(weights["D"])
        # One number a head, or one a channel.
        skip = skip[:, None].expand(-1, self.d_ssm // heads) if skip.numel() == heads else skip
        self._skip = skip.reshape(heads, -1).contiguous()
        # The projection's columns: with a d_ssm that is smaller than d_inner an MLP's gate and value first,
        # then z, x, B, C and the step sizes.
        self._d_mlp = (self._in_proj.shape[0] - self.d_ssm - conv_channels - heads) // 2
        self._z_column = 2 * self._d_mlp
        self._dt_column = self._in_proj.shape[0] - heads
        self.shapes = {
            "conv": (self._taps.shape[0] - 1, conv_channels),
            "ssm": (heads, d_state, self._skip.shape[1]),
        }
        self.way = kernels.ssd_way(heads, self._skip.shape[1], d_state, n_groups)
        """What computes the scan."""
        self.row_bytes = sum(4 * math.prod(shape) for shape in self.shapes.values())
        """Bytes of a row's state."""
        # The projection (a 16-bit one twice for a moment), the convolution's output, the scan's, and what the
        # scan makes for all heads: a little more for rows that are far shorter than a tile.
        size = kernels.dtype.itemsize
        once_more = self._in_proj.dtype.itemsize if self._in_proj.dtype.itemsize < size else 0
        self.token_bytes = (size + once_more) * self._in_proj.shape[0] + size * (
            conv_channels + self.d_ssm + 2 * heads + n_groups * (2 * d_state + 128)
        )
        """Memory of a forward per token."""

    def step(
        self,
        x: Tensor,
        starts: npt.NDArray[np.int64],
        before: RecurrentState | None,
        after: RecurrentState | None,
        *,
        read: Tensor | None = None,
    ) -> Tensor:
        """Map normalised inputs [T, d_model] to what is added to the residual stream, [T or n, d_model].

        Args:
            x: in the kernels' dtype.
            starts: where each row begins, and T, [B + 1].
            before: of each row "conv" [k - 1, channels] and "ssm" [H, N, P]; null for rows that begin here.
            after: places for the same after the row's last token; null for none. A row's may be the one in
                `before`.
            read: positions whose outputs are needed; null for all.
        """
        old = {} if before is None else before.named
        new = {} if after is None else after.named
        zxbcdt = linear(x, self._in_proj, self._in_bias)
        xbc = self._kernels.conv_silu(
            zxbcdt,
            self._z_column + self.d_ssm,
            self._taps,
            self._conv_bias,
            starts,
            old.get("conv"),
            new.get("conv"),
        )
        y = self._kernels.ssd(
            xbc,
            zxbcdt,
            self._dt_column,
            self._dt_bias,
            self._a,
            self._skip,
            self._groups,
            starts,
            old.get("ssm"),
            new.get("ssm"),
            dt_limit=self._dt_limit,
        )
        if read is not None:
            y, zxbcdt = y[read], zxbcdt[read]
        self._kernels.gate_norm(
            y, zxbcdt, self._z_column, self._norm, self._eps, self._groups, gate_first=self._gate_first
        )
        if self._d_mlp:
            gate, value = zxbcdt[:, : self._z_column].chunk(2, dim=1)
            y = torch.cat([torch.nn.functional.silu(gate) * value, y], dim=1)
        return linear(y, self._out_proj, self._out_bias)

    def is_writable(self) -> bool:
        """Tell whether `write` knows this mixer: there is no MLP in it, and the weights' dtypes fit."""
        return not self._d_mlp and products_are_there(self._in_proj, self._out_proj)

    def write(self, program: Program, x: Tensor, y: Tensor) -> None:
        """Append what `step` does with one token a row; see `mambabench.models.one_token.WritesProgram`."""
        zxbcdt = program.shared(self._in_proj.shape[0])
        xbc, scanned = program.shared(self._taps.shape[1]), program.shared(self.d_ssm)
        gated = program.private(self.d_ssm)
        program.product(x, self._in_proj, zxbcdt, bias=widened_or_none(self._in_bias))
        program.meet()
        program.conv_silu(zxbcdt, self.d_ssm, self._taps, self._conv_bias, xbc)
        program.meet()
        heads = self._dt_bias, self._a, self._skip
        program.ssd(xbc, zxbcdt, self._dt_column, *heads, self._groups, scanned, dt_limit=self._dt_limit)
        program.meet()
        program.gate_norm(
            scanned, zxbcdt, 0, self._norm, self._eps, self._groups, gated, gate_first=self._gate_first
        )
        program.product(gated, self._out_proj, y, bias=widened_or_none(self._out_bias))
        program.meet()


class Mamba2Steps(RecurrentSteps):
    """A Mamba-2 language model; see `mambabench.models.stateful.StatefulModel` for the methods' contract.

    Args:
        module: transformers' `Mamba2ForCausalLM`; its weights are shared.
        vocab_size: ids that may be predicted.

    Raises:
        ValueError: the convolution is followed by something else than SiLU.
    """

    def __init__(self, module: PreTrainedModel, *, vocab_size: int) -> None:
        causal: Any = module
        config, weight = causal.config, causal.backbone.embeddings.weight
        if config.hidden_act not in _ACTIVATIONS:
            raise ValueError(f"hidden_act must be 'silu', not '{config.hidden_act}'")
        kernels = kernels_for(weight.device, weight.dtype)
        low, high = config.time_step_limit
        layers = [
            Mamba2Layer(
                {name: p.detach() for name, p in block.mixer.named_parameters()},
                kernels,
                d_state=config.state_size,
                n_groups=config.n_groups,
                norm_eps=config.layer_norm_epsilon,
                dt_limit=(float(low), float(high)),
            )
            for block in causal.backbone.layers
        ]
        super().__init__(module, kernels, layers, vocab_size=vocab_size)
