from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from builders import tiny_mamba, tiny_neox
from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

from mambabench.models import kernel_paths
from mambabench.models.load import check, load
from mambabench.registry import resolve

MODULE = "transformers.models.mamba.modeling_mamba"


@pytest.fixture
def cuda_kernels() -> Iterator[list[str]]:
    """Pretend that mamba_ssm was there when transformers was imported; its scan notes its calls."""
    calls: list[str] = []
    module: Any = importlib.import_module(MODULE)
    before = vars(module)["mamba_selective_scan"]
    torch_function = before
    while hasattr(torch_function, "__wrapped__"):
        torch_function = torch_function.__wrapped__

    def selective_scan_fn(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append("cuda")
        return torch.zeros(1)

    package: Any = types.ModuleType("mamba_ssm")
    package.selective_scan_fn = selective_scan_fn
    submodules = ("ops", "ops.selective_scan_interface")
    names = {"mamba_ssm": package} | {f"mamba_ssm.{name}": types.ModuleType(name) for name in submodules}
    names["mamba_ssm.ops.selective_scan_interface"].selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setitem(sys.modules, name, value)
        wrapped = use_kernel_func_from_hub_with_fallback("selective_scan_fn", "mamba_ssm")(torch_function)
    module.mamba_selective_scan = wrapped
    yield calls
    module.mamba_selective_scan = before


def test_a_cpu_run_stays_on_torch_when_kernels_are_installed(tmp_path: Path, cuda_kernels: list[str]) -> None:
    directory = tiny_mamba(tmp_path / "m")
    # Only as shipped does a Mamba run transformers' code at all.
    model: Any = load(check(resolve(str(directory)), device="cpu", engine="as-shipped"))
    ids = torch.tensor([[1, 2, 3, 4]])
    logits = model.logits(ids, 4)
    assert torch.isfinite(logits).all()
    assert cuda_kernels == []
    assert model.record.kernel_path == "transformers torch loop"
    assert kernel_paths.kernel_path(model.module, "cuda") == "mamba_ssm CUDA"


def test_cuda_tensors_still_reach_the_kernels(tmp_path: Path, cuda_kernels: list[str]) -> None:
    load(check(resolve(str(tiny_mamba(tmp_path / "m"))), device="cpu"))
    scan: Any = vars(importlib.import_module(MODULE))["mamba_selective_scan"]

    class OnCuda:
        is_cuda = True
        dtype = torch.bfloat16

    scan(OnCuda(), dt=None)
    assert cuda_kernels == ["cuda"]


def test_the_reference_in_64_bits_never_reaches_the_kernels(tmp_path: Path, cuda_kernels: list[str]) -> None:
    load(check(resolve(str(tiny_mamba(tmp_path / "m"))), device="cpu"))
    scan: Any = vars(importlib.import_module(MODULE))["mamba_selective_scan"]

    class OnCuda:
        is_cuda = True
        dtype = torch.float64

    # torch's own function takes real tensors only, and says so.
    with pytest.raises((AttributeError, TypeError)):
        scan(OnCuda())
    assert cuda_kernels == []


def test_it_is_done_once(tmp_path: Path) -> None:
    directory = tiny_mamba(tmp_path / "m")
    load(check(resolve(str(directory)), device="cpu"))
    module: Any = importlib.import_module(MODULE)
    first = module.mamba_selective_scan
    load(check(resolve(str(directory)), device="cpu"))
    assert module.mamba_selective_scan is first


def test_a_transformer_is_left_alone(tmp_path: Path) -> None:
    model: Any = load(check(resolve(str(tiny_neox(tmp_path / "m"))), device="cpu"))
    kernel_paths.keep_cpu_on_torch(model.module)
    assert kernel_paths.kernel_path(model.module, "cpu") == "torch sdpa"


JAMBA: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "mamba_d_state": 8, "mamba_dt_rank": 4, "num_experts": 2,
    "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
    "vocab_size": 16,
}  # fmt: skip
BAMBA: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16,
    "attn_layer_indices": [1], "vocab_size": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "own"),
    [("Jamba", JAMBA, "transformers torch loop"), ("Bamba", BAMBA, "transformers torch chunks")],
)
def test_a_hybrid_has_two_paths(
    name: str, options: dict[str, Any], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**options))
    model.set_attn_implementation("sdpa")
    assert kernel_paths.kernel_path(model, "cpu") == f"{own} and torch sdpa"
    monkeypatch.setattr(kernel_paths, "_is_replaced", lambda function: True)
    assert kernel_paths.kernel_path(model, "cuda") == "mamba_ssm CUDA and torch sdpa"
    model.set_attn_implementation("eager")
    assert kernel_paths.kernel_path(model, "cpu") == f"{own} and torch eager"


def test_a_hybrid_of_attention_alone_has_one() -> None:
    config = transformers.BambaConfig(**{**BAMBA, "attn_layer_indices": [0, 1]})
    with torch.device("meta"):
        model = transformers.BambaForCausalLM(config)
    model.set_attn_implementation("sdpa")
    assert kernel_paths.kernel_path(model, "cpu") == "torch sdpa"
