"""Peak memory of a run beside its `--memory-budget`, measured from outside.

    python tests/performance/memory_budget.py --model DIR --data DIR
    python tests/performance/memory_budget.py --model DIR --data DIR --budget 256MB --limit 200

The command is `mambabench zeroshot --task hellaswag --limit 200`. Target: with 256MB, states and activations
(the peak above imports and weights) stay within the budget on mamba-130m. That peak still holds the
tokenizer and the task's rows; what they take, and what was added while scoring, stand beside it. The
comparison with the shipped forward keeps to no budget: it is made once, in a run before those that are
measured, and kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from performance import tables
from performance.children import Child, our_environment

BUDGETS = ("256MB", "128MB", "default")
HEADER = (
    "--memory-budget", "peak above imports and weights", "of it: scoring", "tokenizer", "rows and requests",
    "weights beside it",
)  # fmt: skip
_BYTES = (
    "above_imports_and_weights_bytes", "scoring_bytes", "tokenizer_bytes", "rows_bytes", "weights_bytes",
)  # fmt: skip
_DEFAULT = "default (512MiB)"


def measure(model: str, data: str, budget: str, *, limit: int, task: str = "hellaswag") -> dict[str, Any]:
    """Run the command once and return its memory in bytes.

    Args:
        model: directory of a checkpoint.
        data: as `--data-dir` takes it.
        budget: as `--memory-budget` takes it, or "default".
        limit: documents.
        task: lm-eval's name.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**our_environment(), "MAMBABENCH_CACHE": str(Path(folder) / "cache")}
        common = ["zeroshot", "--model", model, "--task", task, "--data-dir", data, "--dtype", "float32"]
        common += ["--device", "cpu"]
        first = [*common, "--limit", "1", "--out", str(Path(folder) / "first")]
        _watched(first, environment)
        options = [] if budget == "default" else ["--memory-budget", budget]
        measured = [*common, "--limit", str(limit), "--out", str(Path(folder) / "out"), *options]
        return _watched(measured, environment)


def _watched(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    script = str(Path(__file__).with_name("marked_cli.py"))
    at: dict[str, int] = {}
    with Child([sys.executable, script, "--imports-first", "--wait", *arguments], environment) as child:
        while (mark := child.hear()["mark"]) != "end":
            # The first of each kind: later ones belong to the answers.
            at.setdefault(mark, child.memory.now_bytes())
            if mark == "load":
                child.memory.start()
            child.send()
        peak = max(child.memory.peak_bytes, child.memory.now_bytes())
        child.send()
    weights = at["load"] - at["before load"]
    return {
        "above_imports_and_weights_bytes": peak - at["imports"] - weights,
        "scoring_bytes": peak - at["load"],
        "tokenizer_bytes": at["check"] - at["before check"],
        "rows_bytes": at["before load"] - at["before data"],
        "weights_bytes": weights,
    }


def line(budget: str, found: dict[str, Any]) -> list[str]:
    """Return a budget's line of the table."""
    return [_DEFAULT if budget == "default" else budget, *(tables.mib(found[name]) for name in _BYTES)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a run beside its --memory-budget.")
    parser.add_argument("--model", required=True, help="directory of a checkpoint")
    parser.add_argument("--data", required=True, help="directory of task data, as for --data-dir")
    parser.add_argument("--budget", action="append", help="may be repeated; by default " + ", ".join(BUDGETS))
    parser.add_argument("--limit", type=int, default=200, help="documents")
    given = parser.parse_args(arguments)
    rows = []
    for budget in given.budget or BUDGETS:
        rows.append(line(budget, measure(given.model, given.data, budget, limit=given.limit)))
        print(f"{budget}: {rows[-1][1]} above imports and weights", file=sys.stderr, flush=True)
    print(tables.markdown(HEADER, rows))


if __name__ == "__main__":
    main()
