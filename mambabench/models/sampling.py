"""The next token, chosen as transformers chooses it, for models whose generation loop is our own.

Example:

    Sampler(SamplingOptions(), torch.device("cpu")).choose(logits, ids)      # greedy: the largest logit
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mambabench.errors import UsageError
from mambabench.models.base import check_numbers

if TYPE_CHECKING:
    from mambabench.models.base import SamplingOptions


class Sampler:
    """Chooses the next token of each row; transformers' own processors do the arithmetic.

    Args:
        options: how to choose.
        device: where the logits are.

    Raises:
        UsageError: `options.extra` asks for something that this loop does not do.
    """

    def __init__(self, options: SamplingOptions, device: torch.device) -> None:
        from transformers.generation import logits_process as lp

        if options.extra:
            raise UsageError(f"generation options not supported here: {', '.join(sorted(options.extra))}")
        self._sample = options.do_sample
        self._processors: list[Any] = []
        if options.repetition_penalty not in (None, 1.0):
            self._processors.append(lp.RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
        if options.do_sample:
            # In transformers' order: a cut by probability sees what temperature made of it.
            if options.temperature != 1.0:
                self._processors.append(lp.TemperatureLogitsWarper(options.temperature))
            if options.top_k:
                self._processors.append(lp.TopKLogitsWarper(top_k=options.top_k))
            if options.top_p is not None and options.top_p < 1.0:
                self._processors.append(lp.TopPLogitsWarper(top_p=options.top_p))
            if options.min_p is not None:
                self._processors.append(lp.MinPLogitsWarper(min_p=options.min_p))
        self._generator = torch.Generator(device=device).manual_seed(options.seed)

    def choose(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the next ids [B].

        Args:
            logits: [B, V] of the last position.
            ids: int64 [B, L], prompt and generated tokens so far.
        """
        scores = logits.float()
        check_numbers(scores)
        for processor in self._processors:
            scores = processor(ids, scores)
        if not self._sample:
            return scores.argmax(dim=-1)
        return torch.multinomial(scores.softmax(dim=-1), 1, generator=self._generator)[:, 0]
