"""Words for p-values, families and their corrections, and how often chance alone is given a word."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aligned_items import aligned_task, answers, compared_by, measure
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.compare.asked import TotalsTask
from mambabench.compare.contrasts import Draft, task_contrasts, totals_contrasts
from mambabench.compare.overall import overall_figures
from mambabench.compare.result import CompareOptions, Contrast, Overall
from mambabench.compare.verdicts import judged, verdict
from mambabench.schema import MetricRecord

OPTIONS = CompareOptions(replicates=1000)
p_values = st.one_of(st.none(), st.floats(0, 1))
families = st.sampled_from(["tasks", "log-likelihoods"])


def blank(p_value: float | None, **changes: Any) -> Contrast:
    (draft,) = task_contrasts(compared_by("binary", *answers(3, 1, 1, 1)), "base", ["tuned"], OPTIONS)
    return replace(draft.contrast, **{"p_value": p_value, "p_equivalence": None, **changes})


BLANK = blank(0.5)


class TestWords:
    @pytest.mark.parametrize(
        ("difference", "p", "p_alike", "higher", "expected"),
        [
            (1.0, 0.01, 0.9, True, ("better", False)),
            (1.0, 0.01, 0.9, False, ("worse", False)),
            (-1.0, 0.01, None, True, ("worse", False)),
            (-1.0, 0.01, 0.01, False, ("better", True)),
            (1.0, 0.05, 0.9, True, ("not distinguishable", False)),
            (1.0, 0.2, 0.04, True, ("equivalent", False)),
            (1.0, 0.2, 0.05, True, ("not distinguishable", False)),
            (0.0, 1.0, None, True, ("not distinguishable", False)),
            (0.0, 0.0, None, True, ("not distinguishable", False)),
            (None, None, None, True, ("not tested", False)),
        ],
    )
    def test_the_rule(
        self, difference: float | None, p: float | None, p_alike: float | None, higher: bool, expected: Any
    ) -> None:
        assert verdict(difference, p, p_alike, higher_is_better=higher, alpha=0.05) == expected


class TestFamilies:
    @settings(max_examples=25, deadline=None)
    @given(
        tests=st.lists(st.tuples(p_values, p_values, families), max_size=12),
        correction=st.sampled_from(["holm", "bh", "none"]),
    )
    def test_each_family_is_corrected_by_itself(self, tests: list[Any], correction: Any) -> None:
        contrasts = [
            replace(BLANK, p_value=p, p_equivalence=alike, family=family) for p, alike, family in tests
        ]
        options = CompareOptions(correction=correction)
        found, _, sizes = judged(contrasts, [], options)
        assert len(found) == len(contrasts)
        for name in ("tasks", "log-likelihoods"):
            members = [c for c in found if c.family == name]
            n_tests = sum(c.p_value is not None for c in members)
            assert [f.n_tests for f in sizes if f.name == name] == ([n_tests] if n_tests else [])
            for before, after in [("p_value", "p_adjusted"), ("p_equivalence", "p_equivalence_adjusted")]:
                plain = [getattr(c, before) for c in members]
                ours = [getattr(c, after) for c in members]
                assert [p is None for p in plain] == [p is None for p in ours]
                known = [p for p in plain if p is not None]
                assert [p for p in ours if p is not None] == pytest.approx(by_hand(known, correction))

    def test_families_are_described_with_their_size(self) -> None:
        contrasts = [replace(BLANK, p_value=0.01), replace(BLANK, p_value=None), replace(BLANK, p_value=0.3)]
        found, _, sizes = judged(contrasts, [], OPTIONS)
        assert [f.describe() for f in sizes] == ["2 tests (tasks), p-values adjusted by Holm, 5% in all"]
        assert [c.p_adjusted for c in found] == [0.02, None, 0.3]
        assert [c.verdict for c in found] == ["better", "not tested", "not distinguishable"]


def by_hand(values: list[float], correction: str) -> list[float]:
    """Step-wise corrections written as their papers state them, one value at a time."""
    m = len(values)
    ranked = sorted(range(m), key=values.__getitem__)
    adjusted = [0.0] * m
    for place, i in enumerate(ranked):
        if correction == "none":
            adjusted[i] = values[i]
        elif correction == "holm":
            adjusted[i] = min(1.0, max((m - k) * values[ranked[k]] for k in range(place + 1)))
        else:
            adjusted[i] = min(1.0, min(m / (k + 1) * values[ranked[k]] for k in range(place, m)))
    return adjusted


def test_chance_alone_is_seldom_called_better_or_worse() -> None:
    """Labels shuffled within items: no side is better, whatever the measure."""
    rng = np.random.default_rng(0)
    # So many items that no interval is computed exactly, which would take its time.
    n, n_runs, alarms = 120, 200, 0
    options = CompareOptions(replicates=1000, margin_points=0, margin_percent=0, margin_nats=0)
    base = {
        "binary": (rng.random((2, n)) < [[0.5], [0.7]]).astype(float),
        "log mean": -rng.exponential([[1.0], [2.0]], (2, n)),
    }
    for _ in range(n_runs):
        swap = rng.random(n) < 0.5
        sides: list[list[Any]] = [[], []]
        for kind, (one, other) in base.items():
            sides[0].append(measure(kind, np.where(swap, other, one)))
            sides[1].append(measure(kind, np.where(swap, one, other)))
        drafts = task_contrasts(aligned_task(*sides), "base", ["tuned"], options)
        if min(d.contrast.p_value or 0 for d in drafts) >= options.alpha:
            continue  # adjusted p-values are no smaller, and statsmodels takes a tenth of a second
        found = judged([d.contrast for d in drafts], [], options)[0]
        alarms += any(c.verdict in ("better", "worse") for c in found if c.family == "tasks")
    # 5% of 200 would be 10; 20 or more of them has probability 0.3%.
    assert alarms < 20
    # And the shuffle leaves something to find: without it the sides differ.
    drafts = task_contrasts(
        aligned_task(*[[measure(k, v[i]) for k, v in base.items()] for i in (0, 1)]),
        "base",
        ["tuned"],
        options,
    )
    found = judged([d.contrast for d in drafts], [], options)[0]
    assert {c.measure: c.verdict for c in found}["perplexity"] == "worse"


def drafts_of(*tasks: Any, labels: tuple[str, ...] = ("tuned",)) -> list[Draft]:
    return [d for task in tasks for d in task_contrasts(task, "base", labels, OPTIONS)]


def accuracies(n: int, seed: int, gain: float, **changes: Any) -> Any:
    rng = np.random.default_rng(seed)
    base = rng.random(n) < 0.5
    candidate = np.where(rng.random(n) < gain, True, base)
    task = f"task {seed}"
    return compared_by("binary", base, candidate, task=task, label=task, **changes)


class TestOverall:
    def test_every_task_counts_the_same(self) -> None:
        drafts = drafts_of(accuracies(400, 1, 0.2), accuracies(100, 2, 0.1), accuracies(200, 3, 0.0))
        (figure,), remarks = overall_figures(drafts, ["tuned"], OPTIONS)
        contrasts = [d.contrast for d in drafts]
        assert (figure.n_tasks, figure.paired, remarks) == (3, True, [])
        assert figure.baseline_value == pytest.approx(np.mean([c.baseline_value for c in contrasts]))
        assert figure.candidate_value == pytest.approx(np.mean([c.candidate_value for c in contrasts]))
        assert figure.difference == pytest.approx(figure.candidate_value - figure.baseline_value)
        errors = [d.effect.standard_error for d in drafts if d.effect is not None]
        error = 100 * math.hypot(*errors) / 3
        # Student's quantile lies above the normal one; exact intervals above both.
        assert 1.96 * error <= (figure.high - figure.low) / 2 <= 2.2 * error
        assert figure.detectable == pytest.approx(2.80158 * error, rel=0.1)

    def test_the_first_accuracy_of_each_task_enters(self) -> None:
        rng = np.random.default_rng(0)
        likelihoods = -rng.exponential(2, (2, 50))
        right = (rng.random((2, 50)) < 0.5).astype(float)
        lambada = aligned_task(
            *[
                [
                    measure("log mean", likelihoods[i]),
                    measure("binary", right[i]),
                    measure("binary", 1 - right[i], name="acc_norm"),
                ]
                for i in (0, 1)
            ]
        )
        errors = compared_by("error", *right, task="errors")
        other = accuracies(50, 1, 0.2)
        (figure,), _ = overall_figures(drafts_of(lambada, errors, other), ["tuned"], OPTIONS)
        expected = [right[0].mean(), other.sides[0].measures["acc"].values.mean()]
        assert figure.n_tasks == 2
        assert figure.baseline_value == pytest.approx(100 * np.mean(expected))

    def test_one_accuracy_is_no_average(self) -> None:
        drafts = drafts_of(accuracies(50, 1, 0.2), compared_by("nats", [-1.0, -2], [-2.0, -2.1]))
        assert overall_figures(drafts, ["tuned"], OPTIONS) == ([], [])

    def test_what_could_not_be_tested_leaves_no_average(self) -> None:
        untested = compared_by("corpus", [0.2, 0.4], [0.3, 0.4], task="bleurt", label="BLEURT")
        sides = [
            replace(s, measures={"bleu": replace(s.measures["bleu"], unit="fraction")})
            for s in untested.sides
        ]
        drafts = drafts_of(accuracies(50, 1, 0.2), replace(untested, sides=tuple(sides)))
        figures, remarks = overall_figures(drafts, ["tuned"], OPTIONS)
        assert figures == []
        assert remarks == ["tuned has no overall figure: BLEURT could not be tested"]

    def test_tasks_that_are_not_paired_are_said(self) -> None:
        record = MetricRecord(metric="acc", value=0.5, unit="fraction", n=100, interval_method="wilson")
        totals = TotalsTask("piqa", "PIQA", ("acc",), ((record,), (record,)))
        drafts = drafts_of(accuracies(50, 1, 0.2)) + totals_contrasts(totals, "base", ["tuned"], OPTIONS)
        (figure,), _ = overall_figures(drafts, ["tuned"], OPTIONS)
        assert (figure.n_tasks, figure.paired) == (2, False)

    def test_candidates_are_one_family(self) -> None:
        rng = np.random.default_rng(0)
        columns = (rng.random((4, 200)) < [[0.5], [0.5], [0.62], [0.3]]).astype(float)
        tasks = [
            aligned_task(*[[measure("binary", np.roll(c, k))] for c in columns], task=f"task {k}")
            for k in (0, 1)
        ]
        labels = ("same", "good", "bad")
        figures, _ = overall_figures(drafts_of(*tasks, labels=labels), labels, OPTIONS)
        _, found, (family,) = judged([], figures, OPTIONS)
        assert family.describe() == "3 tests (overall), p-values adjusted by Holm, 5% in all"
        assert [o.p_adjusted for o in found] == pytest.approx(by_hand([o.p_value for o in figures], "holm"))
        assert [o.p_equivalence_adjusted for o in found] == pytest.approx(
            by_hand([o.p_equivalence for o in figures], "holm")
        )
        assert [o.verdict for o in found] == ["not distinguishable", "better", "worse"]

    def test_a_side_against_itself(self) -> None:
        tasks = [accuracies(5000, seed, 0.0) for seed in (1, 2)]
        figures, _ = overall_figures(drafts_of(*tasks), ["tuned"], OPTIONS)
        (figure,) = judged([], figures, OPTIONS)[1]
        assert (figure.difference, figure.p_value, figure.verdict) == (0, 1, "equivalent")
        assert figure.low == pytest.approx(-figure.high)

    def test_where_an_item_is_all_there_is_the_ends_of_the_scale_are(self) -> None:
        tasks = [compared_by("mean", [0.2], [0.3], task=f"task {k}", members=("a",)) for k in (0, 1)]
        drafts = [replace(d, effect=undetermined(d)) for d in drafts_of(*tasks)]
        (figure,), _ = overall_figures(drafts, ["tuned"], OPTIONS)
        assert (figure.low, figure.high, figure.p_value, figure.p_equivalence) == (-100, 100, 1, 1)
        assert figure.detectable is None


def undetermined(draft: Draft) -> Any:
    assert draft.effect is not None
    return replace(draft.effect, low=-math.inf, high=math.inf, standard_error=math.nan, determined=False)


def test_overall_is_judged_apart_from_the_tasks() -> None:
    tasks = [accuracies(300, seed, 0.1) for seed in (1, 2, 3)]
    drafts = drafts_of(*tasks)
    figures, _ = overall_figures(drafts, ["tuned"], OPTIONS)
    contrasts, overall, sizes = judged([d.contrast for d in drafts], figures, OPTIONS)
    assert [(f.name, f.n_tests) for f in sizes] == [("tasks", 3), ("overall", 1)]
    one: Overall = overall[0]
    assert one.p_adjusted == one.p_value
    assert all(c.p_adjusted is not None and c.p_adjusted >= (c.p_value or 0) for c in contrasts)
