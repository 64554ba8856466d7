"""Recurrent states by reference: branches share memory, and none ever sees another's tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import N_TOKENS, mamba2_config, mamba_config
from transformers import Mamba2ForCausalLM, MambaForCausalLM

from mambabench.models.stateful import State, bytes_of
from mambabench.models.step_mamba import MambaSteps
from mambabench.models.step_mamba2 import Mamba2Steps

Steps = MambaSteps | Mamba2Steps


@pytest.fixture(scope="module", params=["mamba", "mamba2"])
def steps(request: pytest.FixtureRequest) -> Steps:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        if request.param == "mamba":
            return MambaSteps(MambaForCausalLM(mamba_config()), vocab_size=N_TOKENS)
        return Mamba2Steps(Mamba2ForCausalLM(mamba2_config()), vocab_size=N_TOKENS)


def tokens(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, N_TOKENS, (n,), generator=torch.Generator().manual_seed(seed))


def begun(steps: Steps, *lengths: int, seed: int = 0) -> State:
    state = steps.step(tokens(sum(lengths), seed), lengths).state
    assert state is not None
    return state


def memory(state: State) -> set[int]:
    return {address for layer in state.layers for address in layer.storages()}


def values(state: State) -> list[torch.Tensor]:
    return [tensor for layer in state.layers for tensor in layer.tensors().values()]


def same(a: State, b: State) -> bool:
    return a.lengths == b.lengths and all(map(torch.equal, values(a), values(b)))


def row_bytes(steps: Steps) -> int:
    return steps.state_size.fixed_bytes


def test_branches_take_no_memory(steps: Steps) -> None:
    one, two = begun(steps, 5, 3), begun(steps, 4, seed=1)
    siblings = one.repeat(4)
    assert siblings.nbytes == one.nbytes == 2 * row_bytes(steps)
    assert memory(siblings) == memory(one)
    mixed = State.gather([(two, 0), (one, 1), (steps.start(1), 0), (one, 1)])
    assert mixed.lengths == (4, 3, 0, 3)
    assert mixed.nbytes == 2 * row_bytes(steps)
    assert memory(State.concat([one, two])) == memory(one) | memory(two)
    assert steps.start(1000).nbytes == 0


def test_a_row_alone_keeps_its_own_memory_only(steps: Steps) -> None:
    state = begun(steps, 5, 3, 2, 7)
    assert state.select([2]).nbytes == row_bytes(steps)
    kept = steps.step(tokens(8, 1), [2] * 4, state, keep=[3, 1]).state
    assert kept is not None
    assert kept.nbytes == 2 * row_bytes(steps)
    assert not memory(kept) & memory(state)


@pytest.mark.parametrize(
    "branch",
    [
        lambda state: state.select([1, 0, 2]),
        lambda state: State.gather([(state, i) for i in range(3)]),
        lambda state: State.concat([state.select([0, 1]), state.select([2])]),
        lambda state: state.to("cpu"),
    ],
)
def test_giving_up_a_branch_leaves_the_rest(steps: Steps, branch: Any) -> None:
    state = begun(steps, 5, 3, 2)
    copy = state.snapshot()
    assert not memory(copy) & memory(state)
    for _ in range(2):
        given = branch(state)
        steps.step(tokens(6, 3), [1, 2, 3], given, consume=True)
        assert same(state, copy)
    # Nor may the trunk be overwritten under a branch.
    given = branch(state)
    was = given.snapshot()
    steps.step(tokens(6, 3), [1, 2, 3], state, consume=True)
    assert same(given, was)


def test_a_concatenation_of_one_state_may_be_given_up(steps: Steps) -> None:
    state, want = begun(steps, 5, 3), begun(steps, 5, 3)
    steps.step(tokens(3, 3), [1, 2], State.concat([state]), consume=True)
    assert same(state, want)


def test_states_that_are_kept_twice_do_not_meet(steps: Steps) -> None:
    state = steps.step(tokens(5, 0), [3, 2], keep=[1, 1, 0]).state
    assert state is not None
    assert state.nbytes == 2 * row_bytes(steps)
    apart = steps.step(tokens(3, 1), [1, 1, 1], state.snapshot()).state
    together = steps.step(tokens(3, 1), [1, 1, 1], state, consume=True).state
    assert apart is not None
    assert together is not None
    assert same(apart, together)


def test_token_by_token_needs_no_new_memory(steps: Steps) -> None:
    state = begun(steps, 5, 3)
    place, want = memory(state), begun(steps, 5, 3)
    for seed in range(3):
        step, slow = (
            steps.step(tokens(2, seed), [1, 1], s, consume=given)
            for s, given in ((state, True), (want, False))
        )
        assert torch.equal(step.hidden, slow.hidden)
        assert step.state is not None
        assert slow.state is not None
        state, want = step.state, slow.state
        assert memory(state) == place
        assert same(state, want)
    # A row leaves: the others move once, and stay there.
    state = begun(steps, 5, 3, 4).select([0, 2])
    moved = [state]
    for seed in range(3):
        after = steps.step(tokens(2, seed), [1, 1], moved[-1], consume=True).state
        assert after is not None
        moved.append(after)
    assert not memory(moved[1]) & memory(state)
    assert memory(moved[1]) == memory(moved[3])


def test_a_state_of_several_batches_equals_its_rows_apart(steps: Steps) -> None:
    one, two = begun(steps, 5, 3), begun(steps, 4, seed=1)
    mixed = State.gather([(one, 1), (two, 0), (steps.start(1), 0), (one, 1), (one, 0)])
    lengths = [3, 1, 4, 2, 6]
    ids = tokens(16, 5)
    step = steps.step(ids, lengths, mixed, keep=[4, 0, 2])
    assert step.state is not None
    begin = 0
    for row, length in enumerate(lengths):
        part = slice(begin, begin + length)
        begin += length
        alone = steps.step(ids[part], [length], mixed.select([row]).snapshot())
        assert torch.allclose(step.hidden[part], alone.hidden, atol=1e-5)
        if row in (4, 0, 2):
            mine = step.state.select([[4, 0, 2].index(row)])
            assert alone.state is not None
            assert mine.lengths == alone.state.lengths
            assert all(
                torch.allclose(a, b, atol=1e-5)
                for a, b in zip(values(mine), values(alone.state), strict=True)
            )


def test_tensors_hold_all_rows(steps: Steps) -> None:
    state = State.concat([begun(steps, 5, 3).repeat(2), steps.start(1)])
    layers = tuple(type(layer).from_tensors(layer.tensors()) for layer in state.layers)
    again = State(state.lengths, layers)
    assert same(again, state)
    ids = tokens(5, 9)
    assert torch.equal(steps.step(ids, [1] * 5, again).hidden, steps.step(ids, [1] * 5, state).hidden)


def test_a_state_from_elsewhere_stands_beside_one_of_a_forward(steps: Steps) -> None:
    here, there = begun(steps, 5, 3), begun(steps, 4, 6, seed=1)
    apart = State(there.lengths, tuple(type(part).from_tensors(part.tensors()) for part in there.layers))
    mixed = State.gather([(apart, 1), (here, 0), (apart, 1), (steps.start(1), 0)])
    want = State.gather([(there, 1), (here, 0), (there, 1), (steps.start(1), 0)])
    assert same(mixed, want)
    assert same(State.concat([here, apart]), State.concat([here, there]))
    # One row of each: that of the forward is counted once, whether or not it is alive as a whole, too.
    assert mixed.nbytes == bytes_of([mixed, here.select([0])]) == 2 * row_bytes(steps)
    assert bytes_of([here, mixed, apart]) == 4 * row_bytes(steps)
    was = apart.snapshot()
    ids = tokens(9, 4)
    found, expected = (steps.step(ids, [2, 3, 1, 3], s, consume=True) for s in (mixed, want))
    assert torch.equal(found.hidden, expected.hidden)
    assert found.state is not None
    assert expected.state is not None
    assert same(found.state, expected.state)
    assert same(apart, was)


def test_a_row_has_one_piece_of_memory(steps: Steps) -> None:
    state = begun(steps, 5, 3, 4)
    assert len(memory(state)) == 3
    assert 0 <= state.allocated_bytes - state.nbytes < 3 * 64 * 2 * len(state.layers)
    assert bytes_of([state, state.select([0, 2, 0]), begun(steps, 2)]) == 4 * row_bytes(steps)
    assert state.snapshot().allocated_bytes == state.allocated_bytes
