"""State bytes by the specification against those walked over live states and caches of every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import hybrid1_config, hybrid_config, mamba_ssm_config, spread_weights
from mamba_ssm_code import needs_mamba_ssm, run_beside
from sized import SHAPES, build, registered, small
from transformers import PretrainedConfig

from mambabench.models import architecture
from mambabench.models.record import FP32_NAMES
from mambabench.models.step_hybrid import HybridSteps
from mambabench.models.steps import steps_for
from mambabench.registry import load_registry
from mambabench.sizes import ModelSizes, layout_for

_HEADS = {"causal": True, "num_heads": 4, "qkv_proj_bias": False, "out_proj_bias": False}
OFFICIAL: dict[str, dict[str, Any]] = {
    "mamba": mamba_ssm_config(ssm_cfg={"d_state": 8, "d_conv": 3, "expand": 3}),
    "mamba2": mamba_ssm_config(ssm_cfg={"layer": "Mamba2", "d_state": 16, "headdim": 8, "ngroups": 2}),
    "mamba2 beside an MLP": mamba_ssm_config(
        ssm_cfg={"layer": "Mamba2", "d_state": 16, "headdim": 8, "d_ssm": 48}
    ),
    "hybrid": hybrid_config(),
    "hybrid of Mamba-1": hybrid1_config(),
    "hybrid, other windows": hybrid_config(
        attn_layer_idx=[0, 2], attn_cfg={**_HEADS, "d_conv": 2, "num_heads_kv": 2, "rotary_emb_dim": 4}
    ),
    "transformer": mamba_ssm_config(
        attn_layer_idx=[0, 1], d_intermediate=100, attn_cfg={**_HEADS, "num_heads_kv": 2, "rotary_emb_dim": 8}
    ),
}  # fmt: skip
REAL = [
    "mamba-tiny", "pythia-tiny", "mamba-130m", "mamba-2.8b-hf", "mamba2-130m", "transformerpp-2.7b",
    "falcon-mamba-7b", "mamba-codestral-7b", "pythia-70m", "tinyllama-1.1b",
]  # fmt: skip


def cast(module: Any, dtype: str) -> Any:
    """Give the weights a dtype as the loader does."""
    for name, parameter in module.named_parameters():
        wanted = torch.float32 if name.rpartition(".")[2] in FP32_NAMES else getattr(torch, dtype)
        parameter.data = parameter.data.to(wanted)
    return module


def walked(value: Any) -> int:
    """Return the bytes of all tensors in an object's attributes, mappings and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(walked(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(walked(part) for part in value)
    return walked(vars(value)) if hasattr(value, "__dict__") else 0


def transformers_cache_bytes(module: Any, rows: int, length: int) -> int:
    """Return the bytes of transformers' cache after a prompt and, but on the meta device, one step."""
    ids = torch.zeros((rows, length), dtype=torch.long, device=module.device)
    stepped = 0 if module.device.type == "meta" else 1
    with torch.inference_mode():
        output = module(ids[:, stepped:], use_cache=True)
        name = "cache_params" if "cache_params" in output else "past_key_values"
        if stepped:
            module(ids[:, :1], use_cache=True, **{name: output[name]})
    return walked(output[name].layers)


def check_steps(steps: Any, sizes: ModelSizes, dtype: str) -> None:
    """Compare our own states after prompts and one step each."""
    layout = layout_for("mambabench", dtype)
    state = steps.step(torch.zeros(7, dtype=torch.long), [5, 2]).state
    state = steps.step(torch.zeros(2, dtype=torch.long), [1, 1], state).state
    assert state.lengths == (6, 3)
    want = [sizes.state_bytes(layout, length_tokens=n) for n in state.lengths]
    assert state.nbytes == sum(want)
    assert [state.select([row]).nbytes for row in (0, 1)] == want


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SHAPES)
def test_transformers_caches_and_our_states(name: str, dtype: str) -> None:
    shape = SHAPES[name]
    sizes = small(shape.to_dict())
    module = cast(build(shape, "cpu"), dtype)
    layout = layout_for("transformers", dtype)
    assert transformers_cache_bytes(module, 2, 7) == 2 * sizes.state_bytes(layout, length_tokens=7)
    steps = steps_for(module, vocab_size=shape.vocab_size)
    assert steps is not None
    check_steps(steps, sizes, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_our_states_of_mamba_ssms_models(name: str, dtype: str) -> None:
    config = OFFICIAL[name]
    sizes = small(config, "mamba_ssm")
    state = {
        key: t.to(torch.float32 if key.rpartition(".")[2] in FP32_NAMES else getattr(torch, dtype))
        for key, t in spread_weights(config).items()
    }
    assert sizes.weights_bytes(dtype) == walked(state)
    if not sizes.kv_in_fp32 and sizes.n_attention_layers:
        shape = architecture.from_native("mamba_ssm", config)
        assert shape is not None
        module = cast(build(shape, "cpu"), dtype)
        check_steps(steps_for(module, vocab_size=300), sizes, dtype)
        return
    check_steps(HybridSteps(config, state, vocab_size=300, dtype=getattr(torch, dtype)), sizes, dtype)


@pytest.mark.parametrize("name", REAL)
def test_transformers_caches_of_registered_models(name: str) -> None:
    spec, sizes = load_registry()[name], registered(name)
    shape: PretrainedConfig | None = architecture.from_native(spec.format, spec.config)
    assert shape is not None
    module = cast(build(shape), "bfloat16")
    parameters = {id(p): p for p in module.parameters()}
    assert sum(p.numel() for p in parameters.values()) == sizes.n_parameters
    assert walked(list(parameters.values())) == sizes.weights_bytes("bfloat16")
    layout = layout_for("transformers", "bfloat16")
    assert transformers_cache_bytes(module, 2, 3) == 2 * sizes.state_bytes(layout, length_tokens=3)


@pytest.mark.parametrize("name", ["mamba-130m", "mamba2-130m", "pythia-70m"])
def test_our_states_of_registered_models(name: str) -> None:
    spec, sizes = load_registry()[name], registered(name)
    shape = architecture.from_native(spec.format, spec.config)
    assert shape is not None
    with torch.random.fork_rng(devices=[]):
        module = cast(build(shape, "cpu"), "bfloat16")
    check_steps(steps_for(module, vocab_size=50277), sizes, "bfloat16")


@needs_mamba_ssm
def test_mamba_ssms_own_caches() -> None:
    published = {name: spec.config for name, spec in load_registry().items() if spec.format == "mamba_ssm"}
    script = Path(__file__).with_name("caches_on_meta.py")
    found = run_beside(script, stdin=OFFICIAL | published)
    assert set(found) == OFFICIAL.keys() | published.keys()
    layout = layout_for("mamba_ssm", "bfloat16")
    for name, config in (OFFICIAL | published).items():
        sizes = small(config, "mamba_ssm")
        assert found[name] == {
            "state_bytes": 2 * sizes.state_bytes(layout, length_tokens=11),
            "n_parameters": sizes.n_parameters,
        }, name
