"""Any Transformer of transformers as a function of a state, by the module's own forward.

transformers pads rows to the longest and keeps a cache for each. Here the rows lie end to end in one batch
row, each token with its own position, and an attention function of ours, selected for the time of the
call, lets every row see its own tokens and its state only. Embeddings, normalisation, rotary positions, MLPs
and experts stay the module's, so that a model family needs no code of its own.

    steps = AttentionSteps(module, vocab_size=50277)
    step = steps.step(ids, [7, 3])                    # two rows, 10 ids
    steps.step(more_ids, [1, 300], step.state)        # both go on

Whether a module can run so is for `mambabench.models.attention_support` to say. The module stays as it
was: outside of `step` its forward is the shipped one. As both share the module's configuration, one module
must not run in two threads at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from mambabench.errors import UsageError
from mambabench.models.attention_state import AttentionState
from mambabench.models.layers import FewRows, linear
from mambabench.models.packed_attention import PackedAttention
from mambabench.models.peak_memory import PeakMemory
from mambabench.models.stateful import State, StateSize, Step, check_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KERNEL_PATH = "torch sdpa, packed"
_NAME = "mambabench_packed"
_TRIED_TOKENS = 16
_WITHOUT_EFFECT = frozenset(
    {"position_ids", "cache_position", "position_embeddings", "num_items_in_batch", "return_dict"}
)
"""Arguments of an attention function that change nothing here: positions are worked in before."""


@dataclass
class _Call:
    """One forward: the rows, the state before, and what the layers have given so far."""

    rows: PackedAttention
    before: Sequence[AttentionState] | None
    after: list[AttentionState] = field(default_factory=list)
    windows: list[int | None] = field(default_factory=list)
    token_bytes: int = 0


_CALL: ContextVar[_Call | None] = ContextVar("call", default=None)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within one packed batch; called by transformers' attention layers."""
    call = _CALL.get()
    if call is None:
        raise RuntimeError(f"the attention function {_NAME!r} works within AttentionSteps.step only")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    odd = [name for name, given in others.items() if name not in _WITHOUT_EFFECT and _is_given(given)]
    odd += ["dropout"] * (dropout != 0) + ["a mask"] * (attention_mask is not None)
    odd += ["attention to later tokens"] * (not causal)
    if odd:
        raise UsageError(
            f"{type(module).__name__} asks for {odd[0]}, which packed attention does not know",
            hint="Run the model as shipped.",
        )
    layer = len(call.after)
    before = None if call.before is None else call.before[layer]
    out, after = call.rows(query[0], key[0], value[0], before, scaling=scaling, window=sliding_window)
    call.after.append(after)
    call.windows.append(sliding_window)
    call.token_bytes += sum(t.shape[1] * t.shape[3] * t.element_size() for t in (key, value))
    return out[None], None


def _is_given(argument: object) -> bool:
    return argument is not None and argument is not False


AttentionInterface.register(_NAME, _attention)


class AttentionSteps:
    """A Transformer; see `mambabench.models.stateful.StatefulModel` for the methods' contract.

    Args:
        module: a causal language model of transformers that `attention_support.supports`; it is shared.
        vocab_size: ids that may be predicted.
    """

    def __init__(self, module: PreTrainedModel, *, vocab_size: int) -> None:
        untyped: Any = module
        self._base = untyped.base_model
        self._head = untyped.get_output_embeddings()
        self._configs = unique_configs(module)
        self._few_rows = FewRows(self._base)
        self.vocab_size = vocab_size
        self.device: torch.device = self._head.weight.device
        self.dtype: torch.dtype = self._head.weight.dtype
        self.kernel_path, self.workspace_bytes = KERNEL_PATH, 0
        self._max_positions = _max_positions(module)
        # A few tokens show each layer's window, its keys' shape, and what a forward takes, whatever the
        # configuration calls them.
        tokens = min(_TRIED_TOKENS, self._max_positions or _TRIED_TOKENS)
        ids = torch.arange(tokens, device=self.device) % vocab_size
        with PeakMemory(module) as memory:
            call = self._forward(ids, [tokens], None, [], False)[1]
        self.windows = tuple(call.windows)
        """Tokens that each attention layer's tokens see; null for all."""
        self.state_size = StateSize(0, call.token_bytes)
        # A quarter more, for masks and the copies of prefixes beside new tokens.
        self.activation_bytes_per_token = -(-memory.peak_bytes * 5 // (4 * tokens))

    def start(self, rows: int) -> State:
        """Return the state of rows that have seen nothing."""
        return State((0,) * rows, (AttentionState(((),) * rows),) * len(self.windows))

    def step(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        state: State | None = None,
        *,
        read: Tensor | None = None,
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> Step:
        """Forward rows of tokens end to end, each on from its state.

        Keys and values are kept by reference, so that rows from one prefix share it. A state that is given
        up is appended to in place when every row brings one token; see `AttentionState.grown`.

        Raises:
            ValueError: `lengths` does not fit `input_ids` or `state`.
            UsageError: a row is longer than the model's table of positions.
        """
        check_step(input_ids, lengths, state)
        seen = (0,) * len(lengths) if state is None else state.lengths
        totals = [before + new for before, new in zip(seen, lengths, strict=True)]
        if self._max_positions is not None and max(totals) > self._max_positions:
            raise UsageError(
                f"a row of {max(totals)} tokens does not fit the model's {self._max_positions} positions",
                hint="Shorten the text: the model has learned no later ones.",
            )
        hidden, call = self._forward(input_ids, lengths, state, keep, consume)
        kept = range(len(lengths)) if keep is None else keep
        after = State(tuple(totals[row] for row in kept), tuple(call.after)) if len(kept) else None
        return Step(hidden if read is None else hidden[read], after)

    def logits(self, hidden: Tensor, *, first: int = 0, last: int | None = None) -> Tensor:
        """Return the logits of hidden rows for ids from `first` to `last`."""
        ids = slice(first, self.vocab_size if last is None else last)
        bias = None if self._head.bias is None else self._head.bias[ids]
        with torch.inference_mode():
            if hidden.dtype == torch.float32:
                return linear(hidden, self._head.weight[ids], bias)
            return nn.functional.linear(hidden, self._head.weight[ids], bias)

    def _forward(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        state: State | None,
        keep: Sequence[int] | None,
        consume: bool,
    ) -> tuple[Tensor, _Call]:
        """Return the hidden rows [T, d_model] and what the layers left."""
        before: Any = None if state is None else state.layers
        with torch.inference_mode():
            rows = PackedAttention(
                lengths,
                None if before is None else before[0],
                device=self.device,
                keep=keep,
                consume=consume,
            )
            call = _Call(rows, before)
            with self._packed(call), self._few_rows.instead(len(input_ids)):
                output = self._base(
                    input_ids=input_ids[None].to(self.device),
                    position_ids=rows.positions[None],
                    use_cache=False,
                )
        return output.last_hidden_state[0], call

    @contextmanager
    def _packed(self, call: _Call) -> Iterator[None]:
        """Let the module attend by our function for a while."""
        before = [config._attn_implementation_internal for config in self._configs]
        token = _CALL.set(call)
        try:
            for config in self._configs:
                config._attn_implementation_internal = _NAME
            yield
        finally:
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation_internal = name
            _CALL.reset(token)


def unique_configs(module: nn.Module) -> list[Any]:
    """Return the configurations that the module's parts read."""
    found = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
    return [config for config in found.values() if hasattr(config, "_attn_implementation_internal")]


def _max_positions(module: PreTrainedModel) -> int | None:
    """Return the rows of the learned table of positions; null without one."""
    limit = getattr(module.config, "max_position_embeddings", None)
    words = module.get_input_embeddings()
    for part in module.base_model.modules():
        # OPT's table has rows before the first position.
        if (
            isinstance(part, nn.Embedding)
            and part is not words
            and part.num_embeddings - getattr(part, "offset", 0) == limit
        ):
            return int(limit)
    return None
