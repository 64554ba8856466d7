"""What the tests of prepared tasks share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mambabench.suite import suite_from_tasks
from mambabench.taskindex import TaskIndex
from mambabench.tasks.offline import PreparedTask, prepare

N = 6


def build(prepared: PreparedTask, limit: int | None = None) -> list[tuple[Any, ...]]:
    prepared.task.build_all_requests(limit=limit, rank=0, world_size=1)
    return [(i.request_type, i.doc_id, *i.args) for i in prepared.task.instances]


def one(name: str, data_dir: Path, num_fewshot: int | None = None) -> PreparedTask:
    (prepared,) = prepare(suite_from_tasks([name], num_fewshot=num_fewshot).tasks, data_dir=data_dir)
    return prepared


def as_lm_eval(name: str, data_dir: Path, num_fewshot: int) -> list[tuple[Any, ...]]:
    """Build requests with lm-eval alone, data swapped in the way its documentation shows."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    index = TaskIndex.load()
    entry = index.get(name)
    config = load_yaml(index.folder_path(entry) / entry.yaml, resolve_func=True)
    folder = data_dir / entry.dataset_path / (entry.dataset_name or "")
    files = {path.stem: str(path) for path in folder.glob("*.jsonl")}
    config |= {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "tag": None,
    }
    for key in ("training_split", "validation_split"):
        config[key] = config.get(key) if config.get(key) in files else None
    task = ConfigurableTask(config=config)
    task.set_config("num_fewshot", num_fewshot)
    task.set_fewshot_seed(1234)
    task.build_all_requests(rank=0, world_size=1)
    return [(i.request_type, i.doc_id, *i.args) for i in task.instances]
