"""Generated text: prompts of equal length together, so that no family ever sees padding.

A recurrent state cannot skip padding on the right, and masks on the left are ignored by some
implementations; equal lengths need neither, which makes the result independent of the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mambabench.models.base import SamplingOptions
from mambabench.scoring.memory import in_halves
from mambabench.scoring.requests import GenerationRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mambabench.models.base import LoadedModel

_MOST_SEQUENCES = 64
_MOST_TOKENS_CPU = 8_192
_MOST_TOKENS_GPU = 65_536


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return `text` up to the first occurrence of any non-empty stop string.

    >>> cut_at_stop("one two. three", [".", "two"])
    'one '
    """
    for term in stop:
        if term:
            text = text.split(term, 1)[0]
    return text


class StopStrings:
    """Watches rows of new ids for stop strings by decoding the end of each row.

    Args:
        tokenizer: decodes ids.
        stop: the strings of each row.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[Sequence[str]]) -> None:
        self._tokenizer = tokenizer
        self._stop = [[s for s in row if s] for row in stop]
        # A token decodes to at least one byte, so this many tokens hold the longest stop string
        # whole, with room for a character that a token's edge cuts in two.
        self._window = [max((len(s.encode()) for s in row), default=0) + 8 for row in self._stop]

    def __call__(self, row: int, new_ids: Sequence[int]) -> bool:
        """Return whether the text of `new_ids` now holds one of the row's stop strings."""
        if not self._stop[row]:
            return False
        # Stop strings of chat models are special tokens, which decoding could leave out.
        tail = self._tokenizer.decode(list(new_ids[-self._window[row] :]), skip_special_tokens=False)
        return any(s in tail for s in self._stop[row])


class Generator:
    """Answers generation requests with one model.

    Args:
        model: any loaded model.
        batch_size: most prompts in a batch; null lets the lengths decide.
        note: called with a sentence when something worth knowing happens, such as a halved batch.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_size: int | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        self.tokens_forwarded = 0
        self._batch_size = batch_size
        self._note = note

    def batches(self, requests: Sequence[GenerationRequest]) -> list[tuple[int, ...]]:
        """Group requests that can run together: equal prompt length, greedy, equal bound.

        A sampled request runs alone with a seed of its own, so that what it draws does not
        depend on its neighbours.
        """
        together: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            alone = i if request.options.do_sample else -1
            options = repr((sorted(vars(request.options).items()), request.eos_ids))
            together[len(request.context), request.max_new_tokens, options, alone].append(i)
        batches = []
        for group in sorted(together.values(), key=lambda g: (-len(requests[g[0]].context), g[0])):
            size = self._most_sequences(requests[group[0]])
            batches += [tuple(group[k : k + size]) for k in range(0, len(group), size)]
        return batches

    def generate(
        self, requests: Sequence[GenerationRequest], batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[list[tuple[int, str]]]:
        """Yield each batch's texts as (index into `requests`, text cut at its stop string).

        Raises:
            NotANumberError: when the model's logits are not numbers.
        """
        for batch in self.batches(requests) if batches is None else batches:
            yield from in_halves(lambda part: self._texts(requests, part), tuple(batch), self._note)

    def _most_sequences(self, request: GenerationRequest) -> int:
        if self._batch_size is not None:
            return self._batch_size
        on_gpu = self.model.device.type == "cuda"
        tokens = _MOST_TOKENS_GPU if on_gpu else _MOST_TOKENS_CPU
        return max(1, min(_MOST_SEQUENCES, tokens // (len(request.context) + request.max_new_tokens)))

    def _texts(self, requests: Sequence[GenerationRequest], batch: tuple[int, ...]) -> list[tuple[int, str]]:
        import torch

        tokenizer = self.model.tokenizer
        first = requests[batch[0]]
        ids = torch.tensor([requests[i].context for i in batch], dtype=torch.int64)
        new = self.model.generate(
            ids.to(self.model.device),
            max_new_tokens=first.max_new_tokens,
            options=_seeded(first),
            stop=StopStrings(tokenizer, [requests[i].stop for i in batch]),
            eos_ids=first.eos_ids,
        )
        self.tokens_forwarded += ids.numel() + sum(len(row) for row in new)
        return [
            (i, cut_at_stop(str(tokenizer.decode(row, skip_special_tokens=True)), requests[i].stop))
            for i, row in zip(batch, new, strict=True)
        ]


def _seeded(request: GenerationRequest) -> SamplingOptions:
    if not request.options.do_sample:
        return request.options
    return replace(request.options, seed=int(request.key[:15], 16) ^ request.options.seed)
