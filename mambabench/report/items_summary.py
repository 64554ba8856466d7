"""How many items each model won and lost, as a table for formats in which nobody pages through items.

table = summary_of(task)
"""

from __future__ import annotations

from mambabench.report.document import Cell, Column, Item, Table, TaskItems


def changed(task: TaskItems, place: int) -> tuple[list[Item], list[Item]]:
    """Return the items that a model won and lost against the first one.

    Args:
        task: its items.
        place: of the model in the task's models, one at least.
    """
    pairs = [(item, item.answers[0].right, item.answers[place].right) for item in task.items]
    won = [item for item, before, after in pairs if after and before is False]
    lost = [item for item, before, after in pairs if before and after is False]
    return won, lost


def summary_of(task: TaskItems) -> Table | None:
    """Return one row a model with the items it won and lost, or None where items are not right or wrong."""
    rows = []
    for place, name in enumerate(task.models[1:], 1):
        won, lost = changed(task, place)
        pairs = [(item.answers[0].right, item.answers[place].right) for item in task.items]
        counts = (len(won), len(lost), pairs.count((True, True)), pairs.count((False, False)))
        if any(counts):
            rows.append((Cell(name), *(Cell(f"{n:,}", (n,)) for n in counts)))
    if not rows:
        return None
    return Table(
        key=task.key,
        title=task.title,
        columns=(
            Column("model"),
            Column(f"won against {task.models[0]}", numeric=True),
            Column("lost", numeric=True),
            Column("both right", numeric=True),
            Column("both wrong", numeric=True),
        ),
        rows=tuple(rows),
        frame="samples",
    )


def counted(task: TaskItems) -> str:
    """Return how many items there are, and who was asked."""
    kept = f"{len(task.items):,} of " if len(task.items) < task.n_items else ""
    return f"{kept}{task.n_items:,} items, asked of {', '.join(task.models)}."
