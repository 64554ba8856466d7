"""The measuring scripts' own logic, on tiny models: they are run by hand, and must not rot until then."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from builders import build_tokenizer, tiny_mamba
from performance import (
    first_batch,
    memory_budget,
    profile_parts,
    report_actions,
    report_stores,
    reporting,
    sides,
    speed,
    tables,
    task_rows,
)
from performance.children import Child, ChildError, our_environment, their_environment
from tasks.rows import write_rows

from mambabench.frames.api import load_runs
from mambabench.registry import load_registry
from mambabench.taskindex import TaskIndex

SPEED = Path(speed.__file__)

# --- children

CHILD = """
import sys
from performance.children import serve

def handle(request):
    print("noise on stdout")
    if request["do"] == "fail":
        raise ValueError("so it is")
    if request["do"] == "die":
        sys.exit("no more")
    kept.append(bytearray(b"x" * request["n"]))
    if request["do"] == "drop":
        import time
        time.sleep(0.2)
        kept.clear()
    return {"n": request["n"]}

kept = []
serve(handle)
"""


def child() -> Child:
    return Child([sys.executable, "-c", CHILD], our_environment())


def test_a_child_answers_and_its_peak_is_seen_from_outside() -> None:
    mib = 1 << 20
    with child() as asked:
        assert asked.ask(do="keep", n=64 * mib) == {"n": 64 * mib}
        asked.memory.start()
        asked.ask(do="drop", n=96 * mib)
        assert 90 * mib < asked.memory.above_bytes < 220 * mib
        # What was there before does not count.
        assert asked.memory.baseline_bytes > 64 * mib


def test_a_childs_failure_is_told_with_what_it_wrote() -> None:
    with child() as asked:
        with pytest.raises(ChildError, match=r"ValueError: so it is\n(.*\n)*Traceback"):
            asked.ask(do="fail")
        assert asked.ask(do="keep", n=1) == {"n": 1}
        with pytest.raises(ChildError, match=r"ended with code 1\n(.*\n)*no more"):
            asked.ask(do="die")


def test_each_side_has_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert our_environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in their_environment()
    assert our_environment()["OMP_NUM_THREADS"] == their_environment()["OMP_NUM_THREADS"] == "2"


# --- figures


def test_tables() -> None:
    text = tables.markdown(("a", "long"), [["1", "2"], ["333", "4"]])
    assert text.splitlines() == ["| a   | long |", "| --- | ---- |", "| 1   | 2    |", "| 333 | 4    |"]
    assert tables.ratio([10.0, 12.0], [1.0, 2.0, 4.0]) == "5.5 (2.5 to 12.0)"
    assert tables.seconds([1.0, 3.0, 2.0]) == "2.00 s (3x)"
    assert "load average before" in tables.machine()


def test_answers_that_differ_are_counted() -> None:
    fine = [[-1.0, True], [-22_000.0, False]]
    assert task_rows.compare(fine, [[-1.0009, True], [-22_000.02, False]])[1] == 0
    assert task_rows.compare(fine, [[-1.0011, True], [-22_000.0, False]])[1] == 1
    assert task_rows.compare(fine, [[-1.0, False], [-22_000.0, False]])[1] == 1
    assert task_rows.compare(fine, [[math.nan, True], [-22_000.0, False]])[1] == 1
    with pytest.raises(ValueError):
        task_rows.compare(fine, fine[:1])


FACTS = {"documents": 40, "forwards": 160, "longest_tokens": 100, "vocab_rows": 1000}


def search(each_s: dict[int, float], **facts: int) -> tuple[int, list[tuple[int, int]]]:
    """Search over sizes that take so long a request; return the choice and what was tried."""
    asked = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked.append((request["batch_size"], request["documents"]))
        n = request["documents"] * 4
        return {"wall_s": each_s[request["batch_size"]] * n, "answers": [[0.0, True]] * n}

    sizes = sorted(each_s)
    best, tried = task_rows.best_batch_size(sizes, {**FACTS, **facts}, answer, lambda text: None)
    assert asked[0] == (sizes[0], task_rows.WARM_DOCUMENTS)
    assert [(t["size"], t["documents"]) for t in tried] == asked[1:]
    return best, asked[1:]


def test_the_fastest_batch_size_is_found_on_documents_that_fill_it() -> None:
    assert search({1: 4.0, 8: 2.0, 32: 1.0, 64: 1.1}) == (32, [(1, 8), (8, 8), (32, 8), (64, 16)])
    # Once they get slower, larger ones are not tried.
    assert search({1: 1.0, 8: 1.2, 32: 0.1}) == (1, [(1, 8), (8, 8)])
    # One batch of everything is the last to be tried, on no more documents than there are.
    assert search({1: 4.0, 8: 2.0, 64: 1.0, 128: 0.5}, documents=10, forwards=10) == (
        64, [(1, 8), (8, 8), (64, 10)],
    )  # fmt: skip
    # Sizes whose logits fill the memory are left out.
    assert search({1: 4.0, 8: 2.0}, vocab_rows=10**9) == (1, [(1, 8)])


def test_rows_name_models_and_tasks_that_exist() -> None:
    index, registry = TaskIndex.load(), load_registry()
    assert len(task_rows.ROWS) == 9
    for name, row in task_rows.ROWS.items():
        assert name.startswith(row.model)
        assert row.model in registry
        assert 1 < row.at_least < row.aim
        assert all(task in index for task, _ in row.tasks)


# --- the command


def test_rows_are_kept_and_one_failure_costs_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    names = [speed.PLANNING, "mamba-130m/piqa"]

    def first(name: str) -> str:
        if name != speed.PLANNING:
            raise ChildError("it died")
        return "planned"

    results = speed.Results(path, quick=True)
    assert speed.run(names, results, first) == {"mamba-130m/piqa": "ChildError: it died"}
    again = speed.Results(path, quick=True)
    assert again.rows == {speed.PLANNING: "planned"}
    assert again.machine == results.machine
    asked: list[str] = []

    def second(name: str) -> str:
        asked.append(name)
        return first(name)

    assert list(speed.run(names, again, second)) == asked == [names[1]]
    with pytest.raises(SystemExit, match="with --quick"):
        speed.Results(path, quick=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"), n=4)


@pytest.mark.tools
def test_a_row_of_each_kind_is_measured(data: Path, tmp_path: Path) -> None:
    tokenizer, out = build_tokenizer(tmp_path / "tokenizer"), tmp_path / "rows.json"
    rows = ["mamba-130m/piqa", "forward/mamba2-130m", "planning"]
    # Made here, since two processes more would only import torch.
    for name in ("mamba-130m", "mamba2-130m"):
        sides.save_checkpoint(name, str(tokenizer), str(tmp_path / f"{name}-quick"), quick=True)
    command = [sys.executable, str(SPEED), "--quick", "--data", str(data), "--tokenizer", str(tokenizer)]
    command += ["--out", str(out), "--work", str(tmp_path), *(o for row in rows for o in ("--row", row))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["rows"]
    task = found["mamba-130m/piqa"]
    assert task["agrees"]
    assert task["requests"] == 2 * task["documents"]
    assert task["tokens_minimum"] <= task["ours_tokens"] < task["lm-eval_tokens"]
    assert 0 < task["ours_logit_rows"] <= task["rows_read"] < task["lm-eval_logit_rows"]
    assert task["lm-eval_memory_bytes"] > 0
    for cores in ("idle", "busy"):
        timed = found["forward/mamba2-130m"][cores]
        assert all(timed[what] for what in ("ours", "transformers", "products"))
    assert "of the minimum" in found["planning"]
    report = done.stdout.split("# All rows")[1]
    for text in ("none for this model", "mamba-130m, PIQA", "| mamba2-130m | busy ", "planning  "):
        assert text in report


@pytest.mark.tools
def test_a_runs_memory_and_its_first_answers_are_seen_from_outside(data: Path, tmp_path: Path) -> None:
    model = tiny_mamba(tmp_path / "model")
    arguments = ["zeroshot", "--model", str(model), "--task", "piqa", "--data-dir", str(data), "--dtype"]
    arguments += ["float32", "--device", "cpu"]
    environment = {**our_environment(), "MAMBABENCH_CACHE": str(tmp_path / "cache")}
    seen = memory_budget._watched([*arguments, "--out", str(tmp_path / "watched")], environment)
    assert 0 < seen["scoring_bytes"] <= seen["above_imports_and_weights_bytes"] < 1 << 30
    assert 0 <= seen["weights_bytes"] < 100 << 20
    assert len(memory_budget.line("256MB", seen)) == len(memory_budget.HEADER)
    began_s = time.perf_counter()
    took_s = first_batch.timed(environment, arguments, tmp_path / "timed")
    assert 0.1 < took_s < time.perf_counter() - began_s
    with pytest.raises(RuntimeError, match=r"no answers: .*--nonsense"):
        first_batch.timed(environment, [*arguments, "--nonsense"], tmp_path / "wrong")


# --- reports


def test_stores_of_reports_are_read_and_compared_whole(tmp_path: Path) -> None:
    runs = load_runs(report_stores.big_store(tmp_path / "big", models=3, tasks=2, items=12))
    assert [run.problems for run in runs.runs] == [()] * 6
    kinds = sorted(run.manifest.kind for run in runs.runs if run.manifest)
    assert kinds == sorted([*report_stores.SWEEPS, *["zeroshot"] * 3])
    assert set(runs.frame("speed")["status"]) == {"ok"}
    assert runs.comparison is not None
    assert runs.comparison.remarks == ()
    # Two tasks, and acc_norm of one of them.
    tested = [c for c in runs.comparison.contrasts if c.measure != "log-likelihood"]
    assert [c.n for c in tested] == [12] * 2 * 3
    one = load_runs(report_stores.single_store(tmp_path / "one", items=6))
    assert one.frame("scores").query("headline")["label"].value_counts().tolist() == [7, 7]


def test_what_a_command_took_is_a_line(tmp_path: Path) -> None:
    took = reporting.taken(["--version"], tmp_path)
    assert took.cpu_s > 0
    assert 0 < took.wall_s < 60
    assert 5e6 < took.peak_bytes < 1e9
    found = [reporting.Taken(wall_s, 1.0, 2e8) for wall_s in (1.0, 3.0, 1.5)]
    assert reporting.line("HTML", found, 1_500_000, "3 s") == (
        "HTML", "1.50 s", "1.00 to 3.00 s", "1.00 s", "200 MB", "1.50 MB", "3 s",
    )  # fmt: skip
    with pytest.raises(SystemExit, match="failed with 2"):
        reporting.taken(["--nonsense"], tmp_path)


@pytest.mark.tools
def test_reports_and_their_page_are_measured(capfd: pytest.CaptureFixture[str]) -> None:
    sizes = ["--models=3", "--tasks=2", "--items=12", "--page-items=60", "--runs=2", "--repeats=1"]
    reporting.main([*sizes, "--part=one", "--part=list", "--part=page", "--profile"])
    printed, _ = capfd.readouterr()
    assert printed.count("| HTML ") == 2
    assert "runs list" in printed
    assert "build_report" in printed
    if report_actions.chromium():
        times = [float(found) for found in re.findall(r"\| +(\d+) ms +\| +\d+ ms", printed)]
        assert len(times) == 10
        assert max(times) < 1000


# --- the profile


def test_every_part_of_the_profile_is_found() -> None:
    for places in profile_parts.PARTS.values():
        for place in places:
            owner, name = profile_parts.find(place)
            assert callable(getattr(owner, name)), place


def test_a_parts_time_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = profile_parts.Clock()

    def wait(s: float) -> None:
        now[0] += s

    wait(1)
    clock.enter("softmax")
    wait(2)
    clock.enter("logits")
    wait(4)
    clock.enter("matrix products")
    wait(8)
    clock.leave()
    clock.leave()
    wait(16)
    clock.leave()
    assert dict(clock.took_s) == {profile_parts.REST: 1, "softmax": 18, "logits": 12}


def test_replaced_functions_are_put_back() -> None:
    from mambabench.scoring.questions import Questions
    from mambabench.scoring.requests import LoglikelihoodRequest

    before = vars(Questions)["of"]
    found = profile_parts.by_part(lambda: Questions.of([LoglikelihoodRequest((1,), (2,))]))
    assert found["requests as arrays"] > 0
    assert vars(Questions)["of"] is before
