"""The sizes of what can be named as a model, from its configuration alone. No model library is imported.

>>> from mambabench.models.locate import locate
>>> from mambabench.registry import resolve
>>> from mambabench.sizes import break_even_tokens, layout_for
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
from typing import TYPE_CHECKING

from mambabench.bench.fake import FakeSpec
from mambabench.bench.sizes_config import Blueprint, blueprint
from mambabench.models.record import FP32_NAMES
from mambabench.registry import ModelRef, ModelSpec
from mambabench.sizes import FAKE_FAMILY, ModelSizes

if TYPE_CHECKING:
    from mambabench.models.locate import Located

_FP32_BYTES = 4


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


def registered_sizes(spec: ModelSpec) -> ModelSizes | None:
    """Return the sizes of a registered model by the registry alone; see `sizes_of`."""
    drawn = blueprint(spec.format, spec.config) if spec.config else None
    return None if drawn is None else _sizes(spec.name, drawn, spec.training_length_tokens)


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
