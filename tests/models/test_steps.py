"""Which code runs a model as a function of a state, and what the record says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import mamba_config, tiny_llama, tiny_mamba, tiny_mamba2, tiny_neox
from transformers import JambaConfig, JambaForCausalLM, MambaForCausalLM

from mambabench.kernels.packed import CpuKernels
from mambabench.models.load import check, load
from mambabench.models.steps import steps_for
from mambabench.registry import resolve

FAMILIES = {
    "MambaSteps": (tiny_mamba, "mambabench compiled scan"),
    "Mamba2Steps": (tiny_mamba2, "mambabench compiled scan"),
    "AttentionSteps": (tiny_neox, "torch sdpa, packed"),
}


def loaded(path: Path, **how: Any) -> Any:
    return load(check(resolve(str(path)), device="cpu", **how))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_record_names_the_code(tmp_path: Path, name: str, dtype: str) -> None:
    build, kernel_path = FAMILIES[name]
    model = loaded(build(tmp_path / "m"), dtype=dtype)
    assert type(model.stateful).__name__ == name
    assert model.record.implementation == f"mambabench {name}"
    assert model.record.kernel_path == model.stateful.kernel_path == kernel_path
    assert model.stateful.dtype == getattr(torch, dtype)


def test_as_shipped_is_as_shipped(tmp_path: Path) -> None:
    path = tiny_mamba(tmp_path / "m")
    shared = check(resolve(str(path)), device="cpu")
    shipped = check(resolve(str(path)), device="cpu", engine="as-shipped")
    # Answers of one engine are not taken for those of the other.
    assert shared.fingerprint != shipped.fingerprint
    model: Any = load(shipped)
    assert model.stateful is None
    assert model.record.implementation == "transformers MambaForCausalLM"
    assert model.record.kernel_path == "transformers torch loop"


def test_weights_are_shared(tmp_path: Path) -> None:
    for build in (tiny_mamba, tiny_mamba2, tiny_llama):
        model = loaded(build(tmp_path / build.__name__))
        ids = torch.tensor([1, 2, 3])
        before = model.stateful.logits(model.stateful.step(ids, [3]).hidden)
        model.module.get_output_embeddings().weight.data.mul_(2)
        after = model.stateful.logits(model.stateful.step(ids, [3]).hidden)
        assert not torch.allclose(before, after)


def test_what_there_is_no_code_for_runs_as_shipped() -> None:
    odd = MambaForCausalLM(mamba_config(hidden_act="gelu"))
    assert steps_for(odd, vocab_size=300) is None
    jamba = JambaForCausalLM(
        JambaConfig(
            vocab_size=304, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, use_mamba_kernels=False, mamba_d_state=8, mamba_dt_rank=4, num_experts=1,
            attn_layer_period=2, attn_layer_offset=1,
        )
    )  # fmt: skip
    assert steps_for(jamba, vocab_size=300) is None


def test_a_device_without_kernels_runs_a_mamba_as_shipped() -> None:
    with torch.device("meta"):
        nowhere = MambaForCausalLM(mamba_config())
    assert steps_for(nowhere, vocab_size=300) is None


def test_a_gpu_with_kernels_runs_a_mamba_from_states(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def kernels(device: torch.device, dtype: torch.dtype) -> CpuKernels:
        asked.append((device.type, dtype))
        return CpuKernels()

    # What is on no device at all stands for a GPU: nothing is computed.
    monkeypatch.setattr("mambabench.models.steps.obstacle", lambda device: None)
    monkeypatch.setattr("mambabench.models.step_mamba.kernels_for", kernels)
    with torch.device("meta"):
        on_gpu = MambaForCausalLM(mamba_config()).bfloat16()
    found: Any = steps_for(on_gpu, vocab_size=300)
    assert asked == [("meta", torch.bfloat16)]
    assert found.device.type == "meta"
    assert not found._one_token.takes([1, 1]), "the program for one token is a CPU's"
