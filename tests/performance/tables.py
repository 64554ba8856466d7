"""Figures as Markdown, and the machine that they were taken on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import median

from mambabench.environment import describe_environment

_PACKAGES = ("mambabench", "torch", "transformers", "lm-eval", "numba", "numpy", "tokenizers", "mambapy")
MIB = 1 << 20


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns are aligned in the source, too."""
    lines = [list(header), ["-"] * len(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def ratio(theirs_s: Sequence[float], ours_s: Sequence[float]) -> str:
    """Return how many times as long the first take: the ratio of the medians, and its extremes.

    >>> ratio([10.0, 12.0], [1.0, 2.0, 4.0])
    '5.5 (2.5 to 12.0)'
    """
    low, high = min(theirs_s) / max(ours_s), max(theirs_s) / min(ours_s)
    return f"{median(theirs_s) / median(ours_s):.1f} ({low:.1f} to {high:.1f})"


def seconds(values: Sequence[float]) -> str:
    """Return the median in seconds, and how often it was measured."""
    middle = median(values)
    return f"{middle:.2f} s ({len(values)}x)" if middle < 10 else f"{middle:.1f} s ({len(values)}x)"


def mib(n_bytes: float) -> str:
    """Return bytes as MiB."""
    return f"{n_bytes / MIB:,.0f} MiB"


def machine() -> str:
    """Return the processor, the packages, and how busy the machine was before the measurement."""
    found = describe_environment()
    processor, packages = found["processor"], found["packages"]
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    git = found["git"] or {}
    commit = str(git.get("commit", ""))[:12] + (" (modified)" if git.get("modified") else "")
    threads = {k: v for k, v in found["variables"].items() if k.endswith("NUM_THREADS")}
    return "\n".join(
        [
            f"Machine: {processor['name']}, {processor['logical_cores']} logical cores "
            f"({processor['physical_cores']} physical), {found['memory_bytes'] / (1 << 30):.0f} GiB; "
            f"{found['system']}; Python {found['python']}  ",
            "Packages: "
            + ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if name in packages)
            + "  ",
            f"Commit: {commit or 'unknown'}; threads: {threads or 'by default'}; load average before: {load}",
        ]
    )
