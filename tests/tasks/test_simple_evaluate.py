"""lm-eval's own entry point with our model type, for those who keep their scripts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from builders import tiny_mamba
from lm_eval.tasks import TaskManager
from tasks.rows import write_rows

import mambabench.tasks.lm_eval_backend
from mambabench.execute import run_zeroshot
from mambabench.suite import suite_from_tasks
from mambabench.zeroshot import ZeroshotOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"))


def evaluated(model_args: Any, data: Path, cache: Path) -> dict[str, Any]:
    task = {
        "task": "my_piqa",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"validation": str(data / "baber" / "piqa" / "validation.jsonl")},
            "cache_dir": str(cache),
        },
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "{{[sol1, sol2]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, Any] = lm_eval.simple_evaluate(
            model="mambabench",
            model_args=model_args,
            tasks=[task],
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
        )
    return found


def test_the_same_figures_as_our_own_command(data: Path, tmp_path: Path) -> None:
    assert mambabench.tasks.lm_eval_backend is not None
    checkpoint = tiny_mamba(tmp_path / "m")
    found = evaluated(f"pretrained={checkpoint},dtype=float32", data, tmp_path / "cache")
    outcome = run_zeroshot(
        ZeroshotOptions(
            models=(str(checkpoint),), suite=suite_from_tasks(["piqa"]), out=tmp_path / "out", data_dir=data
        )
    )
    ours = {row.metric: row.value for row in outcome.table.rows}
    for metric in ("acc", "acc_norm"):
        assert found["results"]["my_piqa"][f"{metric},none"] * 100 == pytest.approx(ours[metric])
    assert found["config"]["mambabench"]["kernel_path"] == "mambabench compiled scan"


def test_random_weights_and_dictionaries_of_arguments(data: Path, tmp_path: Path) -> None:
    arguments = {
        "pretrained": str(tiny_mamba(tmp_path / "m")),
        "weights": "random",
        "seed": 3,
        "batch_size": "auto",
    }
    found = evaluated(arguments, data, tmp_path / "cache")
    assert found["config"]["mambabench"]["weights"] == "random"
    assert found["config"]["mambabench"]["seed"] == 3
