"""Pages opened in a real browser: all that they say on the console, ask of the network or pop up is kept.

Usable as a plugin of a test module: `from pages import browser, opened` gives the fixtures. They skip where
there is no Chromium; MAMBABENCH_TEST_CHROMIUM names one that is not on PATH.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """A page, and what it did that it should not."""

    page: Any
    address: str
    console: list[str] = field(default_factory=list)
    """What it said, and errors of its script."""
    requests: list[str] = field(default_factory=list)
    """What it asked for besides itself."""
    dialogs: list[str] = field(default_factory=list)

    def note_dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def note_request(self, address: str) -> None:
        if not address.startswith(("data:", self.address)):
            self.requests.append(address)

    def check_quiet(self) -> None:
        assert (self.console, self.requests, self.dialogs) == ([], [], [])


def chromium() -> str | None:
    named = os.environ.get("MAMBABENCH_TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = chromium()
    if found is None:
        pytest.skip(f"none of {', '.join(_NAMES)} is on PATH, and MAMBABENCH_TEST_CHROMIUM is not set")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


Open = Callable[..., Opened]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page's text from disk; settings are those of playwright's `new_context`."""
    contexts: list[Any] = []

    def open_page(text: str, anchor: str = "", **settings: Any) -> Opened:
        path = tmp_path / f"page-{len(contexts)}.html"
        path.write_text(text, "utf-8", newline="\n")
        context = browser.new_context(**settings)
        contexts.append(context)
        found = Opened(context.new_page(), path.as_uri())
        found.page.on("console", lambda message: found.console.append(message.text))
        found.page.on("pageerror", lambda error: found.console.append(str(error)))
        found.page.on("dialog", found.note_dialog)
        found.page.on("request", lambda request: found.note_request(request.url))
        found.page.goto(found.address + anchor)
        return found

    yield open_page
    for context in contexts:
        context.close()
