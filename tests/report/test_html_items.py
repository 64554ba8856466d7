"""Items as data of the page: every text once, and all of it read back."""

from __future__ import annotations

import json
import math

import made_reports
from hypothesis import given
from hypothesis import strategies as st

from mambabench.report.document import Answer, Browser, Item, TaskItems
from mambabench.report.html.items import OUTCOMES, browser_view, outcome, packed
from mambabench.report.html.text import json_text, shown

TEXT = st.text(max_size=12)
ANSWERS = st.builds(
    Answer,
    TEXT | st.sampled_from(["a", "b"]),
    st.sampled_from([True, False, None]),
    st.none() | st.floats(-1e6, 0) | st.sampled_from([math.nan, -math.inf]),
)
ITEMS = st.builds(
    Item,
    st.integers(0, 10**6),
    st.just("piqa"),
    TEXT,
    TEXT | st.just("a"),
    st.lists(ANSWERS, max_size=4).map(tuple),
)


@given(ITEMS)
def test_what_is_packed_can_be_read_back(item: Item) -> None:
    number, member, texts, places, right, nats = json.loads(json_text(packed(item, {"piqa": 0})))
    assert (number, member) == (item.doc_id, 0)
    assert texts[:2] == [shown(item.question), shown(item.right_answer)]
    assert [texts[p] if p >= 0 else "" for p in places] == [shown(a.text) for a in item.answers]
    assert [{"1": True, "0": False, "-": None}[r] for r in right] == [a.right for a in item.answers]
    assert len(set(texts[2:])) == len(texts[2:])
    for value, answer in zip(nats or [None] * len(places), item.answers, strict=True):
        if answer.log_likelihood is None:
            assert value is None
        elif math.isfinite(answer.log_likelihood):
            assert abs(value - answer.log_likelihood) <= 0.0005
        else:
            assert value == str(answer.log_likelihood)


@given(st.text(alphabet=st.characters()))
def test_json_in_a_script_reads_back_and_ends_nothing(text: str) -> None:
    written = json_text([shown(text)])
    assert json.loads(written) == [shown(text)]
    assert not set(written) & set("<>&\u2028\u2029")
    written.encode("utf-8")


@given(st.text(alphabet=st.characters()))
def test_all_that_is_shown_can_be_written_and_seen(text: str) -> None:
    written = shown(text)
    written.encode("utf-8")
    assert not set(written) & set("\x00\x1b\r\u202a\u202e\u2066\u2069\u200b\ufeff")
    assert shown(written) == written


def test_letters_of_all_scripts_and_lines_stay() -> None:
    text = "Zürich 語 עברית क्‍ष 👩‍🔬\n\tnext"
    assert shown(text) == text
    assert shown("a\r\nb\rc") == "a\nb\\rc"


def test_outcomes_are_told_of_a_model_against_the_first() -> None:
    answers = tuple(Answer("", right) for right in (True, True, False, None))
    item = Item(0, "t", "", "", answers)
    assert [outcome(item, place) for place in (1, 2, 3)] == ["both right", "lost", ""]
    item = Item(0, "t", "", "", tuple(reversed(answers[:3])))
    assert [outcome(item, place) for place in (0, 1)] == ["both wrong", "won"]


def test_examples_tell_two_models_apart() -> None:
    task = made_reports.items(60)
    [view] = browser_view(Browser((task,)))
    assert [name for name, _ in view.examples] == ["won"] * 3 + ["lost"] * 3
    assert all(outcome(item, 1) == name for name, item in view.examples)
    assert [pair.counts for pair in view.pairs] == [
        tuple(sum(outcome(item, 1) == name for item in task.items) for name in OUTCOMES)
    ]
    assert (view.n_items, view.n_shown) == (65, 60)


def test_items_that_are_not_right_or_wrong_have_no_counts() -> None:
    item = Item(0, "t", "q", "", (Answer("", None, -3.0), Answer("", None, -2.0)))
    [view] = browser_view(Browser((TaskItems("t", "T", ("a", "b"), (item,), 1),)))
    assert view.pairs == ()
    assert view.examples == (("", item),)
