"""The next token, chosen as transformers chooses it, for models whose generation loop is our own.

Example:

    Sampler(SamplingOptions(), torch.device("cpu")).choose(logits, ids)      # greedy: the largest logit

`Sampler` draws for a batch as a whole. `RowSamplers` draws for each row by itself, so that what a row
draws does not depend on the rows beside it:

    samplers = RowSamplers([SamplingOptions(do_sample=True, seed=1), SamplingOptions()])
    samplers.choose(logits, rows=[1], seen=lambda row: ids[row])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        UsageError: `options` asks for something that this loop does not do, or that cannot be.
    """

    def __init__(self, options: SamplingOptions, device: torch.device) -> None:
        self._how = _How.of(options)
        self._generator = torch.Generator(device=device).manual_seed(options.seed)

    def choose(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the next ids [B].

        Args:
            logits: [B, V] of the last position.
            ids: int64 [B, L], prompt and generated tokens so far.

        Raises:
            NotANumberError: logits are NaN.
        """
        scores = logits.float()
        check_numbers(scores)
        for processor in (*self._how.penalties, *self._how.warpers):
            scores = processor(ids, scores)
        if not self._how.do_sample:
            return scores.argmax(dim=-1)
        return torch.multinomial(scores.softmax(dim=-1), 1, generator=self._generator)[:, 0]


class RowSamplers:
    """Chooses next tokens for rows that each have options and a random generator of their own.

    A sampled row uses up exactly one random number a token, made on the CPU wherever the logits are, so
    that a seed means the same draws in any batch, in any order and on any device.

    Args:
        options: of each row; `seed` seeds its generator.

    Raises:
        UsageError: as `Sampler`.
    """

    def __init__(self, options: Sequence[SamplingOptions]) -> None:
        known: dict[tuple[object, ...], _How] = {}
        self._how: list[_How] = []
        for row in options:
            key = (row.do_sample, row.temperature, row.top_k, row.top_p, row.min_p, row.repetition_penalty)
            if row.extra or key not in known:
                known[key] = _How.of(row)
            self._how.append(known[key])
        self._generators = [torch.Generator().manual_seed(o.seed) if o.do_sample else None for o in options]

    def choose(
        self, logits: torch.Tensor, rows: Sequence[int], seen: Callable[[int], Sequence[int]]
    ) -> list[int]:
        """Return the next id of each of the given rows.

        Args:
            logits: [n, V] of those rows' last positions.
            rows: which rows they are.
            seen: returns a row's prompt and generated ids so far; asked only for rows with a penalty.

        Raises:
            NotANumberError: logits are NaN.
        """
        scores = logits.float()
        check_numbers(scores)
        together: dict[_How, list[int]] = {}
        for place, row in enumerate(rows):
            together.setdefault(self._how[row], []).append(place)
        chosen = [0] * len(rows)
        for how, places in together.items():
            mine = scores if len(together) == 1 else scores[places]
            tokens = self._chosen(how, mine, [rows[place] for place in places], seen)
            for place, token in zip(places, tokens, strict=True):
                chosen[place] = token
        return chosen

    def _chosen(
        self, how: _How, scores: torch.Tensor, rows: list[int], seen: Callable[[int], Sequence[int]]
    ) -> list[int]:
        for penalty in how.penalties:
            # Row by row: texts of different lengths would need padding, which the penalty would count.
            scores = torch.cat(
                [
                    penalty(torch.tensor([list(seen(row))], device=scores.device), scores[k : k + 1])
                    for k, row in enumerate(rows)
                ]
            )
        for warper in how.warpers:
            scores = warper(None, scores)
        if not how.do_sample:
            return [int(token) for token in scores.argmax(dim=-1).tolist()]
        uniform = [torch.rand(1, dtype=torch.float64, generator=self._generators[row]) for row in rows]
        return [int(token) for token in draw(scores, torch.cat(uniform)).tolist()]


def draw(scores: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw an id from each row's softmax by inverting its distribution function.

    Args:
        scores: [n, V]; ids of minus infinity are never drawn.
        uniform: float64 [n], in [0, 1).

    Returns:
        int64 [n].
    """
    # In 64 bits, where a sum over any vocabulary is exact enough that no id gains by its place.
    reached = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    # Below the sum also after rounding, since `uniform` is below 1: the id found is one that adds to it.
    aim = uniform.to(scores.device)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, aim, right=True)[:, 0]


@dataclass(frozen=True, eq=False)
class _How:
    """Transformers' processors for some options, in its order."""

    do_sample: bool
    penalties: tuple[Any, ...]
    """Those that look at a row's text so far."""
    warpers: tuple[Any, ...]
    """Those that look at the scores alone."""

    @classmethod
    def of(cls, options: SamplingOptions) -> _How:
        from transformers.generation import logits_process as lp

        if options.extra:
            raise UsageError(f"generation options not supported here: {', '.join(sorted(options.extra))}")
        penalties: list[Any] = []
        warpers: list[Any] = []
        try:
            if options.repetition_penalty is not None and options.repetition_penalty != 1.0:
                penalties.append(lp.RepetitionPenaltyLogitsProcessor(float(options.repetition_penalty)))
            if options.do_sample:
                # In transformers' order: a cut by probability sees what temperature made of it.
                if options.temperature != 1.0:
                    warpers.append(lp.TemperatureLogitsWarper(float(options.temperature)))
                if options.top_k:
                    warpers.append(lp.TopKLogitsWarper(top_k=options.top_k))
                if options.top_p is not None and options.top_p < 1.0:
                    warpers.append(lp.TopPLogitsWarper(top_p=options.top_p))
                if options.min_p is not None:
                    warpers.append(lp.MinPLogitsWarper(min_p=options.min_p))
        except ValueError as error:
            raise UsageError(
                f"bad generation option: {str(error).splitlines()[0]}",
                hint="Options and their ranges are those of transformers' GenerationConfig.",
            ) from error
        return cls(options.do_sample, tuple(penalties), tuple(warpers))
