"""Whether a way of computing can be used here, and if not, why and what helps.

judge_path("official", facts, findings, tried=None, asked=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from mambabench.doctor import remedies
from mambabench.doctor.extensions import meaning
from mambabench.doctor.finding import Finding, ModelFinding, PathFinding
from mambabench.doctor.libraries import remedy_of
from mambabench.kernels.gpu.triton_version import too_old

if TYPE_CHECKING:
    from mambabench.doctor.facts import Facts
    from mambabench.doctor.kernels import Tried

_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "cpu": ("python", "torch", "numba"),
    "official": (
        "driver",
        "gpus",
        "torch-cuda",
        "triton",
        "compiler",
        "causal-conv1d",
        "mamba-ssm",
        "architectures",
    ),
    "triton": ("driver", "gpus", "torch-cuda", "triton", "compiler"),
    "flash": ("driver", "gpus", "torch-cuda", "flash-attn"),
}
"""Checks that a path depends on, in the order in which they are to be put right."""
_PACKAGES: Final = {"official": ("mamba-ssm", "causal-conv1d"), "flash": ("flash-attn",)}
_FLASH_CAPABILITY: Final = (8, 0)


def obstacle(path: str, facts: Facts, findings: Sequence[Finding]) -> tuple[str, str]:
    """Return what keeps a path from being tried, and the command that helps; both empty where nothing does.

    Args:
        path: of `PATHS`.
        facts: of the machine.
        findings: all checks.
    """
    by_check: Mapping[str, Finding] = {finding.check: finding for finding in findings}
    if path != "cpu" and not facts.wants_cuda:
        return "this machine has no NVIDIA GPU; `--device cpu` works everywhere", ""
    for package in _PACKAGES.get(path, ()):
        if facts.versions[package] is None and facts.cuda_major is not None:
            return f"{package} is not installed", remedies.install_official(*_PACKAGES[path])
    for check in _NEEDS[path]:
        finding = by_check[check]
        if finding.verdict in ("missing", "broken"):
            return f"{finding.title}: {finding.why or finding.seen}".rstrip("."), finding.remedy
    if path == "triton" and (wrong := too_old(facts.versions["triton"])):
        return wrong.partition("; ")[0], remedy_of(facts, "", "torch", "")
    if path == "flash" and facts.capability is not None and facts.capability < _FLASH_CAPABILITY:
        number = ".".join(map(str, facts.capability))
        return (
            f"FlashAttention needs a GPU of compute capability 8.0, this one has {number}",
            "mambabench latency --attn sdpa --help",
        )
    return "", ""


def judge_path(
    path: str,
    facts: Facts,
    findings: Sequence[Finding],
    *,
    tried: Tried | None,
    model: ModelFinding | None,
    asked: bool,
) -> PathFinding:
    """Say whether a path can be used.

    Args:
        path: of `PATHS`.
        facts: of the machine.
        findings: all checks.
        tried: what came of its kernels; null where they were not tried.
        model: what came of a whole model; null likewise.
        asked: whether the user named it.
    """
    reason, remedy = obstacle(path, facts, findings)
    if reason:
        return PathFinding(path, False, reason, remedy, asked)
    if tried is None:
        return PathFinding(path, True, "nothing stands against it; its kernels were not tried", asked=asked)
    if tried.unusable:
        return PathFinding(path, False, tried.unusable, _for_error(path, facts, tried.unusable), asked)
    wrong = [finding for finding in tried.findings if not finding.passed]
    if wrong:
        first = wrong[0]
        words, *_ = meaning(first.detail)
        reason = (
            f"{len(wrong)} of {len(tried.findings)} kernels fail, first {first.kernel} ({first.shape}, "
            f"{first.dtype}): {words or first.detail}"
        )
        return PathFinding(path, False, reason, _for_error(path, facts, first.detail), asked)
    if model is not None and not model.passed:
        return PathFinding(
            path, False, f"{model.name}: {model.detail}", _for_error(path, facts, model.detail), asked
        )
    return PathFinding(path, True, f"all {len(tried.findings)} kernels agree with float64", asked=asked)


def _for_error(path: str, facts: Facts, error: str) -> str:
    _, way, about = meaning(error)
    package = next(iter(_PACKAGES.get(path, ())), "")
    if package:
        return remedy_of(facts, package, way, about)
    if way == "compiler":
        return remedy_of(facts, "", way, about)
    if path == "triton":
        return "mambabench zeroshot --model mamba-130m --engine as-shipped"
    return "pip install --force-reinstall numba llvmlite"
