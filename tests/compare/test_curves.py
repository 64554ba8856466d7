"""Curves over steps: every value, band, test and bit of luck against its own computation."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import realdata
from scored_runs import Samples, choice_samples, drawn, stored_run

from mambabench.compare.curves import MOST_TASKS, curves
from mambabench.compare.curves_result import OVERALL, Curve, Curves
from mambabench.compare.result import CompareOptions, Side
from mambabench.compare.sources import parse_given, sides_of
from mambabench.compare.steps import Stepped
from mambabench.errors import MismatchError, UnknownNameError, UsageError
from mambabench.schema import MetricRecord
from mambabench.stats.intervals import wilson
from mambabench.stats.paired_binary import binary_effect, mcnemar_exact
from mambabench.stats.selection import expected_maximum, lucky_pick, resample

STEPS = (0, 100, 200, 400)
SKILLS = (0.0, 1.0, 6.0, 5.0)
"""Of the checkpoints at `STEPS`."""
TASKS = ("arc_easy", "piqa")
OPTIONS = CompareOptions(replicates=1000)


def samples(task: str, step: int, n: int = 60) -> Samples:
    """Answers that share the items' difficulty over the steps."""
    scores, right = drawn(n, seed=TASKS.index(task), skill=0.0)
    scores[np.arange(n), right] += SKILLS[STEPS.index(step)]
    return choice_samples(scores, right)


def sides(*runs: Path) -> list[Side]:
    return sides_of([parse_given(str(run)) for run in runs])


def totals_run(root: Path, model: str, metrics: dict[str, list[MetricRecord]]) -> Path:
    return stored_run(root, model, {task: [] for task in metrics}, metrics=metrics, reads=())


def counted(right: int, n: int, metric: str = "acc") -> MetricRecord:
    ends = wilson(right, n)
    return MetricRecord(
        metric=metric, value=right / n, unit="fraction", interval_low=ends.low, interval_high=ends.high,
        interval_method="wilson", n=n,
    )  # fmt: skip


def perplexity(value: float, error: float) -> MetricRecord:
    return MetricRecord(
        metric="perplexity", value=value, unit="perplexity", interval_low=value - 1.96 * error,
        interval_high=value + 1.96 * error, interval_method="from standard error", n=500,
        higher_is_better=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def with_items(tmp_path_factory: pytest.TempPathFactory) -> Curves:
    root = tmp_path_factory.mktemp("runs")
    runs = [
        stored_run(root, f"checkpoint-{step}", {task: samples(task, step) for task in TASKS})
        # In no order.
        for step in (200, 0, 400, 100)
    ]
    return curves(sides(*runs), OPTIONS)


def only(found: Curves, task: str, metric: str = "acc") -> Curve:
    (curve,) = found.of(task, metric)
    return curve


def answers(task: str) -> Any:
    return np.array([[s["acc"] for s in samples(task, step)] for step in STEPS])


class TestWithItems:
    def test_points_are_each_step_s_own_value_and_interval(self, with_items: Curves) -> None:
        assert with_items.panels == ((OVERALL, "accuracy"), ("arc_easy", "acc"), ("piqa", "acc"))
        for task in TASKS:
            curve = only(with_items, task)
            assert (curve.unit, curve.n, curve.paired, curve.series) == ("%", 60, True, "")
            for point, column, step in zip(curve.points, answers(task), STEPS, strict=True):
                ends = wilson(int(column.sum()), 60)
                assert (point.step, point.side, point.n) == (step, f"checkpoint-{step}", 60)
                assert (point.value, point.low, point.high) == pytest.approx(
                    (100 * column.mean(), 100 * ends.low, 100 * ends.high)
                )

    def test_each_step_is_held_against_the_best_by_mcnemar(self, with_items: Curves) -> None:
        for task in TASKS:
            curve, table = only(with_items, task), answers(task)
            best = int(table.mean(axis=1).argmax())
            assert curve.best.step == STEPS[best]
            for place, point in enumerate(curve.points):
                if place == best:
                    assert (point.p_value, point.contender) == (None, True)
                    continue
                won = int((table[place] > table[best]).sum())
                lost = int((table[place] < table[best]).sum())
                assert point.p_value == pytest.approx(mcnemar_exact(won, lost))
                assert point.contender == (mcnemar_exact(won, lost) / 2 > 0.05 / 3)
            assert curve.best.contenders == tuple(p.step for p in curve.points if p.contender)
            assert 0 not in curve.best.contenders

    def test_luck_is_that_of_picking_from_resampled_items(self, with_items: Curves) -> None:
        for place, task in enumerate(("", *TASKS)):
            if not task:
                continue
            curve, table = only(with_items, task), answers(task)
            pick = lucky_pick(table.mean(axis=1), [resample(table, replicates=1000, seed=place)])
            assert curve.best.expected == pytest.approx(100 * pick.expected)
            assert curve.best.luck == pytest.approx(100 * pick.luck)
            assert [p.share_best for p in curve.points] == pytest.approx(pick.shares)

    def test_first_to_last_is_one_paired_comparison(self, with_items: Curves) -> None:
        curve, table = only(with_items, "piqa"), answers("piqa")
        effect = binary_effect(table[-1], table[0])
        assert curve.change is not None
        assert (curve.change.first_step, curve.change.last_step) == (0, 400)
        found = curve.change.difference, curve.change.low, curve.change.high, curve.change.p_value
        assert found == pytest.approx(
            (100 * effect.difference, 100 * effect.low, 100 * effect.high, effect.p_value)
        )

    def test_the_mean_counts_tasks_alike(self, with_items: Curves) -> None:
        mean, parts = with_items.curves[0], [only(with_items, task) for task in TASKS]
        assert (mean.task, mean.label, mean.n, mean.n_tasks) == (OVERALL, "mean of 2 tasks", 120, 2)
        for place, point in enumerate(mean.points):
            ones = [part.points[place] for part in parts]
            assert point.value == pytest.approx(np.mean([p.value for p in ones]))
            below = math.hypot(*(p.value - (p.low or 0.0) for p in ones)) / 2
            assert point.low == pytest.approx(point.value - below)
        together = np.mean([answers(task).mean(axis=1) for task in TASKS], axis=0)
        assert mean.best.step == STEPS[int(together.argmax())]
        assert mean.best.luck is not None
        # Of more items less is luck.
        assert mean.best.luck < max(part.best.luck or 0.0 for part in parts) + 0.5
        assert 0 not in mean.best.contenders

    def test_equal_steps_are_ties_of_the_earliest(self, tmp_path: Path) -> None:
        same = samples("piqa", 200)
        runs = [stored_run(tmp_path, f"step{step}", {"piqa": same}) for step in (1, 2, 3)]
        (curve,) = curves(sides(*runs), OPTIONS).curves
        assert (curve.best.step, curve.best.ties) == (1, (1, 2, 3))
        assert curve.best.contenders == (1, 2, 3)
        assert [p.share_best for p in curve.points] == [1.0, 0.0, 0.0]


class TestWithoutItems:
    def test_luck_is_at_most_that_of_independent_equals(self, tmp_path: Path) -> None:
        right = {0: 500, 10: 605, 20: 610, 40: 600}
        runs = [totals_run(tmp_path, f"m@step{s}", {"piqa": [counted(r, 1000)]}) for s, r in right.items()]
        (curve,) = curves(sides(*runs), OPTIONS).curves
        assert (curve.series, curve.paired, curve.best.step) == ("m", False, 20)
        assert curve.best.contenders == (10, 20, 40)
        assert [p.share_best for p in curve.points] == [None] * 4
        shares = [right[step] / 1000 for step in curve.best.contenders]
        luck = 100 * expected_maximum([math.sqrt(p * (1 - p) / 1000) for p in shares])
        assert curve.best.luck == pytest.approx(luck)
        assert curve.best.expected == pytest.approx(61.0 - luck)
        assert curve.chance == 50.0

    def test_of_perplexities_the_lowest_is_best(self, tmp_path: Path) -> None:
        values = {1: 3e6, 2: 20.0, 4: 10.0, 8: 10.4}
        runs = [
            totals_run(tmp_path, f"step{s}", {"lambada_openai": [perplexity(v, v / 50)]})
            for s, v in values.items()
        ]
        (curve,) = curves(sides(*runs), OPTIONS).curves
        assert (curve.unit, curve.best.step, curve.best.contenders) == ("ppl", 4, (4, 8))
        # Errors of the logarithms: 1/50 each.
        expected = math.exp(math.log(10) + expected_maximum([0.02, 0.02]))
        assert curve.best.expected == pytest.approx(expected, rel=1e-6)
        assert curve.best.luck == pytest.approx(100 * (expected / 10 - 1), rel=1e-6)
        assert curve.change is not None
        assert curve.change.difference == pytest.approx(100 * (10.4 / 3e6 - 1))

    def test_what_has_no_error_is_drawn_and_not_judged(self, tmp_path: Path) -> None:
        bare = MetricRecord(metric="score", value=1.0, unit="score", n=10)
        runs = [
            totals_run(tmp_path, f"step{s}", {"piqa": [bare.model_copy(update={"value": float(s)})]})
            for s in (1, 2)
        ]
        (curve,) = curves(sides(*runs), OPTIONS).curves
        assert [(p.value, p.low, p.contender) for p in curve.points] == [(1.0, None, None), (2.0, None, None)]
        assert (curve.best.step, curve.best.contenders, curve.best.luck, curve.change) == (2, (), None, None)

    def test_of_very_many_tasks_those_with_names_are_drawn(self, tmp_path: Path) -> None:
        names = ["piqa", *(f"subject_{i}" for i in range(MOST_TASKS))]
        runs = [
            stored_run(
                tmp_path, f"step{s}", {t: [] for t in names}, metrics={t: [counted(s, 9)] for t in names},
                reads=({"task": "piqa", "metrics": ("acc",), "label": "PIQA"},),
            )
            for s in (1, 2)
        ]  # fmt: skip
        found = curves(sides(*runs), OPTIONS)
        assert found.panels == (("piqa", "acc"),)
        assert any(f"{MOST_TASKS} tasks" in remark for remark in found.remarks)
        asked = curves(sides(*runs), OPTIONS, tasks=["subject_3"])
        assert (asked.panels, asked.remarks) == ((("subject_3", "acc"),), ())
        with pytest.raises(UnknownNameError, match="unknown task 'piqaa'"):
            curves(sides(*runs), OPTIONS, tasks=["piqaa"])


class TestSeries:
    def runs(self, root: Path, *names: str) -> list[Side]:
        return sides(*(totals_run(root, name, {"piqa": [counted(5, 9)]}) for name in names))

    def test_runs_of_training_are_told_apart(self, tmp_path: Path) -> None:
        found = curves(self.runs(tmp_path, "a@step1", "b@step1", "a@step5", "b@step2", "c@step9"), OPTIONS)
        assert found.series == ("a", "b")
        assert (found.steps_of("a"), found.steps_of("b")) == ((1, 5), (1, 2))
        assert found.remarks == ("c has one step only and is not drawn",)

    def test_a_bare_step_belongs_to_the_only_run(self, tmp_path: Path) -> None:
        found = self.runs(tmp_path, "tuned@step5", "tuned@step9", "mamba-130m")
        found[2] = replace(found[2], label="step0")
        assert curves(found, OPTIONS).steps_of("tuned") == (0, 5, 9)

    def test_places_that_are_known_are_believed(self, tmp_path: Path) -> None:
        found = self.runs(tmp_path, "base", "tuned")
        known = {"base": Stepped("x", 0), "tuned": Stepped("x", 7)}
        assert curves(found, OPTIONS, known=known).steps_of("x") == (0, 7)

    def test_what_is_no_curve_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no training step is known of base"):
            curves(self.runs(tmp_path / "1", "base", "step3"), OPTIONS)
        with pytest.raises(UsageError, match="two steps"):
            curves(self.runs(tmp_path / "2", "a-step3", "b-step3"), OPTIONS)
        twice = self.runs(tmp_path / "3", "a-step3", "a_step3")
        with pytest.raises(UsageError, match="both step 3 of a"):
            curves(twice, OPTIONS)

    def test_other_items_are_refused(self, tmp_path: Path) -> None:
        scores, right = drawn(9)
        runs = [
            stored_run(tmp_path, f"step{s}", {"piqa": choice_samples(scores, right, prompt=p)})
            for s, p in ((1, "Question {}?"), (2, "Query {}?"))
        ]
        with pytest.raises(MismatchError, match="prompt of document 0 differs"):
            curves(sides(*runs), OPTIONS)


@pytest.mark.realdata
def test_published_pythia_curves_are_those_of_their_files(tmp_path: Path) -> None:
    from mambabench.importers.write import ImportOptions, import_results

    folder = realdata.data_dir().parent / "results" / "pythia-160m" / "zero-shot"
    outcome = import_results([folder], ImportOptions(out=tmp_path, tasks=("lambada_openai", "piqa")))
    run = next(path.parent for path in tmp_path.glob("*/manifest.json"))
    found = curves(sides(run), OPTIONS)
    assert len(outcome.manifest.models) == 27
    assert found.series == ("pythia-160m",)
    files = {p.name: json.loads(p.read_text())["results"] for p in folder.glob("*.json")}
    for task, metric, key, factor in (
        ("lambada_openai", "perplexity", "ppl", 1),
        ("lambada_openai", "acc", "acc", 100),
        ("piqa", "acc_norm", "acc_norm", 100),
    ):
        curve = only(found, task, metric)
        assert len(curve.points) == 27
        for point in curve.points:
            published = files[f"160m_step{point.step}.json"][task]
            assert point.value == pytest.approx(factor * published[key], rel=1e-12)
        values = [factor * one[task][key] for one in files.values()]
        assert curve.best.value == pytest.approx(min(values) if key == "ppl" else max(values))
    # Its published loss of accuracy late in training is no noise.
    late = only(found, "lambada_openai", "acc")
    assert (late.best.step, late.points[-1].contender) == (63_000, False)
