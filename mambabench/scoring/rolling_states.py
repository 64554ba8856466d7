"""Long texts by a model that goes on from states: in pieces, or several windows side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mambabench.models.stateful import State, StatefulModel
from mambabench.scoring.budget import Fit, free_bytes
from mambabench.scoring.memory import give_back, in_halves
from mambabench.scoring.readout import read_in_chunks
from mambabench.scoring.rolling_text import Floats, NoRoomError, Piece, Resume, Text, Window
from mambabench.scoring.trie_inputs import Int32s, Int64s
from mambabench.units import size

if TYPE_CHECKING:
    from torch import Tensor


class StateRolling:
    """See `RollingScorer` for the methods.

    Args:
        model: forwards from a state.
        fit: what fits into the memory.
        note: called with a sentence when something worth knowing happens.
    """

    def __init__(self, model: StatefulModel, fit: Fit, note: Callable[[str], None]) -> None:
        self.tokens_forwarded = 0
        self.longest_context_tokens = 0
        self.resume_point: Resume | None = None
        self._model = model
        self._fit = fit
        self._note = note

    def full(self, text: Text, resume: Resume | None) -> Iterator[Piece]:
        """Predict every token from all before it, in pieces."""
        n = len(text.ids)
        if resume is not None and not (
            0 < resume.position_tokens <= n and resume.state.lengths == (resume.position_tokens,)
        ):
            raise ValueError(f"no place in a text of {n} tokens: {resume.position_tokens}")
        _refuse_large(self._model, n)
        self.resume_point = resume
        if resume is None:
            return self._row(text, 0, 0, n, self._model.start(1).reserve(n))
        return self._row(text, resume.position_tokens, 0, n, resume.state)

    def windows(self, text: Text, windows: Sequence[Window]) -> Iterator[Piece]:
        """Predict each window's tokens from what it begins with."""
        packed: list[Window] = []
        room = self._fit.batch_tokens
        for window in windows:
            if packed and window.n_fed > room:
                yield from self._packed(text, packed)
                packed, room = [], self._fit.batch_tokens
            if window.n_fed > room:
                state = self._model.start(1).reserve(window.n_fed)
                pieces = self._row(text, window.begin + 1, window.first, window.end, state)
                yield Piece(window.first, np.concatenate([piece.logprobs for piece in pieces]))
            else:
                packed.append(window)
                room -= window.n_fed
        if packed:
            yield from self._packed(text, packed)

    def _row(self, text: Text, begin: int, first: int, end: int, state: State) -> Iterator[Piece]:
        """Forward positions `begin` to `end` in pieces; yield what they predict from token `first` on."""
        import torch

        seen = state.lengths[0]
        for low in range(begin, end, self._fit.batch_tokens):
            high = min(low + self._fit.batch_tokens, end)
            top = min(max(low, first), high)
            step = self._model.step(
                self._sent(text.fed(low, high)),
                [high - low],
                state,
                read=None if top == low else torch.arange(top - low, high - low, device=self._model.device),
                keep=None if high < end else [],
                consume=True,
            )
            self.tokens_forwarded += high - low
            self.longest_context_tokens = max(self.longest_context_tokens, seen + high - begin)
            logprobs = self._read(step.hidden, text.ids[top:high])
            self.resume_point = None
            if step.state is not None:
                state = step.state
                self.resume_point = Resume(high, state)
            del step
            give_back()
            if top < high:
                yield Piece(top, logprobs)

    def _packed(self, text: Text, windows: Sequence[Window]) -> Iterator[Piece]:
        def work(some: tuple[int, ...]) -> list[Piece]:
            return self._side_by_side(text, [windows[i] for i in some])

        for pieces in in_halves(work, tuple(range(len(windows))), self._note):
            give_back()
            yield from pieces

    def _side_by_side(self, text: Text, windows: Sequence[Window]) -> list[Piece]:
        """Forward windows in one batch; each fits into it."""
        lengths = [window.n_fed for window in windows]
        ends = np.cumsum(lengths, dtype=np.int64)
        n_read = [window.end - window.first for window in windows]
        read = np.concatenate([np.arange(e - n, e) for e, n in zip(ends, n_read, strict=True)])
        step = self._model.step(
            self._sent(np.concatenate([text.fed(w.begin + 1, w.end) for w in windows])),
            lengths,
            read=self._sent(read),
            keep=[],
        )
        self.tokens_forwarded += int(ends[-1])
        self.longest_context_tokens = max(self.longest_context_tokens, *lengths)
        targets = np.concatenate([text.ids[w.first : w.end] for w in windows])
        parts = np.split(self._read(step.hidden, targets), np.cumsum(n_read)[:-1])
        return [Piece(window.first, part) for window, part in zip(windows, parts, strict=True)]

    def _read(self, hidden: Tensor, targets: Int32s) -> Floats:
        """Return the log-probability of one id for each hidden row."""
        import torch

        found = np.empty(len(targets))
        for low in range(0, len(targets), self._fit.logit_rows):
            here = slice(low, low + self._fit.logit_rows)
            rows = torch.arange(len(targets[here]), device=hidden.device)
            with torch.inference_mode():
                logprobs, _ = read_in_chunks(
                    partial(_logits, self._model, hidden[here]),
                    self._model.vocab_size,
                    rows,
                    self._sent(targets[here]),
                )
            found[here] = logprobs.cpu().numpy()
        return found

    def _sent(self, ids: Int32s | Int64s) -> Tensor:
        import torch

        return torch.from_numpy(ids.astype(np.int64)).to(self._model.device)


def _refuse_large(model: StatefulModel, n_tokens: int) -> None:
    """Check that the state after so many tokens fits into the memory, which it would else fill to the end."""
    state = model.state_size
    needed, free = state.fixed_bytes + n_tokens * state.bytes_per_token, free_bytes(model.device)
    if needed > free:
        raise NoRoomError(
            f"out of memory: keys and values of a text of {n_tokens:,} tokens take {size(needed)}, and "
            f"{size(free)} are free",
            hint="Free some memory, or use sliding windows.",
        )


def _logits(model: StatefulModel, hidden: Tensor, first: int, last: int) -> Tensor:
    return model.logits(hidden, first=first, last=last)
