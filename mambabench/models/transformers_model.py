"""Any causal language model of transformers behind the protocol of `mambabench.models.base`.

Example:

    model = TransformersModel(module, tokenizer, record)
    model.logits(torch.tensor([[1, 2, 3]]), keep=1).shape      # [1, 1, vocab_size]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from mambabench.errors import UsageError
from mambabench.models.base import SamplingOptions, check_numbers
from mambabench.models.launch_limits import limits_of
from mambabench.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mambabench.models.stateful import StatefulModel
    from mambabench.schema import CheckpointRecord

Stop = Callable[[int, Sequence[int]], bool]


class TransformersModel:
    """A loaded model of transformers; see `mambabench.models.base.LoadedModel` for the methods' contract."""

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        record: CheckpointRecord,
        *,
        stateful: StatefulModel | None = None,
    ) -> None:
        self.stateful = stateful
        # transformers leaves parts of its interface untyped.
        self.module: Any = module
        self.module.train(mode=False)
        self.tokenizer = tokenizer
        self.record = record
        self.device = torch.device(record.device)
        self.vocab_size = record.vocab_rows_used
        self.max_length = record.max_length_tokens
        # What a checkpoint's author recommends for chatting must not leak into an evaluation.
        self.module.generation_config = _generation_config()
        parameters = inspect.signature(module.forward).parameters
        self._keeps_logits = "logits_to_keep" in parameters
        self.limits = limits_of(module, self.device)

    def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
        """Forward a right-padded batch [B, L]; return the last `keep` positions' logits [B, keep, V].

        Raises:
            UsageError: a row is longer than mamba_ssm's kernels, which transformers calls, can address.
        """
        if not 1 <= keep <= input_ids.shape[1]:
            raise ValueError(f"keep is {keep}, the batch is {input_ids.shape[1]} tokens long")
        options = {"logits_to_keep": keep} if self._keeps_logits else {}
        found: list[torch.Tensor] = []
        with torch.inference_mode():
            for rows in self.limits.parts(*input_ids.shape, name=self.record.name):
                found.append(self.module(input_ids=input_ids[rows], use_cache=False, **options).logits)
        output = found[0] if len(found) == 1 else torch.cat(found)
        return output[:, -keep:, : self.vocab_size]

    def generate(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        stop: Stop,
        eos_ids: Sequence[int],
    ) -> list[list[int]]:
        """Continue equally long prompts [B, L]; see the protocol for `stop` and `eos_ids`."""
        rows = input_ids.shape[0]
        if options.extra.get("num_beams", 1) != 1:
            raise UsageError("beam search is not supported: each prompt gets one text, token by token")
        if max_new_tokens < 1:
            return [[] for _ in range(rows)]
        config = self._generation_config(max_new_tokens, options)
        devices = [self.device] if self.device.type == "cuda" else []
        found: list[list[int]] = []
        for part in self.limits.parts(*input_ids.shape, name=self.record.name):
            prompts = input_ids[part]
            watcher = _RowWatcher(prompts.shape[0], stop, frozenset(eos_ids), first_row=part.start)
            with quiet(), torch.random.fork_rng(devices=devices), torch.inference_mode():
                # A seed of its own, or one prompt in two parts would get one text.
                torch.manual_seed(options.seed + part.start)
                self.module.generate(
                    prompts,
                    attention_mask=torch.ones_like(prompts),
                    generation_config=config,
                    stopping_criteria=StoppingCriteriaList([watcher]),
                    logits_processor=LogitsProcessorList([_RefuseNaN()]),
                )
            found += watcher.new_ids
        return found

    def _generation_config(self, max_new_tokens: int, options: SamplingOptions) -> GenerationConfig:
        chosen: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "do_sample": options.do_sample,
            # Rows end by the watcher; what is generated after a row's end is thrown away.
            "pad_token_id": 0,
            "repetition_penalty": options.repetition_penalty,
            **options.extra,
        }
        if options.do_sample:
            chosen |= {"temperature": options.temperature, "top_p": options.top_p, "min_p": options.min_p}
            # transformers would otherwise keep the best 50.
            chosen["top_k"] = 0 if options.top_k is None else options.top_k
        stored = self.record.vocab_rows_stored
        if stored > self.vocab_size:
            padded = list(range(self.vocab_size, stored))
            chosen["suppress_tokens"] = [*chosen.get("suppress_tokens", []), *padded]
        return _generation_config(**{k: v for k, v in chosen.items() if v is not None})


def _generation_config(**options: Any) -> GenerationConfig:
    make: Any = GenerationConfig
    config: GenerationConfig = make(**options)
    return config


class _RefuseNaN(LogitsProcessor):
    """Ends generation when logits are not numbers; the largest of them would otherwise be some token."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        check_numbers(scores)
        return scores


class _RowWatcher(StoppingCriteria):
    """Ends each row by its own rule and keeps what the row had generated until then."""

    def __init__(self, rows: int, stop: Stop, eos_ids: frozenset[int], *, first_row: int) -> None:
        self._first = first_row
        self.new_ids: list[list[int]] = [[] for _ in range(rows)]
        self._open = [True] * rows
        self._stop = stop
        self._eos_ids = eos_ids

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self._open[row]:
                self.new_ids[row].append(token)
                ended = token in self._eos_ids or self._stop(self._first + row, self.new_ids[row])
                self._open[row] = not ended
        return torch.tensor([not is_open for is_open in self._open], device=input_ids.device)
