"""What a CUDA graph needs of a model's steps, on a CPU: recorders, static caches, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_llama, tiny_mamba, tiny_neox

from mambabench.bench.decoders import build_decoder
from mambabench.bench.failures import UnsupportedError
from mambabench.bench.graphs import WARM_CALLS, GraphDecoder, cuda_recorder
from mambabench.bench.shipped import TransformersDecoder
from mambabench.models.base import LoadedModel
from mambabench.models.load import check, load
from mambabench.registry import resolve

B = 2


class _Cuda:
    """Stands in for torch.cuda, and notes what is asked of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._error = error

    def Stream(self, device: torch.device) -> Any:
        self.calls.append("made")
        return _Stream(self, "side")

    def current_stream(self, device: torch.device) -> Any:
        return _Stream(self, "current")

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.calls.append(f"in {stream.name}")
        yield
        self.calls.append("out")

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.calls.append(f"on {device}")
        yield

    def CUDAGraph(self) -> Any:
        return self

    def replay(self) -> None:
        self.calls.append("replay")

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        self.calls.append(f"record in {stream.name}")
        yield
        if self._error is not None:
            raise self._error
        self.calls.append("recorded")


class _Stream:
    def __init__(self, cuda: _Cuda, name: str) -> None:
        self._cuda = cuda
        self.name = name

    def wait_stream(self, other: Any) -> None:
        self._cuda.calls.append(f"{self.name} waits for {other.name}")


def test_a_recorder_warms_up_beside_the_stream_and_records_once() -> None:
    cuda = _Cuda()
    record = cuda_recorder(torch.device("cpu"), cuda)
    replay = record(lambda: cuda.calls.append("work"))
    each = [
        "side waits for current", "in side", *["work"] * WARM_CALLS, "out", "current waits for side",
        "on cpu", "record in side", "work", "recorded",
    ]  # fmt: skip
    assert cuda.calls == ["made", *each]
    replay()
    assert cuda.calls[-1] == "replay"
    record(lambda: cuda.calls.append("work"))
    assert cuda.calls == ["made", *each, "replay", *each]


def _nothing() -> None:
    pass


def test_what_cannot_be_recorded_is_unsupported() -> None:
    told = RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
    with pytest.raises(UnsupportedError, match=r"cannot be recorded .*is capturing$"):
        cuda_recorder(torch.device("cpu"), _Cuda(told))(_nothing)
    other = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        cuda_recorder(torch.device("cpu"), _Cuda(other))(_nothing)


def loaded(directory: Path) -> LoadedModel:
    return load(check(resolve(str(directory)), device="cpu", need_tokenizer=False))


def shipped(model: LoadedModel, attention: Any = "sdpa") -> TransformersDecoder:
    decoder = build_decoder(model, arm="shipped", attention=attention)
    assert isinstance(decoder, TransformersDecoder)
    return decoder


def replayed(model: LoadedModel, attention: Any = "sdpa") -> GraphDecoder:
    def record(work: Callable[[], None]) -> Callable[[], None]:
        for _ in range(WARM_CALLS):
            work()
        return work

    return GraphDecoder(shipped(model, attention), record)


def decoded(decoder: Any, ids: torch.Tensor, n: int) -> list[list[int]]:
    decoder.prepare(batch_size=len(ids), prompt_len_tokens=ids.shape[1], gen_len_tokens=n)
    new = decoder.prefill(ids)
    chosen = [new.clone()]
    for _ in range(n - 1):
        new = decoder.step(new)
        chosen.append(new.clone())
    return torch.stack(chosen, dim=1).tolist()


@pytest.mark.parametrize("build", [tiny_mamba, tiny_neox])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 3), (16, 2), (40, 1)])
def test_a_short_text_fits_into_its_cache(tmp_path: Path, build: Any, shape: tuple[int, int]) -> None:
    """The steps before recording must not write past its end."""
    model = loaded(build(tmp_path / "m"))
    attention = "none" if build is tiny_mamba else "sdpa"
    ids = torch.randint(model.vocab_size, (B, shape[0]), generator=torch.Generator().manual_seed(1))
    want = decoded(shipped(model, attention), ids, shape[1])
    graph = replayed(model, attention)
    assert decoded(graph, ids, shape[1]) == want
    assert (graph.capture_s > 0) == (shape[1] > 1)


@pytest.fixture(params=[tiny_neox, tiny_llama])
def transformer(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return loaded(request.param(tmp_path / "m"))


def test_a_prompt_over_a_static_cache_is_that_over_a_dynamic_one(
    transformer: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mask, which would be L by L and keep fast kernels away, and no column past the prompt."""
    length, new = 33, 5
    ids = torch.randint(transformer.vocab_size, (B, length), generator=torch.Generator().manual_seed(1))
    dynamic = shipped(transformer)
    dynamic.prepare(batch_size=B, prompt_len_tokens=length, gen_len_tokens=new)
    dynamic.prefill(ids)
    static = replayed(transformer)
    static.prepare(batch_size=B, prompt_len_tokens=length, gen_len_tokens=new)
    calls: list[tuple[Any, int, bool]] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def noting(query: Any, key: Any, value: Any, **options: Any) -> Any:
        mask = options.get("attn_mask")
        shape = None if mask is None else tuple(mask.shape[-2:])
        calls.append((shape, key.shape[2], bool(options.get("is_causal"))))
        return attend(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    new_ids = static.prefill(ids)
    assert set(calls) == {(None, length, True)}
    torch.testing.assert_close(static.logits, dynamic.logits, atol=1e-6, rtol=0)
    calls.clear()
    static.step(new_ids)
    # One row over all there is room for, wherever the text ends.
    assert {(key, causal) for _, key, causal in calls} == {(length + new, False)}
    assert all(mask is not None and mask[1] == length + new for mask, _, _ in calls)


def test_backends_of_prompts_and_of_steps_are_told_apart(
    transformer: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(query: Any, key: Any, value: Any, **options: Any) -> int:
        return 1 if options.get("attn_mask") is None else 2

    monkeypatch.setattr(torch, "_fused_sdp_choice", chosen)
    ids = torch.ones(B, 20, dtype=torch.int64)
    plain, graph = shipped(transformer), replayed(transformer)
    decoded(plain, ids, 3)
    decoded(graph, ids, 3)
    assert plain.kernel_path == "torch sdpa (flash)"
    assert graph.kernel_path == "torch sdpa (flash; in steps memory-efficient), CUDA graph"


def test_steps_that_the_host_counts_are_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    stretched = loaded(tiny_llama(tmp_path / "d", config={"rope_parameters": rope}))
    with pytest.raises(UnsupportedError, match="frequencies change"):
        replayed(stretched)
    windowed = loaded(tiny_llama(tmp_path / "s"))
    untyped: Any = windowed
    untyped.module.config.sliding_window = 8
    untyped.module.config.layer_types = ["sliding_attention"] * untyped.module.config.num_hidden_layers
    with pytest.raises(UnsupportedError, match="sliding window"):
        replayed(windowed)
    flash = shipped(loaded(tiny_neox(tmp_path / "n")))
    flash._attention = "flash"
    with pytest.raises(UnsupportedError, match="unwritten columns"):
        GraphDecoder(flash, lambda work: work)
