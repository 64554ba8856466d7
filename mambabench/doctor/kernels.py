"""A path's kernels tried in other processes; what crashes or hangs is a kernel that did not pass.

tried = try_kernels("cpu", "cpu", ask, print)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mambabench.doctor.children import Answer
from mambabench.doctor.finding import KernelFinding, ModelFinding

LIMIT_S: Final = 240.0
"""Of one process; compiling for a GPU takes most of it."""
_MOST_ENDS: Final = 3
"""After so many processes that ended on their own, or that CUDA is lost in, the rest is not tried."""


@dataclass(frozen=True)
class Tried:
    """What came of a path's kernels."""

    findings: tuple[KernelFinding, ...]
    unusable: str
    """Why there are none, in one line; empty where there are."""
    loops: Mapping[str, Any] = field(default_factory=dict)
    """Of the path "cpu": whether the compiled loops are "kept" on disk."""


def try_kernels(path: str, device: str, ask: Callable[..., Answer], stage: Callable[[str], None]) -> Tried:
    """Run all cases of a path.

    Args:
        path: of `mambabench.doctor.finding.PATHS`.
        device: "cpu" or "cuda:0".
        ask: `children.ask`.
        stage: told of each kernel.
    """
    findings: list[KernelFinding] = []
    loops: dict[str, Any] = {}

    def watch(event: dict[str, Any]) -> None:
        if event.get("event") == "case":
            stage(f"{path}: {event['kernel']}, {event['dtype']}")

    for _ in range(_MOST_ENDS):
        job = {"do": "kernels", "path": path, "device": device, "skip": len(findings)}
        answer = ask(job, time_limit_s=LIMIT_S, on_event=watch)
        loops = loops or answer.first("loops")
        findings += [KernelFinding(**event["finding"]) for event in answer.named("measured")]
        if unusable := answer.first("unusable"):
            return Tried(tuple(findings), str(unusable["reason"]), loops)
        if answer.first("again"):
            continue
        if answer.outcome == "ok":
            break
        begun = answer.named("case")
        if len(begun) == len(answer.named("measured")):
            # It ended between two cases, or before the first: none is to blame.
            return Tried(tuple(findings), f"the process that tries them {answer.detail}", loops)
        last = begun[-1]
        detail = f"the process {answer.detail}"
        findings.append(
            KernelFinding(path, last["kernel"], last["shape"], last["dtype"], passed=False, detail=detail)
        )
    return Tried(tuple(findings), "", loops)


def try_whole(name: str, device: str, path: str, ask: Callable[..., Answer]) -> ModelFinding:
    """Load a bundled model in another process and compare it there."""
    job = {"do": "model", "name": name, "device": device, "path": path}
    answer = ask(job, time_limit_s=LIMIT_S)
    if found := answer.first("model"):
        return ModelFinding(**found["finding"])
    return ModelFinding(name, path, "float32", passed=False, detail=f"the process {answer.detail}")
