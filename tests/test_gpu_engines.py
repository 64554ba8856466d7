"""The GPU script's comparison of engines, with sides of known speed in place of processes."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gpu import checks  # noqa: F401 - puts the folder of the script on the path
from gpu.engine_contest import ChildError, Contest, hold
from gpu.engine_figures import documents_that_fit, ratios, reference_documents

DOCUMENTS = {"a": 400, "b": 90}


class Side:
    """Answers as a side does, in a time by rule.

    Args:
        name: "ours" or "lm-eval".
        asked: every request, of all sides.
        error: added to every log-likelihood.
        largest: batch that fits the memory.
    """

    breaks_at = 0
    """Batch that ends the process."""
    whole = 999
    """Batch that fits the memory where all documents are answered."""

    def __init__(self, name: str, asked: list[dict[str, Any]], error: float, largest: int) -> None:
        self._name, self._asked, self._error, self._largest = name, asked, error, largest

    def close(self) -> None:
        self._asked.append({"side": self._name, "do": "close"})

    def ask(self, **request: Any) -> dict[str, Any]:
        self._asked.append({"side": self._name, **request})
        if request["do"] == "load":
            self._wide = request["dtype"] == "float32"
            return {"documents": DOCUMENTS}
        if request.get("batch_size") == self.breaks_at:
            raise ChildError("an illegal memory access was encountered\nmore lines")
        tasks, n = request["tasks"], request["documents"]
        counted = {task: min(n, DOCUMENTS[task]) for task in tasks}
        requests = 2 * sum(counted.values())
        if request.get("batch_size", 0) > (self.whole if request.get("keep") else self._largest):
            return {"oom": "CUDA out of memory", "requests": 0, "peak_bytes": 1}
        if self._name == "ours":
            each_s = 0.001 if request.get("memory_bytes") is None else 0.0008
        else:
            # The best batch size of one is 16, of the other 32.
            each_s = 0.002 + 0.001 * abs(request["batch_size"] - (16 if "a" in tasks else 32)) / 16
        error = 0.0 if self._wide else self._error
        samples = {
            task: [
                {
                    "doc_id": i,
                    "filter": "none",
                    "resps": [[-1.0 - error, False], [-2.0 + error, False]],
                }
                for i in range(k)
            ]
            for task, k in counted.items()
        }
        found = {"wall_s": each_s * requests, "requests": requests, "peak_bytes": 5, "samples": samples}
        return found | ({"run": "run"} if request.get("keep") else {})


def held(tmp_path: Path, our_error: float = 0.1, largest: int = 128, **changes: Any) -> Any:
    """Hold a contest; return whether they agreed, its figures and what was asked."""
    asked: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}

    class Made(Contest):
        def start(self, side: str) -> Any:
            @contextmanager
            def started() -> Any:
                yield Side(side, asked, our_error if side == "ours" else 0.1, largest)

            return started()

    given: dict[str, Any] = {
        "units": (("a",), ("b",)), "num_fewshot": None, "model": tmp_path / "m", "twin": tmp_path / "m",
        "data": tmp_path, "work": tmp_path, "device": "cuda", "dtype": "bfloat16", "backend": "mamba_ssm",
        "standins": None, "seconds": 600.0, "documents": None, "blocks": 1,
    }  # fmt: skip
    agreed = hold(Made(**given | changes), figures.update)
    return agreed, figures, asked


def test_each_side_gets_what_is_fastest_and_both_take_turns(tmp_path: Path) -> None:
    agreed, figures, asked = held(tmp_path)
    assert agreed
    assert [figures[f"search {task}"]["best"] for task in "ab"] == [16, 32]
    assert figures["budgets"]["best"] == 24 * 2**30
    # All documents fit: of each task as many as there are.
    assert figures["documents_per_task"] == 400
    passes = [name.split()[2] for name in figures if name.startswith("pass ")]
    assert passes == ["lm-eval", "ours", "ours", "lm-eval"]
    # 980 requests: 2 ms each with lm-eval's best batch sizes, 0.8 ms with our better budget.
    together = figures["together"]
    assert together["times_as_fast"] == pytest.approx(2.5)
    assert together["lm_eval_s"] == [pytest.approx(0.002 * 980)] * 2
    assert figures["by_unit"]["b"]["ours_s"] == [pytest.approx(0.0008 * 180)] * 2
    exact = [request for request in asked if request.get("dtype") == "float32"]
    assert [request["side"] for request in exact] == ["lm-eval"]
    assert figures["agreement"]["n_held_against_float32"] == 2 * (100 + 90)


def test_a_batch_that_does_not_fit_ends_the_search(tmp_path: Path) -> None:
    _, figures, _ = held(tmp_path, largest=16)
    assert [figures[f"search {task}"]["best"] for task in "ab"] == [16, 16]
    assert figures["search b"]["tried"][-1] == {"batch_size": 32, "oom": "CUDA out of memory"}
    with pytest.raises(SystemExit, match="batch size 8"):
        held(tmp_path, largest=4)


def test_a_batch_that_breaks_the_process_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Side, "breaks_at", 32)
    agreed, figures, asked = held(tmp_path)
    assert agreed
    assert [figures[f"search {task}"]["best"] for task in "ab"] == [16, 16]
    tried = figures["search a"]["tried"][-1]
    assert tried == {"batch_size": 32, "failed": "an illegal memory access was encountered"}
    # Another process goes on each time.
    does = [r["do"] for r in asked if r["side"] == "lm-eval" and r.get("dtype") != "float32"]
    assert [does[i + 1] for i, do in enumerate(does) if do == "close"] == ["load", "load"]
    monkeypatch.setattr(Side, "breaks_at", 8)
    with pytest.raises(ChildError):
        held(tmp_path)


def test_a_batch_that_fits_no_longer_with_all_documents_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Side, "whole", 12)
    agreed, figures, _ = held(tmp_path)
    assert agreed
    assert figures["batch_sizes"] == [8, 8]
    assert [unit["batch_size"] for unit in figures["pass 0 lm-eval"]["units"]] == [8, 8]
    monkeypatch.setattr(Side, "whole", 0)
    with pytest.raises(SystemExit, match="with one request"):
        held(tmp_path)


def test_float32_answers_as_many_documents_as_time_allows(tmp_path: Path) -> None:
    # 12 times 4 ms for a document of each task.
    assert reference_documents(2.4, 0.004) == 50
    _, figures, _ = held(tmp_path, seconds=16.0)
    assert figures["agreement"]["n_held_against_float32"] == 2 * 2 * 10


def test_the_search_keeps_to_its_share_of_the_time(tmp_path: Path) -> None:
    # A document of "a" takes 2 requests of 2.5 ms with a batch of 8: a try gets 2 s / 40 of them.
    _, figures, _ = held(tmp_path, seconds=2.0)
    assert figures["search a"]["documents"] == 10


def test_a_larger_error_than_lm_evals_is_disagreement(tmp_path: Path) -> None:
    assert held(tmp_path, our_error=0.14)[0]
    assert not held(tmp_path, our_error=0.16)[0]


def test_one_unit_is_answered_once(tmp_path: Path) -> None:
    _, figures, asked = held(tmp_path, units=(("a", "b"),), documents=7)
    assert figures["documents_per_task"] == 7
    timed = [r for r in asked if r["side"] == "ours" and r.get("samples")]
    # Two passes, and once more for the comparison with float32.
    assert [r["tasks"] for r in timed] == [["a", "b"]] * 3
    assert list(figures["by_unit"]) == ["a+b"]


def test_documents_are_as_many_as_fit_the_time() -> None:
    def once_s(n: int) -> float:
        return min(n, 10_000) * 0.01

    assert documents_that_fit(None, 10_000, 1000.0, once_s) == 10_000
    assert documents_that_fit(None, 10_000, 100.0, once_s) == 3000
    assert documents_that_fit(None, 10_000, 0.1, once_s) == 20
    assert documents_that_fit(700, 10_000, 0.1, once_s) == 700
    assert documents_that_fit(700, 300, 0.1, once_s) == 300


def test_ratios_come_with_their_extremes() -> None:
    def done(*walls: float) -> list[dict[str, Any]]:
        return [{"wall_s": wall, "units": [{"wall_s": wall}]} for wall in walls]

    load_s = {"lm-eval": 1.0, "ours": 2.0}
    found = ratios({"lm-eval": done(10.0, 12.0), "ours": done(2.0, 5.0, 4.0)}, (("a",),), load_s)
    assert found["together"]["times_as_fast"] == 11.0 / 4.0
    assert found["together"]["range"] == [2.0, 6.0]
    assert found["with_loading"]["times_as_fast"] == 12.0 / 6.0
