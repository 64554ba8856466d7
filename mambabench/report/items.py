"""Items to look through: what was asked, what each model answered, which items were won and lost.

    found = browser(runs)
    found.tasks[0].items[0].question

Models that were asked the same items in the same way stand side by side, the comparison's baseline first.
A model that was asked otherwise, or far fewer items, has its own list, so that it takes nothing away from the
others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mambabench.report.document import Answer, Browser, Item, TaskItems

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mambabench.compare.items import AlignedTask
    from mambabench.compare.run import Compared
    from mambabench.frames.api import Runs
    from mambabench.frames.load import LoadedRun
    from mambabench.frames.samples import SideItems

MOST_ITEMS: Final = 2_000
_LEAST_SHARE: Final = 0.5
"""Of the first model's items that another must have to stand beside it without a list of its own."""
_MOST_NAMED: Final = 3


def browser(runs: Runs, *, most_items: int = MOST_ITEMS) -> Browser | None:
    """Return the items of all runs, or None where none are kept.

    Args:
        runs: of any kind.
        most_items: of each task: those won or lost by some model first, the largest changes of each model
            before its smaller ones, then the others in their order.
    """
    compared = runs.compared
    known = compared.labels if compared is not None else ()
    return browse(
        runs.runs,
        compared=compared,
        without=_earlier_checkpoints(runs) - set(known),
        most_items=most_items,
    )


def _earlier_checkpoints(runs: Runs) -> set[str]:
    """Return the labels of checkpoints of a training before its last: tens of models nobody reads."""
    steps = runs.frame("steps").dropna(subset=["series", "step"])
    last = steps.loc[steps.groupby("series")["step"].idxmax(), "label"] if len(steps) else ()
    return set(steps["label"]) - set(last)


def browse(
    runs: Sequence[LoadedRun],
    *,
    compared: Compared | None = None,
    without: Collection[str] = (),
    most_items: int = MOST_ITEMS,
) -> Browser | None:
    """Return the items of some runs, or None where none are kept.

    Args:
        runs: of any kind.
        compared: their comparison, whose baseline stands first and whose items need not be read again; the
            first run's model stands first without one.
        without: labels of models that are left out.
        most_items: as of `browser`.

    Raises:
        ValueError: `most_items` is below one.
    """
    from mambabench.frames.samples import items_by_task

    if most_items < 1:
        raise ValueError("a browser without items shows nothing")
    baseline = "" if compared is None else compared.comparison.baseline.label
    tasks: list[TaskItems] = []
    taken: set[str] = set()
    for name, sides in items_by_task(runs):
        ordered = sorted(sides, key=lambda one: one.side.label != baseline)
        ordered = [one for one in ordered if one.side.label not in without]
        read = _read_before(name, ordered, compared)
        groups = iter([read]) if read is not None else _side_by_side(name, ordered)
        for number, (task, labels) in enumerate(groups):
            title = task.label if number == 0 else f"{task.label} ({_named(labels, ordered[0].side.label)})"
            tasks.append(_task_items(task, labels, _key(name, taken), title, most_items))
    return Browser(tuple(tasks)) if tasks else None


def _read_before(
    name: str, sides: Sequence[SideItems], compared: Compared | None
) -> tuple[AlignedTask, tuple[str, ...]] | None:
    """Return the comparison's own task where it is of exactly these sides."""
    if compared is None:
        return None
    comparison = compared.comparison
    of = {
        (s.label, s.run) for s in (comparison.baseline, *comparison.candidates) if s.label in compared.labels
    }
    task = next((task for task in compared.tasks if task.task == name), None)
    same = of == {(one.side.label, one.side.run) for one in sides}
    # What some hold back from all is worked out again.
    return (task, compared.labels) if task is not None and same and not task.held_back_by else None


def _named(labels: Sequence[str], first: str) -> str:
    named = [label for label in labels if label != first] or list(labels)
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _key(name: str, taken: set[str]) -> str:
    plain = "items-" + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "task")
    key, number = plain, 2
    while key in taken:
        key, number = f"{plain}-{number}", number + 1
    taken.add(key)
    return key


def _side_by_side(name: str, sides: Sequence[SideItems]) -> Iterator[tuple[AlignedTask, tuple[str, ...]]]:
    """Yield groups of sides that can be aligned, with their labels; the first one's comes first."""
    left = list(sides)
    while left:
        first, *others = left
        group, left = [first], []
        for other in others:
            (group if _goes_with(name, first, other) else left).append(other)
        if first is not sides[0] and (beside := _together(name, [sides[0], *group])) is not None:
            # Few items, but the same: what was won and lost among them is worth a look.
            yield beside, tuple(one.side.label for one in (sides[0], *group))
            continue
        task = _together(name, group)
        groups = [group] if task is not None else [[one] for one in group]
        for some in groups:
            aligned = task if task is not None else _together(name, some)
            if aligned is not None:
                yield aligned, tuple(one.side.label for one in some)


def _goes_with(name: str, first: SideItems, other: SideItems) -> bool:
    both = _together(name, [first, other])
    n_first = sum(len(items.doc_ids) for items in first.items.values())
    return both is not None and both.n > _LEAST_SHARE * n_first


def _together(name: str, sides: Sequence[SideItems]) -> AlignedTask | None:
    from mambabench.errors import MambabenchError
    from mambabench.frames.samples import together

    try:
        return together(name, sides)
    except MambabenchError:
        return None


def _task_items(
    task: AlignedTask, labels: tuple[str, ...], key: str, title: str, most_items: int
) -> TaskItems:
    from mambabench.compare.texts import read_texts
    from mambabench.frames.samples import log_likelihoods_of, right_of

    shown = _shown(task, most_items)
    texts = read_texts(task, shown)
    rights = [right_of(task, side) for side in task.sides]
    likelihoods = [log_likelihoods_of(side) for side in task.sides]

    def answers(item: int) -> tuple[Answer, ...]:
        return tuple(
            Answer(said, None if right is None else bool(right[item] == 1), _finite(likelihood, item))
            for said, right, likelihood in zip(texts[item].answers, rights, likelihoods, strict=True)
        )

    return TaskItems(
        key=key,
        title=title,
        models=labels,
        items=tuple(
            Item(
                doc_id=int(task.doc_ids[item]),
                member=task.members[int(task.member_of[item])],
                question=texts[item].question,
                right_answer=texts[item].right_answer,
                answers=answers(item),
            )
            for item in shown
        ),
        n_items=task.n,
    )


def _finite(values: NDArray[np.float64] | None, item: int) -> float | None:
    value = math.nan if values is None else float(values[item])
    return value if math.isfinite(value) else None


def _shown(task: AlignedTask, most: int) -> list[int]:
    """Return places of the items to show: changed ones first, both parts in the task's order."""
    import numpy as np

    from mambabench.compare.changes import flips_of

    # An item's place in the candidate's list in which it stands highest, so that a cut takes from all alike.
    rank = np.full(task.n, np.inf)
    for number in range(1, len(task.sides)):
        flips = flips_of(task, number)
        if flips.won is None or flips.lost is None:
            break
        changed = np.flatnonzero(flips.won + flips.lost)
        sizes = np.zeros(task.n) if flips.shifts is None else np.abs(flips.shifts)
        order = changed[np.argsort(-sizes[changed], kind="stable")]
        rank[order] = np.minimum(rank[order], np.arange(len(order)))
    kept = np.argsort(rank, kind="stable")[:most]
    changed_first = np.lexsort((kept, ~np.isfinite(rank[kept])))
    return [int(item) for item in kept[changed_first]]
