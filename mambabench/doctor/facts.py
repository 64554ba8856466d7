"""What the doctor looks at, gathered once; what it means is decided elsewhere, from these facts alone.

Whatever asks the machine goes through `Probes`, so that tests can be any machine.

    facts = gather(Probes(), Progress())
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from mambabench.doctor.children import Answer, ask
from mambabench.kernels import ahead

PACKAGES: Final = (
    "mambabench", "torch", "transformers", "lm-eval", "numba", "triton", "mamba-ssm", "causal-conv1d",
    "flash-attn",
)  # fmt: skip
LIBRARIES: Final = {"torch": "torch", "numba": "numba", "triton": "triton", "transformers": "transformers"}
"""Packages that are imported together, with their modules; lm-eval's own module imports nothing."""
EXTENSIONS: Final = {
    "mamba-ssm": ("selective_scan_cuda", "mamba_ssm"),
    "causal-conv1d": ("causal_conv1d_cuda", "causal_conv1d"),
    "flash-attn": ("flash_attn_2_cuda", "flash_attn"),
}
"""Packages with compiled CUDA code: the extension, and the module that imports it."""

INSTALLERS: Final = ("apt-get", "dnf", "zypper", "pacman")
"""Programs that install a system's packages, for which commands are known."""

_IMPORT_LIMIT_S = 90.0
_SHORT_LIMIT_S = 30.0
_HUB_LIMIT_S = 12.0
_COMMAND_LIMIT_S = 15.0


@dataclass(frozen=True)
class Ran:
    """What a command printed, both streams together."""

    returncode: int
    text: str


def run_command(command: Sequence[str]) -> Ran | None:
    """Run a command for a few seconds; null where it cannot be started or does not end."""
    try:
        done = subprocess.run(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_COMMAND_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Ran(done.returncode, done.stdout)


def version_of(package: str) -> str | None:
    """Return an installed package's version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def module_file(module: str) -> str | None:
    """Return the file of a top-level module, without importing it; null where there is none."""
    try:
        found = util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if found is None else found.origin


def required() -> dict[str, str]:
    """Return what this version of mambabench needs of other packages: names with their specifiers."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("mambabench") or []
    except metadata.PackageNotFoundError:
        return {}
    parsed = [Requirement(line) for line in lines]
    return {r.name.lower(): str(r.specifier) for r in parsed if r.marker is None or "extra" in str(r.marker)}


def has_card() -> bool:
    """Tell whether a graphics card of NVIDIA's is in this machine, whatever its driver does."""
    for folder in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor = (folder / "vendor").read_text(encoding="ascii").strip()
            kind = (folder / "class").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if vendor == "0x10de" and kind.startswith("0x03"):
            return True
    return any(Path("/dev").glob("nvidia[0-9]*"))


def toolkits() -> list[str]:
    """Return the CUDA toolkits in their usual places, those without a version in their names first."""
    return sorted(str(p.parent.parent) for p in Path("/usr/local").glob("cuda*/bin/nvcc"))


def has_headers(folder: str) -> bool:
    """Tell whether a toolkit's headers are in a folder; conda's are below `targets`."""
    found = Path(folder)
    return any(
        (place / "cuda_runtime_api.h").is_file()
        for place in (found / "include", *found.glob("targets/*/include"))
    )


@dataclass(frozen=True)
class Probes:
    """All that asks the machine."""

    ask: Callable[..., Answer] = ask
    run: Callable[[Sequence[str]], Ran | None] = run_command
    which: Callable[[str], str | None] = shutil.which
    version: Callable[[str], str | None] = version_of
    module_file: Callable[[str], str | None] = module_file
    required: Callable[[], Mapping[str, str]] = required
    is_compiled: Callable[[], bool] = ahead.is_compiled
    compile_ahead: Callable[[], None] = ahead.compile_ahead
    wait_for: Callable[..., None] = ahead.wait_for
    has_card: Callable[[], bool] = has_card
    toolkits: Callable[[], Sequence[str]] = toolkits
    has_headers: Callable[[str], bool] = has_headers
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    python: tuple[int, int] = sys.version_info[:2]
    python_text: str = field(default_factory=platform.python_version)
    machine: str = field(default_factory=platform.machine)


@dataclass(frozen=True)
class Facts:
    """What was seen."""

    python: tuple[int, int]
    python_text: str
    machine: str
    """The processor's kind, as in a wheel's name."""
    versions: Mapping[str, str | None]
    """Of `PACKAGES`."""
    required: Mapping[str, str]
    imports: Mapping[str, str]
    """What importing a package's modules ended in: "" where it went well; those of absent packages lack."""
    torch: Mapping[str, Any]
    """See `asked.torch_facts`; empty where torch cannot be imported."""
    nvml: Mapping[str, Any]
    """See `asked.nvml_facts`."""
    cuda: Mapping[str, Any]
    """See `asked.cuda_facts`; empty where torch sees no device; "error" where the process ended badly."""
    card: bool
    nvcc: str | None
    """Path of the CUDA compiler."""
    nvcc_version: str | None
    nvcc_headers: bool
    """Whether CUDA's headers lie beside it, where a build looks for them; a script that calls another nvcc
    has none."""
    toolkits: Mapping[str, str | None]
    """Those with headers, and their versions."""
    compiler: str | None
    """Path of the C++ compiler."""
    compiler_version: str
    ninja: str | None
    installer: str
    """What brings compilers: "conda" in one of its environments, one of `INSTALLERS`, or empty."""
    architectures: Mapping[str, tuple[str, ...] | None]
    """Of each installed extension's package: "sm_80" for machine code, "compute_80" for what the driver
    compiles; null where that cannot be told."""
    hub: Mapping[str, Any]
    """See `asked.hub_facts`: "cache", "hub" and "asked"."""
    environ: Mapping[str, str]

    @property
    def cuda_major(self) -> int | None:
        """The major version of the CUDA that torch is built for; null for a build without it."""
        cuda = self.torch.get("cuda")
        return int(str(cuda).partition(".")[0]) if cuda else None

    @property
    def capability(self) -> tuple[int, int] | None:
        """The first device's compute capability; null where neither torch nor the driver sees one."""
        for seen in (*self.torch.get("devices", ()), *self.nvml.get("gpus", ())):
            if seen.get("capability"):
                major, _, minor = seen["capability"].partition(".")
                return int(major), int(minor)
        return None

    @property
    def wants_cuda(self) -> bool:
        """Whether there is a GPU of NVIDIA's, usable or not: only then is anything about CUDA a mistake."""
        return self.card or bool(self.nvml.get("gpus")) or bool(self.torch.get("devices"))


def gather(probes: Probes, stage: Callable[[str], None]) -> Facts:
    """Look at the machine.

    Args:
        probes: to look with.
        stage: told of what is being looked at.
    """
    from mambabench.doctor.extensions import architectures

    versions = {package: probes.version(package) for package in PACKAGES}
    stage("importing libraries")
    here = {p: (m,) for p, m in LIBRARIES.items() if versions[p] is not None}
    imports, torch = _imports(probes, here, facts=True)
    stage("asking for GPUs")
    nvml = probes.ask({"do": "nvml"}, time_limit_s=_SHORT_LIMIT_S)
    cuda: dict[str, Any] = {}
    if torch.get("devices"):
        answer = probes.ask({"do": "cuda"}, time_limit_s=_IMPORT_LIMIT_S)
        cuda = answer.first("cuda") or {"error": answer.detail}
    extensions = {p: m for p, m in EXTENSIONS.items() if versions[p] is not None}
    for package, modules in extensions.items():
        stage(f"importing {package}")
        if imports.get("torch") == "":
            # One process each: what one leaves behind in memory must not decide about another. An extension
            # finds torch's libraries only where torch is imported before it.
            imports |= _imports(probes, {"torch": ("torch",), package: modules})[0]
    nvcc, nvcc_version = _nvcc(probes, torch)
    compiler = probes.environ.get("CXX") or probes.which("g++") or probes.which("c++")
    ran = probes.run([compiler, "--version"]) if compiler else None
    stage("asking for the Hub")
    return Facts(
        python=probes.python,
        python_text=probes.python_text,
        machine=probes.machine,
        versions=versions,
        required=probes.required(),
        imports=imports,
        torch=torch,
        nvml=nvml.first("nvml") or {"error": "no answer", "detail": nvml.detail},
        cuda=cuda,
        card=probes.has_card(),
        nvcc=nvcc,
        nvcc_version=nvcc_version,
        nvcc_headers=nvcc is not None and probes.has_headers(_home(nvcc)),
        toolkits={t: _release(probes, t) for t in probes.toolkits() if probes.has_headers(t)},
        compiler=compiler,
        compiler_version=ran.text.partition("\n")[0].strip() if ran and ran.returncode == 0 else "",
        ninja=probes.which("ninja"),
        installer=_installer(probes),
        architectures={p: architectures(probes, modules[0], nvcc) for p, modules in extensions.items()},
        hub=_hub(probes),
        environ=probes.environ,
    )


def _imports(
    probes: Probes, packages: Mapping[str, Sequence[str]], *, facts: bool = False
) -> tuple[dict[str, str], dict[str, Any]]:
    """Import packages' modules in a child; go on in another after one that did not survive.

    Returns:
        What each package's import ended in, and what torch told of itself where `facts` are wanted.
    """
    found: dict[str, str] = {}
    torch: dict[str, Any] = {}
    left = [(package, module) for package, modules in packages.items() for module in modules]
    while left:
        job = {"do": "import", "modules": [module for _, module in left], "facts": facts}
        answer = probes.ask(job, time_limit_s=_IMPORT_LIMIT_S)
        torch = torch or answer.first("torch")
        told = {event["module"]: event["error"] for event in answer.named("imported")}
        for package, module in left:
            if module in told and not found.get(package):
                found[package] = told[module]
        rest = [pair for pair in left if pair[1] not in told]
        if answer.outcome == "ok" or not rest:
            break
        # The process ended at the first that it did not answer for.
        ended_at = rest[0][0]
        found[ended_at] = f"importing {rest[0][1]} {answer.detail}"
        left = [pair for pair in rest if pair[0] != ended_at]
    return found, torch


def _nvcc(probes: Probes, torch: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the CUDA compiler that an extension would be built with, and its version."""
    home = torch.get("cuda_home") or probes.environ.get("CUDA_HOME")
    candidates = [f"{home}/bin/nvcc"] if home else []
    for path in [*candidates, probes.which("nvcc")]:
        ran = probes.run([path, "-V"]) if path else None
        if ran is not None and ran.returncode == 0:
            return path, _said_release(ran.text)
    return None, None


def _said_release(text: str) -> str | None:
    return dict(pairwise(text.replace(",", " ").split())).get("release")


def _release(probes: Probes, toolkit: str) -> str | None:
    """Return a toolkit's version: that in its name, or what its compiler says."""
    _, dash, named = Path(toolkit).name.partition("cuda-")
    if dash:
        return named
    ran = probes.run([f"{toolkit}/bin/nvcc", "-V"])
    return _said_release(ran.text) if ran is not None and ran.returncode == 0 else None


def _home(nvcc: str) -> str:
    """Return the folder that builds take for the toolkit's."""
    return str(Path(nvcc).parent.parent)


def _installer(probes: Probes) -> str:
    # A user of conda rarely is root, and its compilers are those that its own libraries fit.
    if probes.environ.get("CONDA_PREFIX") and probes.which("conda"):
        return "conda"
    return next((name for name in INSTALLERS if probes.which(name)), "")


def _hub(probes: Probes) -> dict[str, Any]:
    said = probes.environ.get("HF_HUB_OFFLINE", "").upper()
    asks = said not in {"1", "ON", "YES", "TRUE"}
    answer = probes.ask({"do": "hub", "ask": asks}, time_limit_s=_HUB_LIMIT_S)
    found: dict[str, Any] = {"asked": asks, "cache": answer.first("cache"), "hub": answer.first("hub")}
    if asks and not found["hub"]:
        found["hub"] = {"endpoint": answer.first("asking").get("endpoint", ""), "error": answer.detail}
    return found
