"""`mambabench` as its command line runs it, saying on stdout when each part begins and ends.

    python tests/performance/marked_cli.py --wait zeroshot --model mamba-tiny --suite smoke

A mark is a line {"mark": name, "at_s": ..., "took_s": ...}. With `--wait` the process goes on only after a
line on stdin, so that its memory can be read in between; with `--imports-first` everything heavy is
imported at once. What the command itself prints lands on stderr.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from typing import Any

from performance.children import private_stdout

IMPORTS = (
    "torch", "transformers", "numba", "pandas", "pyarrow.parquet", "lm_eval.evaluator", "lm_eval.tasks",
    "lm_eval.models", "datasets", "mambabench.cli.zeroshot", "mambabench.execute", "mambabench.plots",
    "mambabench.models.load", "mambabench.models.steps", "mambabench.models.certificate",
    "mambabench.models.certificate_probe", "mambabench.models.transformers_model",
    "mambabench.kernels.packed", "mambabench.kernels.cpu", "mambabench.scoring.scorer",
    "mambabench.tasks.evaluate", "mambabench.tasks.lm_eval_backend", "mambabench.tasks.offline",
    "mambabench.tasks.ahead", "mambabench.store", "mambabench.store.answers",
    "mambabench.tables.zeroshot", "mambabench.tables.terminal", "mambabench.suite",
    "mambabench.suite_check", "mambabench.tasks.serving", "mambabench.store.samples",
    "mambabench.kernels._packed_numba", "mambabench.kernels._ssd_numba", "rich.console", "rich.progress",
    "transformers.generation.utils", "transformers.convert_slow_tokenizer",
    "transformers.models.mamba.modeling_mamba", "transformers.models.mamba2.modeling_mamba2",
    "transformers.models.falcon_mamba.modeling_falcon_mamba",
    "transformers.models.gpt_neox.modeling_gpt_neox",
)  # fmt: skip
"""What a run of `zeroshot` imports sooner or later."""

PARTS = (
    ("mambabench.preflight", "look_ahead", "preflight"),
    ("mambabench.models.load", "check", "check"),
    ("mambabench.tasks.offline", "prepare", "data"),
    ("mambabench.tasks.evaluate", "build_requests", "requests"),
    ("mambabench.models.load", "load", "load"),
    ("mambabench.models.certificate", "certify", "certificate"),
    ("mambabench.tasks.ahead", "collect", "tokenize"),
    ("mambabench.store.answers.AnswerLog", "append", "answers"),
)
"""Where a function is found, its name, and what its mark is called."""


def main() -> None:
    began_s = time.time()
    arguments = sys.argv[1:]
    flags = {a for a in arguments if a in ("--imports-first", "--wait")}
    sys.argv[1:] = [a for a in arguments if a not in flags]
    with private_stdout() as out:

        def mark(name: str, took_s: float = 0.0) -> None:
            out.write(json.dumps({"mark": name, "at_s": time.time(), "took_s": took_s}) + "\n")
            out.flush()
            if "--wait" in flags:
                sys.stdin.readline()

        if "--imports-first" in flags:
            import_all()
        # The functions to be marked are looked up by the command only when it calls them.
        for owner, name, label in PARTS:
            _wrap(_found(owner), name, label, mark)
        mark("imports", time.time() - began_s)
        from mambabench.cli import main as command

        try:
            command()
        finally:
            mark("end")


def import_all() -> None:
    """Import all that a run uses, so that it does not count as memory of the run."""
    for name in IMPORTS:
        importlib.import_module(name)
    from numba.core.registry import cpu_target

    # numba imports half of itself when the first compiled function is called.
    cpu_target.target_context.refresh()


def _found(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _wrap(owner: Any, name: str, label: str, mark: Any) -> None:
    plain = getattr(owner, name)

    @functools.wraps(plain)
    def marked(*args: Any, **kwargs: Any) -> Any:
        mark(f"before {label}")
        began_s = time.perf_counter()
        result = plain(*args, **kwargs)
        took_s = time.perf_counter() - began_s
        if label == "load":
            from performance.sides import touch

            touch(result.module)
        mark(label, took_s)
        return result

    setattr(owner, name, marked)


if __name__ == "__main__":
    main()
