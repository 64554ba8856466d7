"""Every arm of every family against transformers' own greedy generation and against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_hybrid, tiny_llama, tiny_mamba, tiny_mamba2, tiny_neox
from transformers import BambaConfig, BambaForCausalLM

from mambabench.bench.agreement import require_agreement
from mambabench.bench.decoders import Decoder, StatefulDecoder, build_decoder
from mambabench.bench.failures import UnsupportedError
from mambabench.bench.graphs import WARM_CALLS, GraphDecoder
from mambabench.bench.shipped import TransformersDecoder
from mambabench.bench.sizes import sizes_of
from mambabench.errors import CertificateError
from mambabench.models import attention_state
from mambabench.models.base import LoadedModel, SamplingOptions
from mambabench.models.load import check, load
from mambabench.models.locate import locate
from mambabench.registry import resolve
from mambabench.sizes import layout_for

FAMILIES = {"mamba": tiny_mamba, "mamba2": tiny_mamba2, "gpt_neox": tiny_neox, "llama": tiny_llama}
ATTENTION = {"mamba": "none", "mamba2": "none", "gpt_neox": "sdpa", "llama": "sdpa"}
B, L, N = 2, 9, 7


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = str(request.param)
    return FAMILIES[family](tmp_path_factory.mktemp(family) / family)


@pytest.fixture(scope="module")
def model(directory: Path) -> LoadedModel:
    return load(check(resolve(str(directory)), device="cpu", need_tokenizer=False))


@pytest.fixture(scope="module")
def attention(directory: Path) -> str:
    return ATTENTION[directory.name]


def prompts(model: LoadedModel) -> torch.Tensor:
    return torch.randint(model.vocab_size, (B, L), generator=torch.Generator().manual_seed(3))


def expected(model: LoadedModel) -> list[list[int]]:
    """What transformers' generation says."""
    return model.generate(
        prompts(model),
        max_new_tokens=N,
        options=SamplingOptions(),
        stop=lambda row, ids: False,
        eos_ids=(),
    )


def decoded(decoder: Decoder, ids: torch.Tensor, n: int = N) -> list[list[int]]:
    decoder.prepare(batch_size=ids.shape[0], prompt_len_tokens=ids.shape[1], gen_len_tokens=n)
    return continued(decoder, decoder.prefill(ids), n)


def continued(decoder: Decoder, ids: torch.Tensor, n: int = N) -> list[list[int]]:
    chosen = [ids.clone()]
    for _ in range(n - 1):
        ids = decoder.step(ids)
        chosen.append(ids.clone())
    return torch.stack(chosen, dim=1).tolist()


def replayed(model: LoadedModel, attention: str) -> GraphDecoder:
    """The graph arm with a recorder that runs the recorded function again."""

    def record(work: Callable[[], None]) -> Callable[[], None]:
        for _ in range(WARM_CALLS):
            work()
        return work

    stepped = build_decoder(model, arm="shipped", attention=attention)
    assert isinstance(stepped, TransformersDecoder)
    return GraphDecoder(stepped, record)


@pytest.mark.parametrize("arm", ["eager", "shipped"])
def test_an_arm_decodes_what_transformers_generates(model: LoadedModel, attention: str, arm: Any) -> None:
    decoder = build_decoder(model, arm=arm, attention=attention)
    assert decoded(decoder, prompts(model)) == expected(model)
    # A second prefill forgets the first.
    assert decoded(decoder, prompts(model)) == expected(model)


def test_a_replayed_step_decodes_the_same(model: LoadedModel, attention: str) -> None:
    decoder = replayed(model, attention)
    assert decoded(decoder, prompts(model)) == expected(model)
    ids = decoder.prefill(prompts(model))
    decoder.keep()
    first = continued(decoder, ids)
    assert first == expected(model)
    assert continued(decoder, decoder.rewind()) == first
    assert decoder.capture_s > 0
    assert decoder.kernel_path.endswith("CUDA graph")


def test_a_static_cache_stays_at_its_addresses(model: LoadedModel, attention: str) -> None:
    decoder = replayed(model, attention)
    decoded(decoder, prompts(model))
    inner: Any = decoder._inner
    before = [t.data_ptr() for t in inner.state_tensors()]
    assert before
    decoded_again = continued(decoder, decoder.prefill(prompts(model)))
    assert decoded_again == expected(model)
    assert [t.data_ptr() for t in inner.state_tensors()] == before


@pytest.mark.parametrize("arm", ["eager", "shipped"])
def test_rewinding_repeats_the_decoding(model: LoadedModel, attention: str, arm: Any) -> None:
    decoder = build_decoder(model, arm=arm, attention=attention)
    decoder.prepare(batch_size=B, prompt_len_tokens=L, gen_len_tokens=N)
    ids = decoder.prefill(prompts(model))
    decoder.keep()
    first = continued(decoder, ids)
    for _ in range(2):
        assert continued(decoder, decoder.rewind()) == first == expected(model)


@pytest.mark.parametrize("chunk", [None, 4, 1])
def test_a_cache_whose_length_is_known_is_never_moved(
    model: LoadedModel, attention: str, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a first step, nor by one after `keep` or `rewind`, and it is as large as it will be."""
    decoder = build_decoder(model, arm="eager", attention=attention, prefill_chunk_tokens=chunk)
    assert isinstance(decoder, StatefulDecoder)
    decoder.prepare(batch_size=B, prompt_len_tokens=L, gen_len_tokens=N)
    ids = decoder.prefill(prompts(model))
    gathered: list[object] = []
    monkeypatch.setattr(attention_state, "_gathered", gathered.append)
    decoder.keep()
    held, used = decoder.allocated_bytes(), decoder.state_bytes()
    for _ in range(3):
        assert continued(decoder, ids) == expected(model)
        assert decoder.allocated_bytes() == decoder.state_bytes() == held
        ids = decoder.rewind()
        assert decoder.state_bytes() == used
    assert gathered == []
    assert (used < held) == (attention != "none")


@pytest.mark.parametrize("chunk", [1, 4, 9, 100])
def test_a_prefill_in_chunks_is_exact(model: LoadedModel, attention: str, chunk: int) -> None:
    decoder = build_decoder(model, arm="eager", attention=attention, prefill_chunk_tokens=chunk)
    assert decoded(decoder, prompts(model)) == expected(model)


def test_transformers_in_chunks_is_exact_or_refused(
    model: LoadedModel, attention: str, directory: Path
) -> None:
    if directory.name == "mamba":
        with pytest.raises(UnsupportedError, match="forgets its state"):
            build_decoder(model, arm="shipped", attention=attention, prefill_chunk_tokens=4)
        return
    decoder = build_decoder(model, arm="shipped", attention=attention, prefill_chunk_tokens=4)
    assert decoded(decoder, prompts(model)) == expected(model)


@pytest.mark.parametrize("arm", ["eager", "shipped", "graph"])
def test_the_live_state_is_as_large_as_the_architecture_says(
    model: LoadedModel, attention: str, directory: Path, arm: str
) -> None:
    chosen: Any = arm
    decoder = (
        replayed(model, attention)
        if arm == "graph"
        else build_decoder(model, arm=chosen, attention=attention)
    )
    decoded(decoder, prompts(model))
    ref = resolve(str(directory))
    sizes = sizes_of(ref, locate(ref, "pretrained"))
    assert sizes is not None
    layout = layout_for(decoder.implementation.split()[0], "float32", sizes)
    assert decoder.state_tokens == (L + N if arm == "graph" else L + N - 1)
    assert decoder.state_bytes() == B * sizes.state_bytes(layout, length_tokens=decoder.state_tokens)


def test_weights_are_counted_once(model: LoadedModel, attention: str) -> None:
    untyped: Any = model
    expected_bytes = sum(p.numel() * 4 for p in {id(p): p for p in untyped.module.parameters()}.values())
    assert build_decoder(model, arm="eager", attention=attention).weights_bytes == expected_bytes


def test_drawn_ids_are_the_engines(model: LoadedModel, attention: str) -> None:
    first = decoded(build_decoder(model, arm="sampled", attention=attention), prompts(model))
    again = decoded(build_decoder(model, arm="sampled", attention=attention), prompts(model))
    assert first == again
    assert first != expected(model)


def test_eager_attention_runs_and_says_so(tmp_path: Path) -> None:
    model = load(check(resolve(str(tiny_neox(tmp_path / "m"))), device="cpu", need_tokenizer=False))
    wanted = expected(model)
    decoder = build_decoder(model, arm="eager", attention="eager")
    assert decoded(decoder, prompts(model)) == wanted
    assert decoder.kernel_path == "torch eager"
    sdpa = build_decoder(model, arm="shipped", attention="sdpa")
    assert decoded(sdpa, prompts(model)) == wanted
    assert sdpa.kernel_path.startswith("torch sdpa (")


def test_a_hybrid_of_transformers_names_its_scan_beside_its_attention(tmp_path: Path) -> None:
    config = BambaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, mamba_d_state=8, mamba_n_heads=4, mamba_d_head=16, attn_layer_indices=[1],
        vocab_size=16,
    )  # fmt: skip
    BambaForCausalLM(config).save_pretrained(tmp_path)
    model = load(check(resolve(str(tmp_path)), device="cpu", need_tokenizer=False))
    decoder = build_decoder(model, arm="shipped", attention="sdpa")
    assert decoder.kernel_path == "transformers torch chunks and torch sdpa"
    decoded(decoder, prompts(model))
    assert decoder.kernel_path.startswith("transformers torch chunks and torch sdpa (")


def test_what_does_not_exist_is_unsupported(tmp_path: Path) -> None:
    model = load(check(resolve(str(tiny_neox(tmp_path / "m"))), device="cpu", need_tokenizer=False))
    with pytest.raises(UnsupportedError, match="CUDA"):
        build_decoder(model, arm="graph")
    with pytest.raises(UnsupportedError, match="flash"):
        build_decoder(model, arm="eager", attention="flash")


def test_a_hybrid_has_no_shipped_arm_on_a_cpu(tmp_path: Path) -> None:
    directory = tiny_hybrid(tmp_path / "h")
    model = load(check(resolve(str(directory)), device="cpu", need_tokenizer=False))
    decoder = build_decoder(model, arm="eager", attention="sdpa")
    assert isinstance(decoder, StatefulDecoder)
    assert decoder.weights_bytes == 4 * model.record.n_parameters
    assert len(decoded(decoder, prompts(model))[0]) == N
    with pytest.raises(UnsupportedError, match="no shipped code"):
        build_decoder(model, arm="shipped", attention="sdpa")


def test_an_arm_that_agrees_passes(model: LoadedModel, attention: str) -> None:
    for arm in ("eager", "shipped"):
        decoder = build_decoder(model, arm=arm, attention=attention)  # type: ignore[arg-type]
        assert require_agreement(decoder, model, arm=arm) < 1e-4
    assert require_agreement(replayed(model, attention), model, arm="graph") < 1e-4


@pytest.mark.parametrize("wrong", [1, 2, 8, 20])
def test_an_arm_that_is_wrong_in_one_size_of_batch_is_refused(
    model: LoadedModel, attention: str, wrong: int
) -> None:
    decoder = build_decoder(model, arm="eager", attention=attention)

    class Off(StatefulDecoder):
        def step(self, ids: torch.Tensor) -> torch.Tensor:
            chosen = super().step(ids)
            self.logits = self.logits * 1.01 if len(ids) == wrong else self.logits
            return chosen

    decoder.__class__ = Off
    with pytest.raises(CertificateError, match=f"in a batch of {wrong},"):
        require_agreement(decoder, model, arm="eager")


def test_an_arm_with_a_wrong_state_is_refused(model: LoadedModel, attention: str) -> None:
    """Each step forgets what came before it."""
    decoder = build_decoder(model, arm="eager", attention=attention)
    assert isinstance(decoder, StatefulDecoder)

    class Forgetful(StatefulDecoder):
        def step(self, ids: torch.Tensor) -> torch.Tensor:
            self._state = self.model.start(len(ids))
            return super().step(ids)

    decoder.__class__ = Forgetful
    with pytest.raises(CertificateError, match="standard deviations"):
        require_agreement(decoder, model, arm="eager")
