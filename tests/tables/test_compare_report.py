"""What a comparison says is what it holds, at every width, and texts of items do no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparisons import calibration, comparison, contrast, overall, shift, side
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.compare.result import Comparison, Family, TaskChanges
from mambabench.tables.compare import terminal
from mambabench.tables.compare.details import moved
from mambabench.tables.compare.format import amount, harmless, interval, p_value, shortened, signed, value
from mambabench.tables.compare.plain import as_json, plain
from mambabench.tables.compare.terminal import as_text
from mambabench.tables.compare.words import (
    corrections,
    likelihood_tallies,
    limits,
    sensitivity,
    tallies,
    verdicts,
    words,
)

ONE = {"tuned": 3.0}


def only(**changes: object) -> Comparison:
    """A comparison of one contrast and nothing else."""
    made = comparison(1, ONE, changes=(), calibrations=(), ranking=None)
    return replace(made, contrasts=(contrast(**changes),), families=(Family("tasks", 1, "holm", 0.05),))


def at_width(monkeypatch: pytest.MonkeyPatch, shown: Comparison, width: int) -> list[str]:
    monkeypatch.setattr(terminal, "_WIDTH_OF_FILES", width)
    return as_text(shown).splitlines()


def row(text: str, begins: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.strip().startswith(begins)]
    return found.split()


def test_the_verdict_of_each_candidate_comes_first() -> None:
    shown = comparison(6)
    lines = as_text(shown).splitlines()
    worse = shown.overall[1]
    assert lines[0].startswith(
        "ft-lr5e-5 is not distinguishable from base: +1.7 points on average over 6 tasks"
    )
    assert lines[2] == (
        "  log-likelihood of the right answers: better on 2 of 6 tasks (PIQA and ARC-E), p up to 0.073"
    )
    assert lines[3] == (
        f"ft-lr5e-4 is worse than base: {worse.difference:+.1f} points on average over 6 tasks "
        f"(95% {worse.low:+.1f} to {worse.high:+.1f}), p < 0.001."
    )
    assert lines[4] == "  of 6 tasks: worse on 6"
    # An interval without 0 beside a p-value of 0.07 wants an explanation.
    adjusted = replace(worse, p_value=0.035, p_adjusted=0.07)
    assert (
        as_text(replace(shown, overall=(shown.overall[0], adjusted)))
        .splitlines()[3]
        .endswith("), adjusted p = 0.070.")
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "better"}, "tuned is better than base: +3.0 points (95% -1.3 to +7.3)"),
        ({"verdict": "better", "within_margin": True}, "is better than base, though by less than 1 point: "),
        ({"verdict": "equivalent", "margin": 2.5}, "is equivalent to base within 2.5 points: "),
        ({"verdict": "not distinguishable"}, "is not distinguishable from base: "),
        (
            {"verdict": "not tested", "p_adjusted": None, "low": None, "high": None},
            "tuned was not tested against base: +3.0 points in acc_norm of HellaSwag.",
        ),
        (
            {"verdict": "worse", "effect_unit": "%", "unit": "ppl", "measure": "perplexity"},
            "+3.0% (95% -1.3 to +7.3) in perplexity",
        ),
    ],
)
def test_a_single_task_speaks_for_itself(changes: dict[str, object], words: str) -> None:
    ((_, sentence),) = verdicts(only(**changes))
    assert words in sentence


def test_without_a_mean_the_verdicts_are_counted() -> None:
    found = [
        contrast(task=f"t{i}", label=f"T{i}", verdict=v)
        for i, v in enumerate(("worse", "better", "worse", "not tested"))
    ]
    shown = replace(only(), contrasts=tuple(found))
    ((_, sentence),) = verdicts(shown)
    assert sentence == "tuned against base, of 4 tasks: worse on 2, better on 1, not tested on 1."
    assert tallies(shown, "tuned") == (
        "of 4 tasks: worse on 2 (T0 and T2), better on 1 (T1), not tested on 1 (T3)"
    )
    ((_, nothing),) = verdicts(replace(shown, contrasts=()))
    assert nothing == "tuned was not compared with base on any task."
    # A whole that is not of single items says so.
    mixed = replace(shown, overall=(overall("tuned", found, paired=False),))
    assert verdicts(mixed)[0][1].endswith("; not all tasks item by item.")
    totals = replace(mixed, contrasts=tuple(replace(c, paired=False) for c in found))
    assert verdicts(totals)[0][1].endswith("; by totals only, no task item by item.")


def test_right_answers_may_tell_what_accuracies_do_not() -> None:
    likelihood: dict[str, Any] = {"measure": "log-likelihood", "headline": False, "family": "log-likelihoods"}
    unit: dict[str, Any] = {"unit": "nats", "effect_unit": "nats", "margin": 0.01}
    found = [
        contrast(task=f"t{i}", label=f"T{i}", verdict="worse", p_adjusted=p, **likelihood, **unit)
        for i, p in enumerate((0.0001, 0.0002, 0.0003))
    ]
    shown = replace(only(verdict="not distinguishable"), contrasts=(contrast(), *found))
    said = "log-likelihood of the right answers: worse on 3 of 3 tasks, p < 0.001"
    assert likelihood_tallies(shown, "tuned") == said
    assert said in as_text(shown)
    # What is read by machines holds it too, with whose it is.
    assert as_json(shown)["answers"][1] == f"tuned: {said}"
    small = [replace(c, within_margin=True) for c in found]
    assert likelihood_tallies(replace(shown, contrasts=tuple(small)), "tuned") == (
        "log-likelihood of the right answers: worse on 3 of 3 tasks, though by less than 0.01 nats, p < 0.001"
    )
    mixed = (found[0], replace(found[1], p_adjusted=0.031), replace(found[2], verdict="better"))
    assert likelihood_tallies(replace(shown, contrasts=mixed), "tuned") == (
        "log-likelihood of the right answers: worse on 2 of 3 tasks (T0 and T1), p up to 0.031; "
        "better on 1 of 3 tasks (T2), p < 0.001"
    )
    alike = tuple(replace(c, verdict="not distinguishable") for c in found)
    assert likelihood_tallies(replace(shown, contrasts=alike), "tuned") == ""


def test_a_row_holds_the_contrast() -> None:
    text = as_text(only(difference=-12.25, baseline_value=41.04, verdict="worse", n_won=3, n_lost=27))
    assert row(text, "HellaSwag") == [
        "HellaSwag", "200", "41.0%", "29.8%", "-12.2", "pt", "-16.6", "to", "-7.9", "3/27", "<0.001", "6.2",
        "worse",
    ]  # fmt: skip
    header = next(line for line in text.splitlines() if "95% interval" in line)
    assert header.split()[:4] == ["task", "n", "base", "tuned"]


def test_rows_say_what_they_are_not() -> None:
    unpaired = only(
        paired=False, n=500, n_candidate=400, n_won=None, n_lost=None, verdict="not distinguishable"
    )
    text = as_text(unpaired)
    assert "500 / 400" in text
    assert f"{unpaired.title}: acc_norm, unpaired" in text.splitlines()
    assert "won/lost" not in text
    assert "Compared by totals only, without single items, which shows less: HellaSwag." in text
    assert "equivalent within ±1 pt" in as_text(only(verdict="equivalent"))
    assert "better, within ±1%" in as_text(only(verdict="better", within_margin=True, effect_unit="%"))
    blank = as_text(
        only(
            verdict="not tested", difference=None, low=None, high=None, p_value=None, p_adjusted=None,
            candidate_value=None, detectable=None, n_needed=None, remarks=("no items in common",),
        )
    )  # fmt: skip
    assert "HellaSwag acc_norm: no items in common" in blank
    assert "nan" not in blank.lower()


def test_further_metrics_have_a_table_of_their_own() -> None:
    second = contrast(measure="acc", headline=False, family="further metrics", verdict="better")
    lines = as_text(replace(only(), contrasts=(contrast(), second))).splitlines()
    place = lines.index("Further metrics: acc")
    assert [line.split()[:2] for line in lines if line.strip().startswith("HellaSwag")] == [
        ["HellaSwag", "200"], ["HellaSwag", "200"],
    ]  # fmt: skip
    assert any(line.startswith("With a chance of 80%") for line in lines[:place])
    assert any(line.rstrip().endswith("better") for line in lines[place:])


def test_limits_name_what_depends() -> None:
    found = limits(
        replace(
            only(),
            contrasts=(
                contrast(),
                contrast(task="mmlu", label="MMLU", n_clusters=57, cluster_name="subject"),
            ),
        )
    )
    assert found == [
        "Items that share a subject are not independent and count as such: MMLU 57.",
    ]


def test_what_could_not_be_seen_is_said() -> None:
    shown = comparison(6, ONE)
    assert sensitivity(shown) == [
        "With a chance of 80%, 200 items show differences of 6.2 points or more; 1 point needs 7,590 items a "
        "task. Adjusting for several tests asks for more.",
        "On average over the tasks they show 2.5 points or more.",
    ]
    mixed = (contrast(), contrast(task="mmlu", label="MMLU", n=14_042))
    (said,) = sensitivity(replace(only(), contrasts=mixed))
    assert "0.7 points or more in MMLU (14,042 items) to 6.2 points or more in HellaSwag (200)" in said
    # Differences that matter to the user, not the margin.
    asked = replace(
        shown,
        options=replace(shown.options, detect_points=2.0),
        contrasts=tuple(replace(c, n_needed=1898) for c in shown.contrasts),
    )
    assert "2 points need 1,898 items a task" in sensitivity(asked)[0]
    # What so many items show, they need not be more for.
    enough = tuple(replace(c, n_needed=200) for c in shown.contrasts)
    assert "need" not in sensitivity(replace(asked, contrasts=enough))[0]
    # Without a margin there is nothing to be shown.
    none = tuple(replace(c, n_needed=None) for c in shown.contrasts)
    without = replace(shown, options=replace(shown.options, margin_points=0.0), contrasts=none)
    assert "need" not in sensitivity(without)[0]


def test_names_with_commas_are_told_apart() -> None:
    found = [contrast(task=f"t{i}", label=f"Recall, {i} tokens", paired=False) for i in (1, 2)]
    shown = replace(only(), contrasts=tuple(found))
    assert tallies(shown, "tuned").endswith("(Recall, 1 tokens; Recall, 2 tokens)")
    assert limits(shown)[0].endswith(": Recall, 1 tokens; Recall, 2 tokens.")


def test_families_are_said_with_their_sizes() -> None:
    one = Family("tasks", 6, "holm", 0.05)
    (said,) = corrections(replace(only(), families=(one, replace(one, name="overall", n_tests=1))))
    assert said == (
        "6 tests (tasks), 1 (overall), in each p-values adjusted by Holm, 5% in all. Intervals are 95% each "
        "and not adjusted."
    )
    (said,) = corrections(replace(only(), families=(one, replace(one, name="overall", correction="none"))))
    assert "; 6 tests (overall), p-values not adjusted, 5% each." in said
    assert corrections(replace(only(), families=())) == ["Nothing was tested."]


@pytest.mark.parametrize("n_tasks", [1, 3, 14])
@pytest.mark.parametrize("n_candidates", [1, 3])
@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_fit_and_lose_no_verdict(
    monkeypatch: pytest.MonkeyPatch, n_tasks: int, n_candidates: int, width: int
) -> None:
    names = ("ft-lr5e-5", "a-checkpoint-with-a-rather-long-name-42", "third")[:n_candidates]
    shown = comparison(n_tasks, dict(zip(names, (3.0, -12.0, 0.1), strict=False)))
    lines = at_width(monkeypatch, shown, width)
    tables = [line for line in lines if not line.startswith("   ") or "─" in line]
    assert max(map(len, tables)) <= width
    for verdict in ("worse", "better", "not distinguishable"):
        n = sum(c.verdict == verdict for c in shown.contrasts)
        assert sum(line.rstrip().endswith(verdict) for line in lines) == n
    if width >= 100:
        assert len([line for line in lines if " p adj. " in line]) == 2
    # What is left out is said to be.
    assert any("won/lost" in line for line in lines)
    assert any("could" in line for line in lines)


def test_labels_like_names_of_columns_keep_their_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = replace(comparison(2, {"p adj.": 3.0}), baseline=side("n"))
    lines = at_width(monkeypatch, shown, 80)
    header = next(line for line in lines if "95% interval" in line)
    assert header.split()[-1] == "verdict"
    assert "p adj. (side)" in as_text(replace(shown, changes=()))


def test_categories_that_moved_are_few_and_named() -> None:
    shown = comparison(6)
    found, n_all = moved(shown)
    assert n_all == 48
    assert all(not c.low <= 0 <= c.high for c in found)
    text = as_text(shown)
    assert sum("answer length" in line for line in text.splitlines()) <= 8
    assert f"{len(found)} of 48 categories have an interval without 0; of so many about 2 or fewer" in text
    few = as_text(comparison(1, {"tuned": 0.0}))
    assert "0 of 4 categories have an interval without 0; of so few hardly one would by chance alone." in few


def test_examples_show_what_was_asked_and_answered() -> None:
    lines = as_text(comparison(2, ONE)).splitlines()
    place = lines.index("Items lost by tuned: 18 items, for example")
    assert lines[place + 1] == "  HellaSwag #50  Roof shingle removal: A man is sitting on a roof. He"
    assert lines[place + 2].strip() == (
        "right: 'starts pulling up roofing.' | base: 'starts pulling up roofing.' | "
        "tuned: 'is using wrap to wrap a pair of skis.'"
    )
    assert lines[place + 3].strip() == "log-likelihood of the right one -12.25 to -31.50"
    # A text that is read as a whole has no right answer.
    whole = shift(task="wikitext", change="shift", right_answer="", baseline_answer="", candidate_answer="")
    changes = TaskChanges("tuned", "wikitext", "WikiText", 9, None, None, (), (), (whole,), ())
    text = as_text(replace(only(), changes=(changes,)))
    assert "\n      log-likelihood of all of it -12.25 to -31.50\n" in text


HOSTILE = "[bold red]x[/] \x1b[2J\x1b]8;;http://e\x07 \u202e \ud800 \r\n\n\t$E=mc^2$ :smile: \x00 é 漢"


def test_texts_of_items_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    bad = shift(
        text=HOSTILE * 9, right_answer=HOSTILE, baseline_answer=HOSTILE, candidate_answer=HOSTILE,
        member=HOSTILE,
    )  # fmt: skip
    changes = TaskChanges("tuned", "hellaswag", HOSTILE, 200, 1, 1, (), (bad,), (bad,), ())
    shown = replace(
        only(label=HOSTILE, measure=HOSTILE), changes=(changes,), remarks=(HOSTILE,), title=HOSTILE
    )
    shown = replace(shown, calibrations=(calibration("tuned", label=HOSTILE),))
    text = as_text(shown)
    assert "[bold red]x[/]" in text
    assert ":smile:" in text
    for character in ("\x1b", "\x07", "\x00", "\r", "\t", "\u202e", "\ud800"):
        assert character not in text
    assert r"\x1b[2J\x1b]8;;http://e\x07 \u202e \ud800 $E=mc^2$ :smile: \x00 é 漢" in text
    text.encode("utf-8")
    json.dumps(as_json(shown), allow_nan=False, ensure_ascii=False).encode("utf-8")


@settings(max_examples=60)
@given(st.text(max_size=30))
def test_harmless_texts_are_one_printable_line(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert harmless(shown) == shown
    assert shown == text or not text.isprintable()


def test_json_is_plain_and_whole() -> None:
    shown = comparison(3, remarks=("one",))
    broken = replace(shown, contrasts=(replace(shown.contrasts[0], low=float("nan"), high=float("inf")),))
    written = json.loads(json.dumps(as_json(broken), allow_nan=False))
    assert written["schema_version"] == 1
    assert written["contrasts"][0]["low"] is None
    assert written["contrasts"][0]["difference"] == shown.contrasts[0].difference
    assert written["baseline"]["run"] == str(Path("results/base"))
    assert written["answers"] == words(broken)
    assert set(Comparison.__dataclass_fields__) < set(written)
    assert plain((np.float64("nan"), np.int64(3), np.bool_(True), {1: float("inf")})) == [
        None, 3, True, {"1": None},
    ]  # fmt: skip
    with pytest.raises(TypeError):
        plain(object())


@pytest.mark.parametrize(
    ("number", "unit", "width", "text"),
    [
        (3.04, "pt", 4.0, "+3.0"), (3.04, "pt", 0.4, "+3.04"), (-0.04, "pt", 4.0, "0.0"),
        (0.0, "pt", None, "0.0"),
        (-0.04, "pt", 0.5, "-0.04"), (0.01234, "nats", 1.0, "+0.012"), (None, "pt", None, "-"),
        (float("nan"), "pt", None, "-"), (float("inf"), "%", None, "+inf"), (3e7, "%", None, "+3.0e+07"),
        (0.5, "", None, "+0.500"),
    ],
)  # fmt: skip
def test_differences_have_signs_and_no_more_digits_than_tell(
    number: float | None, unit: str, width: float | None, text: str
) -> None:
    assert signed(number, unit, width) == text


def test_other_figures_are_written_for_people() -> None:
    assert [p_value(p) for p in (None, 1.0, 0.0999, 0.0994, 0.00099, 0.05)] == [
        "-", "1.00", "0.10", "0.099", "<0.001", "0.050",
    ]  # fmt: skip
    assert [value(61.83, "%"), value(12.3456, "ppl"), value(1e6, "ppl"), value(0.91234, "bits/byte")] == [
        "61.8%", "12.35", "1.00e+06", "0.9123",
    ]  # fmt: skip
    assert interval(-1.0, None, "pt") == ""
    # Ends that leave 0 out, and are written with a digit that says so.
    assert interval(0.0133, 41.9, "pt") == "+0.01 to +41.9"
    assert interval(-7.0, -0.04, "pt") == "-7.0 to -0.04"
    assert [interval(end, 3.0, "pt") for end in (0.0, -1e-16)] == ["0.0 to +3.0"] * 2
    assert [amount(1.0, "pt"), amount(0.01, "nats"), amount(0.004, "pt"), amount(10.0, "pt")] == [
        "1 point", "0.01 nats", "0.004 points", "10 points",
    ]  # fmt: skip
    assert [shortened("abcdef", 4), shortened("abcdef", 4, keep_end=True), shortened("ab", 4)] == [
        "abc…", "…def", "ab",
    ]  # fmt: skip


def test_sides_that_share_a_group_are_shown_so() -> None:
    made = comparison(2, ONE)
    assert made.ranking is not None
    first, second = made.ranking.ranks
    ranking = replace(made.ranking, ranks=(replace(first, groups=(1, 2)), replace(second, groups=(2,))))
    text = as_text(replace(made, ranking=ranking, candidates=(side("tuned"),)))
    assert row(text, "1, 2")[2:4] == ["base", "0.600"]
    assert "on 120 of which sides differ. Bradley and Terry over items. A ranking is no test" in text
