"""Build a CUDA extension for one card only: the official packages name their architectures in setup.py.

causal-conv1d and mamba-ssm compile their kernels for every architecture that nvcc knows, about an hour of
work of which one card uses a tenth, and `TORCH_CUDA_ARCH_LIST` has no effect on it. The list is written in
different ways in different versions, so the flags are replaced where they all must pass: in the call of
`CUDAExtension`. `patch` puts two lines in front of an unpacked setup.py and a copy of this file beside it.

Standard library only: it runs on a machine that has nothing but torch.

>>> for_one_architecture(["-O3", "-gencode", "arch=compute_80,code=sm_80", "-gencode=arch=a,code=b"], (9, 0))
['-O3', '-gencode', 'arch=compute_90,code=sm_90']
"""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MODULE = "_mambabench_one_architecture"
CAPABILITY_VARIABLE = "MAMBABENCH_CUDA_CAPABILITY"
_WITH_VALUE = ("-gencode", "--generate-code", "-arch", "--gpu-architecture", "-code", "--gpu-code")


def for_one_architecture(flags: Sequence[str], capability: tuple[int, int]) -> list[str]:
    """Return nvcc's flags with all architecture flags replaced by one.

    Args:
        flags: nvcc's flags, in any of the spellings that it takes: `-gencode X`, `-gencode=X`,
            `--generate-code X`, `-arch=X`, `-code=X` and their long forms.
        capability: compute capability of the card, for example (9, 0).
    """
    kept: list[str] = []
    value_follows = False
    for flag in flags:
        if value_follows:
            value_follows = False
        elif flag in _WITH_VALUE:
            value_follows = True
        elif not flag.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            kept.append(flag)
    number = f"{capability[0]}{capability[1]}"
    return [*kept, "-gencode", f"arch=compute_{number},code=sm_{number}"]


def parse_capability(text: str) -> tuple[int, int]:
    """Read "9.0" as (9, 0).

    Raises:
        ValueError: it is no compute capability.
    """
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise ValueError(f"a compute capability looks like 9.0, not {text!r}")
    return int(major), int(minor)


def restrict() -> None:
    """Replace torch's `CUDAExtension` by one for the card named in the environment; setup.py calls it."""
    from torch.utils import cpp_extension

    capability = parse_capability(os.environ[CAPABILITY_VARIABLE])
    original: Callable[..., Any] = cpp_extension.CUDAExtension

    def cuda_extension(*args: Any, **keywords: Any) -> Any:
        arguments = keywords.get("extra_compile_args") or {}
        # A plain list goes to both compilers, so nvcc's share of it is named apart.
        per_compiler = arguments if isinstance(arguments, dict) else {"cxx": arguments, "nvcc": arguments}
        nvcc = for_one_architecture(per_compiler.get("nvcc", []), capability)
        keywords["extra_compile_args"] = {**per_compiler, "nvcc": nvcc}
        return original(*args, **keywords)

    cpp_extension.CUDAExtension = cuda_extension


def patch(source: Path) -> str:
    """Make an unpacked source distribution build for one card; harmless when repeated.

    Args:
        source: the directory of its setup.py.

    Returns:
        What was done, in words.

    Raises:
        ValueError: there is no setup.py, or it builds no CUDA extension.
    """
    setup = source / "setup.py"
    if not setup.is_file():
        raise ValueError(f"{source} has no setup.py")
    text = setup.read_text(encoding="utf-8")
    if "CUDAExtension" not in text:
        raise ValueError(f"{setup} builds no CUDA extension")
    if MODULE in text:
        return "patched before"
    lines = text.splitlines(keepends=True)
    at = _first_import(text)
    # The working directory is not on the path when pip runs a setup.py.
    call = (
        "import os as _os, sys as _sys; _sys.path.insert(0, _os.path.dirname(_os.path.abspath(__file__)))\n"
        f"import {MODULE}; {MODULE}.restrict()\n"
    )
    shutil.copyfile(Path(__file__), source / f"{MODULE}.py")
    setup.write_text("".join([*lines[:at], call, *lines[at:]]), encoding="utf-8")
    return f"builds for {CAPABILITY_VARIABLE} only"


def _first_import(text: str) -> int:
    """Return how many lines stand before the first import that may have others before it."""
    for statement in ast.parse(text).body:
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if isinstance(statement, (ast.Import, ast.ImportFrom)) and not future:
            return statement.lineno - 1
    raise ValueError("setup.py imports nothing")
