"""Models stepped by the code of their own library, with the library's cache: transformers and mamba_ssm.

    decoder = stepped(module, model, weights_bytes, "sdpa", None)
    decoder.prepare(batch_size=1, prompt_len_tokens=128, gen_len_tokens=64)

After `make_static`, everything that a step changes stays at its address, which a CUDA graph needs: the cache
is sized for the whole of prompt and generated tokens beforehand, and the next ids overwrite the given ones.

Read in transformers 5.17 and 5.23 and mamba_ssm 2.3.1 and 2.3.2, and tried on CPUs alone. A prompt over
transformers' static cache has no mask and reads only its own columns, like one over a dynamic cache; the
host waits once for the cache's length. Steps have a mask of one row over all columns that there is room for,
so that a step of a graph takes as long at the first position as at the last. mamba_ssm keeps its windows and
states in the dtype of the embedding, in its own generation as here. A model of its whose steps of one token
are not what its forward says is refused: what is wrong is not measured, with or without a comparison.
Prompts past `mambabench.models.launch_limits` are refused: a prefill in parts is not what is measured.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mambabench.bench.backends import sdpa_backends
from mambabench.bench.decoders import Choose, drawn, greedy
from mambabench.bench.failures import UnsupportedError
from mambabench.models import official
from mambabench.models.kernel_paths import kernel_path
from mambabench.models.launch_limits import limits_of

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel

_ATTENTION = {"sdpa": "sdpa", "flash": "flash_attention_2", "eager": "eager"}
# With these a forward of several tokens begins at zero, whatever the cache holds.
_FORGET_WHEN_CHUNKED = frozenset({"mamba", "falcon_mamba"})
# The host reads positions in every step of these.
_ROTARY_BY_LENGTH = frozenset({"dynamic", "longrope"})


class SteppedDecoder:
    """What both libraries' decoders share; a subclass forwards ids on from its cache.

    Args:
        module: the library's model.
        model: as it was loaded.
        weights_bytes: of its parameters.
        chunk_tokens: of each sequence that a prefill forwards at once; null for all.
    """

    def __init__(self, module: Any, model: LoadedModel, weights_bytes: int, chunk_tokens: int | None) -> None:
        self.device, self.vocab_size = model.device, model.vocab_size
        self.weights_bytes = weights_bytes
        self.implementation, self.kernel_path = "", ""
        self.logits = torch.empty(0)
        self.static = self.sampled = self.goes_on_in_chunks = False
        self._module = module
        self._limits = limits_of(module, self.device)
        self._chunk = chunk_tokens
        self._choose: Choose = greedy
        self._first: Tensor | None = None
        self._kept: Any = None
        self._tokens = 0
        self._longest = 0

    def make_static(self) -> None:
        """Keep the cache at its addresses from now on.

        Raises:
            UnsupportedError: steps would depend on what the host counts, which a graph does not repeat.
        """
        if why := self._moves():
            raise UnsupportedError(why)
        self.static = True

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Allocate the cache where it is of a fixed size.

        Raises:
            UnsupportedError: the prompts, or as much of them as is forwarded at once, are too many tokens.
        """
        at_once = min(self._chunk or prompt_len_tokens, prompt_len_tokens)
        if why := self._limits.obstacle(batch_size, at_once):
            way_out = "--prefill-chunk forwards fewer at once." if self.goes_on_in_chunks else ""
            raise UnsupportedError(why, hint=way_out)
        # What belongs to the last shape is let go first, so that both are never there together.
        self._kept = self._first = None
        self.logits = torch.empty(0)
        self._forget()
        self._longest = prompt_len_tokens + gen_len_tokens
        if self.sampled:
            self._choose = drawn(batch_size)
        self._allocate(batch_size)

    def prefill(self, prompts: Tensor) -> Tensor:
        """Forward prompts [B, L] from nothing."""
        length = prompts.shape[1]
        chunk = min(self._chunk or length, length)
        self._kept = None
        self._reset()
        self._tokens = 0
        logits = prompts
        for begin in range(0, length, chunk):
            logits = self._advance(prompts[:, begin : begin + chunk])
        self._first = self._choose(logits)
        return self._first

    def step(self, ids: Tensor) -> Tensor:
        """Forward one id of each sequence."""
        return self._choose(self._advance(ids[:, None]))

    def step_in_place(self, ids: Tensor) -> None:
        """Forward one id of each sequence and put the next ones in its place."""
        ids.copy_(self.step(ids))

    def state_bytes(self) -> int:
        """Walk the cache's tensors."""
        return sum({t.data_ptr(): t.numel() * t.element_size() for t in self.state_tensors()}.values())

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence that the cache has room for."""
        return self._longest if self.static else self._tokens

    def state_tensors(self) -> list[Tensor]:
        """Return the tensors of the cache that hold keys, values or states."""
        raise NotImplementedError

    def keep(self) -> None:
        """Copy the cache."""
        assert self._first is not None
        self._kept = self._saved(), self._first.clone(), self._tokens

    def rewind(self) -> Tensor:
        """Go back to the copy, which stays whole."""
        saved, ids, self._tokens = self._kept
        self._restore(saved)
        return torch.clone(ids)

    def _advance(self, ids: Tensor) -> Tensor:
        with torch.inference_mode():
            self.logits = self._forward(ids)
        self._tokens += ids.shape[1]
        return self.logits

    def _moves(self) -> str:
        """Say why a step cannot be recorded; empty when it can."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Let the cache go."""
        raise NotImplementedError

    def _allocate(self, batch_size: int) -> None:
        raise NotImplementedError

    def _reset(self) -> None:
        raise NotImplementedError

    def _forward(self, ids: Tensor) -> Tensor:
        """Forward ids [B, T] on from the cache; return the last position's logits [B, V]."""
        raise NotImplementedError

    def _saved(self) -> Any:
        raise NotImplementedError

    def _restore(self, saved: Any) -> None:
        raise NotImplementedError


class TransformersDecoder(SteppedDecoder):
    """A causal language model of transformers with its cache: dynamic, or static for a graph."""

    def __init__(
        self, module: Any, model: LoadedModel, weights_bytes: int, attention: str, chunk_tokens: int | None
    ) -> None:
        super().__init__(module, model, weights_bytes, chunk_tokens)
        family = str(module.config.model_type)
        self.goes_on_in_chunks = family not in _FORGET_WHEN_CHUNKED
        if chunk_tokens is not None and not self.goes_on_in_chunks:
            raise UnsupportedError(
                f"transformers' {type(module).__name__} forgets its state between chunks",
                hint="Leave --prefill-chunk out for this arm.",
            )
        if attention != "none":
            _select_attention(module, attention)
        self.implementation = f"transformers {type(module).__name__}"
        self.kernel_path = kernel_path(module, self.device.type)
        parameters = inspect.signature(module.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in parameters else "past_key_values"
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._cache: Any = None
        self._attention = attention
        self._backends: dict[bool, str] = {}
        """What attention chose in the first prompt (False) and in the first step (True)."""

    def state_tensors(self) -> list[Tensor]:
        """Return keys and values, or convolution windows and recurrent states."""
        return cache_tensors(self._cache)

    def _moves(self) -> str:
        name = type(self._module).__name__
        if self._attention == "flash":
            return "transformers' flash attention reads all of a static cache, unwritten columns too"
        if any(layer.is_sliding for layer in self._static_cache(1).layers if hasattr(layer, "is_sliding")):
            return f"the host counts the positions of {name}'s sliding window"
        kinds = [kind for m in self._module.modules() if (kind := getattr(m, "rope_type", None)) is not None]
        if _ROTARY_BY_LENGTH & {
            k for kind in kinds for k in (kind.values() if isinstance(kind, dict) else [kind])
        }:
            return f"the host reads {name}'s positions, by which its frequencies change"
        return ""

    def _static_cache(self, n_tokens: int) -> Any:
        from transformers import StaticCache

        make: Any = StaticCache
        return make(config=self._module.config, max_cache_len=n_tokens)

    def _forget(self) -> None:
        self._cache = None

    def _allocate(self, batch_size: int) -> None:
        if self.static:
            self._cache = self._static_cache(self._longest)

    def _reset(self) -> None:
        if self.static:
            self._cache.reset()
        else:
            self._cache = None

    def _forward(self, ids: Tensor) -> Tensor:
        steps = self._tokens > 0 and ids.shape[1] == 1
        if self._attention != "sdpa" or steps in self._backends:
            return self._call(ids)
        with sdpa_backends() as seen:
            logits = self._call(ids)
        self._backends[steps] = ", ".join(sorted(seen))
        # A mask, as steps over a static cache have one, is not for all of them.
        if found := list(dict.fromkeys(filter(None, self._backends.values()))):
            # A hybrid's names its scan, too.
            path = kernel_path(self._module, self.device.type)
            self.kernel_path = path.replace("torch sdpa", f"torch sdpa ({'; in steps '.join(found)})")
        return logits

    def _call(self, ids: Tensor) -> Tensor:
        output = self._module(
            input_ids=ids, use_cache=True, **{self._cache_name: self._cache}, **self._options
        )
        self._cache = output[self._cache_name]
        logits: Tensor = output.logits[:, -1, : self.vocab_size]
        return logits

    def _saved(self) -> Any:
        if self.static:
            return [t.clone() for t in in_place_tensors(self._cache)]
        return copy.deepcopy(self._cache)

    def _restore(self, saved: Any) -> None:
        if self.static:
            for tensor, value in zip(in_place_tensors(self._cache), saved, strict=True):
                tensor.copy_(value)
        else:
            self._cache = copy.deepcopy(saved)


class OfficialDecoder(SteppedDecoder):
    """mamba_ssm's `MambaLMHeadModel` with its inference parameters, whose states stay at their addresses.

    Raises:
        UnsupportedError: for prompts in pieces, and where `mambabench.models.official.steps_differ`.
    """

    def __init__(self, module: Any, model: LoadedModel, weights_bytes: int, chunk_tokens: int | None) -> None:
        super().__init__(module, model, weights_bytes, chunk_tokens)
        if chunk_tokens is not None:
            raise UnsupportedError(
                "mamba_ssm refuses several tokens on from a state", hint="Leave --prefill-chunk out."
            )
        if why := official.steps_differ(module):
            raise UnsupportedError(f"mamba_ssm's steps of one token are wrong: {why}")
        # The record names what the engine runs, which may be steps of our own over the same weights.
        self.implementation = f"mamba_ssm {type(module).__name__}"
        self.kernel_path = official.kernel_path(module)
        self._inference: Any = None

    @property
    def state_tokens(self) -> int:
        """Tokens of each sequence that the cache has room for: keys and values are allocated beforehand."""
        return self._longest

    def state_tensors(self) -> list[Tensor]:
        """Return the convolution windows, states, keys and values."""
        # Attention without a convolution has None for its window.
        held = self._inference.key_value_memory_dict.values()
        return [t for states in held for t in states if t is not None]

    def _moves(self) -> str:
        # Without flash-attn the host would count the positions of attention; its steps are wrong then, too.
        return ""

    def _forget(self) -> None:
        self._inference = None

    def _allocate(self, batch_size: int) -> None:
        generation = importlib.import_module("mamba_ssm.utils.generation")
        self._inference = generation.InferenceParams(max_seqlen=self._longest, max_batch_size=batch_size)
        dtype = next(self._module.parameters()).dtype
        self._inference.key_value_memory_dict = self._module.allocate_inference_cache(
            batch_size, self._longest, dtype=dtype
        )
        if self.static:
            # Attention layers read the lengths from here, so that a graph can count them.
            self._inference.lengths_per_sample = torch.zeros(
                batch_size, dtype=torch.int32, device=self.device
            )

    def _reset(self) -> None:
        self._inference.seqlen_offset = 0
        if self.static:
            self._inference.lengths_per_sample.zero_()

    def _forward(self, ids: Tensor) -> Tensor:
        inference, positions = self._inference, None
        if inference.seqlen_offset > 0:
            positions = torch.full_like(ids, inference.seqlen_offset)
            if self.static:
                positions = inference.lengths_per_sample.to(ids.dtype)[:, None]
        logits: Tensor = self._module(
            ids, position_ids=positions, inference_params=inference, num_last_tokens=1
        ).logits
        inference.seqlen_offset += ids.shape[1]
        if self.static:
            inference.lengths_per_sample.add_(ids.shape[1])
        return logits[:, -1, : self.vocab_size]

    def _saved(self) -> Any:
        tensors = self.state_tensors() + ([self._inference.lengths_per_sample] if self.static else [])
        return [t.clone() for t in tensors], self._inference.seqlen_offset

    def _restore(self, saved: Any) -> None:
        values, self._inference.seqlen_offset = saved
        tensors = self.state_tensors() + ([self._inference.lengths_per_sample] if self.static else [])
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def stepped(
    module: Any, model: LoadedModel, weights_bytes: int, attention: str, chunk_tokens: int | None
) -> SteppedDecoder:
    """Return the decoder of the module's library.

    Raises:
        UnsupportedError: it cannot forward prompts in pieces, has no such attention, or its steps are wrong.
    """
    # Not by the record: it names our own steps where there are some over mamba_ssm's weights.
    if type(module).__module__.startswith("mamba_ssm"):
        return OfficialDecoder(module, model, weights_bytes, chunk_tokens)
    return TransformersDecoder(module, model, weights_bytes, attention, chunk_tokens)


def cache_tensors(cache: Any) -> list[Tensor]:
    """Return the tensors of a transformers cache that hold keys, values, windows or states."""
    found = []
    for layer in cache.layers if cache is not None else ():
        for held in vars(layer).values():
            values = held.values() if isinstance(held, dict) else (held,)
            found += [t for t in values if isinstance(t, Tensor) and t.dim() > 1 and t.numel()]
    return found


def in_place_tensors(cache: Any) -> list[Tensor]:
    """Return all tensors of a static cache that a step changes: those above and the lengths."""
    lengths = [vars(layer).get("cumulative_length") for layer in cache.layers]
    return [*cache_tensors(cache), *(t for t in lengths if isinstance(t, Tensor))]


def _select_attention(module: Any, attention: str) -> None:
    """Make a module use an attention implementation, never another one in its place.

    Raises:
        UnsupportedError: it has none of that kind here.
    """
    wanted = _ATTENTION[attention]
    try:
        module.set_attn_implementation(wanted)
    except (ValueError, ImportError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UnsupportedError(f"{type(module).__name__} has no {attention} attention here: {why}") from error
    chosen = module.config._attn_implementation
    if chosen != wanted:
        raise UnsupportedError(f"{type(module).__name__} uses {chosen} attention where {attention} was asked")
