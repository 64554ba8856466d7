"""Check a suite's YAML: every mistake is collected, none stops the search for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mambabench.yaml_check import YamlChecker, kind_of

if TYPE_CHECKING:
    from mambabench.taskindex import TaskEntry, TaskIndex

_SUITE_KEYS = ("name", "title", "description", "kind", "reference", "tasks")
_TASK_KEYS = ("task", "metrics", "num_fewshot", "label", "chance")


class SuiteChecker(YamlChecker):
    """Reads one suite; `mistakes` holds a sentence for each thing wrong with it."""

    def __init__(self, index: TaskIndex) -> None:
        super().__init__()
        self.index = index

    def check(self, document: Any, *, default_name: str) -> dict[str, Any]:
        """Return the suite with defaults filled in; meaningless when there are mistakes."""
        if not isinstance(document, dict):
            self.mistakes.append("the file holds no mapping with the key 'tasks'")
            return {}
        self.unknown_keys(document, _SUITE_KEYS, "")
        name = self.name(document, default_name)
        if document.get("kind", "zeroshot") != "zeroshot":
            self.mistakes.append(f"'kind': '{document['kind']}' is not 'zeroshot'")
        return {
            "name": name,
            "title": self.text(document, "title", name, ""),
            "description": self.text(document, "description", "", "").strip(),
            "reference": self._reference(document.get("reference")),
            "tasks": self._tasks(document),
        }

    def _tasks(self, document: dict[Any, Any]) -> list[dict[str, Any]]:
        tasks = document.get("tasks")
        if "tasks" not in document:
            self.mistakes.append("'tasks' is missing")
        elif not isinstance(tasks, list) or not tasks:
            self.mistakes.append("'tasks' must be a list with at least one task")
        if not isinstance(tasks, list):
            return []
        checked = []
        owner: dict[str, str] = {}
        for number, item in enumerate(tasks, 1):
            task = self._task(item, f"task {number}")
            if task is None:
                continue
            checked.append(task)
            for leaf in self.index.leaves(task["task"]):
                if leaf in owner:
                    via = "" if leaf == task["task"] == owner[leaf] else f" (in '{owner[leaf]}' before)"
                    self.mistakes.append(f"task '{leaf}' stands twice{via}")
                    break
                owner[leaf] = task["task"]
        self._labels(checked)
        return checked

    def _labels(self, tasks: list[dict[str, Any]]) -> None:
        """Note labels under which two rows of a table would look like one task."""
        names = {task["task"] for task in tasks}
        owner: dict[str, str] = {}
        for task in tasks:
            name, label = task["task"], task["label"]
            if label in names and label != name:
                self.mistakes.append(f"task '{name}': label '{label}' is the name of another task")
            elif owner.get(label, name) != name:
                self.mistakes.append(f"task '{name}': label '{label}' is that of task '{owner[label]}' too")
            elif label is not None:
                owner[label] = name

    def _task(self, item: Any, where: str) -> dict[str, Any] | None:
        if isinstance(item, str):
            item = {"task": item}
        if not isinstance(item, dict):
            self.mistakes.append(f"{where}: must be a task's name or a mapping with the key 'task'")
            return None
        name = item.get("task")
        named = isinstance(name, str) and name != ""
        where = f"task '{name}'" if named else where
        self.unknown_keys(item, _TASK_KEYS, f"{where}: ")
        entry: TaskEntry | None = None
        if "task" not in item:
            self.mistakes.append(f"{where}: 'task' is missing")
        elif not named:
            self.mistakes.append(f"{where}: 'task' must be text, not {kind_of(name)}")
        elif name not in self.index:
            close = self.index.closest(str(name))
            self.mistakes.append(
                f"unknown task '{name}'" + (f", closest: {', '.join(close)}" if close else "")
            )
        else:
            entry = self.index.get(str(name))
        metrics = self._metrics(item, entry, where)
        num_fewshot = self._num_fewshot(item.get("num_fewshot"), entry, where)
        label = self.text(item, "label", "", f"{where}: ") or None
        chance = self._chance(item.get("chance"), metrics, where)
        if entry is None:
            return None
        return {
            "task": entry.name,
            "metrics": metrics,
            "num_fewshot": num_fewshot,
            "label": label,
            "chance": chance,
        }

    def _metrics(self, item: dict[Any, Any], entry: TaskEntry | None, where: str) -> list[str]:
        known = entry.metrics if entry is not None else ()
        if "metrics" not in item:
            if entry is not None and not known:
                own = "the task does not list its own"
                why = own if entry.kind == "task" else "its members have none in common"
                self.mistakes.append(f"{where}: 'metrics' is missing, and {why}")
            return list(known)
        given = item["metrics"]
        metrics = [given] if isinstance(given, str) else given
        if not isinstance(metrics, list) or not metrics or not all(isinstance(m, str) for m in metrics):
            self.mistakes.append(f"{where}: 'metrics' must be a list of names, not {kind_of(given)}")
            return []
        for metric in dict.fromkeys(metrics):
            if metrics.count(metric) > 1:
                self.mistakes.append(f"{where}: metric '{metric}' stands twice")
            if known and metric not in known:
                self.mistakes.append(f"{where}: no metric '{metric}', it has {', '.join(known)}")
        return metrics

    def _num_fewshot(self, value: Any, entry: TaskEntry | None, where: str) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            shown = value if isinstance(value, int | float | str) else kind_of(value)
            self.mistakes.append(f"{where}: 'num_fewshot' must be a whole number from 0, not {shown!r}")
            return None
        if value > 0 and entry is not None:
            pinned = [n for n in self.index.leaves(entry.name) if self.index.get(n).num_fewshot == 0]
            if pinned:
                self.mistakes.append(
                    f"{where}: 'num_fewshot' is {value}, but lm-eval fixes it to 0 for {pinned[0]}"
                )
        return value

    def _chance(self, value: Any, metrics: list[str], where: str) -> dict[str, float] | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            self.mistakes.append(f"{where}: 'chance' must map metrics to numbers, not {kind_of(value)}")
            return None
        for metric, number in value.items():
            if metrics and metric not in metrics:
                self.mistakes.append(f"{where}: 'chance' names '{metric}', which is not among its metrics")
            if isinstance(number, bool) or not isinstance(number, int | float) or number < 0:
                self.mistakes.append(
                    f"{where}: 'chance' of '{metric}' must be a number from 0, not {number!r}"
                )
        return {str(k): float(v) for k, v in value.items() if isinstance(v, int | float)}

    def _reference(self, value: Any) -> list[str]:
        if value is None:
            return []
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            self.mistakes.append(f"'reference' must name a source or list several, not {kind_of(value)}")
            return []
        from mambabench.references import sources

        known = [source.id for source in sources().values() if source.kind == "zero_shot"]
        for name in names:
            if name not in known:
                self.mistakes.append(f"'reference': unknown source '{name}', known: {', '.join(known)}")
        return names
