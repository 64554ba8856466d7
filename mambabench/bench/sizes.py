"""How large a model and its state are and what its forward must do, from its configuration alone.

What a measured figure is held against: bytes of weights, state and cache, bytes that a decoding step must
move, operations of a prefill, and a forecast of the peak memory. No model library is imported.

    >>> from mambabench.models.locate import locate
    >>> from mambabench.registry import resolve
    >>> mamba, pythia = (resolve(name) for name in ("mamba-1.4b", "pythia-1.4b"))
    >>> a, b = (sizes_of(ref, locate(ref, "random")) for ref in (mamba, pythia))
    >>> layout = layout_for("mamba_ssm", "float16")
    >>> a.state_bytes(layout), b.state_bytes(layout, length_tokens=40)
    (7864320, 7864320)
    >>> break_even_tokens(a, layout, b, layout)
    40.0
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mambabench.bench.fake import FakeSpec
from mambabench.bench.sizes_config import Blueprint, blueprint
from mambabench.models.record import FP32_NAMES
from mambabench.registry import ModelRef

if TYPE_CHECKING:
    from mambabench.models.locate import Located

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


def sizes_of(ref: ModelRef, located: Located) -> ModelSizes | None:
    """Return a model's sizes; None for an architecture without arithmetic here, such as a GGUF file's.

    Args:
        ref: what the user named.
        located: where it is, with its configuration.
    """
    drawn = blueprint(located.format, located.config)
    if drawn is None:
        return None
    spec = located.spec or ref.spec
    trained = drawn.positions if spec is None else spec.training_length_tokens
    return _sizes(ref.name, drawn, trained)


def _sizes(name: str, drawn: Blueprint, training_length_tokens: int | None) -> ModelSizes:
    counts = {key: math.prod(shape) for key, shape in drawn.parameters.items()}
    looked_up = ("positions.weight",) if drawn.tied else ("positions.weight", "embed.weight")
    # Only a Mamba's A_log has two dimensions and is no matrix that tokens are multiplied with.
    matrices = [
        key
        for key, shape in drawn.parameters.items()
        if len(shape) == 2 and "layers." in key and not key.endswith("A_log")
    ]
    return ModelSizes(
        name=name,
        family=drawn.family,
        n_layers=drawn.n_layers,
        d_model=drawn.d_model,
        vocab_rows=drawn.vocab_rows,
        n_parameters=sum(counts.values()),
        n_read_parameters=sum(counts.values()) - sum(counts.get(key, 0) for key in looked_up),
        n_fp32_parameters=sum(n for key, n in counts.items() if key.rpartition(".")[2] in FP32_NAMES),
        n_matmul_parameters=sum(counts[key] for key in matrices),
        ssm_elements=drawn.ssm_elements,
        conv_elements_per_column=drawn.convolution[0],
        d_conv=drawn.convolution[1],
        kv_elements_per_token=drawn.kv_elements_per_token,
        attention_width=drawn.attention_width,
        n_attention_layers=drawn.n_attention_layers,
        training_length_tokens=training_length_tokens,
        learned_positions=drawn.learned_positions,
        n_attention_heads=drawn.n_attention_heads,
        attention_conv_elements_per_column=drawn.attention_convolution[0],
        attention_d_conv=drawn.attention_convolution[1],
        activation_width=drawn.activation_width,
        kv_in_fp32=drawn.kv_in_fp32,
    )


def fake_sizes(text: str) -> ModelSizes:
    """Return the sizes of a fake model such as `fake:token_ms=2,weights_mb=64`; see `mambabench.bench.fake`.

    Its weights and its state take what the name says in every dtype and layout.

    Raises:
        UsageError: the name is malformed.
    """
    spec = FakeSpec.parse(text)
    return ModelSizes(
        name=text,
        family=FAKE_FAMILY,
        n_layers=1,
        d_model=0,
        vocab_rows=0,
        n_parameters=spec.weights_bytes // _FP32_BYTES,
        n_read_parameters=spec.weights_bytes // _FP32_BYTES,
        n_fp32_parameters=spec.weights_bytes // _FP32_BYTES,
        n_matmul_parameters=0,
        ssm_elements=spec.state_bytes(length_tokens=0),
        conv_elements_per_column=0,
        d_conv=0,
        kv_elements_per_token=spec.state_bytes(length_tokens=1) - spec.state_bytes(length_tokens=0),
        attention_width=0,
        n_attention_layers=0,
        training_length_tokens=None,
        learned_positions=None,
        known_transient_bytes=round(spec.transient_mb * 1e6),
    )


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
