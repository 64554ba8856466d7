"""The arms of sweeps, and what measures them, on a GPU. Not run on hardware yet; see `run.sh`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny_llama, tiny_mamba, tiny_mamba2, tiny_mamba_ssm, tiny_neox
from measuring import events_of

from mambabench.bench.agreement import require_agreement
from mambabench.bench.ceilings import measure as measure_ceilings
from mambabench.bench.ceilings import sheet
from mambabench.bench.clock import CudaClock
from mambabench.bench.decoders import build_decoder
from mambabench.bench.jobs import CeilingsJob, MeasureJob
from mambabench.bench.memory import CudaMemory
from mambabench.bench.power import PowerMeter
from mambabench.bench.sizes import sizes_of
from mambabench.errors import DeviceError
from mambabench.models.load import check, load
from mambabench.models.locate import locate
from mambabench.registry import resolve
from mambabench.sizes import layout_for
from mambabench.speed_schema import PointRecord, ReplicateRecord

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda:0"
B, L, N = 2, 40, 24
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "mamba": tiny_mamba,
    "mamba2": tiny_mamba2,
    "gpt_neox": tiny_neox,
    "llama": tiny_llama,
    "official mamba": partial(tiny_mamba_ssm, layer="Mamba1"),
    "official mamba2": partial(tiny_mamba_ssm, layer="Mamba2"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = str(request.param)
    if family.startswith("official"):
        pytest.importorskip("mamba_ssm", reason="needs the official kernels", exc_type=ImportError)
    return FAMILIES[family](tmp_path_factory.mktemp(family.replace(" ", "-")) / family.replace(" ", "-"))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest, directory: Path) -> Any:
    plan = check(resolve(str(directory)), dtype=request.param, device=DEVICE, need_tokenizer=False)
    return load(plan)


@pytest.fixture(scope="module")
def attention(directory: Path) -> Any:
    return "none" if "mamba" in directory.name else "sdpa"


def prompts(model: Any) -> torch.Tensor:
    ids = torch.randint(model.vocab_size, (B, L), generator=torch.Generator().manual_seed(3))
    return ids.to(DEVICE)


def continued(decoder: Any, ids: torch.Tensor) -> list[list[int]]:
    chosen = [ids.clone()]
    for _ in range(N - 1):
        ids = decoder.step(ids)
        chosen.append(ids.clone())
    return torch.stack(chosen, dim=1).tolist()


def decoded(decoder: Any, ids: torch.Tensor) -> list[list[int]]:
    decoder.prepare(batch_size=B, prompt_len_tokens=L, gen_len_tokens=N)
    return continued(decoder, decoder.prefill(ids))


def test_a_graph_decodes_what_the_other_arms_do(model: Any, attention: Any) -> None:
    ids = prompts(model)
    found = {
        arm: decoded(build_decoder(model, arm=arm, attention=attention), ids)
        for arm in ("eager", "shipped", "graph")
    }
    if model.record.dtypes["matmul"] == "float32":
        assert found["graph"] == found["shipped"] == found["eager"]
    # In bfloat16 a near tie may be decided either way, after which texts differ.
    assert [row[0] for row in found["graph"]] == [row[0] for row in found["shipped"]]


@pytest.mark.parametrize("arm", ["eager", "shipped", "graph"])
def test_every_arm_agrees_with_the_shipped_forward(model: Any, attention: Any, arm: Any) -> None:
    require_agreement(build_decoder(model, arm=arm, attention=attention), model, arm=arm)


def test_a_graph_is_replayed_again_from_a_kept_state(model: Any, attention: Any) -> None:
    decoder: Any = build_decoder(model, arm="graph", attention=attention)
    decoder.prepare(batch_size=B, prompt_len_tokens=L, gen_len_tokens=N)
    ids = decoder.prefill(prompts(model))
    decoder.keep()
    first = continued(decoder, ids)
    assert continued(decoder, decoder.rewind()) == first
    assert continued(decoder, decoder.prefill(prompts(model))) == first
    assert decoder.capture_s > 0


@pytest.mark.parametrize("arm", ["eager", "shipped", "graph"])
def test_the_live_state_is_as_large_as_the_architecture_says(
    model: Any, attention: Any, directory: Path, arm: Any
) -> None:
    decoder = build_decoder(model, arm=arm, attention=attention)
    decoded(decoder, prompts(model))
    ref = resolve(str(directory))
    sizes = sizes_of(ref, locate(ref, "pretrained"))
    assert sizes is not None
    layout = layout_for(decoder.implementation.split()[0], model.record.dtypes["matmul"], sizes)
    assert decoder.state_bytes() == B * sizes.state_bytes(layout, length_tokens=decoder.state_tokens)


def test_the_clock_sees_work_that_the_host_does_not_wait_for() -> None:
    clock = CudaClock(DEVICE)
    square = torch.rand(4096, 4096, device=DEVICE)
    (square @ square).sum().item()
    clock.prepare(3)
    marks = [clock.mark()]
    for _ in range(2):
        for _ in range(10):
            square = square @ square / 4096
        marks.append(clock.mark())
    times = clock.elapsed(marks)
    assert times.device_s is not None
    # Ten products of 4096 take 1.4 TFLOP: more than 1 ms on any card, and less than 1 s.
    assert all(1e-3 < s < 1 for s in times.device_s)
    assert all(host_s < device_s for host_s, device_s in zip(times.host_s, times.device_s, strict=True))


def test_the_meter_sees_what_is_allocated() -> None:
    meter = CudaMemory(DEVICE)
    meter.baseline()
    assert 50 << 20 < meter.context_bytes < torch.cuda.get_device_properties(DEVICE).total_memory
    meter.reset()
    before = torch.cuda.memory_allocated(DEVICE)
    held = torch.empty(256 << 20, dtype=torch.uint8, device=DEVICE)
    del held
    peak = meter.peak()
    assert peak.peak_bytes - before == pytest.approx(256 << 20, rel=0.01)
    assert peak.reserved_bytes is not None
    assert peak.peak_bytes <= peak.reserved_bytes <= peak.process_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ceilings_are_near_the_data_sheets(dtype: str) -> None:
    found = measure_ceilings(DEVICE, dtype, weights_bytes_hint=1 << 30, round=0)
    bytes_per_s, flops_per_s = sheet(torch.cuda.get_device_name(DEVICE), dtype)
    for measured, by_sheet, least in (
        (found.copy_bytes_per_s, bytes_per_s, 1e11),
        (found.matmul_flops_per_s, flops_per_s, 1e12),
    ):
        assert max(measured) < 2 * min(measured)
        assert min(measured) > least
        if by_sheet is not None:
            assert 0.3 * by_sheet < max(measured) < 1.05 * by_sheet


def test_energy_of_products() -> None:
    square = torch.rand(4096, 4096, device=DEVICE)

    def products() -> int:
        for _ in range(20):
            torch.mm(square, square)
        torch.cuda.synchronize()
        return 20

    try:
        meter = PowerMeter(DEVICE)
    except DeviceError as error:
        pytest.skip(str(error))
    found = meter.measure(products, at_least_s=2.0, idle_s=1.0)
    busy_w = found.energy_j / found.duration_s
    assert 5 < found.idle_w < busy_w < 2000


def point(**changes: Any) -> PointRecord:
    usual = {
        "model": "pythia-tiny", "batch_size": 1, "prompt_len_tokens": 128, "gen_len_tokens": 8,
        "arm": "shipped", "attention": "eager", "dtype": "float32", "device": DEVICE,
    }  # fmt: skip
    return PointRecord(**(usual | changes))


def measure_job(at: PointRecord, **changes: Any) -> MeasureJob:
    return MeasureJob(
        model="pythia-tiny", name="pythia-tiny", weights="pretrained", seed=0, dtype="float32",
        device=DEVICE, kind="latency", point=at, fingerprint="0", replicate=0, order=0, repeats=3,
        max_time_s=20.0, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("arm", ["eager", "graph", "shipped"])
def test_a_process_measures_a_point(arm: Any) -> None:
    record = ReplicateRecord.model_validate(
        events_of(measure_job(point(arm=arm, attention="sdpa")))[-1]["record"]
    )
    assert record.status == "ok", record.detail
    assert len(record.repeats) >= 3
    for repeat in record.repeats:
        assert repeat.decode_host_s is not None
        assert repeat.decode_device_s == pytest.approx(sum(repeat.itl_s), rel=0.05)
        assert 0 < repeat.decode_device_s <= 1.05 * repeat.decode_host_s
    assert record.memory is not None
    assert record.memory.peak_bytes > record.memory.weights_bytes > 0
    assert (record.capture_s is not None) == (arm == "graph")


def test_what_does_not_fit_the_emulated_memory_is_out_of_memory() -> None:
    # Scores of eager attention: 64 sequences of 4,096 squared positions, many times the budget.
    at = point(batch_size=64, prompt_len_tokens=4096)
    failed = events_of(measure_job(at, budget_bytes=4_000_000_000))[-1]
    assert (failed["event"], failed["status"]) == ("failed", "oom")
    assert failed["requested_bytes"] > 100_000_000


def test_a_process_measures_ceilings() -> None:
    job = CeilingsJob(device=DEVICE, dtype="bfloat16", weights_bytes_hint=1 << 30, round=0)
    assert [e["event"] for e in events_of(job)][-1] == "ceilings"


def test_a_step_that_waits_for_the_device_is_not_recorded() -> None:
    """In a process of its own, as a failed recording may leave the device unusable."""
    code = (
        "import torch\n"
        "from mambabench.bench.failures import UnsupportedError\n"
        "from mambabench.bench.graphs import cuda_recorder\n"
        "x = torch.ones(1, device='cuda:0')\n"
        "def work(): x.add_(1).item()\n"
        "try:\n"
        "    cuda_recorder(torch.device('cuda:0'))(work)\n"
        "except UnsupportedError as error:\n"
        "    print('unsupported:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert "unsupported: a step cannot be recorded" in done.stdout, done.stderr[-2000:]
