"""The kernels of a GPU without one: run in Triton's interpreter, and compiled as they would be launched."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version
from ptx.launches import NoGpu

from mambabench.errors import ExtraMissingError
from mambabench.kernels.gpu import triton_kernels
from mambabench.kernels.gpu.choice import ChosenKernels
from mambabench.kernels.gpu.official import Functions
from mambabench.kernels.gpu.triton_kernels import TritonKernels
from mambabench.kernels.gpu.triton_version import installed, too_old
from mambabench.kernels.packed import CpuKernels, kernels_for, obstacle
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

TESTS = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or too_old(installed()) is not None,
    reason="Triton is not here, or one that is not used",
)


def _is_old() -> bool:
    try:
        return Version(version("triton")) < Version("3.7")
    except PackageNotFoundError:
        return False


MOST_SHARED_BYTES = 64 << 10
"""What every GPU from Turing on gives a program."""
MOST_SPILLED_BYTES = 512
"""Of a thread's registers: a few times what is expected. Where a compiler gives up, it is over 10 KB."""


@needs_triton
@pytest.mark.skipif(_is_old(), reason="the interpreter of Triton before 3.7 does not know today's numpy")
@pytest.mark.parametrize(
    "names",
    [
        ("kernels/gpu/triton_interpreted.py", "kernels/gpu/official_interpreted.py"),
        ("models/triton_models.py", "models/static_on_triton.py"),
    ],
    ids=["kernels", "models"],
)
def test_in_the_interpreter(names: tuple[str, ...]) -> None:
    files = [TESTS / name for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    # Alone, since Triton looks at the variable when a kernel is defined, and every later test would see it.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def spilled_bytes(kernel: Any, directory: Path) -> int:
    """Return the memory that a compiled kernel's threads have for registers; 0 where no tool tells it."""
    triton = importlib.util.find_spec("triton")
    assert triton is not None
    assert triton.origin is not None
    tool = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.is_file():
        return 0
    cubin = directory / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    told = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True)
    return int(told.stdout.partition("STACK:")[2].split()[0])


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Return a list that gets (name, compiled kernel) of each launch; nothing is launched."""
    driver: Any = importlib.import_module("triton.runtime").driver
    from triton.runtime.jit import JITFunction

    if not hasattr(driver, "_active"):
        pytest.skip("this Triton keeps its driver elsewhere")
    found: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append((self.__name__, run(self, *args, grid=grid, warmup=True, **options)))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", NoGpu())
    monkeypatch.setattr(JITFunction, "run", compile_only)
    return found


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="what is compiled for no GPU would be kept for the real one"
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_what_long_rows_are_laid_out_with_compiles_without_a_gpu(
    dtype: torch.dtype, compiled: list[tuple[str, Any]]
) -> None:
    def scanned(u: torch.Tensor, *args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return u, torch.zeros(*u.shape[:2], 1, 32)[:, :, -1, 1::2]

    def chunks(x: torch.Tensor, *args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return x, torch.zeros(x.shape[0], 24, 64, 128)

    kernels = ChosenKernels(dtype, Functions(scanned, chunks))
    d, n, heads, width, states = 1536, 16, 24, 64, 128
    vector, matrix, each = torch.zeros(d), torch.zeros(n, d), torch.zeros(heads)
    for before in (None, Rows.apart(torch.zeros(2, n, d))):
        u, proj = torch.zeros(705, d, dtype=dtype), torch.zeros(705, 80, dtype=dtype)
        xz, starts = torch.zeros(705, 2 * d, dtype=dtype), row_starts([402, 303])
        kernels.scan(u, u, vector, matrix, proj, 48, vector, xz, d, starts, before, before)
    xbc = torch.zeros(705, heads * width + 2 * states, dtype=dtype)
    state = Rows.apart(torch.zeros(2, heads, states, width))
    dt, skip = torch.zeros(705, heads, dtype=dtype), torch.zeros(heads, width)
    kernels.ssd(xbc, dt, 0, each, each, skip, 1, starts, state, state)
    names = {name for name, _ in compiled}
    ours = {"lay_inputs", "lay_projections", "put_back", "move_states"}
    # mamba_ssm's other scan is for one of these dtypes only.
    assert names == (ours if dtype == torch.bfloat16 else ours | {"tiles"})
    for name, kernel in compiled:
        assert kernel.asm["cubin"], name
        assert kernel.metadata.shared <= MOST_SHARED_BYTES, name


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="what is compiled for no GPU would be kept for the real one"
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_launched_compiles_without_a_gpu(
    dtype: torch.dtype, compiled: list[tuple[str, Any]], tmp_path: Path
) -> None:
    # As the models ask for it, in the sizes of mamba-130m and mamba2-130m.
    kernels = TritonKernels(dtype)
    d, n, heads, width, states = 1536, 16, 24, 64, 128
    columns = heads * width + 2 * states
    taps, vector, matrix, each = torch.zeros(4, d), torch.zeros(d), torch.zeros(n, d), torch.zeros(heads)
    skip = torch.zeros(heads, width)

    def rows(*shape: int) -> Rows:
        return Rows.apart(torch.zeros(2, *shape))

    for lengths in ([700, 3], [1, 1]):
        starts, total = row_starts(lengths), sum(lengths)
        xz, proj = torch.zeros(total, 2 * d, dtype=dtype), torch.zeros(total, 80, dtype=dtype)
        u = kernels.conv_silu(xz, 0, taps, vector, starts, rows(3, d), rows(3, d))
        kernels.scan(u, u, vector, matrix, proj, 48, vector, xz, d, starts, rows(n, d), rows(n, d))
        zxbcdt = torch.zeros(total, heads * width + columns + heads, dtype=dtype)
        xbc = torch.zeros(total, columns, dtype=dtype)
        state = rows(heads, states, width)
        y = kernels.ssd(xbc, zxbcdt, heads * width + columns, each, each, skip, 1, starts, state, state)
        kernels.gate_norm(y, zxbcdt, 0, torch.zeros(heads * width), 1e-5, 1)
        kernels.add_norm(torch.zeros(total, 768), xz[:, :768].contiguous(), torch.zeros(768), 1e-5)
    names = {name for name, _ in compiled}
    assert names == {"conv_silu", "windows", "scan", "join", "tiles", "tokens", "gate_norm", "add_norm"}
    for name, kernel in compiled:
        assert kernel.asm["cubin"], name
        assert kernel.metadata.shared <= MOST_SHARED_BYTES, name
        assert spilled_bytes(kernel, tmp_path) <= MOST_SPILLED_BYTES, name


class Recorder:
    """Stands for a module of kernels: keeps (name, arguments) of each launch, and computes nothing."""

    def __init__(self) -> None:
        self.launches: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return _Launches(self.launches, name)


class _Launches:
    def __init__(self, launches: list[tuple[str, tuple[Any, ...]]], name: str) -> None:
        self.launches, self.name = launches, name

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *args, **options: self.launches.append((self.name, args))


@needs_triton
def test_no_program_reads_a_state_that_another_one_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Programs of a launch run in no order: a row's last piece may end before its first one begins.
    monkeypatch.setattr(triton_kernels, "obstacle", lambda: None)
    kernels, recorder = TritonKernels(), Recorder()
    kernels._scan = recorder
    lengths, d, n = [513, 3, 1024, 0, 1300], 8, 4
    u, a, vector = torch.zeros(sum(lengths), d), torch.zeros(n, d), torch.zeros(d)
    state = Rows.apart(torch.zeros(len(lengths), n, d))
    own = {int(address) for address in state.addresses(len(lengths), (n, d), torch.float32)}
    proj = torch.zeros(len(u), 2 * n)
    kernels.scan(u, u, vector, a, proj, 0, vector, u, 0, row_starts(lengths), state, state)
    for name, args in recorder.launches:
        if name != "scan":
            continue
        begins, _, sources, targets = args[11:15]
        first = sources.tolist() if sources is not None else [0] * len(begins)
        readers = {address: piece for piece, address in enumerate(first) if address}
        writers = {address: piece for piece, address in enumerate(targets.tolist()) if address}
        assert all(readers.get(address, piece) == piece for address, piece in writers.items())
    assert set(targets.tolist()) == own | {0}
    # Those of one piece are read where they lie.
    assert own & set(first) == {first[2], first[5]}


@needs_triton
def test_rows_that_have_no_states_are_as_if_none_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "obstacle", lambda: None)
    kernels = TritonKernels()
    recorders = kernels._math, kernels._scan, kernels._ssd = Recorder(), Recorder(), Recorder()
    d, n, heads = 8, 4, 2
    x, a, vector, starts = torch.zeros(6, 24), torch.zeros(n, d), torch.zeros(d), row_starts([5, 1])
    u, xbc, each = x[:, :d].contiguous(), x[:, : 16 + 2 * n].contiguous(), torch.zeros(heads)
    found = []
    for nothing in (None, Rows([None, None], (1,))):
        kernels.conv_silu(x, 0, torch.zeros(4, d), vector, starts, nothing, nothing)
        kernels.scan(u, u, vector, a, x, 0, vector, x, 0, starts, nothing, nothing)
        kernels.ssd(xbc, x, 0, each, each, torch.zeros(heads, d), 1, starts, nothing, nothing)
        found.append([[(name, len(args)) for name, args in r.launches] for r in recorders])
        pointers = [args[7] for _, args in kernels._math.launches], kernels._scan.launches[0][1][13:15]
        assert pointers == ([None], (None, None))
        assert kernels._ssd.launches[0][1][13:15] == (None, None)
        for recorder in recorders:
            recorder.launches.clear()
    assert found == [[[("conv_silu", 11)], [("scan", 19)], [("tiles", 20)]]] * 2


def test_each_device_has_kernels_of_its_own() -> None:
    assert isinstance(kernels_for("cpu", torch.bfloat16), CpuKernels)
    assert kernels_for("cpu").dtype == torch.float32
    assert obstacle("cpu") is None
    assert obstacle("meta") == "there are no scan kernels for meta"


@needs_triton
def test_a_gpu_gets_triton_in_the_dtype_of_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "obstacle", lambda: None)
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
    monkeypatch.setattr(triton_kernels, "installed", lambda: "3.3.0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if missing == "triton" else object())
    monkeypatch.setattr("shutil.which", lambda name: None if missing == "gcc" else f"/usr/bin/{name}")
    monkeypatch.setattr(Path, "is_file", lambda path: missing != "Python.h")
    assert words in str(obstacle("cuda"))
    with pytest.raises(ExtraMissingError, match=words) as caught:
        kernels_for("cuda")
    assert "--engine as-shipped" in caught.value.hint


@pytest.mark.parametrize("version", ["3.2.0", "3.2.0+git1", "2.3.1", "3.3.0a1"])
def test_a_triton_that_computes_wrongly_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(triton_kernels, "installed", lambda: version)
    with pytest.raises(ExtraMissingError, match="computes Mamba-2's scan wrongly") as caught:
        kernels_for("cuda")
    assert caught.value.hint == "Install torch 2.7 or later, or pass `--engine as-shipped`."
    # The interpreter compiles nothing.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert obstacle("cuda") is None


def test_other_tritons_are_not_refused() -> None:
    assert [too_old(version) for version in ("3.3.0", "3.3.0+git96316ce5", "3.10.0", None)] == [None] * 4


def test_triton_goes_by_several_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "pytorch-triton":
            raise PackageNotFoundError(name)
        return "3.4.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    assert installed() == "3.4.0"
    monkeypatch.setattr("importlib.metadata.version", lambda name: version("triton"))
    assert installed() is None
