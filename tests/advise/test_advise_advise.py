"""Advice as a whole: what must hold whatever was measured, and what some stores say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wished import FACTS, GB, averaged, failed, frames, recalled, scored, task, timed

from mambabench.advise.advise import advise
from mambabench.advise.facts import RunFacts
from mambabench.advise.result import VERDICTS, Advice, Candidate
from mambabench.advise.terminal import as_text
from mambabench.advise.wish import Wish

LENGTHS, BATCHES, GENS = (100, 400, 1000), (1, 2, 4), (10, 50)
STATUSES = ("ok", "ok", "ok", "oom", "unsupported", "killed", "skipped_after_oom", "missing")
FLAGS = ("", "", "busy machine", "certificate failed", "emulated memory budget", "past training length")
MODELS = ("a", "b")


@st.composite
def _points(draw: st.DrawFn, model: str) -> list[dict[str, Any]]:
    found = {}
    for _ in range(draw(st.integers(0, 6))):
        point = tuple(draw(st.sampled_from(axis)) for axis in (LENGTHS, GENS, BATCHES))
        status = draw(st.sampled_from(STATUSES))
        flags = draw(st.sampled_from(FLAGS))
        if status != "ok":
            found[point] = failed(model, status, *point, flags=flags)
            continue
        middle = draw(st.sampled_from([0.05, 0.1, 0.2, 0.4, float("nan")]))
        ends = (middle / 1.3, middle, middle * 1.3)
        found[point] = timed(
            model, *point, flags=flags, ttft_s=ends, tpot_s=tuple(e / 10 for e in ends),
            peak_bytes=tuple(e * 10 * GB for e in ends), method=draw(st.sampled_from(["t on log", "range"])),
            state_bytes_spec=point[2] * GB // 10,
        )  # fmt: skip
    return list(found.values())


@st.composite
def _stores(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    store: dict[str, list[dict[str, Any]]] = {"speed": [], "recall_means": [], "averages": [], "scores": []}
    for model in MODELS:
        store["speed"] += draw(_points(model))
        for length in draw(st.sets(st.sampled_from((100, 500, 1100)))):
            value = draw(st.sampled_from([20.0, 50.0, 80.0, float("nan")]))
            store["recall_means"].append(recalled(model, length, value - 15, value, value + 15))
        if draw(st.booleans()):
            store["averages"].append(averaged(model, 50.0))
            store["scores"] += scored(model, (40.0, 50.0, 60.0))
    return store


@st.composite
def _wishes(draw: st.DrawFn) -> Wish:
    def maybe(*values: Any) -> Any:
        return draw(st.sampled_from([None, *values]))

    return Wish(
        draw(st.sampled_from([50, 100, 300, 1000, 1200])),
        draw(st.sampled_from([10, 30, 50])),
        conversations=draw(st.sampled_from([1, 2, 3])),
        memory_bytes=maybe(GB, 3 * GB, 30 * GB),
        recall_percent=maybe(10.0, 45.0, 70.0),
        quality_percent=maybe(35.0, 45.0, 55.0),
        ttft_s=maybe(0.08, 0.15, 1.0),
        tpot_s=maybe(0.008, 0.015, 0.1),
    )


def _by_key(advice: Advice) -> dict[Any, Candidate]:
    return {candidate.key: candidate for candidate in advice.candidates}


TIGHTER: dict[str, Callable[[Any], Any]] = {
    "memory_bytes": lambda v: int((24 * GB if v is None else v) * 0.6),
    "recall_percent": lambda v: 30.0 if v is None else min(100.0, v * 1.5),
    "quality_percent": lambda v: 30.0 if v is None else min(100.0, v * 1.2),
    "ttft_s": lambda v: 0.3 if v is None else v * 0.6,
    "tpot_s": lambda v: 0.03 if v is None else v * 0.6,
}


@settings(max_examples=25, deadline=None)
@given(store=_stores(), wish=_wishes(), bound=st.sampled_from(sorted(TIGHTER)))
def test_a_tighter_bound_never_makes_a_verdict_better(
    store: dict[str, list[dict[str, Any]]], wish: Wish, bound: str
) -> None:
    changed: dict[str, Any] = {bound: TIGHTER[bound](getattr(wish, bound))}
    tighter = replace(wish, **changed)
    before, after = (_by_key(advise(frames(**store), FACTS, one)) for one in (wish, tighter))
    assert before.keys() == after.keys()
    for key in before:
        assert VERDICTS.index(after[key].verdict) >= VERDICTS.index(before[key].verdict)


@settings(max_examples=15, deadline=None)
@given(store=_stores(), wish=_wishes(), seed=st.randoms(use_true_random=False))
def test_order_of_rows_and_other_models_change_no_verdict(
    store: dict[str, list[dict[str, Any]]], wish: Wish, seed: Any
) -> None:
    whole = advise(frames(**store), FACTS, wish)
    shuffled = {name: seed.sample(rows, len(rows)) for name, rows in store.items()}
    assert json.dumps(advise(frames(**shuffled), FACTS, wish).as_json()) == json.dumps(whole.as_json())
    alone = {name: [row for row in rows if row["model"] == "a"] for name, rows in store.items()}
    found = _by_key(advise(frames(**alone), FACTS, wish))
    assert found == {key: one for key, one in _by_key(whole).items() if one.model == "a"}


@settings(max_examples=15, deadline=None)
@given(store=_stores(), wish=_wishes())
def test_every_advice_can_be_printed_and_says_what_it_may(
    store: dict[str, list[dict[str, Any]]], wish: Wish
) -> None:
    advice = advise(frames(**store), FACTS, wish)
    json.dumps(advice.as_json(), allow_nan=False)
    text = as_text(advice)
    assert 1 <= len(advice.answer) <= 2
    assert " ".join(advice.answer).split()[:6] == text.split()[:6]
    if advice.chosen is None:
        assert advice.exit_code == (0 if advice.candidates and not advice.to_measure else 4)
    else:
        assert advice.exit_code == 0
        assert advice.chosen is advice.candidates[0]
    for candidate in advice.candidates:
        if candidate.verdict == "fits":
            kinds = {check.figure.kind for check in candidate.checks if check.figure is not None}
            assert kinds == {"measured"}
        if candidate.verdict == "does not fit":
            assert all(candidate.model not in m.command for m in advice.to_measure) or any(
                c.model == candidate.model and c.state != "broken" for c in advice.candidates
            )


def test_nothing_stored_is_answered_with_what_to_measure() -> None:
    advice = advise(frames(), {}, Wish(1000, 100, conversations=4))
    assert (advice.exit_code, advice.chosen, advice.candidates) == (4, None, ())
    assert [m.text for m in advice.to_measure] == [
        "mambabench latency --prompt-len 1000 --gen-len 100 --batch-size 4 --processes 6"
    ]
    assert "To be measured" in as_text(advice)


def test_only_failures_are_no_answer_unless_they_are_of_memory() -> None:
    killed = advise(frames(speed=[failed("m", "killed", 1000, 100)]), FACTS, Wish(1000, 100))
    assert (killed.exit_code, killed.candidates[0].verdict) == (4, "not known")
    assert "no process ended well (killed)" in killed.answer[1]
    oom = advise(frames(speed=[failed("m", "oom", 500, 100)]), FACTS, Wish(1000, 100))
    assert (oom.exit_code, oom.candidates[0].verdict, oom.to_measure) == (0, "does not fit", ())
    assert "out of memory at batch 1, 500 + 100 tokens" in oom.answer[1]


@pytest.mark.parametrize(("n", "words"), [(1, "1 other does not fit"), (2, "2 others do not fit")])
def test_those_that_do_not_fit_are_counted_beside_those_not_known(n: int, words: str) -> None:
    rows = [failed("m", "killed", 1000, 100), *(failed(f"o{i}", "oom", 500, 100) for i in range(n))]
    assert advise(frames(speed=rows), FACTS, Wish(1000, 100)).answer[0].endswith(f", and {words}.")


def test_the_higher_recall_is_chosen_and_speed_decides_where_recall_cannot() -> None:
    speed = [timed("slow", 1000, 100, tpot_s=0.02), timed("fast", 1000, 100, tpot_s=0.01)]

    def chosen(first: tuple[float, float, float], second: tuple[float, float, float], **wish: Any) -> Advice:
        means = [recalled("slow", 1200, *first), recalled("fast", 1200, *second)]
        tasks = [task("slow", 1200, first[1]), task("fast", 1200, second[1])]
        return advise(frames(speed=speed, recall_means=means, recall=tasks), FACTS, Wish(1000, 100, **wish))

    better = chosen((90, 95, 99), (60, 65, 70), recall_percent=50.0)
    assert better.chosen is not None
    assert better.chosen.label == "slow"
    assert "fast (eager arm, float32, cpu) fits too and is behind in recall." in better.answer
    alike = chosen((60, 68, 72), (60, 65, 70), recall_percent=50.0)
    assert alike.chosen is not None
    assert alike.chosen.label == "fast"
    assert [c.label for c in alike.candidates] == ["fast", "slow"]
    assert (
        "slow (eager arm, float32, cpu) fits too and is behind in speed; recall cannot tell them apart."
        in alike.answer
    )
    preferred = chosen((90, 95, 99), (60, 65, 70), recall_percent=50.0, prefer="speed")
    assert preferred.chosen is not None
    assert preferred.chosen.label == "fast"


def test_what_fits_without_doubt_goes_before_what_is_faster() -> None:
    rows = [timed("sure", 1000, 100), timed("fast", 1000, 100, tpot_s=0.001, flags="busy machine")]
    advice = advise(frames(speed=rows), FACTS, Wish(1000, 100, tpot_s=0.1))
    assert [c.verdict for c in advice.candidates] == ["fits", "fits with doubt"]
    assert advice.chosen is not None
    assert advice.chosen.label == "sure"
    assert advice.to_measure == ()


def test_the_second_sentence_counts_what_is_left() -> None:
    rows = [timed("m", 1000, 100), timed("n", 500, 100), failed("o", "oom", 10, 10)]
    advice = advise(frames(speed=rows), FACTS, Wish(1000, 100))
    assert advice.answer[1] == "1 of 3 candidates does not fit, and whether 1 fits is not known."
    two = advise(frames(speed=rows[:2]), FACTS, Wish(1000, 100))
    assert two.answer[1] == "Whether 1 of 2 candidates fits is not known."


def test_a_length_past_the_training_is_a_doubt_unless_recall_was_measured() -> None:
    rows = [timed("m", 1000, 100, training_length_tokens=1099)]
    advice = advise(frames(speed=rows), FACTS, Wish(1000, 100))
    assert advice.candidates[0].verdict == "fits with doubt"
    assert "longer than the 1,099 tokens" in advice.answer[0]
    means = [recalled("m", 1100, 95, 96, 97)]
    asked = advise(frames(speed=rows, recall_means=means), FACTS, Wish(1000, 100, recall_percent=90.0))
    assert asked.candidates[0].verdict == "fits"
    assert "longer than the 1,099 tokens that it was trained on" in asked.candidates[0].remarks


def test_machines_and_dtypes_are_candidates_of_their_own_and_not_ranked_by_speed() -> None:
    facts = {**FACTS, "other": RunFacts(processor="another processor", memory_bytes=8 * GB)}
    rows = [timed("m", 1000, 100), timed("m", 1000, 100, run="other", tpot_s=0.001)]
    advice = advise(frames(speed=rows), facts, Wish(1000, 100))
    assert len(advice.candidates) == 2
    assert {check.limit for c in advice.candidates for check in c.checks} == {24 * GB, 8 * GB}
    assert "another processor" in as_text(advice)
    assert any("not ranked by speed" in remark for remark in advice.remarks)
    assert any("several machines" in remark for remark in advice.remarks)
    mixed = [timed("m", 1000, 100), timed("n", 1000, 100, dtype="bfloat16", tpot_s=0.001)]
    two = advise(frames(speed=mixed), FACTS, Wish(1000, 100))
    assert len(two.ties) == 1


def test_imported_results_alone_make_no_candidate() -> None:
    facts = {**FACTS, "published": RunFacts(kind="imported")}
    rows = [averaged(f"p{n}", 50.0, run="published") for n in range(3)]
    advice = advise(frames(averages=[*rows, averaged("mine", 40.0)]), facts, Wish(1000, 100))
    assert [c.label for c in advice.candidates] == ["mine"]
    assert any("3 models with imported results alone" in remark for remark in advice.remarks)


def test_more_memory_than_the_device_has_is_said() -> None:
    advice = advise(frames(speed=[timed("m", 1000, 100)]), FACTS, Wish(1000, 100, memory_bytes=80 * GB))
    assert any("a device with 24 GB of memory, less than was asked for" in r for r in advice.remarks)


def test_units_of_a_wish_do_not_matter() -> None:
    row = timed("m", 1000, 100, ttft_s=(0.4, 0.5, 0.6), peak_bytes=1500 * 10**6)
    found = [
        advise(frames(speed=[row]), FACTS, Wish(1000, 100, ttft_s=s, memory_bytes=b)).candidates[0].verdict
        for s, b in ((0.6, 1_500_000_000), (0.6000001, 1_500_000_001), (0.5999, 1_500_000_000))
    ]
    assert found == ["fits", "fits", "fits with doubt"]


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "-m", "a b;rm -rf", "模型", "x" * 90])
def test_names_are_printed_and_quoted_as_they_are(name: str) -> None:
    advice = advise(frames(recall_means=[recalled(name, 10, 1, 2, 3)]), FACTS, Wish(10, 10))
    assert name[:20] in as_text(advice)
    (one,) = advice.to_measure
    assert one.command[2:4] == ("--model", name)
    import shlex

    assert tuple(shlex.split(one.text)) == one.command


def test_frames_with_columns_of_missing_values_are_read() -> None:
    empty = frames(speed=[timed("m", 1000, 100)])
    empty["speed"]["flags"] = pd.NA
    assert advise(empty, FACTS, Wish(1000, 100)).candidates[0].verdict == "fits"
