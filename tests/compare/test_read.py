"""Samples of a cell as columns: kinds of measures, right answers, clusters, and what does not add up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored_runs import Samples, accuracy, choice_samples, drawn, stored_run, task_record

from mambabench.compare.items import LOG_LIKELIHOOD, TaskItems
from mambabench.compare.read import read_task_items
from mambabench.errors import StoreError
from mambabench.schema import MetricRecord
from mambabench.store import StoredRun


def read(run: Path, *, cluster: str = "auto") -> TaskItems:
    stored = StoredRun(run)
    return read_task_items(stored, stored.cells()[0], cluster=cluster)


def one_task(tmp_path: Path, samples: Samples, *metrics: MetricRecord, **record: Any) -> Path:
    return stored_run(
        tmp_path, "base", {"task": samples}, metrics={"task": metrics or [accuracy(samples)]},
        records={"task": task_record("task", len(samples), **record)},
    )  # fmt: skip


def metric(name: str, value: float, n: int, **fields: Any) -> MetricRecord:
    return MetricRecord(metric=name, value=value, n=n, **{"unit": "score", **fields})


class TestChoices:
    def test_columns_are_those_of_the_samples(self, tmp_path: Path) -> None:
        scores, right = drawn(30)
        samples = choice_samples(scores, right)
        found = read(one_task(tmp_path, samples[::-1]))
        assert found.doc_ids.tolist() == list(range(30))
        assert found.choices is not None
        np.testing.assert_array_equal(found.choices.log_likelihoods, scores)
        np.testing.assert_array_equal(found.choices.right, right)
        assert found.measures["acc"].kind == "binary"
        np.testing.assert_array_equal(found.measures["acc"].values, scores.argmax(1) == right)
        expected = scores[np.arange(30), right]
        np.testing.assert_array_equal(found.measures[LOG_LIKELIHOOD].values, expected)
        assert found.choices.lengths_chars[0].tolist() == [8.0] * 4

    def test_a_target_may_be_the_text_of_a_choice(self, tmp_path: Path) -> None:
        scores, right = drawn(20)
        samples = [{**s, "target": f"choice {s['target']}"} for s in choice_samples(scores, right)]
        found = read(one_task(tmp_path, samples))
        assert found.choices is not None
        np.testing.assert_array_equal(found.choices.right, right)

    def test_of_two_prompts_with_one_ending_accuracy_tells_which_is_right(self, tmp_path: Path) -> None:
        scores, right = drawn(20, n_choices=2)
        samples = choice_samples(scores, right)
        for sample in samples:
            sample["arguments"] = [("Anna", " laughed."), ("Ben", " laughed.")]
            sample["target"] = "laughed."
        found = read(one_task(tmp_path, samples))
        assert found.choices is not None
        np.testing.assert_array_equal(found.choices.right, right)

    def test_choices_that_do_not_give_back_the_accuracy_are_left_out(self, tmp_path: Path) -> None:
        scores, right = drawn(20)
        samples = choice_samples(scores, right)
        at = next(i for i, sample in enumerate(samples) if sample["acc"] == 1.0)
        samples[at]["target"] = (right[at] + 1) % 4
        found = read(one_task(tmp_path, samples))
        assert found.choices is None
        assert LOG_LIKELIHOOD not in found.measures
        assert "does not give back the task's own accuracy" in found.remarks[0]

    @pytest.mark.parametrize("value", [math.nan, "x"])
    def test_answers_that_are_none_are_damage(self, tmp_path: Path, value: object) -> None:
        run = one_task(tmp_path, choice_samples(*drawn(3)))
        file = next((run / "samples").iterdir())
        table = pq.read_table(file)
        at = table.column_names.index("resps")
        pq.write_table(table.set_column(at, "resps", pa.array([value] * 3)), file)
        with pytest.raises(StoreError, match="cannot read the samples"):
            read(run)

    def test_unconditional_scores_are_no_choices(self, tmp_path: Path) -> None:
        scores, right = drawn(20)
        samples = choice_samples(scores, right)
        for sample in samples:
            sample["arguments"] += [("", text) for _, text in sample["arguments"]]
            sample["resps"] = sample["resps"] + [[(-1.0, False)]] * 4
            sample["acc_mutual_info"] = sample["acc"]
            sample["metrics"] = ["acc", "acc_mutual_info"]
        run = one_task(tmp_path, samples, accuracy(samples), accuracy(samples, "acc_mutual_info"))
        found = read(run)
        assert found.choices is not None
        np.testing.assert_array_equal(found.choices.log_likelihoods, scores)


class TestMeasures:
    def test_each_kind_gives_back_the_recorded_value(self, tmp_path: Path) -> None:
        values = [-1.0, -2.5, -0.5]
        words = [10, 20, 5]
        samples = [
            {**s, "nll": v, "word_ppl": (10 * v, w), "f1": 0.2 * i, "odd": 1.0, "bpb": (10 * v, w)}
            for i, (s, v, w) in enumerate(zip(choice_samples(*drawn(3)), values, words, strict=True))
        ]
        for sample in samples:
            sample["metrics"] = ["acc", "nll", "word_ppl", "f1", "odd", "bpb"]
        ratio = 10 * sum(values) / sum(words)
        found = read(
            one_task(
                tmp_path,
                samples,
                accuracy(samples),
                metric("nll", math.exp(4 / 3), 3, unit="perplexity", higher_is_better=False),
                metric("word_ppl", math.exp(-ratio), 3, unit="perplexity", higher_is_better=False),
                metric("bpb", -ratio / math.log(2), 3, unit="bits_per_byte", higher_is_better=False),
                metric("f1", 0.2, 3),
                metric("odd", 77.0, 3),
            )
        )
        kinds = {name: measure.kind for name, measure in found.measures.items()}
        assert kinds["nll"] == "log mean"
        assert kinds["word_ppl"] == kinds["bpb"] == "ratio"
        assert kinds["f1"] == "mean"
        assert kinds["odd"] == "corpus"

    def test_a_record_that_does_not_follow_from_its_items_is_refused(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(20))
        wrong = accuracy(samples).model_copy(update={"value": 0.123})
        with pytest.raises(StoreError, match=r"gives acc 0\.\d+, but its record says 0\.123"):
            read(one_task(tmp_path, samples, wrong))

    def test_fewer_items_than_recorded_are_refused(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(20))
        with pytest.raises(StoreError, match="holds 19 items, but its record says 20"):
            read(one_task(tmp_path, samples[:-1], accuracy(samples)))

    def test_an_item_twice_is_refused(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(20))
        samples[7]["doc_id"] = 8
        with pytest.raises(StoreError, match="holds document 8 twice"):
            read(one_task(tmp_path, samples))

    def test_cut_off_samples_are_refused(self, tmp_path: Path) -> None:
        run = one_task(tmp_path, choice_samples(*drawn(20)))
        path = next((run / "samples").iterdir())
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(StoreError, match="cannot read the samples"):
            read(run)

    @pytest.mark.parametrize(
        ("column", "values", "words"),
        [
            *((c, None, f"no column {c}") for c in ("doc_id", "target", "resps", "arguments", "filter")),
            ("doc_id", [0, 1, None, 3], "a doc_id is None"),
            ("doc_id", ["0", "1", "2", "3"], "a doc_id is '0'"),
            ("arguments", ["[]", "{", "[]", "[]"], "cannot read the samples"),
        ],
    )
    def test_columns_that_are_not_as_they_were_written_are_refused(
        self, tmp_path: Path, column: str, values: list[Any] | None, words: str
    ) -> None:
        run = one_task(tmp_path, choice_samples(*drawn(4)))
        (path,) = (run / "samples").iterdir()
        table = pq.read_table(path)
        other = table.drop_columns([column])
        pq.write_table(other if values is None else other.append_column(column, pa.array(values)), path)
        with pytest.raises(StoreError, match=words):
            read(run)

    def test_samples_of_something_else_are_refused(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        run = one_task(tmp_path, choice_samples(*drawn(20)))
        pq.write_table(pa.table({"x": [1]}), next((run / "samples").iterdir()))
        with pytest.raises(StoreError, match="cannot read the samples"):
            read(run)

    def test_the_plain_filter_is_read_of_several(self, tmp_path: Path) -> None:
        plain = choice_samples(*drawn(10))
        other = [{**s, "filter": "strict", "acc": 1.0 - s["acc"]} for s in plain]
        run = one_task(
            tmp_path,
            [*other, *plain],
            accuracy(other).model_copy(update={"filter": "strict"}),
            accuracy(plain),
        )
        assert read(run).measures["acc"].filter == "none"
        assert read(run).measures["acc"].values.tolist() == [s["acc"] for s in plain]

    def test_log_likelihoods_of_a_last_word_are_not_told_twice(self, tmp_path: Path) -> None:
        samples = [
            {**s, "resps": [[(-float(i), True)]], "arguments": [("a", " b")], "perplexity": -float(i)}
            for i, s in enumerate(choice_samples(*drawn(4)))
        ]
        for sample in samples:
            sample["metrics"] = ["acc", "perplexity"]
        perplexity = metric("perplexity", math.exp(1.5), 4, unit="perplexity")
        run = one_task(tmp_path, samples, accuracy(samples), perplexity, output_type="loglikelihood")
        assert set(read(run).measures) == {"acc", "perplexity"}


class TestClusters:
    def test_questions_about_one_passage_are_found(self, tmp_path: Path) -> None:
        passages = [f"passage {i // 3}" for i in range(12)]
        run = one_task(tmp_path, choice_samples(*drawn(12), passage=passages))
        found = read(run).cluster_texts
        assert found is not None
        assert found[0] == "passage"
        assert len(set(found[1])) == 4
        assert read(run, cluster="none").cluster_texts is None

    def test_any_field_can_be_named(self, tmp_path: Path) -> None:
        run = one_task(tmp_path, choice_samples(*drawn(12), author=["x", "y", "z"] * 4))
        assert read(run).cluster_texts is None
        found = read(run, cluster="author").cluster_texts
        assert found is not None
        assert len(set(found[1])) == 3


def test_a_prompt_is_all_that_was_asked(tmp_path: Path) -> None:
    samples = choice_samples(*drawn(2))
    samples[1]["arguments"] = [("Question 0?", " choice 0")]
    samples[0]["arguments"] = [("Question 0?", " another")]
    samples[0]["prompt_hash"] = samples[1]["prompt_hash"]
    found = read(one_task(tmp_path, samples))
    assert found.prompt_hashes[0] != found.prompt_hashes[1]
    assert json.dumps(found.context_lengths_bytes.tolist()) == "[11, 11]"
