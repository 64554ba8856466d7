"""The steps of `drive.py` that measure speed, memory and power by mambabench's own commands.

Each leaves its run in `<out>/runs/<step>`, as `mambabench` would anywhere: what a step measured before its
limit is kept, and doing the step again finishes it. Standard library only.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from step_running import Run, Step

_SMALL = ("--model", "mamba-130m", "--model", "mamba2-130m", "--model", "pythia-160m")
_LARGE = ("--model", "mamba-1.4b", "--model", "pythia-1.4b")
_ONCE = ("--weights", "random", "--processes", "1")

COMMANDS: dict[str, tuple[str, ...]] = {
    "article_24gb": (
        "memory", "--suite", "article-24gb", "--prompt-len", "10000", "--repeats", "3", "--max-time", "10",
        *_ONCE,
    ),
    "figure8_right": (
        "throughput", "--suite", "figure8-right", "--arm", "graph", "--repeats", "3", "--max-time", "10",
        *_ONCE,
    ),
    "memory_by_length": (
        "memory", *_SMALL, "--arm", "eager", "--prompt-len", "1024:131072*2", "--gen-len", "16", *_ONCE,
    ),
    "figure8_left": (
        "latency", "--suite", "figure8-left", "--repeats", "5", "--max-time", "5", *_ONCE,
    ),
    "latency": (
        "latency", *_SMALL, "--arm", "eager", "--arm", "graph", "--arm", "shipped",
        "--prompt-len", "128,2048", "--gen-len", "64", "--repeats", "5", "--max-time", "10", *_ONCE,
    ),
    "power": (
        "latency", *_LARGE, "--arm", "eager", "--arm", "graph", "--prompt-len", "2048", "--gen-len", "128",
        "--repeats", "3", "--power", *_ONCE,
    ),
    "conversation": (
        "conversation", *_SMALL, "--history", "1024,8192", "--repeats", "5", "--max-time", "20", *_ONCE,
    ),
    "longcontext": (
        "longcontext", "--model", "mamba-tiny", "--model", "pythia-tiny", "--suite", "recall",
        "--lengths", "256:4096*2", "--samples", "10",
    ),
}  # fmt: skip
"""By step, the most valuable first: what follows `mambabench`. The device and the folder are added."""

_TINY = ("--model", "mamba-tiny", "--model", "pythia-tiny")
_BRIEF = ("--processes", "1", "--repeats", "2", "--max-time", "1", "--dtype", "float32", "--no-ceilings")

REHEARSALS: dict[str, tuple[str, ...]] = {
    "article_24gb": (
        "memory", *_TINY, "--attention", "eager", "--attention", "sdpa", "--prompt-len", "64", "--gen-len",
        "4", *_BRIEF,
    ),
    "figure8_right": (
        "throughput", *_TINY, "--arm", "eager", "--prompt-len", "16", "--gen-len", "4", "--batch-size", "2",
        *_BRIEF,
    ),
    "memory_by_length": (
        "memory", "--model", "mamba-tiny", "--arm", "eager", "--prompt-len", "64,128", "--gen-len", "4",
        *_BRIEF,
    ),
    "figure8_left": (
        "latency", "--suite", "figure8-left", "--prompt-len", "64,128", *_BRIEF,
    ),
    "latency": (
        "latency", *_TINY, "--arm", "shipped", "--prompt-len", "16", "--gen-len", "4", *_BRIEF,
    ),
    "power": (
        "latency", "--model", "mamba-tiny", "--arm", "eager", "--prompt-len", "16", "--gen-len", "4", *_BRIEF,
    ),
    "conversation": (
        "conversation", "--model", "mamba-tiny", "--history", "32", "--processes", "1", "--repeats", "2",
        "--max-time", "1", "--dtype", "float32",
    ),
    "longcontext": (
        "longcontext", "--model", "mamba-tiny", "--suite", "recall", "--lengths", "256", "--samples", "2",
    ),
}  # fmt: skip
"""The same commands as small as they can be, for `--rehearse`; there is no power on a CPU."""


def command_of(step: str, *, rehearse: bool, out: Path) -> list[str]:
    """Return a sweep's whole command, without the program."""
    words = REHEARSALS[step] if rehearse else COMMANDS[step]
    return [*words, "--device", "cpu" if rehearse else "cuda", "--out", str(out / "runs" / step)]


def measure(run: Run, step: Step) -> dict[str, Any]:
    """Do a sweep and return what became of its processes, also when it ends badly."""
    command = command_of(step.name, rehearse=run.rehearse, out=run.out)
    try:
        run.call(step, [sys.executable, "-m", "mambabench", *command])
    finally:
        run.figures = summary(run.out / "runs" / step.name)
    return run.figures


def summary(folder: Path) -> dict[str, Any]:
    """Return the runs in a folder, how processes and cells ended, and the time of a step at each point."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*/replicates/[!.]*.json"))]
    found: dict[str, Any] = {
        "runs": [path.parent.name for path in sorted(folder.glob("*/manifest.json"))],
        "processes": dict(Counter(record["status"] for record in records)),
    }
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("*/recall/[!.]*.json"))]
    if cells:
        found["cells"] = dict(Counter(cell["status"] for cell in cells))
    found["points"] = [
        {**record["point"], "status": record["status"], **_figures(record)}
        for record in sorted(records, key=lambda record: record["order"])
    ]
    return found


def _figures(record: dict[str, Any]) -> dict[str, Any]:
    """Return the best time of a step, the peak and the energy of a process, or why it has none."""
    figures = {"why": record["detail"]} if record["status"] != "ok" else {}
    repeats = [r for r in record["repeats"] if r["itl_s"]]
    if repeats:
        batch = record["point"]["batch_size"]
        figures["least_tpot_s"] = min(sum(r["itl_s"]) / len(r["itl_s"]) for r in repeats)
        figures["decode_tokens_per_s"] = batch / figures["least_tpot_s"]
        whole = [(1 + len(r["itl_s"])) / (r["ttft_s"] + sum(r["itl_s"])) for r in repeats if r["ttft_s"]]
        if whole:
            figures["e2e_tokens_per_s"] = batch * max(whole)
    if first := [r["ttft_s"] for r in record["repeats"] if r["ttft_s"]]:
        figures["least_ttft_s"] = min(first)
    if record["conversation"] is not None:
        figures["certified"] = record["conversation"]["certified"]
        times = {o["operation"]: min(o["times_s"]) for o in record["conversation"]["operations"]}
        figures |= {f"least_{operation}_s": time_s for operation, time_s in times.items()}
    if record["memory"] is not None:
        figures["peak_bytes"] = record["memory"]["peak_bytes"]
    if record["power"] is not None:
        figures["gross_j_per_token"] = record["power"]["energy_j"] / record["power"]["n_tokens"]
    return {**figures, "kernels": record["kernel_path"]}


SWEEPS = (
    Step("article_24gb", 900, "10,000 tokens in 24 GB, one process a point", measure, ("environment",), 60),
    Step("figure8_right", 1200, "throughput by batch, one process a point", measure, ("environment",), 60),
    Step("memory_by_length", 600, "peak memory of prompts to 131,072 tokens", measure, ("environment",), 60),
    Step("figure8_left", 600, "a scan and attention by themselves, by length", measure, ("environment",), 60),
    Step("latency", 900, "time every arm of three small models", measure, ("environment",), 60),
    Step("power", 400, "energy of a token, apart from its time", measure, ("environment",), 60),
    Step("conversation", 300, "keep, fork and take up conversations", measure, ("environment",), 60),
    Step("longcontext", 300, "recall and cost by length, bundled models", measure, ("environment",), 60),
)
