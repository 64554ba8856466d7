"""Markdown is read back by markdown-it, an implementation of CommonMark and of GitHub's tables."""

from __future__ import annotations

import re
import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest
import tabulate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nasty_report import NASTY, made_report

from mambabench.report.document import Cell, Column, Table
from mambabench.report.markdown import grid, render_markdown
from mambabench.report.markdown_text import fenced, inline
from mambabench.tables.compare.format import harmless

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
OURS = {"<br>", "<sup>", "</sup>", "<sub>", "</sub>"}
SUMMARIES = ("Notes", "Examples", "What the figure shows")
BLOCKS = {f"<details>\n<summary>{title}</summary>\n" for title in SUMMARIES} | {"</details>\n"}
# What code hosts look for in the text of a page.
FOUND_LATER = re.compile(r"@\w|#\d|(?:https?|ftp)://|\bwww\.|mailto:\w|:[\w+-]+:|\bGH-\d", re.IGNORECASE)
texts = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="|\\`*_[]()<>&#@!~$:-+=.1 \n\tahtpw/", max_size=30),
    st.lists(st.sampled_from(NASTY.split(" ")), max_size=5).map(" ".join),
)


def plain(text: str) -> str:
    return "\n".join(harmless(line).strip() for line in text.strip().splitlines())


def shown(inline_token: Any) -> str:
    """What a reader sees of a paragraph or cell, which must hold nothing but text and our line breaks."""
    seen = []
    for token in inline_token.children:
        if token.type == "html_inline":
            assert token.content in OURS, token.content
            seen.append("\n" if token.content == "<br>" else "")
        else:
            assert token.type in ("text", "text_special"), token
            seen.append(token.content)
    return "".join(seen)


@given(texts)
@settings(max_examples=300)
@example(NASTY)
@example("1. a")
@example("- a")
@example("--- ")
@example("===")
@example("a  \nb\\")
@example("\\|")
@example("a_b_c _d_ __e__ f__g _h i_")
@example("[1, 2](x) [1] [2]: x [-1.5, 3e+10][a] [x]")
def test_any_text_is_shown_as_it_is(text: str) -> None:
    tokens = PARSER.parse(f"before\n\n{inline(text)}\n\nafter\n")
    if not plain(text):
        assert len(tokens) == 6
        return
    assert [token.type for token in tokens[3:6]] == ["paragraph_open", "inline", "paragraph_close"]
    seen = shown(tokens[4])
    assert seen.replace("\u200b", "") == plain(text)
    assert not FOUND_LATER.search(seen)
    in_list = [token.type for token in PARSER.parse(f"- {inline(text)}\n")]
    assert in_list[:3] == ["bullet_list_open", "list_item_open", "paragraph_open"]
    assert len(in_list) == 7
    heading = PARSER.parse(f"# {inline(text, line_break=' ')}\n")
    assert [token.type for token in heading] == ["heading_open", "inline", "heading_close"]


@given(st.lists(st.tuples(texts, texts), max_size=3))
@example([("a|b", "\\|"), ("---", ":-:")])
@example([("a" * 300, "b"), ("--- --- ----", "-")])
@example([])
def test_every_cell_of_a_table_stays_in_its_place(rows: list[tuple[str, str]]) -> None:
    markdown = grid(["a", "b"], [[inline(cell) for cell in row] for row in rows], [False, True])
    tokens = PARSER.parse(markdown)
    assert tokens[0].type == "table_open"
    assert tokens[-1].type == "table_close"
    cells = [token for token in tokens if token.type == "inline"]
    seen = [shown(cell).replace("\u200b", "") for cell in cells]
    assert seen == ["a", "b", *(plain(cell) for row in rows for cell in row)]


@given(texts)
@example("```\n````")
@example("~~~")
def test_code_ends_where_it_ends(text: str) -> None:
    tokens = PARSER.parse(f"{fenced(text)}\n\nafter\n")
    assert tokens[0].type == "fence"
    assert tokens[2].content == "after"
    lines = tokens[0].content.splitlines()
    assert [harmless(line) for line in lines] == [harmless(line) for line in text.splitlines()]


def test_code_keeps_its_spaces() -> None:
    assert fenced("a  b\n\tc\x1b") == "```text\na  b\n\tc\\x1b\n```"


def test_tables_have_the_cells_of_the_report() -> None:
    report = made_report()
    tokens = PARSER.parse(render_markdown(report))
    tables: list[list[str]] = []
    inside = False
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        inside = inside or token.type in ("th_open", "td_open")
        if inside and token.type == "inline":
            tables[-1].append(shown(token))
            inside = False
    scores, items, speed = tables
    assert scores[:3] == ["model", "LAMBADA (ppl ↓)", "LAMBADA (acc ↑)"]
    assert scores[5:10] == ["pythia-160m", "38.1", "33.0", "35.6", "34.3"]
    assert items == [
        "model",
        "won against base",
        "lost",
        "both right",
        "both wrong",
        "tuned",
        "1",
        "1",
        "0",
        "0",
    ]
    assert speed == [
        "model", "TPOT (ms)", "verdict", "mamba-130m", "12.3 [12.1, 12.5] 1", "", "pythia-160m", "∞",
        "out of memory 1", "x", "nan", "",
    ]  # fmt: skip


def test_answers_come_first_and_everything_is_there_in_order() -> None:
    text = render_markdown(made_report())
    said = [
        "# Two models", "2 runs on a processor", "- mamba is better.", "- Mostly.", "## How good",
        "In percent.", "### Zero-shot", "- Over all items.",
        "- LAMBADA (ppl ↓): perplexity of the last word", "### Profile",
        "*Figure.* All tasks.<br>mamba leads.", "3 of 10 items, asked of base, tuned.",
        "- hellaswag, item 3, won by tuned\n  - asked: A man sits. He\n  - right: stands up.\n"
        "  - base (wrong): falls.\n  - tuned (right): stands up.",
        "- hellaswag, item 5, lost by tuned", "## How fast", "- <sup>1</sup> 3 processes",
        "- **Caution:** Noise.",
        "- **Problem:** Lost.", "Command", "```text\nmambabench zeroshot  -o x\n```", "mambabench 0.1.0",
    ]  # fmt: skip
    places = [text.index(one) for one in said]
    assert places == sorted(places)


def test_pictures_are_links_with_their_description() -> None:
    text = render_markdown(made_report(), figures="my figures/")
    assert "![Profile](my%20figures/profile.svg)\n" in text
    shown = (
        "<details>\n<summary>What the figure shows</summary>\n\n- All tasks.\n- mamba leads.\n\n</details>"
    )
    assert shown in text


@pytest.mark.parametrize("figures", [None, 'a) <b>"'])
def test_nothing_of_a_nasty_report_becomes_markup(figures: str | None) -> None:
    tame = [token.type for token in PARSER.parse(render_markdown(made_report(), figures=figures))]
    nasty = PARSER.parse(render_markdown(made_report(lambda text: NASTY + text), figures=figures))
    # Every note differs from the next one, and empty texts are empty no more.
    more = {"bullet_list_open", "list_item_open", "paragraph_open", "inline", "html_block"}
    more |= {kind.replace("_open", "_close") for kind in more}
    assert {token.type for token in nasty} <= set(tame) | more
    for kind in ("heading_open", "table_open", "tr_open", "td_open", "fence"):
        assert sum(token.type == kind for token in nasty) == tame.count(kind)
    for token in nasty:
        if token.type == "html_block":
            assert token.content in BLOCKS
        for child in token.children or ():
            if child.type == "html_inline":
                assert child.content in OURS
            elif child.type == "image":
                assert child.attrs["src"] == "a%29%20%3Cb%3E%22/profile.svg"
            else:
                assert child.type in (
                    "text",
                    "text_special",
                    "strong_open",
                    "strong_close",
                    "em_open",
                    "em_close",
                )
                assert token.type != "inline" or not FOUND_LATER.search(child.content)


def test_equal_reports_give_equal_text() -> None:
    assert render_markdown(made_report()) == render_markdown(made_report())
    assert render_markdown(made_report()).endswith("</sub>\n")


def test_tables_do_not_depend_on_what_else_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def widths(text: str) -> int:
        return sum({"W": 2, "F": 2}.get(unicodedata.east_asian_width(c), int(c != "\u0301")) for c in text)

    rows = [["中文", "1"], ["x\u0301", "2"], ["a", "±3 ↑"]]
    without = grid(["a", "b"], rows, [False, True])
    monkeypatch.setattr(tabulate, "wcwidth", SimpleNamespace(wcswidth=widths), raising=False)
    monkeypatch.setattr(tabulate, "WIDE_CHARS_MODE", True)
    assert grid(["a", "b"], rows, [False, True]) == without
    assert grid(["a", "b"], rows[2:], [False, True]).splitlines()[2] == "| a | ±3 ↑ |".replace("a |", "a   |")


def test_a_table_without_columns_or_rows() -> None:
    assert grid([], [], []) == ""
    empty = Table("t", "T", (Column("a"),), (), "scores")
    assert empty.rows == ()
    assert PARSER.parse(grid(["a"], [], [False]))[0].type == "table_open"
    assert Cell("").text == inline("")
