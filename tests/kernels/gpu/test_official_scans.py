"""Whether mamba_ssm's scans are taken: where they can be imported, and by a name that says what computes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from mamba_ssm_code import needs_mamba_ssm, run_beside

from mambabench.kernels.gpu import official, triton_kernels
from mambabench.kernels.gpu.choice import ChosenKernels
from mambabench.kernels.packed import kernels_for

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not here")
OURS = "mambabench Triton scan"
BOTH = f"mamba_ssm scan from a state (long), {OURS}"
MODULES = {
    "mamba_ssm.ops.selective_scan_interface": "selective_scan_fn",
    "mamba_ssm.ops.triton.ssd_combined": "mamba_chunk_scan_combined",
}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return empty modules in the places of mamba_ssm's, each with its function."""
    made: dict[str, Any] = {}
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", *MODULES):
        made[name] = types.ModuleType(name)
        made[name].__spec__ = importlib.util.spec_from_loader(name, None)
        monkeypatch.setitem(sys.modules, name, made[name])
    for name, function in MODULES.items():
        setattr(made[name], function, function)
    monkeypatch.setattr(triton_kernels, "obstacle", lambda: None)
    return made


@pytest.mark.usefixtures("modules")
def test_a_gpu_with_mamba_ssm_gets_both() -> None:
    found = kernels_for("cuda", torch.bfloat16)
    assert isinstance(found, ChosenKernels)
    assert found.dtype == torch.bfloat16
    assert official.functions() == tuple(MODULES.values())


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_name_is_what_computes(dtype: torch.dtype) -> None:
    kernels = kernels_for("cuda", dtype)
    assert kernels.scan_way(1536, 16).name == BOTH
    assert kernels.scan_way(1536, 256).name == BOTH
    # More states a channel than mamba_ssm takes, and so many channels that a call has no room for a state.
    assert kernels.scan_way(1536, 257) == kernels.scan_way(1 << 20, 16) == (OURS, 0)
    ssd = kernels.ssd_way(24, 64, 128, 1)
    assert (ssd.name == BOTH) if dtype == torch.bfloat16 else (ssd == (OURS, 0))


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(("channels", "n_states"), [(1536, 16), (5120, 16), (8192, 16), (2048, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("row_tokens", [1024, 3000])
def test_a_call_of_the_first_scan_stays_within_its_workspace(
    dtype: torch.dtype, channels: int, n_states: int, row_tokens: int
) -> None:
    # Shorter rows are not worth the tokens that their states are put in as: four times three a state.
    row_tokens, widest = max(row_tokens, 12 * n_states), max(channels, 2 * n_states)
    rows = max(1, official.MOST_ELEMENTS // widest // row_tokens)
    padded = min(row_tokens, official.MOST_ELEMENTS // widest)
    # u, dt, z, y and gated y; B and C; and mamba_ssm's states, which it writes every 2048 tokens.
    activations = rows * padded * (5 * channels + 2 * n_states) * dtype.itemsize
    states = rows * channels * -(-padded // 2048) * 2 * n_states * 4
    workspace = kernels_for("cuda", dtype).scan_way(channels, n_states).workspace_bytes
    assert activations + states <= workspace <= 1.6 * (activations + states)
    assert workspace < (200 << 20) * dtype.itemsize // 2


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("sizes", [(24, 64, 128, 1), (80, 64, 128, 1), (128, 64, 128, 8), (16, 128, 64, 4)])
@pytest.mark.parametrize("row_tokens", [256, 257, 1500])
def test_a_call_of_the_second_scan_stays_within_its_workspace(
    sizes: tuple[int, int, int, int], row_tokens: int
) -> None:
    heads, width, n_states, groups = sizes
    channels = heads * width
    xbc = channels + 2 * groups * n_states
    rows = official.MOST_ELEMENTS // xbc // 256 * 256 // row_tokens
    tokens, chunks = rows * row_tokens, rows * -(-row_tokens // 256)
    # What is gathered; y, and what of it is no padding.
    narrow = 2 * tokens * (xbc + heads + 2 * channels)
    # Of a chunk: steps, their sums, products of C and B, and states, which are passed on in 16 bits.
    wide = 4 * chunks * 256 * (2 * heads + groups * 256) + (4 + 2) * chunks * channels * n_states
    ends = 2 * 4 * rows * channels * n_states
    workspace = kernels_for("cuda", torch.bfloat16).ssd_way(*sizes).workspace_bytes
    assert narrow + wide + ends <= workspace <= 3 * (narrow + wide + ends)
    assert workspace < 480 << 20


@pytest.mark.parametrize("name", MODULES)
def test_without_either_function_all_is_ours(modules: dict[str, Any], name: str) -> None:
    delattr(modules[name], MODULES[name])
    assert kernels_for("cuda").scan_way(1536, 16) == (OURS, 0)


def test_an_extension_that_does_not_load_is_as_if_absent(
    modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's own words for a library that was built for another torch are an ImportError, too.
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, next(iter(MODULES)), None)
        assert official.functions() is None

    whole = importlib.import_module

    def breaks(name: str, package: str | None = None) -> Any:
        if name in MODULES:
            raise RuntimeError("no such operator")
        return whole(name, package)

    monkeypatch.setattr("importlib.import_module", breaks)
    assert official.functions() is None
    assert kernels_for("cuda").scan_way(1536, 16) == (OURS, 0)


@needs_mamba_ssm
def test_mamba_ssms_own_code_for_mamba2_goes_on_from_states() -> None:
    errors = run_beside(Path(__file__).with_name("official_ssd_on_cpu.py"))
    assert len(errors) == 3
    assert max(errors) <= 1
