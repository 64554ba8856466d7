"""A comparison as Parquet: what pandas reads is what was compared, whole files or none."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from aligned_items import aligned_task, measure
from changed_items import aligned_runs, chosen, sampled
from scored_runs import Samples

from mambabench.compare import export
from mambabench.compare.calibration import calibrations, confidence_of
from mambabench.compare.changes import task_changes
from mambabench.compare.export import export_items
from mambabench.compare.items import AlignedTask
from mambabench.compare.result import CompareOptions, Comparison, Contrast, Side

LABELS = ["base", "tuned", "broken"]
N_QUIZ = 60


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[AlignedTask]:
    rng = np.random.default_rng(0)

    def quiz() -> Samples:
        return [
            chosen(
                i, f"Question {i}{' again' * (i % 40)}?", ["yes", "perhaps", "no"], i % 3, -9 * rng.random(3)
            )
            for i in range(N_QUIZ)
        ]

    def sums() -> Samples:
        right = rng.integers(0, 2, 4)
        return [
            sampled(
                i, [(f"{i} + 1 =", {"until": ["\n"]})], str(i + 1), [f"{i + 2 - at}"], exact_match=float(at)
            )
            for i, at in enumerate(right)
        ]

    root = tmp_path_factory.mktemp("runs")
    quizzes = aligned_runs(root / "quiz", [{"quiz": quiz()} for _ in LABELS], metrics=("acc", "acc_norm"))
    other = aligned_runs(
        root / "sums",
        [{"sums": sums()} for _ in LABELS],
        metrics=("exact_match",),
        output_type="generate_until",
    )
    return [*quizzes, *other]


@pytest.fixture(scope="module")
def comparison(tasks: list[AlignedTask]) -> Comparison:
    sides = [Side(label, label, Path("runs") / label, "zeroshot", True, False) for label in LABELS]
    options = CompareOptions(n_examples=0)
    return Comparison(
        baseline=sides[0],
        candidates=tuple(sides[1:]),
        title="",
        contrasts=(
            contrast("tuned"),
            contrast("broken", difference=None, n_clusters=7, remarks=("few", "odd")),
        ),
        overall=(),
        families=(),
        changes=tuple(one for task in tasks for one in task_changes(task, LABELS[0], LABELS[1:], options)),
        calibrations=tuple(one for task in tasks for one in calibrations(task, LABELS)),
    )


def contrast(candidate: str, **changes: Any) -> Contrast:
    fields: dict[str, Any] = {
        "candidate": candidate, "task": "quiz", "label": "Quiz", "measure": "acc", "headline": True,
        "family": "tasks", "unit": "%", "effect_unit": "pt", "higher_is_better": True, "paired": True,
        "n": 60, "n_candidate": 60, "n_total": 60, "baseline_value": 40.0, "candidate_value": 50.0,
        "difference": 10.0,
        "low": -1.0, "high": 21.0, "interval_method": "score", "test": "exact McNemar", "p_value": 0.1,
        "p_adjusted": 0.2, "n_won": 10, "n_lost": 4, "n_clusters": None, "cluster_name": "", "margin": 1.0,
        "p_equivalence": None, "p_equivalence_adjusted": None, "detectable": None, "n_needed": None,
        "verdict": "not distinguishable",
    }  # fmt: skip
    return Contrast(**{**fields, **changes})


@pytest.fixture(scope="module")
def folder(
    tasks: list[AlignedTask], comparison: Comparison, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    found = tmp_path_factory.mktemp("export") / "new" / "folder"
    written = export_items(found, comparison, tasks)
    names = ["items", "contrasts", "categories", "calibration"]
    assert written == [found / f"{name}.parquet" for name in names]
    assert sorted(found.iterdir()) == sorted(written)
    return found


class TestItems:
    def test_there_is_one_row_for_each_item_and_candidate(
        self, folder: Path, tasks: list[AlignedTask]
    ) -> None:
        table = pd.read_parquet(folder / "items.parquet")
        counts = table.groupby(["task", "candidate"], sort=False).size().to_dict()
        assert counts == {
            (task, side): n for task, n in (("quiz", N_QUIZ), ("sums", 4)) for side in LABELS[1:]
        }
        assert set(table["baseline"]) == {"base"}
        assert pq.ParquetFile(folder / "items.parquet").num_row_groups == 4

    @pytest.mark.parametrize("number", [1, 2])
    def test_columns_are_what_was_compared(self, folder: Path, tasks: list[AlignedTask], number: int) -> None:
        quiz = tasks[0]
        table = pd.read_parquet(folder / "items.parquet")
        mine = table[(table["task"] == "quiz") & (table["candidate"] == LABELS[number])]
        before, after = quiz.sides[0], quiz.sides[number]
        assert mine["doc_id"].tolist() == quiz.doc_ids.tolist()
        assert tuple(mine["doc_hash"]) == quiz.doc_hashes
        assert mine["context_length_bytes"].tolist() == quiz.context_lengths_bytes.tolist()
        for column, side in (("baseline", before), ("candidate", after)):
            assert side.choices is not None
            for name in ("acc", "acc_norm"):
                assert mine[f"{column}.{name}"].tolist() == side.measures[name].values.tolist()
            likelihoods = side.measures["log-likelihood"].values
            assert mine[f"{column}.log_likelihood_nats"].tolist() == likelihoods.tolist()
            assert mine[f"{column}_choice"].tolist() == side.choices.log_likelihoods.argmax(axis=1).tolist()
            assert mine[f"{column}_confidence"].tolist() == confidence_of(side.choices)[0].tolist()
            words = [["yes", "perhaps", "no"][at] for at in mine[f"{column}_choice"].astype(int)]
            assert mine[f"{column}_answer"].tolist() == words
        assert mine["right_choice"].tolist() == [i % 3 for i in range(N_QUIZ)]
        assert mine["answer_length_bytes"].tolist() == [(3, 7, 2)[i % 3] for i in range(N_QUIZ)]
        named = {(1, 0): "lost", (0, 1): "won", (1, 1): "both right", (0, 0): "both wrong"}
        pairs = zip(before.measures["acc"].values, after.measures["acc"].values, strict=True)
        assert mine["change"].tolist() == [named[int(a), int(b)] for a, b in pairs]
        assert mine["question"].iloc[1] == "Question 1 again?"
        assert mine["cluster"].isna().all()

    def test_what_a_task_has_not_is_empty(self, folder: Path) -> None:
        table = pd.read_parquet(folder / "items.parquet")
        mine = table[table["task"] == "sums"]
        assert mine[["right_choice", "baseline_confidence", "baseline.acc"]].isna().all(axis=None)
        assert not mine["baseline.exact_match"].isna().any()
        assert mine["answer_length_bytes"].tolist() == [1] * 8
        right = mine["baseline.exact_match"] == 1
        assert (mine["baseline_answer"] == mine["right_answer"]).tolist() == right.tolist()

    def test_perplexities_say_what_they_are_made_of(self, tmp_path: Path, comparison: Comparison) -> None:
        sides = [
            [measure("ratio", [-30.0, -4.0], [10, 2]), measure("log mean", [-1.0, -2.0])] for _ in LABELS
        ]
        export_items(tmp_path, comparison, [aligned_task(*sides)])
        table = pd.read_parquet(tmp_path / "items.parquet")
        assert table["baseline.word_perplexity.log_likelihood_nats"].tolist() == [-30.0, -4.0] * 2
        assert table["word_perplexity.weight"].tolist() == [10.0, 2.0] * 2
        assert table["candidate.perplexity.log_likelihood_nats"].tolist() == [-1.0, -2.0] * 2
        assert table["change"].isna().all()


class TestTables:
    def test_contrasts_keep_all_fields(self, folder: Path, comparison: Comparison) -> None:
        rows = pq.read_table(folder / "contrasts.parquet").to_pylist()
        expected = [{"baseline": "base", **asdict(one)} for one in comparison.contrasts]
        assert [{**row, "remarks": tuple(row["remarks"])} for row in rows] == expected

    def test_empty_tables_have_their_columns(self, tmp_path: Path, comparison: Comparison) -> None:
        export_items(tmp_path, replace(comparison, contrasts=(), changes=(), calibrations=()), [])
        for name in ("items", "contrasts", "categories", "calibration"):
            table = pd.read_parquet(tmp_path / f"{name}.parquet")
            assert len(table) == 0
            assert "task" in table.columns

    def test_categories_are_in_percent_and_points(self, folder: Path, comparison: Comparison) -> None:
        table = pd.read_parquet(folder / "categories.parquet")
        expected = [one for changes in comparison.changes for one in changes.categories]
        assert len(table) == len(expected) > 0
        for column, field in (("baseline_percent", "baseline_value"), ("difference_points", "difference"),
                              ("low_points", "low"), ("high_points", "high"), ("category", "category"),
                              ("candidate_percent", "candidate_value"), ("n_lost", "n_lost")):  # fmt: skip
            assert table[column].tolist() == [getattr(one, field) for one in expected]

    def test_calibration_has_a_row_for_each_bin(self, folder: Path, comparison: Comparison) -> None:
        table = pd.read_parquet(folder / "calibration.parquet")
        assert [(r.side, r.task, r.error, r.error_low, r.bin, r.bin_n, r.bin_accuracy) for r in
                table.itertuples()] == [
            (one.side, one.task, one.error, one.low, number, part.n, part.accuracy)
            for one in comparison.calibrations
            for number, part in enumerate(one.bins)
        ]  # fmt: skip
        assert set(table["side"]) == set(LABELS)


def test_what_was_there_stays_until_the_new_file_is_whole(
    tasks: list[AlignedTask],
    comparison: Comparison,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = tmp_path / "items.parquet"
    old.write_bytes(b"old")
    tables = export._item_tables

    def interrupted(task: AlignedTask, *given: Any) -> Any:
        yield from tables(task, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_item_tables", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_items(tmp_path, comparison, tasks)
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]


def test_sides_without_items_need_not_be_named(
    tasks: list[AlignedTask], comparison: Comparison, tmp_path: Path
) -> None:
    published = replace(comparison.candidates[0], label="published", has_samples=False)
    wider = replace(comparison, candidates=(published, *comparison.candidates))
    export_items(tmp_path, wider, tasks[1:])
    assert set(pd.read_parquet(tmp_path / "items.parquet")["candidate"]) == {"tuned", "broken"}
    with pytest.raises(ValueError, match="4 sides"):
        export_items(tmp_path, wider, tasks, ["base", "published", "tuned", "broken"])
