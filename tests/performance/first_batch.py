"""From the command to the first scored batch, in a fresh process, with the model's file in the page cache.

    python tests/performance/first_batch.py --model DIR --data DIR

The command is `mambabench zeroshot --model DIR --task hellaswag --limit 40`; the first batch is scored when
the first answers stand in the run's log, which is watched from outside. Target for mamba-130m: 10 s. Three
cases: a checkpoint that was run before; one whose comparison with the shipped forward is still to be made; a
first run after installation, where the loops are compiled, too. A further run prints what the parts took.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from performance import tables
from performance.children import Child, our_environment

HEADER = ("case", "first batch scored after (target 10 s)")
PARTS_HEADER = ("part", "took")
_LOOKS_PER_S = 50
_LONGEST_S = 600.0


def measure(
    model: str, data: str, *, limit: int = 40, repeats: int = 2, cold: bool = True, task: str = "hellaswag"
) -> dict[str, Any]:
    """Return seconds by case, and the parts of a run that was certified before.

    Args:
        model: directory of a checkpoint.
        data: as `--data-dir` takes it.
        limit: documents.
        repeats: of the runs that were certified before.
        cold: also measure a first run after installation.
        task: lm-eval's name.
    """
    for path in Path(model).iterdir():
        path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["zeroshot", "--model", model, "--task", task, "--limit", str(limit), "--data-dir", data]
        arguments += ["--dtype", "float32", "--device", "cpu"]
        warm = {**our_environment(), "MAMBABENCH_CACHE": str(Path(folder) / "cache")}
        # Loops may not be compiled yet, where this is the first run of all.
        timed({**warm, "MAMBABENCH_CACHE": str(Path(folder) / "compiled")}, arguments, Path(folder) / "zero")
        new = timed(warm, arguments, Path(folder) / "new")
        known = [timed(warm, arguments, Path(folder) / f"known{i}") for i in range(repeats)]
        parts = _parts(warm, [*arguments, "--out", str(Path(folder) / "parts")])
        cold_s = []
        if cold:
            bare = {
                **warm,
                "MAMBABENCH_CACHE": str(Path(folder) / "cold"),
                "NUMBA_CACHE_DIR": str(Path(folder) / "numba"),
            }
            cold_s = [timed(bare, arguments, Path(folder) / "bare")]
    return {"known": known, "new": [new], "cold": cold_s, "parts": parts}


def timed(environment: dict[str, str], arguments: list[str], out: Path) -> float:
    """Run the command and return the seconds until the first answers are on disk; the rest is cut off.

    Raises:
        RuntimeError: it ended without an answer.
    """
    command = [sys.executable, "-m", "mambabench", *arguments, "--out", str(out)]
    with tempfile.TemporaryFile() as log:
        began_s = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while time.perf_counter() - began_s < _LONGEST_S:
                # Looked at before the log, so that what the command did last is not missed.
                ended = process.poll() is not None
                if any(_has_answers(path) for path in out.glob("*/answers/*.jsonl")) or any(
                    out.glob("*/answers/*.parquet")
                ):
                    return time.perf_counter() - began_s
                if ended:
                    break
                time.sleep(1 / _LOOKS_PER_S)
            log.seek(0)
            raise RuntimeError(f"no answers: {log.read().decode(errors='replace')[-2000:]}")
        finally:
            process.kill()
            process.wait()


def _has_answers(path: Path) -> bool:
    # The first line is the log's heading.
    return path.read_bytes().count(b"\n") > 1


def _parts(environment: dict[str, str], arguments: list[str]) -> dict[str, float]:
    """Return the seconds of each part of one run up to the first answers."""
    found: dict[str, float] = {}
    script = str(Path(__file__).with_name("marked_cli.py"))
    began_s = time.time()
    with Child([sys.executable, script, "--imports-first", *arguments], environment) as child:
        while (said := child.hear())["mark"] != "before answers":
            name = said["mark"]
            if not name.startswith("before "):
                found[name] = found.get(name, 0.0) + said["took_s"]
        total_s = said["at_s"] - began_s
        while child.hear()["mark"] != "end":
            continue
    return {**found, "the rest, with the first batch": total_s - sum(found.values()), "all": total_s}


def lines(found: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table of cases."""
    names = {
        "known": "checkpoint run before",
        "new": "comparison with the shipped forward made first",
        "cold": "and the loops compiled first (once after installation)",
    }
    return [[text, tables.seconds(found[name])] for name, text in names.items() if found[name]]


def part_lines(found: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table of parts."""
    return [[name, f"{took_s:.2f} s"] for name, took_s in found["parts"].items()]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="From the command to the first scored batch.")
    parser.add_argument("--model", required=True, help="directory of a checkpoint")
    parser.add_argument("--data", required=True, help="directory of task data, as for --data-dir")
    parser.add_argument("--limit", type=int, default=40, help="documents")
    parser.add_argument("--no-cold", action="store_true", help="leave out the first run after installation")
    given = parser.parse_args(arguments)
    found = measure(given.model, given.data, limit=given.limit, cold=not given.no_cold)
    print(tables.markdown(HEADER, lines(found)))
    print()
    print(tables.markdown(PARTS_HEADER, part_lines(found)))


if __name__ == "__main__":
    main()
