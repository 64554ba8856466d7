"""The answers: true for any mixture of runs, and never more than the tests show."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_frames import (
    Made,
    contrast,
    conversation,
    lengths,
    made_runs,
    mixed,
    point,
    rows_of,
    scores,
    steps,
    sweep,
    texts,
)

from mambabench.report.answers import answers

VERDICTS = ["better", "worse", "equivalent", "not distinguishable", "not tested"]


def said(made: Made, problem: str = "") -> list[str]:
    return [sentence for words in answers(rows_of(made), problem) for sentence in words.sentences]


def test_one_candidate_is_told_with_its_interval_and_its_tasks() -> None:
    made = {
        "contrasts": [
            contrast("ft", "piqa", "better", 4.5),
            contrast("ft", "arc", "not distinguishable", 0.4),
            contrast("ft", "overall", "better", 2.45, p_value=0.004, p_adjusted=0.004),
        ],
        "scores": scores(["base", "ft"], ["piqa", "arc"], references=False)["scores"],
    }
    assert said(made)[:2] == [
        "ft is better than base: +2.5 points (95% +0.4 to +4.5) on average over 2 tasks, p = 0.004.",
        "ft against base, of 2 tasks: better on 1 (piqa), not distinguishable on 1 (arc).",
    ]


def test_a_mean_is_over_each_task_that_has_an_accuracy() -> None:
    lambada = contrast("ft", "lambada", "better", -3.0)
    perplexity = lambada | {"measure": "perplexity", "unit": "ppl", "effect_unit": "%"}
    made = {
        "contrasts": [
            contrast("ft", "piqa", "better", 4.5),
            perplexity,
            lambada | {"headline": False},
            contrast("ft", "overall", "better", 2.45),
        ]
    }
    made["scores"] = scores(["base", "ft"], ["piqa"])["scores"]
    assert "on average over 2 tasks" in said(made)[0]


def test_what_no_test_shows_is_called_not_distinguishable() -> None:
    made = {"contrasts": [contrast("ft", "piqa", "not distinguishable", 9.5)]}
    made["scores"] = scores(["base", "ft"], ["piqa"])["scores"]
    (sentence, *_) = said(made)
    assert sentence.startswith(
        "ft is not distinguishable from base: +9.5 points (95% +7.5 to +11.5) in acc of piqa"
    )


@given(
    st.lists(
        st.tuples(st.sampled_from(VERDICTS), st.floats(-50, 50), st.integers(0, 5)), min_size=1, max_size=12
    ),
    st.booleans(),
)
def test_only_what_a_test_shows_is_called_better_or_worse(
    drawn: list[tuple[str, float, int]], overall: bool
) -> None:
    found: list[dict[str, Any]] = []
    taken = set()
    for verdict, difference, i in drawn:
        task = "overall" if overall else f"task{i}"
        name = f"model{len(found) if overall else i % 3}"
        if (name, task) not in taken:
            taken.add((name, task))
            found.append(contrast(name, task, verdict, None if verdict == "not tested" else difference))
    text = " ".join(said({"contrasts": found, "scores": [{"label": "base", "task": "x"}]}))
    shown = {row["verdict"] for row in found}
    for word in ("better", "worse"):
        assert word in shown or not re.search(rf"\b{word}\b(?! is)", text), text
    for row in found:
        if len(found) <= 3:
            assert row["candidate"] in text


def test_many_candidates_are_named_by_verdict_the_largest_differences_first() -> None:
    found = [contrast(f"m{i}", "overall", "better", float(i)) for i in range(1, 6)]
    found += [contrast("n", "overall", "not distinguishable", 0.1)]
    (sentence, *_) = said({"contrasts": found, "scores": [{"label": "base", "task": "x"}]})
    assert sentence == (
        "Against base, on average over tasks: better are m5 (+5.0 points, 95% +3.0 to +7.0), m4 (+4.0 "
        "points, 95% +2.0 to +6.0), m3 (+3.0 points, 95% +1.0 to +5.0) and 2 more; not distinguishable is n."
    )


def test_averages_that_were_not_compared_are_called_just_that() -> None:
    made = scores(["a", "b", "c"], ["t0", "t1"], references=False)
    best = max(made["averages"], key=lambda row: row["value"])
    (sentence, *_) = said(made, "They were asked different things.")
    assert sentence == (
        f"The highest of 3 average accuracies is that of {best['label']}, {best['value']:.1f}% over 2 tasks; "
        "whether it is better than the others was not tested: They were asked different things."
    )


def test_one_model_has_its_average_and_its_published_figures() -> None:
    first, second, *_ = said(scores(["a"], ["t0", "t1", "t2", "t3"]))
    assert re.fullmatch(
        r"a has an average accuracy of \d\d\.\d% over 3 tasks, of which not all items were scored\.", first
    )
    assert second == "Of 3 published figures 2 are reproduced; not a on t2 label acc."


def test_best_steps_tell_how_many_may_be_as_good() -> None:
    made = steps(["ft"], (0, 10, 20, 30), ["piqa"])
    text = said(made | scores(["ft@30"], ["piqa"]))
    assert text[2] == (
        "Best training step in piqa acc: ft 20 with 37.5% (95% 35.5 to 39.5), 3 of 4 steps may be as good."
    )


def test_recall_is_told_by_effective_contexts_or_at_the_only_length() -> None:
    several = said(lengths(["a", "b", "c"], (256, 512, 1024), ("needle", "pairs")))
    assert several[0] == (
        "Recall keeps 90% of what it is at the shortest length: b up to 512 tokens (95% 256 or more); "
        "a up to 256 tokens (95% 256 to 1,024); c is not above chance at any length."
    )
    (only, *_) = said(lengths(["a"], (256,), ("needle", "pairs")))
    assert re.fullmatch(r"Recall at 256 tokens: a \d+\.\d% \(95% \d+\.\d to \d+\.\d\)\.", only)


def test_recall_is_told_by_the_rule_that_counts_and_no_further_than_was_measured() -> None:
    made = lengths(["a", "b"], (256, 512), ("needle", "pairs"))
    known = [row for row in made["effective_contexts"] if row["task"] == "mean"]
    known[0] |= {"rule": "90% above chance", "length_tokens": 512, "ever_above_chance": True}
    known[1] |= {"length_tokens": None, "length_low_tokens": None, "ever_above_chance": True}
    assert said(made)[0] == (
        "Recall keeps 90% of what it is at the shortest length: a up to 512 tokens, of what is above chance, "
        "the longest measured (95% 256 to 512); b is not above chance there."
    )


def test_published_figures_of_tasks_scored_in_part_are_not_among_all() -> None:
    made = scores(["a"], ["t0", "t1", "t2"])
    rows = [row for row in made["scores"] if row.get("reference") is not None]
    rows[-1]["verdict"] = "reproduced"
    assert "All 2 published figures are reproduced." in said(made)
    rows[-1]["verdict"] = "partial"
    assert "The published figure of the task scored in full is reproduced." in said(made)


def test_averages_over_other_tasks_are_not_held_against_each_other() -> None:
    made = scores(["a"], ["t0", "t1"], references=False)
    other = scores(["b"], ["t0", "t2"], references=False, seed=1)
    both = {name: [*made[name], *other[name]] for name in made}
    assert said(both)[0] == "2 models were evaluated; which is better was not tested."


def test_costs_of_several_machines_are_not_held_against_each_other() -> None:
    made = sweep("latency", ["a", "b", "c"], (128,))
    made["speed_ratios"] = []
    for row in made["speed"]:
        row |= {"status": "ok", "tpot_s": 0.001, "peak_bytes": 1e9}
    made["speed"][2] |= {"run": "elsewhere", "tpot_s": 1e-9}
    made["runs"] = [
        {"run": run, "kind": "latency", "device_name": name}
        for run, name in (("latency", "one"), ("elsewhere", "two"))
    ]
    (sentence, *_) = said(made)
    assert sentence.startswith("At prompt 128, batch 1, on one, of 2 models: ")
    assert "(c)" not in sentence
    made["runs"][1]["device_name"] = "one"
    assert said(made)[0] == (
        "At prompt 128, batch 1, of 3 models: least time per token measured 1.00 ns (c), most 1.00 ms (a); "
        "peak memory measured 1 GB of each."
    )


def test_costs_beside_recall_are_of_one_machine() -> None:
    made = lengths(["a", "b"], (256,), ("needle", "pairs"))
    made["recall_means"][1]["run"] = "elsewhere"
    made["runs"] = [{"run": run, "kind": "longcontext", "device_name": run} for run in ("long", "elsewhere")]
    [found] = [sentence for sentence in said(made) if "takes" in sentence]
    assert found.startswith("At 256 tokens, on long, a takes ")


def test_a_conversation_that_goes_on_otherwise_has_no_times() -> None:
    made = conversation(["a", "b"], (512,))
    for row in made["conversation"]:
        row["certified"] = row["label"] == "b"
    [found] = [sentence for sentence in said(made) if sentence.startswith("Going on")]
    assert "b 12.3 ms" in found
    assert "a 12.3 ms" not in found


def test_two_models_that_ran_side_by_side_are_told_by_ratios_at_the_longest_prompt() -> None:
    made = sweep("latency", ["a", "b"], (128, 4096))
    last = {row["figure"]: row for row in made["speed_ratios"] if row["prompt_len_tokens"] == 4096}
    (sentence, *more) = said(made)
    assert sentence.startswith("At prompt 4,096, batch 1, a takes ")
    for row in last.values():
        assert row["ratio_low"] < row["ratio"]
    assert "the time of b for each token (95% " in sentence
    assert more[0] == "Memory ran out for a at prompt 4,096, batch 1."


def test_several_models_are_told_by_the_least_and_the_most_at_one_setting() -> None:
    figures = [("a", 0.002), ("b", 0.001), ("c", 0.004)]
    made = {"speed": [point(label, 64, tpot_s=value) for label, value in figures]}
    made["speed"].append(point("a", 4096, tpot_s=0.0001))
    assert (
        said(made)[0]
        == "At prompt 64, batch 1, of 3 models: least time per token measured 1.00 ms (b), most 4.00 ms (c)."
    )


@pytest.mark.parametrize("status", ["oom", "timeout", "missing"])
def test_a_sweep_without_any_figure_says_how_it_ended(status: str) -> None:
    made = {"speed": [point("a", 64, status=status), point("b", 64, status=status)]}
    assert said(made)[0] == f"No cost was measured: of 2 points 2 {status}."


def test_a_conversation_and_a_text_alone_have_answers() -> None:
    (first, *_) = said(conversation(["a"], (512, 2048)))
    assert first == (
        "Going on with a conversation of 2,048 tokens takes a 12.3 ms, against 24.6 ms forwarding it all "
        "again."
    )
    (first, *_) = said(texts(["a", "b"]))
    assert first.startswith("book takes, lowest first: a 0.9877 bits/byte")


def test_doubts_come_last_the_worst_first() -> None:
    made = made_runs(["a", "b"]) | scores(["a"], ["piqa"])
    assert said(made)[-1] == (
        "Warnings: 1 on figures that are missing or unusable, 1 on what may mislead and 1 worth knowing; the "
        "first: broken: The run cannot be read."
    )
    assert answers(rows_of(made))[-1].tone == "bad"
    assert said(scores(["a"], ["piqa"]))[-1] == "No run failed, was cut short or carries a warning."


def test_nothing_is_called_nothing() -> None:
    assert said({}) == ["There is no run."]
    assert said({"runs": [{"run": "x", "state": "unreadable"}]}) == [
        "The run holds no result; 1 cannot be read."
    ]
    empty = {"runs": [{"run": name, "state": "empty"} for name in "ab"]}
    assert said(empty) == ["None of 2 runs holds a result."]


def test_numbers_of_the_answers_are_in_the_frames() -> None:
    made = mixed(["base", "other"])
    values = {
        abs(value)
        for rows in made.values()
        for row in rows
        for value in row.values()
        if isinstance(value, int | float)
    }
    shown = {f"{value:.{digits}f}" for value in values for digits in (1, 2, 3)}
    for sentence in said(made)[:3]:
        for token in re.findall(r"(?<![\d.,])\d+\.\d+", sentence):
            assert token in shown, (token, sentence)
