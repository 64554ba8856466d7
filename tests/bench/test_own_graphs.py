"""One graph a token, over our own steps and over transformers': replays on a tape against plain decoding."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    hybrid1_config,
    tiny_falcon_mamba,
    tiny_hybrid,
    tiny_llama,
    tiny_mamba,
    tiny_mamba2,
    tiny_neox,
)
from graph_on_tape import record, taped_kernels

from mambabench.bench.agreement import require_agreement
from mambabench.bench.decoders import build_decoder
from mambabench.bench.failures import UnsupportedError
from mambabench.bench.graphs import GraphDecoder
from mambabench.bench.own_graphs import InPlaceDecoder, recordable
from mambabench.bench.shipped import TransformersDecoder, stepped
from mambabench.bench.sizes import sizes_of
from mambabench.models.load import check, load
from mambabench.models.locate import locate
from mambabench.registry import resolve
from mambabench.sizes import layout_for

B, L, N = 2, 9, 7


def tiny_hybrid1(directory: Path) -> Path:
    return tiny_hybrid(directory, hybrid1_config())


OURS: dict[str, Callable[[Path], Path]] = {
    "mamba": tiny_mamba,
    "falcon_mamba": tiny_falcon_mamba,
    "mamba2": tiny_mamba2,
    "hybrid": tiny_hybrid,
    "hybrid of Mamba-1": tiny_hybrid1,
}
TRANSFORMERS: dict[str, Callable[[Path], Path]] = {
    "mamba": tiny_mamba,
    "falcon_mamba": tiny_falcon_mamba,
    "mamba2": tiny_mamba2,
    "gpt_neox": tiny_neox,
    "llama": tiny_llama,
}


@pytest.fixture(autouse=True, scope="module")
def noted() -> Iterator[None]:
    with taped_kernels():
        yield


def loaded(directory: Path) -> Any:
    return load(check(resolve(str(directory)), device="cpu", need_tokenizer=False))


def attention_of(directory: Path) -> Any:
    return "none" if directory.name in ("mamba", "falcon_mamba", "mamba2") else "sdpa"


@pytest.fixture(scope="module", params=OURS)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    return OURS[name](tmp_path_factory.mktemp("own") / name)


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    return loaded(directory)


def ours(model: Any, directory: Path, chunk: int | None = None) -> InPlaceDecoder:
    """Return what the graph arm would repeat on a GPU."""
    decoder = recordable(model, 5, attention_of(directory), chunk)
    assert isinstance(decoder, InPlaceDecoder)
    return decoder


def prompts(model: Any, rows: int = B, length: int = L, seed: int = 3) -> torch.Tensor:
    return torch.randint(model.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def continued(decoder: Any, ids: torch.Tensor, n: int = N) -> list[list[int]]:
    chosen = [ids.clone()]
    for _ in range(n - 1):
        ids = decoder.step(ids)
        chosen.append(ids.clone())
    return torch.stack(chosen, dim=1).tolist()


def decoded(decoder: Any, ids: torch.Tensor, n: int = N) -> list[list[int]]:
    decoder.prepare(batch_size=len(ids), prompt_len_tokens=ids.shape[1], gen_len_tokens=n)
    return continued(decoder, decoder.prefill(ids), n)


@pytest.mark.parametrize("chunk", [None, 4])
def test_replays_decode_what_the_eager_arm_does(model: Any, directory: Path, chunk: int | None) -> None:
    want = decoded(build_decoder(model, arm="eager", attention=attention_of(directory)), prompts(model))
    inner = ours(model, directory, chunk)
    graph = GraphDecoder(inner, record)
    assert decoded(graph, prompts(model)) == want
    addresses = [t.data_ptr() for t in inner.state_tensors()]
    graph.prefill(prompts(model, seed=8))
    ids = graph.prefill(prompts(model))
    graph.keep()
    assert continued(graph, ids) == want
    for _ in range(2):
        assert continued(graph, graph.rewind()) == want
    assert [t.data_ptr() for t in inner.state_tensors()] == addresses
    assert graph.implementation == model.record.implementation
    assert graph.weights_bytes == 5
    attends = attention_of(directory) == "sdpa"
    assert graph.kernel_path == (
        "mambabench compiled scan"
        + "; torch sdpa, packed, in steps over a static cache" * attends
        + ", CUDA graph"
    )


def test_the_arm_agrees_with_the_shipped_forward(model: Any, directory: Path) -> None:
    graph = GraphDecoder(ours(model, directory), record)
    assert require_agreement(graph, model, arm="graph") < 1e-4


def test_the_live_state_is_as_large_as_the_architecture_says(model: Any, directory: Path) -> None:
    graph = GraphDecoder(ours(model, directory), record)
    decoded(graph, prompts(model))
    ref = resolve(str(directory))
    sizes = sizes_of(ref, locate(ref, "pretrained"))
    assert sizes is not None
    layout = layout_for(graph.implementation.split()[0], "float32", sizes)
    assert graph.state_tokens == L + N
    assert graph.state_bytes() == B * sizes.state_bytes(layout, length_tokens=L + N)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 3), (40, 1)])
def test_a_short_text_fits_into_its_room(model: Any, directory: Path, shape: tuple[int, int]) -> None:
    ids = prompts(model, length=shape[0])
    eager = build_decoder(model, arm="eager", attention=attention_of(directory))
    assert decoded(GraphDecoder(ours(model, directory), record), ids, shape[1]) == decoded(
        eager, ids, shape[1]
    )


@pytest.fixture(scope="module", params=TRANSFORMERS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    name = str(request.param)
    path = TRANSFORMERS[name](tmp_path_factory.mktemp("theirs") / name)
    model = loaded(path)

    def make() -> tuple[Any, TransformersDecoder]:
        decoder = stepped(model.module, model, 0, attention_of(path), None)
        assert isinstance(decoder, TransformersDecoder)
        return model, decoder

    return make


def test_transformers_steps_can_be_recorded(library: Callable[[], Any]) -> None:
    """Its caches are changed in place, nothing in a step counts on the host or waits."""
    model, plain = library()
    want = decoded(plain, prompts(model))
    inner = library()[1]
    graph = GraphDecoder(inner, record)
    assert decoded(graph, prompts(model)) == want
    addresses = [t.data_ptr() for t in inner.state_tensors()]
    ids = graph.prefill(prompts(model))
    graph.keep()
    assert continued(graph, ids) == want
    assert continued(graph, graph.rewind()) == want
    assert [t.data_ptr() for t in inner.state_tensors()] == addresses


def test_another_shape_of_ours(model: Any, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_another_shape(ours(model, directory), monkeypatch)


def test_another_shape_of_transformers(library: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    check_another_shape(library()[1], monkeypatch)


def check_another_shape(inner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that another shape is recorded anew, and the last one's memory freed before that is allocated."""
    held: list[weakref.ref[Any]] = []
    recorded: list[Callable[[], None]] = []
    allocations = 0

    def noting(work: Callable[[], None]) -> Callable[[], None]:
        replay = record(work)
        recorded.append(work)
        held.extend(weakref.ref(t) for t in (replay, inner.logits, *inner.state_tensors()))
        return replay

    name = "_begun" if isinstance(inner, InPlaceDecoder) else "_allocate"
    allocate = getattr(inner, name)

    def allocating(rows: int) -> Any:
        nonlocal allocations
        if not inner.state_tensors():
            allocations += 1
            assert [found() for found in held if found() is not None] == []
        return allocate(rows)

    monkeypatch.setattr(inner, name, allocating)
    graph = GraphDecoder(inner, noting)
    found = []
    for rows, length, new in ((2, 9, 7), (3, 5, 4), (3, 5, 4)):
        ids = torch.arange(rows * length).view(rows, length)
        graph.prepare(batch_size=rows, prompt_len_tokens=length, gen_len_tokens=new)
        first = graph.prefill(ids)
        graph.keep()
        found.append(continued(graph, first, new))
        assert continued(graph, graph.rewind(), new) == found[-1]
    assert found[1] == found[2]
    assert len(recorded) == allocations == 3


def test_what_nobody_can_record_says_why(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = loaded(tiny_llama(tmp_path / "d", config={"rope_parameters": rope}))
    with pytest.raises(UnsupportedError, match="frequencies change"):
        recordable(model, 0, "sdpa", None)
    # Not another attention than the one that was asked for.
    mixed = loaded(tiny_hybrid(tmp_path / "h"))
    with pytest.raises(UnsupportedError, match="no shipped code"):
        recordable(mixed, 0, "eager", None)
    plain = loaded(tiny_llama(tmp_path / "l"))
    assert isinstance(recordable(plain, 0, "sdpa", None), TransformersDecoder)
    with pytest.raises(UnsupportedError, match="move as they grow"):
        InPlaceDecoder(plain.stateful, implementation="", weights_bytes=0).make_static()
