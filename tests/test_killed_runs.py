"""A run killed at random moments and started again ends with the samples of one that nobody disturbed.

The runs happen in processes forked from one that has imported everything, so that a start costs a
fraction of a second; this file is also that process's program.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

N_KILLS = 10
N_ROWS = 150
TASKS = ["piqa", "lambada_openai", "wikitext", "triviaqa"]
"""Log-likelihoods of several choices and of one, rolling log-likelihoods, and generation."""


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    from builders import tiny_mamba
    from tasks.rows import write_jsonl, write_rows

    from mambabench.store import Store

    data = write_rows(tmp_path / "data", n=N_ROWS)
    questions = [
        {"question": f"Which number follows {i}", "answer": {"aliases": [str(i + 1)], "value": str(i + 1)}}
        for i in range(6)
    ]
    for split in ("train", "validation"):
        write_jsonl(data / "mandarjoshi" / "trivia_qa" / "rc.nocontext" / f"{split}.jsonl", questions)
    checkpoint = tiny_mamba(tmp_path / "checkpoint")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    result = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(checkpoint), str(data)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    story = json.loads(result.stdout.splitlines()[-1])
    print(story)
    assert story["n_kills"] == N_KILLS

    [whole] = Store(tmp_path / "undisturbed").runs()
    expected = {cell.task.task: whole.samples_path(cell.fingerprint).read_bytes() for cell in whole.cells()}
    assert sorted(expected) == sorted(TASKS)
    resumed_requests = 0
    for root in sorted(tmp_path.glob("killed-*")):
        [run] = Store(root).runs()
        cells = run.cells()
        assert all(cell.status == "ok" for cell in cells)
        got = {cell.task.task: run.samples_path(cell.fingerprint).read_bytes() for cell in cells}
        assert got.keys() == expected.keys()
        for task, content in got.items():
            assert content == expected[task], f"{task} in {root.name}"
        pairs = zip(cells, whole.cells(), strict=True)
        assert all(cell.metrics == other.metrics for cell, other in pairs)
        resumed_requests += sum(cell.n_requests_answered_before for cell in cells)
        assert not list(run.path.rglob("*.tmp"))
    # Otherwise every kill fell before the first answer, and nothing was tried.
    assert resumed_requests > 0


def _serve(work: Path, checkpoint: Path, data: Path) -> dict[str, Any]:
    """Run once undisturbed, then again and again with kills; return what happened."""
    import pyarrow.parquet  # noqa: F401  (imported here, once, for all children)
    import scipy.special  # noqa: F401
    from lm_eval import evaluator  # noqa: F401
    from transformers.models.mamba import modeling_mamba  # noqa: F401

    import mambabench.models.load
    import mambabench.models.transformers_model
    import mambabench.tasks.evaluate
    import mambabench.tasks.lm_eval_backend
    import mambabench.tasks.offline  # noqa: F401
    from mambabench.execute import ZeroshotOptions, run_zeroshot
    from mambabench.suite import suite_from_tasks

    suite = suite_from_tasks(TASKS)

    def start(out: Path) -> int:
        if child := os.fork():
            return child
        code = 1
        try:
            options = ZeroshotOptions(
                models=(str(checkpoint),), suite=suite, out=out, data_dir=data, batch_size=2
            )
            run_zeroshot(options).raise_for_failures()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def finish(child: int) -> None:
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise SystemExit(f"a run ended with status {status}")

    finish(start(work / "undisturbed"))
    # Timed the second time: the first also compares the fast path with the shipped one, which is kept.
    began_s = time.perf_counter()
    finish(start(work / "timed"))
    whole_s = time.perf_counter() - began_s
    rng = random.Random(20250101)
    moments: list[float] = []
    for attempt in range(N_KILLS):
        out = work / f"killed-{attempt}"
        while len(moments) < N_KILLS:
            moment_s = rng.uniform(0.2, 1.0) * whole_s
            child = start(out)
            time.sleep(moment_s)
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                # It was done before its kill: the next kills are for a new run.
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            moments.append(round(moment_s, 3))
        finish(start(out))
        if len(moments) == N_KILLS:
            break
    return {"whole_s": round(whole_s, 3), "n_kills": len(moments), "moments_s": moments}


if __name__ == "__main__":
    print(json.dumps(_serve(*map(Path, sys.argv[1:]))))
