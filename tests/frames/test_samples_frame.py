"""The frame of scored items, against the samples as they are stored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from changed_items import chosen, sampled
from scored_runs import choice_samples, drawn, stored_run, task_record

from mambabench.errors import UnknownNameError
from mambabench.frames.api import load_runs
from mambabench.frames.samples import COLUMNS, samples_frame
from mambabench.schema import MetricRecord, ReadRecord
from mambabench.store.samples import read_samples

PLAIN = [column.name for column in COLUMNS[:-1]]


def two(root: Path, **changes: Any) -> Path:
    """Two models on two tasks."""
    for place, name in enumerate(("base", "tuned")):
        tasks = {}
        for task in ("alpha", "beta"):
            scores, right = drawn(12, seed=3)
            tasks[task] = choice_samples(
                scores + np.random.default_rng(place).normal(0, 2, scores.shape), right
            )
        stored_run(root, name, tasks, **changes)
    return root


def test_rows_are_the_samples_with_their_texts(tmp_path: Path) -> None:
    frame = load_runs(two(tmp_path)).samples()
    assert list(frame.columns) == [*PLAIN, "metric.acc"]
    assert {name: str(frame[name].dtype) for name in ("doc_id", "right", "log_likelihood", "metric.acc")} == {
        "doc_id": "Int64", "right": "boolean", "log_likelihood": "float64", "metric.acc": "float64",
    }  # fmt: skip
    assert len(frame) == 2 * 2 * 12
    for (run, task), rows in frame.groupby(["run", "task"]):
        path = next((tmp_path / str(run) / "samples").glob(f"*-{task}-*.parquet"))
        for row, sample in zip(rows.to_dict("records"), read_samples(path), strict=True):
            scores = [answer[0][0] for answer in sample["resps"]]
            at = sample["target"]
            assert row["doc_id"] == sample["doc_id"]
            assert row["question"] == f"Question {sample['doc_id']}?"
            assert row["right_answer"] == f"choice {at}"
            assert row["answer"] == f"choice {int(np.argmax(scores))}"
            assert row["right"] is (sample["acc"] == 1.0)
            assert row["log_likelihood"] == scores[at]
            assert row["metric.acc"] == sample["acc"]
            assert (row["member"], row["model"]) == (task, row["label"])


def test_one_task_and_one_model_can_be_asked_for(tmp_path: Path) -> None:
    runs = load_runs(two(tmp_path))
    assert set(runs.samples(task="beta")["task"]) == {"beta"}
    assert set(runs.samples(label="tuned")["label"]) == {"tuned"}
    assert len(runs.samples("alpha", "base")) == 12
    with pytest.raises(UnknownNameError, match="unknown task 'gamma'"):
        runs.samples("gamma")
    with pytest.raises(UnknownNameError, match="unknown model 'other'"):
        runs.samples(label="other")


def test_a_group_has_its_members_and_one_of_them_can_be_asked_for(tmp_path: Path) -> None:
    tasks = {f"sub_{n}": choice_samples(*drawn(n, seed=n)) for n in (3, 4)}
    records = {task: task_record(task, len(samples), group="sub") for task, samples in tasks.items()}
    stored_run(
        tmp_path, "m", tasks, records=records, reads=(ReadRecord(task="sub", metrics=("acc",), label="Sub"),)
    )
    runs = load_runs(tmp_path)
    frame = runs.samples("Sub")
    assert set(frame["task"]) == {"sub"}
    assert frame["member"].value_counts().to_dict() == {"sub_3": 3, "sub_4": 4}
    assert set(runs.samples("sub_4")["member"]) == {"sub_4"}


def test_what_is_not_finite_is_missing_for_that_item_alone(tmp_path: Path) -> None:
    scores = np.array([[-1.0, -2.0], [-3.0, -math.inf], [-1.0, -5.0]])
    stored_run(tmp_path, "m", {"t": choice_samples(scores, [0, 1, 1])})
    frame = load_runs(tmp_path).samples()
    assert frame["log_likelihood"].tolist()[0::2] == [-1.0, -5.0]
    assert math.isnan(frame["log_likelihood"][1])
    assert frame["right"].tolist() == [True, False, False]


def test_generated_answers_and_tasks_without_right_ones(tmp_path: Path) -> None:
    generated = [
        sampled(i, [("Say it.", {"until": ["."]})], "hello", [said], exact_match=float(said == "hello"))
        for i, said in enumerate(("hello", "bye"))
    ]
    texts = [
        sampled(i, [(f"text {i}",)], "", [-20.0 - i])
        | {"word_perplexity": [-20.0 - i, 5], "metrics": ["word_perplexity"]}
        for i in range(2)
    ]
    stored_run(
        tmp_path, "m", {"say": generated, "text": texts},
        records={"say": task_record("say", 2, output_type="generate_until"),
                 "text": task_record("text", 2, output_type="loglikelihood_rolling")},
        metrics={"say": [MetricRecord(metric="exact_match", value=0.5, unit="fraction", n=2)],
                 "text": [MetricRecord(metric="word_perplexity", value=math.exp(41 / 10), unit="perplexity",
                                       n=2, higher_is_better=False)]},
        reads=tuple(ReadRecord(task=t, metrics=(m,)) for t, m in (("say", "exact_match"),
                                                                  ("text", "word_perplexity"))),
    )  # fmt: skip
    frame = load_runs(tmp_path).samples()
    said, read = (rows for _, rows in frame.groupby("task"))
    assert said["answer"].tolist() == ["hello", "bye"]
    assert said["right"].tolist() == [True, False]
    assert said["right_answer"].tolist() == ["hello", "hello"]
    assert said["log_likelihood"].isna().all()
    assert read["right"].isna().all()
    assert read["log_likelihood"].tolist() == [-20.0, -21.0]
    assert read["metric.word_perplexity"].tolist() == [-20.0, -21.0]
    assert said["metric.word_perplexity"].isna().all()


def test_long_texts_are_shortened(tmp_path: Path) -> None:
    stored_run(tmp_path, "m", {"t": [chosen(0, "x" * 5_000 + " end", ["y" * 1_000, "z"], 0, [-1.0, -2.0])]})
    row = load_runs(tmp_path).samples().iloc[0]
    assert row["question"].startswith("…")
    assert row["question"].endswith(" end")
    assert len(row["question"]) <= 600
    assert row["answer"] == row["right_answer"]
    assert len(row["answer"]) <= 300


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    two(tmp_path)
    paths = sorted(tmp_path.glob("*base*/samples/*"))
    paths[0].write_bytes(b"PAR1 and nothing else")
    paths[1].unlink()
    assert set(load_runs(tmp_path).samples()["label"]) == {"tuned"}


def test_without_items_the_frame_is_empty_with_its_columns(tmp_path: Path) -> None:
    frame = samples_frame([])
    assert list(frame.columns) == PLAIN
    assert frame.empty
    assert frame["right"].dtype == "boolean"
    metrics = {"t": [MetricRecord(metric="acc", value=0.5, unit="fraction", n=10)]}
    stored_run(tmp_path, "m", {"t": []}, records={"t": task_record("t", 10)}, metrics=metrics)
    pd.testing.assert_frame_equal(load_runs(tmp_path).samples(), frame)
