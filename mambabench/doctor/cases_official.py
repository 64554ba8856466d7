"""Cases for the CUDA kernels of mamba-ssm and causal-conv1d, and for FlashAttention.

Not run on hardware yet: written against the sources of mamba-ssm 2.3.1 and 2.3.2.post1 and of
causal-conv1d 1.7.0. On a processor the cases run with stand-ins for the modules.

    for case in official_cases("cuda:0"):
        print(measure(case))
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor

from mambabench.doctor import plain
from mambabench.doctor.measure import Case
from mambabench.doctor.plain import Outputs, decays, normal

DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
SCAN_ALLOWED: Final = 1e-4
"""The scan is compiled with fast exponentials and logarithms, whose error is above float32's own."""
PRODUCT_ALLOWED: Final = {torch.float32: 5e-3, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Mamba-2's scan multiplies matrices in TF32 where its inputs are float32, and rounds factors to the inputs'
dtype where they have 16 bits: shares of the numbers' size, some roundings each."""
_CHUNK = 64

Functions = tuple[Callable[[], Outputs], Callable[[], Outputs], Callable[[], Outputs]]


def official_cases(device: str) -> Iterator[Case]:
    """Return cases of the functions that `MambaLMHeadModel` calls.

    A function is imported when its case is run, so that a package that is absent fails its own cases only.

    Args:
        device: "cuda:0".
    """
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for batch, length, channels in ((2, 300, 64), (1, 7, 96)):
            shape = f"{batch} x {length} tokens, {channels} x 16, from zero"
            functions = _scan(device, dtype, batch, length, channels)
            yield Case("official", "selective_scan_fn", shape, name, *functions, allowed=SCAN_ALLOWED)
        functions = _scan_step(device, dtype)
        yield Case(
            "official", "selective_state_update", "3 x 64 x 16", name, *functions, allowed=SCAN_ALLOWED
        )
        for keeps in (False, True):
            shape = f"2 x 70 tokens, 64 channels, {'from states' if keeps else 'from zero'}"
            functions = _conv(device, dtype, keeps)
            yield Case("official", "causal_conv1d_fn", shape, name, *functions, allowed=SCAN_ALLOWED)
            shape = f"2 x 200 tokens, 4 heads of 64 x 64, {'from states' if keeps else 'from zero'}"
            yield Case(
                "official",
                "mamba_chunk_scan_combined",
                shape,
                name,
                *_ssd(device, dtype, keeps),
                allowed=PRODUCT_ALLOWED[dtype],
            )
        yield Case(
            "official",
            "causal_conv1d_update",
            "2 x 64 channels",
            name,
            *_conv_step(device, dtype),
            allowed=SCAN_ALLOWED,
        )


def flash_cases(device: str) -> Iterator[Case]:
    """Return cases of FlashAttention, which has 16-bit kernels only.

    Args:
        device: "cuda:0".
    """
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for tokens, heads in ((130, 4), (1, 2)):
            yield Case(
                "flash",
                "flash_attn_func",
                f"2 x {tokens} tokens, {heads} heads of 64",
                name,
                *_attention(device, dtype, tokens, heads),
                allowed=PRODUCT_ALLOWED[dtype],
            )


def _function(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _scan_inputs(dtype: torch.dtype, batch: int, length: int, channels: int) -> list[Tensor]:
    """Return u, delta, A, B, C, D, z and the bias; those of the recurrence stay in float32."""
    n_states = 16
    u, delta, z = (normal(seed, batch, length, channels).to(dtype) for seed in (1, 2, 3))
    B, C = (normal(seed, batch, length, n_states).to(dtype) for seed in (4, 5))
    return [u, delta - 2.0, decays(channels, n_states), B, C, normal(6, channels), z, normal(7, channels) / 4]


def _scan(device: str, dtype: torch.dtype, batch: int, length: int, channels: int) -> Functions:
    u, delta, A, B, C, D, z, bias = inputs = _scan_inputs(dtype, batch, length, channels)

    def across(value: Tensor) -> Tensor:
        # Channels before time, as the kernel takes them.
        return value.transpose(1, 2).contiguous().to(device)

    on = across(u), across(delta), A.to(device), across(B), across(C), D.to(device)
    rest = {"z": across(z), "delta_bias": bias.to(device), "delta_softplus": True, "return_last_state": True}

    def run() -> Outputs:
        function = _function("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn")
        y, last = function(*on, **rest)
        return {"output": y.transpose(1, 2), "state": last.float()}

    return run, lambda: _named(plain.scan(inputs, None)), lambda: _named(plain.exact_scan(inputs, None))


def _scan_step(device: str, dtype: torch.dtype) -> Functions:
    inputs = _scan_inputs(dtype, 3, 1, 64)
    state = normal(8, 3, 64, 16)
    u, delta, A, B, C, D, z, bias = (
        v[:, 0].contiguous().to(device) if v.dim() == 3 else v.to(device) for v in inputs
    )

    def run() -> Outputs:
        function = _function("mamba_ssm.ops.triton.selective_state_update", "selective_state_update")
        after = state.clone().to(device)
        y = function(after, u, delta, A, B, C, D, z=z, dt_bias=bias, dt_softplus=True)
        return {"output": y[:, None], "state": after}

    return (
        run,
        lambda: _named(plain.scan(inputs, state)),
        lambda: _named(plain.exact_scan(inputs, state)),
    )


def _named(found: tuple[Tensor, Tensor]) -> Outputs:
    return {"output": found[0], "state": found[1]}


def _stacked(found: list[tuple[Tensor, Tensor]]) -> Outputs:
    return {"output": torch.stack([y for y, _ in found]), "state": torch.stack([h for _, h in found])}


def _conv(device: str, dtype: torch.dtype, keeps: bool) -> Functions:
    x, weight = normal(1, 2, 70, 64).to(dtype), normal(2, 64, 4).to(dtype)
    bias, window = normal(3, 64).to(dtype), normal(4, 2, 3, 64).to(dtype)
    # With states the kernel wants channels beside each other in memory.
    on, before = x.to(device).transpose(1, 2), window.to(device).transpose(1, 2)
    if not keeps:
        on = on.contiguous()

    def run() -> Outputs:
        function = _function("causal_conv1d", "causal_conv1d_fn")
        weights = weight.to(device), bias.to(device)
        if not keeps:
            return {"output": function(on, *weights, activation="silu").transpose(1, 2)}
        y, last = function(on, *weights, initial_states=before, return_final_states=True, activation="silu")
        return {"output": y.transpose(1, 2), "state": last.transpose(1, 2)}

    def plainly(wide: torch.dtype) -> Outputs:
        starts = window if keeps else torch.zeros_like(window)
        found = _stacked(
            [
                plain.conv(one.to(wide), weight.t().to(wide), bias.to(wide), start.to(wide))
                for one, start in zip(x, starts, strict=True)
            ]
        )
        return found if keeps else {"output": found["output"]}

    return run, lambda: plainly(dtype), lambda: plainly(torch.float64)


def _conv_step(device: str, dtype: torch.dtype) -> Functions:
    x, weight, bias = normal(1, 2, 64).to(dtype), normal(2, 64, 4).to(dtype), normal(3, 64).to(dtype)
    window = normal(4, 2, 64, 4).to(dtype)

    def run() -> Outputs:
        after = window.clone().to(device)
        function = _function("causal_conv1d", "causal_conv1d_update")
        y = function(x.to(device), after, weight.to(device), bias.to(device), activation="silu")
        return {"output": y, "state": after}

    def plainly(wide: torch.dtype) -> Outputs:
        found = [
            plain.conv(one[None].to(wide), weight.t().to(wide), bias.to(wide), before.t()[1:].to(wide))
            for one, before in zip(x, window, strict=True)
        ]
        seen = torch.cat([window[..., 1:], x[..., None]], -1).to(wide)
        return {"output": torch.cat([y for y, _ in found]), "state": seen}

    return run, lambda: plainly(dtype), lambda: plainly(torch.float64)


def _ssd(device: str, dtype: torch.dtype, keeps: bool) -> Functions:
    heads, width, n_states, length = 4, 64, 64, 200
    x = normal(1, 2, length, heads, width).to(dtype)
    dt = normal(2, 2, length, heads).to(dtype) - 2.0
    B, C = (normal(seed, 2, length, 1, n_states).to(dtype) for seed in (3, 4))
    A, D, bias = decays(heads) / 4, normal(5, heads), normal(6, heads) / 4
    state = normal(7, 2, heads, width, n_states) if keeps else None

    def run() -> Outputs:
        function = _function("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")
        on = (v.to(device) for v in (x, dt, A, B, C))
        y, last = function(
            *on,
            _CHUNK,
            D=D.to(device),
            dt_bias=bias.to(device),
            dt_softplus=True,
            initial_states=None if state is None else state.to(device),
            return_final_states=True,
        )
        return {"output": y, "state": last}

    def plainly(ssd: Callable[..., tuple[Tensor, Tensor]]) -> Outputs:
        skip = D[:, None].expand(heads, width)
        found = []
        for row in range(2):
            start = None if state is None else state[row].transpose(1, 2)
            y, last = ssd(x[row], dt[row], A, B[row], C[row], skip, bias, start)
            found.append((y, last.transpose(1, 2)))
        return _stacked(found)

    return run, lambda: plainly(plain.ssd), lambda: plainly(plain.exact_ssd)


def _attention(device: str, dtype: torch.dtype, tokens: int, heads: int) -> Functions:
    q, k, v = (normal(seed, 2, tokens, heads, 64).to(dtype) for seed in (1, 2, 3))

    def run() -> Outputs:
        function = _function("flash_attn", "flash_attn_func")
        return {"output": function(q.to(device), k.to(device), v.to(device), causal=True)}

    def plainly(wide: torch.dtype) -> Outputs:
        a, b, c = (value.to(wide).transpose(1, 2) for value in (q, k, v))
        scores = a @ b.transpose(-1, -2) / 64**0.5
        hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return {"output": (weights @ c).transpose(1, 2)}

    def by_torch() -> Outputs:
        return {"output": plainly(torch.float32)["output"].to(dtype)}

    return run, by_torch, lambda: plainly(torch.float64)
