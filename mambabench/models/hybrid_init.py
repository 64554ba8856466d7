"""Random weights for any model of mamba_ssm, spread as mamba_ssm's own constructors spread them.

The recurrence's parameters follow the papers: A is S4D-Real in Mamba-1 (-1 to -d_state in each channel,
arXiv:2312.00752, section 3.6) and uniform a head in Mamba-2 (arXiv:2405.21060), D is one, and softplus of
dt's bias is spread evenly on a log scale. The embedding is normal with 0.02. Other matrices and the
convolutions are uniform within one over the root of their fan-in, torch's default, and what writes to the
residual stream is divided by the root of the number of layers, after GPT-2 (Radford et al. 2019). The
numbers are not those that mamba_ssm would draw from the same seed, only their spread is.

    random_state(config, seed=0, dtype=torch.bfloat16)["backbone.layers.0.mixer.A_log"]    # float32
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mambabench.models.hybrid_shapes import mixer_settings, parameter_shapes
from mambabench.models.record import FP32_NAMES

_EMBEDDING_SPREAD = 0.02
_RESIDUAL = ("out_proj.weight", "fc2.weight")


def random_state(config: dict[str, Any], *, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a state dict for a mamba_ssm configuration that `hybrid_shapes.obstacle` lets pass.

    Args:
        config: mamba_ssm's configuration.
        seed: the weights depend on it and the configuration alone.
        dtype: of all but the recurrence's parameters, which keep float32; the numbers are drawn in float32,
            so that they are the same in every dtype.
    """
    draw = _Draw(config, torch.Generator().manual_seed(seed))
    return {
        name: draw.parameter(name, shape).to(
            torch.float32 if name.rpartition(".")[2] in FP32_NAMES else dtype
        )
        for name, shape in parameter_shapes(config).items()
    }


class _Draw:
    """Draws one parameter after the other."""

    def __init__(self, config: dict[str, Any], generator: torch.Generator) -> None:
        self._settings = mixer_settings(config)
        self._n_layer = int(config["n_layer"])
        self._attention = {f"backbone.layers.{index}" for index in config.get("attn_layer_idx") or []}
        self._attention_taps = int((config.get("attn_cfg") or {}).get("d_conv") or 1)
        self._generator = generator

    def parameter(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return one parameter in float32."""
        owner, _, leaf = name.rpartition(".")
        last = owner.rpartition(".")[2]
        if name == "backbone.embedding.weight":
            return _EMBEDDING_SPREAD * torch.randn(shape, generator=self._generator)
        if leaf == "D" or (last.startswith("norm") and leaf == "weight"):
            return torch.ones(shape)
        if leaf == "A_log":
            return self._a_log(shape)
        if leaf == "dt_bias" or name.endswith("dt_proj.bias"):
            return self._dt_bias(shape)
        if last == "conv1d":
            return self._uniform(shape, self._convolution_bound(name))
        if leaf == "bias":
            return torch.zeros(shape)
        bound = 1.0 / math.sqrt(shape[1])
        if last == "dt_proj":
            bound *= float(self._settings["dt_scale"])
            if self._settings["dt_init"] == "constant":
                return torch.full(shape, bound)
        return self._uniform(shape, bound / math.sqrt(self._n_layer) if name.endswith(_RESIDUAL) else bound)

    def _uniform(self, shape: tuple[int, ...], bound: float) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=self._generator)

    def _a_log(self, shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 2:
            return torch.arange(1, shape[1] + 1, dtype=torch.float32).log().repeat(shape[0], 1)
        low, high = self._settings["A_init_range"]
        return torch.empty(shape).uniform_(float(low), float(high), generator=self._generator).log()

    def _dt_bias(self, shape: tuple[int, ...]) -> Tensor:
        low, high = (math.log(float(self._settings[key])) for key in ("dt_min", "dt_max"))
        dt = torch.empty(shape).uniform_(low, high, generator=self._generator).exp()
        dt = dt.clamp(min=float(self._settings["dt_init_floor"]))
        # The inverse of softplus.
        return dt + torch.log(-torch.expm1(-dt))

    def _convolution_bound(self, name: str) -> float:
        """Return the bound of a convolution's weight or bias; each channel's fan-in is its own taps."""
        if name.rpartition(".mixer.")[0] in self._attention:
            return 1.0 / math.sqrt(self._attention_taps)
        chosen = self._settings.get("conv_init")
        if chosen is not None and name.endswith("weight"):
            return float(chosen)
        return 1.0 / math.sqrt(self._settings["d_conv"])
