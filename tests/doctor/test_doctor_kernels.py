"""Kernels against float64: right ones pass at every shape and dtype, wrong ones are found by their error."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from mambabench.doctor import children
from mambabench.doctor.cases_cpu import cpu_cases
from mambabench.doctor.cases_packed import packed_cases
from mambabench.doctor.finding import KernelFinding
from mambabench.doctor.kernels import try_kernels
from mambabench.doctor.measure import BAR, Case, measure
from mambabench.kernels.packed import CpuKernels


@cache
def findings() -> tuple[KernelFinding, ...]:
    return tuple(measure(case) for case in cpu_cases())


def test_every_kernel_of_this_processor_passes_with_its_errors() -> None:
    for found in findings():
        assert found.passed, found
        assert found.rms_error is not None
        assert found.torch_rms_error is not None
        assert found.max_error is not None
        assert found.largest is not None
        assert found.ratio is not None
        assert 0 <= found.rms_error <= found.max_error < found.largest
        assert found.ratio <= BAR == found.bar
        assert found.time_s is not None
        assert found.time_s > 0


def test_all_kernels_are_tried_with_and_without_states_and_in_every_dtype() -> None:
    names = {found.kernel for found in findings()}
    assert names == {
        "convolution", "selective scan", "Mamba-2 scan", "add and normalise", "gate and normalise",
        "scan of a batch", "gradients of the scan", "product of a step", "convolution of a step",
        "scan of a step", "Mamba-2 scan of a step",
    }  # fmt: skip
    for name in ("convolution", "selective scan", "Mamba-2 scan", "scan of a batch"):
        shapes = [found.shape for found in findings() if found.kernel == name]
        assert any("from states" in shape for shape in shapes)
        assert any("from zero" in shape for shape in shapes)
    dtypes = {found.dtype for found in findings() if found.kernel == "scan of a batch"}
    assert dtypes == {"float32", "float64", "bfloat16", "float16"}
    assert {f.dtype for f in findings() if f.kernel == "product of a step"} >= {"float32", "bfloat16"}


def wrongly(change: Callable[[Any, tuple[Any, ...]], Any], method: str) -> type[CpuKernels]:
    """Return kernels one of whose methods is followed by a change of its result or its states."""
    right = getattr(CpuKernels, method)

    def wrong(self: Any, *args: Any, **options: Any) -> Any:
        return change(right(self, *args, **options), args)

    return type("Wrong", (CpuKernels,), {method: wrong})


def forget_states(y: Any, args: tuple[Any, ...]) -> Any:
    for tensor in args[-1].distinct():
        tensor.zero_()
    return y


@pytest.mark.parametrize(
    ("method", "kernel", "change", "words"),
    [
        ("scan", "selective scan", lambda y, args: y * 1.001, "output errs by"),
        ("scan", "selective scan", forget_states, "state errs by"),
        ("scan", "selective scan", lambda y, args: y[:, :-1], "has the shape"),
        ("scan", "selective scan", lambda y, args: y / 0.0, "no finite numbers"),
        ("ssd", "Mamba-2 scan", lambda y, args: y.roll(1, 0), "output errs by"),
        ("ssd", "Mamba-2 scan", forget_states, "state errs by"),
        ("conv_silu", "convolution", lambda y, args: y + 1e-5, "output errs by"),
        ("add_norm", "add and normalise", lambda y, args: y * 1.00001, "output errs by"),
        ("gate_norm", "gate and normalise", lambda y, args: args[0].mul_(1.00001), "output errs by"),
    ],
)
def test_a_wrong_kernel_is_found_with_the_size_of_its_error(
    method: str, kernel: str, change: Callable[[Any, tuple[Any, ...]], Any], words: str
) -> None:
    for case in packed_cases(wrongly(change, method)(), "cpu", "cpu"):
        if case.kernel != kernel and method != kernel:
            continue
        found = measure(case)
        assert not found.passed
        assert words in found.detail
        if "errs by" in words:
            assert found.ratio is not None
            assert found.ratio > BAR
            assert f"{found.rms_error:.2g}" in found.detail


def test_what_a_kernel_raises_is_found() -> None:
    def refuse(y: Any, args: tuple[Any, ...]) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    case = next(packed_cases(wrongly(refuse, "conv_silu")(), "cpu", "cpu"))
    found = measure(case)
    assert not found.passed
    assert found.detail == (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device"
    )
    assert found.rms_error is None


def made(got: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor, **options: Any) -> Case:
    def one(value: torch.Tensor) -> Callable[[], dict[str, torch.Tensor]]:
        return lambda: {"output": value}

    return Case("cpu", "made", "4", "float32", one(got), one(plain), one(exact.double()), **options)


def test_the_bar_is_relative_to_torchs_error_and_errors_are_what_they_should_be() -> None:
    exact = torch.tensor([1.0, -2.0, 4.0, 8.0])
    plain = exact + 1e-3
    found = measure(made(exact + 3.9e-3, plain, exact))
    assert found.passed
    assert found.ratio == pytest.approx(3.9, rel=1e-3)
    assert found.rms_error == pytest.approx(3.9e-3, rel=1e-3)
    assert found.max_error == pytest.approx(3.9e-3, rel=1e-3)
    assert found.largest == 8.0
    assert not measure(made(exact + 4.1e-3, plain, exact)).passed
    error = torch.tensor([0.0, 0.0, 0.0, 6e-3])
    assert measure(made(exact + error, plain, exact)).rms_error == pytest.approx(3e-3, rel=1e-3)


def test_two_roundings_are_no_mistake_where_torch_happens_to_be_exact() -> None:
    exact = torch.tensor([1 / 3, 2 / 3, 1 / 7, 1 / 5], dtype=torch.float64)
    rounding = (exact.bfloat16().double() - exact).square().mean().sqrt()
    got = exact.bfloat16()
    assert measure(made(got, exact.bfloat16(), exact)).ratio == pytest.approx(0.5)
    far = (exact + 9 * rounding).float()
    assert not measure(made(far, exact.float(), exact)).passed


def test_an_allowance_passes_whatever_the_ratio() -> None:
    exact = torch.ones(4)
    got = exact * (1 + 5e-5)
    assert not measure(made(got, exact, exact)).passed
    assert measure(made(got, exact, exact, allowed=1e-4)).passed
    found = measure(made(got, exact, exact, allowed=1e-5))
    assert not found.passed
    assert "of the numbers' size" in found.detail


def test_only_the_scan_that_multiplies_matrices_gets_the_allowance_for_products() -> None:
    cases = list(packed_cases(CpuKernels(), "cpu", "triton", allowed=1e-4, allowed_products=5e-3))
    assert {case.allowed for case in cases if case.kernel == "Mamba-2 scan"} == {5e-3}
    assert {case.allowed for case in cases if case.kernel != "Mamba-2 scan"} == {1e-4}


def test_not_a_number_never_passes() -> None:
    got = torch.tensor([1.0, math.nan])
    for allowed in (None, 1e9):
        assert not measure(made(got, torch.ones(2), torch.ones(2), allowed=allowed)).passed


def test_a_wrong_kernel_is_found_from_outside() -> None:
    command = (sys.executable, str(Path(__file__).with_name("wrong_kernel_child.py")))
    stages: list[str] = []

    def ask(job: Any, **options: Any) -> children.Answer:
        return children.ask(job, argv=command, **options)

    tried = try_kernels("cpu", "cpu", ask, stages.append)
    assert tried.unusable == ""
    wrong = [found for found in tried.findings if not found.passed]
    assert {found.kernel for found in wrong} == {"selective scan"}
    assert len(wrong) == 3
    # A hundredth of the output, as it was made to.
    for found in wrong:
        assert found.max_error == pytest.approx(0.01 * (found.largest or 0.0), rel=1e-3)
    assert tried.loops["kept"] in (True, False)
    assert "cpu: selective scan, float32" in stages
    assert [(f.kernel, f.shape, f.dtype) for f in tried.findings] == [
        (f.kernel, f.shape, f.dtype) for f in findings()
    ]
