"""Give lm-eval's tasks their rows: what is changed of how lm-eval works is changed here.

A task of lm-eval fetches its data in its constructor through `download`. While a `Server` is serving,
that method is replaced, for every kind of task, by one that hands out rows read here. Splits that a run
does not need are handed out empty, so that no file is read, hashed or asked for in vain.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lm_eval.api.task as lm_eval_task
import lm_eval.utils as lm_eval_utils
from lm_eval.api.task import ConfigurableTask, Task

from mambabench.errors import MambabenchError
from mambabench.schema import DataFileRecord
from mambabench.tasks.hub_data import rows_digest
from mambabench.tasks.sources import DataSource, Missing

if TYPE_CHECKING:
    from datasets import Dataset

_SPLIT_KEYS = ("test_split", "validation_split", "training_split")
_KEPT_TEMPLATES = 4096
_PROCESS_SEED = 0
_PROCESS_NUMPY_SEED = 1234


class Served(dict[str, Any]):
    """A task's splits, read when they are first asked for; stands where lm-eval keeps a `DatasetDict`."""

    def __init__(
        self,
        source: DataSource,
        task_name: str,
        dataset_path: str,
        dataset_name: str | None,
        arguments: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.source = source
        self.task_name = task_name
        self.dataset_path = dataset_path
        self.dataset_name = dataset_name
        self.arguments = arguments
        self._records: dict[str, DataFileRecord] = {}

    def __missing__(self, split: str) -> Dataset:
        try:
            found = self.source.read(self.dataset_path, self.dataset_name, split, self.arguments)
        except LookupError as error:
            missing = Missing(self.task_name, self.dataset_path, self.dataset_name, split, str(error))
            raise self.source.error([missing]) from error
        self[split] = found.dataset
        self._records[split] = found.record
        return found.dataset

    def leave_empty(self, split: str, like: str) -> None:
        """Hand out a split without rows, with the columns of another one."""
        from datasets import Dataset

        features = self[like].features
        self[split] = Dataset.from_dict({column: [] for column in features}, features=features)

    def records(self) -> tuple[DataFileRecord, ...]:
        """Return what was read, by the order of reading."""
        return tuple(self._records.values())

    def columns(self) -> list[str]:
        """Return the columns of the splits that were read."""
        return list(dict.fromkeys(c for split in self._records for c in self[split].column_names))


class Server:
    """Hands out rows to the tasks that are built while it is serving.

    Args:
        source: where the rows are.
        shots: from the YAML's number of worked examples to the one that is used.
        everything: hand out every split that can be had instead of leaving unneeded ones empty.
    """

    def __init__(
        self, source: DataSource, shots: Callable[[int | None], int], *, everything: bool = False
    ) -> None:
        self.source = source
        self.shots = shots
        self.everything = everything
        self.left_empty = False
        """Whether some split was handed out empty although it could be had."""
        self.last: Served | None = None
        """Rows of the task that was built last: the one to blame when building fails."""

    def served(self, task: Any) -> Served | None:
        """Return what a task was given; null when it made its own rows."""
        found = getattr(task, "_mambabench_served", None)
        return found if isinstance(found, Served) else None

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve every task of lm-eval that is constructed inside."""
        originals = {cls: cls.download for cls in (Task, ConfigurableTask)}
        for cls, original in originals.items():
            cls.download = self._replacement(original)
        try:
            yield
        finally:
            for cls, original in originals.items():
                cls.download = original

    def _replacement(self, original: Callable[..., None]) -> Callable[..., None]:
        def download(task: Any, *args: Any, **kwargs: Any) -> None:
            self.last = None
            config = getattr(task, "_config", None)
            if config is not None:
                _process_once(config)
            if config is not None and callable(config.custom_dataset):
                original(task, *args, **kwargs)
                return
            self._serve(task, config)

        return download

    def _serve(self, task: Any, config: Any) -> None:
        arguments = dict(getattr(config, "dataset_kwargs", None) or {})
        name = getattr(config, "task", None) or type(task).__name__
        served = Served(self.source, name, task.DATASET_PATH or "", task.DATASET_NAME or None, arguments)
        self.last = task._mambabench_served = task.dataset = served
        if config is None:
            return
        config.num_fewshot = self.shots(config.num_fewshot)
        scored = config.test_split or config.validation_split
        if scored is None:
            return
        served[scored]
        examples = self._examples(config)
        needed = {scored, examples if config.num_fewshot > 0 else None, None}
        for split in {*(getattr(config, key) for key in _SPLIT_KEYS), examples} - needed:
            is_there = self.source.has(served.dataset_path, served.dataset_name, split)
            if not (self.everything and is_there):
                served.leave_empty(split, like=scored)
                self.left_empty = self.left_empty or is_there

    @staticmethod
    def _examples(config: Any) -> str | None:
        """Return the split that worked examples come from, by lm-eval's order."""
        fewshot = config.fewshot_config
        if fewshot is not None and fewshot.split is not None:
            return str(fewshot.split)
        if fewshot is not None and fewshot.samples is not None:
            return None
        source: str | None = config.training_split or config.validation_split or config.test_split
        return source


def make_repeatable(task: Any, fewshot_seed: int, explain: Callable[[Exception], MambabenchError]) -> None:
    """Make a task's requests the same each time they are built.

    lm-eval draws few-shot examples from one generator as it goes through the documents, so a second
    build continues where the first one stopped. Afterwards every build starts from the seed, shows no bar
    of its own, and ends in what `explain` makes of an error.
    """
    own = type(task)

    def build_all_requests(self: Any, **options: Any) -> None:
        self.set_fewshot_seed(fewshot_seed)
        bar = lm_eval_task.tqdm
        lm_eval_task.tqdm = _no_bar
        try:
            own.build_all_requests(self, **options)
        except MambabenchError:
            raise
        except Exception as error:
            raise explain(error) from error
        finally:
            lm_eval_task.tqdm = bar

    # A subclass rather than an attribute of the task, which others may set and delete.
    task.__class__ = type(own.__name__, (own,), {"build_all_requests": build_all_requests})


def compile_templates_once() -> None:
    """Let lm-eval keep its compiled templates for the life of the process.

    It compiles a task's template anew for every field of every document: 12 s for LAMBADA's prompts,
    0.4 s with the compiled template kept. A compiled template has no state, so texts are the same.
    """
    environment = lm_eval_utils.env
    if not hasattr(environment.from_string, "cache_info"):
        environment.from_string = functools.lru_cache(_KEPT_TEMPLATES)(environment.from_string)


def made_record(task: Any, docs: Any) -> DataFileRecord:
    """Return the record of rows that a task made itself: the digest of the documents."""
    split = task.get_config("test_split") or task.get_config("validation_split") or ""
    return DataFileRecord(
        split=str(split), source="generated", name="", n_rows=len(docs), sha256=rows_digest(docs)
    )


def _process_once(config: Any) -> None:
    """Let a task's `process_docs` run once a split: lm-eval calls it at every look at the documents.

    It runs from a fixed seed: some tasks shuffle choices with the global generator, and would otherwise
    show other choices when they are scored than when they are asked.
    """
    process = config.process_docs
    if not callable(process) or getattr(process, "_mambabench_once", False):
        return
    once = _once(process)
    config.process_docs = once
    if config.fewshot_config is not None and config.fewshot_config.process_docs is process:
        config.fewshot_config.process_docs = once


def _once(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    done: list[tuple[Any, Any]] = []

    @functools.wraps(process)
    def process_once(rows: Any) -> Any:
        for known, result in done:
            if known is rows:
                return result
        with _seeded():
            result = process(rows)
        done.append((rows, result))
        return result

    process_once._mambabench_once = True  # type: ignore[attr-defined]
    return process_once


@contextmanager
def _seeded() -> Iterator[None]:
    import numpy as np

    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(_PROCESS_SEED)
    np.random.seed(_PROCESS_NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _no_bar(iterable: Any, **_: Any) -> Any:
    return iterable
