"""Generated text: many prompts at once, each as if it were alone.

    generator = Generator(model)
    for texts in generator.generate(requests):
        for index, text in texts:
            ...
    for event in generator.stream(requests):
        print(event.row, event.text, end="", flush=True)

A model that goes on from states takes prompts of any lengths side by side. Any other gets prompts of equal
length: a recurrent state cannot skip padding on the right, and some implementations ignore masks on the left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mambabench.scoring.budget import default_budget_bytes
from mambabench.scoring.decode_loop import DecodeLoop, Room, ending
from mambabench.scoring.memory import in_halves
from mambabench.scoring.requests import GenerationRequest
from mambabench.scoring.stopping import GrowingText, Reason, StopStrings, final_text

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel
    from mambabench.models.stateful import StatefulModel

_MOST_ROWS_CPU, _MOST_ROWS_GPU = 64, 256
"""Rows side by side beyond which a step gains little; also the requests of a batch."""
_MOST_SEQUENCES = 64
_MOST_TOKENS_CPU = 8_192
_MOST_TOKENS_GPU = 65_536


@dataclass(frozen=True)
class TextEvent:
    """More text of a row."""

    row: int
    """Index of the request."""
    text: str
    """What follows the text of the row's earlier events; may be empty at its end."""
    finished: bool
    reason: Reason | None
    """Why the text ended; null while it goes on."""


class Generator:
    """Answers generation requests with one model.

    A sampled request draws with a seed that follows from the request and its options' seed, so that its
    text depends neither on the batch nor on the order.

    Args:
        model: any loaded model.
        batch_size: most prompts at once; null lets lengths and memory decide.
        memory_bytes: room for states, activations and logits; null for a default. A model without states
            bounds its batches by lengths alone.
        note: called with a sentence when something worth knowing happens, such as a halved batch.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_size: int | None = None,
        memory_bytes: int | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        self.tokens_forwarded = 0
        """Token positions that went through the model so far; what prompts share counts once."""
        self._batch_size = batch_size
        self._memory_bytes = memory_bytes
        self._note = note

    def batches(self, requests: Sequence[GenerationRequest]) -> list[tuple[int, ...]]:
        """Group requests that can run together; the groups follow from the requests alone.

        On states any can; those whose prompts begin alike are put together. Elsewhere they need equal
        prompt length, bound and options, and a sampled request runs alone.
        """
        by_states = [i for i, request in enumerate(requests) if self._stateful(request) is not None]
        by_states.sort(key=lambda i: (requests[i].context, i))
        size = max(self._most_rows(), self._batch_size or 0)
        batches = [tuple(by_states[k : k + size]) for k in range(0, len(by_states), size)]
        return batches + self._equal_batches(requests, set(range(len(requests))) - set(by_states))

    def generate(
        self, requests: Sequence[GenerationRequest], batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[list[tuple[int, str]]]:
        """Yield each batch's texts as (index into `requests`, text cut at its stop string).

        Raises:
            NotANumberError: when the model's logits are not numbers.
        """
        for batch in self.batches(requests) if batches is None else batches:
            work = partial(self._rows, requests, len(batch))
            for rows in in_halves(work, tuple(batch), self._note):
                yield [(i, final_text(self.model.tokenizer, ids, requests[i].stop)) for i, ids in rows]

    def stream(self, requests: Sequence[GenerationRequest]) -> Iterator[TextEvent]:
        """Yield the requests' texts piece by piece, as they are generated side by side.

        Every request ends with one event that says so; its events' texts together are what `generate` gives.
        Short prompts go first, since they have not long to wait. Where the model has no states, or an option
        asks for transformers' own generation, a text is one piece.

        Raises:
            NotANumberError: when the model's logits are not numbers.
        """
        tokenizer = self.model.tokenizer
        growing = [GrowingText(tokenizer, request.stop) for request in requests]
        rows = [i for i, request in enumerate(requests) if self._stateful(request) is not None]
        rows.sort(key=lambda i: (len(requests[i].context), i))
        if rows and (model := self._stateful(requests[rows[0]])) is not None:
            for row, token, reason in self._tokens(model, requests, rows, self._room(model)):
                text = "" if token is None else growing[row].add(token)
                if reason is not None:
                    text += growing[row].end()
                if text or reason is not None:
                    yield TextEvent(row, text, reason is not None, reason)
        for batch in self._equal_batches(requests, set(range(len(requests))) - set(rows)):
            stop = StopStrings(tokenizer, [requests[i].stop for i in batch])
            for k, (i, ids) in enumerate(self._equal_rows(requests, batch)):
                text = final_text(tokenizer, ids, requests[i].stop)
                yield TextEvent(i, text, True, ending(requests[i], k, ids, stop) or "length")

    def _stateful(self, request: GenerationRequest) -> StatefulModel | None:
        """Return the model on states if it can answer; further options are transformers' own."""
        return None if request.options.extra else self.model.stateful

    def _most_rows(self) -> int:
        return _MOST_ROWS_GPU if self.model.device.type == "cuda" else _MOST_ROWS_CPU

    def _room(self, model: StatefulModel) -> Room:
        budget = self._memory_bytes
        if budget is None:
            budget = default_budget_bytes(self.model.device)
        return Room.within(budget, model, self._batch_size or self._most_rows())

    def _rows(
        self, requests: Sequence[GenerationRequest], n_batch: int, part: tuple[int, ...]
    ) -> list[tuple[int, list[int]]]:
        """Return (index, new ids) of some requests, all that is left of a batch of `n_batch`."""
        model = self._stateful(requests[part[0]])
        if model is None:
            return self._equal_rows(requests, part)
        new: dict[int, list[int]] = {i: [] for i in part}
        for i, token, _ in self._tokens(model, requests, part, self._room(model).part(len(part), n_batch)):
            if token is not None:
                new[i].append(token)
        return list(new.items())

    def _tokens(
        self, model: StatefulModel, requests: Sequence[GenerationRequest], rows: Sequence[int], room: Room
    ) -> Iterator[tuple[int, int | None, Reason | None]]:
        """Generate on states; yield (index into `requests`, token, why the row ends with it)."""
        stop = StopStrings(self.model.tokenizer, [requests[i].stop for i in rows])
        loop = DecodeLoop(model, [_seeded(requests[i]) for i in rows], room=room, stop=stop)
        try:
            for tokens in loop.run():
                for token in tokens:
                    yield rows[token.row], token.id, token.reason
        finally:
            self.tokens_forwarded += loop.tokens_forwarded

    def _equal_batches(
        self, requests: Sequence[GenerationRequest], chosen: set[int]
    ) -> list[tuple[int, ...]]:
        """Group the chosen requests by prompt length, bound and options; a sampled one stays alone."""
        together: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i in sorted(chosen):
            request = requests[i]
            alone = i if request.options.do_sample else -1
            options = repr((sorted(vars(request.options).items()), request.eos_ids))
            together[len(request.context), request.max_new_tokens, options, alone].append(i)
        batches = []
        for group in sorted(together.values(), key=lambda g: (-len(requests[g[0]].context), g[0])):
            size = self._most_sequences(requests[group[0]])
            batches += [tuple(group[k : k + size]) for k in range(0, len(group), size)]
        return batches

    def _most_sequences(self, request: GenerationRequest) -> int:
        if self._batch_size is not None:
            return self._batch_size
        on_gpu = self.model.device.type == "cuda"
        tokens = _MOST_TOKENS_GPU if on_gpu else _MOST_TOKENS_CPU
        return max(1, min(_MOST_SEQUENCES, tokens // (len(request.context) + request.max_new_tokens)))

    def _equal_rows(
        self, requests: Sequence[GenerationRequest], batch: Sequence[int]
    ) -> list[tuple[int, list[int]]]:
        """Continue prompts of equal length as the model is shipped; return (index, new ids)."""
        import torch

        first = requests[batch[0]]
        ids = torch.tensor([requests[i].context for i in batch], dtype=torch.int64)
        new = self.model.generate(
            ids.to(self.model.device),
            max_new_tokens=first.max_new_tokens,
            options=_seeded(first).options,
            stop=StopStrings(self.model.tokenizer, [requests[i].stop for i in batch]),
            eos_ids=first.eos_ids,
        )
        self.tokens_forwarded += ids.numel() + sum(len(row) for row in new)
        return list(zip(batch, new, strict=True))


def _seeded(request: GenerationRequest) -> GenerationRequest:
    """Return the request with the seed that it draws with."""
    if not request.options.do_sample:
        return request
    seed = int(request.key[:15], 16) ^ request.options.seed
    return replace(request, options=replace(request.options, seed=seed))
