"""What the installed packages mean: present, of a version that is known to work, and importable.

findings = judge_libraries(facts)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mambabench.doctor import remedies
from mambabench.doctor.extensions import meaning
from mambabench.doctor.finding import Finding, Verdict
from mambabench.kernels.gpu.triton_version import too_old

if TYPE_CHECKING:
    from mambabench.doctor.facts import Facts

_OLDEST_PYTHON: Final = (3, 11)
_USES: Final = {
    "mamba-ssm": "A Mamba on a GPU runs its kernels and its generation as shipped through it.",
    "causal-conv1d": "mamba-ssm's kernels need its convolution.",
    "flash-attn": "Transformers with FlashAttention and mamba-ssm's hybrids with rotary positions need it.",
}
_ONLY_TRITON: Final = "Triton compiles CUDA kernels when they are first called."
_AT_IMPORT: Final = (
    "transformers picks its kernels when it is imported, without a look at the device; "
    "mambabench keeps tensors of the processor away from them."
)


def judge_libraries(facts: Facts) -> list[Finding]:
    """Return the findings of the group "libraries"."""
    return [
        _python(facts),
        _torch(facts),
        *(_needed(facts, package) for package in ("transformers", "lm-eval", "numba")),
        _triton(facts),
        *(_official(facts, package) for package in ("mamba-ssm", "causal-conv1d", "flash-attn")),
    ]


def _python(facts: Facts) -> Finding:
    if facts.python < _OLDEST_PYTHON:
        wanted = ".".join(map(str, _OLDEST_PYTHON))
        remedy = f"python{wanted} -m venv .venv && . .venv/bin/activate && pip install ."
        return Finding("python", facts.python_text, "broken", f"mambabench needs {wanted} or later.", remedy)
    return Finding("python", facts.python_text, "ok")


def _fits(facts: Facts, package: str) -> str:
    """Return why an installed version is not one that mambabench works with, or "" where it is."""
    from packaging.specifiers import SpecifierSet

    wanted, version = facts.required.get(package, ""), facts.versions[package]
    if not wanted or version is None or SpecifierSet(wanted).contains(version, prereleases=True):
        return ""
    return f"mambabench works with {package}{wanted}."


def _absent(facts: Facts, package: str) -> Finding:
    wanted = facts.required.get(package, "")
    return Finding(
        package, "not installed", "missing", "Every command needs it.", remedies.install(package + wanted)
    )


def _needed(facts: Facts, package: str) -> Finding:
    version = facts.versions[package]
    if version is None:
        return _absent(facts, package)
    wanted = facts.required.get(package, "")
    if error := facts.imports.get(package, ""):
        words, way, about = meaning(error)
        why = f"It does not import: {words or error}."
        needed = remedies.package_of(about) if way in ("needs", "older") else ""
        again = f"pip install --force-reinstall {package}=={version}"
        return Finding(package, version, "broken", why, needed or again)
    if why := _fits(facts, package):
        return Finding(package, version, "broken", why, remedies.install(package + wanted))
    return Finding(package, version, "ok")


def _torch(facts: Facts) -> Finding:
    found = _needed(facts, "torch")
    if not facts.torch:
        if found.verdict == "ok":
            return Finding(
                "torch",
                found.seen,
                "broken",
                "It imports, but does not say what it is built for.",
                f"pip install --force-reinstall torch=={found.seen}",
            )
        return found
    if facts.torch.get("hip"):
        built, why = f"for ROCm {facts.torch['hip']}", "ROCm is untested."
    elif facts.torch.get("cuda"):
        built, why = f"for CUDA {facts.torch['cuda']}", ""
    else:
        built, why = "without CUDA", ""
    abi = "C++11 ABI" if facts.torch.get("cxx11_abi") else "C++ ABI from before C++11"
    verdict: Verdict = "unknown" if facts.torch.get("hip") and found.verdict == "ok" else found.verdict
    return Finding(
        "torch", f"{facts.torch['version']}, built {built}, {abi}", verdict, found.why or why, found.remedy
    )


def _triton(facts: Facts) -> Finding:
    version = facts.versions["triton"]
    usable = facts.cuda_major is not None and facts.wants_cuda
    if version is None:
        if not usable:
            return Finding("triton", "not installed", "not needed", _ONLY_TRITON)
        return Finding("triton", "not installed", "missing", _ONLY_TRITON, remedies.install("triton"))
    if error := facts.imports.get("triton", ""):
        verdict: Verdict = "broken" if usable else "not needed"
        return Finding(
            "triton",
            version,
            verdict,
            f"It does not import: {meaning(error)[0] or error}.",
            f"pip install --force-reinstall triton=={version}" if usable else "",
        )
    if not usable:
        return Finding("triton", version, "not needed", _ONLY_TRITON)
    wrong = too_old(version)
    # mamba-ssm's own kernels may run on it.
    return Finding("triton", version, "ok", f"Not for our kernels: {wrong}." if wrong else "")


def _official(facts: Facts, package: str) -> Finding:
    version = facts.versions[package]
    error = facts.imports.get(package, "")
    why, usable = _USES[package], facts.cuda_major is not None and facts.wants_cuda
    if version is None:
        if not usable or package == "flash-attn":
            return Finding(package, "not installed", "not needed", why)
        wheel = remedies.wheel_name(package, "VERSION", facts)
        built = (
            f" A ready wheel for this machine is called {wheel}."
            if package in ("mamba-ssm", "causal-conv1d")
            else ""
        )
        return Finding(package, "not installed", "missing", why + built, remedies.install_official(package))
    if not usable:
        there = "installed, and not used: " + (
            "there is no GPU" if not facts.wants_cuda else "torch has no CUDA"
        )
        note = f" {_AT_IMPORT}" if package == "mamba-ssm" else ""
        return Finding(package, version, "not needed", f"It is {there}.{note}")
    if error:
        words, way, about = meaning(error)
        why = f"It does not import: {words or error}."
        return Finding(package, version, "broken", why, remedy_of(facts, package, way, about))
    if why := _fits(facts, package):
        return Finding(package, version, "broken", why, remedies.install_official(package, again=True))
    return Finding(package, version, "ok", _AT_IMPORT if package == "mamba-ssm" else "")


def remedy_of(facts: Facts, package: str, way: str, about: str) -> str:
    """Return the command for what `extensions.meaning` says helps.

    Args:
        facts: of the machine.
        package: that fails.
        way: what helps.
        about: the word that the error is about.
    """
    if way == "needs":
        return remedies.package_of(about)
    if way == "older":
        return remedies.install_official("mamba-ssm", again=True)
    if way == "compiler":
        return remedies.compiler_for(facts)
    if way in ("torch", "driver"):
        known = facts.nvml.get("cuda_driver")
        return remedies.torch_with_cuda(None if known is None else int(known) // 1000)
    return remedies.install_official(package, again=True)
