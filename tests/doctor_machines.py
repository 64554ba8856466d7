"""Machines for the doctor's tests: what a GPU machine answers, and what breaks on one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mambabench.doctor.children import Answer
from mambabench.doctor.facts import Facts, Probes, Ran, gather

NVCC_12_6 = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2024 NVIDIA Corporation
Built on Tue_Oct_29_23:50:19_PDT_2024
Cuda compilation tools, release 12.6, V12.6.85
Build cuda_12.6.r12.6/compiler.35059454_0
"""
REQUIRED = {"torch": ">=2.6", "transformers": ">=5.17", "lm-eval": ">=0.4.13,<0.5", "numba": ">=0.60"}
LIBRARIES = {
    "mambabench": "0.1.0",
    "torch": "2.8.0+cu126",
    "transformers": "5.23.0",
    "lm-eval": "0.4.13",
    "numba": "0.68.1",
    "triton": "3.4.0",
}
BUILT = {"mamba-ssm": "2.3.1", "causal-conv1d": "1.7.0"}
CPU_TORCH: dict[str, Any] = {
    "version": "2.13.0+cpu", "cuda": None, "hip": None, "cxx11_abi": True, "threads": 1,
    "cpu_capability": "AVX512", "cuda_home": None, "devices": [], "arch_list": [], "available": False,
    "warnings": [],
}  # fmt: skip
GPU_TORCH: dict[str, Any] = CPU_TORCH | {
    "version": "2.8.0+cu126", "cuda": "12.6", "cuda_home": "/usr/local/cuda", "available": True,
    "devices": [{"name": "NVIDIA L4", "capability": "8.9", "memory_bytes": 24 * 10**9}],
    "arch_list": ["sm_80", "sm_90"],
}  # fmt: skip
CARD: dict[str, Any] = {
    "name": "NVIDIA L4", "memory_bytes": 24 * 10**9, "used_bytes": 10**9, "capability": "8.9", "mig": False,
    "mig_instances": 0,
}  # fmt: skip
NVML: dict[str, Any] = {
    "error": "", "detail": "", "driver": "560.35.03", "cuda_driver": 12060, "gpus": [CARD]
}  # fmt: skip
NO_NVML: dict[str, Any] = {"error": "NVMLError_LibraryNotFound", "detail": "NVML Shared Library Not Found"}
ALL_FINE: dict[str, Any] = {"n_devices": 1, "errors": {}}


def asks(
    *,
    errors: Mapping[str, str] | None = None,
    torch: Mapping[str, Any] | None = None,
    nvml: Mapping[str, Any] | None = None,
    cuda: Mapping[str, Any] | Answer | None = None,
    hub_error: str = "",
    kernels: Callable[[dict[str, Any]], Answer] | None = None,
    dies_at: str = "",
) -> Callable[..., Answer]:
    """Return what answers in a process's place.

    Args:
        errors: of modules that do not import.
        torch: what torch tells.
        nvml: what the driver tells.
        cuda: what came of a computation on the GPU.
        hub_error: of asking the Hub.
        kernels: answers the jobs "kernels" and "model".
        dies_at: module at whose import the process ends.
    """

    def ask(job: dict[str, Any], **options: Any) -> Answer:
        done = {"event": "done"}
        what = job["do"]
        if what == "import":
            events: list[dict[str, Any]] = []
            for module in job["modules"]:
                if module == dies_at:
                    return Answer(tuple(events), "crashed", "ended by SIGSEGV")
                events.append(
                    {"event": "imported", "module": module, "error": (errors or {}).get(module, "")}
                )
                if module == "torch" and job["facts"] and not (errors or {}).get("torch"):
                    events.append({"event": "torch", **(torch or CPU_TORCH)})
            return Answer((*events, done), "ok")
        if what == "nvml":
            return Answer(({"event": "nvml", **(nvml or NO_NVML)}, done), "ok")
        if what == "cuda":
            return (
                cuda
                if isinstance(cuda, Answer)
                else Answer(({"event": "cuda", **(cuda or ALL_FINE)}, done), "ok")
            )
        if what == "hub":
            cache = {"event": "cache", "folder": "/c", "size_bytes": 5_000_000_000, "n_repositories": 2}
            hub = {"event": "hub", "endpoint": "https://hub", "error": hub_error}
            return Answer((cache, *((hub,) if job["ask"] else ()), done), "ok")
        assert kernels is not None, job
        return kernels(job)

    return ask


def commands(**texts: str) -> Callable[[Sequence[str]], Ran | None]:
    """Return what runs commands: what each prints, by its name and last option, as in `nvcc_V`."""

    def run(command: Sequence[str]) -> Ran | None:
        name = command[0].rpartition("/")[2].replace("+", "p")
        option = command[1].strip("-").replace("-", "_")
        text = texts.get(f"{name}_{option}")
        return None if text is None else Ran(0, text)

    return run


def machine(
    *,
    versions: Mapping[str, str] | None = None,
    tools: Mapping[str, str] | None = None,
    run: Callable[[Sequence[str]], Ran | None] | None = None,
    files: Mapping[str, str] | None = None,
    card: bool = False,
    environ: Mapping[str, str] | None = None,
    python: tuple[int, int] = (3, 11),
    toolkits: Sequence[str] = (),
    headers: Callable[[str], bool] = lambda folder: True,
    **answers: Any,
) -> Probes:
    """Return probes of a made-up machine; without arguments one that has a processor only."""
    found = LIBRARIES | {"torch": "2.13.0+cpu"} if versions is None else versions
    return Probes(
        ask=asks(**answers),
        run=run or commands(),
        which=lambda name: (tools or {}).get(name),
        version=dict(found).get,
        module_file=lambda name: (files or {}).get(name),
        required=lambda: REQUIRED,
        is_compiled=lambda: True,
        compile_ahead=lambda: None,
        wait_for=lambda part, time_limit_s: None,
        has_card=lambda: card,
        toolkits=lambda: toolkits,
        has_headers=headers,
        environ=environ or {},
        python=python,
        python_text=".".join(map(str, python)) + ".7",
        machine="x86_64",
    )


def gpu_machine(**changes: Any) -> Probes:
    """Return probes of a machine with a GPU on which all is well, but for some changes."""
    return machine(
        **{
            "versions": LIBRARIES | BUILT,
            "tools": {"g++": "/usr/bin/g++", "ninja": "/usr/bin/ninja", "cuobjdump": "/usr/bin/cuobjdump"},
            "run": commands(
                nvcc_V=NVCC_12_6,
                gpp_version="g++ (Debian) 12.2.0",
                cuobjdump_list_elf="ELF file    1: x.1.sm_80.cubin\nELF file    2: x.2.sm_90.cubin\n",
                cuobjdump_list_ptx="",
            ),
            "files": {"selective_scan_cuda": "/s/selective_scan_cuda.so", "causal_conv1d_cuda": "/s/c.so"},
            "card": True,
            "torch": GPU_TORCH,
            "nvml": NVML,
            **changes,
        }
    )


def looked_at(probes: Probes) -> Facts:
    """Return the facts of a machine."""
    return gather(probes, lambda text: None)
