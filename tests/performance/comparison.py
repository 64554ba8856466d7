"""Time and memory of `mambabench compare` on two runs of MMLU's size, from command to table.

    python tests/performance/comparison.py
    python tests/performance/comparison.py --prompt-bytes 3000    # as long as five worked examples make it

Two runs are made up: 14,042 items with four choices, once as 57 subjects of one group and once as one task,
with answers drawn at random. Target: with 10,000 bootstrap replicates under 10 s and under 1 GB on 2 cores.
Time is that of the whole process by the clock, memory the most that was resident; the median of `--repeats`
is given with the range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
from performance import tables
from scored_runs import choice_samples, stored_run, task_record

N_ITEMS = 14_042
N_SUBJECTS = 57
HEADER = ("14,042 items", "wall time", "range", "peak memory")


def main() -> None:
    """Make the runs, compare them, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt-bytes", type=int, default=600, help="of each of an item's four prompts")
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, n_tasks in (("57 subjects of a group", N_SUBJECTS), ("one task", 1)):
            root = Path(folder) / str(n_tasks)
            runs = [made_up(root, model, n_tasks, args.prompt_bytes) for model in ("base", "tuned")]
            found = [compared(runs, args.replicates) for _ in range(args.repeats)]
            times = [wall_s for wall_s, _ in found]
            rows.append(
                (
                    name,
                    f"{statistics.median(times):.1f} s",
                    f"{min(times):.1f} to {max(times):.1f} s",
                    f"{max(peak for _, peak in found) / 2**20:.0f} MiB",
                )
            )
    print(f"load average {os.getloadavg()[0]:.1f}, {args.replicates:,} replicates, "
          f"prompts of {args.prompt_bytes:,} bytes")  # fmt: skip
    print(tables.markdown(HEADER, rows))


def made_up(root: Path, model: str, n_tasks: int, prompt_bytes: int) -> Path:
    """Write a run whose answers are drawn; equal questions for every model."""
    rng = np.random.default_rng(0)
    answers = np.random.default_rng(len(model))
    sizes = [len(part) for part in np.array_split(np.arange(N_ITEMS), n_tasks)]
    tasks, records = {}, {}
    for number, size in enumerate(sizes):
        right = rng.integers(0, 4, size)
        scores = -rng.exponential(2.0, (size, 4)) + answers.normal(0.0, 0.7, (size, 4))
        scores[np.arange(size), right] += 0.5
        task = f"mmlu_{number}" if n_tasks > 1 else "mmlu"
        prompt = f"{'An example of a question and its answer. ' * (prompt_bytes // 41)}Question {{}}?"
        tasks[task] = choice_samples(scores, [int(at) for at in right], prompt=prompt)
        records[task] = task_record(task, size, group="mmlu" if n_tasks > 1 else "")
    return stored_run(root, model, tasks, records=records, reads=())


def compared(runs: list[Path], replicates: int) -> tuple[float, float]:
    """Run the command; return its time in seconds and its peak memory in bytes."""
    command = [sys.executable, "-m", "mambabench", "compare", *map(str, runs)]
    began_s = time.perf_counter()
    process = subprocess.Popen([*command, "--replicates", str(replicates)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    if status != 0:
        raise SystemExit(f"the comparison failed with status {status}")
    return wall_s, usage.ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
