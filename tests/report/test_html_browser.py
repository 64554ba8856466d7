"""The page in a real browser: quiet, sorted and filtered on request, readable everywhere, whole on paper."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import made_reports
import pytest
from pages import Open, browser, opened

from mambabench.report.document import Section
from mambabench.report.html import render_html
from mambabench.report.html.palette import DARK, LIGHT, channels

__all__ = ["browser", "opened"]
PHONE = {"width": 375, "height": 700}
PRINTED_PIXELS = {"width": 672, "height": 900}
"""Width of an A4 page between the margins that the page sets, at 96 pixels an inch."""


@cache
def page(case: str) -> str:
    return render_html(made_reports.large(200) if case == "large" else getattr(made_reports, case)())


def names(page: Any, key: str) -> list[str]:
    """Return the first cells of the rows that are seen."""
    found: list[str] = page.locator(f"#table_{key} tbody tr:visible > :first-child").all_inner_texts()
    return found


def colour(rgb: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", rgb)[:3])


@pytest.mark.parametrize("scripts", [True, False])
def test_nothing_in_a_page_runs_asks_or_complains(opened: Open, scripts: bool) -> None:
    for case in ("small", "large", "nasty", "empty"):
        found = opened(page(case), java_script_enabled=scripts, viewport=PHONE)
        found.check_quiet()
        wide = found.page.evaluate("document.documentElement.scrollWidth") if scripts else 0
        assert wide <= PHONE["width"], case
        assert found.page.locator("h1").is_visible()


def test_what_got_in_after_all_would_not_run(opened: Open) -> None:
    image = '<img src="https://example.org/x.png" onerror="alert(2)">'
    got_in = f'<script>alert(1)</script>{image}<b style="color:red">'
    found = opened(page("small").replace("<footer>", f"<footer>{got_in}"))
    assert found.dialogs == []
    assert len(found.console) >= 4
    assert all("Content Security Policy" in said for said in found.console)


def test_columns_are_sorted_by_their_figures(opened: Open) -> None:
    report = made_reports.report(Section("s", "S", (made_reports.values(),)))
    found = opened(render_html(report))
    header = found.page.locator("#table_values th").nth(1)
    assert header.get_attribute("aria-sort") is None
    built = ["row 0", "row 1", "none", *(f"row {i}" for i in range(2, 7))]
    assert names(found.page, "values") == built
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    numbers = ["row 5", "row 2", "row 0", "row 4", "row 6", "row 1"]
    # What is not a number comes after numbers, and nothing after that.
    assert names(found.page, "values") == [*numbers, "row 3", "none"]
    found.page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert names(found.page, "values") == [*reversed(numbers), "row 3", "none"]
    found.page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") is None
    assert names(found.page, "values") == built
    found.page.locator("#table_values th").first.get_by_role("button").click()
    assert names(found.page, "values")[0] == "none"
    found.check_quiet()


def test_rows_are_filtered_by_words(opened: Open) -> None:
    found = opened(page("small"))
    box = found.page.get_by_role("searchbox", name="Filter rows of Zero-shot accuracy")
    box.fill("AGREES 130m")
    assert names(found.page, "scores") == ["mamba-130m"]
    assert found.page.locator("#table_scores [role=status]").inner_text() == "1 of 12 rows"
    box.fill("no such row")
    assert names(found.page, "scores") == []
    assert found.page.locator("#table_scores [role=status]").inner_text() == "0 of 12 rows"
    box.fill("")
    assert len(names(found.page, "scores")) == 12


def test_tables_are_whole_without_a_script(opened: Open) -> None:
    found = opened(page("small"), java_script_enabled=False)
    assert len(names(found.page, "scores")) == 12
    assert found.page.get_by_role("button").count() == 0
    assert found.page.get_by_role("searchbox").count() == 0
    found.page.locator("details.examples summary").first.click()
    assert found.page.locator("details.examples .question").first.is_visible()


def test_headers_and_names_stay_in_sight(opened: Open) -> None:
    found = opened(page("large"))
    box = found.page.locator("#table_wide .box")
    before = box.bounding_box()
    box.evaluate("box => box.scrollTo(600, 300)")
    assert box.evaluate("box => [box.scrollLeft, box.scrollTop]") == [600, 300]
    header = box.locator("th").first.bounding_box()
    assert abs(header["x"] - before["x"]) <= 1
    assert abs(header["y"] - before["y"]) <= 1
    name = box.locator("tbody th").nth(10).bounding_box()
    assert abs(name["x"] - before["x"]) <= 1
    # A box with nothing to scroll to is no stop of the tab key.
    assert box.get_attribute("tabindex") == "0"
    opened(page("small")).page.wait_for_selector("#table_scores .box:not([tabindex])")


@pytest.mark.parametrize("system", ["light", "dark"])
def test_colours_follow_the_system_until_one_is_picked(opened: Open, system: Any) -> None:
    schemes = [LIGHT, DARK] if system == "light" else [DARK, LIGHT]
    found = opened(page("small"), color_scheme=system)
    for scheme in schemes:
        shown = found.page.evaluate("""() => {
            const of = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
            return [of("body", "backgroundColor"), of("body", "color"), of("#figure_lines text", "fill")];
        }""")
        assert colour(shown[0]) == channels(scheme["paper"])
        assert colour(shown[1]) == channels(scheme["ink"])
        assert (sum(colour(shown[2])) > 500) == (scheme is DARK)
        found.page.locator("button.scheme").click()
    found.check_quiet()


def test_colours_reach_what_a_drawing_uses_again(opened: Open) -> None:
    found = opened(page("small"), color_scheme="dark")
    shown = found.page.screenshot(clip=found.page.locator("#figure_lines svg").bounding_box(), full_page=True)
    light = opened(page("small"), color_scheme="light")
    assert shown != light.page.screenshot(
        clip=light.page.locator("#figure_lines svg").bounding_box(), full_page=True
    )
    # Bands are drawn by reference: they inherit the page's properties, not its rules.
    band = found.page.locator("#figure_lines [class*='f-b2d4e8']").first
    assert sum(colour(band.evaluate("band => getComputedStyle(band).fill"))) < 300


def test_the_skip_link_leads_to_the_report(opened: Open) -> None:
    found = opened(page("small"))
    found.page.keyboard.press("Tab")
    assert found.page.evaluate("document.activeElement.className") == "skip"
    assert found.page.locator(".skip").bounding_box()["x"] >= 0
    found.page.keyboard.press("Enter")
    assert found.page.evaluate("document.activeElement.id") == "_content"


def test_screen_readers_are_told_what_there_is(opened: Open) -> None:
    found = opened(page("small"))
    for role, name in (
        ("navigation", "Contents"), ("table", "Zero-shot accuracy"), ("img", "Time to first token"),
        ("region", "How good are they?"), ("heading", "In short"), ("img", "doubtful"),
        ("search", "Items to show"), ("columnheader", "accuracy"), ("rowheader", "mamba-130m"),
    ):  # fmt: skip
        assert found.page.get_by_role(role, name=name).count() >= 1, (role, name)


def pages_of(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_paper_has_whole_tables_and_no_controls(opened: Open) -> None:
    found = opened(page("large"), viewport=PRINTED_PIXELS, color_scheme="dark")
    assert 8 <= pages_of(found.page.pdf(prefer_css_page_size=True)) <= 16
    found.page.emulate_media(media="print")
    assert colour(found.page.evaluate("getComputedStyle(document.body).backgroundColor")) in (
        (255,) * 3,
        (0,) * 3,
    )
    assert found.page.evaluate("getComputedStyle(document.body).color") == "rgb({}, {}, {})".format(
        *channels(LIGHT["ink"])
    )
    for control in (".scheme", ".filter", ".controls", ".pager", ".list", ".skip"):
        assert found.page.locator(f"{control}:visible").count() == 0, control
    for box in found.page.locator(".box").all():
        tall, high = box.evaluate(
            "box => [box.scrollHeight - box.clientHeight, getComputedStyle(box).overflow]"
        )
        assert (tall, high) == (0, "visible")
    # What is not printed across fits the page.
    for block in found.page.locator(".block:not(.across)").all():
        assert block.evaluate("block => block.scrollWidth - block.clientWidth") <= 0
    assert found.page.locator("#items_piqa li:visible").count() == 2
    assert found.page.locator("#items_arc li:visible").count() == 1
    found.page.set_viewport_size({"width": 998, "height": 700})
    assert found.page.locator("#table_wide").evaluate("block => block.scrollWidth - block.clientWidth") <= 0


def test_a_short_report_is_printed_on_few_pages(opened: Open) -> None:
    assert pages_of(opened(page("small")).page.pdf(prefer_css_page_size=True)) <= 3
    assert pages_of(opened(page("empty")).page.pdf(prefer_css_page_size=True)) == 1
