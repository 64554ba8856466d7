"""mamba_ssm's own model with steps of ours over its weights: loaded, compared, and refused where it must be.

transformers' model under mamba_ssm's names stands in for mamba_ssm's, whose code is not everywhere;
`test_official.py` does the same with that code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import hybrid1_config, hybrid_config, tiny_hybrid, tiny_mamba, tiny_mamba2, tiny_mamba_ssm

from mambabench.errors import CheckpointError
from mambabench.models import architecture, convert, official, official_steps
from mambabench.models.certificate import measure
from mambabench.models.certificate_probe import make_probe, token_ids
from mambabench.models.load import check, load
from mambabench.models.plain_model import PlainModel
from mambabench.models.record import UNSHIPPED
from mambabench.registry import resolve

BUILDERS = {
    "mamba_ssm": lambda path: tiny_mamba_ssm(path, with_tokenizer=True),
    "mamba": tiny_mamba,
    "mamba2": tiny_mamba2,
}


class StandIn(torch.nn.Module):
    """What `MambaLMHeadModel` offers."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.config = SimpleNamespace()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return convert.to_mamba_ssm_state(self.inner.state_dict())

    def forward(
        self, input_ids: torch.Tensor, position_ids: Any = None, inference_params: Any = None,
        num_last_tokens: int = 0, **mixer_kwargs: Any,
    ) -> Any:  # fmt: skip
        assert not mixer_kwargs
        logits = self.inner(input_ids, use_cache=False).logits
        return SimpleNamespace(logits=logits[:, -num_last_tokens:])


@pytest.fixture(params=BUILDERS)
def plan(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the plan of a checkpoint as on a GPU where mamba_ssm is installed."""
    found = check(resolve(str(BUILDERS[request.param](tmp_path / "m"))), device="cpu")
    shape: Any = found.architecture

    def build(config: Any, state: Any, *, device: torch.device, dtype: torch.dtype) -> StandIn:
        kind: Any = architecture.model_class(shape)
        inner: Any = kind(shape)
        inner.load_state_dict(convert.to_transformers_state(state, config))
        return StandIn(inner.to(device, dtype).eval())

    monkeypatch.setattr(official, "build", build)
    return dataclasses.replace(found, implementation="mamba_ssm")


def test_steps_are_certified_against_mamba_ssms_forward(plan: Any) -> None:
    model: Any = load(plan)
    assert model.record.implementation == "mambabench HybridSteps over mamba_ssm MambaLMHeadModel"
    assert model.record.implementation != UNSHIPPED
    assert model.record.kernel_path == model.stateful.kernel_path == "mambabench compiled scan"
    record = measure(model)
    assert record.passed
    assert record.shipped_path == "mamba_ssm StandIn"
    assert record.reference.endswith(f"weights, of transformers {type(model.reference).__name__}")
    # A model that scans in chunks gets a row longer than one, whichever side's configuration says so.
    ids = token_ids(model.tokenizer, model.vocab_size)
    probe = make_probe(model, model.module, ids, reference=model.reference)
    assert (max(map(len, probe.rows)) > 128) == (plan.family == "mamba2")


def test_the_reference_and_the_steps_share_the_weights(plan: Any) -> None:
    model: Any = load(plan)
    ours = {tensor.data_ptr() for tensor in model.module.parameters()}
    assert {tensor.data_ptr() for tensor in model.reference.parameters()} == ours
    ids = torch.tensor([1, 2, 3])
    before = model.stateful.logits(model.stateful.step(ids, [3]).hidden)
    assert torch.allclose(before, model.logits(ids[None], 3)[0], atol=1e-4)
    model.module.inner.get_output_embeddings().weight.data.mul_(2)
    assert not torch.allclose(model.stateful.logits(model.stateful.step(ids, [3]).hidden), before)


def test_a_faulty_shipped_kernel_or_step_shows(plan: Any) -> None:
    model: Any = load(plan)
    # Steps over other weights than the shipped model's are another model.
    other: Any = load(plan)
    other.module.inner.backbone.layers[0].mixer.out_proj.weight.data.mul_(1.01)
    model.stateful = other.stateful
    assert not measure(model).passed


def test_as_shipped_has_no_steps(plan: Any) -> None:
    model: Any = load(dataclasses.replace(plan, engine="as-shipped"))
    assert model.stateful is model.reference is None
    assert model.record.implementation == "mamba_ssm MambaLMHeadModel"
    assert model.record.kernel_path == "mamba_ssm CUDA"


def test_without_kernels_it_runs_as_shipped(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_steps, "obstacle", lambda device: "triton is not installed")
    model: Any = load(plan)
    assert model.stateful is None
    assert model.record.kernel_path == "mamba_ssm CUDA"


class HybridStandIn(torch.nn.Module):
    """The same for what transformers does not know: a plain forward in the weights' own dtype."""

    def __init__(self, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.names = list(state)
        self.weights = torch.nn.ParameterList(
            torch.nn.Parameter(t, requires_grad=False) for t in state.values()
        )
        self._plain = PlainModel(config, self.state_dict())

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return dict(zip(self.names, self.weights, strict=True))

    def forward(self, input_ids: torch.Tensor, num_last_tokens: int = 0, **mixer_kwargs: Any) -> Any:
        assert not mixer_kwargs
        return self._plain(input_ids, logits_to_keep=num_last_tokens)


@pytest.fixture(params=["hybrid with Mamba-2", "hybrid with Mamba-1"])
def hybrid_plan(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the plan of a hybrid as on a GPU where mamba_ssm is installed."""
    config = hybrid_config() if request.param.endswith("2") else hybrid1_config()
    found = check(resolve(str(tiny_hybrid(tmp_path / "m", config))), device="cpu")

    def build(config: Any, state: Any, *, device: torch.device, dtype: torch.dtype) -> HybridStandIn:
        return HybridStandIn(config, {name: tensor.to(device) for name, tensor in state.items()})

    monkeypatch.setattr(official, "build", build)
    return dataclasses.replace(found, implementation="mamba_ssm")


def test_a_hybrid_is_certified_against_a_plain_forward(hybrid_plan: Any) -> None:
    model: Any = load(hybrid_plan)
    assert model.record.implementation == "mambabench HybridSteps over mamba_ssm MambaLMHeadModel"
    assert model.record.kernel_path == model.stateful.kernel_path
    record = measure(model)
    assert record.passed
    assert record.reference.endswith("over the same weights, of mambabench PlainModel")
    assert record.shipped_path == "mamba_ssm HybridStandIn"
    ours = {tensor.data_ptr() for tensor in model.module.parameters()}
    assert {t.data_ptr() for t in model.reference._state.values()} == ours
    ids = token_ids(model.tokenizer, model.vocab_size)
    probe = make_probe(model, model.module, ids, reference=model.reference)
    assert (max(map(len, probe.rows)) > 128) == (model.reference.config.chunk_size is not None)


@pytest.mark.parametrize("part", ["mixer.out_proj.weight", "mixer.in_proj.weight", "norm.weight"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_faulty_layer_of_a_hybrid_shows(hybrid_plan: Any, part: str, layer: int) -> None:
    model: Any = load(hybrid_plan)
    other: Any = load(hybrid_plan)
    state = dict(other.module.state_dict())
    state[f"backbone.layers.{layer}.{part}"].data.mul_(1.001)
    model.stateful = official_steps.steps_over(
        other.module, hybrid_plan.config, device=model.device, vocab_size=300, dtype=torch.float32
    )
    assert not measure(model).passed


def test_a_hybrid_as_shipped_has_no_steps(hybrid_plan: Any) -> None:
    model: Any = load(dataclasses.replace(hybrid_plan, engine="as-shipped"))
    assert model.stateful is model.reference is None
    assert model.record.kernel_path == "mamba_ssm CUDA"


def test_a_twin_that_lacks_weights_is_refused(plan: Any) -> None:
    model: Any = load(plan)
    state = dict(model.module.state_dict())
    state.pop("backbone.norm_f.weight")
    with pytest.raises(CheckpointError, match=r"lacks backbone\.norm_f\.weight"):
        official_steps.twin(
            SimpleNamespace(state_dict=lambda: state),  # type: ignore[arg-type]
            plan.config if plan.format == "mamba_ssm" else {"ssm_cfg": {}},
            plan.architecture,
        )
