"""Generated text: prompts of equal length together, so that no family ever sees padding.

A recurrent state cannot skip padding on the right, and masks on the left are ignored by some
implementations; equal lengths need neither, which makes the result independent of the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mambabench.models.base import SamplingOptions
from mambabench.scoring.requests import GenerationRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mambabench.models.base import LoadedModel

_MOST_SEQUENCES = 32


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
        tail = self._tokenizer.decode(list(new_ids[-self._window[row] :]), skip_special_tokens=True)
        return any(s in tail for s in self._stop[row])


class Generator:
    """Answers generation requests with one model.

    Args:
        model: any loaded model.
        batch_size: most prompts in a batch; null for a sensible number.
    """

    def __init__(self, model: LoadedModel, *, batch_size: int | None = None) -> None:
        self.model = model
        self.most_sequences = batch_size or _MOST_SEQUENCES
        self.tokens_forwarded = 0

    def batches(self, requests: Sequence[GenerationRequest]) -> list[tuple[int, ...]]:
        """Group requests that can run together: equal prompt length, greedy, equal bound.

        A sampled request runs alone with a seed of its own, so that what it draws does not
        depend on its neighbours.
        """
        together: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            alone = i if request.options.do_sample else -1
            options = repr(sorted(vars(request.options).items()))
            together[len(request.context), request.max_new_tokens, options, alone].append(i)
        size = self.most_sequences
        return [
            tuple(group[k : k + size])
            for group in sorted(together.values(), key=lambda g: (-len(requests[g[0]].context), g[0]))
            for k in range(0, len(group), size)
        ]

    def generate(
        self, requests: Sequence[GenerationRequest], batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[list[tuple[int, str]]]:
        """Yield each batch's texts as (index into `requests`, text cut at its stop string)."""
        import torch

        tokenizer = self.model.tokenizer
        eos = tokenizer.eos_token_id
        for batch in self.batches(requests) if batches is None else batches:
            first = requests[batch[0]]
            ids = torch.tensor([requests[i].context for i in batch], dtype=torch.int64)
            new = self.model.generate(
                ids.to(self.model.device),
                max_new_tokens=first.max_new_tokens,
                options=_seeded(first),
                stop=StopStrings(tokenizer, [requests[i].stop for i in batch]),
                eos_ids=[] if eos is None else [eos],
            )
            self.tokens_forwarded += ids.numel() + sum(len(row) for row in new)
            yield [
                (i, cut_at_stop(str(tokenizer.decode(row, skip_special_tokens=True)), requests[i].stop))
                for i, row in zip(batch, new, strict=True)
            ]


def _seeded(request: GenerationRequest) -> SamplingOptions:
    if not request.options.do_sample:
        return request.options
    return replace(request.options, seed=int(request.key[:15], 16) ^ request.options.seed)
