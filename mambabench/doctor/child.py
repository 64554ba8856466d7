"""The process that imports, calls and loads what could crash: `python -m mambabench.doctor.child`.

A job comes on stdin, events go to stdout, the last of them "done". What is about to be tried is said
before it is tried, so that a process that ends or hangs there has said where.

    {"do": "import", "modules": ["torch", "mamba_ssm"], "facts": true}
    {"do": "kernels", "path": "cpu", "device": "cpu", "skip": 0}
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from mambabench.doctor.asked import cuda_facts, hub_facts, nvml_facts, torch_facts
from mambabench.launch.inside import begin

if TYPE_CHECKING:
    from mambabench.doctor.measure import Case

Tell = Callable[..., None]
"""Writes an event: its name, and what it holds by name."""


def main(cases: Callable[[str, str], Iterator[Case]] | None = None) -> int:
    """Do the job on stdin.

    Args:
        cases: returns a path's cases on a device; replaced in tests.
    """
    channel = begin()

    def tell(event: str, **held: Any) -> None:
        channel.send({"event": event, **held})

    job = channel.job
    if job["do"] == "kernels":
        _kernels(job, tell, cases or cases_of)
    else:
        JOBS[job["do"]](job, tell)
    tell("done")
    return 0


def cases_of(path: str, device: str) -> Iterator[Case]:
    """Return a path's cases.

    Raises:
        ExtraMissingError: there are no such kernels for the device.
    """
    if path == "cpu":
        from mambabench.doctor.cases_cpu import cpu_cases

        return cpu_cases()
    if path == "triton":
        return _triton_cases(device)
    from mambabench.doctor.cases_official import flash_cases, official_cases
    from mambabench.doctor.cases_packed import long_row_cases

    if path == "flash":
        return flash_cases(device)
    return chain(official_cases(device), long_row_cases(device))


def _triton_cases(device: str) -> Iterator[Case]:
    from mambabench.doctor.cases_official import DTYPES, PRODUCT_ALLOWED, SCAN_ALLOWED
    from mambabench.doctor.cases_packed import packed_cases
    from mambabench.kernels.gpu.triton_kernels import TritonKernels

    for dtype in DTYPES:
        yield from packed_cases(
            TritonKernels(dtype),
            device,
            "triton",
            dtype=dtype,
            allowed=SCAN_ALLOWED,
            # Ours multiplies float32 as float32.
            allowed_products=SCAN_ALLOWED if dtype == DTYPES[0] else PRODUCT_ALLOWED[dtype],
        )


def _kernels(job: dict[str, Any], tell: Tell, cases: Callable[[str, str], Iterator[Case]]) -> None:
    from mambabench.doctor.measure import measure
    from mambabench.errors import MambabenchError

    try:
        if job["path"] == "cpu" and job["skip"] == 0:
            _loops(tell)
        chosen = cases(job["path"], job["device"])
        for case in islice(chosen, job["skip"], None):
            tell("case", kernel=case.kernel, shape=case.shape, dtype=case.dtype)
            found = measure(case)
            tell("measured", finding=asdict(found))
            if "CUDA error" in found.detail:
                # After one of these everything fails in the same process.
                tell("again")
                return
    except (MambabenchError, ImportError) as error:
        tell("unusable", reason=str(error).strip() or type(error).__name__)


def _import(job: dict[str, Any], tell: Tell) -> None:
    for name in job["modules"]:
        tell("importing", module=name)
        try:
            importlib.import_module(name)
        except Exception as error:
            # A library's own module may raise anything while it is imported.
            tell("imported", module=name, error=f"{type(error).__name__}: {str(error).strip()[:600]}")
        else:
            tell("imported", module=name, error="")
            if name == "torch" and job["facts"]:
                _tell_of_torch(tell)


def _tell_of_torch(tell: Tell) -> None:
    # What does not answer is a finding of its own, and no reason to import nothing after it.
    with suppress(Exception):
        tell("torch", **torch_facts())


def _loops(tell: Tell) -> None:
    from mambabench.kernels.ahead import compile_now, is_compiled

    compile_now()
    tell("loops", kept=is_compiled())


def _model(job: dict[str, Any], tell: Tell) -> None:
    from mambabench.doctor.whole_model import try_model

    tell("model", finding=asdict(try_model(job["name"], job["device"], job["path"])))


JOBS: dict[str, Callable[[dict[str, Any], Tell], None]] = {
    "import": _import,
    "nvml": lambda job, tell: tell("nvml", **nvml_facts()),
    "cuda": lambda job, tell: tell("cuda", **cuda_facts()),
    "hub": lambda job, tell: hub_facts(job["ask"], tell),
    "model": _model,
}


if __name__ == "__main__":
    sys.exit(main())
