"""Any model of mamba_ssm in plain torch, token by token: what the rounding of its fast forms is measured by.

Hybrids have no counterpart in transformers, and mamba_ssm's kernels know no 64-bit floats. This is the
forward of the same weights by the definitions: the recurrences of Mamba-1 (arXiv:2312.00752, equation 2) and
Mamba-2 (arXiv:2405.21060, equation 1) one token after the other, attention as a whole matrix of scores. It is
slow, and meant for a certificate's few short rows, in 64 bits under `mambabench.models.wide_forward`.

    reference = PlainModel(config, module.state_dict())         # shares the tensors
    wide_logits(reference, ids, keep=4, vocab_size=50277)       # float64
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mambabench.models.convert import NORM_EPSILON
from mambabench.models.hybrid_shapes import mixer_settings

_Weights = Mapping[str, Tensor]


class PlainModel(nn.Module):
    """A language model of mamba_ssm; its parameters stay where they are and as they are.

    Args:
        config: mamba_ssm's configuration, which `mambabench.models.hybrid_shapes.obstacle` lets pass.
        state: its state dict, on one device.
    """

    def __init__(self, config: Mapping[str, Any], state: _Weights) -> None:
        super().__init__()
        self._settings = mixer_settings(dict(config))
        self._attention = dict(config.get("attn_cfg") or {})
        self._attends = frozenset(config.get("attn_layer_idx") or [])
        self._n_layer = int(config["n_layer"])
        self._rms = bool(config.get("rms_norm", True))
        self._state = dict(state)
        tied = bool(config.get("tie_embeddings", True))
        self._head = state["backbone.embedding.weight" if tied else "lm_head.weight"]
        chunk = self._settings.get("chunk_size") if len(self._attends) < self._n_layer else None
        self.config = SimpleNamespace(chunk_size=chunk)
        """With what a certificate asks for: the tokens of a chunk of the shipped code's scan."""

    def forward(self, input_ids: Tensor, *, use_cache: bool = False, logits_to_keep: int = 0) -> Any:
        """Forward a right-padded batch [B, L].

        Args:
            input_ids: int64.
            use_cache: there is none.
            logits_to_keep: last positions that logits are returned for; 0 for all.

        Returns:
            An object with `logits` [B, keep, rows of the vocabulary].
        """
        residual = functional.embedding(input_ids, self._state["backbone.embedding.weight"]).float()
        for index in range(self._n_layer):
            weights = _below(self._state, f"backbone.layers.{index}.")
            mixer = _below(weights, "mixer.")
            x = self._norm(residual, weights, "norm")
            if index in self._attends:
                mixed = _attention(x, mixer, self._attention)
            elif self._settings["layer"] == "Mamba1":
                mixed = _mamba1(x, mixer)
            else:
                mixed = _mamba2(x, mixer, self._settings)
            residual = residual + mixed
            if "mlp.fc1.weight" in weights:
                value, gate = functional.linear(
                    self._norm(residual, weights, "norm2"), weights["mlp.fc1.weight"]
                ).chunk(2, dim=-1)
                residual = residual + functional.linear(
                    value * functional.silu(gate), weights["mlp.fc2.weight"]
                )
        hidden = self._norm(residual, _below(self._state, "backbone."), "norm_f")
        return SimpleNamespace(logits=functional.linear(hidden[:, -logits_to_keep:], self._head))

    def _norm(self, x: Tensor, weights: _Weights, name: str) -> Tensor:
        weight = weights[f"{name}.weight"]
        if self._rms:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPSILON) * weight
        return functional.layer_norm(x, weight.shape, weight, weights[f"{name}.bias"], NORM_EPSILON)


def _below(weights: _Weights, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _linear(x: Tensor, weights: _Weights, name: str) -> Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _convolved(x: Tensor, weights: _Weights) -> Tensor:
    """Return the causal convolution of each channel of [B, L, channels]."""
    weight = weights["conv1d.weight"]
    channels, _, taps = weight.shape
    padded = functional.pad(x.mT, (taps - 1, 0))
    return functional.conv1d(padded, weight, weights.get("conv1d.bias"), groups=channels).mT


def _scan(dt: Tensor, a: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return y_t = h_t c_t [B, L, ...] for h_t = exp(dt_t a) h_{t-1} + dt_t u_t b_t.

    Args:
        dt: step sizes, [B, L, ...].
        a: the state matrix, which is negative, [..., N].
        u: inputs, [B, L, ...].
        b: how they are written, [B, L, ..., N].
        c: how states are read, [B, L, ..., N].
    """
    state: Tensor | None = None
    outputs = []
    for t in range(u.shape[1]):
        drive = (dt[:, t] * u[:, t])[..., None] * b[:, t]
        state = drive if state is None else torch.exp(dt[:, t][..., None] * a) * state + drive
        outputs.append((state * c[:, t]).sum(-1))
    return torch.stack(outputs, dim=1)


def _mamba1(x: Tensor, weights: _Weights) -> Tensor:
    n_states, rank = weights["A_log"].shape[1], weights["dt_proj.weight"].shape[1]
    u, z = _linear(x, weights, "in_proj").chunk(2, dim=-1)
    u = functional.silu(_convolved(u, weights))
    low, b, c = torch.split(_linear(u, weights, "x_proj"), [rank, n_states, n_states], dim=-1)
    dt = functional.softplus(_linear(low, weights, "dt_proj"))
    y = _scan(dt, -torch.exp(weights["A_log"]), u, b[:, :, None], c[:, :, None])
    return _linear((y + weights["D"] * u) * functional.silu(z), weights, "out_proj")


def _mamba2(x: Tensor, weights: _Weights, settings: Mapping[str, Any]) -> Tensor:
    groups, n_states = int(settings["ngroups"]), int(settings["d_state"])
    heads, columns = weights["A_log"].shape[0], weights["conv1d.weight"].shape[0]
    d_ssm = columns - 2 * groups * n_states
    zxbcdt = _linear(x, weights, "in_proj")
    d_mlp = (zxbcdt.shape[-1] - d_ssm - columns - heads) // 2
    gate, value, z, xbc, dt = torch.split(zxbcdt, [d_mlp, d_mlp, d_ssm, columns, heads], dim=-1)
    xbc = functional.silu(_convolved(xbc, weights))
    u, b, c = torch.split(xbc, [d_ssm, groups * n_states, groups * n_states], dim=-1)
    u = _apart(u, heads)
    # Each group's for its heads, and the same for all channels of a head.
    b, c = (_apart(part, groups).repeat_interleave(heads // groups, dim=2)[:, :, :, None] for part in (b, c))
    low, high = (float(limit) for limit in settings["dt_limit"])
    dt = functional.softplus(dt + weights["dt_bias"]).clamp(low, high)[..., None]
    y = _scan(dt, -torch.exp(weights["A_log"])[:, None, None], u, b, c)
    y = (y + u * weights["D"].view(heads, -1)).flatten(2)
    gated = functional.silu(z)
    if not settings["rmsnorm"]:
        y = y * gated
    elif settings["norm_before_gate"]:
        y = _grouped_norm(y, weights["norm.weight"], groups) * gated
    else:
        y = _grouped_norm(y * gated, weights["norm.weight"], groups)
    return _linear(torch.cat([functional.silu(gate) * value, y], dim=-1), weights, "out_proj")


def _apart(x: Tensor, parts: int) -> Tensor:
    """Divide the columns of [B, L, parts * size] into [B, L, parts, size]."""
    return x.reshape(*x.shape[:-1], parts, -1)


def _grouped_norm(y: Tensor, weight: Tensor, groups: int) -> Tensor:
    parts = _apart(y, groups)
    scale = torch.rsqrt(parts.square().mean(-1, keepdim=True) + NORM_EPSILON)
    return (parts * scale).flatten(-2) * weight


def _attention(x: Tensor, weights: _Weights, attn_cfg: Mapping[str, Any]) -> Tensor:
    heads = int(attn_cfg["num_heads"])
    kv_heads = int(attn_cfg.get("num_heads_kv") or heads)
    size = int(attn_cfg.get("head_dim") or x.shape[-1] // heads)
    columns = size * (heads + 2 * kv_heads)
    projected = _linear(x, weights, "in_proj")
    qkv, mlp = projected[..., :columns], projected[..., columns:]
    if attn_cfg.get("d_conv"):
        qkv = _convolved(qkv, weights)
    q, k, v = (
        _apart(part, part.shape[-1] // size).transpose(1, 2)
        for part in torch.split(qkv, [heads * size, kv_heads * size, kv_heads * size], dim=-1)
    )
    if attn_cfg.get("rotary_emb_dim"):
        q, k = (_turned(part, attn_cfg) for part in (q, k))
    k, v = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (k, v))
    scale = attn_cfg.get("softmax_scale")
    scores = q @ k.mT * (size**-0.5 if scale is None else float(scale))
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
    mixed = (scores.masked_fill(later, float("-inf")).softmax(-1) @ v).transpose(1, 2).flatten(2)
    value, gate = mlp.chunk(2, dim=-1)
    return _linear(torch.cat([mixed, value * functional.silu(gate)], dim=-1), weights, "out_proj")


def _turned(x: Tensor, attn_cfg: Mapping[str, Any]) -> Tensor:
    """Turn pairs of the first columns of [B, heads, L, size] by their positions (arXiv:2104.09864)."""
    turned = int(attn_cfg["rotary_emb_dim"])
    pairs = torch.arange(turned // 2, dtype=torch.float64, device=x.device)
    frequencies = float(attn_cfg.get("rotary_emb_base", 10000.0)) ** (-2 * pairs / turned)
    positions = torch.arange(x.shape[2], dtype=torch.float64, device=x.device)
    angles = positions[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    columns = torch.arange(turned, device=x.device)
    interleaved = bool(attn_cfg.get("rotary_emb_interleaved", False))
    first, second = (columns[::2], columns[1::2]) if interleaved else columns.chunk(2)
    a, b = x[..., first], x[..., second]
    both = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    # Back to where each column stood.
    return torch.cat([both[..., torch.cat([first, second]).argsort()], x[..., turned:]], dim=-1)
