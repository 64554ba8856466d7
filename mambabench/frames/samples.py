"""Every scored item as a row: what was asked, what the model answered, whether that is right.

    frame = samples_frame(runs, task="hellaswag")
    frame[~frame.right].groupby("label").size()

Texts are shortened as a comparison's examples are: of a question its end is kept, of an answer its
beginning. Items are read one task at a time and in batches, so that prompts with worked examples, which take
hundreds of megabytes, are never held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from mambabench.compare.items import LOG_LIKELIHOOD
from mambabench.errors import MambabenchError, StoreError, UnknownNameError
from mambabench.frames.column import WHO, Column, flag, integer, number, text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mambabench.compare.asked import Asked
    from mambabench.compare.items import AlignedSide, AlignedTask, TaskItems
    from mambabench.compare.result import Side
    from mambabench.frames.load import LoadedRun

METRIC_PREFIX: Final = "metric."
ABOUT: Final = "One row for each scored item of the zero-shot and imported runs; read when asked for."
COLUMNS: Final[tuple[Column, ...]] = (
    *WHO,
    text("task", "lm-eval's name of the task or group"),
    text("member", "task within a group, else the task itself"),
    integer("doc_id", "row of the document in its split"),
    text("question", "end of what was asked; empty where that was not kept"),
    text(
        "right_answer",
        "its beginning; empty where there is none, as of a text whose probability is the figure",
    ),
    text(
        "answer", "beginning of what the model answered; of choices the one it takes; empty where not known"
    ),
    flag("right", "by the first metric that is right or wrong; missing where there is none"),
    number("log_likelihood", "of the right answer, or of the whole text; missing if not finite", "nats"),
    number(
        f"{METRIC_PREFIX}<name>",
        "one column for each of lm-eval's metrics with a number an item; of perplexities its log-likelihood; "
        "missing where a task does not have the metric",
    ),
)
"""What `samples_frame` gives; the last stands for a column a metric."""
_SCORED: Final = ("zeroshot", "imported")
_KINDS_WITH_NUMBERS: Final = ("binary", "mean", "log mean", "ratio")


@dataclass(frozen=True)
class SideItems:
    """What one model of one run was asked of one task."""

    side: Side
    run: LoadedRun
    asked: Asked
    members: tuple[str, ...]
    """lm-eval's tasks of which there are items."""

    @cached_property
    def items(self) -> dict[str, TaskItems]:
        """Its items by lm-eval's task, read at first use.

        What cannot be read is left out: that it cannot is a warning of the runs.
        """
        from mambabench.compare.read import read_task_items

        assert self.run.stored is not None
        found = {}
        for name in self.members:
            with suppress(StoreError):
                found[name] = read_task_items(self.run.stored, self.asked.cells[name], cluster="none")
        return found


def items_by_task(
    runs: Sequence[LoadedRun], *, task: str | None = None, label: str | None = None
) -> Iterator[tuple[str, list[SideItems]]]:
    """Yield each task with the models that have items of it.

    Args:
        runs: of any kind; those without scored items have none.
        task: only this one, by the name of the task, its group or its table column.
        label: only this model.
    """
    sides = [one for run in runs for one in _sides(run) if label is None or one[0].label == label]
    for name in dict.fromkeys(name for _, _, asked in sides for name in asked):
        found = []
        for side, run, asked in sides:
            if name not in asked or not _is_meant(task, name, asked[name]):
                continue
            members = _with_items(run, asked[name])
            # A group is named by its own name or by one of its tasks, which then stands alone.
            members = (task,) if task in members else members
            if members:
                found.append(SideItems(side, run, asked[name], members))
        if found:
            yield name, found


def _sides(run: LoadedRun) -> list[tuple[Side, LoadedRun, dict[str, Asked]]]:
    from mambabench.compare.asked import asked_of
    from mambabench.compare.result import Side

    stored = run.stored
    if stored is None or stored.manifest.kind not in _SCORED:
        return []
    models = dict.fromkeys(cell.model for cell in run.cells)
    found = []
    for model in sorted(models, key=lambda m: _place(stored.manifest.models, m)):
        try:
            asked = asked_of(stored, run.cells, model)
        except MambabenchError:
            continue
        side = Side(run.label(model), model, run.path, stored.manifest.kind, True, stored.manifest.partial)
        found.append((side, run, asked))
    return found


def _place(models: Sequence[str], model: str) -> int:
    return models.index(model) if model in models else len(models)


def _is_meant(task: str | None, name: str, asked: Asked) -> bool:
    return task is None or task in (name, asked.label) or task in asked.cells


def _with_items(run: LoadedRun, asked: Asked) -> tuple[str, ...]:
    from mambabench.compare.sources import has_rows

    assert run.stored is not None
    found = []
    for name, cell in asked.cells.items():
        with suppress(StoreError):
            if has_rows(run.stored.samples_path_of(cell)):
                found.append(name)
    return tuple(found)


def together(name: str, sides: Sequence[SideItems]) -> AlignedTask:
    """Lay the items that all sides have side by side; one side alone keeps all of its own.

    Raises:
        MismatchError: they were asked otherwise, or have nothing in common.
    """
    from mambabench.compare.align import side_by_side
    from mambabench.compare.asked import check_settings
    from mambabench.compare.result import CompareOptions
    from mambabench.errors import MismatchError

    members = [m for m in sides[0].items if all(m in one.items for one in sides)]
    labels = [one.side for one in sides]
    if not members:
        raise MismatchError(f"{name}: nothing of it is on all sides")
    check_settings(name, members, [one.asked for one in sides], labels)
    read = [[one.items[m] for one in sides] for m in members]
    return side_by_side(name, sides[0].asked, members, read, labels, CompareOptions(cluster="none"))


def right_of(task: AlignedTask, side: AlignedSide) -> NDArray[np.float64] | None:
    """Return 1 for each item that a side has right, 0 for the others, [n]; None where that is not asked."""
    return None if task.accuracy is None else side.measures[task.accuracy].values


def log_likelihoods_of(side: AlignedSide) -> NDArray[np.float64] | None:
    """Return the log-likelihoods of right answers or whole texts, [n] in nats, NaN where not finite.

    A comparison leaves them out altogether where some are not finite; a single item's is of use without the
    others.
    """
    import numpy as np

    from mambabench.compare.changes import likelihood_of

    measure = likelihood_of(side)
    if measure is not None:
        values = measure.values
    elif side.choices is not None:
        right = side.choices.right[:, None]
        values = np.take_along_axis(side.choices.log_likelihoods, right, axis=1)[:, 0]
    else:
        return None
    return np.where(np.isfinite(values), values, np.nan)


def samples_frame(
    runs: Sequence[LoadedRun], task: str | None = None, label: str | None = None
) -> pd.DataFrame:
    """Return every scored item of runs as a row.

    Args:
        runs: of any kind.
        task: only this one, by the name of the task, its group or its table column.
        label: only this model.

    Returns:
        The columns of `COLUMNS`, ordered by task, then as the runs are.

    Raises:
        UnknownNameError: no run has items of that task or model.
    """
    import pandas as pd

    parts = [_rows(name, one) for name, sides in items_by_task(runs, task=task, label=label) for one in sides]
    if not parts:
        _refuse_unknown(runs, task, label)
    whole = pd.concat([_typed({}), *parts], ignore_index=True) if parts else _typed({})
    plain = [column.name for column in COLUMNS[:-1]]
    return whole[[*plain, *sorted(name for name in whole.columns if name not in plain)]]


def _rows(name: str, one: SideItems) -> pd.DataFrame:
    import numpy as np

    from mambabench.compare.texts import read_texts

    task = together(name, [one])
    side = task.sides[0]
    texts = read_texts(task, range(task.n))
    right, likelihoods = right_of(task, side), log_likelihoods_of(side)
    columns: dict[str, Any] = {
        "run": one.run.name,
        "label": one.side.label,
        "model": one.side.model,
        "task": name,
        "member": [task.members[place] for place in task.member_of],
        "doc_id": task.doc_ids,
        "question": [texts[i].question for i in range(task.n)],
        "right_answer": [texts[i].right_answer for i in range(task.n)],
        "answer": [texts[i].answers[0] for i in range(task.n)],
        "right": None if right is None else right == 1,
        "log_likelihood": np.nan if likelihoods is None else likelihoods,
    }
    for metric, measure in side.measures.items():
        if metric != LOG_LIKELIHOOD and measure.kind in _KINDS_WITH_NUMBERS:
            columns[METRIC_PREFIX + metric] = measure.values
    return _typed(columns)


def _typed(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Lay columns out with their types; a single value stands for all rows."""
    import pandas as pd

    from mambabench.frames.columns import DTYPES

    index = pd.RangeIndex(len(columns.get("doc_id", ())))
    types = {column.name: DTYPES[column.type] for column in COLUMNS[:-1]}
    types |= {name: "float64" for name in columns if name.startswith(METRIC_PREFIX)}
    return pd.DataFrame(
        {name: pd.Series(columns.get(name), index=index, dtype=dtype) for name, dtype in types.items()}
    )


def _refuse_unknown(runs: Sequence[LoadedRun], task: str | None, label: str | None) -> None:
    sides = [one for run in runs for one in _sides(run)]
    labels = list(dict.fromkeys(side.label for side, _, _ in sides))
    if label is not None and label not in labels:
        raise UnknownNameError.for_name("model", label, labels, where=f"There are {', '.join(labels)}.")
    names = list(dict.fromkeys(name for _, _, asked in sides for name in asked))
    if task is not None and task not in names:
        raise UnknownNameError.for_name("task", task, names, where=f"There are {', '.join(names)}.")
