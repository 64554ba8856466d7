"""Contrasts of aligned tasks against other implementations, with the signs and units of every measure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from aligned_items import KINDS, aligned_task, answers, compared_by, measure
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.compare.asked import TotalsTask
from mambabench.compare.contrasts import Draft, task_contrasts, totals_contrasts, weighs_by_size
from mambabench.compare.items import LOG_LIKELIHOOD, AlignedTask
from mambabench.compare.result import CompareOptions, Contrast
from mambabench.compare.verdicts import judged
from mambabench.schema import MetricRecord

OPTIONS = CompareOptions(replicates=1000)


def contrast(task: AlignedTask, options: CompareOptions = OPTIONS) -> Contrast:
    (found,) = drafts(task, options)
    return judged([found.contrast], [], options)[0][0]


def drafts(task: AlignedTask, options: CompareOptions = OPTIONS) -> list[Draft]:
    labels = [f"candidate {i}" for i in range(1, len(task.sides))]
    return task_contrasts(task, "base", labels, options)


def two_columns(kind: str, seed: int, n: int, shift: float = 0.0) -> tuple[Any, Any, Any]:
    """Baseline, candidate and weights; `shift` raises log-likelihoods and lowers nothing."""
    rng = np.random.default_rng(seed)
    if kind in ("binary", "error"):
        return (rng.random(n) < 0.5).astype(float), (rng.random(n) < 0.5 + shift).astype(float), None
    if kind in ("mean", "corpus"):
        return rng.random(n), np.minimum(1, rng.random(n) + shift), None
    base = -rng.exponential(2, n)
    weights = rng.integers(1, 40, n) if kind in ("ratio", "bits") else None
    scale = 1 if weights is None else weights
    return base * scale, (base + rng.normal(shift, 0.3, n)) * scale, weights


def alike(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else one == pytest.approx(other, rel=1e-9)


class TestSigns:
    # Raised: more right answers, more probability.
    @pytest.mark.parametrize(
        ("kind", "verdict", "sign"),
        [
            ("binary", "better", 1),
            ("mean", "better", 1),
            ("log mean", "better", -1),
            ("ratio", "better", -1),
            ("bits", "better", -1),
            ("nats", "better", 1),
            ("score", "better", 1),
            ("error", "worse", 1),
        ],
    )
    def test_more_probability_is_better_whatever_the_measure(
        self, kind: str, verdict: str, sign: int
    ) -> None:
        base, candidate, weights = two_columns(kind, 0, 200, shift=0.4)
        for first, second, word, way in [
            (base, candidate, verdict, sign),
            (candidate, base, {"better": "worse", "worse": "better"}[verdict], -sign),
        ]:
            found = contrast(compared_by(kind, first, second, weights))
            assert found.verdict == word
            assert found.difference is not None
            assert found.low is not None
            assert found.high is not None
            assert found.difference * way > 0
            assert found.low <= found.difference <= found.high
            assert found.low * found.high > 0

    def test_units_are_those_of_the_measure(self) -> None:
        units = {}
        for kind in KINDS:
            found = contrast(compared_by(kind, *two_columns(kind, 1, 30)))
            units[kind] = (found.unit, found.effect_unit, found.family)
        assert units == {
            "binary": ("%", "pt", "tasks"),
            "mean": ("%", "pt", "tasks"),
            "log mean": ("ppl", "%", "tasks"),
            "ratio": ("ppl", "%", "tasks"),
            "bits": ("bits/byte", "bits/byte", "tasks"),
            "corpus": ("", "", "tasks"),
            "nats": ("nats", "nats", "log-likelihoods"),
            "score": ("", "", "tasks"),
            "error": ("%", "pt", "tasks"),
        }

    @settings(max_examples=25, deadline=None)
    @given(
        kind=st.sampled_from([kind for kind in KINDS if kind != "corpus"]),
        seed=st.integers(0, 10_000),
        n=st.integers(2, 60),
        shift=st.sampled_from([0.0, 0.02, 0.5]),
        clustered=st.booleans(),
    )
    def test_swapped_sides_mirror_everything(
        self, kind: str, seed: int, n: int, shift: float, clustered: bool
    ) -> None:
        base, candidate, weights = two_columns(kind, seed, n, shift)
        changes = {"clusters": np.arange(n) // 2, "cluster_name": "passage"} if clustered else {}
        one = contrast(compared_by(kind, base, candidate, weights, **changes))
        other = contrast(compared_by(kind, candidate, base, weights, **changes))
        assert (one.baseline_value, one.candidate_value) == (other.candidate_value, other.baseline_value)
        assert one.difference is not None
        assert other.difference is not None
        assert (one.low is None) == (other.high is None)
        if one.effect_unit == "%":
            assert (1 + one.difference / 100) * (1 + other.difference / 100) == pytest.approx(1)
        else:
            assert one.difference == pytest.approx(-other.difference, abs=1e-12)
        if one.low is not None and other.high is not None:
            if one.effect_unit == "%":
                assert (1 + one.low / 100) * (1 + other.high / 100) == pytest.approx(1)
            else:
                assert one.low == pytest.approx(-other.high, abs=1e-9)
        assert alike(one.p_value, other.p_value)
        assert alike(one.detectable, other.detectable)
        assert (one.n_won, one.n_lost) == (other.n_lost, other.n_won)
        if one.unit:
            # A score's margin is a share of the baseline, so that only the test of no difference mirrors.
            assert alike(one.p_equivalence, other.p_equivalence)
            mirrored = {"better": "worse", "worse": "better"}
            assert other.verdict == mirrored.get(one.verdict, one.verdict)

    @settings(max_examples=25, deadline=None)
    @given(
        kind=st.sampled_from([kind for kind in KINDS if kind != "corpus"]),
        seed=st.integers(0, 10_000),
        n=st.integers(1, 150),
        clustered=st.booleans(),
    )
    def test_a_side_against_itself_is_neither_better_nor_worse(
        self, kind: str, seed: int, n: int, clustered: bool
    ) -> None:
        base, _, weights = two_columns(kind, seed, n)
        found = contrast(
            compared_by(kind, base, base, weights, clusters=np.arange(n) // 2 if clustered else None)
        )
        assert f"{found.difference:.1f}" == "0.0"
        assert (found.p_value, found.p_adjusted) == (1, 1)
        assert found.verdict in ("equivalent", "not distinguishable")


class TestValues:
    def test_right_and_wrong_by_mcnemar(self) -> None:
        from scipy.stats import binomtest

        found = contrast(compared_by("binary", *answers(n_won=3, n_lost=12, n_both=60, n_neither=25)))
        assert found.p_value == pytest.approx(binomtest(3, 15).pvalue)
        assert (found.n_won, found.n_lost, found.n, found.test) == (3, 12, 100, "exact McNemar")
        assert (found.baseline_value, found.candidate_value) == (72, 63)
        assert found.difference == pytest.approx(-9)

    def test_log_likelihoods_by_students_test(self) -> None:
        from scipy.stats import ttest_rel

        base, candidate, _ = two_columns("nats", 3, 40)
        found = contrast(compared_by("nats", base, candidate))
        theirs = ttest_rel(candidate, base)
        interval = theirs.confidence_interval()
        assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert found.difference == pytest.approx(np.mean(candidate) - np.mean(base))

    def test_a_perplexity_by_its_log_likelihoods(self) -> None:
        from scipy.stats import ttest_rel

        base, candidate, _ = two_columns("log mean", 4, 40)
        found = contrast(compared_by("log mean", base, candidate))
        interval = ttest_rel(candidate, base).confidence_interval()
        assert found.baseline_value == pytest.approx(np.exp(-np.mean(base)))
        assert found.candidate_value == pytest.approx(np.exp(-np.mean(candidate)))
        assert found.candidate_value is not None
        assert found.baseline_value is not None
        assert found.difference == pytest.approx(100 * (found.candidate_value / found.baseline_value - 1))
        assert found.low == pytest.approx(100 * (np.exp(-interval.high) - 1))
        assert found.high == pytest.approx(100 * (np.exp(-interval.low) - 1))

    def test_documents_of_one_length_are_compared_by_students_test(self) -> None:
        from scipy.stats import ttest_rel

        base, candidate, _ = two_columns("nats", 5, 40)
        theirs = ttest_rel(candidate, base)
        interval = theirs.confidence_interval()
        bits = contrast(compared_by("bits", 7 * base, 7 * candidate, 7))
        words = contrast(compared_by("ratio", 7 * base, 7 * candidate, 7))
        assert bits.p_value == pytest.approx(theirs.pvalue)
        assert words.p_value == pytest.approx(theirs.pvalue)
        assert bits.baseline_value == pytest.approx(-np.mean(base) / math.log(2))
        assert (bits.low, bits.high) == pytest.approx(
            (-interval.high / math.log(2), -interval.low / math.log(2))
        )
        assert words.baseline_value == pytest.approx(np.exp(-np.mean(base)))
        assert words.low == pytest.approx(100 * (np.exp(-interval.high) - 1))

    def test_bits_and_perplexity_of_a_byte_are_judged_alike(self) -> None:
        for seed, shift in [(0, 0.0), (1, 0.01), (2, 0.2)]:
            base, candidate, weights = two_columns("bits", seed, 60, shift)
            bits = contrast(compared_by("bits", base, candidate, weights))
            ratio = contrast(compared_by("ratio", base, candidate, weights))
            assert bits.p_value == pytest.approx(ratio.p_value)
            assert bits.p_equivalence == pytest.approx(ratio.p_equivalence)
            assert bits.verdict == ratio.verdict
            assert bits.n_needed == ratio.n_needed

    def test_clusters_are_the_sample(self) -> None:
        from scipy.stats import ttest_1samp

        base, candidate, _ = two_columns("nats", 6, 60)
        clusters = np.repeat(np.arange(20), 3)
        found = contrast(compared_by("nats", base, candidate, clusters=clusters, cluster_name="passage"))
        theirs = ttest_1samp((candidate - base).reshape(20, 3).mean(axis=1), 0)
        assert found.p_value == pytest.approx(theirs.pvalue)
        assert (found.n_clusters, found.cluster_name) == (20, "passage")

    def test_right_and_wrong_in_clusters_still_count_what_was_won(self) -> None:
        base, candidate = answers(8, 2, 10, 10)
        found = contrast(
            compared_by("binary", base, candidate, clusters=np.arange(30) // 3, cluster_name="passage")
        )
        assert (found.n_won, found.n_lost, found.n_clusters) == (8, 2, 10)
        assert found.test != "exact McNemar"
        assert found.difference == pytest.approx(20)


class TestMargins:
    def test_equivalence_of_perplexities_is_multiplicative(self) -> None:
        # Five percent more against five percent less: 1 / 1.05 is the other end.
        rng = np.random.default_rng(0)
        base = -rng.exponential(2, 400)
        noise = rng.normal(0, 0.01, 400)
        noise -= noise.mean()
        for change, equivalent in [(0.045, True), (0.055, False), (-0.045, True), (-0.049, False)]:
            candidate = base - math.log1p(change) + noise
            options = CompareOptions(replicates=1000, margin_percent=5)
            found = contrast(compared_by("log mean", base, candidate), options)
            assert found.margin == 5
            assert found.difference == pytest.approx(100 * change)
            assert found.verdict == ("worse" if change > 0 else "better")
            assert found.within_margin == equivalent

    def test_each_unit_has_its_margin(self) -> None:
        options = CompareOptions(replicates=1000, margin_points=2, margin_percent=3, margin_nats=0.5)
        margins = {
            kind: contrast(compared_by(kind, *two_columns(kind, 1, 30)), options).margin for kind in KINDS
        }
        base = two_columns("score", 1, 30)[0]
        assert margins == pytest.approx(
            {
                "binary": 2,
                "mean": 2,
                "error": 2,
                "log mean": 3,
                "ratio": 3,
                "bits": math.log2(1.03),
                "nats": 0.5,
                "score": 0.03 * abs(np.mean(base)),
                "corpus": 0.03 * np.mean(two_columns("corpus", 1, 30)[0]),
            }
        )

    def test_without_a_margin_nothing_is_equivalent(self) -> None:
        base, candidate = answers(1, 1, 1000, 0)
        assert contrast(compared_by("binary", base, candidate)).verdict == "equivalent"
        found = contrast(compared_by("binary", base, candidate), CompareOptions(margin_points=0))
        assert (found.verdict, found.p_equivalence, found.n_needed) == ("not distinguishable", None, None)


class TestNotTested:
    def test_a_corpus_value_says_why(self) -> None:
        found = contrast(compared_by("corpus", *two_columns("corpus", 0, 20)))
        assert (found.verdict, found.p_value, found.low, found.p_adjusted) == ("not tested", None, None, None)
        assert found.difference is not None
        assert found.remarks == (
            "not tested: bleu is no mean over items, so that its uncertainty is not known",
        )

    def test_one_item_determines_no_interval(self) -> None:
        found = contrast(compared_by("nats", [-1.0], [-2.0]))
        assert (found.difference, found.low, found.high, found.p_value) == (-1, None, None, 1)
        assert (found.detectable, found.n_needed, found.verdict) == (None, None, "not distinguishable")
        assert found.remarks == (
            "the items determine no interval",
            "fewer than 6 items show no difference, however large",
        )

    def test_words_counted_differently_are_no_ratio_of_perplexities(self) -> None:
        base, candidate, weights = two_columns("ratio", 0, 20)
        task = aligned_task([measure("ratio", base, weights)], [measure("ratio", candidate, weights + 1)])
        assert contrast(task).remarks == (
            "not tested: the sides count the words or bytes of word_perplexity differently",
        )

    def test_sides_that_disagree_on_what_is_better(self) -> None:
        base, candidate = answers(5, 1, 1, 1)
        task = aligned_task([measure("binary", base)], [measure("binary", candidate, higher_is_better=False)])
        assert contrast(task).remarks == ("not tested: the sides do not mean the same by acc",)


class TestMeasures:
    def test_metrics_then_log_likelihoods_each_by_candidate(self) -> None:
        base, candidate = answers(5, 1, 10, 4)
        likelihoods = two_columns("nats", 0, 20)
        sides = [
            [measure("binary", column), measure("nats", likelihoods[0])] for column in (base, candidate, base)
        ]
        found = [d.contrast for d in drafts(aligned_task(*sides))]
        assert [(c.measure, c.candidate, c.headline) for c in found] == [
            ("acc", "candidate 1", True),
            ("acc", "candidate 2", True),
            (LOG_LIKELIHOOD, "candidate 1", False),
            (LOG_LIKELIHOOD, "candidate 2", False),
        ]
        without = drafts(aligned_task(*sides), CompareOptions(log_likelihoods=False))
        assert {d.contrast.measure for d in without} == {"acc"}

    def test_labels_must_be_as_many_as_sides(self) -> None:
        task = compared_by("binary", *answers(1, 1, 1, 1))
        with pytest.raises(ValueError, match="2 sides"):
            task_contrasts(task, "base", ["one", "two"], OPTIONS)


class TestGroups:
    sizes = (5, 40, 15)

    def group(self, name: str, kind: str = "binary", **changes: Any) -> AlignedTask:
        n = sum(self.sizes)
        members = np.repeat(np.arange(3), self.sizes)
        base, candidate, weights = two_columns(kind, 8, n, 0.2)
        return compared_by(
            kind, base, candidate, weights, task=name, members=("a", "b", "c"), member_of=members, **changes
        )

    def member_means(self, task: AlignedTask, side: int) -> list[float]:
        values = task.sides[side].measures["acc"].values
        return [float(values[task.member_of == m].mean()) for m in range(3)]

    def test_the_index_says_how_groups_are_weighed(self) -> None:
        assert weighs_by_size("mmlu")
        assert not weighs_by_size("blimp")
        assert weighs_by_size("a group of somebody's own")

    def test_weighed_by_size_the_items_are_pooled(self) -> None:
        pooled = self.group("mmlu")
        found = contrast(pooled)
        values = [side.measures["acc"].values for side in pooled.sides]
        plain = contrast(compared_by("binary", *values))
        assert (found.baseline_value, found.p_value, found.low) == (
            plain.baseline_value,
            plain.p_value,
            plain.low,
        )

    def test_weighed_alike_the_members_means_are_averaged(self) -> None:
        task = self.group("blimp")
        found = contrast(task)
        means = np.array([self.member_means(task, side) for side in (0, 1)])
        assert found.baseline_value == pytest.approx(100 * means[0].mean())
        assert found.candidate_value == pytest.approx(100 * means[1].mean())
        assert found.difference == pytest.approx(100 * (means[1] - means[0]).mean())
        assert found.n == sum(self.sizes)
        values = [side.measures["acc"].values for side in task.sides]
        errors = [
            np.std((values[1] - values[0])[task.member_of == m], ddof=1) / math.sqrt(n)
            for m, n in enumerate(self.sizes)
        ]
        assert found.low is not None
        assert found.high is not None
        # Exact intervals of few items are wider than their standard errors.
        half = (found.high - found.low) / 200
        assert 1.96 * math.hypot(*errors) / 3 <= half <= 3.5 * math.hypot(*errors) / 3

    def test_members_that_are_clusters_are_the_sample(self) -> None:
        from scipy.stats import ttest_rel

        n_members = 24
        rng = np.random.default_rng(0)
        members = np.repeat(np.arange(n_members), 5)
        base, candidate = rng.normal(0, 1, (2, 5 * n_members))
        task = compared_by(
            "score",
            base,
            candidate,
            task="blimp",
            members=tuple(map(str, range(n_members))),
            member_of=members,
            clusters=members,
            cluster_name="subject",
        )
        found = contrast(task)
        means = [column.reshape(n_members, 5).mean(axis=1) for column in (candidate, base)]
        assert found.p_value == pytest.approx(ttest_rel(*means).pvalue)
        assert (found.n, found.n_clusters, found.cluster_name) == (120, n_members, "subject")

    def test_passages_within_members_are_kept_apart(self) -> None:
        n = sum(self.sizes)
        task = self.group("blimp", clusters=np.arange(n) // 2, cluster_name="passage")
        found = contrast(task)
        means = np.array([self.member_means(task, side) for side in (0, 1)])
        assert found.difference == pytest.approx(100 * (means[1] - means[0]).mean())
        assert found.n_clusters is not None
        assert found.n_clusters >= n / 2

    @pytest.mark.parametrize("kind", ["log mean", "ratio", "bits"])
    def test_a_groups_perplexity_is_shown_as_tables_do_and_not_tested(self, kind: str) -> None:
        task = self.group("lambada", kind)
        found = contrast(task)
        values = task.sides[0].measures[KINDS[kind][0]]
        expected = 0.0
        for member, n in enumerate(self.sizes):
            at = task.member_of == member
            per_unit = values.values[at].mean()
            if values.weights is not None:
                per_unit = values.values[at].sum() / values.weights[at].sum()
            expected += n * (-per_unit / math.log(2) if kind == "bits" else math.exp(-per_unit))
        assert found.baseline_value == pytest.approx(expected / sum(self.sizes))
        assert found.verdict == "not tested"
        assert "mean of its members' own" in found.remarks[0]
        assert found.candidate_value is not None
        if kind != "bits":
            assert found.difference == pytest.approx(100 * (found.candidate_value / found.baseline_value - 1))


def record(value: float, unit: str, n: int, **changes: Any) -> MetricRecord:
    fields = {"metric": "acc", "value": value, "unit": unit, "n": n, "interval_method": "wilson"}
    return MetricRecord(**{**fields, **changes})


def with_error(value: float, unit: str, error: float, **changes: Any) -> MetricRecord:
    ends = {"interval_low": value - 1.96 * error, "interval_high": value + 1.96 * error}
    return record(value, unit, **{"n": 100, **ends, "interval_method": "from standard error", **changes})


def totals(baseline: MetricRecord, candidate: MetricRecord) -> Contrast:
    task = TotalsTask("piqa", "PIQA", (baseline.metric,), ((baseline,), (candidate,)))
    (found,) = totals_contrasts(task, "base", ["tuned"], OPTIONS)
    return judged([found.contrast], [], OPTIONS)[0][0]


class TestTotals:
    def test_counts_by_fishers_test(self) -> None:
        from scipy.stats import fisher_exact
        from statsmodels.stats.proportion import confint_proportions_2indep

        found = totals(record(0.5, "fraction", 200), record(0.65, "fraction", 180))
        assert found.p_value == pytest.approx(fisher_exact([[117, 63], [100, 100]]).pvalue)
        low, high = confint_proportions_2indep(117, 180, 100, 200, method="newcomb")
        assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), rel=1e-6)
        assert (found.n, found.n_candidate, found.paired, found.n_won) == (200, 180, False, None)
        assert found.verdict == "better"

    def test_standard_errors_are_had_back(self) -> None:
        from scipy.stats import norm

        found = totals(with_error(0.4444, "fraction", 0.02), with_error(0.5001, "fraction", 0.03))
        z = (0.5001 - 0.4444) / math.hypot(0.02, 0.03)
        assert found.p_value == pytest.approx(2 * norm.sf(z))
        assert found.low == pytest.approx(100 * (0.0557 - norm.ppf(0.975) * math.hypot(0.02, 0.03)))

    def test_a_perplexitys_error_becomes_that_of_its_logarithm(self) -> None:
        from scipy.stats import norm

        worse = {"higher_is_better": False, "metric": "perplexity"}
        found = totals(with_error(20, "perplexity", 0.4, **worse), with_error(15, "perplexity", 0.3, **worse))
        assert found.difference == pytest.approx(-25)
        z = math.log(20 / 15) / math.hypot(0.02, 0.02)
        assert found.p_value == pytest.approx(2 * norm.sf(z))
        assert (found.verdict, found.effect_unit) == ("better", "%")

    def test_an_interval_on_logarithms_is_taken_as_one(self) -> None:
        from scipy.stats import norm

        def perplexity(value: float) -> MetricRecord:
            low, high = value * math.exp(-0.1), value * math.exp(0.1)
            return record(
                value, "perplexity", 500, interval_low=low, interval_high=high,
                interval_method="t on mean log-likelihood", higher_is_better=False,
            )  # fmt: skip

        found = totals(perplexity(10), perplexity(11))
        z = math.log(1.1) / (math.sqrt(2) * 0.1 / 1.96)
        assert found.p_value == pytest.approx(2 * norm.sf(z))
        assert found.difference == pytest.approx(10)

    def test_bits_a_byte_keep_their_sign(self) -> None:
        less = {"higher_is_better": False, "metric": "bits_per_byte"}
        found = totals(
            with_error(0.9, "bits_per_byte", 0.01, **less), with_error(0.8, "bits_per_byte", 0.01, **less)
        )
        assert found.difference == pytest.approx(-0.1)
        assert found.low is not None
        assert found.low < -0.1
        assert found.verdict == "better"

    def test_an_interval_cut_at_the_scales_end_shows_its_width_on_the_other_side(self) -> None:
        cut = record(0.995, "fraction", 30, interval_low=0.97, interval_high=1.0, interval_method="t")
        found = totals(cut, cut.model_copy(update={"value": 0.985, "interval_low": 0.96}))
        assert found.high is not None
        assert found.difference is not None
        assert found.high - found.difference == pytest.approx(100 * math.sqrt(2) * 0.025, rel=1e-3)

    def test_without_an_error_nothing_is_tested(self) -> None:
        found = totals(
            record(0.31, "score", 50, interval_method=""), record(0.35, "score", 50, interval_method="")
        )
        assert found.verdict == "not tested"
        assert found.difference == pytest.approx(0.04)
        assert found.remarks == ("not tested: neither items nor a standard error of acc are known",)

    def test_swapped_totals_mirror(self) -> None:
        one = with_error(0.4444, "fraction", 0.02), with_error(0.5001, "fraction", 0.03)
        there, back = totals(*one), totals(*reversed(one))
        assert there.difference == pytest.approx(-back.difference)  # type: ignore[operator]
        assert there.p_value == pytest.approx(back.p_value)
