"""What the doctor finds, as data: checks of the installation, kernels against the oracle, and paths.

A check is one of `CHECKS`, so that a program that reads the JSON knows all that can come.

    >>> Finding("nvcc", "not found", "missing", remedy="apt-get install nvidia-cuda-toolkit").title
    'CUDA compiler'
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Verdict = Literal["ok", "missing", "broken", "not needed", "unknown"]
Path = Literal["cpu", "official", "triton", "flash"]

GROUPS: Final = {
    "libraries": "Libraries",
    "gpu": "GPU",
    "building": "Building the official kernels",
    "machine": "Machine",
    "offline": "Models and data",
}
"""Names of groups of checks with their titles, in the order in which they are shown."""

CHECKS: Final[dict[str, tuple[str, str]]] = {
    "python": ("libraries", "Python"),
    "torch": ("libraries", "PyTorch"),
    "transformers": ("libraries", "transformers"),
    "lm-eval": ("libraries", "lm-eval"),
    "numba": ("libraries", "numba"),
    "triton": ("libraries", "Triton"),
    "mamba-ssm": ("libraries", "mamba-ssm"),
    "causal-conv1d": ("libraries", "causal-conv1d"),
    "flash-attn": ("libraries", "flash-attn"),
    "driver": ("gpu", "NVIDIA driver"),
    "gpus": ("gpu", "GPUs"),
    "torch-cuda": ("gpu", "CUDA in PyTorch"),
    "architectures": ("gpu", "compiled for"),
    "nvcc": ("building", "CUDA compiler"),
    "compiler": ("building", "C++ compiler"),
    "ninja": ("building", "ninja"),
    "processor": ("machine", "processor"),
    "threads": ("machine", "threads"),
    "memory": ("machine", "memory"),
    "disk": ("machine", "disk"),
    "loops": ("machine", "compiled loops"),
    "bundled": ("offline", "bundled models"),
    "hub": ("offline", "Hugging Face Hub"),
    "hub-cache": ("offline", "Hub cache"),
}
"""Every check: its name, its group and its title."""

PATHS: Final[dict[str, str]] = {
    "cpu": "compiled loops of our own on the processor",
    "official": "mamba-ssm's and causal-conv1d's CUDA kernels",
    "triton": "CUDA kernels of our own, which start from a state",
    "flash": "FlashAttention, for Transformers",
}
"""Ways of computing that can be asked for, each in words."""

ESSENTIAL: Final = ("python", "torch", "transformers", "lm-eval", "numba")
"""Checks without which no command works."""


@dataclass(frozen=True)
class Finding:
    """One check of the installation or the machine."""

    check: str
    """Of `CHECKS`."""
    seen: str
    """In a few words."""
    verdict: Verdict
    """"not needed" stands for what is absent and would not be used on this machine."""
    why: str = ""
    """What follows from it, as sentences; empty where nothing does."""
    remedy: str = ""
    """An exact command, or several joined by `&&`; empty where nothing is to be done."""

    @property
    def title(self) -> str:
        """The check's name for people."""
        return CHECKS[self.check][1]


@dataclass(frozen=True)
class KernelFinding:
    """One kernel on one set of inputs against the same recurrence in float64.

    Errors are absolute, of the output that came off worst. They are null where nothing was computed.
    """

    path: str
    """Of `PATHS`."""
    kernel: str
    shape: str
    dtype: str
    """Of its inputs; of its weights for a product."""
    passed: bool
    detail: str = ""
    """Why it did not pass, in one line."""
    output: str = ""
    """Which output came off worst."""
    largest: float | None = None
    """Largest exact number of that output, without its sign."""
    max_error: float | None = None
    rms_error: float | None = None
    torch_max_error: float | None = None
    """Of the same computation in plain torch operations, in the same dtype."""
    torch_rms_error: float | None = None
    ratio: float | None = None
    """How many times torch's root-mean-square error the kernel's is; torch's counts as two roundings at
    least."""
    bar: float | None = None
    """Largest ratio that passes."""
    allowed: float | None = None
    """Root-mean-square error, as a share of that of the exact numbers, that passes whatever the ratio; null
    where only the ratio counts."""
    time_s: float | None = None
    """Shortest of three calls, after one that is not counted."""
    torch_time_s: float | None = None
    """One call in plain torch operations, a step at a time, on one thread."""


@dataclass(frozen=True)
class ModelFinding:
    """A whole bundled model as a run would use it."""

    name: str
    path: str
    """Of `PATHS`."""
    dtype: str
    passed: bool
    detail: str
    """What was compared with what, and the figures; or what went wrong."""
    ratio: float | None = None
    """Of the certificate; null where there is no fast path to compare."""
    wall_s: float | None = None


@dataclass(frozen=True)
class PathFinding:
    """Whether a way of computing can be used here."""

    path: str
    """Of `PATHS`."""
    usable: bool
    reason: str
    """Why it can be used, or why not, in one line."""
    remedy: str = ""
    """An exact command; empty for a path that can be used."""
    asked: bool = False
    """Whether the user named it."""


@dataclass(frozen=True)
class Diagnosis:
    """All that was found."""

    findings: tuple[Finding, ...]
    kernels: tuple[KernelFinding, ...]
    """Empty with `--quick`."""
    models: tuple[ModelFinding, ...]
    paths: tuple[PathFinding, ...]
    notes: tuple[str, ...]
    """What whoever builds the official kernels runs into; empty where there is nothing to build."""
    quick: bool
    wall_s: float

    @property
    def failures(self) -> tuple[KernelFinding | ModelFinding, ...]:
        """Kernels and models that ran on this machine and did not pass."""
        tried: list[KernelFinding | ModelFinding] = [*self.kernels, *self.models]
        return tuple(one for one in tried if not one.passed)

    @property
    def missing(self) -> tuple[Finding, ...]:
        """Checks without which no command works, and that are not met."""
        return tuple(f for f in self.findings if f.check in ESSENTIAL and f.verdict in ("missing", "broken"))

    @property
    def exit_code(self) -> int:
        """4 when a path asked for, or what every command needs, is not usable; else 1 for a wrong kernel."""
        if self.missing or any(path.asked and not path.usable for path in self.paths):
            return 4
        return 1 if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "exit_code": self.exit_code,
            "quick": self.quick,
            "wall_s": self.wall_s,
            "findings": [{"group": CHECKS[f.check][0], "title": f.title, **asdict(f)} for f in self.findings],
            "paths": [{**asdict(p), "what": PATHS[p.path]} for p in self.paths],
            "kernels": [asdict(k) for k in self.kernels],
            "models": [asdict(m) for m in self.models],
            "notes": list(self.notes),
        }
