"""Do an arm's steps say what the model as shipped says? Asked before the arm is timed.

    require_agreement(decoder, model, arm="graph")

Random ids are forced upon the arm one by one, and the logits of each step are held against those of the
shipped forward over the whole sequence. Batches of several sizes are tried, since other programs run in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mambabench.errors import CertificateError

if TYPE_CHECKING:
    from torch import Tensor

    from mambabench.bench.decoders import Decoder
    from mambabench.models.base import LoadedModel

TOLERANCE = {"float32": 0.002, "float16": 0.02, "bfloat16": 0.15}
"""Largest disagreement by dtype. Rounding alone gives about 1e-5, 2e-3 and 2e-2 of models of usual depth."""
PROMPT_TOKENS = 24
BATCHES = ((2, 16), (1, 4), (8, 4), (20, 4))
"""(sequences, steps) of each. A processor has one program for a row, one for up to 4, one for up to 16 and
one for more; libraries on a GPU choose by size, too."""


def disagreement(decoder: Decoder, model: LoadedModel, ids: Tensor, *, prompt_len_tokens: int) -> float:
    """Return how far an arm's logits are from the shipped forward's, at most.

    Args:
        decoder: of the arm.
        model: whose plain forward over the whole sequences is the judge.
        ids: [B, L + n]; the first L are prefilled, the others are stepped.
        prompt_len_tokens: L.

    Returns:
        Of the position where it is largest: the root of the mean squared difference of the logits, in
        standard deviations of the shipped ones.
    """
    rows, length = ids.shape
    decoder.prepare(
        batch_size=rows,
        prompt_len_tokens=prompt_len_tokens,
        gen_len_tokens=length - prompt_len_tokens + 1,
    )
    decoder.prefill(ids[:, :prompt_len_tokens])
    stepped = [decoder.logits.float().clone()]
    for at in range(prompt_len_tokens, length):
        decoder.step(ids[:, at])
        stepped.append(decoder.logits.float().clone())
    with torch.inference_mode():
        whole = model.logits(ids, len(stepped)).float()
    difference = torch.stack(stepped, dim=1) - whole
    of_each = difference.pow(2).mean(dim=2).sqrt() / whole.std(dim=2)
    return float(of_each.max())


def require_agreement(decoder: Decoder, model: LoadedModel, *, arm: str, seed: int = 0) -> float:
    """Check an arm on random ids and return its disagreement, the largest of all batches.

    Raises:
        CertificateError: the arm computes something else than the model as shipped.
    """
    generator = torch.Generator().manual_seed(seed)
    bar = TOLERANCE[str(model.record.dtypes.get("matmul", "float32"))]
    worst = 0.0
    for rows, steps in BATCHES:
        shape = (rows, PROMPT_TOKENS + steps)
        ids = torch.randint(decoder.vocab_size, shape, generator=generator).to(decoder.device)
        found = disagreement(decoder, model, ids, prompt_len_tokens=PROMPT_TOKENS)
        # NaN must not pass.
        if not found <= bar:
            raise CertificateError(
                f"{model.record.name}: the logits of the {arm} arm are {found:.2g} standard deviations from "
                f"those of the shipped forward in a batch of {rows}, more than {bar:g}",
                hint="Its figures would be those of another computation. `--no-verify` insists on them.",
            )
        worst = max(worst, found)
    return worst
