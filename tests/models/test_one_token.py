"""Decoding by programs: rows of one token through all layers in one call give what longer rows give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from builders import N_TOKENS, mamba2_config, mamba_config
from torch import Tensor
from transformers import FalconMambaConfig, FalconMambaForCausalLM, Mamba2ForCausalLM, MambaForCausalLM

from mambabench.models.layers import FEW_ROWS, FewRows
from mambabench.models.one_token import MOST_ROWS
from mambabench.models.stateful import State
from mambabench.models.step_mamba import MambaSteps
from mambabench.models.step_mamba2 import Mamba2Steps

FALCON = FalconMambaConfig(
    vocab_size=N_TOKENS, hidden_size=32, state_size=8, num_hidden_layers=3, initializer_range=0.2,
    pad_token_id=0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
CASES: dict[str, Any] = {
    "mamba": lambda: MambaForCausalLM(mamba_config()),
    "biases": lambda: MambaForCausalLM(mamba_config(use_bias=True, use_conv_bias=False, conv_kernel=3)),
    "falcon": lambda: FalconMambaForCausalLM(FALCON),
    "mamba2": lambda: Mamba2ForCausalLM(mamba2_config()),
    "groups": lambda: Mamba2ForCausalLM(mamba2_config(n_groups=4, num_heads=8)),
    "odd": lambda: Mamba2ForCausalLM(
        mamba2_config(conv_kernel=2, state_size=5, num_heads=2, head_dim=48, expand=3, use_bias=True)
    ),
}
Steps = MambaSteps | Mamba2Steps
ATOL = 1e-4


def build(name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = CASES[name]()
        for parameter in module.parameters():
            # What starts as a constant would not show that it is used.
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return module.eval()


def steps_of(module: Any) -> Steps:
    kind = Mamba2Steps if module.config.model_type == "mamba2" else MambaSteps
    return kind(module, vocab_size=N_TOKENS)


@pytest.fixture(scope="module", params=list(CASES))
def steps(request: pytest.FixtureRequest) -> Steps:
    return steps_of(build(request.param))


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(0, N_TOKENS, (rows, length), generator=torch.Generator().manual_seed(rows))


def decoded(
    steps: Steps, ids: Tensor, state: State | None, *, consume: bool
) -> tuple[Tensor, Sequence[State]]:
    """Return the hidden rows [B, L, d] of ids [B, L] taken one token at a time, and the states after each."""
    hidden, states = [], []
    for column in ids.t():
        step = steps.step(column.contiguous(), [1] * len(ids), state, consume=consume)
        hidden.append(step.hidden)
        assert step.state is not None
        state = step.state
        states.append(state)
    return torch.stack(hidden, dim=1), states


def contents(state: State) -> list[Tensor]:
    return [tensor for layer in state.layers for tensor in layer.tensors().values()]


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, MOST_ROWS])
@pytest.mark.parametrize("consume", [True, False])
def test_token_by_token_equals_one_forward(steps: Steps, rows: int, consume: bool) -> None:
    ids = tokens(rows, 9)
    whole = steps.step(ids.flatten(), [9] * rows)
    hidden, states = decoded(steps, ids, None, consume=consume)
    assert torch.allclose(hidden.flatten(0, 1), whole.hidden, atol=ATOL)
    assert whole.state is not None
    assert states[-1].lengths == whole.state.lengths
    for ours, want in zip(contents(states[-1]), contents(whole.state), strict=True):
        assert torch.allclose(ours, want, atol=ATOL)


def test_only_few_rows_of_one_token_go_this_way(steps: Steps) -> None:
    way = steps._one_token
    assert way.takes([1] * MOST_ROWS)
    assert not way.takes([1] * (MOST_ROWS + 1))
    assert not way.takes([1, 2])


def test_more_rows_get_the_same(steps: Steps) -> None:
    ids = tokens(MOST_ROWS + 1, 2)
    many, _ = decoded(steps, ids, None, consume=False)
    some, _ = decoded(steps, ids[:3], None, consume=False)
    assert torch.allclose(many[:3], some, atol=ATOL)


def test_a_row_does_not_depend_on_its_neighbours(steps: Steps) -> None:
    ids = tokens(8, 4)
    together, _ = decoded(steps, ids, None, consume=True)
    alone, _ = decoded(steps, ids[3:4], None, consume=True)
    assert torch.equal(together[3:4], alone)


def test_states_that_are_not_given_up_stay_as_they_were(steps: Steps) -> None:
    state = steps.step(tokens(2, 6).flatten(), [6, 6]).state
    assert state is not None
    before = contents(state)
    first, _ = decoded(steps, tokens(2, 3), state, consume=False)
    for ours, want in zip(contents(state), before, strict=True):
        assert torch.equal(ours, want)
    # Siblings share their memory, so that nothing may be written there even if the state is given up.
    siblings = state.select([1, 0, 1])
    decoded(steps, tokens(3, 3), siblings, consume=True)
    for ours, want in zip(contents(state), before, strict=True):
        assert torch.equal(ours, want)
    again, _ = decoded(steps, tokens(2, 3), state, consume=True)
    assert torch.equal(first, again)


def test_fresh_rows_stand_beside_others(steps: Steps) -> None:
    (row,) = tokens(1, 6)
    state = steps.step(row, [6]).state
    assert state is not None
    mixed = State.gather([(steps.start(1), 0), (state, 0)])
    step = steps.step(row[:2].flip(0), [1, 1], mixed)
    fresh = steps.step(row[1:2], [1]).hidden
    went_on = steps.step(row[:1], [1], state).hidden
    assert torch.equal(step.hidden, torch.cat([fresh, went_on]))
    assert step.state is not None
    assert step.state.lengths == (1, 7)


def test_only_what_is_asked_for_is_returned(steps: Steps) -> None:
    ids = tokens(3, 1).flatten()
    whole = steps.step(ids, [1, 1, 1])
    part = steps.step(ids, [1, 1, 1], read=torch.tensor([2, 0, 2]), keep=[2, 1])
    assert torch.equal(part.hidden, whole.hidden[[2, 0, 2]])
    assert part.state is not None
    assert whole.state is not None
    for ours, want in zip(contents(part.state), contents(whole.state.select([2, 1])), strict=True):
        assert torch.equal(ours, want)
    assert steps.step(ids, [1, 1, 1], keep=[]).state is None


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_widened_without_loss(name: str, dtype: torch.dtype) -> None:
    narrow = build(name)
    for key, parameter in narrow.named_parameters():
        if not key.endswith(("A_log", ".D", "dt_bias")):
            parameter.data = parameter.data.to(dtype)
    wide = build(name)
    wide.load_state_dict({key: tensor.float() for key, tensor in narrow.state_dict().items()})
    ids = tokens(3, 5)
    ours, _ = decoded(steps_of(narrow), ids, None, consume=True)
    want, _ = decoded(steps_of(wide), ids, None, consume=True)
    assert torch.equal(ours, want)


class TestFewRows:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 4), (3, 3)])
    def test_it_gives_what_the_layers_give(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        wide = torch.nn.Sequential(torch.nn.Linear(1000, 1000), torch.nn.Linear(1000, 1004, bias=False))
        module = wide.to(dtype)
        x = torch.randn(*shape, 1000, generator=torch.Generator().manual_seed(0)).to(dtype)
        few_rows = FewRows(module)
        with torch.inference_mode():
            want = module(x)
            with few_rows.instead(x[..., 0].numel()):
                got = module(x)
            exact = module.double()(x.double())
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        assert (got - exact).square().mean() <= 1.5 * (want - exact).square().mean()

    def test_it_takes_the_place_of_large_plain_layers_for_a_while(self) -> None:
        large, small, own = torch.nn.Linear(1000, 1000), torch.nn.Linear(9, 9), torch.nn.Linear(1000, 1000)
        vars(own)["forward"] = torch.nn.functional.relu
        few_rows = FewRows(torch.nn.ModuleList([large, small, own]))
        for rows, is_taken in ((FEW_ROWS, True), (FEW_ROWS + 1, False), (1, False)):
            with few_rows.instead(rows):
                assert ("forward" in vars(large)) is is_taken
                assert "forward" not in vars(small)
                assert vars(own)["forward"] is torch.nn.functional.relu
            assert "forward" not in vars(large)

    @pytest.mark.parametrize("multiplies", [True, False])
    def test_16_bits_stay_with_a_processor_that_multiplies_them(
        self, multiplies: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mambabench.models.layers._multiplies", lambda dtype, device: multiplies)
        large = torch.nn.Linear(1000, 1000).bfloat16()
        for rows in (1, FEW_ROWS):
            with FewRows(torch.nn.ModuleList([large])).instead(rows):
                assert ("forward" in vars(large)) is not multiplies
