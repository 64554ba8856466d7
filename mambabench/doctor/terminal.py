"""A diagnosis as text for a terminal.

    render(diagnosis, sys.stdout)

Paths, versions and errors come from the machine, so all of it is made harmless before it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from mambabench.doctor.finding import CHECKS, GROUPS, PATHS, Diagnosis, Finding, KernelFinding
from mambabench.tables.compare.format import harmless
from mambabench.tables.console import console_on, fitting, no_room

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH_OF_FILES: Final = 160
_STYLES: Final = {
    "ok": "green",
    "missing": "yellow",
    "broken": "bold red",
    "not needed": "dim",
    "unknown": "yellow",
}
_DROPPED_FIRST: Final = ("ms", "path", "largest error", "torch's")
_SHOWN_WHY: Final = ("missing", "broken", "unknown")
_WITHOUT_GPU: Final = (
    "No NVIDIA GPU: nothing about CUDA is needed here, and everything runs on the processor. With one you "
    "would need its driver, a PyTorch with CUDA, and nvcc of the same CUDA major version to build mamba-ssm "
    "(docs/gpu.md)."
)


def render(diagnosis: Diagnosis, out: TextIO) -> None:
    """Write a diagnosis to a stream, in colour where that is a terminal."""
    console = console_on(out, _WIDTH_OF_FILES)
    for group, title in GROUPS.items():
        findings = [harmless(f) for f in diagnosis.findings if CHECKS[f.check][0] == group]
        if group == "building" and all(f.verdict == "not needed" for f in findings):
            # Said in one sentence for all of CUDA.
            continue
        _group(console, title, findings)
        if group == "building" and diagnosis.notes:
            for note in diagnosis.notes:
                _line(console, f"  - {note}", "")
            console.print()
    if any(f.check == "gpus" and f.verdict == "not needed" for f in diagnosis.findings):
        _line(console, _WITHOUT_GPU, "")
        console.print()
    if diagnosis.kernels:
        _line(console, "Kernels against the same recurrence in float64", "bold")
        _kernels(console, [harmless(k) for k in diagnosis.kernels])
        for kernel in diagnosis.kernels:
            if not kernel.passed:
                _line(
                    console,
                    harmless(f"  {kernel.kernel}, {kernel.shape}, {kernel.dtype}: {kernel.detail}"),
                    "red",
                )
        console.print()
    for model in diagnosis.models:
        verdict = "pass" if model.passed else "FAIL"
        style = "green" if model.passed else "bold red"
        _line(console, harmless(f"{verdict}  {model.name} whole, {model.path}: {model.detail}"), style)
    if diagnosis.models:
        console.print()
    _paths(console, diagnosis)
    console.print()
    _line(console, _verdict(diagnosis), "bold")


def _line(console: Console, text: str, style: str) -> None:
    from rich.text import Text

    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


@contextmanager
def waiting(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """Show what is being done on a terminal, in one line that goes away; elsewhere show nothing.

    Yields:
        What is told of each step.
    """
    if not stream.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(file=stream, highlight=False, markup=False).status("looking") as status:
        yield lambda text: status.update(harmless(text))


def _group(console: Console, title: str, findings: list[Finding]) -> None:
    from rich.text import Text

    _line(console, title, "bold")
    width = max(len(title) for _, title in CHECKS.values())
    verdicts = max(map(len, _STYLES))
    for finding in findings:
        line = Text("  ")
        line.append(f"{finding.verdict:{verdicts}}  ", style=_STYLES[finding.verdict])
        line.append(f"{finding.title:{width}}  {finding.seen}")
        console.print(line, soft_wrap=True)
        indent = " " * (4 + verdicts)
        if finding.why and finding.verdict in _SHOWN_WHY:
            console.print(Text(f"{indent}{finding.why}"), soft_wrap=True)
        if finding.remedy:
            # Never broken, so that it can be copied.
            console.print(Text(f"{indent}$ {finding.remedy}", style="cyan"), soft_wrap=True)
    console.print()


def _kernels(console: Console, findings: list[KernelFinding]) -> None:
    columns: list[tuple[str, Callable[[KernelFinding], str]]] = [
        ("result", lambda f: "pass" if f.passed else "FAIL"),
        ("path", lambda f: f.path),
        ("kernel", lambda f: f.kernel),
        ("inputs", lambda f: f.shape),
        ("dtype", lambda f: f.dtype),
        ("RMS error", lambda f: _small(f.rms_error)),
        ("torch's", lambda f: _small(f.torch_rms_error)),
        ("ratio", lambda f: _ratio(f.ratio)),
        ("largest error", lambda f: _small(f.max_error)),
        ("ms", lambda f: _milliseconds(f.time_s)),
    ]

    def draw(kept: Sequence[tuple[str, Callable[[KernelFinding], str]]], narrow: bool) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=True, header_style="bold")
        for name, _ in kept:
            right = name not in ("result", "path", "kernel", "inputs", "dtype")
            table.add_column(
                name, justify="right" if right else "left", no_wrap=not (narrow and name == "inputs")
            )
        for f in findings:
            style = "green" if f.passed else "bold red"
            table.add_row(*(Text(cell(f), style=style if name == "result" else "") for name, cell in kept))
        return table

    table, _, left_out = fitting(console, columns, _DROPPED_FIRST, draw)
    console.print(table)
    if left_out:
        _line(console, no_room(left_out), "dim")


def _small(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0e}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{1e3 * value:.2f}"


def _paths(console: Console, diagnosis: Diagnosis) -> None:
    from rich.text import Text

    _line(console, "Paths", "bold")
    for path in map(harmless, diagnosis.paths):
        style = "green" if path.usable else "bold red" if path.asked else "dim"
        line = Text("  ")
        line.append(f"{'usable' if path.usable else 'not usable':12}", style=style)
        line.append(f"{path.path:10}{PATHS[path.path]}: {path.reason}")
        console.print(line, soft_wrap=True)
        if path.asked and path.remedy:
            console.print(Text(f"{' ' * 14}$ {path.remedy}", style="cyan"), soft_wrap=True)


def _verdict(diagnosis: Diagnosis) -> str:
    """Return the last line: what it all comes to."""
    if diagnosis.missing:
        named = ", ".join(finding.title for finding in diagnosis.missing)
        return f"Not usable: {named}."
    refused = [path.path for path in diagnosis.paths if path.asked and not path.usable]
    if refused:
        return f"Not usable here, though asked for: {', '.join(refused)}."
    if failures := diagnosis.failures:
        what = "kernel is" if len(failures) == 1 else "kernels are"
        return f"{len(failures)} {what} wrong on this machine: do not believe its figures."
    usable = ", ".join(path.path for path in diagnosis.paths if path.usable)
    tried = "" if diagnosis.kernels else " Kernels were not tried."
    return f"Usable here: {usable or 'nothing'}.{tried} ({diagnosis.wall_s:.0f} s)"
