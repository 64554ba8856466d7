"""What ended a measurement: the texts of several versions of several libraries, and ends without a text."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambabench.bench.failures import UnsupportedError, classify, classify_exit
from mambabench.errors import MambabenchError, UsageError
from mambabench.launch.process import ChildExit

MIB = 1 << 20
GIB = 1 << 30

TORCH_1 = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.78 GiB total capacity; 14.57 GiB already "
    "allocated; 8.00 MiB free; 14.60 GiB reserved in total by PyTorch) If reserved memory is >> allocated"
)
TORCH_2 = (
    "CUDA out of memory. Tried to allocate 13.40 GiB. GPU 0 has a total capacity of 23.65 GiB of which "
    "12.75 MiB is free. Process 12 has 15.77 GiB memory in use. Of the allocated memory 14.57 GiB is "
    "allocated by PyTorch, and 75.50 MiB is reserved by PyTorch but unallocated. If reserved but"
)
TORCH_BOUNDED = (
    "CUDA out of memory. Tried to allocate 512.00 KiB. GPU 0 has a total capacity of 79.15 GiB of which "
    "70.00 GiB is free. 1.00 GiB allowed; Of the allocated memory 960.00 MiB is allocated by PyTorch, "
    "with 32.00 MiB allocated in private pools (e.g., CUDA Graphs), and 75 bytes is reserved by PyTorch"
)
TORCH_CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)


class OutOfMemoryError(RuntimeError):
    """As torch's, which need not be there."""


@pytest.mark.parametrize(
    ("error", "requested", "allocated"),
    [
        (OutOfMemoryError(TORCH_1), 20 * MIB, int(14.57 * GIB)),
        (OutOfMemoryError(TORCH_2), int(13.4 * GIB), int(14.57 * GIB)),
        (OutOfMemoryError(TORCH_BOUNDED), 512 * 1024, 960 * MIB),
        (RuntimeError(TORCH_1), 20 * MIB, int(14.57 * GIB)),
        (RuntimeError(TORCH_CPU), 1 << 42, None),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), None, None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`"), None, None),
        (OutOfMemoryError("another text"), None, None),
        (MemoryError(), None, None),
        (OSError(12, "Cannot allocate memory"), None, None),
        (MemoryError("Unable to allocate 50 bytes"), 50, None),
    ],
)
def test_out_of_memory(error: BaseException, requested: int | None, allocated: int | None) -> None:
    failure = classify(error)
    assert failure.status == "oom"
    assert (failure.requested_bytes, failure.allocated_bytes) == (requested, allocated)
    assert failure.detail
    assert "\n" not in failure.detail


def test_what_numpy_raises_today() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 50)
    assert classify(caught.value)[0::2] == ("oom", 1 << 53)


def test_what_torch_raises_today() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 52, dtype=torch.uint8)
    assert classify(caught.value)[0::2] == ("oom", 1 << 52)


def test_a_wrapped_lack_of_memory_is_one() -> None:
    error = MambabenchError("the model could not be run")
    error.__cause__ = OutOfMemoryError(TORCH_2)
    failure = classify(error)
    assert failure.status == "oom"
    assert failure.requested_bytes == int(13.4 * GIB)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously",
        "Triton Error [CUDA]: an illegal memory access was encountered",
    ],
)
def test_illegal_access(text: str) -> None:
    assert classify(RuntimeError(text))[:2] == ("illegal_access", text.splitlines()[0])


def test_only_our_own_error_means_unsupported() -> None:
    failure = classify(UnsupportedError("2,048 positions were learned, 4,096 are needed", hint="Use rotary."))
    assert failure.status == "unsupported"
    assert failure.detail == "2,048 positions were learned, 4,096 are needed. Use rotary."
    for error in (NotImplementedError("no"), RuntimeError("flash attention is not supported")):
        assert classify(error).status == "failed"


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (UsageError("a word is wrong", hint="Write another."), "a word is wrong. Write another."),
        (RuntimeError("the memory of elephants"), "RuntimeError: the memory of elephants"),
        (ValueError("we ran out of memory of it"), "ValueError: we ran out of memory of it"),
        (RuntimeError("out of resource: shared memory"), "RuntimeError: out of resource: shared memory"),
    ],
)
def test_everything_else_failed(error: BaseException, detail: str) -> None:
    assert classify(error) == ("failed", detail, None, None)


def test_errors_that_cause_each_other() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert classify(first).detail == "ValueError: first"


@given(st.text())
def test_no_text_is_too_much(text: str) -> None:
    for error in (RuntimeError(text), OutOfMemoryError(text), MambabenchError(text)):
        detail = classify(error).detail
        assert len(detail) <= 300
        assert len(detail.splitlines()) <= 1


@given(st.integers(1, 10**15), st.integers(1, 10**15))
def test_any_size_is_read(requested: int, allocated: int) -> None:
    text = (
        f"CUDA out of memory. Tried to allocate {requested} bytes. {allocated} bytes is allocated by PyTorch"
    )
    assert classify(RuntimeError(text))[2:] == (requested, allocated)


def _ended(**given: object) -> ChildExit:
    values: dict[str, object] = {
        "returncode": 0,
        "timed_out": False,
        "over_budget": False,
        "wall_s": 2.0,
        "peak_rss_bytes": 700,
        "stderr_tail": "",
    }
    return ChildExit(**(values | given))  # type: ignore[arg-type]


def test_ends_that_the_parent_brought_about() -> None:
    over = classify_exit(_ended(returncode=-9, over_budget=True, baseline_bytes=200))
    assert (over.status, over.allocated_bytes) == ("oom", 500)
    late = classify_exit(_ended(returncode=-9, timed_out=True))
    assert late.status == "timeout"
    assert "2.0 s" in late.detail


def test_a_kill_from_outside_is_said_to_be_one() -> None:
    failure = classify_exit(_ended(returncode=-signal.SIGKILL, stderr_tail="last words"))
    assert failure.status == "killed"
    assert "kernel" in failure.detail


@pytest.mark.parametrize(
    ("returncode", "tail", "detail"),
    [
        (-signal.SIGSEGV, "a\nlast words\n\n", "ended by SIGSEGV: last words"),
        (-signal.SIGTERM, "", "ended by SIGTERM"),
        (1, "Traceback\nImportError: no", "ended with exit code 1 and no record: ImportError: no"),
        (0, "", "ended with exit code 0 and no record"),
        (-250, "", "ended by signal 250"),
    ],
)
def test_other_ends_failed(returncode: int, tail: str, detail: str) -> None:
    assert classify_exit(_ended(returncode=returncode, stderr_tail=tail))[:2] == ("failed", detail)
