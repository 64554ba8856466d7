"""Sides laid side by side: what is common, what is refused, and that the first difference is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_runs import Samples, accuracy, choice_samples, drawn, stored_run, task_record

from mambabench.compare.align import aligned_tasks
from mambabench.compare.items import AlignedTask
from mambabench.compare.result import CompareOptions, Side
from mambabench.compare.sources import parse_given, sides_of
from mambabench.errors import MismatchError, UsageError


def sides(*runs: Path) -> list[Side]:
    return sides_of([parse_given(str(run)) for run in runs])


def aligned(*runs: Path, **options: Any) -> list[AlignedTask]:
    return aligned_tasks(sides(*runs), CompareOptions(**options))[0]


def two(root: Path, first: Samples, second: Samples, **second_run: Any) -> tuple[Path, Path]:
    return (
        stored_run(root / "a", "base", {"arc_easy": first}),
        stored_run(root / "b", "tuned", {"arc_easy": second}, **second_run),
    )


def partial(n: int, total: int) -> dict[str, Any]:
    return {"records": {"arc_easy": task_record("arc_easy", n, n_docs_total=total)}, "partial": True}


class TestItems:
    def test_the_same_item_stands_in_the_same_place(self, tmp_path: Path) -> None:
        scores, right = drawn(25)
        other = scores[::1] + np.random.default_rng(1).normal(0, 1, scores.shape)
        first, second = choice_samples(scores, right), choice_samples(other, right)
        (task,) = aligned(*two(tmp_path, first, second[::-1]))
        assert (task.n, task.n_total, task.partial, task.metrics) == (25, 25, False, ("acc",))
        for side, samples in zip(task.sides, (first, second), strict=True):
            assert side.measures["acc"].values.tolist() == [s["acc"] for s in samples]
            assert side.choices is not None
            assert side.choices.log_likelihoods[:, 0].tolist() == [s["resps"][0][0][0] for s in samples]

    @settings(max_examples=8, deadline=None)
    @given(n=st.integers(1, 12))
    def test_of_a_partial_run_what_both_have_is_compared(
        self, tmp_path_factory: pytest.TempPathFactory, n: int
    ) -> None:
        scores, right = drawn(12)
        samples = choice_samples(scores, right)
        runs = two(tmp_path_factory.mktemp("p"), samples, samples[:n], **partial(n, 12))
        (task,) = aligned(*runs)
        assert task.doc_ids.tolist() == list(range(n))
        assert task.partial == (n < 12)
        for side in task.sides:
            measure = side.measures["acc"]
            assert measure.values.tolist() == [s["acc"] for s in samples[:n]]
            assert measure.recorded == pytest.approx(np.mean(measure.values))
        if n < 12:
            assert (task.n, task.n_total, task.held_back_by) == (n, 12, (1,))

    def test_a_column_of_zeros_is_of_the_same_kind_as_the_other_side(self, tmp_path: Path) -> None:
        scores, right = drawn(10)
        samples = choice_samples(scores, right)
        nothing = [{**s, "acc": 0.0, "resps": [[(0.0, False)]] * 4} for s in samples]
        score = accuracy(nothing).model_copy(update={"unit": "score"})
        (task,) = aligned(*two(tmp_path, samples, nothing, metrics={"arc_easy": [score]}))
        assert {(s.measures["acc"].kind, s.measures["acc"].unit) for s in task.sides} == {
            ("binary", "fraction")
        }


class TestRefusals:
    def test_another_document_is_shown(self, tmp_path: Path) -> None:
        scores, right = drawn(10)
        first = choice_samples(scores, right, text=["a river"] * 10)
        second = choice_samples(scores, right, text=["a river"] * 6 + ["a lake"] * 4)
        with pytest.raises(MismatchError) as refused:
            aligned(*two(tmp_path, first, second))
        text = str(refused.value)
        assert ": document 6 differs: base has" in text
        assert "a river" in text
        assert "a lake" in text
        assert refused.value.exit_code == 2

    def test_another_prompt_is_shown_from_where_it_differs(self, tmp_path: Path) -> None:
        scores, right = drawn(10)
        long = "x" * 5_000
        first = choice_samples(scores, right, prompt=long + "Question {}")
        second = choice_samples(scores, right, prompt=long + "Query {}")
        with pytest.raises(MismatchError) as refused:
            aligned(*two(tmp_path, first, second))
        assert "the prompt of document 0 differs" in str(refused.value)
        assert "Question 0" in str(refused.value)
        assert "Query 0" in str(refused.value)
        assert len(str(refused.value)) < 500

    def test_other_choices_are_another_prompt(self, tmp_path: Path) -> None:
        scores, right = drawn(10)
        second = choice_samples(scores, right)
        second[4]["arguments"] = [(c, text.upper()) for c, text in second[4]["arguments"]]
        with pytest.raises(MismatchError, match="the prompt of document 4 differs"):
            aligned(*two(tmp_path, choice_samples(scores, right), second))

    def test_another_right_answer_is_shown(self, tmp_path: Path) -> None:
        scores, right = drawn(10)
        second = choice_samples(scores, right)
        second[2] = {**second[2], "target_hash": "other", "target": (right[2] + 1) % 4}
        with pytest.raises(MismatchError, match="the right answer of document 2 differs"):
            aligned(*two(tmp_path, choice_samples(scores, right), second))

    def test_another_number_of_examples_is_named(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        five = {"arc_easy": task_record("arc_easy", 10, n_fewshot=5)}
        with pytest.raises(MismatchError, match="0 worked examples of base, with 5 of tuned"):
            aligned(*two(tmp_path, samples, samples, records=five))

    def test_whole_runs_of_other_lengths_are_other_data(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        with pytest.raises(MismatchError, match="another number of documents on each side: base 10, tuned 8"):
            aligned(*two(tmp_path, samples, samples[:8]))

    def test_no_common_document(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        with pytest.raises(MismatchError, match="no document was scored on all sides"):
            aligned(
                stored_run(
                    tmp_path / "a", "base", {"arc_easy": samples[:4]},
                    records={"arc_easy": task_record("arc_easy", 4, n_docs_total=10)},
                ),
                stored_run(
                    tmp_path / "b", "tuned", {"arc_easy": samples[4:]},
                    records={"arc_easy": task_record("arc_easy", 6, n_docs_total=10)},
                ),
            )  # fmt: skip

    def test_no_common_task(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        runs = (
            stored_run(tmp_path / "a", "base", {"piqa": samples}),
            stored_run(tmp_path / "b", "tuned", {"arc_easy": samples}),
        )
        with pytest.raises(MismatchError, match="no task in common"):
            aligned(*runs)

    def test_a_field_that_no_task_has_is_refused(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        with pytest.raises(UsageError, match="share a field 'author'"):
            aligned(*two(tmp_path, samples, samples), cluster="author")


class TestTasks:
    def test_what_only_one_side_has_is_left_out_and_said(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        first = stored_run(tmp_path / "a", "base", {"piqa": samples, "arc_easy": samples})
        second = stored_run(tmp_path / "b", "tuned", {"arc_easy": samples, "sciq": samples})
        tasks, totals, remarks = aligned_tasks(sides(first, second), CompareOptions())
        assert [t.task for t in tasks] == ["arc_easy"]
        assert totals == []
        assert remarks == [
            "left out, since tuned does not have it: piqa of base",
            "left out, since base does not have it: sciq of tuned",
        ]
        third = stored_run(tmp_path / "c", "other", {"arc_easy": samples})
        _, _, remarks = aligned_tasks(sides(first, second, third), CompareOptions())
        assert remarks[0] == "left out, since not all of tuned, other have it: piqa of base"

    def test_without_items_on_one_side_only_totals_are_there(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        first = stored_run(tmp_path / "a", "base", {"arc_easy": samples})
        second = stored_run(
            tmp_path / "b", "tuned", {"arc_easy": []},
            metrics={"arc_easy": [accuracy(samples)]}, records={"arc_easy": task_record("arc_easy", 10)},
        )  # fmt: skip
        found = sides(first, second)
        assert [s.has_samples for s in found] == [True, False]
        tasks, (total,), _ = aligned_tasks(found, CompareOptions())
        assert tasks == []
        assert [records[0].value for records in total.sides] == [accuracy(samples).value] * 2

    def test_totals_over_a_part_of_the_items_say_so(self, tmp_path: Path) -> None:
        samples = choice_samples(*drawn(10))
        first = stored_run(
            tmp_path / "a", "base", {"arc_easy": samples[:4], "piqa": samples},
            records={"arc_easy": task_record("arc_easy", 4, n_docs_total=10)},
        )  # fmt: skip
        values: dict[str, Any] = {"arc_easy": [accuracy(samples)], "piqa": [accuracy(samples)]}
        second = stored_run(
            tmp_path / "b", "tuned", {"arc_easy": [], "piqa": []}, metrics=values,
            records={name: task_record(name, 10) for name in values},
        )  # fmt: skip
        _, totals, remarks = aligned_tasks(sides(first, second), CompareOptions())
        assert [t.task for t in totals] == ["arc_easy", "piqa"]
        assert remarks == [
            "PARTIAL: values of base are over a part of the items, which can be easier or harder: "
            "arc_easy 4 of 10"
        ]

    def test_members_of_a_group_are_pooled_and_are_its_clusters(self, tmp_path: Path) -> None:
        names = [f"mmlu_{i}" for i in range(12)]
        runs = []
        for place, model in enumerate(("base", "tuned")):
            tasks = {name: choice_samples(*drawn(5 + i, seed=i)) for i, name in enumerate(names)}
            records = {name: task_record(name, len(samples), group="mmlu") for name, samples in tasks.items()}
            runs.append(stored_run(tmp_path / str(place), model, tasks, records=records, reads=()))
        (task,) = aligned(*runs)
        assert task.members == tuple(sorted(names))
        assert task.n == sum(range(5, 17))
        assert task.cluster_name == "subject"
        assert task.clusters is not None
        assert np.bincount(task.clusters).tolist() == [task.member_of.tolist().count(i) for i in range(12)]
        (plain,) = aligned(*runs, cluster="none")
        assert plain.clusters is None

    def test_passages_are_clusters_only_where_they_are_shared(self, tmp_path: Path) -> None:
        shared = choice_samples(*drawn(9), passage=[f"p{i // 3}" for i in range(9)])
        single = choice_samples(*drawn(9), passage=[f"p{i}" for i in range(9)])
        (task,) = aligned(*two(tmp_path / "x", shared, shared))
        assert task.clusters is not None
        assert task.clusters.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert task.cluster_name == "passage"
        (other,) = aligned(*two(tmp_path / "y", single, single))
        assert other.clusters is None
