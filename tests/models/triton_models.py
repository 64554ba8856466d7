"""Whole models on a GPU's kernels, in Triton's interpreter, against the same models on the CPU's kernels.

`kernels/gpu/test_triton.py` runs this in a process of its own, see `kernels/gpu/triton_interpreted.py`; the
tests for a GPU borrow the models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    N_ROWS,
    N_TOKENS,
    hybrid1_config,
    hybrid_config,
    mamba2_config,
    mamba_config,
    mamba_ssm_config,
    spread_weights,
)
from transformers import FalconMambaConfig, FalconMambaForCausalLM, Mamba2ForCausalLM, MambaForCausalLM

from mambabench.kernels.gpu import layout
from mambabench.kernels.gpu.triton_kernels import TritonKernels
from mambabench.models import one_token, step_hybrid, step_mamba, step_mamba2
from mambabench.models.stateful import StatefulModel, bytes_of
from mambabench.scoring.budget import Fit
from mambabench.scoring.questions import Questions
from mambabench.scoring.requests import LoglikelihoodRequest
from mambabench.scoring.shared import SharedScorer
from mambabench.scoring.trie_inputs import Bools, Int64s

Build = Callable[[torch.dtype, str], StatefulModel]
FALCON = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "initializer_range": 0.2}


def over(steps: Any, module: Any) -> Build:
    """Return what makes steps over a module's weights in a dtype on a device."""

    def make(dtype: torch.dtype, device: str) -> StatefulModel:
        made: StatefulModel = steps(module.to(device, dtype), vocab_size=N_TOKENS)
        return made

    return make


def hybrid(config: dict[str, Any]) -> Build:
    def make(dtype: torch.dtype, device: str) -> StatefulModel:
        state = {name: tensor.to(device) for name, tensor in spread_weights(config).items()}
        return step_hybrid.HybridSteps(config, state, vocab_size=N_TOKENS, dtype=dtype)

    return make


def seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build().eval()


MODELS: dict[str, Callable[[], Build]] = {
    "mamba": lambda: over(step_mamba.MambaSteps, seeded(lambda: MambaForCausalLM(mamba_config()))),
    "falcon_mamba": lambda: over(
        step_mamba.MambaSteps,
        seeded(
            lambda: FalconMambaForCausalLM(
                FalconMambaConfig(vocab_size=N_ROWS, pad_token_id=0, bos_token_id=0, eos_token_id=0, **FALCON)
            )
        ),
    ),
    "mamba2": lambda: over(
        step_mamba2.Mamba2Steps, seeded(lambda: Mamba2ForCausalLM(mamba2_config(num_heads=2, head_dim=32)))
    ),
    "hybrid": lambda: hybrid(
        hybrid_config(ssm_cfg={"layer": "Mamba2", "d_state": 16, "headdim": 32}, n_layer=2)
    ),
    "hybrid of Mamba-1": lambda: hybrid(hybrid1_config()),
}
RECURRENT = {
    "mamba": MODELS["mamba"],
    "mamba2": MODELS["mamba2"],
    "mamba_ssm's Mamba": lambda: hybrid(mamba_ssm_config()),
    "mamba_ssm's Mamba-2": lambda: hybrid(
        mamba_ssm_config(ssm_cfg={"layer": "Mamba2", "d_state": 16, "headdim": 32})
    ),
}


@pytest.fixture(autouse=True)
def no_program_for_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a GPU one token a row goes through the kernels; here, where weights are a CPU's, it would not.
    monkeypatch.setattr(one_token, "MOST_ROWS", 0)


every_model = pytest.mark.parametrize("name", MODELS)
# One of each family: the interpreter is slow.
some_models = pytest.mark.parametrize("name", ["mamba", "mamba2", "hybrid"])


def on_triton(build: Build, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> StatefulModel:
    """Return the model as it is made on a GPU, but over the CPU's memory."""
    with monkeypatch.context() as patch:
        for module in (step_mamba, step_mamba2, step_hybrid):
            patch.setattr(module, "kernels_for", lambda device, dtype: TritonKernels(dtype))
        model = build(dtype, "cpu")
    assert "Triton" in model.kernel_path
    return model


def forwards(model: StatefulModel) -> list[torch.Tensor]:
    """Return logits of rows from the start, of rows that go on from shared states, and of single tokens."""
    generator = torch.Generator().manual_seed(0)

    def ids(n: int) -> torch.Tensor:
        return torch.randint(0, N_TOKENS, (n,), generator=generator).to(model.device)

    first = model.step(ids(7), [6, 1])
    assert first.state is not None
    before = first.state.snapshot()
    fork = first.state.select([0, 0, 1])
    second = model.step(ids(4), [1, 2, 1], fork, read=torch.tensor([0, 3], device=model.device), keep=[2, 0])
    for layer, kept in zip(first.state.layers, before.layers, strict=True):
        for name, tensor in layer.tensors().items():
            assert torch.equal(tensor, kept.tensors()[name]), "a state that others share was written to"
    found = [model.logits(first.hidden), model.logits(second.hidden)]
    last = model.step(ids(2), [1, 1], second.state, consume=True)
    found.append(model.logits(last.hidden))
    return [logits.float().cpu() for logits in found]


@every_model
def test_logits_equal_those_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = MODELS[name]()
    want = forwards(build(torch.float32, "cpu"))
    got = forwards(on_triton(build, torch.float32, monkeypatch))
    # Sums are taken in other orders.
    for ours, theirs in zip(got, want, strict=True):
        assert (ours - theirs).abs().max() <= 5e-6 * theirs.abs().max()


@some_models
def test_16_bits_err_about_as_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = MODELS[name]()
    want = torch.cat(forwards(build(torch.float32, "cpu")))
    narrow = torch.cat(forwards(build(torch.bfloat16, "cpu")))
    got = torch.cat(forwards(on_triton(build, torch.bfloat16, monkeypatch)))
    rms, ours = ((x - want).square().mean().sqrt() for x in (narrow, got))
    # Activations are rounded between the products, too, as mamba_ssm's and transformers' are; here the
    # interpreter cuts them off, which doubles each rounding.
    assert ours <= 2.5 * rms


@every_model
def test_states_are_float32_and_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = MODELS[name]()
    model = on_triton(build, torch.bfloat16, monkeypatch)
    state = model.step(torch.arange(7), [4, 3]).state
    assert state is not None
    assert {t.dtype for layer in state.layers for t in layer.tensors().values()} <= {
        torch.float32, torch.int64,
    }  # fmt: skip
    size = model.state_size
    assert bytes_of([state]) == 2 * size.fixed_bytes + 7 * size.bytes_per_token
    # Attention layers and MLPs count as in 32 bits.
    assert model.activation_bytes_per_token <= build(torch.float32, "cpu").activation_bytes_per_token


@pytest.mark.parametrize("name", RECURRENT)
def test_a_step_like_the_last_needs_nothing_from_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = RECURRENT[name]()
    ours, theirs = on_triton(build, torch.float32, monkeypatch), build(torch.float32, "cpu")
    sends: list[int] = []
    plain = layout.sent

    def sent(array: Any, device: torch.device) -> torch.Tensor:
        sends.append(array.nbytes)
        return plain(array, device)

    monkeypatch.setattr(layout, "sent", sent)
    state, want = (model.step(torch.arange(5), [4, 1]).state for model in (ours, theirs))
    assert len(sends) == 1
    for token in range(4):
        assert state is not None
        assert want is not None
        memory = next(iter(state.layers[0].named.values())).memory  # type: ignore[attr-defined]
        step = ours.step(torch.tensor([token, 7]), [1, 1], state, consume=True)
        slow = theirs.step(torch.tensor([token, 7]), [1, 1], want)
        assert (step.hidden - slow.hidden).abs().max() <= 5e-6 * slow.hidden.abs().max()
        state, want = step.state, slow.state
        assert state is not None
        # The rows' new lengths are sent with the first of the steps, the rows' addresses are there.
        assert len(sends) == 2
        for layer in state.layers:
            assert {rows.memory for rows in layer.named.values()} == {memory}  # type: ignore[attr-defined]


def answers(model: StatefulModel) -> list[tuple[float, bool]]:
    """Return the engine's answers to questions that share a context."""
    contexts = [[5, 6, 7, 8, 9], [40]]
    ends = [[1, 2], [3]]
    requests = [LoglikelihoodRequest(tuple(c), tuple(e)) for c in contexts for e in ends]
    questions = Questions.of(requests)
    fit = Fit.within(64 << 20, activation_bytes_per_token=4096, vocab_size=N_TOKENS, on_gpu=False)
    scorer = SharedScorer(
        model, max_length=64, fit=fit, batch_size=None, split_tokens=0.5, note=lambda text: None
    )
    wanted: Bools = np.ones(len(requests), np.bool_)
    spent: Int64s = np.zeros(len(requests), np.int64)
    found = dict(pair for some in scorer.score(questions, wanted, spent) for pair in some)
    return [(found[i].logprob, found[i].is_greedy) for i in range(len(requests))]


@some_models
def test_the_engine_answers_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = MODELS[name]()
    want = answers(build(torch.float32, "cpu"))
    got = answers(on_triton(build, torch.float32, monkeypatch))
    assert [greedy for _, greedy in got] == [greedy for _, greedy in want]
    assert [value for value, _ in got] == pytest.approx([value for value, _ in want], abs=1e-3)
