"""Do an arm's steps say what the model as shipped says? Asked before the arm is timed.

A wrong state shows in the ids that are chosen: the shipped forward over the whole sequence would give them
logits far below its largest.

    worst = regret(decoder, model, prompts, n_tokens=16)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mambabench.errors import CertificateError

if TYPE_CHECKING:
    from torch import Tensor

    from mambabench.bench.decoders import Decoder
    from mambabench.models.base import LoadedModel

TOLERANCE = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.3}
"""Largest regret by dtype, in standard deviations of a position's logits; unrelated ids have about 4."""
PROMPT_TOKENS, TOKENS = 24, 16


def regret(decoder: Decoder, model: LoadedModel, prompts: Tensor, *, n_tokens: int = TOKENS) -> float:
    """Return by how much the chosen ids fall short of the best ones, at most.

    Args:
        decoder: greedy.
        model: whose plain forward over the whole sequences is the judge.
        prompts: ids [B, L].
        n_tokens: to generate.

    Returns:
        The largest difference between a position's largest logit and that of the chosen id, in standard
        deviations of the position's logits.
    """
    rows, length = prompts.shape
    decoder.prepare(batch_size=rows, prompt_len_tokens=length, gen_len_tokens=n_tokens)
    ids = decoder.prefill(prompts)
    chosen = [ids.clone()]
    for _ in range(n_tokens - 1):
        ids = decoder.step(ids)
        chosen.append(ids.clone())
    new = torch.stack(chosen, dim=1)
    with torch.inference_mode():
        logits = model.logits(torch.cat([prompts, new], dim=1), n_tokens + 1)[:, :-1].float()
    of_chosen = logits.gather(2, new[:, :, None])[:, :, 0]
    missed = (logits.max(dim=2).values - of_chosen) / logits.std(dim=2)
    return float(missed.max())


def require_agreement(decoder: Decoder, model: LoadedModel, *, arm: str, seed: int = 0) -> float:
    """Check an arm on random prompts and return its regret.

    Raises:
        CertificateError: the arm decodes something else than the model as shipped.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(decoder.vocab_size, (2, PROMPT_TOKENS), generator=generator).to(decoder.device)
    found = regret(decoder, model, prompts)
    bar = TOLERANCE[str(model.record.dtypes.get("matmul", "float32"))]
    # NaN must not pass.
    if not found <= bar:
        raise CertificateError(
            f"{model.record.name}: the {arm} arm chooses ids that fall {found:.2g} standard deviations short "
            f"of the shipped forward's best, more than {bar:g}",
            hint="Its figures would be those of another computation. `--no-verify` insists on them.",
        )
    return found
