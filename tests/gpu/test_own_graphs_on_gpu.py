"""One CUDA graph a token over our own steps, on a GPU; nothing here needs mamba_ssm.

Not run on hardware yet; see `run.sh`. Without a GPU `tests/bench/test_own_graphs.py` repeats the same steps
on a tape, and `tests/models/static_on_triton.py` the launches of their kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import hybrid1_config, tiny_falcon_mamba, tiny_hybrid, tiny_mamba, tiny_mamba2

from mambabench.bench.agreement import require_agreement
from mambabench.bench.decoders import StatefulDecoder
from mambabench.bench.graphs import GraphDecoder, cuda_recorder
from mambabench.bench.own_graphs import InPlaceDecoder
from mambabench.bench.sizes import sizes_of
from mambabench.models.load import check, load
from mambabench.models.locate import locate
from mambabench.models.official import is_installed
from mambabench.registry import resolve
from mambabench.sizes import layout_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda:0"
B, L, N = 3, 40, 24


def tiny_hybrid1(directory: Path) -> Path:
    return tiny_hybrid(directory, hybrid1_config())


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "mamba": tiny_mamba,
    "falcon_mamba": tiny_falcon_mamba,
    "mamba2": tiny_mamba2,
    "hybrid": tiny_hybrid,
    "hybrid1": tiny_hybrid1,
}


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    return FAMILIES[name](tmp_path_factory.mktemp("own") / name)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest, directory: Path) -> Any:
    if "hybrid" in directory.name and is_installed():
        # mamba_ssm's own model is the judge then, and its rotary positions are flash-attn's.
        pytest.importorskip("flash_attn", reason="attention needs flash-attn", exc_type=ImportError)
    return load(check(resolve(str(directory)), dtype=request.param, device=DEVICE, need_tokenizer=False))


def graph_of(model: Any) -> GraphDecoder:
    """Return the graph arm over our own steps, whichever the command would choose on this machine."""
    inner = InPlaceDecoder(model.stateful, implementation=model.record.implementation, weights_bytes=0)
    return GraphDecoder(inner, cuda_recorder(model.device))


def prompts(model: Any, seed: int = 3, rows: int = B, length: int = L) -> torch.Tensor:
    ids = torch.randint(model.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))
    return ids.to(DEVICE)


def continued(decoder: Any, ids: torch.Tensor) -> list[list[int]]:
    chosen = [ids.clone()]
    for _ in range(N - 1):
        ids = decoder.step(ids)
        chosen.append(ids.clone())
    return torch.stack(chosen, dim=1).tolist()


def prepared(decoder: Any, rows: int = B, length: int = L) -> Any:
    decoder.prepare(batch_size=rows, prompt_len_tokens=length, gen_len_tokens=N)
    return decoder


def test_a_graph_decodes_what_plain_steps_do(model: Any) -> None:
    plain = prepared(StatefulDecoder(model.stateful, implementation="", weights_bytes=0))
    graph = prepared(graph_of(model))
    assert graph.capture_s > 0
    for seed in (3, 4):
        ids = prompts(model, seed)
        want, got = (continued(decoder, decoder.prefill(ids)) for decoder in (plain, graph))
        if model.record.dtypes["matmul"] == "float32":
            assert got == want
        # In bfloat16 a near tie may be decided either way, after which texts differ.
        assert [row[0] for row in got] == [row[0] for row in want]


def test_a_graph_is_replayed_again_from_a_kept_state(model: Any) -> None:
    graph = prepared(graph_of(model))
    addresses = [t.data_ptr() for t in graph._inner.state_tensors()]
    ids = graph.prefill(prompts(model))
    graph.keep()
    first = continued(graph, ids)
    # Prompts of other lengths, and memory that others take meanwhile, must not reach what was recorded.
    graph._inner.model.step(torch.arange(7, device=DEVICE), [3, 4])
    torch.cuda.empty_cache()
    noise = [torch.full((1 << 20,), float("nan"), device=DEVICE) for _ in range(8)]
    assert continued(graph, graph.rewind()) == first
    assert continued(graph, graph.prefill(prompts(model))) == first
    assert [t.data_ptr() for t in graph._inner.state_tensors()] == addresses
    assert len(noise) == 8


def test_the_arm_agrees_with_the_shipped_forward(model: Any) -> None:
    require_agreement(graph_of(model), model, arm="graph")


def test_the_live_state_is_as_large_as_the_architecture_says(model: Any, directory: Path) -> None:
    graph = prepared(graph_of(model))
    continued(graph, graph.prefill(prompts(model)))
    ref = resolve(str(directory))
    sizes = sizes_of(ref, locate(ref, "pretrained"))
    assert sizes is not None
    layout = layout_for("mambabench", model.record.dtypes["matmul"], sizes)
    assert graph.state_tokens == L + N
    assert graph.state_bytes() == B * sizes.state_bytes(layout, length_tokens=L + N)


def test_another_shape_frees_the_last_one(model: Any) -> None:
    graph = graph_of(model)
    held = []
    for rows in (4, 1, 1, 1):
        prepared(graph, rows=rows)
        continued(graph, graph.prefill(prompts(model, rows=rows)))
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_allocated(DEVICE))
    assert held[1] == held[2] == held[3] < held[0]
