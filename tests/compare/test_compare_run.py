"""Stored runs compared as a whole: values as tables print them, order, families, sides without items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored_runs import Samples, accuracy, choice_samples, drawn, stored_run, task_record

from mambabench.compare import align
from mambabench.compare.items import TaskItems
from mambabench.compare.result import CompareOptions, Contrast, Side
from mambabench.compare.run import Compared, compare_sides
from mambabench.compare.sources import parse_given, sides_of
from mambabench.errors import MismatchError, UsageError
from mambabench.schema import MetricRecord, ReadRecord
from mambabench.stats.intervals import perplexity_interval
from mambabench.store import StoredRun
from mambabench.suite import Suite, SuiteTask
from mambabench.tables.compare.words import words
from mambabench.tables.zeroshot import build_table

OPTIONS = CompareOptions(replicates=1000)
BLIMP = ("blimp_adjunct_island", "blimp_causative", "blimp_drop_argument")
MMLU = ("mmlu_anatomy", "mmlu_astronomy")


def choices(n: int, seed: int, harm: float = 0.0) -> Samples:
    """The same questions for every `harm`, which lowers what the right choice is worth."""
    scores, right = drawn(n, seed=seed, skill=2.0)
    scores[np.arange(n), right] -= np.random.default_rng(seed).exponential(harm, n) if harm else 0.0
    return choice_samples(scores, right, prompt=f"Question {{}} of {seed}?")


def last_words(n: int, seed: int, harm: float = 0.0) -> Samples:
    """Samples with acc and perplexity."""
    rng = np.random.default_rng(seed)
    likelihoods = -rng.exponential(1.5, n) - harm * rng.exponential(1.0, n)
    return [
        {
            **sample,
            "arguments": [sample["arguments"][0]],
            "resps": [[(float(x), bool(x > -1))]],
            "filtered_resps": [(float(x), bool(x > -1))],
            "target": " word",
            "metrics": ["acc", "perplexity"],
            "acc": float(x > -1),
            "perplexity": float(x),
        }
        for sample, x in zip(choices(n, seed), likelihoods, strict=True)
    ]


def perplexity(samples: Samples) -> MetricRecord:
    values = [s["perplexity"] for s in samples]
    interval = perplexity_interval(values)
    return MetricRecord(
        metric="perplexity", value=float(np.exp(-np.mean(values))), unit="perplexity", n=len(values),
        interval_low=interval.low, interval_high=interval.high, interval_method=interval.method,
        higher_is_better=False,
    )  # fmt: skip


READS = (
    ReadRecord(task="lambada_openai", metrics=("perplexity", "acc"), label="LAMBADA"),
    ReadRecord(task="blimp", metrics=("acc",), label="BLiMP"),
    ReadRecord(task="mmlu", metrics=("acc",), label="MMLU"),
    ReadRecord(task="arc_easy", metrics=("acc",), label="ARC-E"),
)


def suite_run(root: Path, model: str, harm: float = 0.0, **changes: Any) -> Path:
    """A run with a perplexity, a group of equal members, a pooled group and a plain task."""
    words = last_words(60, 90, harm)
    tasks: dict[str, Samples] = {"lambada_openai": words}
    records = {"lambada_openai": task_record("lambada_openai", 60, output_type="loglikelihood")}
    for place, (member, n) in enumerate(zip((*BLIMP, *MMLU), (10, 40, 25, 30, 60), strict=True)):
        tasks[member] = choices(n, place, harm)
        records[member] = task_record(member, n, group="blimp" if member in BLIMP else "mmlu")
    tasks["arc_easy"] = choices(80, 50, harm)
    metrics = {"lambada_openai": [accuracy(words), perplexity(words)]}
    return stored_run(root, model, tasks, records=records, metrics=metrics, reads=READS, **changes)


def sides(*runs: Path) -> list[Side]:
    return sides_of([parse_given(str(run)) for run in runs])


def compared(*runs: Path, **options: Any) -> Compared:
    found = sides(*runs)
    return compare_sides(found, found[0], CompareOptions(**{"replicates": 1000, **options}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    return suite_run(root, "base"), suite_run(root, "same"), suite_run(root, "harmed", harm=2.0)


@pytest.fixture(scope="module")
def whole(runs: tuple[Path, Path, Path]) -> Compared:
    return compared(*runs)


def of(found: Compared, candidate: str) -> dict[tuple[str, str], Contrast]:
    return {(c.task, c.measure): c for c in found.comparison.contrasts if c.candidate == candidate}


class TestWhole:
    def test_values_are_those_of_the_table_of_scores(
        self, runs: tuple[Path, Path, Path], whole: Compared
    ) -> None:
        tasks = tuple(SuiteTask(task=r.task, metrics=r.metrics, label=r.label) for r in READS)
        suite = Suite(name="made-up", title="Made up", tasks=tasks, sha256="0")
        tables = [build_table(suite, [(m, None)], list(StoredRun(r).cells())) for r, m in named(runs)]
        for table, (_, name) in zip(tables[1:], named(runs)[1:], strict=True):
            contrasts = of(whole, name)
            for before, after in zip(tables[0].rows, table.rows, strict=True):
                found = contrasts[after.task, after.metric]
                assert found.baseline_value == pytest.approx(before.value, rel=1e-12)
                assert found.candidate_value == pytest.approx(after.value, rel=1e-12)
                assert (found.unit, found.n, found.n_total) == (after.unit, after.n, after.n_total)
                assert (found.label, found.headline) == (after.label, after.headline)
                assert found.higher_is_better == after.higher_is_better
            (figure,) = [o for o in whole.comparison.overall if o.candidate == name]
            assert figure.baseline_value == pytest.approx(tables[0].averages[0].value, rel=1e-12)
            assert figure.candidate_value == pytest.approx(table.averages[0].value, rel=1e-12)
            assert figure.n_tasks == table.averages[0].n_tasks == 4

    def test_damage_is_seen_and_sameness_is_not_called_anything(self, whole: Compared) -> None:
        harmed, same = of(whole, "harmed"), of(whole, "same")
        assert {c.verdict for c in same.values()} <= {"equivalent", "not distinguishable"}
        assert {c.difference for c in same.values()} == {0}
        for key in [("lambada_openai", "perplexity"), ("mmlu", "acc"), ("arc_easy", "log-likelihood")]:
            assert harmed[key].verdict == "worse"
        assert harmed["lambada_openai", "perplexity"].difference > 0  # type: ignore[operator]
        verdicts = {o.candidate: o.verdict for o in whole.comparison.overall}
        assert verdicts["harmed"] == "worse"
        assert verdicts["same"] in ("equivalent", "not distinguishable")

    def test_contrasts_come_by_task_measure_and_candidate(self, whole: Compared) -> None:
        found = [(c.task, c.measure, c.candidate) for c in whole.comparison.contrasts]
        measures = [
            ("lambada_openai", "perplexity"),
            ("lambada_openai", "acc"),
            ("blimp", "acc"),
            ("blimp", "log-likelihood"),
            ("mmlu", "acc"),
            ("mmlu", "log-likelihood"),
            ("arc_easy", "acc"),
            ("arc_easy", "log-likelihood"),
        ]
        assert found == [(*m, candidate) for m in measures for candidate in ("same", "harmed")]
        assert whole.comparison.title == "same and harmed against base"

    def test_families_count_what_was_tested_over_all_candidates(self, whole: Compared) -> None:
        sizes = {f.name: f.n_tests for f in whole.comparison.families}
        assert sizes == {"tasks": 8, "further metrics": 2, "log-likelihoods": 6, "overall": 2}
        for contrast in whole.comparison.contrasts:
            assert contrast.p_adjusted is not None
            assert contrast.p_value is not None
            assert contrast.p_value <= contrast.p_adjusted <= 1

    def test_what_changed_and_calibration_are_there(self, whole: Compared) -> None:
        comparison = whole.comparison
        assert {(c.candidate, c.task) for c in comparison.changes} == {
            (candidate, r.task) for candidate in ("same", "harmed") for r in READS
        }
        assert {c.side for c in comparison.calibrations} == {"base", "same", "harmed"}
        assert [len(task.sides) for task in whole.tasks] == [3, 3, 3, 3]
        assert whole.labels == ("base", "same", "harmed")
        assert comparison.ranking is None

    def test_any_side_can_be_the_baseline(self, runs: tuple[Path, Path, Path], whole: Compared) -> None:
        found = sides(*runs)
        turned = compare_sides(found, found[2], OPTIONS)
        assert [s.label for s in turned.comparison.candidates] == ["base", "same"]
        there, back = of(whole, "harmed"), of(turned, "base")
        mirrored = {"better": "worse", "worse": "better"}
        for key, contrast in there.items():
            assert back[key].p_value == pytest.approx(contrast.p_value)
            assert back[key].verdict == mirrored.get(contrast.verdict, contrast.verdict)

    def test_ranked_when_asked_for(self, runs: tuple[Path, Path, Path]) -> None:
        pytest.importorskip("evalica")
        ranking = compared(*runs, ranking=True, log_likelihoods=False).comparison.ranking
        assert ranking is not None
        assert [r.label for r in ranking.ranks][-1] == "harmed"


def named(runs: tuple[Path, ...]) -> list[tuple[Path, str]]:
    return list(zip(runs, ("base", "same", "harmed"), strict=True))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    root = tmp_path_factory.mktemp("mixed")
    items = {"arc_easy": choices(80, 50), "piqa": choices(70, 51)}
    harmed = {"arc_easy": choices(80, 50, 2.0), "piqa": choices(70, 51, 2.0)}
    values = {task: [accuracy(samples)] for task, samples in harmed.items()}
    return compared(
        stored_run(root, "base", items),
        stored_run(
            root,
            "published",
            {task: [] for task in harmed},
            metrics=values,
            records={task: task_record(task, len(samples)) for task, samples in harmed.items()},
        ),
        stored_run(root, "harmed", harmed),
    )


class TestWithoutItems:
    def test_others_are_still_paired(self, mixed: Compared) -> None:
        paired, unpaired = of(mixed, "harmed"), of(mixed, "published")
        assert {c.paired for c in paired.values()} == {True}
        assert {c.paired for c in unpaired.values()} == {False}
        assert set(paired) == {(t, m) for t in ("arc_easy", "piqa") for m in ("acc", "log-likelihood")}
        assert set(unpaired) == {("arc_easy", "acc"), ("piqa", "acc")}

    def test_the_same_values_are_less_sure_without_pairs(self, mixed: Compared) -> None:
        for task in ("arc_easy", "piqa"):
            paired, unpaired = of(mixed, "harmed")[task, "acc"], of(mixed, "published")[task, "acc"]
            assert unpaired.difference == pytest.approx(paired.difference)
            assert unpaired.detectable > paired.detectable  # type: ignore[operator]
        by_candidate = {o.candidate: o for o in mixed.comparison.overall}
        assert (by_candidate["published"].paired, by_candidate["harmed"].paired) == (False, True)

    def test_it_is_said_and_in_order(self, mixed: Compared) -> None:
        assert (
            "published has no items: pairing the same ones makes errors smaller, several times so for models "
            "that are alike" in mixed.comparison.remarks
        )
        assert [(c.task, c.measure, c.candidate) for c in mixed.comparison.contrasts] == [
            (task, measure, candidate)
            for task in ("arc_easy", "piqa")
            for measure in ("acc", "log-likelihood")
            for candidate in ("published", "harmed")
            if (measure, candidate) != ("log-likelihood", "published")
        ]
        assert mixed.labels == ("base", "harmed")
        assert {c.candidate for c in mixed.comparison.changes} == {"harmed"}

    def test_a_baseline_without_items_pairs_nothing(self, tmp_path: Path) -> None:
        samples = choices(50, 1)
        published = stored_run(
            tmp_path, "published", {"arc_easy": []}, metrics={"arc_easy": [accuracy(samples)]},
            records={"arc_easy": task_record("arc_easy", 50)},
        )  # fmt: skip
        found = compared(published, stored_run(tmp_path, "ours", {"arc_easy": samples}))
        (contrast,) = found.comparison.contrasts
        assert (contrast.paired, contrast.difference, found.tasks) == (False, 0, ())
        assert found.labels == ("published",)


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"alpha": 0.0}, "alpha lies between 0 and 1, not 0"),
            ({"power": 1.0}, "a power of 1 is not possible"),
            ({"power": 0.01}, "a power of 0.01 is not possible"),
            ({"replicates": 10}, "at least 1,000 replicates, not 10"),
            ({"margin_points": -1.0}, "a margin is not negative"),
            ({"margin_points": 100.0}, "below 100 percentage points"),
            ({"margin_nats": float("nan")}, "a margin is not negative"),
        ],
    )
    def test_options_out_of_range(
        self, runs: tuple[Path, Path, Path], options: dict[str, float], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            compared(*runs[:2], **options)

    def test_tasks_that_are_not_shared(self, tmp_path: Path) -> None:
        one = stored_run(tmp_path, "a", {"arc_easy": choices(10, 1)})
        other = stored_run(tmp_path, "b", {"piqa": choices(10, 1)})
        with pytest.raises(MismatchError, match="have no task in common"):
            compared(one, other)


def test_a_group_cut_short_is_said_once_for_all_its_members(tmp_path: Path) -> None:
    members = [f"mmlu_{i}" for i in range(12)]
    found = []
    for model, n in (("base", 8), ("short", 5)):
        tasks = {member: choices(8, i)[:n] for i, member in enumerate(members)}
        records = {m: task_record(m, n, n_docs_total=8, group="mmlu") for m in members}
        reads = (ReadRecord(task="mmlu", metrics=("acc",)),)
        found.append(stored_run(tmp_path, model, tasks, records=records, reads=reads, partial=n < 8))
    comparison = compared(*found).comparison
    assert comparison.contrasts[0].n == 60
    assert comparison.contrasts[0].n_total == 96
    assert comparison.remarks == (
        "PARTIAL: not all items were compared: mmlu 60 of 96; short has fewer than others.",
    )


def test_a_group_has_few_remarks_of_its_members(
    runs: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = align.read_task_items  # type: ignore[attr-defined]

    def doubtful(*given: Any, **named: Any) -> TaskItems:
        items = real(*given, **named)
        return replace(items, remarks=(f"{items.cell.task.task} is odd",))

    monkeypatch.setattr(align, "read_task_items", doubtful)
    remarks = compared(*runs[:2]).comparison.remarks
    # Two sides' remarks on each of three members.
    assert [r for r in remarks if "blimp" in r] == [
        "blimp: base: blimp_adjunct_island is odd",
        "blimp: same: blimp_adjunct_island is odd",
        "blimp: base: blimp_causative is odd",
        "blimp: 3 more remarks like these",
    ]


def test_partial_runs_of_the_same_items_hold_nobody_back(tmp_path: Path) -> None:
    found = []
    for model in ("base", "tuned"):
        tasks = {f"task{i}": choices(8, i)[:6] for i in range(8)}
        records = {task: task_record(task, 6, n_docs_total=2000) for task in tasks}
        found.append(stored_run(tmp_path, model, tasks, records=records, partial=True))
    comparison = compared(*found).comparison
    (said,) = comparison.remarks
    assert said.startswith("PARTIAL: not all items were compared: task0 6 of 2,000; task1 6 of 2,000; ")
    assert said.endswith("; task5 6 of 2,000 and 2 more.")
    # Once, and where it is seen.
    assert sum("2,000" in sentence for sentence in words(comparison)) == 1
