"""Every figure of the README's section "Speed", by one command, as Markdown.

    python tests/performance/speed.py --data DIR --tokenizer DIR           everything, about 20 minutes
    python tests/performance/speed.py ... --out FILE                       goes on where FILE ends
    python tests/performance/speed.py ... --row mamba-130m/piqa --row forward/mamba-130m
    python tests/performance/speed.py ... --profile mamba-130m/hellaswag   where our side spends its time
    python tests/performance/speed.py ... --quick                          tiny models: the script's logic

DIR of `--data` is laid out as for `mambabench zeroshot --data-dir`; that of `--tokenizer` holds GPT-NeoX's
tokenizer. Weights are random, of the registered models' sizes, float32; both sides load the same files. The
targets stand beside the figures; `performance.task_rows`, `forward`, `memory_budget`, `first_batch` and
`plan_million` tell how each is taken. Rows are printed as they end. Exit code 1: the two sides disagree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from performance import first_batch, forward, memory_budget, tables, task_rows
from performance.children import Child, our_environment

FORWARD_MODELS = ("mamba-130m", "mamba2-130m")
MEMORY, FIRST, PLANNING = "memory-budget", "first-batch", "planning"


def row_names() -> list[str]:
    """Return all rows in the order of their measurement."""
    return [*task_rows.ROWS, *(f"forward/{name}" for name in FORWARD_MODELS), MEMORY, FIRST, PLANNING]


class Results:
    """Finished rows, in a file if there is one.

    Args:
        path: of the file; null for none.
        quick: whether rows are of the tiny models, which must not be taken for the others.

    Raises:
        SystemExit: the file is of the other kind.
    """

    def __init__(self, path: Path | None, *, quick: bool) -> None:
        self._path, self._quick = path, quick
        self.machine = tables.machine()
        self.rows: dict[str, Any] = {}
        if path is not None and path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["quick"] != quick:
                raise SystemExit(f"{path} was written {'without' if quick else 'with'} --quick")
            self.rows, self.machine = stored["rows"], stored["machine"]

    def keep(self, name: str, found: Any) -> None:
        """Keep a row; the file is replaced as a whole, so that an interruption leaves the one before."""
        self.rows[name] = found
        if self._path is not None:
            text = json.dumps({"quick": self._quick, "machine": self.machine, "rows": self.rows}, indent=1)
            beside = self._path.with_name(self._path.name + ".new")
            beside.write_text(text, encoding="utf-8")
            beside.replace(self._path)


class Bench:
    """Measures rows.

    Args:
        data: directory of task data.
        tokenizer: directory of the tokenizer.
        work: where checkpoints are made; those that are there are taken.
        quick: tiny models, few documents.
    """

    def __init__(self, data: str, tokenizer: str, work: Path, *, quick: bool) -> None:
        self._data, self._tokenizer, self._work, self._quick = data, tokenizer, work, quick

    def checkpoint(self, name: str) -> str:
        """Return a model's directory, made on first use."""
        directory = self._work / f"{name}{'-quick' if self._quick else ''}"
        if not directory.exists():
            say(f"writing random weights of {name}")
            command = [sys.executable, str(Path(__file__).with_name("sides.py")), "save"]
            unfinished = directory.with_name(directory.name + ".part")
            with Child(command, our_environment()) as child:
                child.ask(name=name, tokenizer=self._tokenizer, directory=str(unfinished), quick=self._quick)
            unfinished.rename(directory)
        return str(directory)

    def measure(self, name: str) -> Any:
        """Return a row's figures as JSON values."""
        if name in task_rows.ROWS:
            row = task_rows.ROWS[name]
            return task_rows.measure(row, self.checkpoint(row.model), self._data, quick=self._quick, say=say)
        if name.startswith("forward/"):
            model = self.checkpoint(name.removeprefix("forward/"))
            tokens, repeats = (8, 2) if self._quick else (100, 5)
            return forward.measure(model, rows=4, tokens=tokens, repeats=repeats)
        if name == MEMORY:
            model, limit = self.checkpoint("mamba-130m"), 2 if self._quick else 200
            budgets = memory_budget.BUDGETS[:1] if self._quick else memory_budget.BUDGETS
            return {b: memory_budget.measure(model, self._data, b, limit=limit) for b in budgets}
        if name == FIRST:
            model = self.checkpoint("mamba-130m")
            if self._quick:
                return first_batch.measure(model, self._data, limit=2, repeats=1, cold=False)
            return first_batch.measure(model, self._data)
        options = ["--n", "1000"] if self._quick else []
        command = [sys.executable, str(Path(__file__).with_name("plan_million.py")), *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout

    def profile(self, name: str) -> str:
        """Return where our side of a task row spends its time."""
        row = task_rows.ROWS[name]
        with task_rows.side("ours") as child:
            child.ask(**task_rows.setting(row, self._data, self._quick), model=self.checkpoint(row.model))
            found = child.ask(do="profile")
        all_s = sum(found["parts"].values())
        lines = [[part, f"{s:.3f} s", f"{100 * s / all_s:.1f}%"] for part, s in found["parts"].items()]
        table = tables.markdown((f"part of {name}", "took", "share"), lines)
        return f"{table}\n\n{found['functions']}"


def report(rows: dict[str, Any]) -> str:
    """Return the tables of all finished rows."""
    parts = []
    order = [name for name in row_names() if name in rows]
    if tasks := [name for name in order if name in task_rows.ROWS]:
        parts += task_rows.report({name: rows[name] for name in tasks})
    if forwards := [name for name in order if name.startswith("forward/")]:
        lines = [line for n in forwards for line in forward.lines(n.removeprefix("forward/"), rows[n])]
        parts.append(tables.markdown(forward.HEADER, lines))
    if MEMORY in rows:
        lines = [memory_budget.line(budget, found) for budget, found in rows[MEMORY].items()]
        parts.append(tables.markdown(memory_budget.HEADER, lines))
    if FIRST in rows:
        parts.append(tables.markdown(first_batch.HEADER, first_batch.lines(rows[FIRST])))
        parts.append(tables.markdown(first_batch.PARTS_HEADER, first_batch.part_lines(rows[FIRST])))
    if PLANNING in rows:
        parts.append("```\n" + rows[PLANNING].rstrip() + "\n```")
    return "\n\n".join(parts)


def say(text: str) -> None:
    """Tell of the progress, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def run(names: list[str], results: Results, measure: Callable[[str], Any]) -> dict[str, str]:
    """Measure the rows that are not there yet, printing each; return the errors of those that failed."""
    failed = {}
    for name in names:
        if name in results.rows:
            say(f"{name}: kept from before")
            continue
        say(f"{name}: begins, load average {os.getloadavg()[0]:.2f}")
        began_s = time.monotonic()
        try:
            results.keep(name, measure(name))
        except Exception as error:
            # One row that cannot be measured must not cost the others.
            failed[name] = f"{type(error).__name__}: {error}"
            say(f"{name}: FAILED: {failed[name]}")
            continue
        say(f"{name}: took {time.monotonic() - began_s:.0f} s")
        print(report({name: results.rows[name]}), end="\n\n", flush=True)
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Print the figures of the README\'s section "Speed".')
    parser.add_argument("--data", required=True, help="directory of task data, as for --data-dir")
    parser.add_argument("--tokenizer", required=True, help="directory of GPT-NeoX's tokenizer")
    parser.add_argument("--row", action="append", choices=row_names(), help="only this row; may be repeated")
    parser.add_argument("--out", type=Path, help="JSON file of finished rows, which are not measured again")
    parser.add_argument(
        "--work", type=Path, help="where to keep the checkpoints; by default they are deleted"
    )
    parser.add_argument("--quick", action="store_true", help="tiny models and few documents")
    parser.add_argument(
        "--profile", choices=list(task_rows.ROWS), help="instead: where our side spends its time"
    )
    given = parser.parse_args(arguments)
    results = Results(given.out, quick=given.quick)
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(given.data, given.tokenizer, work, quick=given.quick)
        if given.quick:
            print("**Tiny models and few documents: these figures mean nothing.**\n")
        print(results.machine, end="\n\n", flush=True)
        if given.profile:
            print(bench.profile(given.profile))
            return 0
        names = given.row or row_names()
        failed = run(names, results, bench.measure)
    print("# All rows\n\n" + results.machine + "\n\n" + report(results.rows))
    wrong = [n for n in names if n in task_rows.ROWS and not results.rows.get(n, {}).get("agrees", True)]
    for name in wrong:
        print(f"\n**{name}: THE TWO SIDES DISAGREE**")
    for name, error in failed.items():
        print(f"\n**{name}: not measured: {error}**")
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
