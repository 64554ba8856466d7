"""Which group of lm-eval a task of a results file is pooled into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from mambabench.taskindex import TaskIndex


def groups_of(content: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, str]:
    """Return the outermost group of each task that has one.

    A group counts if lm-eval still knows it as a group (not as a mere tag, whose tasks have nothing in
    common), if its tasks are in the file, and if the file states a value for it. Where files do not name
    groups, as those of the first versions and those that were made task by task, the groups of the shipped
    suites count if all of their tasks are there.

    Args:
        content: of the results file.
        tasks: that it has.
    """
    index = _index()
    present = set(tasks)
    children = content.get("group_subtasks")
    children = children if isinstance(children, dict) else {}
    found: dict[str, str] = {}
    for group in _outermost_first(children):
        entry = content["results"].get(group, {})
        known = group in index and index.get(group).kind == "group"
        if known and any("," in key and isinstance(value, int | float) for key, value in entry.items()):
            for task in _leaves(group, children, set()):
                if task in present:
                    found.setdefault(task, group)
    for group in _suites_groups():
        leaves = index.leaves(group)
        if all(leaf in present for leaf in leaves):
            for leaf in leaves:
                found.setdefault(leaf, group)
    return found


def _outermost_first(children: Mapping[str, Any]) -> list[str]:
    groups = [name for name, inside in children.items() if isinstance(inside, list) and inside]
    within = {str(child) for name in groups for child in children[name]}
    order = [name for name in groups if name not in within]
    for name in order:
        order += [c for c in children[name] if c in groups and c not in order]
    return order


def _leaves(name: str, children: Mapping[str, Any], visited: set[str]) -> Iterator[str]:
    inside = children.get(name)
    if not isinstance(inside, list) or not inside:
        yield name
        return
    if name not in visited:
        visited.add(name)
        for child in inside:
            yield from _leaves(str(child), children, visited)


@cache
def _index() -> TaskIndex:
    return TaskIndex.load()


@cache
def _suites_groups() -> tuple[str, ...]:
    from mambabench.suite import list_suites

    named = dict.fromkeys(task.task for suite in list_suites() for task in suite.tasks)
    return tuple(name for name in named if _index().get(name).kind == "group")
