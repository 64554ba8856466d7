"""What is said where mamba_ssm is installed and cannot be used: found out before anything is loaded."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_mamba_ssm

from mambabench.errors import ExtraMissingError
from mambabench.models import check as checking
from mambabench.models import official
from mambabench.models.check import check
from mambabench.registry import resolve


@dataclasses.dataclass
class Config:
    d_model: int = 8
    n_layer: int = 1


class Model:
    def __init__(self, config: Any) -> None:
        raise AssertionError("rotary requires flash_attn to be installed")

    def forward(self, input_ids: Any, num_last_tokens: int = 0) -> None: ...


class Fused(torch.nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.use_fast_path = self.use_mem_eff_path = True

    def forward(self, input_ids: Any, num_last_tokens: int = 0) -> None: ...

    def tie_weights(self) -> None: ...


class OldModel:
    def forward(self, input_ids: Any) -> None: ...


def install(
    monkeypatch: pytest.MonkeyPatch, *, model: type, inference: bool = True, convolution: str = ""
) -> None:
    """Put a package of this shape in the place of mamba_ssm."""
    parts: dict[str, dict[str, Any]] = {
        "mamba_ssm": {"__version__": "1.0.1"},
        "mamba_ssm.models": {},
        "mamba_ssm.models.mixer_seq_simple": {"MambaLMHeadModel": model},
        "mamba_ssm.models.config_mamba": {"MambaConfig": Config},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.selective_scan_interface": {"causal_conv1d_fn": None, convolution: len},
        "mamba_ssm.utils": {},
        "mamba_ssm.utils.generation": {"InferenceParams": object} if inference else {},
    }
    for name, attributes in parts.items():
        module = types.ModuleType(name)
        for attribute, value in attributes.items():
            setattr(module, attribute, value)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "pick_device", lambda text: "cuda:0")
    monkeypatch.setattr(official, "is_installed", lambda: True)


def refusal(directory: Path, monkeypatch: pytest.MonkeyPatch) -> ExtraMissingError:
    monkeypatch.setattr(checking, "tensor_shapes", lambda paths: pytest.fail("the weights were looked at"))
    with pytest.raises(ExtraMissingError) as caught:
        check(resolve(str(tiny_mamba_ssm(directory, with_tokenizer=True))))
    assert "`mambabench doctor --path official`" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    return caught.value


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("kind", [ImportError, OSError, RuntimeError])
def test_an_extension_that_does_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def broken(name: str) -> Any:
        raise kind("selective_scan_cuda.so: undefined symbol: _ZN3c105ErrorC2E\nand more lines")

    monkeypatch.setattr("mambabench.models.official.importlib.import_module", broken)
    said = refusal(tmp_path / "m", monkeypatch).message
    assert said.startswith("mamba-ssm is installed and does not import: ")
    assert said.endswith("undefined symbol: _ZN3c105ErrorC2E")


@pytest.mark.usefixtures("on_gpu")
def test_a_version_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, model=OldModel)
    assert (
        "mamba-ssm 1.0.1 is too old: it has no num_last_tokens"
        in refusal(tmp_path / "m", monkeypatch).message
    )
    install(monkeypatch, model=Model, inference=False)
    with pytest.raises(ExtraMissingError, match=r"has no InferenceParams\b"):
        official.require()
    install(monkeypatch, model=Model)
    official.require()


def test_a_version_that_does_not_know_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, model=Model)
    where: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    with pytest.raises(
        ExtraMissingError, match=r"mamba-ssm 1\.0\.1 does not know attn_cfg, attn_layer_idx of"
    ):
        official.build({"d_model": 8, "attn_layer_idx": [1], "attn_cfg": {}}, None, **where)
    with pytest.raises(ExtraMissingError, match="rotary requires flash_attn") as caught:
        official.build({"d_model": 8}, None, **where)
    assert "flash-attn" in caught.value.hint


@pytest.mark.parametrize("convolution", ["causal_conv1d_fwd_function", "causal_conv1d_cuda", "nothing"])
def test_without_a_convolution_nothing_is_fused_with_it(
    monkeypatch: pytest.MonkeyPatch, convolution: str
) -> None:
    install(monkeypatch, model=Fused, convolution=convolution)
    built: Any = official.build({}, None, device=torch.device("cpu"), dtype=torch.float32)
    there = convolution != "nothing"
    assert built.use_fast_path == built.use_mem_eff_path == there
    assert official.kernel_path(built) == ("mamba_ssm CUDA" if there else "mamba_ssm CUDA, not fused")
