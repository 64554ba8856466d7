"""Steps over a state in place against those over states as values, and as a graph would repeat them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

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
from graph_on_tape import NotRecordable, record, taped_kernels
from torch import Tensor
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Mamba2ForCausalLM,
    MambaForCausalLM,
)

from mambabench.models.stateful import State, StatefulModel
from mambabench.models.static_attention import StaticAttention, StaticWindow
from mambabench.models.static_steps import StaticSteps, obstacle
from mambabench.models.step_attention import AttentionSteps
from mambabench.models.step_hybrid import HybridSteps
from mambabench.models.step_mamba import MambaSteps
from mambabench.models.step_mamba2 import Mamba2Steps

LENGTHS, NEW = [9, 4], 5
ROOM = 16
_HEADS = {"causal": True, "num_heads": 4, "qkv_proj_bias": False, "out_proj_bias": False}
_FALCON = FalconMambaConfig(
    vocab_size=N_ROWS, hidden_size=32, state_size=8, num_hidden_layers=2, initializer_range=0.2,
    pad_token_id=0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip


def seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build().eval()


def hybrid(config: dict[str, Any]) -> HybridSteps:
    return HybridSteps(config, spread_weights(config), vocab_size=N_TOKENS, dtype=torch.float32)


RECURRENT: dict[str, Callable[[], StatefulModel]] = {
    "mamba": lambda: MambaSteps(seeded(lambda: MambaForCausalLM(mamba_config())), vocab_size=N_TOKENS),
    "falcon_mamba": lambda: MambaSteps(seeded(lambda: FalconMambaForCausalLM(_FALCON)), vocab_size=N_TOKENS),
    "mamba2": lambda: Mamba2Steps(seeded(lambda: Mamba2ForCausalLM(mamba2_config())), vocab_size=N_TOKENS),
    "mamba2 of mamba_ssm": lambda: hybrid(hybrid_config(attn_layer_idx=[])),
}
ATTENDING: dict[str, Callable[[], StatefulModel]] = {
    "hybrid with windows": lambda: hybrid(hybrid_config()),
    "hybrid of Mamba-1": lambda: hybrid(hybrid1_config()),
    "all of attention": lambda: hybrid(
        hybrid_config(
            attn_layer_idx=[0, 2],
            attn_cfg={
                **_HEADS, "num_heads_kv": 2, "softmax_scale": 0.2, "mlp_dim": 128, "rotary_emb_dim": 4,
                "rotary_emb_interleaved": True, "rotary_emb_base": 100.0, "d_conv": 2,
            },
        )
    ),
    "attention alone": lambda: hybrid(
        mamba_ssm_config(attn_layer_idx=[0, 1], d_intermediate=100, attn_cfg={**_HEADS, "num_heads_kv": 2})
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=[*RECURRENT, *ATTENDING])
def model(request: pytest.FixtureRequest) -> Iterator[StatefulModel]:
    with taped_kernels():
        yield (RECURRENT | ATTENDING)[request.param]()


def ids_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, N_TOKENS, shape, generator=torch.Generator().manual_seed(seed))


def begun(model: StatefulModel, state: State | None = None, seed: int = 0, room: int = ROOM) -> State:
    """Return the state after prompts of `LENGTHS`."""
    state = model.start(len(LENGTHS)).reserve(room) if state is None else state
    done = model.step(ids_of(sum(LENGTHS), seed=seed), LENGTHS, state, consume=True)
    assert done.state is not None
    return done.state


def by_values(model: StatefulModel, tokens: Tensor, seed: int = 0) -> list[Tensor]:
    """Return the hidden rows of tokens [n, rows] after the prompts, as the model's own steps give them."""
    state: State | None = begun(model, seed=seed)
    found = []
    for ids in tokens:
        done = model.step(ids, [1] * len(ids), state)
        found.append(done.hidden)
        state = done.state
    return found


def assert_same(model: StatefulModel, got: list[Tensor], want: list[Tensor]) -> None:
    """Equal to the last bit, but for attention: it sums over masked columns as well, in another order."""
    tolerance = 1e-5 if model.state_size.bytes_per_token else 0.0
    for ours, theirs in zip(got, want, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_steps_in_place_equal_steps_over_values(model: StatefulModel) -> None:
    tokens = ids_of(NEW, len(LENGTHS), seed=1)
    steps = StaticSteps(model, begun(model))
    addresses = [t.data_ptr() for t in steps.tensors()]
    assert addresses
    assert_same(model, [steps.step(ids).clone() for ids in tokens], by_values(model, tokens))
    # Other prompts, and back again: nothing of what was before is left, nor has anything moved.
    for seed in (7, 0):
        steps.load(begun(model, steps.emptied(), seed=seed))
        got = [steps.step(ids).clone() for ids in tokens]
        assert_same(model, got, by_values(model, tokens, seed=seed))
    assert [t.data_ptr() for t in steps.tensors()] == addresses


def test_what_a_graph_repeats_is_right_for_every_token(model: StatefulModel) -> None:
    """The recorded launches alone, over other prompts than those of the recording."""
    steps = StaticSteps(model, begun(model, seed=5))
    ids, hidden = ids_of(len(LENGTHS), seed=9), torch.empty(0)

    def step() -> None:
        nonlocal hidden
        hidden = steps.step(ids)

    with torch.inference_mode():
        replay = record(step)
    tokens = ids_of(NEW, len(LENGTHS), seed=1)
    want = by_values(model, tokens)
    steps.load(begun(model, steps.emptied()))
    saved = steps.saved()
    for _ in range(2):
        got = []
        for new in tokens:
            ids.copy_(new)
            replay()
            got.append(hidden.clone())
        assert_same(model, got, want)
        steps.restore(saved)


def test_sizes_are_those_of_the_architecture_with_the_room(model: StatefulModel) -> None:
    steps = StaticSteps(model, begun(model))
    size = model.state_size
    assert steps.nbytes == len(LENGTHS) * (size.fixed_bytes + ROOM * size.bytes_per_token)
    # Parts of a row's memory may begin at multiples of some numbers.
    assert steps.nbytes <= sum(t.numel() * t.element_size() for t in steps.tensors()) < 1.5 * steps.nbytes


def test_keys_of_prompts_are_written_in_place_once() -> None:
    """Also when a prompt is forwarded in pieces, and when it is a single token."""
    model = ATTENDING["hybrid of Mamba-1"]()
    steps = StaticSteps(model, begun(model))
    (keys, _) = steps.tensors()[-2:]
    for length, cuts in ((8, (3, 5)), (1, (1,)), (6, (1, 1, 4))):
        prompts, tokens = ids_of(2, length, seed=length), ids_of(3, 2, seed=2)
        whole = model.step(prompts.flatten(), [length] * 2).state
        want = []
        for new in tokens:
            done = model.step(new, [1, 1], whole)
            want.append(done.hidden)
            whole = done.state
        with torch.inference_mode():
            keys.fill_(1e3)
        state = steps.emptied()
        for part in prompts.split(cuts, dim=1):
            state = model.step(part.flatten(), [part.shape[1]] * 2, state, consume=True).state
        assert state is not None
        assert not (keys[:, :, :length] == 1e3).any()
        assert (keys[:, :, length:] == 1e3).all()
        steps.load(state)
        assert_same(model, [steps.step(new) for new in tokens], want)


def test_a_state_that_would_move_is_refused() -> None:
    mamba, mixed = RECURRENT["mamba"](), ATTENDING["hybrid with windows"]()
    shared = begun(mamba)
    steps = StaticSteps(mamba, shared.select([0, 1]))
    with pytest.raises(RuntimeError, match="MambaSteps moved its state"):
        steps.step(ids_of(2))
    with pytest.raises(ValueError, match="room must be reserved"):
        StaticSteps(mixed, begun(mixed).select([1, 0]))
    steps = StaticSteps(mixed, begun(mixed))
    with pytest.raises(ValueError, match="not where these steps have theirs"):
        steps.load(begun(mixed))


def test_models_with_growing_caches_are_refused() -> None:
    shape = GPTNeoXConfig(
        vocab_size=N_ROWS, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    steps = AttentionSteps(seeded(lambda: GPTNeoXForCausalLM(shape)), vocab_size=N_TOKENS)
    assert obstacle(steps) == "AttentionSteps keeps keys and values that move as they grow"
    with pytest.raises(ValueError, match="move as they grow"):
        StaticSteps(steps, begun(steps))
    attention: Any = StaticAttention([1], torch.device("cpu"))
    x = torch.ones(2, 1, 4)
    with pytest.raises(ValueError, match="not a window"):
        attention(x, x, x, None, scaling=None, window=3)


def test_a_window_convolves_as_over_the_whole_row() -> None:
    generator = torch.Generator().manual_seed(0)
    x, taps, bias = (torch.randn(*s, generator=generator) for s in ((2, 9, 5), (4, 5), (5,)))
    window = StaticWindow(x[:, :3].clone())
    got = torch.stack([window.convolved(x[:, t], taps, bias) for t in range(3, 9)], dim=1)
    want = torch.nn.functional.conv1d(x.double().mT, taps.double().T[:, None], bias.double(), groups=5).mT
    assert (got - want).abs().max() < 1e-6
    assert torch.equal(window.inputs, x[:, -3:])


@pytest.mark.parametrize("name", ["mamba", "hybrid with windows"])
def test_steps_over_values_could_not_be_recorded(name: str) -> None:
    """The tape shows it: a step of this kind makes new states, or counts on the host."""
    with taped_kernels():
        model = (RECURRENT | ATTENDING)[name]()
        state, ids, hidden = begun(model), ids_of(2, seed=1), torch.empty(0)

        def step() -> None:
            nonlocal hidden, state
            done = model.step(ids, [1, 1], state)
            hidden, state = done.hidden, done.state or state

        with torch.inference_mode():
            try:
                replay = record(step)
            except NotRecordable:
                return
        want = by_values(model, torch.stack([ids] * 6))
        replay()
        replay()
    assert not torch.allclose(hidden, want[-1], atol=1e-4)
