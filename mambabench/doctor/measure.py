"""One kernel against the same recurrence in float64, and how large rounding alone would have made the error.

Two correct programs round differently, so that a fixed tolerance would have to suit every kernel, shape
and dtype. The bar is relative, as in `mambabench.models.certificate`: the kernel's root-mean-square error
beside that of plain torch operations in the same dtype, of the same inputs.

    finding = measure(case)
    finding.passed, finding.rms_error, finding.torch_rms_error
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mambabench.doctor.finding import KernelFinding
from mambabench.doctor.plain import Outputs
from mambabench.models.certificate_probe import at_most_threads

BAR = 4.0
"""Largest ratio of a kernel's error to that of plain torch operations. A single kernel's error is no mean
over a model's layers: of one step's few numbers it was seen to be 2.1 times torch's. What is wrong errs by
hundreds."""
_ROUNDINGS = 2.0
"""Torch's error counts as so many roundings of the exact numbers at least, or a sum that it happens to get
exactly right would fail a kernel that rounds once."""
_REPEATS = 3
_LONGEST_DETAIL = 300


@dataclass(frozen=True)
class Case:
    """A kernel and what to give it; each function computes all outputs anew, by name."""

    path: str
    kernel: str
    shape: str
    dtype: str
    run: Callable[[], Outputs]
    by_torch: Callable[[], Outputs]
    exact: Callable[[], Outputs]
    """float64 on the CPU."""
    bar: float = BAR
    allowed: float | None = None
    """See `KernelFinding.allowed`."""


@dataclass(frozen=True)
class _Errors:
    output: str
    largest: float
    max_error: float
    rms_error: float
    torch_max_error: float
    torch_rms_error: float
    ratio: float
    share: float
    """Of the exact numbers' root mean square."""


def measure(case: Case) -> KernelFinding:
    """Run a case and compare every output; what the kernel raises is found, not raised."""
    try:
        got, time_s = _timed(case.run)
    except Exception as error:
        return _failed(case, one_line(error))
    # Steps this small are slower on several threads, and far slower beside other programs.
    with at_most_threads(1):
        exact = case.exact()
        began_s = time.perf_counter()
        plain = case.by_torch()
        torch_time_s = time.perf_counter() - began_s
    wrong = next((name for name in exact if tuple(got[name].shape) != tuple(exact[name].shape)), None)
    if wrong is not None:
        return _failed(
            case, f"{wrong} has the shape {tuple(got[wrong].shape)}, not {tuple(exact[wrong].shape)}"
        )
    for name, value in got.items():
        if not bool(value.isfinite().all()):
            return _failed(case, f"{name} holds values that are no finite numbers", output=name)
    found = [_errors(name, got[name], exact[name], plain[name]) for name in exact]
    failing = [e for e in found if not _passes(case, e)]
    worst = max(failing or found, key=lambda errors: errors.ratio)
    return KernelFinding(
        path=case.path,
        kernel=case.kernel,
        shape=case.shape,
        dtype=case.dtype,
        passed=not failing,
        detail=_words(case, worst) if failing else "",
        output=worst.output,
        largest=worst.largest,
        max_error=worst.max_error,
        rms_error=worst.rms_error,
        torch_max_error=worst.torch_max_error,
        torch_rms_error=worst.torch_rms_error,
        ratio=worst.ratio,
        bar=case.bar,
        allowed=case.allowed,
        time_s=time_s,
        torch_time_s=torch_time_s,
    )


def one_line(error: BaseException) -> str:
    """Return an error's class and the first line of what it says."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:_LONGEST_DETAIL]


def _failed(case: Case, detail: str, output: str = "") -> KernelFinding:
    return KernelFinding(
        case.path, case.kernel, case.shape, case.dtype, passed=False, detail=detail, output=output,
        bar=case.bar, allowed=case.allowed,
    )  # fmt: skip


def _words(case: Case, errors: _Errors) -> str:
    allowed = "" if case.allowed is None else f", or {case.allowed:.2g} of the numbers' size"
    return (
        f"{errors.output} errs by {errors.rms_error:.2g} (at most {errors.max_error:.2g}) where torch errs "
        f"by {errors.torch_rms_error:.2g}: {errors.ratio:.3g} times as much, and {case.bar:g} are "
        f"allowed{allowed}"
    )


def _passes(case: Case, errors: _Errors) -> bool:
    return errors.ratio <= case.bar or (case.allowed is not None and errors.share <= case.allowed)


def _errors(name: str, got: Tensor, exact: Tensor, plain: Tensor) -> _Errors:
    rounded = exact.to(got.dtype).double() - exact
    error, by_torch = (v.detach().double().cpu() - exact for v in (got, plain))
    floor = max(_rms(by_torch), _ROUNDINGS * _rms(rounded), sys.float_info.min)
    return _Errors(
        output=name,
        largest=float(exact.abs().max()),
        max_error=float(error.abs().max()),
        rms_error=_rms(error),
        torch_max_error=float(by_torch.abs().max()),
        torch_rms_error=_rms(by_torch),
        ratio=_rms(error) / floor,
        share=_rms(error) / max(_rms(exact), sys.float_info.min),
    )


def _rms(values: Tensor) -> float:
    return math.sqrt(float(values.square().mean()))


def _timed(compute: Callable[[], Outputs]) -> tuple[Outputs, float]:
    """Compute once, where what is compiled late is compiled, then some times more; return the shortest."""
    outputs = compute()
    times_s = []
    for _ in range(_REPEATS):
        _wait(outputs)
        began_s = time.perf_counter()
        outputs = compute()
        _wait(outputs)
        times_s.append(time.perf_counter() - began_s)
    return outputs, min(times_s)


def _wait(outputs: Outputs) -> None:
    if any(value.is_cuda for value in outputs.values()):
        torch.cuda.synchronize()
