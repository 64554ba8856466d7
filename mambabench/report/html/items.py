"""Items to look through, as data for the page's script and as a few examples for readers without one.

Each item's texts are written once: an answer that is the right one, or another model's, is told by its place.

    >>> from mambabench.report.document import Answer, Item
    >>> answers = Answer("blue", True, -0.51234), Answer("red", False)
    >>> packed(Item(7, "piqa", "Sky?", "blue", answers), {"piqa": 0})
    [7, 0, ['Sky?', 'blue', 'red'], [1, 2], '10', [-0.512, None]]
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from mambabench.report.html.text import json_text, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mambabench.report.document import Browser, Item, TaskItems

OUTCOMES: Final = ("won", "lost", "both right", "both wrong")
_EXAMPLES = 3
"""Items of each outcome that are shown without a script."""
_RIGHT: Final = {True: "1", False: "0", None: "-"}
_LOG_LIKELIHOOD_DIGITS = 3


@dataclass(frozen=True)
class Pair:
    """How often one model of a task won and lost against the first, among the items of the page.

    There is none where items are not right or wrong.
    """

    model: str
    counts: tuple[int, ...]
    """As `OUTCOMES`."""


@dataclass(frozen=True)
class TaskView:
    """A task's items in a page."""

    key: str
    title: str
    models: tuple[str, ...]
    n_items: int
    n_shown: int
    pairs: tuple[Pair, ...]
    examples: tuple[tuple[str, Item], ...]
    """A few items that tell the first two models apart, each with its outcome."""
    data: Markup
    """All items, as JSON."""


def browser_view(browser: Browser) -> tuple[TaskView, ...]:
    """Return all tasks as the template reads them."""
    return tuple(_task_view(task) for task in browser.tasks)


def _task_view(task: TaskItems) -> TaskView:
    members = {name: place for place, name in enumerate(dict.fromkeys(i.member for i in task.items))}
    data = {
        "title": shown(task.title),
        "models": [shown(model) for model in task.models],
        "members": [shown(member) for member in members],
        "n": task.n_items,
        "items": [packed(item, members) for item in task.items],
    }
    counts = [
        (model, Counter(outcome(item, place) for item in task.items))
        for place, model in enumerate(task.models)
    ]
    pairs = tuple(
        Pair(model, tuple(found[name] for name in OUTCOMES))
        for model, found in counts[1:]
        if any(found[name] for name in OUTCOMES)
    )
    return TaskView(
        task.key, task.title, task.models, task.n_items, len(task.items), pairs, _examples(task),
        json_text(data),
    )  # fmt: skip


def packed(item: Item, members: Mapping[str, int]) -> list[Any]:
    """Return an item as JSON values.

    Args:
        item: of any content.
        members: the place of each member's name.

    Returns:
        Its number, its member's place, its texts (question, right answer, then others), the place of each
        model's answer in them (-1 for none), a letter a model (1 right, 0 wrong, - neither), and
        log-likelihoods in nats, or null where there is none at all.
    """
    texts = [shown(item.question), shown(item.right_answer)]
    places = []
    for answer in item.answers:
        text = shown(answer.text)
        if text and text not in texts:
            texts.append(text)
        places.append(texts.index(text) if text else -1)
    likelihoods = [_rounded(answer.log_likelihood) for answer in item.answers]
    return [
        item.doc_id,
        members[item.member],
        texts,
        places,
        "".join(_RIGHT[answer.right] for answer in item.answers),
        likelihoods if any(value is not None for value in likelihoods) else None,
    ]


def _rounded(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return None if value is None else round(value, _LOG_LIKELIHOOD_DIGITS)
    # JSON has no such numbers.
    return str(value)


def outcome(item: Item, place: int) -> str:
    """Return what became of an item between a model and the first one; empty where that is not known."""
    against, mine = item.answers[0].right, item.answers[place].right
    if against is None or mine is None:
        return ""
    if against == mine:
        return "both right" if mine else "both wrong"
    return "won" if mine else "lost"


def _examples(task: TaskItems) -> tuple[tuple[str, Item], ...]:
    if len(task.models) > 1:
        named = [(outcome(item, 1), item) for item in task.items]
        wanted = ["won", "lost"] if any(name in ("won", "lost") for name, _ in named) else [*OUTCOMES, ""]
    else:
        words = {True: "right", False: "wrong", None: ""}
        named = [(words[item.answers[0].right], item) for item in task.items if item.answers]
        wanted = ["wrong", "right", ""]
    return tuple(one for name in wanted for one in [pair for pair in named if pair[0] == name][:_EXAMPLES])
