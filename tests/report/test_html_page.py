"""The page as text: complete, byte-stable, well-formed, without double names, closed to what it holds."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from typing import Any

import made_reports
import pytest

from mambabench.report.document import Cell, Column, Section, Table, Words
from mambabench.report.html import render_html

CASES = ("small", "large", "nasty", "empty")
_VOID = {"meta", "link", "br", "img", "input", "hr"}


@cache
def page(case: str) -> str:
    return render_html(made(case))


def made(case: str) -> Any:
    return made_reports.large(200) if case == "large" else getattr(made_reports, case)()


class Elements(HTMLParser):
    """Elements with their attributes and texts; what is not closed in order is a mistake."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@cache
def elements(case: str) -> Elements:
    return Elements(page(case))


@pytest.mark.parametrize("case", CASES)
def test_equal_reports_give_equal_pages_that_utf_8_holds(case: str) -> None:
    assert render_html(made(case)) == page(case)
    assert "\r" not in page(case)
    page(case).encode("utf-8")


@pytest.mark.parametrize("case", CASES)
def test_names_are_unique_and_all_that_points_to_one_finds_it(case: str) -> None:
    found = elements(case).found
    ids = Counter(a["id"] for _, a in found if "id" in a)
    assert [name for name, n in ids.items() if n > 1] == []
    pointed = [(a.get("href") or "")[1:] for _, a in found if (a.get("href") or "").startswith("#")]
    pointed += [
        name for _, a in found for key in ("aria-labelledby", "for") for name in (a.get(key) or "").split()
    ]
    pointed += re.findall(r"url\(#([^)]+)\)", page(case))
    assert set(pointed) <= set(ids)
    assert all(re.fullmatch(r"[\w.-]+", str(name)) for name in ids)


@pytest.mark.parametrize("case", CASES)
def test_landmarks_headings_and_headers(case: str) -> None:
    shown = elements(case)
    assert shown.of("html") == [{"lang": "en"}]
    assert [len(shown.of(tag)) for tag in ("h1", "main", "header", "footer", "nav")] == [1] * 5
    assert shown.found[[tag for tag, _ in shown.found].index("body") + 1] == (
        "a", {"class": "skip", "href": "#_content"},
    )  # fmt: skip
    levels = [int(tag[1]) for tag, _ in shown.found if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {a.get("scope") for a in shown.of("th")} <= {"col", "row"}
    assert len(shown.of("caption")) == len(shown.of("table")) == len(made(case).tables())


@pytest.mark.parametrize("case", CASES)
def test_only_the_pages_own_style_and_script_may_run(case: str) -> None:
    metas = elements(case).of("meta")
    policy = next(a["content"] for a in metas if a.get("http-equiv") == "Content-Security-Policy")
    digests = {
        base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        for tag in ("style", "script")
        for body in re.findall(rf"<{tag}>(.*?)</{tag}>", page(case), re.DOTALL)
    }
    assert len(digests) == 2
    assert policy == (
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; "
        "form-action 'none'".format(*sorted(digests, key=lambda d: str(policy).index(d)))
    )
    for tag, attributes in elements(case).found:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag


def test_addresses_are_places_in_the_page_or_the_page_itself() -> None:
    for case in CASES:
        for tag, attributes in elements(case).found:
            for name in ("href", "src", "xlink:href", "action"):
                assert re.match(r"#|data:image/png;base64,", attributes.get(name) or "#"), (tag, attributes)


def test_texts_show_as_they_are_and_what_is_unseen_as_its_code() -> None:
    texts = elements("nasty").texts
    for tag, n in {
        "title": 2,
        "h1": 1,
        "code": 1,
        "pre": 0,
        "h3": 2,
        "caption": 1,
        "th": 8,
        "p": 4,
        "li": 3,
    }.items():
        assert sum(made_reports.NASTY_SHOWN in text for text in texts.get(tag, [])) >= n, tag
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2028\ud800]", page("nasty"))
    assert len(elements("nasty").of("script")) == 2


def test_sections_blocks_and_cells_are_all_there_in_order() -> None:
    report = made("large")
    text = page("large")
    places = [text.index(f'id="{section.key}"') for section in report.sections]
    assert places == sorted(places)
    for table in report.tables():
        body = text.split(f'id="table_{table.key}"')[1].split("</table>")[0].split("<tbody>")[1]
        rows = body.split("<tr")[1:]
        assert len(rows) == len(table.rows)
        for row, shown in zip(table.rows, rows, strict=True):
            plain = re.sub(r"<sup>.*?</sup>|<[^>]+>|\s+", " ", f"<{shown}")
            for cell in row:
                assert " ".join(re.findall(r"\S+", cell.text)) in re.sub(r"\s+", " ", plain)


def test_cells_carry_what_they_are_sorted_by() -> None:
    text = render_html(made_reports.report(Section("s", "S", (made_reports.values(),))))
    assert re.findall(r'data-k="([^"]*)"', text) == ["3", "Infinity", "-1.5", "20", "-Infinity", "100"]


def test_tones_are_signs_and_words_as_well() -> None:
    text = page("small")
    for tone, word, sign in (("good", "good", "✓"), ("bad", "bad", "✗"), ("doubt", "doubtful", "?")):
        label = f'<span class="mark" role="img" aria-label="{word}">{sign}</span>'
        assert re.search(rf'<td class="{tone}">{re.escape(label)}', text)
        assert re.search(rf'<p class="words {tone}">\s*{re.escape(label)}', text)


def test_notes_stand_below_the_table_each_once() -> None:
    cells = ((Cell("a", note="one"), Cell("b", note="two")), (Cell("c", note="two"), Cell("d")))
    table = Table("t", "T", (Column("x"), Column("y")), cells, "scores")
    text = render_html(made_reports.report(Section("s", "S", (table,))))
    assert re.findall(r'href="#(table_t_note_\d)" title="(\w+)"', text) == [
        ("table_t_note_1", "one"), ("table_t_note_2", "two"), ("table_t_note_2", "two"),
    ]  # fmt: skip
    assert re.findall(r'<li id="(table_t_note_\d)">(\w+)</li>', text) == [
        ("table_t_note_1", "one"), ("table_t_note_2", "two"),
    ]  # fmt: skip


def test_intervals_are_apart_from_values() -> None:
    assert re.search(r'\d<span class="interval"> \[[\d.]+, [\d.]+\]</span>', page("small"))


def test_items_are_data_that_no_text_ends() -> None:
    bodies = re.findall(
        r'<script type="application/json" class="data">(.*?)</script>', page("nasty"), re.DOTALL
    )
    assert len(bodies) == 1
    assert not re.search("[<>&\u2028\u2029]", bodies[0])
    assert json.loads(bodies[0])["items"][0][2][0] == made_reports.NASTY_SHOWN


def test_commands_in_sentences_are_set_as_such_and_nothing_else_is() -> None:
    words = Words(("Try `mambabench <x>`.", "A `lone backtick and <b>bold</b>."))
    text = render_html(made_reports.report(Section("s", "S", (words,))))
    assert "Try <code>mambabench &lt;x&gt;</code>." in text
    assert "A `lone backtick and &lt;b&gt;bold&lt;/b&gt;." in text
