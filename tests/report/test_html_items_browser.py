"""Looking through items in a real browser: pages, outcomes, words, and quick with ten thousand of them."""

from __future__ import annotations

import statistics
from functools import cache
from typing import Any

import made_reports
import pytest
from pages import Open, browser, opened

from mambabench.report.document import Answer, Browser, Item, Section, TaskItems
from mambabench.report.html import render_html
from mambabench.report.html.items import OUTCOMES, outcome

__all__ = ["browser", "opened"]
MOST_MS = 100
"""That an action may take at 10,000 items."""


@cache
def tasks() -> tuple[TaskItems, ...]:
    texts = tuple(Item(i, "texts", f"İ text {i}", "", (Answer("", None, -1.0 - i),) * 2) for i in range(3))
    return (
        made_reports.items(60, 3),
        made_reports.items(8, 1, "lambada"),
        TaskItems("texts", "Texts", ("model-0", "model-1"), texts, 3),
    )


@cache
def page() -> str:
    return render_html(made_reports.report(Section("items", "Items", (Browser(tasks()),))))


def numbers(page: Any) -> list[int]:
    """Return the numbers of the items that are seen."""
    return [int(text.split()[-1]) for text in page.locator(".list h4 span:first-child").all_inner_texts()]


def said(page: Any) -> str:
    return str(page.locator(".pager [role=status]").inner_text())


def test_items_come_in_pages(opened: Open) -> None:
    found = opened(page())
    assert (numbers(found.page), said(found.page)) == (list(range(25)), "Items 1–25 of 60")
    previous, following = (found.page.get_by_role("button", name=n).first for n in ("Previous", "Next"))
    assert previous.is_disabled()
    following.click()
    assert (numbers(found.page), said(found.page)) == (list(range(25, 50)), "Items 26–50 of 60")
    found.page.keyboard.press("Enter")
    assert (numbers(found.page), said(found.page)) == (list(range(50, 60)), "Items 51–60 of 60")
    assert following.is_disabled()
    # Who pages by keyboard is not thrown out of the list by a button that can no longer be pressed.
    assert found.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Page"
    previous.click()
    assert numbers(found.page)[0] == 25
    number = found.page.get_by_role("spinbutton", name="Page")
    for typed, at in (("3", 50), ("99", 50), ("0", 0), ("", 0)):
        number.fill(typed)
        number.press("Enter")
        assert numbers(found.page)[0] == at
    found.page.get_by_role("button", name="Next").last.click()
    assert numbers(found.page)[0] == 25
    assert found.page.locator(".pager").first.bounding_box()["y"] >= 0
    found.check_quiet()


@pytest.mark.parametrize("name", OUTCOMES)
def test_items_are_picked_by_what_became_of_them(opened: Open, name: str) -> None:
    found = opened(page())
    for model in (1, 2):
        found.page.get_by_label("Model", exact=True).select_option(f"model-{model}")
        wanted = [item.doc_id for item in tasks()[0].items if outcome(item, model) == name]
        label = found.page.locator("fieldset label").filter(has_text=name)
        assert label.locator(".count").inner_text() == str(len(wanted))
        label.locator("input").check()
        assert numbers(found.page) == wanted[:25]
        assert said(found.page).endswith(f"of {len(wanted)}")


def test_any_two_models_and_one_alone_can_be_looked_at(opened: Open) -> None:
    found = opened(page())
    found.page.get_by_label("Model", exact=True).select_option("model-1")
    found.page.get_by_label("won or lost against").select_option("model-2")
    found.page.get_by_label("won", exact=False).last.check()
    items = tasks()[0].items
    wanted = [i.doc_id for i in items if i.answers[1].right and not i.answers[2].right]
    assert numbers(found.page) == wanted[:25]
    found.page.get_by_label("won or lost against").select_option("model-1")
    found.page.locator("fieldset label").filter(has_text="wrong").locator("input").check()
    assert numbers(found.page) == [i.doc_id for i in items if not i.answers[1].right][:25]


def test_another_task_has_its_own_models(opened: Open) -> None:
    found = opened(page())
    found.page.get_by_label("Task").select_option("Items of lambada")
    assert numbers(found.page) == list(range(8))
    assert not found.page.get_by_label("Model", exact=True).is_visible()
    assert found.page.locator("fieldset label").all_inner_texts()[1:] == [
        f"{sign} {name}\n{sum(bool(i.answers[0].right) == right for i in tasks()[1].items)}"
        for sign, name, right in (("✓", "right", True), ("✗", "wrong", False))
    ]
    assert found.page.locator(".task:visible h3").all_inner_texts() == ["Items of lambada"]


def test_items_that_are_not_right_or_wrong_are_shown_alone(opened: Open) -> None:
    found = opened(page())
    found.page.get_by_label("Task").select_option("Texts")
    assert numbers(found.page) == [0, 1, 2]
    assert found.page.locator("fieldset:visible").count() == 0
    assert "(not known) -2.00 nats" in found.page.locator(".list .item").nth(1).inner_text()
    # What grows in lower case is found, but places in it are not known.
    found.page.get_by_label("Text holds").fill("text 1")
    assert numbers(found.page) == [1]
    assert found.page.locator("mark").count() == 0
    found.page.get_by_label("Text holds").fill("")
    # Back at a task with outcomes, they can be picked again.
    found.page.get_by_label("Task").select_option("Items of piqa")
    assert found.page.locator("fieldset:visible").count() == 1


def test_words_are_found_in_all_texts_and_marked(opened: Open) -> None:
    found = opened(page())
    found.page.get_by_label("Text holds").fill("QUESTION 17?")
    assert numbers(found.page) == [17]
    assert found.page.locator("mark").all_inner_texts() == ["Question", "17?"]
    found.page.get_by_label("Text holds").fill("choice of")
    assert len(numbers(found.page)) == 25
    found.page.get_by_label("Text holds").fill("no such words")
    assert (numbers(found.page), said(found.page)) == ([], "No such items")


def test_an_item_shows_what_was_asked_and_answered(opened: Open) -> None:
    found = opened(page())
    item = tasks()[0].items[3]
    shown = found.page.locator(".list .item").nth(3)
    assert shown.locator(".question").inner_text() == item.question
    rows = [" ".join(text.split()) for text in shown.locator("dl > div").all_inner_texts()]
    for row, answer, model in zip(rows[1:], item.answers, tasks()[0].models, strict=False):
        mark = "✓ right" if answer.right else "✗ wrong"
        assert row == f"{model} {answer.text.strip()} {mark} {answer.log_likelihood:.2f} nats"
    assert rows[0] == f"right answer {item.right_answer.strip()}"
    assert shown.locator("details dd").count() == 0
    shown.locator("summary").click()
    assert item.answers[2].text.strip() in shown.locator("details dd").inner_text()


def test_texts_of_items_stay_texts(opened: Open) -> None:
    found = opened(render_html(made_reports.nasty()))
    item = found.page.locator(".list .item").first
    assert item.locator(".question").inner_text() == made_reports.NASTY_SHOWN
    assert made_reports.NASTY_SHOWN in item.locator("dl > div").nth(1).inner_text()
    assert "-inf nats" in item.inner_text()
    assert found.page.locator("main img, main style").count() == 0
    found.page.get_by_label("Text holds").fill("<script>alert")
    assert numbers(found.page) == [0]
    found.check_quiet()


def test_every_action_is_quick_with_ten_thousand_items(opened: Open) -> None:
    many = made_reports.items(10_000, 3)
    found = opened(render_html(made_reports.report(Section("items", "Items", (Browser((many,)),)))))
    times = found.page.evaluate("""() => {
        const block = document.querySelector(".items");
        const [next] = [...block.querySelectorAll(".pager button")].filter((b) => b.textContent === "Next");
        const [, model, against] = block.querySelectorAll("select");
        const search = block.querySelector("input[type=search]");
        const page = block.querySelector("input[type=number]");
        const set = (control, value, event) => {
            control.value = value;
            control.dispatchEvent(new Event(event, { bubbles: true }));
        };
        const actions = {
            next: () => next.click(),
            page: (i) => set(page, String(100 + i), "change"),
            outcome: (i) => block.querySelectorAll("fieldset input")[1 + (i % 4)].click(),
            search: (i) => set(search, `question ${i}`, "input"),
            model: (i) => set(model, String(1 + (i % 2)), "change"),
            against: (i) => set(against, String(i % 3), "change"),
        };
        const timed = (act) => Array.from({ length: 7 }, (_, i) => {
            const start = performance.now();
            act(i);
            // Laid out, as before it is seen.
            document.body.getBoundingClientRect();
            return performance.now() - start;
        });
        return Object.fromEntries(Object.entries(actions).map(([name, act]) => [name, timed(act)]));
    }""")
    medians = {name: statistics.median(found) for name, found in times.items()}
    assert max(medians.values()) < MOST_MS, medians
    found.check_quiet()
