"""How long actions in a report's page take in a real browser, from the event to the end of the next frame.

    with started() as browser:
        times = items_actions(browser, Path("many.html"))
    times["next page"]                                  # milliseconds, one each time

Times are taken in the page by `performance.now`: an action has ended when the frame that shows it was made.
What waits for the next beat of a screen of 60 Hz is part of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pages import chromium

REPEATS: Final = 15
ROWS: Final = 200
"""Of the table to sort: of the page's tables the one that has about as many."""
_TIMED: Final = """
const frame = () => new Promise((done) => requestAnimationFrame(() => {
    // Past the frame's own work: a message is heard after it.
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done(performance.now());
    channel.port2.postMessage(0);
}));
const set = (control, value, event) => {
    control.value = value;
    control.dispatchEvent(new Event(event, { bubbles: true }));
};
const timed = async (actions, reset) => {
    const found = {};
    for (const [name, act] of Object.entries(actions)) {
        found[name] = [];
        reset();
        for (let i = 0; i < repeats; i++) {
            await frame();
            const start = performance.now();
            act(i);
            found[name].push(await frame() - start);
        }
    }
    return found;
};
"""
_ITEMS: Final = """
const block = document.querySelector(".items");
const [next] = [...block.querySelectorAll(".pager button")].filter((b) => b.textContent === "Next");
const [task, model, against] = block.querySelectorAll("select");
const search = block.querySelector(".controls input[type=search]");
const page = block.querySelector("input[type=number]");
const shown = () => [...block.querySelectorAll("fieldset input:enabled")];
return timed({
    "next page": () => next.click(),
    "page by number": (i) => set(page, String(2 + 7 * i), "change"),
    "filter by outcome": (i) => shown().at(i % 2 ? -1 : 1).click(),
    "choose a model": (i) => set(model, String(1 + (i % 2)), "change"),
    "choose the other": (i) => set(against, String(i % 3), "change"),
    "search": (i) => set(search, "somebody would ask".slice(0, 3 + i), "input"),
    "search a number": (i) => set(search, String(i), "input"),
    "choose a task": (i) => set(task, String((i + 1) % 2), "change"),
}, () => {
    set(search, "", "input");
    set(task, "0", "change");
    shown()[0].click();
});
"""
_TABLES: Final = """
const far = (table) => Math.abs(table.tBodies[0].rows.length - rows);
const table = [...document.querySelectorAll(".box table")].sort((a, b) => far(a) - far(b))[0];
const buttons = table.querySelectorAll("button.sort");
const filter = table.closest(".block").querySelector(".filter input");
const times = await timed({
    "sort a table": (i) => buttons[i % buttons.length].click(),
    ...(filter && { "filter a table": (i) => set(filter, ["m", "ma", "mam", ""][i % 4], "input") }),
}, () => {});
return { times, rows: table.tBodies[0].rows.length };
"""


@contextmanager
def started() -> Iterator[Any]:
    """Start Chromium without a window for as long as the block runs.

    Raises:
        RuntimeError: there is none, or playwright is not installed.
    """
    found = chromium()
    if found is None:
        raise RuntimeError("there is no Chromium on PATH, and MAMBABENCH_TEST_CHROMIUM is not set")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise RuntimeError("playwright is not installed") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def items_actions(browser: Any, page: Path, repeats: int = REPEATS) -> dict[str, list[float]]:
    """Return the times of actions among the items of a page with two tasks and three models, in ms."""
    found: dict[str, list[float]] = _asked(browser, page, _ITEMS, repeats)
    return found


def table_actions(browser: Any, page: Path, repeats: int = REPEATS) -> tuple[dict[str, list[float]], int]:
    """Return the times of actions on the table with about `ROWS` rows, in ms, and its rows."""
    found = _asked(browser, page, _TABLES, repeats)
    return found["times"], found["rows"]


def _asked(browser: Any, page: Path, script: str, repeats: int) -> Any:
    opened = browser.new_page()
    opened.goto(page.resolve().as_uri())
    asked = f"async ([repeats, rows]) => {{{_TIMED}{script}}}"
    found = opened.evaluate(asked, [repeats, ROWS])
    opened.close()
    return found
