"""Sizes of a model and of its state, and what its forward must at least do: arithmetic, without any library.

What a measured figure is held against: bytes of weights, state and cache, bytes that a decoding step must
move, operations of a prefill, a forecast of the peak memory, and the speed that all this allows: a step
cannot end before what it must move has been moved, nor a prefill before its products are done.

    layout = layout_for("mamba_ssm", "float16")
    break_even_tokens(mamba, layout, pythia, layout)      # 40.0 for the 1.4B models

`mambabench.bench.sizes` finds the sizes of a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mambabench.speed_schema import PointRecord

ITEMSIZE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FAKE_FAMILY = "fake"
_FP32_BYTES = 4


@dataclass(frozen=True)
class StateLayout:
    """How an implementation holds the state of a sequence."""

    conv_columns_less: int
    """0 where a convolution's window has as many columns as taps, 1 where it has one less."""
    conv_itemsize: int
    """Bytes of a number in a convolution's window."""
    ssm_itemsize: int
    """Bytes of a number in a scan's state."""
    kv_itemsize: int
    """Bytes of a number among keys and values."""
    implementation: str = ""
    """Whose layout it is, where `layout_for` made it."""


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of one model; counts of state are of one sequence, all layers together."""

    name: str
    family: str
    """As transformers calls it; "transformer" and "hybrid" are mamba_ssm's own, "fake" has no weights."""
    n_layers: int
    d_model: int
    vocab_rows: int
    n_parameters: int
    """Tied matrices once."""
    n_read_parameters: int
    """What a decoding step reads: an untied embedding and a table of positions are not, as one row of each
    is; a tied embedding is, as the head."""
    n_fp32_parameters: int
    """Those that keep fp32 whatever the dtype: A_log, D and dt_bias."""
    n_matmul_parameters: int
    """Of the layers' matrices, through which every token of a prompt goes; the head is not among them."""
    ssm_elements: int
    conv_elements_per_column: int
    """Channels of all convolutions of Mamba layers."""
    d_conv: int
    """Taps of each of these."""
    kv_elements_per_token: int
    """Keys and values."""
    attention_width: int
    """Columns of one layer's queries."""
    n_attention_layers: int
    training_length_tokens: int | None
    """What the registry knows; otherwise the positions that the configuration names."""
    learned_positions: int | None
    """Tokens past which the model has no positions at all; null where positions are computed."""
    n_attention_heads: int = 0
    attention_conv_elements_per_column: int = 0
    """Channels of the convolutions of mamba_ssm's attention layers."""
    attention_d_conv: int = 0
    """Taps of each of these."""
    activation_width: int = 0
    """Numbers that the widest block holds at once for each token that it forwards."""
    kv_in_fp32: bool = False
    """Whether mambabench's own forward keeps keys and values in fp32 whatever the dtype."""
    known_transient_bytes: int | None = None
    """Of a fake model, whose transients its name says."""

    def weights_bytes(self, dtype: str) -> int:
        """Return the bytes of the parameters as loaded in a dtype."""
        return self._bytes(self.n_parameters, dtype)

    def state_bytes(self, layout: StateLayout, *, length_tokens: int = 0) -> int:
        """Return the bytes of one sequence's windows, scan states, keys and values after so many tokens.

        A scan's state: d_inner * d_state a layer. A window: d_inner channels with Mamba-1, and those of B and
        C besides with Mamba-2. Keys and values: 2 * kv_heads * head_dim a layer and token.
        """
        layout = self.held(layout)
        less = layout.conv_columns_less
        windows = self.conv_elements_per_column * (self.d_conv - less)
        windows += self.attention_conv_elements_per_column * (self.attention_d_conv - less)
        fixed = self.ssm_elements * layout.ssm_itemsize + windows * layout.conv_itemsize
        return fixed + self.kv_bytes_per_token(layout) * length_tokens

    def kv_bytes_per_token(self, layout: StateLayout) -> int:
        """Return the bytes by which one sequence's state grows with each token."""
        return self.kv_elements_per_token * self.held(layout).kv_itemsize

    def prefill_flops(self, length_tokens: int) -> float:
        """Return the operations of matrix products over one prompt.

        2 P L for the layers' matrices, 2 V d for the head at the last position, and 2 d_attn L^2 for each
        layer of causal attention. A scan's own work is not in it.
        """
        attention = 2.0 * self.n_attention_layers * self.attention_width * length_tokens**2
        head = 2.0 * self.vocab_rows * self.d_model
        return 2.0 * self.n_matmul_parameters * length_tokens + head + attention

    def decode_bytes(self, layout: StateLayout, dtype: str, *, batch_size: int, depth_tokens: int) -> float:
        """Return the bytes that one decoding step must move.

        All weights that are read, of each sequence the windows and scan states read and written, and the keys
        and values of its tokens and the new one read.

        Args:
            layout: how states are held.
            dtype: of the weights.
            batch_size: sequences.
            depth_tokens: that each has seen before the step.
        """
        fixed = self.state_bytes(layout)
        cache = self.kv_bytes_per_token(layout) * (depth_tokens + 1)
        return float(self._bytes(self.n_read_parameters, dtype) + batch_size * (2 * fixed + cache))

    def expected_bytes(
        self,
        layout: StateLayout,
        dtype: str,
        *,
        batch_size: int,
        prompt_len: int,
        gen_len: int,
        prefill_chunk: int | None,
        attention: str,
    ) -> int:
        """Return a forecast of the peak: weights, the state after the last token, and transients."""
        state = batch_size * self.state_bytes(layout, length_tokens=prompt_len + gen_len)
        transient = self.transient_bytes(
            layout,
            dtype,
            batch_size=batch_size,
            prompt_len=prompt_len,
            prefill_chunk=prefill_chunk,
            attention=attention,
        )
        return self.weights_bytes(dtype) + state + transient

    def transient_bytes(
        self,
        layout: StateLayout,
        dtype: str,
        *,
        batch_size: int,
        prompt_len: int,
        prefill_chunk: int | None,
        attention: str,
    ) -> int:
        """Return a rough forecast of what a prefill holds besides weights and state.

        The widest block's activations for the tokens that are forwarded at once, in fp32 where there is a
        scan; the last position's logits in fp32; one layer's keys and values a second time, since a cache
        that grows is copied layer by layer; and one layer's scores where attention is eager. What torch
        allocates is 0.75 to 1.15 of it in tests; transformers' scan without kernels takes several times as
        much.

        Args:
            layout: how states are held.
            dtype: of the weights.
            batch_size: sequences.
            prompt_len: tokens of each.
            prefill_chunk: tokens of each that are forwarded at once; null for all.
            attention: "eager" holds all scores at once; "sdpa", "flash" and "none" do not.
        """
        if self.known_transient_bytes is not None:
            return self.known_transient_bytes
        chunk = min(prompt_len, prefill_chunk or prompt_len)
        itemsize = _FP32_BYTES if self.ssm_elements or self.kv_in_fp32 else ITEMSIZE_BYTES[dtype]
        total = batch_size * chunk * self.activation_width * itemsize
        total += batch_size * self.vocab_rows * _FP32_BYTES
        if self.n_attention_layers:
            total += batch_size * prompt_len * self.kv_bytes_per_token(layout) // self.n_attention_layers
            if attention == "eager":
                total += self.eager_scores_bytes(dtype, batch_size=batch_size, queries=chunk, keys=prompt_len)
        return total

    def eager_scores_bytes(self, dtype: str, *, batch_size: int, queries: int, keys: int) -> int:
        """Return what eager attention holds of one layer's scores at once.

        [batch, heads, queries, keys] three times where the dtype is narrow (the scores, their softmax in fp32
        and its copy in the dtype), and twice in fp32, where no copy is made.
        """
        itemsize = ITEMSIZE_BYTES[dtype]
        held = 2 * _FP32_BYTES if itemsize == _FP32_BYTES else _FP32_BYTES + 2 * itemsize
        return self.attention_scores(batch_size=batch_size, queries=queries, keys=keys) * held

    def attention_scores(self, *, batch_size: int, queries: int, keys: int) -> int:
        """Return the number of one attention layer's scores: [batch, heads, queries, keys]."""
        return batch_size * self.n_attention_heads * queries * keys

    def held(self, layout: StateLayout) -> StateLayout:
        """Return the layout of this model's state, where its kind differs from the rest."""
        if self.family == FAKE_FAMILY:
            return _FAKE_LAYOUT
        if self.kv_in_fp32 and layout.implementation == "mambabench":
            return replace(layout, kv_itemsize=_FP32_BYTES)
        return layout

    def _bytes(self, n_parameters: int, dtype: str) -> int:
        wide = self.n_fp32_parameters
        return (n_parameters - wide) * ITEMSIZE_BYTES[dtype] + wide * _FP32_BYTES


_FAKE_LAYOUT = StateLayout(0, 1, 1, 1)
"""A fake model's state is counted in bytes."""


def expected_bytes_of(point: PointRecord, sizes: ModelSizes, layout: StateLayout) -> int:
    """Return a forecast of a point's peak memory; see `ModelSizes.expected_bytes`."""
    return sizes.expected_bytes(
        layout,
        point.dtype,
        batch_size=point.batch_size,
        prompt_len=point.prompt_len_tokens,
        gen_len=point.gen_len_tokens,
        prefill_chunk=point.prefill_chunk_tokens,
        attention=point.attention,
    )


def layout_for(implementation: str, dtype: str, sizes: ModelSizes | None = None) -> StateLayout:
    """Return how an implementation holds states.

    mambabench keeps windows and scan states in fp32, and no column that the next token pushes out;
    transformers keeps scan states in fp32 and the rest in the model's dtype; mamba_ssm keeps all in the
    model's dtype.

    Args:
        implementation: "mambabench", "transformers" or "mamba_ssm".
        dtype: of the weights.
        sizes: of the model, where its own kind of state is to show; its methods mind it by themselves.

    Raises:
        ValueError: another implementation.
    """
    itemsize = ITEMSIZE_BYTES[dtype]
    known = {
        "mambabench": (1, _FP32_BYTES, _FP32_BYTES, itemsize),
        "transformers": (0, itemsize, _FP32_BYTES, itemsize),
        "mamba_ssm": (0, itemsize, itemsize, itemsize),
    }
    if implementation not in known:
        raise ValueError(f"no implementation '{implementation}'")
    layout = StateLayout(*known[implementation], implementation)
    return layout if sizes is None else sizes.held(layout)


def break_even_tokens(
    state_model: ModelSizes, layout_a: StateLayout, kv_model: ModelSizes, layout_b: StateLayout
) -> float | None:
    """Return the length at which two models' states of one sequence are equally large.

    Args:
        state_model: the one whose state is larger at first, a recurrence.
        layout_a: how its state is held.
        kv_model: the one whose state grows faster.
        layout_b: how its state is held.

    Returns:
        A number of tokens, not rounded; None where the second never reaches the first.
    """
    ahead = state_model.state_bytes(layout_a) - kv_model.state_bytes(layout_b)
    gain = kv_model.kv_bytes_per_token(layout_b) - state_model.kv_bytes_per_token(layout_a)
    if ahead <= 0:
        return 0.0 if gain >= 0 else None
    return ahead / gain if gain > 0 else None


def decode_ceiling_tokens_per_s(
    sizes: ModelSizes,
    layout: StateLayout,
    dtype: str,
    *,
    batch_size: int,
    depth_tokens: int,
    bytes_per_s: float,
) -> float:
    """Return the tokens a second, all sequences together, at which decoding would use all the bandwidth.

    batch * bandwidth / bytes of a step; infinite for a model that moves nothing.

    Args:
        sizes: of the model.
        layout: how its states are held.
        dtype: of the weights.
        batch_size: sequences.
        depth_tokens: that each has seen before the step.
        bytes_per_s: of the memory.
    """
    moved = sizes.decode_bytes(layout, dtype, batch_size=batch_size, depth_tokens=depth_tokens)
    return batch_size * bytes_per_s / moved if moved else math.inf


def prefill_ceiling_s(sizes: ModelSizes, length_tokens: int, batch_size: int, flops_per_s: float) -> float:
    """Return the seconds that a prefill's matrix products take at full speed.

    Args:
        sizes: of the model.
        length_tokens: of each prompt.
        batch_size: prompts.
        flops_per_s: operations a second, a multiplication and an addition being two.
    """
    return batch_size * sizes.prefill_flops(length_tokens) / flops_per_s
