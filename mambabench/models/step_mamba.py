"""Mamba-1 as a function of a state, over the weights of a loaded transformers model.

transformers goes on from a state by one token at a time only (with more it starts the scan from zero
without a word), and mamba_ssm refuses more; this forward takes any number, for several rows of
different lengths at once. The mixer is that of Gu & Dao 2023 (arXiv:2312.00752, section 3.4);
FalconMamba normalises B, C and the step size besides.

    steps = MambaSteps(module, vocab_size=50277)
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
FAMILIES = frozenset({"mamba", "falcon_mamba"})


class MambaLayer:
    """One selective state-space mixer.

    Args:
        weights: the mixer's parameters by the names that mamba_ssm and transformers both give them.
        kernels: of the device that the weights are on.
        inner_norm_eps: for a mixer that normalises B, C and the step size, as FalconMamba's does.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], kernels: PackedKernels, *, inner_norm_eps: float | None = None
    ) -> None:
        self._kernels = kernels
        self._eps = inner_norm_eps
        self._in_proj, self._in_bias = weights["in_proj.weight"], weights.get("in_proj.bias")
        self._out_proj, self._out_bias = weights["out_proj.weight"], weights.get("out_proj.bias")
        self._x_proj, self._dt_proj = weights["x_proj.weight"], weights["dt_proj.weight"]
        # Small tensors are kept a second time, in the layout and the dtype that the loops read.
        self._taps = widened(weights["conv1d.weight"][:, 0].t())
        self.d_inner = self._taps.shape[1]
        bias = weights.get("conv1d.bias")
        self._conv_bias = self._taps.new_zeros(self.d_inner) if bias is None else widened(bias)
        self._dt_bias = widened(weights["dt_proj.bias"])
        self._a = widened(-torch.exp(weights["A_log"].double()).t() * LOG2_E)
        self._skip = widened(weights["D"])
        self._rank = self._dt_proj.shape[1]
        self.way = kernels.scan_way(self.d_inner, self._a.shape[0])
        """What computes the scan."""
        self.shapes = {
            "conv": (self._taps.shape[0] - 1, self.d_inner),
            "ssm": (self._a.shape[0], self.d_inner),
        }

    @property
    def token_bytes(self) -> int:
        """Memory of a forward per token: xz, u, dt, y and the small projection."""
        return 6 * self._kernels.dtype.itemsize * self.d_inner

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's state."""
        return sum(4 * math.prod(shape) for shape in self.shapes.values())

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
            before: of each row "conv" [k - 1, d_inner] and "ssm" [N, d_inner]; null for rows that begin here.
            after: places for the same after the row's last token; null for none. A row's may be the one in
                `before`.
            read: positions whose outputs are needed; null for all.
        """
        old = {} if before is None else before.named
        new = {} if after is None else after.named
        xz = linear(x, self._in_proj, self._in_bias)
        u = self._kernels.conv_silu(
            xz, 0, self._taps, self._conv_bias, starts, old.get("conv"), new.get("conv")
        )
        proj = linear(u, self._x_proj)
        if self._eps is not None:
            proj = self._normalised(proj, self._eps)
        dt = linear(proj[:, : self._rank], self._dt_proj)
        y = self._kernels.scan(
            u,
            dt,
            self._dt_bias,
            self._a,
            proj,
            self._rank,
            self._skip,
            xz,
            self.d_inner,
            starts,
            old.get("ssm"),
            new.get("ssm"),
        )
        return linear(y if read is None else y[read], self._out_proj, self._out_bias)

    def is_writable(self) -> bool:
        """Tell whether `write` knows the weights' dtypes."""
        return products_are_there(self._in_proj, self._x_proj, self._dt_proj, self._out_proj)

    def write(self, program: Program, x: Tensor, y: Tensor) -> None:
        """Append what `step` does with one token a row; see `mambabench.models.one_token.WritesProgram`."""
        d_inner, rank, n_states = self.d_inner, self._rank, self._a.shape[0]
        xz, u, dt = program.shared(2 * d_inner), program.shared(d_inner), program.shared(d_inner)
        proj, mixed = program.shared(rank + 2 * n_states), program.shared(d_inner)
        # One half after the other: then each thread makes the inputs and the gate of its own channels.
        for half in (slice(0, d_inner), slice(d_inner, None)):
            bias = None if self._in_bias is None else widened(self._in_bias[half])
            program.product(x, self._in_proj[half], xz, bias=bias, y_column=half.start)
        program.conv_silu(xz, 0, self._taps, self._conv_bias, u)
        program.meet()
        program.product(u, self._x_proj, proj)
        program.meet()
        if self._eps is not None:
            made, proj = proj, program.private(rank + 2 * n_states)
            for column, size in ((0, rank), (rank, n_states), (rank + n_states, n_states)):
                program.norm(
                    made, proj, weight=None, eps=self._eps, x_column=column, y_column=column, size=size
                )
        program.product(proj, self._dt_proj, dt)
        program.scan(u, dt, self._dt_bias, self._a, proj, rank, self._skip, xz, d_inner, mixed)
        program.meet()
        program.product(mixed, self._out_proj, y, bias=widened_or_none(self._out_bias))
        program.meet()

    def _normalised(self, proj: Tensor, eps: float) -> Tensor:
        n_states = self._a.shape[0]
        sizes = [self._rank, n_states, n_states]
        parts = torch.split(proj, sizes, dim=1)
        return torch.cat([torch.nn.functional.rms_norm(p, (p.shape[1],), eps=eps) for p in parts], dim=1)


class MambaSteps(RecurrentSteps):
    """A Mamba-1 language model; see `mambabench.models.stateful.StatefulModel` for the methods' contract.

    Args:
        module: transformers' `MambaForCausalLM` or `FalconMambaForCausalLM`; its weights are shared.
        vocab_size: ids that may be predicted.
    """

    def __init__(self, module: PreTrainedModel, *, vocab_size: int) -> None:
        causal: Any = module
        config, weight = causal.config, causal.backbone.embeddings.weight
        kernels = kernels_for(weight.device, weight.dtype)
        eps = config.mixer_rms_eps if config.model_type == "falcon_mamba" else None
        layers = [
            MambaLayer(
                {name: p.detach() for name, p in block.mixer.named_parameters()}, kernels, inner_norm_eps=eps
            )
            for block in causal.backbone.layers
        ]
        super().__init__(module, kernels, layers, vocab_size=vocab_size)
