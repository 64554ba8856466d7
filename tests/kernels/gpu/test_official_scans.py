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
    assert found.name == "mamba_ssm scan from a state (long), mambabench Triton scan"
    assert official.functions() == tuple(MODULES.values())


@pytest.mark.parametrize("name", MODULES)
def test_without_either_function_all_is_ours(modules: dict[str, Any], name: str) -> None:
    delattr(modules[name], MODULES[name])
    assert kernels_for("cuda").name == "mambabench Triton scan"


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
    assert kernels_for("cuda").name == "mambabench Triton scan"


@needs_mamba_ssm
def test_mamba_ssms_own_code_for_mamba2_goes_on_from_states() -> None:
    errors = run_beside(Path(__file__).with_name("official_ssd_on_cpu.py"))
    assert len(errors) == 3
    assert max(errors) <= 1
