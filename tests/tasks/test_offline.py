"""Tasks are built from files by lm-eval's own YAML, with the requests that lm-eval builds."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
import realdata
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.preparing import N, as_lm_eval, build, one
from tasks.rows import write_jsonl, write_rows

from mambabench.errors import UsageError
from mambabench.fingerprint import file_sha256
from mambabench.suite import SuiteTask, list_suites, load_suite, suite_from_tasks
from mambabench.taskindex import TaskIndex
from mambabench.tasks import offline
from mambabench.tasks.offline import PreparedTask, prepare
from mambabench.tasks.sources import DataSource


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"), n=N)


SUITES = ["mamba-paper", "mamba2-paper", "slimpj", "tinyllama", "mmlu", "wikitext"]


def test_every_shipped_suite_is_tried_here() -> None:
    assert {s.name for s in list_suites()} - {"smoke"} == set(SUITES)


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_builds_its_requests_from_generated_rows(name: str, data_dir: Path) -> None:
    suite = load_suite(name)
    index = TaskIndex.load()
    tasks = prepare(suite.tasks, data_dir=data_dir)
    assert [t.name for t in tasks if not t.group] == [
        t.task for t in suite.tasks if index.get(t.task).kind == "task"
    ]
    assert len({t.record.config_sha256 for t in tasks}) == len(tasks)
    for prepared in tasks:
        requests = build(prepared)
        assert len({doc for _, doc, *_ in requests}) == N
        assert prepared.n_docs_total == N
        assert prepared.record.data[0].n_rows == N
        assert prepared.record.data[0].sha256 == file_sha256(data_dir / prepared.record.data[0].name)
        assert all(d.source == "data-dir" for d in prepared.data)


def test_a_group_becomes_its_members_with_the_examples_of_the_suite(data_dir: Path) -> None:
    tasks = prepare(load_suite("mmlu").tasks, data_dir=data_dir)
    assert len(tasks) == 57
    assert {t.group for t in tasks} == {"mmlu"} == {t.record.group for t in tasks}
    assert all([d.split for d in t.data] == ["test", "dev"] for t in tasks)
    assert all(t.record.n_fewshot == 5 for t in tasks)
    prompt = build(tasks[0], limit=1)[0][2]
    assert prompt.count("Answer:") == 6


def test_a_tag_becomes_its_members(data_dir: Path) -> None:
    tasks = prepare(suite_from_tasks(["ai2_arc"]).tasks, data_dir=data_dir)
    assert [(t.name, t.group) for t in tasks] == [("arc_challenge", "ai2_arc"), ("arc_easy", "ai2_arc")]


def test_only_the_folders_of_the_suite_are_read(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import _index

    prepare(load_suite("mamba-paper").tasks, data_dir=data_dir)  # imports done
    read: list[str] = []
    original = _index.load_yaml
    monkeypatch.setattr(
        _index, "load_yaml", lambda path, **kw: read.append(str(path)) or original(path, **kw)
    )
    began_s = time.perf_counter()
    prepare(load_suite("mamba-paper").tasks, data_dir=data_dir)
    took_s = time.perf_counter() - began_s
    assert 0 < len(read) < 20  # of some 14,000
    assert took_s < 2


@pytest.mark.parametrize(
    "name",
    ["lambada_openai", "hellaswag", "piqa", "arc_easy", "arc_challenge", "winogrande", "openbookqa", "boolq",
     "race", "truthfulqa_mc2", "wikitext"],
)  # fmt: skip
def test_requests_are_those_of_lm_eval(
    name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    assert build(one(name, data_dir)) == as_lm_eval(name, data_dir, 0)


def test_few_shot_requests_are_those_of_lm_eval(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    assert build(one("mmlu_anatomy", data_dir, 5)) == as_lm_eval("mmlu_anatomy", data_dir, 5)


@pytest.fixture
def piqa_with_train(data_dir: Path, tmp_path: Path) -> Path:
    source = data_dir / "baber/piqa/validation.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    write_jsonl(tmp_path / "baber/piqa/validation.jsonl", rows)
    train = [{**rows[0], "goal": f"How do I lift weight number {i}?"} for i in range(40)]
    write_jsonl(tmp_path / "baber/piqa/train.jsonl", train)
    return tmp_path


@settings(max_examples=10, deadline=None)
@given(limits=st.lists(st.integers(1, N), min_size=1, max_size=3))
def test_prompts_with_drawn_examples_do_not_depend_on_the_limit(
    piqa_with_train_module: PreparedTask, limits: list[int]
) -> None:
    whole = build(piqa_with_train_module)
    for limit in limits:
        assert build(piqa_with_train_module, limit) == whole[: 2 * limit]
    assert build(piqa_with_train_module) == whole


@pytest.fixture(scope="module")
def piqa_with_train_module(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> PreparedTask:
    root = tmp_path_factory.mktemp("piqa")
    rows = [json.loads(line) for line in (data_dir / "baber/piqa/validation.jsonl").read_text().splitlines()]
    write_jsonl(root / "baber/piqa/validation.jsonl", rows)
    train = [{**rows[0], "goal": f"How do I lift weight number {i}?"} for i in range(40)]
    write_jsonl(root / "baber/piqa/train.jsonl", train)
    prepared = one("piqa", root, 3)
    # The sampler does draw: documents have different examples.
    prompts = {r[2].rsplit("Question:", 1)[0] for r in build(prepared)}
    assert len(prompts) > 1
    return prepared


def test_drawn_examples_are_those_of_lm_eval(
    piqa_with_train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert build(one("piqa", piqa_with_train, 3)) == as_lm_eval("piqa", piqa_with_train, 3)


def test_splits_that_are_not_needed_are_neither_read_nor_recorded(piqa_with_train: Path) -> None:
    (piqa_with_train / "baber/piqa/train.jsonl").write_text("not JSON\n")
    assert [d.split for d in one("piqa", piqa_with_train).data] == ["validation"]
    with pytest.raises(UsageError, match=r"train\.jsonl, line 1: no JSON"):
        one("piqa", piqa_with_train, 2)


def test_the_configuration_s_digest_knows_what_matters(data_dir: Path, tmp_path: Path) -> None:
    digest = one("piqa", data_dir).record.config_sha256
    moved = write_rows(tmp_path, n=2, seed=9)
    assert one("piqa", moved).record.config_sha256 == digest
    code = (
        "from pathlib import Path; from mambabench.tasks.offline import prepare;"
        "from mambabench.suite import suite_from_tasks as s;"
        f"print(prepare(s(['hellaswag']).tasks, data_dir=Path({str(data_dir)!r}))[0].record.config_sha256)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == one("hellaswag", data_dir).record.config_sha256
    assert other.stderr == ""


def test_too_few_examples_are_told_before_requests_are_built(piqa_with_train: Path) -> None:
    with pytest.raises(UsageError, match=r"piqa.*(larger than population|number)"):
        one("piqa", piqa_with_train, 41)


def test_process_docs_runs_once_however_often_requests_are_built(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = datasets.Dataset.map
    monkeypatch.setattr(
        datasets.Dataset, "map", lambda self, *a, **k: calls.append(len(self)) or original(self, *a, **k)
    )
    prepared = one("hellaswag", data_dir)
    build(prepared)
    build(prepared, limit=2)
    assert [c for c in calls if c] == [N]


def test_nothing_of_lm_eval_stays_changed(data_dir: Path, tmp_path: Path) -> None:
    from lm_eval.api.task import ConfigurableTask, Task

    before = (ConfigurableTask.download, Task.download)
    bars = datasets.are_progress_bars_disabled()
    one("hellaswag", data_dir)
    with pytest.raises(UsageError):
        one("piqa", write_jsonl(tmp_path / "baber/piqa/validation.jsonl", [{"x": 1}]).parents[2])
    assert (ConfigurableTask.download, Task.download) == before
    assert datasets.are_progress_bars_disabled() == bars


def test_templates_are_compiled_once(data_dir: Path) -> None:
    from lm_eval.utils import env

    prepared = one("lambada_openai", data_dir)
    build(prepared)
    compiled = env.from_string.cache_info().misses
    build(prepared)
    assert env.from_string.cache_info().misses == compiled


def test_limit_counts_documents_in_the_record_only(data_dir: Path) -> None:
    tasks = suite_from_tasks(["piqa"]).tasks
    (small,) = prepare(tasks, data_dir=data_dir, limit=2)
    (large,) = prepare(tasks, data_dir=data_dir, limit=100)
    assert (small.record.n_docs, small.record.n_docs_total) == (2, N)
    assert (large.record.n_docs, large.record.n_docs_total) == (N, N)


def test_a_task_that_fixes_zero_examples_keeps_them(data_dir: Path) -> None:
    (prepared,) = prepare(
        [SuiteTask(task="truthfulqa_mc2", metrics=("acc",), num_fewshot=4)], data_dir=data_dir
    )
    assert prepared.record.n_fewshot == 0


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "num_fewshot", "n_docs", "n_requests"),
    [
        ("hellaswag", None, 10042, 40168),
        ("piqa", None, 1838, 3676),
        ("arc_easy", None, 2376, 9501),
        ("lambada_openai", None, 5153, 5153),
        ("wikitext", None, 62, 62),
        ("mmlu_anatomy", 5, 135, 540),
        ("mmlu_virology", 5, 166, 664),
    ],
)
def test_published_rows(
    name: str, num_fewshot: int | None, n_docs: int, n_requests: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    published_rows = realdata.data_dir()
    prepared = one(name, published_rows, num_fewshot)
    assert prepared.n_docs_total == n_docs
    requests = build(prepared)
    assert len(requests) == n_requests
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    if n_requests < 6000:
        assert requests == as_lm_eval(name, published_rows, num_fewshot or 0)


@pytest.mark.realdata
def test_the_whole_of_mmlu_is_prepared_in_seconds() -> None:
    published_rows = realdata.data_dir()
    began_s = time.perf_counter()
    tasks = prepare(load_suite("mmlu").tasks, data_dir=published_rows)
    assert time.perf_counter() - began_s < 8  # 1.0 s on an idle machine
    assert sum(t.n_docs_total for t in tasks) == 14042


class OneTask:
    """Stands for lm-eval's `TaskManager` with a single task over PIQA's rows."""

    def __init__(self, process_docs: Any) -> None:
        self.config = {
            "task": "wants", "dataset_path": "baber/piqa", "output_type": "multiple_choice",
            "process_docs": process_docs, "training_split": "train", "validation_split": "validation",
            "doc_to_text": "goal", "doc_to_target": "label", "doc_to_choice": ["a", "b"],
        }  # fmt: skip

    def load(self, names: list[str]) -> dict[str, Any]:
        from lm_eval.api.task import ConfigurableTask

        return {"tasks": {"wants": ConfigurableTask(config=dict(self.config))}}


def test_documents_that_are_shuffled_by_the_task_stay_as_they_were_asked(data_dir: Path) -> None:
    def shuffles(rows: datasets.Dataset) -> datasets.Dataset:
        return rows.add_column("drawn", [random.random() for _ in rows])

    suite_task = SuiteTask(task="wants", metrics=("acc",))
    drawn = []
    for _ in range(2):
        ((_, task, _served),) = offline._build(OneTask(shuffles), suite_task, DataSource(data_dir))
        assert task.eval_docs["drawn"][:] == task.eval_docs["drawn"][:]
        drawn.append(task.eval_docs["drawn"][:])
        random.random()
    assert drawn[0] == drawn[1]


def test_a_task_that_wants_an_unneeded_split_gets_it(data_dir: Path, piqa_with_train: Path) -> None:
    """Splits are left empty at first; a task whose code needs rows in one of them is built again."""

    def wants_rows(rows: datasets.Dataset) -> datasets.Dataset:
        rows[0]
        return rows

    suite_task = SuiteTask(task="wants", metrics=("acc",))
    ((_, task, served),) = offline._build(OneTask(wants_rows), suite_task, DataSource(piqa_with_train))
    assert len(task.eval_docs) == N
    assert [r.split for r in served.records()] == ["validation", "train"]
    with pytest.raises(UsageError, match="wants"):
        list(offline._build(OneTask(wants_rows), suite_task, DataSource(data_dir)))
