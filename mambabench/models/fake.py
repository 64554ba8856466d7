"""A model without weights: logits that depend on every token of the prefix, computed from its ids alone.

It implements `mambabench.models.base.LoadedModel`, so that scoring and generation can be tried in
milliseconds and checked against a formula that fits in a line.

    >>> model = FakeModel()
    >>> import torch
    >>> model.logits(torch.tensor([[1, 2, 3]]), keep=2).shape
    torch.Size([1, 2, 257])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from mambabench.fingerprint import digest
from mambabench.models.decoding import decode
from mambabench.schema import CheckpointRecord, TokenizerRecord

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mambabench.models.base import SamplingOptions
    from mambabench.models.stateful import StatefulModel

_MODULUS = 1_000_003
_MULTIPLIER = 31
_GOLDEN = (1 + 5**0.5) / 2
EOS = "<|endoftext|>"


@cache
def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer with one token a byte and one that ends a text: 257 ids, any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {EOS: 0} | {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 1)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerBase = make(tokenizer_object=backend, eos_token=EOS, bos_token=EOS)
    return tokenizer


class FakeModel:
    """A deterministic model.

    A prefix with rolling hash h gives id v the logit 8 frac(h (v + 1) g + seed / 7) - 4, where g is the
    golden ratio, so that the logits spread evenly between -4 and 4.

    Args:
        seed: another seed is another model.
        max_length: longest window in tokens.
    """

    def __init__(self, seed: int = 0, max_length: int = 2048) -> None:
        self.stateful: StatefulModel | None = None
        self.tokenizer = byte_tokenizer()
        self.device = torch.device("cpu")
        self.vocab_size = 257
        self.max_length = max_length
        self.seed = seed
        tokenizer = TokenizerRecord(source="bundled", sha256=digest("fake"), n_tokens=self.vocab_size)
        self.record = CheckpointRecord(
            name="fake",
            family="fake",
            weights="random",
            seed=seed,
            implementation="mambabench FakeModel",
            kernel_path="none",
            device="cpu",
            device_name="",
            dtypes={},
            n_parameters=0,
            vocab_rows_stored=self.vocab_size,
            vocab_rows_used=self.vocab_size,
            max_length_tokens=max_length,
            tokenizer=tokenizer,
            files=(),
        )

    def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
        """Return float32 [B, keep, 257] for ids [B, L]."""
        if not 1 <= keep <= input_ids.shape[1]:
            raise ValueError(f"keep is {keep}, the batch is {input_ids.shape[1]} tokens long")
        hashes = torch.zeros_like(input_ids)
        state = torch.zeros_like(input_ids[:, 0])
        for position in range(input_ids.shape[1]):
            state = (state * _MULTIPLIER + input_ids[:, position] + 1) % _MODULUS
            hashes[:, position] = state
        rows = torch.arange(1, self.vocab_size + 1, dtype=torch.float64)
        phases = hashes[:, -keep:, None].double() * rows * _GOLDEN + self.seed / 7
        return (8.0 * torch.frac(phases) - 4.0).float()

    def generate(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        stop: Callable[[int, Sequence[int]], bool],
        eos_ids: Sequence[int],
    ) -> list[list[int]]:
        """Continue equally long prompts [B, L] token by token."""
        seen = input_ids[:, :0]

        def step(ids: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            seen = torch.cat([seen, ids], dim=1)
            return self.logits(seen, 1)[:, -1]

        return decode(
            step, input_ids, max_new_tokens=max_new_tokens, options=options, stop=stop, eos_ids=eos_ids
        )
