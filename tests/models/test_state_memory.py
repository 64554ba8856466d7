"""Any order of what can be done with recurrent states, against lists of values that share nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule

from mambabench.models.recurrent_state import RecurrentLayers
from mambabench.models.state_file import load_state, save_state
from mambabench.models.stateful import State, bytes_of

LAYERS = ({"conv": (2, 3), "ssm": (3, 5)}, {"conv": (1, 7)}, {"a": (16,), "b": (4, 4)})
SHAPES = [shape for layer in LAYERS for shape in layer.values()]
FEW = st.lists(st.integers(0, 99), max_size=5)
KEEP = st.sampled_from([True, True, False]).flatmap(lambda all_rows: st.none() if all_rows else FEW)
"""Mostly all rows, since only their memory may be written over."""

Value = list[torch.Tensor]
"""A row's tensors in all layers."""
Known = tuple[State, list[Value]]


def nothing() -> Value:
    return [torch.zeros(shape) for shape in SHAPES]


def shown(state: State) -> list[Value]:
    named = [tensor for layer in state.layers for tensor in layer.tensors().values()]
    return [[tensor[row] for tensor in named] for row in range(state.rows)]


class States(RuleBasedStateMachine):
    """States that are alive, each with what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = RecurrentLayers(LAYERS)
        self.alive: list[Known] = []

    known = Bundle("known")

    def made(self, state: State, values: list[Value]) -> Known:
        """Note a state, and look at all others again, which must be as they were."""
        self.alive.append((state, values))
        for other, wanted in self.alive:
            for found, value in zip(shown(other), wanted, strict=True):
                assert all(map(torch.equal, found, value))
        tensors = [
            t
            for other, _ in self.alive
            for layer in other.layers
            for rows in layer.named.values()  # type: ignore[attr-defined]
            for t in rows.tensors
            if t is not None
        ]
        held = sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())
        counted = bytes_of([other for other, _ in self.alive])
        assert counted == held
        return self.alive[-1]

    @initialize(target=known, rows=st.integers(1, 3), token=st.integers(1, 99))
    def begin(self, rows: int, token: int) -> Any:
        begun = self.made(State((0,) * rows, self.layers.start(rows)), [nothing()] * rows)
        return self.forward(begun, None, token, consume=True)

    def forward(self, given: Known, keep: list[int] | None, token: int, *, consume: bool) -> Any:
        """Halve every number and add one to it, as a forward does that reads and writes row by row."""
        state, values = given
        rows = range(state.rows)
        keep = None if keep is None else [row % len(rows) for row in keep]
        after, kept = self.layers.places(state.layers, torch.empty(0), len(rows), keep=keep, consume=consume)
        for before, places in zip(state.layers, after or (), strict=False):
            for name, new in places.named.items():
                old = before.named[name].tensors  # type: ignore[attr-defined]
                for row, place in enumerate(new.tensors):
                    if place is not None:
                        was = old[row]
                        place.copy_((0.0 if was is None else was / 2) + torch.full(new.shape, token + row))
        told = [[tensor / 2 + token + row for tensor in value] for row, value in enumerate(values)]
        order = list(rows) if keep is None else keep
        if not order:
            return multiple()
        return self.made(State((1,) * len(order), kept), [told[row] for row in order])

    @rule(target=known, given=known, keep=KEEP, token=st.integers(1, 99))
    def lend(self, given: Known, keep: list[int] | None, token: int) -> Any:
        return self.forward(given, keep, token, consume=False)

    @rule(target=known, given=consumes(known), keep=KEEP, token=st.integers(1, 99))
    def give_up(self, given: Known, keep: list[int] | None, token: int) -> Any:
        self.alive = [other for other in self.alive if other[0] is not given[0]]
        return self.forward(given, keep, token, consume=True)

    @rule(target=known, given=known, rows=FEW.filter(len))
    def select(self, given: Known, rows: list[int]) -> Known:
        state, values = given
        picked = [row % state.rows for row in rows]
        return self.made(state.select(picked), [values[row] for row in picked])

    @rule(target=known, sources=st.lists(known, min_size=1, max_size=3), rows=FEW.filter(len))
    def gather(self, sources: list[Known], rows: list[int]) -> Known:
        picks = [(sources[row % len(sources)], row) for row in rows]
        return self.made(
            State.gather([(state, row % state.rows) for (state, _), row in picks]),
            [values[row % state.rows] for (state, values), row in picks],
        )

    @rule(target=known, parts=st.lists(known, min_size=1, max_size=3))
    def concat(self, parts: list[Known]) -> Known:
        return self.made(
            State.concat([state for state, _ in parts]), [value for _, values in parts for value in values]
        )

    @rule(target=known, given=known, copies=st.booleans())
    def move(self, given: Known, copies: bool) -> Known:
        state, values = given
        return self.made(state.snapshot() if copies else state.to("cpu"), values)

    @rule(target=known, given=known)
    def store(self, given: Known) -> Known:
        state, values = given
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "state.safetensors")
            save_state(state, path, checkpoint="c")
            return self.made(load_state(path, checkpoint="c"), values)


test_states_hold_what_was_written = States.TestCase
test_states_hold_what_was_written.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
