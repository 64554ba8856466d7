"""Compiled CUDA packages: why one does not import or run, in words, and which GPUs it is compiled for.

>>> meaning("undefined symbol: _ZN3c105ErrorC2E")[0]
'it is compiled for another PyTorch, or another C++ ABI'
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from mambabench.doctor.facts import Probes

Way = Literal["rebuild", "older", "needs", "torch", "driver", "compiler", "none"]
"""What helps: building the package again, an older version, another package, another torch, another driver,
a C compiler, or nothing that is known."""

_MEANINGS: Final[tuple[tuple[str, str, Way], ...]] = (
    (r"bare_metal_version", "its build found no nvcc", "rebuild"),
    (r"undefined symbol", "it is compiled for another PyTorch, or another C++ ABI", "rebuild"),
    (
        r"lib(?:torch_cuda|c10_cuda)\.so.*cannot open shared object",
        "it needs a PyTorch with CUDA, and this one is built without",
        "torch",
    ),
    (
        r"libcudart\.so\.(\d+).*cannot open shared object",
        "it is compiled for CUDA {0}, which this PyTorch does not bring",
        "rebuild",
    ),
    (r"libcuda\.so\.1.*cannot open shared object", "there is no NVIDIA driver", "driver"),
    (
        r"(GLIBC(?:XX)?_[\d.]+)'? not found",
        "it is compiled on a newer system, whose C library ({0}) this one has not got",
        "rebuild",
    ),
    (
        r"No module named '(selective_scan_cuda|causal_conv1d_cuda|flash_attn_2_cuda)'",
        "it is built without its CUDA code ({0})",
        "rebuild",
    ),
    (r"No module named '(tilelang|tvm_ffi|quack)", "mamba-ssm from 2.3.2 on needs {0} too", "older"),
    (r"No module named '([\w.-]+)'", "it needs {0}", "needs"),
    (
        r"cannot import name '(\w+)' from 'transformers",
        "it is older than this transformers, which has no {0} any more",
        "rebuild",
    ),
    (
        r"no kernel image is available|invalid device function",
        "it is compiled for other GPUs than this one",
        "rebuild",
    ),
    (
        r"unsupported toolchain|driver version is insufficient|driver on your system is too old",
        "the NVIDIA driver is older than its CUDA needs",
        "driver",
    ),
    (
        r"Failed to find C compiler|C compiler cannot|Python\.h",
        "Triton compiles with gcc and Python's headers",
        "compiler",
    ),
    (r"libstdc\+\+|version `CXXABI", "it is compiled with a newer C++ library", "rebuild"),
)
_ELF = re.compile(r"\bsm_(\d+[af]?)\b")
_PTX = re.compile(r"\b(?:sm|compute)_(\d+[af]?)\b")


def meaning(error: str) -> tuple[str, Way, str]:
    """Return what an error of an import or a call says, what helps, and the word that it is about.

    The first is empty where the error is not a known one.
    """
    for pattern, words, way in _MEANINGS:
        if match := re.search(pattern, error):
            about = match[1] if match.groups() else ""
            return words.format(about), way, about
    return "", "none", ""


def architectures(probes: Probes, module: str, nvcc: str | None) -> tuple[str, ...] | None:
    """Return what an extension is compiled for: "sm_80" for machine code, "compute_80" for PTX.

    Null where its file is not found or there is no cuobjdump, which comes with nvcc.
    """
    path = probes.module_file(module)
    tool = probes.which("cuobjdump") or (str(Path(nvcc).with_name("cuobjdump")) if nvcc else None)
    if path is None or tool is None:
        return None
    elf, ptx = (probes.run([tool, option, path]) for option in ("--list-elf", "--list-ptx"))
    if elf is None or elf.returncode != 0:
        return None
    found = [f"sm_{n}" for n in _ELF.findall(elf.text)]
    if ptx is not None and ptx.returncode == 0:
        found += [f"compute_{n}" for n in _PTX.findall(ptx.text)]
    return tuple(sorted(set(found), key=lambda name: (name[:2] != "sm", _number(name))))


def runs_on(compiled: Iterable[str], capability: tuple[int, int]) -> bool:
    """Tell whether code compiled for some GPUs runs on one of a compute capability.

    Machine code runs on the same major version from its minor one on, PTX on everything newer; those with
    an "a" or "f" behind their number on that GPU or family only.

    >>> runs_on(["sm_80"], (8, 9)), runs_on(["sm_80"], (9, 0)), runs_on(["compute_80"], (9, 0))
    (True, False, True)
    """
    for name in compiled:
        kind, _, text = name.partition("_")
        number = _number(name)
        major, minor = divmod(number, 10)
        exact = text.endswith("a")
        if exact or (kind == "compute" and text.endswith("f")):
            fits = (major, minor) == capability
        elif kind == "sm":
            fits = major == capability[0] and minor <= capability[1]
        else:
            fits = (major, minor) <= capability
        if fits:
            return True
    return False


def _number(name: str) -> int:
    return int(name.partition("_")[2].rstrip("af"))
