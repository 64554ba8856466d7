"""Rows of one token each through all layers of a recurrent model in one call, as decoding asks for them.

    one_token = OneToken(layers, norms, last_norm, eps, recurrent)
    if one_token.takes(lengths):
        hidden = one_token(residual, state.layers, after)

Longer rows go layer by layer through the kernels of `mambabench.kernels.packed`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from mambabench.kernels import ahead
from mambabench.models.recurrent_state import RecurrentLayers, RecurrentState
from mambabench.models.stateful import LayerState, State, Step

if TYPE_CHECKING:
    from mambabench.kernels.program import Program

MOST_ROWS = 16
"""Rows up to which this is faster than the layers one after another."""


class WritesProgram(Protocol):
    """A layer that can write down what it does with one token a row."""

    def is_writable(self) -> bool:
        """Tell whether there are operations for this layer."""
        ...

    def write(self, program: Program, x: Tensor, y: Tensor) -> None:
        """Append the operations that map x [threads, rows, d_model] to y [rows, d_model].

        The last of them is a meeting, so that every thread may read y.
        """
        ...


class OneToken:
    """The layers of a model, each after a normalisation, with a residual stream beside them.

    Args:
        layers: of the model.
        norms: weight of each layer's normalisation, float32 [d_model].
        last_norm: of the one after them.
        eps: of all of them.
        recurrent: the layers' states, in the same order.
    """

    def __init__(
        self,
        layers: Sequence[WritesProgram],
        norms: Sequence[Tensor],
        last_norm: Tensor,
        eps: float,
        recurrent: RecurrentLayers,
    ) -> None:
        self._recurrent = recurrent
        self._layers, self._norms, self._last_norm, self._eps = layers, norms, last_norm, eps
        self._is_writable = last_norm.is_cpu and all(layer.is_writable() for layer in layers)
        self._written: tuple[tuple[int, int], _Written] | None = None

    def takes(self, lengths: Sequence[int]) -> bool:
        """Tell whether rows of these lengths may go this way."""
        return self._is_writable and len(lengths) <= MOST_ROWS and max(lengths) == 1

    def __call__(
        self,
        residual: Tensor,
        before: Sequence[LayerState] | None,
        after: Sequence[RecurrentState] | None,
    ) -> Tensor:
        """Return the hidden rows.

        Args:
            residual: float32 [B, d_model].
            before: each layer's state of B rows; null for rows that begin here.
            after: places for their states after the token; null for none.
        """
        from mambabench.kernels.program import usual_threads

        rows = residual.shape[0]
        key = rows, usual_threads()
        # Another thread may put its own in between; what is taken here stays this call's.
        found = self._written
        if found is None or found[0] != key:
            ahead.wait_for("program")
            found = key, _Written(self._layers, self._norms, self._last_norm, self._eps, *key)
            self._written = found
        old, new = (self._recurrent.addresses(states, rows) for states in (before, after))
        return found[1](residual, old, new)


def stepped(
    hidden: Tensor,
    lengths: Sequence[int],
    state: State | None,
    keep: Sequence[int] | None,
    layers: Sequence[RecurrentState],
) -> Step:
    """Return a recurrent model's step from its hidden rows and the states of its layers.

    Args:
        hidden: rows that were asked for.
        lengths: of the rows.
        state: before the step; null for rows that began with it.
        keep: rows whose states are in `layers`; null for all.
        layers: states after the step.
    """
    kept = range(len(lengths)) if keep is None else keep
    if not len(kept):
        return Step(hidden, None)
    seen = (0,) * len(lengths) if state is None else state.lengths
    return Step(hidden, State(tuple(seen[row] + lengths[row] for row in kept), tuple(layers)))


class _Written:
    """The program for a number of rows and threads."""

    def __init__(
        self,
        layers: Sequence[WritesProgram],
        norms: Sequence[Tensor],
        last_norm: Tensor,
        eps: float,
        rows: int,
        threads: int,
    ) -> None:
        from mambabench.kernels.program import Program

        program = Program(rows, threads)
        width = last_norm.shape[0]
        self._first, self._hidden = program.shared(width), program.shared(width)
        mixed, residual, x = program.shared(width), program.private(width), program.private(width)
        for i, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
            # Every thread has a residual stream of its own, so that none waits for another's sums.
            if i == 0:
                program.norm(self._first, x, weight=norm, eps=eps)
            else:
                before = self._first if i == 1 else residual
                program.norm(before, x, weight=norm, eps=eps, added=mixed, total=residual)
            layer.write(program, x, mixed)
        before = self._first if len(layers) == 1 else residual
        program.norm(before, self._hidden, weight=last_norm, eps=eps, added=mixed, total=residual, alone=True)
        self._program = program
        self._lock = threading.Lock()

    def __call__(self, residual: Tensor, before: Sequence[Any], after: Sequence[Any]) -> Tensor:
        with self._lock:
            self._first.copy_(residual)
            self._program.run(before, after)
            return self._hidden.clone()
