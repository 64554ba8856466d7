"""mamba_ssm's own `MambaLMHeadModel` on CUDA behind the protocol of `mambabench.models.base`.

Its `generate` ignores stop strings, ends only when all rows end on one step and pads on the left without
a mask, so the loop here is our own: one prefill, then one token a step with its recurrent state.

    model = OfficialModel(module, tokenizer, record)
    model.logits(torch.tensor([[1, 2, 3]], device="cuda"), keep=1)
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mambabench.errors import CheckpointError, ExtraMissingError
from mambabench.models.base import SamplingOptions
from mambabench.models.decoding import decode
from mambabench.models.record import FP32_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mambabench.models.stateful import StatefulModel
    from mambabench.schema import CheckpointRecord


def is_installed() -> bool:
    """Tell whether mamba_ssm can be found, without importing it."""
    return importlib.util.find_spec("mamba_ssm") is not None


def build(
    config: dict[str, Any], state: dict[str, torch.Tensor] | None, *, device: torch.device, dtype: torch.dtype
) -> torch.nn.Module:
    """Build a `MambaLMHeadModel`.

    Args:
        config: mamba_ssm's configuration.
        state: its state dict, or None for its own random initialisation.
        device: where it goes.
        dtype: of everything but the recurrence's parameters, which keep fp32.

    Raises:
        ExtraMissingError: mamba_ssm, or what it needs for this architecture, cannot be imported.
        CheckpointError: the state does not fit the configuration.
    """
    try:
        models = importlib.import_module("mamba_ssm.models.mixer_seq_simple")
        configs = importlib.import_module("mamba_ssm.models.config_mamba")
        module = models.MambaLMHeadModel(configs.MambaConfig(**config))
    except (ImportError, AssertionError) as error:
        raise ExtraMissingError(
            f"mamba-ssm cannot build this model: {error}",
            hint="Install `mambabench[cuda]`; attention layers with rotary positions need flash-attn too.",
        ) from error
    if state is not None:
        _load(module, state, tied=bool(config.get("tie_embeddings", True)))
    for name, parameter in module.named_parameters():
        wanted = torch.float32 if name.rpartition(".")[2] in FP32_NAMES else dtype
        parameter.data = parameter.data.to(device=device, dtype=wanted)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)
    module.tie_weights()
    built: torch.nn.Module = module.eval()
    return built


def _load(module: Any, state: dict[str, torch.Tensor], *, tied: bool) -> None:
    known = {k: v for k, v in state.items() if not k.endswith("rotary_emb.inv_freq")}
    if tied and "lm_head.weight" not in known and "backbone.embedding.weight" in known:
        known["lm_head.weight"] = known["backbone.embedding.weight"]
    try:
        result = module.load_state_dict(known, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights do not fit config.json: {str(error).splitlines()[-1].strip()}"
        ) from error
    missing = [k for k in result.missing_keys if not k.endswith("rotary_emb.inv_freq")]
    if missing or result.unexpected_keys:
        raise CheckpointError(describe_mismatch(missing, result.unexpected_keys))


def describe_mismatch(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Say in one line which parameters are absent and which are unknown."""
    parts = []
    for word, names in (("lacks", sorted(missing)), ("has unknown", sorted(unexpected))):
        if names:
            listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            parts.append(f"{word} {listed}")
    return f"the weights do not fit config.json: the checkpoint {' and '.join(parts)}"


class OfficialModel:
    """A loaded `MambaLMHeadModel`; see `mambabench.models.base.LoadedModel` for the methods' contract.

    Args:
        module: on its device.
        tokenizer: its tokenizer.
        record: what was loaded.
        stateful: the model as a function of a state, over the same weights.
        reference: transformers' model over the same weights, which can be run in 64 bits.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        record: CheckpointRecord,
        *,
        stateful: StatefulModel | None = None,
        reference: PreTrainedModel | None = None,
    ) -> None:
        self.stateful = stateful
        self.reference = reference
        self.module = module
        self.tokenizer = tokenizer
        self.record = record
        self.device = torch.device(record.device)
        self.vocab_size = record.vocab_rows_used
        self.max_length = record.max_length_tokens

    def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
        """Forward a right-padded batch [B, L]; return the last `keep` positions' logits [B, keep, V]."""
        if not 1 <= keep <= input_ids.shape[1]:
            raise ValueError(f"keep is {keep}, the batch is {input_ids.shape[1]} tokens long")
        with torch.inference_mode():
            output: torch.Tensor = self.module(input_ids, num_last_tokens=keep).logits
        return output[..., : self.vocab_size]

    def generate(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        stop: Callable[[int, Sequence[int]], bool],
        eos_ids: Sequence[int],
    ) -> list[list[int]]:
        """Continue equally long prompts [B, L]; see the protocol for `stop` and `eos_ids`."""
        generation = importlib.import_module("mamba_ssm.utils.generation")
        rows, length = input_ids.shape
        state = generation.InferenceParams(max_seqlen=length + max_new_tokens, max_batch_size=rows)

        def step(ids: torch.Tensor) -> torch.Tensor:
            scores = self._step(ids, state)
            state.seqlen_offset += ids.shape[1]
            return scores

        with torch.inference_mode():
            return decode(
                step,
                input_ids,
                max_new_tokens=max_new_tokens,
                options=options,
                stop=stop,
                eos_ids=eos_ids,
            )

    def _step(self, ids: torch.Tensor, state: Any) -> torch.Tensor:
        """Forward the prompt or one token; return the last position's logits [B, V]."""
        positions = None
        if state.seqlen_offset > 0:
            positions = torch.full_like(ids, state.seqlen_offset)
        output: torch.Tensor = self.module(
            ids, position_ids=positions, inference_params=state, num_last_tokens=1
        ).logits
        return output[:, -1, : self.vocab_size]
