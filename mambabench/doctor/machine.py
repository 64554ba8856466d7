"""What the machine has: processor, threads, memory, disk, compiled loops, models, the Hub.

findings = [*judge_machine(facts, loops), *judge_offline(facts)]
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mambabench.cache import cache_dir
from mambabench.doctor.finding import Finding
from mambabench.environment import processor_name
from mambabench.units import size

if TYPE_CHECKING:
    from mambabench.doctor.facts import Facts

_RESULTS: Final = "results"
_LEAST_FREE_BYTES: Final = 1_000_000_000
_LEAST_MEMORY_BYTES: Final = 2_000_000_000
_BUNDLED: Final = ("mamba-tiny", "pythia-tiny")
_WIDE: Final = {"AVX512": 16, "AVX2": 8, "DEFAULT": 4}
"""Numbers of 32 bits that an instruction works on, by PyTorch's name of the instruction set."""


def judge_machine(facts: Facts, loops: Mapping[str, Any]) -> list[Finding]:
    """Return the findings of the group "machine".

    Args:
        facts: of the machine.
        loops: "compiled_before" (whether they were), and where they are now, "kept" or "error".
    """
    return [_processor(facts), _threads(facts), _memory(), _disk(), _loops(loops)]


def judge_offline(facts: Facts) -> list[Finding]:
    """Return the findings of the group "offline"."""
    return [_bundled(), _hub(facts), _hub_cache(facts)]


def _processor(facts: Facts) -> Finding:
    name, capability = processor_name(), str(facts.torch.get("cpu_capability", ""))
    if capability not in _WIDE:
        return Finding("processor", f"{name}{f', {capability}' if capability else ''}", "ok")
    why = ""
    if capability == "DEFAULT" and facts.machine == "x86_64":
        why = "It has no AVX2, or ATEN_CPU_CAPABILITY hides it: all will be slow."
    return Finding("processor", f"{name}, {capability if capability != 'DEFAULT' else 'no AVX2'}", "ok", why)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """Return the processors that a container may use, where that is limited."""
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(most) / int(period)
    except (OSError, ValueError):
        # No such file, or the word "max".
        return None


def _threads(facts: Facts) -> Finding:
    threads, cores, quota = facts.torch.get("threads"), _cores(), _quota()
    seen = f"{cores} processors"
    if threads is None:
        return Finding("threads", seen, "unknown", "PyTorch did not answer.")
    seen += f", {threads} used by PyTorch"
    usable = cores if quota is None else max(1, min(cores, round(quota)))
    if threads > usable:
        limit = (
            f"this container may use {quota:g} processors" if usable < cores else "there are fewer processors"
        )
        why = f"More threads than that only wait for each other: {limit}."
        return Finding("threads", seen, "broken", why, f"export OMP_NUM_THREADS={usable}")
    if threads < max(1, usable // 2):
        return Finding("threads", seen, "ok", "More could be used.", f"export OMP_NUM_THREADS={usable}")
    return Finding("threads", seen, "ok")


def _memory() -> Finding:
    from mambabench.bench.devices import capacity_bytes, free_bytes

    free = free_bytes()
    seen = f"{size(free)} of {size(capacity_bytes('cpu'))} free"
    if free < _LEAST_MEMORY_BYTES:
        remedy = "mambabench zeroshot --model mamba-tiny --suite smoke --memory-budget 64MB"
        return Finding("memory", seen, "broken", "Loading libraries and a small model takes 1 GB.", remedy)
    return Finding("memory", seen, "ok")


def _disk() -> Finding:
    parts, worst = [], None
    for name, folder in (("results", Path(_RESULTS)), ("cache", cache_dir())):
        there = folder.absolute()
        while not there.exists() and there != there.parent:
            there = there.parent
        option = "--out DIR" if name == "results" else "export MAMBABENCH_CACHE=DIR"
        try:
            # Asked by writing: permissions alone do not tell of every file system.
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            parts.append(f"{name} cannot be written")
            worst = worst or (f"{there}: {error.strerror}. Choose another place with `{option}`.", option)
            continue
        free = shutil.disk_usage(there).free
        parts.append(f"{size(free)} free for {name}")
        if free < _LEAST_FREE_BYTES:
            worst = worst or (
                f"Little room is left in {there}. Choose another place with `{option}`.",
                option,
            )
    seen = ", ".join(parts)
    if worst is None:
        return Finding("disk", seen, "ok")
    remedy = (
        "export MAMBABENCH_CACHE=/tmp/mambabench"
        if worst[1].startswith("export")
        else ("mambabench zeroshot --model mamba-tiny --suite smoke --out /tmp/results")
    )
    return Finding("disk", seen, "broken", worst[0], remedy)


def loops_cache() -> Path | None:
    """Return the folder that numba keeps compiled loops in; null where it has none that it can write to."""
    import mambabench.kernels

    chosen = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(mambabench.kernels.__file__).parent / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for folder in [Path(chosen)] if chosen else [beside, Path(home) / "numba"]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


def _loops(loops: Mapping[str, Any]) -> Finding:
    if error := loops.get("error"):
        return Finding(
            "loops", "do not compile", "broken", str(error), "pip install --force-reinstall numba llvmlite"
        )
    folder = loops_cache()
    if folder is None or loops.get("kept") is False:
        why = "They cannot be kept on disk, so that every process compiles them again."
        return Finding(
            "loops",
            "cannot be kept",
            "broken",
            why,
            "export NUMBA_CACHE_DIR=/tmp/numba MAMBABENCH_CACHE=/tmp/mambabench",
        )
    if loops.get("compiled_before"):
        return Finding("loops", "compiled and kept", "ok")
    if "kept" in loops:
        return Finding("loops", "compiled now, and kept", "ok")
    return Finding("loops", "not compiled yet", "ok", "The first command compiles them, in some seconds.")


def _bundled() -> Finding:
    from mambabench.assets import bundled_dir
    from mambabench.checkpoint_files import inspect_path
    from mambabench.errors import MambabenchError

    for name in _BUNDLED:
        try:
            inspect_path(bundled_dir() / name, need_weights=True)
        except MambabenchError as error:
            return Finding(
                "bundled",
                f"{name} is damaged",
                "broken",
                str(error),
                "pip install --force-reinstall --no-deps mambabench",
            )
    return Finding("bundled", ", ".join(_BUNDLED), "ok")


def _hub(facts: Facts) -> Finding:
    hub = facts.hub
    if not hub.get("asked"):
        why = "HF_HUB_OFFLINE is set: only what is in the cache or in a directory can be used."
        return Finding("hub", "must not be asked", "not needed", why)
    found = hub.get("hub") or {}
    endpoint = str(found.get("endpoint") or "the Hub")
    if error := found.get("error"):
        why = (
            f"It does not answer: {error}. Bundled models, directories, the cache and --data-dir work "
            "without; HF_HUB_OFFLINE=1 saves the waiting."
        )
        return Finding("hub", f"{endpoint} is out of reach", "missing", why, "export HF_HUB_OFFLINE=1")
    return Finding("hub", f"{endpoint} answers", "ok")


def _hub_cache(facts: Facts) -> Finding:
    cache = facts.hub.get("cache") or {}
    if not cache:
        return Finding("hub-cache", "not read", "unknown", "Reading it did not end within its time.")
    n = int(cache["n_repositories"])
    where = "HF_HOME is set" if "HF_HOME" in facts.environ else "HF_HOME moves it"
    if n == 0:
        return Finding("hub-cache", f"empty, {cache['folder']}", "ok", f"{where}.")
    count = f"{n} repositor{'y' if n == 1 else 'ies'}"
    return Finding("hub-cache", f"{count}, {size(cache['size_bytes'])}, {cache['folder']}", "ok", f"{where}.")
