"""The kernels of a GPU without one: run in Triton's interpreter, and compiled for several generations."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mambabench.errors import ExtraMissingError
from mambabench.kernels import cuda
from mambabench.kernels.cuda import TritonKernels
from mambabench.kernels.packed import CpuKernels, kernels_for, obstacle

TESTS = Path(__file__).resolve().parents[1]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not here")
SCALARS = {"low", "high", "eps"}
INTEGERS = {"starts", "begins", "stops", "before", "after", "pieces"}
NUMBERS = {
    "column", "channels", "tokens", "size", "groups", "n_states", "width", "heads_a_group",
    "b_column", "dt_column", "z_column", "proj_column",
}  # fmt: skip
FLOATS = {"weight", "bias", "dt_bias", "a", "skip", "residual", "steps", "ends"}


@needs_triton
def test_all_kernels_and_models_in_the_interpreter() -> None:
    files = [TESTS / "kernels" / "triton_interpreted.py", TESTS / "models" / "triton_models.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    # Alone, since Triton looks at the variable when a kernel is defined, and every later test would see it.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def signature(kernel: Any, dtype: str, constants: dict[str, Any]) -> dict[str, str]:
    """Return the types of a kernel's arguments as Triton writes them."""
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name in SCALARS:
            types[name] = "fp32"
        elif name in NUMBERS or name.endswith("stride"):
            types[name] = "i32"
        elif name == "row_of":
            types[name] = "*i32"
        else:
            types[name] = "*i64" if name in INTEGERS else "*fp32" if name in FLOATS else f"*{dtype}"
    return types


COMPILED: dict[str, tuple[str, str, dict[str, Any], dict[str, int]]] = {
    "convolution": (
        "math", "conv_silu", {"taps": 4, "remembers": True, "block_tokens": 4, "block_channels": 256}, {},
    ),
    "windows": (
        "math", "windows", {"past": 3, "remembers": True, "block_past": 4, "block_channels": 256}, {},
    ),
    "normalisation": ("math", "add_norm", {"adds": True, "block": 2048}, {}),
    "gate": ("math", "gate_norm", {"norms": True, "gate_first": True, "block": 4096}, {}),
    "scan": (
        "scan", "scan",
        {"steps": None, "remembers": True, "is_kept": True, "is_read": True, "block_states": 16,
         "block_channels": 32},
        {"num_warps": 1},
    ),
    "pieces": (
        "scan", "scan",
        {"before": None, "y": None, "remembers": False, "is_kept": True, "is_read": False,
         "block_states": 16, "block_channels": 32},
        {"num_warps": 1},
    ),
    "join": (
        "scan", "join", {"remembers": True, "block_states": 16, "block_channels": 32}, {"num_warps": 1},
    ),
    "tiles": (
        "ssd", "tiles",
        {"remembers": True, "is_kept": True, "precision": "tf32", "block_tokens": 32, "block_states": 128,
         "block_width": 64},
        {"num_warps": 8, "num_stages": 1},
    ),
    "tokens": (
        "ssd", "tokens",
        {"remembers": True, "is_kept": True, "block_states": 128, "block_width": 64}, {"num_warps": 4},
    ),
}  # fmt: skip
MOST_SHARED_BYTES = 64 << 10
"""What every GPU from Turing on gives a program."""


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")
@pytest.mark.parametrize("name", COMPILED)
def test_kernels_compile_without_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module, function, constants, options = COMPILED[name]
    kernel = getattr(getattr(TritonKernels(), f"_{module}"), function)
    source = ASTSource(
        kernel,
        signature(kernel, "bf16", constants),
        constexprs={(kernel.arg_names.index(n),): value for n, value in constants.items()},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= MOST_SHARED_BYTES


def test_each_device_has_kernels_of_its_own() -> None:
    assert isinstance(kernels_for("cpu", torch.bfloat16), CpuKernels)
    assert kernels_for("cpu").dtype == torch.float32
    assert obstacle("cpu") is None
    assert obstacle("meta") == "there are no scan kernels for meta"


@needs_triton
def test_a_gpu_gets_triton_in_the_dtype_of_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "obstacle", lambda: None)
    found = kernels_for("cuda:1", torch.bfloat16)
    assert isinstance(found, TritonKernels)
    assert found.dtype == torch.bfloat16
    assert kernels_for("cuda").dtype == torch.float32
    assert obstacle("cuda") is None


@pytest.mark.parametrize(
    ("missing", "words"),
    [("triton", "triton is not installed"), ("gcc", "no C compiler"), ("Python.h", "no Python.h")],
)
def test_what_triton_lacks_is_named(missing: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if missing == "triton" else object())
    monkeypatch.setattr("shutil.which", lambda name: None if missing == "gcc" else f"/usr/bin/{name}")
    monkeypatch.setattr(Path, "is_file", lambda path: missing != "Python.h")
    assert words in str(obstacle("cuda"))
    with pytest.raises(ExtraMissingError, match=words) as caught:
        kernels_for("cuda")
    assert "--engine as-shipped" in caught.value.hint
