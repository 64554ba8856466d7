"""One token a row, again and again, over a state that stays at its addresses: what a CUDA graph can repeat.

A `State` is a value, and each step gives another one. Here the state is memory: a step changes it in place,
asks the host for nothing that differs between tokens, and leaves every tensor where it was. Recurrent models
do so already when they are given a state of their own that may be overwritten; attention layers of
mamba_ssm's hybrids get keys and values with room for all tokens to come
(`mambabench.models.static_attention`).

    begun = model.step(prompts, [9, 9], model.start(2).reserve(9 + 7), consume=True)
    steps = StaticSteps(model, begun.state)             # takes the state over
    hidden = steps.step(ids)                            # [2, d_model], as model.step(ids, [1, 1], ...) gives

It has not run on a GPU yet. Numbers are those of `StatefulModel.step`, to the last bit where there is no
attention; attention sums over masked columns, too, which rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mambabench.models.attention_state import AttentionState
from mambabench.models.layers import row_starts, sent
from mambabench.models.stateful import RecurrentState, State, StatefulModel, bytes_of
from mambabench.models.static_attention import StaticAttention, StaticKeys, StaticWindow
from mambabench.models.step_hybrid import HybridSteps
from mambabench.models.step_mha import AnyState


def obstacle(model: StatefulModel) -> str:
    """Say why a model cannot be stepped in place; empty when it can."""
    if model.state_size.bytes_per_token and not isinstance(model, HybridSteps):
        return f"{type(model).__name__} keeps keys and values that move as they grow"
    return ""


class StaticSteps:
    """Steps of one token a row over a state that is changed in place.

    Args:
        model: one that `obstacle` says nothing of.
        state: as a step of the model gave it to all of its rows; it must not be used again. Keys and values
            have room for as many tokens as were reserved before the rows began.

    Raises:
        ValueError: the model cannot be stepped so, or there is no memory of the rows' own with room in it.
    """

    def __init__(self, model: StatefulModel, state: State) -> None:
        if why := obstacle(model):
            raise ValueError(why)
        self._model: Any = model
        self._lengths = [1] * state.rows
        # The very same array each time: the kernels know its rows again.
        self._starts = row_starts(self._lengths)
        self._blocks = [layer.block for layer in state.layers if isinstance(layer, AttentionState)]
        self._attention = StaticAttention(state.lengths, model.device) if self._blocks else None
        self._state = state
        with torch.inference_mode():
            self._layers = _static(state.layers) if self._blocks else list(state.layers)
        self._fixed = _fixed_tensors(self._layers)
        self._addresses = [tensor.data_ptr() for tensor in self._fixed]

    def step(self, ids: Tensor) -> Tensor:
        """Forward one id of each row [rows]; return the hidden rows [rows, d_model].

        Raises:
            RuntimeError: the state did not stay where it was.
        """
        if self._attention is None:
            done = self._model.step(ids, self._lengths, self._state, consume=True)
            hidden: Tensor = done.hidden
            after = done.state.layers
        else:
            hidden, after = self._model.step_in_place(ids, self._starts, self._layers, self._attention)
        if [tensor.data_ptr() for tensor in _fixed_tensors(after)] != self._addresses:
            raise RuntimeError(f"a step of {type(self._model).__name__} moved its state")
        return hidden

    def emptied(self) -> State | None:
        """Return what other prompts begin from, which are then to be given to `load`.

        Keys and values of the prompts go to the places of these steps at once; the steps have no state until
        `load`. Null where there is nothing of that kind.
        """
        if self._attention is None:
            return None
        fresh = self._model.start(len(self._lengths)).layers
        layers = [
            old.emptied() if isinstance(old, AttentionState) else new
            for old, new in zip(self._state.layers, fresh, strict=True)
        ]
        return State((0,) * len(self._lengths), tuple(layers))

    def load(self, state: State) -> None:
        """Go on from another state, which is copied to where this one is, apart from keys and values.

        Raises:
            ValueError: it did not begin from what `emptied` returned.
        """
        blocks = [layer.block for layer in state.layers if isinstance(layer, AttentionState)]
        if any(one is not other for one, other in zip(blocks, self._blocks, strict=True)):
            raise ValueError("the keys and values are not where these steps have theirs")
        new = [layer for layer in state.layers if not isinstance(layer, AttentionState)]
        with torch.inference_mode():
            _copy(self._fixed, _fixed_tensors(new))
            if self._attention is not None:
                self._attention.seen.copy_(sent(torch.tensor(state.lengths), self._model.device))

    def saved(self) -> list[Tensor]:
        """Return a copy of what steps change, for `restore`; written keys and values never change again."""
        return [tensor.clone() for tensor in self._changing()]

    def restore(self, saved: Sequence[Tensor]) -> None:
        """Go back to what was saved, which stays whole."""
        with torch.inference_mode():
            _copy(self._changing(), saved)

    def tensors(self) -> list[Tensor]:
        """Return the memory of the state: windows, recurrent states, and keys and values with their room."""
        return [*self._fixed, *(t for layer in self._layers for t in _grown_tensors(layer))]

    @property
    def nbytes(self) -> int:
        """Bytes of the state, with the room for tokens to come."""
        recurrent = tuple(layer for layer in self._layers if isinstance(layer, RecurrentState))
        grown = [t for layer in self._layers for t in (*_windows(layer), *_grown_tensors(layer))]
        return bytes_of([State((), recurrent)]) + sum(t.numel() * t.element_size() for t in grown)

    def _changing(self) -> list[Tensor]:
        return self._fixed if self._attention is None else [*self._fixed, self._attention.seen]


def _static(layers: Sequence[Any]) -> list[AnyState]:
    """Return a hybrid's layers with the memory that attention layers need in the place of their states."""
    found: list[AnyState] = []
    for layer in layers:
        if isinstance(layer, AttentionState):
            if layer.block is None:
                raise ValueError("room must be reserved before the rows begin")
            found.append(StaticKeys(layer.block.k, layer.block.v))
        elif set(layer.named) == {"conv"}:
            # An attention layer's: a Mamba layer has a scan's state besides.
            found.append(StaticWindow(layer.named["conv"].stacked()))
        else:
            found.append(layer)
    return found


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors to others, together where the device can."""
    if targets:
        torch._foreach_copy_(list(targets), list(sources))


def _grown_tensors(layer: AnyState) -> list[Tensor]:
    return [layer.k, layer.v] if isinstance(layer, StaticKeys) else []


def _windows(layer: AnyState) -> list[Tensor]:
    return list(layer.inputs.unbind()) if isinstance(layer, StaticWindow) else []


def _fixed_tensors(layers: Sequence[Any]) -> list[Tensor]:
    """Return the memory of windows and recurrent states in order, each piece once; keys are not among it."""
    found: list[Tensor | None] = []
    for layer in layers:
        found += _windows(layer)
        if isinstance(layer, RecurrentState):
            # A row's memory is that of all such layers.
            found += [tensor for rows in layer.named.values() for tensor in rows.memory.tensors]
    return list({id(tensor): tensor for tensor in found if tensor is not None}.values())
