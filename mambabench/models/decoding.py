"""The token-by-token loop of the models whose generation is our own: choose, watch for the end, go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from mambabench.models.sampling import Sampler

if TYPE_CHECKING:
    from mambabench.models.base import SamplingOptions


def decode(
    step: Callable[[torch.Tensor], torch.Tensor],
    input_ids: torch.Tensor,
    *,
    max_new_tokens: int,
    options: SamplingOptions,
    stop: Callable[[int, Sequence[int]], bool],
    eos_ids: Sequence[int],
) -> list[list[int]]:
    """Continue equally long prompts; see `mambabench.models.base.LoadedModel.generate`.

    Args:
        step: given the prompts [B, L] first and the chosen ids [B, 1] after that, it returns the last
            position's logits [B, V]; what came before it remembers itself.
        input_ids: int64 [B, L].
        max_new_tokens: most tokens to add to each row.
        options: how to choose them.
        stop: called with (row, new ids of that row so far) after each step; True ends the row.
        eos_ids: ids that end a row.

    Raises:
        UsageError: for options that only transformers' own generation knows.
        NotANumberError: when logits are NaN.
    """
    sampler = Sampler(options, input_ids.device)
    new_ids: list[list[int]] = [[] for _ in range(input_ids.shape[0])]
    is_open = [True] * len(new_ids)
    ids = chosen = input_ids
    for _ in range(max_new_tokens):
        chosen = sampler.choose(step(chosen), ids)[:, None]
        ids = torch.cat([ids, chosen], dim=1)
        for row, token in enumerate(chosen[:, 0].tolist()):
            if is_open[row]:
                new_ids[row].append(token)
                is_open[row] = token not in eos_ids and not stop(row, new_ids[row])
        if not any(is_open):
            break
    return new_ids
