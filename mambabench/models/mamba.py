"""A Mamba-1 language model of this package's own: trainable on a CPU, and able to go on from a state.

Parameters carry the names of transformers' `MambaForCausalLM`, so a state dict loads into either. The
forward is that of Gu & Dao 2023 (arXiv:2312.00752, section 3.4) over `mambabench.kernels.cpu`.

    >>> import torch
    >>> config = MambaShape(vocab_size=11, d_model=8, n_layers=2, d_inner=16, d_state=4, d_conv=4, dt_rank=1)
    >>> model = MambaLM(config).eval()
    >>> ids = torch.tensor([[1, 2, 3, 4]])
    >>> whole, _ = model(ids)
    >>> head, state = model(ids[:, :3])
    >>> tail, _ = model(ids[:, 3:], state)
    >>> torch.allclose(whole, torch.cat([head, tail], dim=1), atol=1e-6)
    True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from mambabench.kernels.cpu import selective_scan

if TYPE_CHECKING:
    from transformers import MambaConfig


@dataclass(frozen=True)
class MambaShape:
    """Sizes of a Mamba-1 model, in the paper's names."""

    vocab_size: int
    d_model: int
    n_layers: int
    d_inner: int
    d_state: int
    d_conv: int
    dt_rank: int
    norm_eps: float = 1e-5
    projection_bias: bool = False
    conv_bias: bool = True
    tie_embeddings: bool = True

    @classmethod
    def from_transformers(cls, config: MambaConfig) -> Self:
        """Read the sizes from transformers' configuration.

        Raises:
            ValueError: the configuration asks for an activation other than SiLU.
        """
        if config.hidden_act != "silu":
            raise ValueError(f"hidden_act must be 'silu', not '{config.hidden_act}'")
        return cls(
            vocab_size=config.vocab_size,
            d_model=config.hidden_size,
            n_layers=config.num_hidden_layers,
            d_inner=config.intermediate_size,
            d_state=config.state_size,
            d_conv=config.conv_kernel,
            dt_rank=int(config.time_step_rank),
            norm_eps=config.layer_norm_epsilon,
            projection_bias=config.use_bias,
            conv_bias=config.use_conv_bias,
            tie_embeddings=config.tie_word_embeddings,
        )


@dataclass(frozen=True)
class MambaState:
    """What the model remembers of the tokens so far; its size does not depend on how many they were."""

    conv: tuple[Tensor, ...]
    """For each layer the last d_conv - 1 inputs of the convolution, [B, d_conv - 1, d_inner]."""
    ssm: tuple[Tensor, ...]
    """For each layer the state of the scan, [B, d_inner, d_state], float32 or float64."""


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale, computed in float32 or wider."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of [..., size]."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(self.weight.dtype)


class MambaMixer(nn.Module):
    """One selective state-space layer: projection, short convolution, scan, gate, projection."""

    def __init__(self, shape: MambaShape) -> None:
        super().__init__()
        self.shape = shape
        d_inner = shape.d_inner
        self.in_proj = nn.Linear(shape.d_model, 2 * d_inner, bias=shape.projection_bias)
        self.conv1d = nn.Conv1d(d_inner, d_inner, shape.d_conv, groups=d_inner, bias=shape.conv_bias)
        self.x_proj = nn.Linear(d_inner, shape.dt_rank + 2 * shape.d_state, bias=False)
        self.dt_proj = nn.Linear(shape.dt_rank, d_inner)
        self.out_proj = nn.Linear(d_inner, shape.d_model, bias=shape.projection_bias)
        self.A_log = nn.Parameter(torch.arange(1, shape.d_state + 1).float().log().repeat(d_inner, 1))
        self.D = nn.Parameter(torch.ones(d_inner))

    def forward(self, x: Tensor, conv: Tensor | None, ssm: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B, L, d_model] to the same shape, from and to the layer's two states."""
        shape = self.shape
        u, z = self.in_proj(x).chunk(2, dim=-1)
        if conv is None:
            conv = u.new_zeros(u.shape[0], shape.d_conv - 1, shape.d_inner)
        window = torch.cat([conv, u], dim=1)
        u = functional.silu(self._convolve(window, u.shape[1]))
        dt, B, C = self.x_proj(u).split([shape.dt_rank, shape.d_state, shape.d_state], dim=-1)
        y, ssm = selective_scan(
            u,
            functional.linear(dt, self.dt_proj.weight),
            -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32))),
            B,
            C,
            self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            initial_state=ssm,
        )
        return self.out_proj(y), window[:, window.shape[1] - (shape.d_conv - 1) :], ssm

    def _convolve(self, window: Tensor, length: int) -> Tensor:
        # A few shifted products keep the channels last; conv1d would need them first, and two copies.
        weight = self.conv1d.weight[:, 0]
        taps = [window[:, k : k + length] * weight[:, k] for k in range(self.shape.d_conv)]
        total = sum(taps[1:], start=taps[0])
        return total if self.conv1d.bias is None else total + self.conv1d.bias


class MambaBlock(nn.Module):
    """Normalisation and mixer on a residual stream."""

    def __init__(self, shape: MambaShape) -> None:
        super().__init__()
        self.norm = RMSNorm(shape.d_model, shape.norm_eps)
        self.mixer = MambaMixer(shape)

    def forward(self, x: Tensor, conv: Tensor | None, ssm: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Add the mixer's output to the stream [B, L, d_model]; states as in the mixer."""
        mixed, conv, ssm = self.mixer(self.norm(x), conv, ssm)
        return x + mixed, conv, ssm


class MambaBackbone(nn.Module):
    """Embedding, blocks and final normalisation."""

    def __init__(self, shape: MambaShape) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(shape.vocab_size, shape.d_model)
        self.layers = nn.ModuleList(MambaBlock(shape) for _ in range(shape.n_layers))
        self.norm_f = RMSNorm(shape.d_model, shape.norm_eps)


class MambaLM(nn.Module):
    """The language model; `load_state_dict` takes what transformers' model gives, and the reverse.

    Weights start as PyTorch's defaults. For a paper-like initialisation load those of a fresh
    `transformers.MambaForCausalLM`.
    """

    def __init__(self, shape: MambaShape) -> None:
        super().__init__()
        self.shape = shape
        self.backbone = MambaBackbone(shape)
        self.lm_head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        if shape.tie_embeddings:
            self.lm_head.weight = self.backbone.embeddings.weight

    def forward(
        self, input_ids: Tensor, state: MambaState | None = None, *, keep: int | None = None
    ) -> tuple[Tensor, MambaState]:
        """Run int64 ids [B, L], L at least 1, on from `state`, or from the start when it is absent.

        Returns:
            Logits [B, keep or L, vocab_size] of the last `keep` positions, and the state after the last
            token. The given state is left as it was, so that several continuations can share it.
        """
        x = self.backbone.embeddings(input_ids)
        conv: list[Tensor] = []
        ssm: list[Tensor] = []
        for index, block in enumerate(self.backbone.layers):
            before = (None, None) if state is None else (state.conv[index], state.ssm[index])
            x, conv_after, ssm_after = block(x, *before)
            conv.append(conv_after)
            ssm.append(ssm_after)
        x = self.backbone.norm_f(x if keep is None else x[:, -keep:])
        return self.lm_head(x), MambaState(tuple(conv), tuple(ssm))
