"""A report as one HTML file that opens from disk: no network, and nothing but reading needs a script.

The page forbids itself everything but its own style and script, which it names by their digests, so that text
of models and data sets could not run even if it were not escaped.

    page = render_html(report)
    Path("report.html").write_text(page, encoding="utf-8", newline="\\n")
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from mambabench.report.document import Browser, Code, Picture, Table
from mambabench.report.html.figures import figure_view
from mambabench.report.html.items import browser_view
from mambabench.report.html.palette import scheme_rules
from mambabench.report.html.tables import MARKS, table_view
from mambabench.report.html.text import finalized, worded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Environment

    from mambabench.report.document import Block, Report

_STYLES: Final = ("page.css", "table.css", "items.css", "print.css")
_SCRIPTS: Final = ("common.js", "scheme.js", "tables.js", "items_data.js", "items.js", "print.js")
_MOST_LETTERS: Final = 4000
"""Of what is to be typed or compared before it has to be opened."""


def render_html(report: Report) -> str:
    """Return a report as one HTML page; equal reports give equal pages.

    Args:
        report: its texts may hold anything: all of it shows as text.

    Returns:
        The page, whose line ends are line feeds and which UTF-8 can hold.
    """
    sections = [(section, [_view(block) for block in _joined(section.blocks)]) for section in report.sections]
    rules = {rule for _, views in sections for kind, view in views if kind == "figure" for rule in view.rules}
    style = f"\n{scheme_rules(sorted(rules))}{''.join(_read(name) for name in _STYLES)}"
    script = '\n(() => {\n"use strict";\n' + "".join(_read(f"script/{name}") for name in _SCRIPTS) + "})();\n"
    return _environment().get_template("page.html.j2").render(
        report=report,
        sections=sections,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        marks=MARKS,
        most_letters=_MOST_LETTERS,
    )  # fmt: skip


def _joined(blocks: Iterable[Block]) -> list[Block | list[Code]]:
    """Return blocks with what is to type or to compare in one list where it stands together."""
    found: list[Block | list[Code]] = []
    for block in blocks:
        if not isinstance(block, Code):
            found.append(block)
        elif found and isinstance(found[-1], list):
            found[-1].append(block)
        else:
            found.append([block])
    return found


def _view(block: Block | list[Code]) -> tuple[str, Any]:
    """Return the name of what shows a block in the template, and what it shows."""
    if isinstance(block, list):
        return "codes", block
    if isinstance(block, Table):
        return "table", table_view(block)
    if isinstance(block, Picture):
        return "figure", figure_view(block)
    if isinstance(block, Browser):
        return "items", browser_view(block)
    return "words", block


def _policy(style: str, script: str) -> str:
    """Return what a browser is to refuse: all but this style, this script and images within drawings."""
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    names = ("page.html.j2", "blocks.html.j2")
    environment = Environment(
        loader=DictLoader({name: _read(name) for name in names}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["worded"] = worded
    environment.filters["counted"] = "{:,}".format
    return environment
