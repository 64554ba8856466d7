"""The official kernels' cases with stand-ins for their modules: right ones pass, wrong ones do not."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mamba_ssm_code import needs_mamba_ssm, run_beside

from mambabench.doctor.cases_official import flash_cases, official_cases
from mambabench.doctor.measure import measure

Tensor = torch.Tensor


def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor,
    delta_softplus: bool, return_last_state: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    assert delta_softplus
    assert return_last_state
    step = F.softplus(delta.float() + delta_bias[:, None])
    state, ys = u.new_zeros(*u.shape[:2], A.shape[1], dtype=torch.float32), []
    for t in range(u.shape[2]):
        drive = (step[..., t] * u[..., t].float())[..., None] * B[:, None, :, t].float()
        state = torch.exp(step[..., t, None] * A) * state + drive
        ys.append((state * C[:, None, :, t].float()).sum(-1))
    y = (torch.stack(ys, -1) + u.float() * D[:, None]) * F.silu(z.float())
    return y.to(u.dtype), state


def scan_step(state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, z: Tensor,
              dt_bias: Tensor, dt_softplus: bool) -> Tensor:  # fmt: skip
    step = F.softplus(dt.float() + dt_bias)
    drive = (step * x.float())[..., None] * B[:, None].float()
    state.copy_(torch.exp(step[..., None] * A) * state + drive)
    y = (state * C[:, None].float()).sum(-1) + x.float() * D
    return (y * F.silu(z.float())).to(x.dtype)


def conv(x: Tensor, weight: Tensor, bias: Tensor, activation: str, initial_states: Tensor | None = None,
         return_final_states: bool = False) -> Any:  # fmt: skip
    taps = weight.shape[1]
    if initial_states is not None:
        # As the kernel demands it.
        assert x.stride(1) == 1
        assert initial_states.stride(1) == 1
    seen = F.pad(x, (taps - 1, 0)) if initial_states is None else torch.cat([initial_states, x], -1)
    y = F.conv1d(seen.float(), weight.float()[:, None], bias.float(), groups=x.shape[1])
    y = (F.silu(y) if activation == "silu" else y).to(x.dtype)
    return (y, seen[..., -(taps - 1) :]) if return_final_states else y


def conv_step(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    conv_state.copy_(torch.cat([conv_state[..., 1:], x[..., None]], -1))
    y = (conv_state.float() * weight.float()).sum(-1) + bias.float()
    return F.silu(y).to(x.dtype)


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, *, D: Tensor, dt_bias: Tensor,
    dt_softplus: bool, initial_states: Tensor | None, return_final_states: bool,
) -> Any:  # fmt: skip
    batch, length, heads, width = x.shape
    state = torch.zeros(batch, heads, width, B.shape[-1]) if initial_states is None else initial_states
    step, ys = F.softplus(dt.float() + dt_bias), []
    for t in range(length):
        drive = (step[:, t, :, None] * x[:, t].float())[..., None] * B[:, t, :, None].float()
        state = torch.exp(step[:, t] * A)[..., None, None] * state + drive
        ys.append((state * C[:, t, :, None].float()).sum(-1) + D[:, None] * x[:, t].float())
    return torch.stack(ys, 1).to(x.dtype), state


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    across = [t.transpose(1, 2).float() for t in (q, k, v)]
    return F.scaled_dot_product_attention(*across, is_causal=causal).transpose(1, 2).to(q.dtype)


FUNCTIONS: dict[str, dict[str, Any]] = {
    "mamba_ssm": {},
    "mamba_ssm.ops": {},
    "mamba_ssm.ops.triton": {},
    "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": scan},
    "mamba_ssm.ops.triton.selective_state_update": {"selective_state_update": scan_step},
    "mamba_ssm.ops.triton.ssd_combined": {"mamba_chunk_scan_combined": ssd},
    "causal_conv1d": {"causal_conv1d_fn": conv, "causal_conv1d_update": conv_step},
    "flash_attn": {"flash_attn_func": attention},
}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    made = {}
    for name, functions in FUNCTIONS.items():
        module: Any = types.ModuleType(name)
        module.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, name, module)
        made[name] = module
    return made


def test_right_functions_pass_in_every_dtype(modules: dict[str, Any]) -> None:
    findings = [measure(case) for case in (*official_cases("cpu"), *flash_cases("cpu"))]
    for found in findings:
        assert found.passed, found
        # So near that no allowance is needed.
        assert (found.ratio or 0) < 4, found
    tried = {(found.kernel, found.dtype) for found in findings}
    for functions in FUNCTIONS.values():
        for name in functions:
            wanted = {"float16", "bfloat16"} | (set() if name.startswith("flash") else {"float32"})
            assert {dtype for kernel, dtype in tried if kernel == name} == wanted


def forgets_its_state(*args: Any, **options: Any) -> Any:
    return ssd(*args, **{**options, "initial_states": None})


def forgets_its_window(*args: Any, **options: Any) -> Any:
    if "initial_states" not in options:
        return conv(*args, **options)
    return conv(*args, **{**options, "initial_states": torch.zeros_like(options["initial_states"])})


def loses_a_step(*args: Any, **options: Any) -> Any:
    y, state = scan(*args, **options)
    return y.roll(1, -1), state


def leaves_the_state(state: Tensor, *args: Any, **options: Any) -> Tensor:
    return scan_step(state.clone(), *args, **options)


@pytest.mark.parametrize(
    ("module", "name", "wrong", "n_wrong"),
    [
        ("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined", forgets_its_state, 3),
        ("causal_conv1d", "causal_conv1d_fn", forgets_its_window, 3),
        ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn", loses_a_step, 6),
        ("mamba_ssm.ops.triton.selective_state_update", "selective_state_update", leaves_the_state, 3),
    ],
)
def test_wrong_functions_do_not(
    modules: dict[str, Any], module: str, name: str, wrong: Any, n_wrong: int
) -> None:
    setattr(modules[module], name, wrong)
    findings = [measure(case) for case in official_cases("cpu") if case.kernel == name]
    assert sum(not found.passed for found in findings) == n_wrong


def test_a_package_that_is_absent_fails_its_own_cases_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    findings = [measure(case) for case in flash_cases("cpu")]
    assert all("ModuleNotFoundError" in found.detail and not found.passed for found in findings)


@needs_mamba_ssm
def test_the_official_packages_own_plain_versions_pass() -> None:
    found = run_beside(Path(__file__).with_name("official_cases_on_cpu.py"))
    assert found == {
        "selective_scan_fn": ["passed"] * 6,
        "selective_state_update": ["passed"] * 3,
        "mamba_chunk_scan_combined": ["NotImplementedError: it takes its arguments"] * 6,
    }
