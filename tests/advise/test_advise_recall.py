"""Recall and averages at a wish: which lengths count, whose results they are, and the ends of a mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wished import averaged, frames, recalled, scored, task

from mambabench.advise.quality import Quality, mean_interval, quality_check
from mambabench.advise.recall import Recalled, recall_check
from mambabench.advise.result import Check
from mambabench.advise.rows import plain
from mambabench.advise.wish import Wish


def _quality(**rows: Any) -> Quality:
    return Quality({name: plain(one) for name, one in frames(**rows).items()})


def _check(length: int, need: float | None, *means: dict[str, Any], tasks: Any = ()) -> Check | None:
    wish = Wish(length - 10, 10, recall_percent=need)
    return recall_check(_quality(recall_means=means, recall=tasks).recall("m", "m"), wish)


def _state(length: int, need: float | None, *means: dict[str, Any], **given: Any) -> str:
    check = _check(length, need, *means, **given)
    assert check is not None
    return check.state


HIGH, LOW, CLOSE = (92.0, 95.0, 97.0), (10.0, 20.0, 30.0), (85.0, 92.0, 95.0)


@pytest.mark.parametrize(
    ("at", "state"),
    [
        ({1000: HIGH}, "kept"),
        ({2000: HIGH}, "kept"),
        ({500: HIGH}, "unknown"),
        ({500: HIGH, 2000: HIGH, 4000: LOW}, "kept"),
        ({500: LOW, 2000: HIGH}, "broken"),
        ({500: LOW}, "broken"),
        ({1000: LOW, 2000: HIGH}, "broken"),
        ({500: HIGH, 2000: LOW}, "unknown"),
        ({2000: LOW}, "unknown"),
        ({500: CLOSE, 2000: HIGH}, "doubt"),
        ({1000: CLOSE}, "doubt"),
        ({1000: (80.0, 88.0, 95.0)}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_all_lengths_up_to_the_first_that_is_long_enough_count(
    at: dict[int, tuple[float, float, float]], state: str
) -> None:
    means = [recalled("m", length, *ends) for length, ends in at.items()]
    assert _state(1000, 90.0, *means) == state
    assert _state(1000, 90.0, *means[::-1]) == state


def test_the_worst_length_is_named_and_its_tasks_are_shown() -> None:
    tasks = [task("m", 500, 40.0, "mqar"), task("m", 500, 99.0, "needle"), task("m", 2000, 99.0, "needle")]
    check = _check(1000, 80.0, recalled("m", 500, 80.0, 82.0, 84.0), recalled("m", 2000, *HIGH), tasks=tasks)
    assert check is not None
    assert check.state == "kept"
    assert check.figure is not None
    assert check.figure.value == 82.0
    assert "at 500 tokens, the worst of 2 lengths up to 2,000" in check.why
    assert [(name, length, figure.value) for name, length, figure in check.parts] == [
        ("mqar", 500, 40.0), ("needle", 500, 99.0),
    ]  # fmt: skip
    assert any("mqar" in remark for remark in check.remarks)


def test_without_a_need_recall_is_shown_and_asks_nothing() -> None:
    check = _check(
        1000, None, recalled("m", 500, *LOW), recalled("m", 1000, *HIGH), recalled("m", 2000, 0, 0, 0)
    )
    assert check is not None
    assert (check.state, check.limit) == ("kept", None)
    assert check.figure is not None
    assert check.figure.value == 20.0
    assert _check(1000, None, recalled("m", 500, *HIGH)) is None
    assert _check(1000, None) is None


def test_a_model_without_a_path_to_the_length_is_ruled_out() -> None:
    none = task("m", 1000, None, status="unsupported", metric="")
    assert _state(1000, 90.0, recalled("m", 500, *HIGH), tasks=[none]) == "broken"
    assert _state(999, 90.0, recalled("m", 500, *HIGH), tasks=[none]) == "unknown"
    failed = task("m", 1000, None, status="failed", metric="")
    assert _state(1000, 90.0, recalled("m", 500, *HIGH), tasks=[failed]) == "unknown"


def test_few_samples_and_missing_intervals_leave_a_doubt() -> None:
    assert (
        _state(1000, 90.0, recalled("m", 1000, *HIGH, flags="past training length; fewer than 20 samples"))
        == "doubt"
    )
    assert _state(1000, 90.0, recalled("m", 1000, None, 95.0, None)) == "doubt"
    assert _state(1000, 90.0, recalled("m", 1000, None, 85.0, None)) == "unknown"
    assert _state(1000, 90.0, recalled("m", 1000, None, None, None)) == "unknown"
    assert _state(1000, 90.0, recalled("m", 1000, 92.0, float("nan"), 97.0)) == "unknown"


def test_past_the_training_length_is_a_remark() -> None:
    check = _check(1000, 90.0, recalled("m", 1000, *HIGH, flags="past training length"))
    assert check is not None
    assert check.state == "kept"
    assert "past the training length" in check.remarks[0]


def _loaded(run: str, label: str, sha: str | None, **given: Any) -> dict[str, Any]:
    return {"run": run, "label": label, "model": "m", "weights": "pretrained", "weights_sha256": sha,
            "dtype": "float32"} | given  # fmt: skip


@pytest.mark.parametrize(
    ("digests", "known"),
    [(("a", "a"), True), (("a", "b"), False), (("a", None), False), ((None, None), False)],
)
def test_results_under_a_name_belong_to_it_if_the_weights_are_equal(
    digests: tuple[str | None, str | None], known: bool
) -> None:
    means = [recalled("m", 1000, *HIGH, run=run, label=f"m ({run})") for run in ("a", "b")]
    loaded = [_loaded(run, f"m ({run})", sha) for run, sha in zip("ab", digests, strict=True)]
    found = _quality(recall_means=means, checkpoints=loaded)
    assert bool(found.recall("m", "m").means) == known
    assert known or "2 runs have results of m" in found.recall("m", "m").why
    assert len(found.recall("m (a)", "m").means) == 1
    assert found.recall("other", "other") == Recalled(why="never measured")


def test_results_of_different_weights_are_not_mixed_under_one_name() -> None:
    means = [recalled("m", 1000, *HIGH, run="a"), recalled("m", 2000, *HIGH, run="b")]

    def loaded(a: str | None, b: str | None) -> Quality:
        checkpoints = [_loaded("a", "m", a), _loaded("b", "m", b), _loaded("zero", "m", "x")]
        return _quality(recall_means=means, averages=[averaged("m", 50.0)], checkpoints=checkpoints)

    assert len(loaded("x", "x").recall("m", "m").means) == 2
    assert len(loaded("x", None).recall("m", "m").means) == 2
    assert not loaded("x", "y").recall("m", "m").means
    assert loaded("x", "x").mixed("m", "m") == ()
    assert loaded("y", "y").mixed("m", "m") == ("recall and average accuracy are of different weights",)


@pytest.mark.parametrize("given", [{"weights": "random"}, {"certificate_passed": False}])
def test_random_weights_and_failed_certificates_say_nothing_of_quality(given: dict[str, Any]) -> None:
    loaded = [_loaded("long", "m", "a", **given), _loaded("zero", "m", "a", **given)]
    found = _quality(
        recall_means=[recalled("m", 1000, *HIGH)], averages=[averaged("m", 50.0)], checkpoints=loaded
    )
    assert not found.recall("m", "m").means
    assert found.average("m", "m")[0] is None


def test_another_dtype_leaves_a_doubt() -> None:
    found = _quality(recall_means=[recalled("m", 1000, *HIGH)], checkpoints=[_loaded("long", "m", "a")])
    assert found.recall("m", "m", "float32").doubts == ()
    assert found.recall("m", "m", "bfloat16").doubts == ("recall was measured in float32, times in bfloat16",)


def test_the_interval_of_a_mean_covers_as_often_as_those_it_is_of() -> None:
    """Simulated: accuracies of 200 items each; a mean of normal intervals must cover near 95%."""
    random = np.random.default_rng(0)
    true, n, covered, n_runs = np.array([0.3, 0.6, 0.8, 0.5]), 200, 0, 2000
    for _ in range(n_runs):
        shares = random.binomial(n, true) / n
        half = 1.96 * np.sqrt(shares * (1 - shares) / n)
        rows = [
            {"value": 100 * p, "interval_low": 100 * (p - h), "interval_high": 100 * (p + h)}
            for p, h in zip(shares, half, strict=True)
        ]
        low, high = mean_interval(rows, float(100 * shares.mean()))
        assert low is not None
        assert high is not None
        covered += low <= 100 * true.mean() <= high
    assert 0.935 < covered / n_runs < 0.965


def test_an_average_is_held_against_its_bound_with_its_interval() -> None:
    scores = scored("m", (47.0, 50.0, 53.0), (56.0, 60.0, 64.0))
    found = _quality(averages=[averaged("m", 55.0, 2)], scores=scores)
    average, why = found.average("m", "m")
    assert average is not None
    assert (average.figure.low, average.figure.high) == (52.5, 57.5)
    for need, state in ((52.0, "kept"), (54.0, "doubt"), (56.0, "unknown"), (58.0, "broken")):
        check = quality_check(average, why, Wish(1, 1, quality_percent=need))
        assert check is not None
        assert check.state == state
    # A mean over something else has no interval here.
    other, _ = _quality(averages=[averaged("m", 56.0, 2)], scores=scores).average("m", "m")
    assert other is not None
    assert other.figure.low is None
    assert "average without an interval" in other.doubts
    part, _ = _quality(
        averages=[averaged("m", 55.0, 2)], scores=[s | {"n_items_total": 999} for s in scores]
    ).average("m", "m")
    assert part is not None
    assert part.doubts == ("not all items of the tasks were scored",)


def test_an_average_that_is_missing_is_asked_for_only_if_it_is_needed() -> None:
    average, why = _quality().average("m", "m")
    assert quality_check(average, why, Wish(1, 1)) is None
    check = quality_check(average, why, Wish(1, 1, quality_percent=50.0))
    assert check is not None
    assert (check.state, check.why) == ("unknown", "never measured")


def test_an_average_is_over_the_first_accuracy_of_each_task() -> None:
    """The first metric of a task may be a perplexity, which is in no average."""
    first, second = scored("m", (48.0, 50.0, 52.0), (57.0, 60.0, 63.0))
    perplexity = first | {"metric": "perplexity", "unit": "ppl", "value": 9.0, "in_average": False}
    further = second | {"metric": "acc_norm", "headline": False, "value": 99.0, "in_average": False}
    rows = [perplexity, first | {"headline": False}, second, further]
    found, why = _quality(averages=[averaged("m", 55.0, 2)], scores=rows).average("m", "m")
    assert found is not None
    assert found.tasks == ("task0 acc", "task1 acc")
    assert (found.figure.low, found.figure.high) == mean_interval([first, second], 55.0)
    assert found.doubts == ()
    check = quality_check(found, why, Wish(1, 1, quality_percent=50.0))
    assert check is not None
    assert check.why.startswith("average of 2 accuracies")


@pytest.mark.parametrize(("n_parameters", "known"), [(250_000_000, True), (60_000_000, False), (None, True)])
def test_results_of_weights_of_another_size_are_not_those_of_what_was_timed(
    n_parameters: int | None, known: bool
) -> None:
    loaded = [
        {"run": run, "label": "m", "model": "m", "weights": "pretrained", "n_parameters": n_parameters}
        for run in ("long", "zero")
    ]
    found = _quality(
        recall_means=[recalled("m", 1000, *HIGH)], averages=[averaged("m", 50.0)], checkpoints=loaded
    )
    average, why = found.average("m", "m", "float32", 10**9)
    recall = found.recall("m", "m", "float32", 10**9)
    assert ((average is not None), bool(recall.means)) == (known, known)
    assert known or "another size" in why
    assert found.average("m", "m", "float32")[0] is not None
