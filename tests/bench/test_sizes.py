"""Sizes from a configuration alone, against modules that transformers builds and against counts by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import hybrid1_config, hybrid_config, llama_config
from hypothesis import given
from hypothesis import strategies as st
from sized import MISTRAL, OPT, SHAPES, build, registered, small
from torch.utils.flop_counter import FlopCounterMode
from transformers import MistralConfig, OPTConfig
from transformers.pytorch_utils import Conv1D

from mambabench.bench.sizes import fake_sizes, sizes_of
from mambabench.models.locate import Located
from mambabench.models.record import FP32_NAMES
from mambabench.registry import ModelRef, load_registry
from mambabench.sizes import ModelSizes, StateLayout, break_even_tokens, layout_for

HALF = StateLayout(0, 2, 2, 2)
WIDE_SCAN = StateLayout(0, 2, 4, 2)


@pytest.mark.parametrize("name", load_registry())
def test_every_registered_model_has_its_published_size(name: str) -> None:
    spec, sizes = load_registry()[name], registered(name)
    assert sizes.n_parameters == spec.n_parameters
    assert sizes.family == spec.family
    assert sizes.name == name
    assert sizes.training_length_tokens == spec.training_length_tokens
    assert sizes.learned_positions is None
    assert (sizes.ssm_elements > 0) == ("mamba" in spec.family or spec.family == "hybrid")
    assert (sizes.kv_elements_per_token > 0) == ("mamba" not in spec.family)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_that_transformers_builds(name: str) -> None:
    module, sizes = build(SHAPES[name]), small(SHAPES[name].to_dict())
    named = dict(module.named_parameters())
    kept = {n for n in named if n.rpartition(".")[2] in FP32_NAMES}
    assert sizes.n_parameters == sum(p.numel() for p in named.values())
    assert sizes.n_fp32_parameters == sum(named[n].numel() for n in kept)
    tied = module.get_output_embeddings().weight is module.get_input_embeddings().weight
    unread = 0 if tied else module.get_input_embeddings().weight.numel()
    tables = [p.numel() for n, p in named.items() if n.endswith(("wpe.weight", "embed_positions.weight"))]
    assert sizes.n_read_parameters == sizes.n_parameters - unread - sum(tables)
    assert (sizes.learned_positions is not None) == bool(tables)
    for dtype in ("float32", "bfloat16"):
        held = sum(p.numel() * (4 if n in kept or dtype == "float32" else 2) for n, p in named.items())
        assert sizes.weights_bytes(dtype) == held


@pytest.mark.parametrize("name", SHAPES)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    shape = SHAPES[name]
    module, sizes = build(shape, "cpu"), small(shape.to_dict())
    module.set_attn_implementation("eager")
    length = 13
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(torch.zeros((1, length), dtype=torch.long), logits_to_keep=1, use_cache=False)
    counted = {part: sum(kernels.values()) for part, kernels in counter.get_flop_counts().items()}
    # The step size's matrix is used without calling its module.
    products = sum(
        counted.get(f"{type(module).__name__}.{name}", 2 * length * part.weight.numel())
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear | Conv1D)
    )
    assert replace(sizes, n_attention_layers=0).prefill_flops(length) == products
    if sizes.n_attention_layers:
        # torch counts all pairs of positions, of which a causal model needs half, and rotary angles.
        attended = (counted["Global"] - products) / 2
        assert 0 <= attended - (sizes.prefill_flops(length) - products) < sizes.d_model * length


def test_configurations_without_arithmetic_have_no_sizes() -> None:
    ref = ModelRef("m", "m", "transformers")
    for form, config in (
        ("gguf", {}),
        ("transformers", {"model_type": "jamba"}),
        ("transformers", {}),
        ("transformers", MistralConfig(**MISTRAL).to_dict()),
        ("transformers", {**llama_config().to_dict(), "hidden_size": "wide"}),
        ("transformers", {**OPTConfig(**OPT).to_dict(), "word_embed_proj_dim": 8}),
        ("mamba_ssm", {"d_model": 32, "n_layer": 2, "ssm_cfg": {"layer": "Mamba3"}}),
        ("mamba_ssm", {"n_layer": 2}),
    ):
        located: Any = Located(form, config, None)  # type: ignore[arg-type]
        assert sizes_of(ref, located) is None, config


def test_what_a_configuration_leaves_out_has_the_librarys_default() -> None:
    for name, shape in SHAPES.items():
        default = type(shape)().to_dict()
        sparse = {k: v for k, v in shape.to_dict().items() if k == "model_type" or default.get(k) != v}
        assert small(sparse) == small(shape.to_dict()), name
        whole = {"sliding_window": None}
        bare = {"model_type": shape.model_type, **whole}
        assert small(bare) == small({**default, **whole}), name


@pytest.mark.parametrize(
    ("state_model", "kv_model", "narrow", "wide"),
    [
        ("mamba-1.4b", "pythia-1.4b", 40, 72),
        ("mamba-1.4b", "tinyllama-1.1b", 349, 628),
        ("mamba2-1.3b", "tinyllama-1.1b", 2308, 4543),
    ],
)
def test_break_even_contexts(state_model: str, kv_model: str, narrow: int, wide: int) -> None:
    a, b = registered(state_model), registered(kv_model)
    assert layout_for("mamba_ssm", "float16") == replace(HALF, implementation="mamba_ssm")
    assert layout_for("transformers", "float16") == replace(WIDE_SCAN, implementation="transformers")
    for layout, tokens in ((HALF, narrow), (WIDE_SCAN, wide)):
        found = break_even_tokens(a, layout, b, layout)
        assert found is not None
        assert round(found) == tokens
        whole = int(found)
        assert b.state_bytes(layout, length_tokens=whole) <= a.state_bytes(layout)
        assert b.state_bytes(layout, length_tokens=whole + 1) > a.state_bytes(layout)


def test_curves_that_do_not_cross() -> None:
    mamba, pythia = registered("mamba-130m"), registered("pythia-70m")
    assert break_even_tokens(pythia, HALF, mamba, HALF) is None
    smaller = replace(mamba, ssm_elements=1)
    assert break_even_tokens(smaller, HALF, mamba, HALF) == 0


def test_the_articles_claim() -> None:
    llama = registered("tinyllama-1.1b")
    length = 10_240
    assert llama.state_bytes(HALF, length_tokens=length) == pytest.approx(0.23e9, rel=0.01)
    scores = llama.attention_scores(batch_size=1, queries=length, keys=length)
    assert 2 * scores == pytest.approx(6.7e9, rel=0.01)
    assert 4 * scores == pytest.approx(13.4e9, rel=0.01)

    def peak(attention: str, chunk: int | None = None) -> int:
        return llama.expected_bytes(
            HALF, "float16", batch_size=1, prompt_len=length, gen_len=100, prefill_chunk=chunk,
            attention=attention,
        )  # fmt: skip

    # Scores, their softmax in fp32 and its copy do not fit into 24 GB; without them a fifth of it is enough.
    assert peak("eager") - peak("sdpa") == 8 * scores
    assert peak("eager") > 24e9
    assert llama.weights_bytes("float16") < peak("sdpa") == peak("flash") < 5e9
    assert peak("eager", 512) - peak("sdpa", 512) == 8 * scores * 512 // length
    assert peak("sdpa", 512) < peak("sdpa")


def test_learned_positions() -> None:
    assert small(SHAPES["gpt2"].to_dict()).learned_positions == 50
    assert small(SHAPES["opt"].to_dict()).learned_positions == 50
    assert small(SHAPES["gpt_neox"].to_dict()).learned_positions is None
    # Without a registry's row, positions that are computed still say for what the model was made.
    assert small(SHAPES["gpt_neox"].to_dict()).training_length_tokens == 128
    assert small(SHAPES["mamba"].to_dict()).training_length_tokens is None


def test_a_step_moves_weights_states_twice_and_the_cache_once() -> None:
    mamba, pythia = registered("mamba-130m"), registered("pythia-160m")
    layout = layout_for("mambabench", "float32")
    state = 24 * 4 * (1536 * 16 + 1536 * 3)
    moved = mamba.decode_bytes(layout, "float32", batch_size=5, depth_tokens=9)
    assert moved == 4 * 129135360 + 5 * 2 * state
    moved = pythia.decode_bytes(layout, "float32", batch_size=5, depth_tokens=9)
    assert moved == 4 * (162322944 - 50304 * 768) + 5 * 10 * 4 * 2 * 12 * 768


def test_fakes_have_the_bytes_of_their_name() -> None:
    sizes = fake_sizes("fake:token_ms=2,weights_mb=64,state_mb=0.000003,kv_kb=0.007,transient_mb=32")
    for implementation in ("mambabench", "transformers", "mamba_ssm"):
        for dtype in ("float32", "bfloat16"):
            layout = layout_for(implementation, dtype)
            assert sizes.weights_bytes(dtype) == 64_000_000
            assert sizes.state_bytes(layout, length_tokens=10) == 3 + 7 * 10
            assert sizes.expected_bytes(
                layout, dtype, batch_size=2, prompt_len=8, gen_len=2, prefill_chunk=None, attention="none"
            ) == 64_000_000 + 2 * 73 + 32_000_000  # fmt: skip


def test_layouts() -> None:
    assert layout_for("mambabench", "bfloat16") == StateLayout(1, 4, 4, 2, "mambabench")
    hybrid = small(hybrid_config(), "mamba_ssm")
    assert layout_for("mambabench", "bfloat16", hybrid).kv_itemsize == 4
    assert layout_for("mamba_ssm", "bfloat16", hybrid).kv_itemsize == 2
    with pytest.raises(ValueError, match="no implementation 'vllm'"):
        layout_for("vllm", "float32")


layouts = st.sampled_from(["mambabench", "transformers", "mamba_ssm"])
dtypes = st.sampled_from(["float32", "bfloat16", "float16"])
models = st.sampled_from(
    [registered(name) for name in ("mamba-130m", "mamba2-130m", "mamba2attn-2.7b", "pythia-70m")]
    + [small(hybrid1_config(), "mamba_ssm"), small(SHAPES["gpt2"].to_dict())]
)


@given(models, layouts, dtypes, st.integers(1, 64), st.integers(1, 10**5), st.integers(1, 1000))
def test_sizes_grow_as_they_must(
    sizes: ModelSizes, implementation: str, dtype: str, batch: int, length: int, more: int
) -> None:
    layout = layout_for(implementation, dtype)

    def peak(batch: int, length: int, attention: str, chunk: int | None = None, gen: int = 7) -> int:
        return sizes.expected_bytes(
            layout, dtype, batch_size=batch, prompt_len=length, gen_len=gen, prefill_chunk=chunk,
            attention=attention,
        )  # fmt: skip

    def moved(batch: int, depth: int) -> float:
        return sizes.decode_bytes(layout, dtype, batch_size=batch, depth_tokens=depth)

    state = sizes.state_bytes(layout, length_tokens=length)
    grown = sizes.state_bytes(layout, length_tokens=length + more)
    assert grown - state == more * sizes.kv_bytes_per_token(layout)
    weights = sizes.weights_bytes(dtype)
    # All but the weights is linear in the batch.
    assert peak(batch, length, "eager") - weights == pytest.approx(
        batch * (peak(1, length, "eager") - weights), rel=1e-6
    )
    assert moved(2 * batch, length) - moved(batch, length) == moved(batch, length) - moved(0, length)
    # Longer never takes less, a piece never more than the whole; scores show where there is attention only.
    assert peak(batch, length + more, "eager") > peak(batch, length, "eager")
    assert peak(batch, length, "sdpa", more) <= peak(batch, length, "sdpa")
    assert peak(batch, length, "sdpa", length + more) == peak(batch, length, "sdpa")
    assert (peak(batch, length, "eager") > peak(batch, length, "sdpa")) == (sizes.n_attention_layers > 0)
    assert peak(batch, length, "sdpa", gen=7 + more) - peak(batch, length, "sdpa") == batch * (grown - state)
    assert (moved(batch, length + more) > moved(batch, length)) == (sizes.kv_elements_per_token > 0)
    assert sizes.prefill_flops(2 * length) >= 2 * sizes.prefill_flops(length) - 2 * (
        sizes.vocab_rows * sizes.d_model
    )
    assert weights + batch * state < peak(batch, length, "sdpa")
