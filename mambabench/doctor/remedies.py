"""The commands that help, each to be pasted as it is.

>>> torch_with_cuda(12)
'pip install --upgrade --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126'
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mambabench.doctor.facts import Facts

OFFICIAL: Final = {
    "mamba-ssm": "mamba-ssm==2.3.1",
    "causal-conv1d": "causal-conv1d",
    "flash-attn": "flash-attn",
}
"""What is installed: mamba-ssm from 2.3.2 on needs tilelang, apache-tvm-ffi and quack-kernels besides."""
_FORCED: Final = {
    "mamba-ssm": "MAMBA_FORCE_BUILD", "causal-conv1d": "CAUSAL_CONV1D_FORCE_BUILD",
    "flash-attn": "FLASH_ATTENTION_FORCE_BUILD",
}  # fmt: skip
_BUILD_TOOLS: Final = "pip install ninja packaging setuptools wheel einops"
_TORCH_INDEX: Final = {11: "cu118", 12: "cu126", 13: "cu130"}
_MODULES: Final = {"tilelang": "tilelang", "tvm_ffi": "apache-tvm-ffi", "quack": "quack-kernels"}

_COMPILER: Final = {
    "apt-get": "apt-get install build-essential python3-dev",
    "dnf": "dnf install gcc-c++ make python3-devel",
    "zypper": "zypper install gcc-c++ make python3-devel",
    "pacman": "pacman -S --needed base-devel",
    "conda": "conda install -c conda-forge gxx make",
}
_TOOLKIT: Final = {
    "apt-get": "apt-get install cuda-toolkit-{major}-{minor}",
    "dnf": "dnf install cuda-toolkit-{major}-{minor}",
    "zypper": "zypper install cuda-toolkit-{major}-{minor}",
    "conda": "conda install -c nvidia cuda-toolkit={major}.{minor}",
}
"""Arch has the newest version only. Where nothing is known, Debian's name says what is meant."""
_DRIVER: Final = {
    "apt-get": "apt-get install nvidia-driver-580-server",
    "dnf": "dnf install cuda-drivers",
    "zypper": "zypper install cuda-drivers",
    "pacman": "pacman -S nvidia",
}

BUILD_NOTES: Final = (
    "Without --no-build-isolation pip builds against another PyTorch than the installed one.",
    "Without nvcc the build ends in `NameError: name 'bare_metal_version' is not defined`.",
    "MAMBA_FORCE_BUILD=TRUE and CAUSAL_CONV1D_FORCE_BUILD=TRUE compile where no ready wheel can be fetched.",
    "TORCH_CUDA_ARCH_LIST has no effect: both packages compile for every GPU that nvcc knows, most of an "
    "hour, unless their setup.py is reduced to one (docs/gpu.md).",
    "mamba-ssm 2.3.1 needs less than 2.3.2, which also wants tilelang, apache-tvm-ffi and quack-kernels.",
)
"""What whoever builds the official kernels runs into, in words."""


def install(*requirements: str) -> str:
    """Return the command that installs packages."""
    return f"pip install {' '.join(shlex.quote(one) for one in requirements)}"


def install_official(*packages: str, again: bool = False) -> str:
    """Return the command that installs packages with compiled CUDA code.

    Args:
        packages: keys of `OFFICIAL`.
        again: compile them here whatever is installed or kept from before.
    """
    names = " ".join(OFFICIAL[package] for package in packages)
    if not again:
        return f"{_BUILD_TOOLS} && pip install --no-build-isolation {names}"
    forced = " ".join(f"{_FORCED[package]}=TRUE" for package in packages)
    # pip would take the wheel that it built the last time, for the torch of then.
    options = "--no-build-isolation --no-cache-dir --no-deps --force-reinstall"
    return f"{_BUILD_TOOLS} && {forced} pip install {options} {names}"


def package_of(module: str) -> str:
    """Return the command that installs what a module is in."""
    top = module.partition(".")[0]
    return install(_MODULES.get(top, top.replace("_", "-")))


def torch_with_cuda(driver_major: int | None) -> str:
    """Return the command that replaces torch by a build for the CUDA that a driver can run.

    Args:
        driver_major: the largest major version of CUDA that the driver knows; None where it did not say.
    """
    known = max(m for m in _TORCH_INDEX if m <= driver_major) if driver_major and driver_major >= 11 else 12
    index = f"https://download.pytorch.org/whl/{_TORCH_INDEX[known]}"
    return f"pip install --upgrade --force-reinstall torch --index-url {index}"


def nvcc_for(facts: Facts) -> str:
    """Return the command that brings the nvcc of torch's CUDA, with its headers."""
    version = str(facts.torch.get("cuda"))
    major = version.partition(".")[0]
    for folder, release in reversed(tuple(facts.toolkits.items())):
        if str(release).partition(".")[0] == major:
            return f"export CUDA_HOME={shlex.quote(folder)}"
    major, minor, *_ = [*version.split("."), "0"]
    command = _TOOLKIT.get(facts.installer, _TOOLKIT["apt-get"]).format(major=major, minor=minor)
    home = '"$CONDA_PREFIX"' if facts.installer == "conda" else f"/usr/local/cuda-{major}.{minor}"
    return f"{command} && export CUDA_HOME={home}"


def compiler_for(facts: Facts) -> str:
    """Return the command that brings a C++ compiler and Python's headers."""
    return _COMPILER.get(facts.installer, _COMPILER["apt-get"])


def driver_for(facts: Facts) -> str:
    """Return the command that brings NVIDIA's driver, which conda has not."""
    return f"{_DRIVER.get(facts.installer, _DRIVER['apt-get'])} && reboot"


def wheel_name(package: str, version: str, facts: Facts) -> str:
    """Return how the ready wheel of a package for this machine is called; empty where torch has no CUDA.

    Args:
        package: "mamba-ssm" or "causal-conv1d".
        version: of it.
        facts: of the machine.
    """
    if facts.cuda_major is None:
        return ""
    torch = ".".join(str(facts.torch["version"]).partition("+")[0].split(".")[:2])
    abi = str(bool(facts.torch.get("cxx11_abi"))).upper()
    python = f"cp{facts.python[0]}{facts.python[1]}"
    return (
        f"{package.replace('-', '_')}-{version}+cu{facts.cuda_major}torch{torch}cxx11abi{abi}"
        f"-{python}-{python}-linux_{facts.machine}.whl"
    )
