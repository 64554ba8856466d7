"""mamba_ssm's own `MambaLMHeadModel` on CUDA behind the protocol of `mambabench.models.base`.

Its `generate` ignores stop strings, ends only when all rows end on one step and pads on the left without
a mask, so the loop here is our own: one prefill, then one token a step with its recurrent state. That state
lives for one call, and nothing is kept on the module, where its own `generate` keeps recorded graphs.

Its compiled scan takes A, D and the bias of the step sizes in float32 alone, and inputs, B, C and gate in one
dtype, which its Mamba-1 sees to. Its convolution and Mamba-2's kernels widen each tensor on their own. So a
model is in any dtype with the recurrence's parameters in float32, and its residual stream as its
configuration says. Read in mamba_ssm 2.3.1 and 2.3.2; on a GPU none of this has run here.

    model = OfficialModel(module, tokenizer, record)
    model.logits(torch.tensor([[1, 2, 3]], device="cuda"), keep=1)
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mambabench.errors import CheckpointError, ExtraMissingError, UsageError
from mambabench.models.base import SamplingOptions
from mambabench.models.decoding import decode
from mambabench.models.launch_limits import limits_of
from mambabench.models.record import FP32_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mambabench.models.stateful import StatefulModel
    from mambabench.schema import CheckpointRecord

_MODELS, _CONFIGS = "mamba_ssm.models.mixer_seq_simple", "mamba_ssm.models.config_mamba"
_GENERATION = "mamba_ssm.utils.generation"
_SCAN = "mamba_ssm.ops.selective_scan_interface"
_FUSED = ("use_fast_path", "use_mem_eff_path")
# Earlier versions have the second name.
_CONVOLUTIONS = ("causal_conv1d_fwd_function", "causal_conv1d_cuda")
_WAY_OUT = "`mambabench doctor --path official` says what helps."
_NO_LIMIT = (0.0, float("inf"))


def is_installed() -> bool:
    """Tell whether mamba_ssm can be found, without importing it."""
    return importlib.util.find_spec("mamba_ssm") is not None


def require() -> None:
    """Import mamba_ssm's model, and see that it has what is needed of it here.

    Raises:
        ExtraMissingError: it does not import, as where its extension was compiled for another PyTorch, or it
            is too old.
    """
    try:
        models, generation = importlib.import_module(_MODELS), importlib.import_module(_GENERATION)
    except Exception as error:
        # Loaders of compiled code raise more than ImportError.
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExtraMissingError(
            f"mamba-ssm is installed and does not import: {detail}", hint=_WAY_OUT
        ) from error
    has = {
        "num_last_tokens": "num_last_tokens" in inspect.signature(models.MambaLMHeadModel.forward).parameters,
        "InferenceParams": hasattr(generation, "InferenceParams"),
    }
    if lacking := [name for name, is_there in has.items() if not is_there]:
        raise ExtraMissingError(
            f"mamba-ssm {_version()} is too old: it has no {' and no '.join(lacking)}", hint=_WAY_OUT
        )


def _version() -> str:
    return str(getattr(sys.modules.get("mamba_ssm"), "__version__", "of an unknown version"))


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
        ExtraMissingError: mamba_ssm, or what it needs for this architecture, cannot be imported, or it is too
            old for it.
        CheckpointError: the state does not fit the configuration.
    """
    require()
    models, kind = importlib.import_module(_MODELS), importlib.import_module(_CONFIGS).MambaConfig
    if unknown := sorted(set(config) - {field.name for field in dataclasses.fields(kind)}):
        raise ExtraMissingError(
            f"mamba-ssm {_version()} does not know {', '.join(unknown)} of config.json", hint=_WAY_OUT
        )
    # Drawing numbers that are overwritten takes a CPU longer than reading the weights.
    where = {} if state is None else {"device": device, "dtype": dtype}
    try:
        module = models.MambaLMHeadModel(kind(**config), **where)
    except (ImportError, AssertionError) as error:
        raise ExtraMissingError(
            f"mamba-ssm cannot build this model: {error}",
            hint=f"Attention layers with rotary positions need flash-attn. {_WAY_OUT}",
        ) from error
    for name, parameter in module.named_parameters():
        wanted = torch.float32 if name.rpartition(".")[2] in FP32_NAMES else dtype
        parameter.data = parameter.data.to(device=device, dtype=wanted)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)
    if state is not None:
        # Now that the recurrence's parameters have their width, or they would be rounded on the way.
        _load(module, state, tied=bool(config.get("tie_embeddings", True)))
    module.tie_weights()
    _unfuse_without_convolution(module)
    built: torch.nn.Module = module.eval()
    return built


def _unfuse_without_convolution(module: torch.nn.Module) -> None:
    """Keep layers from a fused form that calls causal-conv1d, where mamba_ssm did not find it.

    An absent or broken causal-conv1d is passed over when mamba_ssm is imported. Mamba-1 asks for it before it
    takes the fused form; Mamba-2 does not, and fails in its first forward.
    """
    scan = importlib.import_module(_SCAN)
    if any(getattr(scan, name, None) is not None for name in _CONVOLUTIONS):
        return
    for part in module.modules():
        for name in _FUSED:
            if hasattr(part, name):
                setattr(part, name, False)


def kernel_path(module: torch.nn.Module) -> str:
    """Return what computes a model of mamba_ssm, for its record; less is fused without causal-conv1d."""
    fused = all(getattr(part, name, True) for part in module.modules() for name in _FUSED)
    return "mamba_ssm CUDA" if fused else "mamba_ssm CUDA, not fused"


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


def steps_differ(module: torch.nn.Module) -> str:
    """Say why mamba_ssm's steps of one token fail or differ from its forward; empty where they do neither.

    Read in its sources, and seen with them on a CPU: `Mamba2.step` does not limit the step sizes as the
    forward does, and takes one D a head only; attention with a convolution takes the convolved columns of
    the prompt for the window of what it convolves next; and without flash-attn a step's query sees the first
    key alone, since torch's causal mask begins at the first key.
    """
    for part in module.modules():
        if tuple(getattr(part, "dt_limit", _NO_LIMIT)) != _NO_LIMIT:
            return "its Mamba-2 forgets the limits of the step sizes in steps of one token"
        if getattr(part, "D_has_hdim", False):
            return "its Mamba-2 has no steps of one token for a D a channel"
        if not hasattr(part, "rotary_emb_dim"):
            continue
        if getattr(part, "d_conv", 0):
            return "its attention with a convolution begins steps of one token with a wrong window"
        if getattr(sys.modules[type(part).__module__], "flash_attn_with_kvcache", None) is None:
            return "its attention sees the first token alone in steps of one token, without flash-attn"
    return ""


class OfficialModel:
    """A loaded `MambaLMHeadModel`; see `mambabench.models.base.LoadedModel` for the methods' contract.

    Args:
        module: on its device.
        tokenizer: its tokenizer.
        record: what was loaded.
        stateful: the model as a function of a state, over the same weights.
        reference: a model over the same weights that can be run in 64 bits.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        record: CheckpointRecord,
        *,
        stateful: StatefulModel | None = None,
        reference: torch.nn.Module | None = None,
    ) -> None:
        self.stateful = stateful
        self.reference = reference
        self.module = module
        self.tokenizer = tokenizer
        self.record = record
        self.device = torch.device(record.device)
        self.vocab_size = record.vocab_rows_used
        self.max_length = record.max_length_tokens
        self.limits = limits_of(module, self.device)

    def logits(self, input_ids: torch.Tensor, keep: int) -> torch.Tensor:
        """Forward a right-padded batch [B, L]; return the last `keep` positions' logits [B, keep, V].

        Raises:
            UsageError: a row is longer than the kernels can address.
        """
        if not 1 <= keep <= input_ids.shape[1]:
            raise ValueError(f"keep is {keep}, the batch is {input_ids.shape[1]} tokens long")
        found: list[torch.Tensor] = []
        with torch.inference_mode():
            for rows in self.limits.parts(*input_ids.shape, name=self.record.name):
                found.append(self.module(input_ids[rows], num_last_tokens=keep).logits)
        output = found[0] if len(found) == 1 else torch.cat(found)
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
        """Continue equally long prompts [B, L]; see the protocol for `stop` and `eos_ids`.

        Raises:
            UsageError: a prompt is longer than the kernels can address, or mamba_ssm's steps are wrong.
        """
        if why := steps_differ(self.module):
            raise UsageError(
                f"{self.record.name}: mamba-ssm cannot continue a text: {why}",
                hint="`--engine shared` continues it.",
            )
        generation = importlib.import_module(_GENERATION)
        found: list[list[int]] = []
        for rows in self.limits.parts(*input_ids.shape, name=self.record.name):
            prompts = input_ids[rows]
            state = generation.InferenceParams(
                max_seqlen=prompts.shape[1] + max_new_tokens, max_batch_size=prompts.shape[0]
            )

            def step(ids: torch.Tensor, state: Any = state) -> torch.Tensor:
                scores = self._step(ids, state)
                state.seqlen_offset += ids.shape[1]
                return scores

            def ends(row: int, new_ids: Sequence[int], first: int = rows.start) -> bool:
                return stop(first + row, new_ids)

            # A seed of its own, or one prompt in two parts would get one text.
            seeded = dataclasses.replace(options, seed=options.seed + rows.start)
            with torch.inference_mode():
                found += decode(
                    step,
                    prompts,
                    max_new_tokens=max_new_tokens,
                    options=seeded,
                    stop=ends,
                    eos_ids=eos_ids,
                )
        return found

    def _step(self, ids: torch.Tensor, state: Any) -> torch.Tensor:
        """Forward the prompt or one token; return the last position's logits [B, V]."""
        positions = None
        if state.seqlen_offset > 0:
            positions = torch.full_like(ids, state.seqlen_offset)
        output: torch.Tensor = self.module(
            ids, position_ids=positions, inference_params=state, num_last_tokens=1
        ).logits
        return output[:, -1, : self.vocab_size]
