"""Arguments of a comparison: runs, models of runs, models to evaluate, labels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scored_runs import choice_samples, drawn, stored_run

from mambabench.compare.result import Side
from mambabench.compare.sources import parse_given, require_baseline, sides_of
from mambabench.errors import StoreError, UnknownNameError, UsageError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return stored_run(tmp_path / "results", "base", {"arc_easy": choice_samples(*drawn(6))})


def side(label: str, origin: str = "") -> Side:
    return Side(label, label, Path(label), "zeroshot", True, False, origin)


class TestArguments:
    def test_a_directory_with_a_manifest_is_a_run(self, run: Path) -> None:
        given = parse_given(str(run))
        assert (given.path, given.model, given.label) == (run, None, None)
        assert parse_given(str(run / "manifest.json")).path == run

    def test_a_run_is_found_by_its_name_under_the_directory_of_runs(self, run: Path) -> None:
        assert parse_given(run.name, run.parent).path == run
        assert parse_given(run.name, run.parent / "elsewhere").path is None

    def test_a_label_stands_before_it_and_a_model_behind(self, run: Path) -> None:
        given = parse_given(f"tuned={run}#base")
        assert (given.label, given.path, given.model) == ("tuned", run, "base")

    @pytest.mark.parametrize("text", ["mamba-130m", "hf:org/name@main", "./out/checkpoint-500", "a#b"])
    def test_anything_else_is_a_model(self, text: str) -> None:
        given = parse_given(text)
        assert (given.path, given.model, given.label) == (None, text, None)

    def test_a_path_with_an_equals_sign_is_no_label(self, tmp_path: Path) -> None:
        folder = tmp_path / "lr=5e-5"
        folder.mkdir()
        assert parse_given(str(folder)).model == str(folder)
        assert parse_given(f"good={folder}").label == "good"

    @pytest.mark.parametrize("label", ["two words", "[red]x[/red]", "\x1b[1m", "a/b"])
    def test_a_label_of_other_letters_is_refused(self, run: Path, label: str) -> None:
        with pytest.raises(UsageError, match="is no label") as refused:
            parse_given(f"{label}={run}")
        assert "\x1b" not in str(refused.value)
        assert parse_given("./gone/lr=0.1/checkpoint-5").label is None

    @pytest.mark.parametrize("text", ["", " ", "label=", "label= "])
    def test_nothing_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="names nothing"):
            parse_given(text)

    def test_a_folder_of_runs_is_refused(self, run: Path) -> None:
        with pytest.raises(UsageError, match="holds runs and is none itself"):
            parse_given(str(run.parent))

    def test_a_run_without_its_manifest_is_refused(self, run: Path) -> None:
        (run / "manifest.json").unlink()
        with pytest.raises(StoreError, match=r"without its manifest\.json"):
            parse_given(str(run))

    def test_a_file_of_samples_that_is_not_there_is_named_once(self, run: Path) -> None:
        for path in (run / "samples").iterdir():
            path.unlink()
        with pytest.raises(StoreError, match=r"parquet: it is not there\. Delete") as refused:
            sides_of([parse_given(str(run))])
        assert str(refused.value).count(".parquet") == 1

    def test_foreign_results_are_sent_to_the_import(self, tmp_path: Path) -> None:
        (tmp_path / "results_2024.json").write_text("{}")
        for path in (tmp_path, tmp_path / "results_2024.json"):
            with pytest.raises(UsageError) as refused:
                parse_given(str(path))
            assert f"mambabench import {path}" in str(refused.value)


class TestSides:
    def test_a_run_of_several_models_stands_for_all(self, run: Path, tmp_path: Path) -> None:
        other = stored_run(tmp_path / "results", "tuned", {"arc_easy": choice_samples(*drawn(6))})
        for name in ("cells", "samples"):
            for file in (other / name).iterdir():
                file.rename(run / name / file.name)
        assert [s.model for s in sides_of([parse_given(str(run))])] == ["base", "tuned"]
        labels = [s.label for s in sides_of([parse_given(f"x={run}")])]
        assert labels == ["x:base", "x:tuned"]
        assert [s.label for s in sides_of([parse_given(f"{run}#tuned")])] == ["tuned"]
        with pytest.raises(UnknownNameError, match="unknown model 'tunde'") as refused:
            sides_of([parse_given(f"{run}#tunde")])
        assert "Closest: tuned" in str(refused.value)

    def test_equal_names_are_told_apart(self, tmp_path: Path) -> None:
        runs = [
            stored_run(tmp_path / name, "base", {"arc_easy": choice_samples(*drawn(6))}) for name in "abc"
        ]
        given = [parse_given(str(runs[0])), parse_given(f"base~2={runs[1]}"), parse_given(str(runs[2]))]
        assert [s.label for s in sides_of(given)] == ["base", "base~2", "base~3"]

    def test_the_same_model_of_the_same_run_twice_is_refused(self, run: Path) -> None:
        with pytest.raises(UsageError, match="the same model of the same run"):
            sides_of([parse_given(str(run)), parse_given(f"again={run}")])

    def test_a_run_of_which_all_failed_says_why(self, run: Path) -> None:
        for file in (run / "cells").iterdir():
            record = json.loads(file.read_text())
            failed = {"status": "failed", "metrics": [], "error": "no luck\nat all"}
            file.write_text(json.dumps({**record, **failed}))
        with pytest.raises(UsageError, match=r"no results\. All of it failed, first .* \(no luck\): run its"):
            sides_of([parse_given(str(run))])

    def test_an_empty_run_is_refused_with_its_command(self, run: Path) -> None:
        for file in (run / "cells").iterdir():
            file.unlink()
        with pytest.raises(UsageError, match=r"holds no results.*mambabench zeroshot"):
            sides_of([parse_given(str(run))])

    def test_a_damaged_record_is_named(self, run: Path) -> None:
        cell = next((run / "cells").iterdir())
        cell.write_text(cell.read_text()[:40])
        with pytest.raises(StoreError, match=cell.name):
            sides_of([parse_given(str(run))])

    def test_a_run_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        run = stored_run(tmp_path, "base", {"arc_easy": choice_samples(*drawn(6))})
        fields = json.loads((run / "manifest.json").read_text())
        (run / "manifest.json").write_text(json.dumps({**fields, "kind": "perplexity"}))
        with pytest.raises(UsageError, match="is a perplexity run, which cannot be compared"):
            sides_of([parse_given(str(run))])


class TestBaseline:
    def test_it_is_the_first_unless_named(self) -> None:
        sides = [side("a"), side("b"), side("c")]
        assert require_baseline(sides, None) == (sides[0], sides[1:])
        assert require_baseline(sides, "b") == (sides[1], [sides[0], sides[2]])

    def test_it_may_be_named_as_it_was_typed(self) -> None:
        sides = [side("a", "results/x"), side("b", "results/y")]
        assert require_baseline(sides, "results/y")[0] is sides[1]

    def test_one_that_is_not_there_is_refused_with_the_labels(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown baseline 'bsae'.*Closest: base.*base, tuned"):
            require_baseline([side("base"), side("tuned")], "bsae")

    def test_a_run_of_several_models_is_not_one_baseline(self) -> None:
        with pytest.raises(UsageError, match="stands for 2 models"):
            require_baseline([side("a", "run"), side("b", "run")], "run")

    @pytest.mark.parametrize("sides", [[], [side("a")]])
    def test_fewer_than_two_sides_are_refused(self, sides: list[Side]) -> None:
        with pytest.raises(UsageError, match="at least two"):
            require_baseline(sides, None)
