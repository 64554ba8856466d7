"""Time and memory of `mambabench report` and of its page, beside what is asked of them.

    python tests/performance/reporting.py                        # everything; some ten minutes
    python tests/performance/reporting.py --part one --repeats 5 # only the report of one run
    python tests/performance/reporting.py --part big --profile   # where its time goes, too

Parts are `big` (20 models x 10 tasks of 500 items, and 3 sweeps over all of them), `one` (a run of two models
on the smoke suite's tasks), `list` (`mambabench runs list` of 500 runs) and `page` (in a headless Chromium, a
page with 10,000 items of one task, and one made by hand with a table of 200 rows). Asked: 20 s and 1 GB for
the big report, 3 s for that of one run, 100 ms for an action in a page. Each command runs in a new process,
from its start to its end; memory is the most that was resident. The median of `--repeats` is given with the
range. Modules are compiled before, as they are where the package is installed.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import made_reports
from performance import report_actions, report_stores, tables

from mambabench.report.html import render_html

PARTS: Final = ("big", "one", "list", "page")
HEADER: Final = ("command", "wall time", "range", "CPU time", "peak memory", "writes", "asked")
ACTIONS_HEADER: Final = ("action", "median", "largest", "asked")
_FORMATS: Final = {
    "HTML": ("-o", "r.html"),
    "Markdown": ("-o", "r.md"),
    "LaTeX": ("-o", "r.tex"),
    "JSON": ("-o", "r.json"),
    "Markdown and all tables": ("-o", "r.md", "--tables", "tables"),
    "Markdown and all figures": ("-o", "r.md", "--figures", "figures"),
}
_ONE: Final = dict(list(_FORMATS.items())[:2])
_PROFILE: Final = """
import cProfile, pstats, sys
from mambabench.cli import _run
profile = cProfile.Profile()
code = profile.runcall(_run, sys.argv[1:])
pstats.Stats(profile).sort_stats("cumulative").print_stats("mambabench", 60)
sys.exit(code)
"""

# A process begins with the peak of the one that started it, which must therefore be small.
_START = """
import os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
code = process.returncode = os.waitstatus_to_exitcode(status)
print([code, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss])
"""


@dataclass(frozen=True)
class Taken:
    """What one process took."""

    wall_s: float
    cpu_s: float
    peak_bytes: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the stores, run the commands on them, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    parser.add_argument("--models", type=int, default=20, help="of the big store")
    parser.add_argument("--tasks", type=int, default=10, help="of the big store")
    parser.add_argument("--items", type=int, default=500, help="of each task of the big store")
    parser.add_argument("--page-items", type=int, default=10_000, help="of one task in the page")
    parser.add_argument("--runs", type=int, default=500, help="to list")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where HTML's time goes, by function")
    parser.add_argument("--work", type=Path, help="folder to keep stores and reports in, empty or new")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        print(tables.machine(), flush=True)
        reported(report_stores.single_store(work / "first", items=20), ("-o", "r.html"))
        measure(given, work, tuple(given.part or PARTS))


def measure(given: argparse.Namespace, work: Path, parts: Sequence[str]) -> None:
    """Measure some parts, each printed when it is done."""
    if "big" in parts:
        store = report_stores.big_store(
            work / "big", models=given.models, tasks=given.tasks, items=given.items
        )
        what = f"{given.models} models x {given.tasks} tasks of {given.items:,} items, and 3 sweeps"
        show_reports(f"A report over {what}", store, _FORMATS, given, "20 s, 1,000 MB")
    if "one" in parts:
        store = report_stores.single_store(work / "one")
        show_reports("A report over one run of 2 models", store, _ONE, given, "3 s")
    if "list" in parts:
        store = report_stores.listed_store(work / "list", runs=given.runs)
        found = [taken(["runs", "list", str(store)], work) for _ in range(given.repeats)]
        show(f"{given.runs:,} runs", HEADER, [line("runs list", found, 0, "")])
    if "page" in parts:
        show_page(given, work)


def show_reports(
    title: str, store: Path, forms: Mapping[str, Sequence[str]], given: argparse.Namespace, asked: str
) -> None:
    """Make reports of a store in some formats, and print what they took."""
    rows = []
    for name, options in forms.items():
        found, written = zip(*(reported(store, options) for _ in range(given.repeats)), strict=True)
        rows.append(line(name, found, written[-1], asked if name == "HTML" else ""))
    show(title, HEADER, rows)
    if given.profile:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _PROFILE, "report", str(store.resolve())]
            subprocess.run(command, cwd=folder, check=True)


def show_page(given: argparse.Namespace, work: Path) -> None:
    """Make a page with many items and one with a large table, act on them in a browser, print the times."""
    items = report_stores.items_store(work / "items", items=given.page_items)
    page, tables_page = work / "items.html", work / "tables.html"
    options = ("-o", str(page.resolve()), "--items", str(given.page_items))
    took, _ = reported(items, options)
    found = line("HTML", [took], page.stat().st_size, "")
    show(f"A report with {given.page_items:,} items of one task", HEADER, [found])
    tables_page.write_text(render_html(made_reports.large(50)), "utf-8", newline="\n")
    try:
        with report_actions.started() as browser:
            times = report_actions.items_actions(browser, page)
            of_table, n_rows = report_actions.table_actions(browser, tables_page)
    except RuntimeError as error:
        print(f"\nActions in the page are not measured: {error}.")
        return
    times |= {f"{name} of {n_rows:,} rows": each for name, each in of_table.items()}
    rows = [
        (name, f"{statistics.median(each):.0f} ms", f"{max(each):.0f} ms", "100 ms")
        for name, each in times.items()
    ]
    show("Actions in a page, each from its event to the end of the next frame", ACTIONS_HEADER, rows)


def reported(store: Path, options: Sequence[str]) -> tuple[Taken, int]:
    """Make a report in an empty folder; return what it took, and the bytes of all that is there then."""
    with tempfile.TemporaryDirectory() as folder:
        took = taken(["report", str(store.resolve()), *options], Path(folder))
        written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return took, written


def taken(arguments: Sequence[str], folder: Path) -> Taken:
    """Run a command of the package in a process of its own, from a folder.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "mambabench", *arguments]
    starter = [sys.executable, "-I", "-S", "-c", _START, *command]
    done = subprocess.run(starter, cwd=folder, stdout=subprocess.PIPE, env=_environment(), check=False)
    code, wall_s, cpu_s, peak = json.loads(done.stdout)
    if code:
        raise SystemExit(f"`mambabench {' '.join(arguments)}` failed with {code}")
    # Kilobytes, but bytes on macOS.
    return Taken(wall_s, cpu_s, peak * (1 if sys.platform == "darwin" else 1024))


@cache
def _environment() -> dict[str, str]:
    """Return variables with which a module is compiled once, whatever this process was told."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": folder}


def line(name: str, found: Sequence[Taken], written_bytes: int, asked: str) -> tuple[str, ...]:
    """Return a row of what a command took each time; of memory the most."""
    walls = [one.wall_s for one in found]
    return (
        name,
        f"{statistics.median(walls):.2f} s",
        f"{min(walls):.2f} to {max(walls):.2f} s",
        f"{statistics.median(one.cpu_s for one in found):.2f} s",
        f"{max(one.peak_bytes for one in found) / 1e6:,.0f} MB",
        f"{written_bytes / 1e6:,.2f} MB" if written_bytes else "",
        asked,
    )


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table under its title, and how busy the machine is now."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"\n{title} (load average now: {load})\n\n{tables.markdown(header, rows)}", flush=True)


if __name__ == "__main__":
    main()
