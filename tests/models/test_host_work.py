"""What the host does for a forward on a GPU: little for each row, and nothing twice.

Kernels and products do nothing, as in `performance.host_time`; what would go to a GPU is counted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from performance import host_time
from performance.host_time import LAYERS, MODELS, Sends, build, without_work

from mambabench.kernels.rows import Memory
from mambabench.models.stateful import RecurrentState, State

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not here")
ROWS = 6


@pytest.fixture(scope="module", params=MODELS)
def counted(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Sends]]:
    with torch.random.fork_rng(devices=[]), without_work() as sends:
        yield build(request.param), sends


def stepped(steps: Any, length: int, state: State | None = None, **options: Any) -> State:
    ids = torch.zeros(ROWS * length, dtype=torch.int64)
    after: State = steps.step(ids, [length] * ROWS, state, **options).state
    return after


def memory(state: State) -> Memory:
    """Return the memory of the rows; all layers must have theirs in the same."""
    assert len(state.layers) == LAYERS
    found: set[Memory] = set()
    for layer in state.layers:
        assert isinstance(layer, RecurrentState)
        found.update(layer.memories())
    assert len(found) == 1
    return found.pop()


def test_a_forward_needs_one_copy(counted: tuple[Any, Sends]) -> None:
    steps, sends = counted
    for length in (5, 700):
        sends.n = 0
        state = stepped(steps, length)
        assert sends.n == 1
        assert len(memory(state).distinct()) == ROWS
        # The parents' addresses, the children's, and no more bounds.
        sends.n = 0
        children = State.gather([(state, 0)] * 3 + [(steps.start(1), 0)] + [(state, 4)] * 2)
        after = stepped(steps, length, children, keep=[4, 0], consume=True)
        assert sends.n == 1
        kept = memory(after)
        like = kept.distinct()[0]
        # A forward that is given them may write over them.
        assert Memory.places(kept, like, kept.partition, 2, consume=True) is kept
        assert after.nbytes == 2 * steps.state_size.fixed_bytes
        assert not {id(t) for t in memory(after).distinct()} & {id(t) for t in memory(state).distinct()}


def test_a_step_like_the_last_needs_nothing(
    counted: tuple[Any, Sends], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, sends = counted
    state = stepped(steps, 5)
    place = memory(state)
    where = [tensor.data_ptr() for tensor in place.distinct()]
    state = stepped(steps, 1, state, consume=True)
    made = []
    plain = Memory.__init__
    monkeypatch.setattr(Memory, "__init__", lambda self, *given: made.append(1) or plain(self, *given))
    sends.n = 0
    for _ in range(3):
        state = stepped(steps, 1, state, consume=True)
        assert memory(state) is place
    # As another batch in between does not make it forget.
    monkeypatch.undo()
    stepped(steps, 3)
    sends.n = 0
    state = stepped(steps, 1, state, consume=True)
    assert sends.n == 0
    assert not made
    assert memory(state) is place
    assert [tensor.data_ptr() for tensor in place.distinct()] == where
    assert state.lengths == (10,) * ROWS


def test_rows_that_are_all_kept_are_as_if_none_was_named(counted: tuple[Any, Sends]) -> None:
    steps, _ = counted
    state = stepped(steps, 2, keep=range(ROWS))
    assert memory(stepped(steps, 1, state, keep=list(range(ROWS)), consume=True)) is memory(state)
    turned = stepped(steps, 1, state, keep=[*range(1, ROWS), 0], consume=True)
    assert [t is s for t, s in zip(memory(turned).tensors, memory(state).tensors[1:], strict=False)] == [
        True
    ] * (ROWS - 1)
    assert steps.step(torch.zeros(ROWS, dtype=torch.int64), [1] * ROWS, turned, keep=[]).state is None


def test_the_script_measures_each_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_time, "STEPS", 2)
    lines = list(host_time.measure("mamba", 16, 1))
    assert {line[2] for line in lines} >= {"from nothing, keeping all", "one token a row, in place"}
    copies = {line[2]: line[4] for line in lines}
    assert copies["one token a row, in place"] == "0"
    assert copies["from shared states, keeping all"] == "1"
