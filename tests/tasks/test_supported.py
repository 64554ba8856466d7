"""Tasks that cannot be run and metrics that do not exist are refused before weights are read."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tasks.rows import write_jsonl, write_rows

from mambabench import assets
from mambabench.errors import DataMissingError, UnknownNameError, UsageError
from mambabench.suite import SuiteTask, load_suite
from mambabench.taskindex import TaskIndex
from mambabench.tasks.offline import prepare, require_files
from mambabench.tasks.supported import require_task, require_yaml

CODE = r"task '{}' runs the code that a model writes \(code execution\), which is not supported"
IMAGES = r"task '{}' shows a model images or sounds, which is not supported"


@pytest.mark.parametrize(
    ("name", "message"),
    # The second one's file includes another one that says it.
    [("humaneval", CODE), ("humaneval_plus", CODE), ("chartqa", IMAGES), ("common_voice_en", IMAGES)],
)
def test_tasks_of_lm_eval_are_refused_before_their_rows_are_looked_for(
    name: str, message: str, tmp_path: Path
) -> None:
    tasks = [SuiteTask(task="piqa", metrics=("acc",)), SuiteTask(task=name, metrics=("any",))]
    with pytest.raises(UsageError, match=message.format(name)):
        prepare(tasks, data_dir=tmp_path)
    with pytest.raises(UsageError, match=message.format(name)):
        require_files(tasks, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("unsafe_code: true", CODE),
        ("unsafe_code: null", CODE),
        ("doc_to_image: picture", IMAGES),
        ("doc_to_audio: sound", IMAGES),
        ("unsafe_code: false", ""),
        ("doc_to_audio: ''", ""),
    ],
)
def test_what_lm_eval_would_refuse_is_refused(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smoke_a.yaml").write_text(
        "task: smoke_a\ndataset_path: mambabench/smoke_a\noutput_type: generate_until\ntest_split: test\n"
        + line
    )
    monkeypatch.setattr(assets, "smoke_dir", lambda: tmp_path)
    index = TaskIndex.load()
    if not message:
        require_yaml(["smoke_a"], index)
        return
    with pytest.raises(UsageError, match=message.format("smoke_a")):
        require_yaml(["smoke_a"], index)


def task(**attributes: Any) -> Any:
    return SimpleNamespace(**{"aggregation": lambda: {"acc": sum, "f1": max}, **attributes})


def test_a_built_task_says_itself_what_it_needs() -> None:
    require_task("t", task(), ["f1", "acc"])
    require_task("t", task(UNSAFE_CODE=False, MULTIMODAL=False), [])
    with pytest.raises(UsageError, match=CODE.format("t")):
        require_task("t", task(UNSAFE_CODE=True), ["acc"])
    with pytest.raises(UsageError, match=IMAGES.format("t")):
        require_task("t", task(MULTIMODAL=True), ["acc"])


def test_every_metric_that_a_task_lacks_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"'t' has no metric 'em', 'bleu', it has acc, f1"):
        require_task("t", task(), ["em", "acc", "bleu"])


def test_a_metric_kept_as_a_function_is_known_by_its_name() -> None:
    def ours() -> None: ...

    require_task("t", task(aggregation=lambda: {ours: sum}), ["ours"])


def test_a_class_is_asked_for_its_metrics(tmp_path: Path) -> None:
    rows = [{"text": f"The lamp of {n} is", "value": "on", "doc_id": str(n)} for n in range(4)]
    write_jsonl(tmp_path / "hazyresearch/based-squad/default/validation.jsonl", rows)
    name = "squad_completion"
    (prepared,) = prepare([SuiteTask(task=name, metrics=("contains",))], data_dir=tmp_path)
    assert prepared.n_docs_total == 4
    with pytest.raises(UnknownNameError, match=f"'{name}' has no metric 'f1', it has contains"):
        prepare([SuiteTask(task=name, metrics=("contains", "f1"))], data_dir=tmp_path)


def test_a_member_of_a_group_is_asked_as_well(tmp_path: Path) -> None:
    write_rows(tmp_path, n=2)
    with pytest.raises(UnknownNameError, match=r"'arc_challenge' has no metric 'f1', it has acc, acc_norm"):
        prepare([SuiteTask(task="ai2_arc", metrics=("acc", "f1"))], data_dir=tmp_path)


def test_asking_takes_no_time(tmp_path: Path) -> None:
    began_s = time.perf_counter()
    with pytest.raises(DataMissingError):
        require_files(load_suite("mmlu").tasks, data_dir=tmp_path)
    assert time.perf_counter() - began_s < 2  # 0.15 s on an idle machine
