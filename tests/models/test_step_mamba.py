"""Mamba-1 as a function of a state, against transformers' own forward of the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import N_ROWS, N_TOKENS, mamba_config
from transformers import FalconMambaConfig, FalconMambaForCausalLM, MambaForCausalLM

from mambabench.models.stateful import State
from mambabench.models.step_mamba import MambaSteps

FALCON = FalconMambaConfig(
    vocab_size=N_ROWS, hidden_size=32, state_size=8, num_hidden_layers=2, initializer_range=0.2,
    pad_token_id=0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
CASES: dict[str, Any] = {
    "mamba": lambda: MambaForCausalLM(mamba_config()),
    "biases": lambda: MambaForCausalLM(mamba_config(use_bias=True, use_conv_bias=False, conv_kernel=3)),
    "untied": lambda: MambaForCausalLM(mamba_config(tie_word_embeddings=False, time_step_rank=5)),
    "falcon_mamba": lambda: FalconMambaForCausalLM(FALCON),
}
ATOL = 2e-4


@pytest.fixture(scope="module", params=CASES)
def module(request: pytest.FixtureRequest) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        built: Any = CASES[request.param]().eval()
        # Biases start at zero, where forgetting them would not show.
        for name, parameter in built.named_parameters():
            if name.endswith("proj.bias") or "norm" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return built


@pytest.fixture(scope="module")
def steps(module: Any) -> MambaSteps:
    return MambaSteps(module, vocab_size=N_TOKENS)


def ids(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, N_TOKENS, (n,), generator=generator) for n in lengths]


def shipped(module: Any, row: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = module(row[None], use_cache=False).logits[0, :, :N_TOKENS].float()
    return logits


def test_rows_of_any_length_equal_the_shipped_forward(module: Any, steps: MambaSteps) -> None:
    rows = ids(17, 1, 64, 3)
    step = steps.step(torch.cat(rows), [len(r) for r in rows])
    logits = steps.logits(step.hidden)
    assert logits.shape == (85, N_TOKENS)
    for row, ours in zip(rows, logits.split([len(r) for r in rows]), strict=True):
        assert torch.allclose(ours, shipped(module, row), atol=ATOL)


@pytest.mark.parametrize("more", [1, 2, 7, 300])
def test_several_tokens_go_on_from_a_state(module: Any, steps: MambaSteps, more: int) -> None:
    prefixes, tails = ids(23, 5), ids(more, more, seed=1)
    state = steps.step(torch.cat(prefixes), [23, 5]).state
    assert state is not None
    logits = steps.logits(steps.step(torch.cat(tails), [more, more], state).hidden)
    for prefix, tail, ours in zip(prefixes, tails, logits.split(more), strict=True):
        whole = shipped(module, torch.cat([prefix, tail]))
        assert torch.allclose(ours, whole[len(prefix) :], atol=ATOL)


def test_one_prefix_serves_many_continuations(module: Any, steps: MambaSteps) -> None:
    (prefix,), tails = ids(40), ids(3, 9, 1, seed=1)
    state = steps.step(prefix, [40]).state
    assert state is not None
    before = state.snapshot()
    logits = steps.logits(steps.step(torch.cat(tails), [3, 9, 1], state.repeat(3)).hidden)
    for tail, ours in zip(tails, logits.split([3, 9, 1]), strict=True):
        assert torch.allclose(ours, shipped(module, torch.cat([prefix, tail]))[40:], atol=ATOL)
    for kept, was in zip(state.layers, before.layers, strict=True):
        assert all(torch.equal(v, was.tensors()[k]) for k, v in kept.tensors().items())


def test_a_step_leaves_its_state_alone_unless_it_may_have_it(steps: MambaSteps) -> None:
    (prefix,), (tail,) = ids(8), ids(4, seed=1)
    state = steps.step(prefix, [8]).state
    assert state is not None
    first = steps.step(tail, [4], state)
    second = steps.step(tail, [4], state, consume=True)
    assert torch.equal(first.hidden, second.hidden)


def test_a_row_does_not_depend_on_its_neighbours(steps: MambaSteps) -> None:
    rows = ids(30, 12, 45)
    together = steps.step(torch.cat(rows), [30, 12, 45]).hidden.split([30, 12, 45])
    for row, ours in zip(rows, together, strict=True):
        assert torch.allclose(steps.step(row, [len(row)]).hidden, ours, atol=1e-5)


def test_only_what_is_asked_for_is_returned(steps: MambaSteps) -> None:
    rows = ids(6, 4, 5)
    packed = torch.cat(rows)
    whole = steps.step(packed, [6, 4, 5])
    read = torch.tensor([14, 0, 7, 7])
    part = steps.step(packed, [6, 4, 5], read=read, keep=[2, 0])
    assert torch.allclose(part.hidden, whole.hidden[read], atol=1e-6)
    assert whole.state is not None
    assert part.state is not None
    assert part.state.lengths == (5, 6)
    for mine, all_rows in zip(part.state.layers, whole.state.select([2, 0]).layers, strict=True):
        assert all(torch.equal(v, all_rows.tensors()[k]) for k, v in mine.tensors().items())
    assert steps.step(packed, [6, 4, 5], keep=[]).state is None
    some = steps.logits(part.hidden, first=10, last=20)
    assert torch.allclose(some, steps.logits(part.hidden)[:, 10:20], atol=1e-5)


def test_states_of_several_calls_are_joined(steps: MambaSteps) -> None:
    rows, tails = ids(6, 9), ids(2, 3, seed=2)
    states = [steps.step(row, [len(row)]).state for row in rows]
    joined = State.concat([s for s in states if s is not None])
    assert joined.lengths == (6, 9)
    together = steps.step(torch.cat(tails), [2, 3], joined).hidden
    apart = [steps.step(t, [len(t)], s).hidden for t, s in zip(tails, states, strict=True)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


def test_fresh_rows_and_rows_that_go_on_share_a_call(steps: MambaSteps) -> None:
    rows, (tail,) = ids(6, 9), ids(4, seed=2)
    state = steps.step(torch.cat(rows), [6, 9]).state
    assert state is not None
    mixed = State.gather([(state, 1), (steps.start(1), 0), (state, 1), (state, 0)])
    assert mixed.lengths == (9, 0, 9, 6)
    found = steps.step(tail.repeat(4), [4] * 4, mixed).hidden.split(4)
    fresh, after = steps.step(tail, [4]).hidden, steps.step(tail.repeat(2), [4, 4], state).hidden.split(4)
    for ours, want in zip(found, [after[1], fresh, after[1], after[0]], strict=True):
        assert torch.allclose(ours, want, atol=1e-5)


def test_state_bytes_are_those_of_the_sizes(steps: MambaSteps) -> None:
    rows = ids(6, 9, 1)
    state = steps.step(torch.cat(rows), [6, 9, 1]).state
    assert state is not None
    assert state.nbytes == 3 * steps.state_size.fixed_bytes
    assert steps.state_size.bytes_per_token == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_lose_no_more_than_the_shipped_forward(dtype: torch.dtype) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        wide: Any = MambaForCausalLM(mamba_config(initializer_range=0.1)).eval()
    narrow: Any = MambaForCausalLM(wide.config).eval()
    narrow.load_state_dict(wide.state_dict())
    for name, parameter in narrow.named_parameters():
        if not name.endswith(("A_log", ".D")):
            parameter.data = parameter.data.to(dtype)
    wide.load_state_dict({k: v.float() for k, v in narrow.state_dict().items()})
    row = ids(100)[0]
    exact = shipped(wide, row)
    steps = MambaSteps(narrow, vocab_size=N_TOKENS)
    ours = (steps.logits(steps.step(row, [100]).hidden).float() - exact).square().mean().sqrt()
    theirs = (shipped(narrow, row) - exact).square().mean().sqrt()
    assert 0 < ours <= 1.5 * theirs


@pytest.mark.parametrize("lengths", [[3], [2, 3], [4, 0], []])
def test_lengths_that_do_not_fit_are_refused(steps: MambaSteps, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="row"):
        steps.step(ids(4)[0], lengths)
