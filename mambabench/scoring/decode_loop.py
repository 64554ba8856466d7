"""Token by token over a model's states, for prompts of any lengths side by side.

Rows lie end to end, so no row ever sees padding. A row leaves as soon as it is done, and another enters
when there is room. What enters when follows from the requests and the room alone, so that the same call
computes the same numbers.

    loop = DecodeLoop(model, requests, room=room, stop=StopStrings(tokenizer, [r.stop for r in requests]))
    for tokens in loop.run():
        for token in tokens:
            print(token.row, token.id, token.reason)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mambabench.models.stateful import State, StatefulModel, Step
from mambabench.scoring.requests import GenerationRequest
from mambabench.scoring.stopping import Reason

if TYPE_CHECKING:
    from torch import Tensor

_CPU_PREFILL_TOKENS, _GPU_PREFILL_TOKENS = 1_024, 16_384
"""Prompt tokens beyond which a forward gains nothing."""
_SHORTEST_STEM_TOKENS = 16
"""A common beginning that is shorter is not worth a forward of its own."""
_REFILL_BELOW = 0.75
"""Rows enter together once this little of the room is in use: each time, the open rows' states are copied."""


@dataclass(frozen=True)
class Room:
    """What a loop may hold at once."""

    rows: int
    """Most rows that are generated side by side."""
    row_bytes: int
    """For the rows' states and logits."""
    prefill_tokens: int
    """Most prompt tokens of a forward."""

    @classmethod
    def within(cls, memory_bytes: int, model: StatefulModel, most_rows: int) -> Room:
        """Divide a budget: at most a quarter for the activations of prompts, the rest for rows.

        Args:
            memory_bytes: for states, logits and activations; weights are not counted. Half of it is divided
                even if a scan might take more for itself: with few tokens it does not.
            model: whose sizes count.
            most_rows: bound on the rows besides memory.
        """
        most = _GPU_PREFILL_TOKENS if model.device.type == "cuda" else _CPU_PREFILL_TOKENS
        room = max(memory_bytes - model.workspace_bytes, memory_bytes // 2)
        tokens = max(1, min(most, room // 4 // model.activation_bytes_per_token))
        left = room - tokens * model.activation_bytes_per_token
        # A step forwards a token of every row.
        return cls(min(most_rows, tokens), max(0, left), tokens)

    def part(self, rows: int, of: int) -> Room:
        """Return the room for `rows` rows when that for `of` was too large.

        >>> Room(64, 1000, 512).part(16, 32)
        Room(rows=16, row_bytes=500, prefill_tokens=256)
        """
        return Room(
            max(1, min(self.rows, of) * rows // of),
            self.row_bytes * rows // of,
            max(1, self.prefill_tokens * rows // of),
        )


class NewToken(NamedTuple):
    """What a forward brought for a row."""

    row: int
    id: int | None
    """The token; null for a row that was to have none."""
    reason: Reason | None
    """Why the row ends with it; null while it goes on."""


class DecodeLoop:
    """Continues prompts until each is done.

    Args:
        model: forwards from a state.
        requests: the rows, in the order in which they enter; none has an empty context. A row draws with
            its options' seed.
        room: what may be held at once; a row that alone is too large is tried nevertheless.
        stop: called with (row, its new ids so far) after each of its tokens; True ends the row.

    Raises:
        ValueError: a context is empty.
        UsageError: for options that only transformers' own generation knows.
    """

    def __init__(
        self,
        model: StatefulModel,
        requests: Sequence[GenerationRequest],
        *,
        room: Room,
        stop: Callable[[int, Sequence[int]], bool],
    ) -> None:
        from mambabench.models.sampling import RowSamplers

        if not all(request.context for request in requests):
            raise ValueError("every prompt needs at least one token")
        self.tokens_forwarded = 0
        """Token positions that went through the model; what rows share counts once."""
        self._model = model
        self._requests = requests
        self._room = room
        self._stop = stop
        self._samplers = RowSamplers([request.options for request in requests])
        self._new: list[list[int]] = [[] for _ in requests]
        self._waiting = deque(row for row, r in enumerate(requests) if r.max_new_tokens > 0)
        self._stem = _common_beginning([requests[row].context for row in self._waiting])
        self._after_stem: State | None = None
        self._is_filling = True

    def run(self) -> Iterator[list[NewToken]]:
        """Yield the tokens of each forward; every row ends with exactly one reason.

        Raises:
            NotANumberError: the model's logits are not numbers.
        """
        none = [NewToken(row, None, "length") for row, r in enumerate(self._requests) if r.max_new_tokens < 1]
        if none:
            yield none
        rows: list[int] = []
        state: State | None = None
        while self._waiting or rows:
            entering = self._entering(rows)
            # Prompts go first: while rows wait to enter, those that are open wait with them.
            if entering:
                logits, after = self._prefilled(entering)
                tokens = self._chosen(entering, logits)
            else:
                logits, after = self._stepped(rows, state)
                tokens = self._chosen(rows, logits)
                rows, state = [], None
            yield tokens
            stay = [place for place, token in enumerate(tokens) if token.reason is None]
            if stay:
                kept = after if len(stay) == len(tokens) else after.select(stay)
                state = kept if state is None else State.concat([state, kept])
                rows = rows + [tokens[place].row for place in stay]

    def _entering(self, rows: Sequence[int]) -> list[int]:
        """Return the rows whose prompts are forwarded next, beside those that are open."""
        used_bytes = sum(map(self._row_bytes, rows))
        used = max(len(rows) / self._room.rows, used_bytes / max(1, self._room.row_bytes))
        if not self._is_filling and rows and used > _REFILL_BELOW:
            return []
        self._is_filling = True
        entering: list[int] = []
        contexts: set[tuple[int, ...]] = set()
        n_tokens = 0
        while self._waiting:
            row = self._waiting[0]
            context = self._requests[row].context
            used_bytes += self._row_bytes(row)
            is_full = len(rows) + len(entering) >= self._room.rows or used_bytes > self._room.row_bytes
            if is_full and (rows or entering):
                self._is_filling = False
                break
            n_tokens += 0 if context in contexts else len(context) - len(self._stem)
            if n_tokens > self._room.prefill_tokens and entering:
                break
            contexts.add(context)
            entering.append(self._waiting.popleft())
        return entering

    def _row_bytes(self, row: int) -> int:
        """Return the memory of a row at its end: the state, once more while it is copied, and logits."""
        request, size = self._requests[row], self._model.state_size
        longest = len(request.context) + request.max_new_tokens
        # Sampling sorts the logits, and adds them up in 64 bits.
        each = 40 if request.options.do_sample else 8
        return 2 * (size.fixed_bytes + longest * size.bytes_per_token) + each * self._model.vocab_size

    def _prefilled(self, rows: Sequence[int]) -> tuple[Tensor, State]:
        """Forward prompts, equal ones once; return each row's last logits [n, V] and its state."""
        contexts = [self._requests[row].context for row in rows]
        places = {context: place for place, context in enumerate(dict.fromkeys(contexts))}
        tails = [context[len(self._stem) :] for context in places]
        before = None
        if self._stem:
            if self._after_stem is None:
                self._after_stem = _state(self._forward([self._stem], None))
            before = self._after_stem.select([0] * len(tails))
        if not self._waiting:
            self._after_stem = None
        step = self._forward(tails, before)
        logits, after = self._model.logits(step.hidden), _state(step)
        if len(places) == len(rows):
            return logits, after
        which = [places[context] for context in contexts]
        return logits[which], after.select(which)

    def _stepped(self, rows: Sequence[int], state: State | None) -> tuple[Tensor, State]:
        """Forward each row's last token; return its next logits [n, V] and its state."""
        step = self._forward([self._new[row][-1:] for row in rows], state)
        return self._model.logits(step.hidden), _state(step)

    def _forward(self, rows: Sequence[Sequence[int]], state: State | None) -> Step:
        """Forward rows of ids, giving up `state`; one that alone is too long goes in pieces.

        Returns:
            The hidden rows of the last ids, [n, d_model], and all states.
        """
        bound = self._room.prefill_tokens
        if len(rows) == 1:
            (ids,) = rows
            for begin in range(0, len(ids) - bound, bound):
                state = _state(self._step([ids[begin : begin + bound]], state))
            rows = [ids[(len(ids) - 1) // bound * bound :]]
        return self._step(rows, state)

    def _step(self, rows: Sequence[Sequence[int]], state: State | None) -> Step:
        import torch

        lengths = [len(ids) for ids in rows]
        ids = torch.tensor([token for ids in rows for token in ids], dtype=torch.int64)
        ends = torch.tensor(lengths).cumsum(0) - 1
        device = self._model.device
        step = self._model.step(ids.to(device), lengths, state, read=ends.to(device), consume=True)
        self.tokens_forwarded += len(ids)
        return step

    def _chosen(self, rows: Sequence[int], logits: Tensor) -> list[NewToken]:
        """Choose the rows' next tokens."""
        import torch

        with torch.inference_mode():
            ids = self._samplers.choose(logits, rows, self._seen)
        tokens = []
        for row, token in zip(rows, ids, strict=True):
            self._new[row].append(token)
            tokens.append(NewToken(row, token, ending(self._requests[row], row, self._new[row], self._stop)))
        return tokens

    def _seen(self, row: int) -> list[int]:
        return [*self._requests[row].context, *self._new[row]]


def ending(
    request: GenerationRequest,
    row: int,
    new_ids: Sequence[int],
    stop: Callable[[int, Sequence[int]], bool],
) -> Reason | None:
    """Return why a row ends with the last of its new ids, or null when it does not."""
    if new_ids and new_ids[-1] in request.eos_ids:
        return "eos"
    if new_ids and stop(row, new_ids):
        return "stop"
    return "length" if len(new_ids) >= request.max_new_tokens else None


def _state(step: Step) -> State:
    assert step.state is not None
    return step.state


def _common_beginning(contexts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return what several contexts all begin with, or nothing where sharing it does not pay.

    At least one token of each is left over, which the first logits are read from.
    """
    if len(contexts) < 2:
        return ()
    first, last = min(contexts), max(contexts)
    longest = min(map(len, contexts)) - 1
    same = next((k for k in range(longest) if first[k] != last[k]), longest)
    return first[:same] if same >= _SHORTEST_STEM_TOKENS else ()
