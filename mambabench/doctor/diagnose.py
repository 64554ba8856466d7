"""Look at everything once: the installation, then each path's kernels, then a whole model.

diagnosis = diagnose(asked=["official"], quick=False, probes=Probes(), stage=print)
diagnosis.exit_code
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mambabench.doctor.facts import Facts, Probes, gather
from mambabench.doctor.finding import PATHS, Diagnosis, Finding, KernelFinding, ModelFinding, PathFinding
from mambabench.doctor.gpu import judge_building, judge_gpu
from mambabench.doctor.kernels import LIMIT_S, Tried, try_kernels, try_whole
from mambabench.doctor.libraries import judge_libraries
from mambabench.doctor.machine import judge_machine, judge_offline
from mambabench.doctor.paths import judge_path, obstacle
from mambabench.doctor.remedies import BUILD_NOTES
from mambabench.kernels.ahead import PARTS

MODEL = "mamba-tiny"
"""The bundled model that is tried whole."""
_DEVICES = {"cpu": "cpu", "official": "cuda:0", "triton": "cuda:0", "flash": "cuda:0"}
_BUILT = ("mamba-ssm", "causal-conv1d", "nvcc", "architectures")
_WITH_A_MODEL = ("cpu", "official", "triton")


def diagnose(*, asked: Sequence[str], quick: bool, probes: Probes, stage: Callable[[str], None]) -> Diagnosis:
    """Return all that can be found.

    Args:
        asked: paths that the user named; only their kernels are tried then.
        quick: whether kernels and the model are left out.
        probes: that ask the machine.
        stage: told of what is being done.
    """
    began_s = time.monotonic()
    compiled_before = probes.is_compiled()
    if not quick and (not asked or "cpu" in asked):
        # On cores that the imports leave idle.
        probes.compile_ahead()
    facts = gather(probes, stage)
    early = [*judge_libraries(facts), *judge_gpu(facts), *judge_building(facts)]
    loops: Mapping[str, Any] = {}
    kernels: list[KernelFinding] = []
    models: list[ModelFinding] = []
    paths: list[PathFinding] = []
    for path in PATHS:
        tried, model = None, None
        if not quick and (not asked or path in asked):
            tried, model = _try(path, facts, early, probes, stage)
        if path == "cpu":
            loops = _loops(tried, compiled_before)
        kernels += tried.findings if tried is not None else ()
        models += [model] if model is not None else []
        paths.append(judge_path(path, facts, early, tried=tried, model=model, asked=path in asked))
    wall_s = time.monotonic() - began_s
    findings = [*early, *judge_machine(facts, loops), *judge_offline(facts)]
    to_build = {f.check for f in findings if f.verdict in ("missing", "broken")} & set(_BUILT)
    return Diagnosis(
        findings=tuple(findings),
        kernels=tuple(kernels),
        models=tuple(models),
        paths=tuple(paths),
        notes=BUILD_NOTES if to_build else (),
        quick=quick,
        wall_s=wall_s,
    )


def _try(
    path: str, facts: Facts, findings: Sequence[Finding], probes: Probes, stage: Callable[[str], None]
) -> tuple[Tried | None, ModelFinding | None]:
    """Return what came of a path's kernels, and of a whole model on it."""
    if obstacle(path, facts, findings)[0]:
        return None, None
    if path == "cpu":
        stage("compiling loops")
        for part in PARTS:
            probes.wait_for(part, time_limit_s=LIMIT_S)
    tried = try_kernels(path, _DEVICES[path], probes.ask, stage)
    if path not in _WITH_A_MODEL or tried.unusable or not all(f.passed for f in tried.findings):
        return tried, None
    stage(f"{path}: {MODEL}, whole")
    return tried, try_whole(MODEL, _DEVICES[path], path, probes.ask)


def _loops(tried: Tried | None, compiled_before: bool) -> Mapping[str, Any]:
    """Return whether the compiled loops are ready; they are compiled where kernels were tried."""
    if tried is None:
        return {"compiled_before": compiled_before}
    if not tried.loops:
        return {"error": f"They could not be compiled: {tried.unusable}."}
    return {**tried.loops, "compiled_before": compiled_before}
