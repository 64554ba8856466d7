"""Hybrids of mamba_ssm that cannot be loaded, or not in the way asked for: one line each, in good time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import hybrid_config, spread_weights, tiny_hybrid

from mambabench.errors import CheckpointError, ExtraMissingError
from mambabench.models import check as checking
from mambabench.models.load import check, load
from mambabench.registry import resolve

HYBRID = hybrid_config()
_HEADS = {"causal": True, "num_heads": 4}
_MAMBA2 = HYBRID["ssm_cfg"]


def _fails(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(check(resolve(str(directory)), device="cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    name = "backbone.layers.1.mixer.conv1d.weight"
    state = spread_weights(HYBRID)
    for folder, wrong, said in (
        ("lacks", {k: v for k, v in state.items() if k != name}, f"lacks {name}"),
        ("odd", {**state, "backbone.odd": torch.zeros(1)}, "unknown backbone.odd"),
        ("shape", {**state, name: state[name][:, :, 1:]}, f"{name} is"),
    ):
        assert said in _fails(tiny_hybrid(tmp_path / folder, HYBRID, wrong))
    damaged = tiny_hybrid(tmp_path / "damaged")
    whole = (damaged / "pytorch_model.bin").read_bytes()
    (damaged / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in _fails(damaged)
    (damaged / "pytorch_model.bin").unlink()
    assert "weights" in _fails(damaged)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attn_cfg": {**_HEADS, "window": 3}}, "its attn_cfg has window"),
        ({"attn_cfg": {**_HEADS, "causal": False}}, "sees later tokens"),
        ({"attn_cfg": {"causal": True}}, "no num_heads"),
        ({"ssm_cfg": {**_MAMBA2, "d_sate": 3}}, "its ssm_cfg has d_sate"),
    ],
)
def test_an_unknown_forward_is_refused_before_weights_are_looked_at(
    tmp_path: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_hybrid(tmp_path, {**HYBRID, **changes}, spread_weights(HYBRID))
    monkeypatch.setattr(checking, "tensor_shapes", lambda paths: pytest.fail("the weights were looked at"))
    with pytest.raises(ExtraMissingError, match=said) as caught:
        check(resolve(str(tmp_path)), device="cpu")
    assert "this is a CPU run" in caught.value.message
    assert "--device cuda" in caught.value.hint


def test_as_shipped_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ExtraMissingError, match="shipped code is mamba-ssm") as caught:
        check(resolve(str(tiny_hybrid(tmp_path))), device="cpu", engine="as-shipped")
    assert "`--engine shared`" in caught.value.hint
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("config", [HYBRID, {**HYBRID, "attn_cfg": {"num_heads": 4}}])
def test_a_gpu_without_mamba_ssm_is_sent_where_it_runs(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "pick_device", lambda text: "cuda:0")
    monkeypatch.setattr("mambabench.models.official.is_installed", lambda: False)
    monkeypatch.setattr(checking, "kernels_obstacle", lambda device: "triton is not installed")
    ref = resolve(str(tiny_hybrid(tmp_path, config, spread_weights(HYBRID))))
    with pytest.raises(ExtraMissingError, match="mamba-ssm is not installed") as caught:
        check(ref)
    assert ("--device cpu" in caught.value.hint) == (config is HYBRID)
    assert ("triton is not installed" in caught.value.message) == (config is HYBRID)
    monkeypatch.setattr(checking, "kernels_obstacle", lambda device: None)
    with pytest.raises(ExtraMissingError, match="mamba-ssm is not installed") as caught:
        check(ref, engine="as-shipped")
    assert ("--engine shared" in caught.value.hint) == (config is HYBRID)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_adapters_have_no_module_to_be_merged_into(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = tiny_hybrid(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(base)})
    )
    torch.save({"a": torch.zeros(1)}, adapter / "adapter_model.bin")
    monkeypatch.setattr(checking, "pick_device", lambda text: device)
    monkeypatch.setattr("mambabench.models.official.is_installed", lambda: True)
    with pytest.raises(CheckpointError, match=r"adapter cannot be merged .* mixes attention"):
        check(resolve(str(adapter)))
